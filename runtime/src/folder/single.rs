//! A single file as a model: its own components, and a folder for what it lacks.
use alloc::format;
use alloc::string::{String, ToString};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Component, open_tensors};
use crate::layout::SingleFile;
use crate::{Error, Result};

/// The file and, where there is one, a folder in diffusers layout of which any part may be missing.
#[derive(Debug)]
pub(super) struct Single {
    pub(super) file: SingleFile,
    path: PathBuf,
    beside: Option<PathBuf>,
}

impl Single {
    pub(super) fn open(path: &Path, config: Option<&Path>) -> Result<Self> {
        if let Some(folder) = config {
            Component::at(folder)?;
        }
        let own = [path.with_extension(""), path.parent().unwrap_or(Path::new("")).to_path_buf()];
        let found = || own.into_iter().find(|folder| crate::file::is_dir(&folder.join("tokenizer")));
        let beside = config.map(Path::to_path_buf).or_else(found);
        Ok(Single { file: SingleFile::split(&open_tensors(path)?)?, path: path.to_path_buf(), beside })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.file.component(name).is_some() || self.folder(name).is_some()
    }

    pub(super) fn beside(&self) -> PathBuf {
        let own = || self.path.parent().unwrap_or(Path::new("")).to_path_buf();
        self.beside.clone().unwrap_or_else(own)
    }

    /// The folder of a component beside the file.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        if !super::is_plain_name(name) {
            return None;
        }
        self.beside.as_ref().map(|folder| folder.join(name)).filter(|folder| crate::file::is_dir(folder))
    }

    pub(super) fn component(&self, name: &str) -> Result<Component> {
        let folder = self.folder(name).map(|folder| Component::at(&folder)).transpose()?;
        let Some(weights) = self.file.component(name) else {
            return folder.ok_or_else(|| self.missing(name));
        };
        let config = match folder.filter(|folder| folder.has_file("config.json")) {
            Some(folder) => folder.config()?,
            None => self.file.config(name)?,
        };
        Ok(Component { path: self.path.clone(), part: Some((config, weights.clone())) })
    }

    pub(super) fn config_label(&self, name: &str) -> String {
        let file = if name == "scheduler" { "scheduler_config.json" } else { "config.json" };
        match self.folder(name).map(|folder| folder.join(file)).filter(|path| crate::file::is_file(path)) {
            Some(path) => path.display().to_string(),
            None => format!("{}: {name} as its shapes tell", self.path.display()),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let searched = match &self.beside {
            Some(folder) => format!("{} and {}", self.path.display(), folder.display()),
            None => self.path.display().to_string(),
        };
        let hint = if name.starts_with("tokenizer") {
            "A single file holds no tokenizers: give --config DIR, a diffusers folder of the model with tokenizer/ and \
             tokenizer_2/ (vocab.json and merges.txt in each), or put these folders beside the file."
        } else {
            "Give --config DIR, a diffusers folder of the model that has this component."
        };
        Error::missing(searched, format!("`{name}`")).with_hint(hint)
    }
}

/// `scheduler_config.json` of all published SD3 and SD3.5 models, as far as it is read.
pub(super) fn published_schedule() -> Value {
    json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0 })
}
