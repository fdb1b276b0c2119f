//! Models on disk: folders in the layout of diffusers pipelines and of single transformers models, and single files in
//! the original layout with what else they need beside them.
//!
//! Large files of weights are memory-mapped, so opening a model reads only headers. Leave a model's files alone while it is
//! open: one that was changed or cut is refused when it is next used, but one that is cut in the very moment it is read ends
//! the process (SIGBUS on Unix), as in every program that maps weights. Files up to 32 MiB are read and cannot do that.
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

mod single;

use single::Single;

use crate::file;
use crate::schedule::Schedule;
use crate::weights::{Storage, Weights};
use crate::{Error, Result};

mod tokenizers;

pub use tokenizers::tokenizer_folder;

/// Largest text file that is read, a tokenizer's, in bytes.
pub const MAX_TEXT: u64 = 32 << 20;
/// Largest configuration or shard index that is read, in bytes.
pub const MAX_CONFIG: u64 = 4 << 20;

/// File names that diffusers and transformers give to weights, best first.
const WEIGHT_FILES: [&str; 4] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
];
/// The same for the index of a sharded checkpoint.
const INDEX_FILES: [&str; 6] = [
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.safetensors.index.json",
    "model.fp16.safetensors.index.json",
];

/// Whether `name` names something directly inside a folder: no separators, no drive, not `.` or `..`.
pub fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

/// A diffusers pipeline folder (`model_index.json` and one folder per component), or a single file that is read as one.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    root: PathBuf,
    index: Value,
    single: Option<Arc<Single>>,
}

impl ModelFolder {
    /// Opens a pipeline folder, or a single safetensors or GGUF file as [`ModelFolder::open_with`] does without a
    /// folder. Components are read when asked for.
    ///
    /// # Errors
    /// Nothing there; no `model_index.json` in a folder that is a JSON object; a file that is no SD3 checkpoint.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, None)
    }

    /// As [`ModelFolder::open`]. What a single file does not hold (tokenizers always, often an autoencoder or text
    /// encoders) comes from `config`, a folder in diffusers layout of which single components suffice. Without one, a
    /// folder of the file's own name without extension, or the folder it lies in, is used when it has a `tokenizer`.
    /// A `config.json` there is preferred to what the file's shapes tell.
    ///
    /// # Errors
    /// As [`ModelFolder::open`]; a `config` beside a model folder, which has all of its own.
    pub fn open_with(root: &Path, config: Option<&Path>) -> Result<Self> {
        if file::is_file(root) {
            let single = Some(Arc::new(Single::open(root, config)?));
            return Ok(ModelFolder { root: root.to_path_buf(), index: Value::Null, single });
        }
        if let Some(config) = config {
            let found = format!("the folder {} too", config.display());
            return Err(Error::bad(root.display().to_string(), "a single file beside --config", found)
                .with_hint("A model folder has all that it needs; leave --config out."));
        }
        let hint = "A diffusers pipeline folder is needed (model_index.json, transformer/, vae/ and so on), or a \
                    single safetensors or GGUF file.";
        let index = Component::at(root)?.json("model_index.json").map_err(|e| e.with_hint(hint))?;
        Ok(ModelFolder { root: root.to_path_buf(), index, single: None })
    }

    /// The single file taken apart, where the model is one.
    pub fn single_file(&self) -> Option<&crate::layout::SingleFile> {
        self.single.as_ref().map(|s| &s.file)
    }

    /// The folder with what else belongs to the model, such as `reward`: the model folder itself, or the one beside a
    /// single file.
    pub fn beside(&self) -> PathBuf {
        self.single.as_ref().map_or_else(|| self.root.clone(), |s| s.beside())
    }

    /// Where the configuration of a component is, for messages.
    pub fn config_label(&self, name: &str) -> String {
        match &self.single {
            Some(single) => single.config_label(name),
            None => self.root.join(name).join("config.json").display().to_string(),
        }
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// `model_index.json`; null for a single file.
    pub fn index(&self) -> &Value {
        &self.index
    }

    /// Whether the pipeline has a component: `false` when it is not listed, or listed as `null` or `[null, null]`.
    ///
    /// # Errors
    /// A component that is listed but whose folder does not exist; an entry of another form.
    pub fn has(&self, name: &str) -> Result<bool> {
        if let Some(single) = &self.single {
            return Ok(single.has(name));
        }
        let place = format!("{}: `{name}`", self.root.join("model_index.json").display());
        match self.index.get(name) {
            None | Some(Value::Null) => return Ok(false),
            Some(Value::Array(pair)) if pair.iter().all(Value::is_null) => return Ok(false),
            Some(Value::Array(pair)) if pair.len() == 2 && pair.iter().all(Value::is_string) => {}
            Some(other) => {
                return Err(Error::bad(place, "a pair [library, class] or [null, null]", other.to_string()));
            }
        }
        if !is_plain_name(name) {
            return Err(Error::bad(place, "a plain folder name", "a path"));
        }
        if file::is_dir(&self.root.join(name)) {
            return Ok(true);
        }
        Err(Error::missing(self.root.display().to_string(), format!("the folder `{name}`")).with_hint(
            "model_index.json lists it; download the model again, or set its entry to [null, null].",
        ))
    }

    /// The folder of a component.
    ///
    /// # Errors
    /// A component that the pipeline does not have, or whose folder is missing.
    pub fn component(&self, name: &str) -> Result<Component> {
        if let Some(single) = &self.single {
            return single.component(name);
        }
        if !self.has(name)? {
            let place = self.root.join("model_index.json").display().to_string();
            return Err(Error::missing(place, format!("component `{name}`")));
        }
        Component::at(&self.root.join(name))
    }

    /// `config.json` of a component (`scheduler_config.json` for the scheduler).
    ///
    /// # Errors
    /// As [`ModelFolder::component`]; a file that is missing, too large or not a JSON object.
    pub fn component_config(&self, name: &str) -> Result<Value> {
        let component = self.component(name)?;
        if name == "scheduler" { component.json("scheduler_config.json") } else { component.config() }
    }

    /// Weights of a component, whole or sharded.
    ///
    /// # Errors
    /// As [`ModelFolder::component`] and [`Component::weights`].
    pub fn component_weights(&self, name: &str) -> Result<Weights> {
        self.component(name)?.weights()
    }

    /// A text file of a component.
    ///
    /// # Errors
    /// As [`ModelFolder::component`] and [`Component::read_text`].
    pub fn read_text(&self, component: &str, file: &str) -> Result<String> {
        self.component(component)?.read_text(file)
    }

    /// The scheduler's configuration.
    ///
    /// # Errors
    /// As [`ModelFolder::component_config`] and [`Schedule::from_value`].
    pub fn schedule(&self) -> Result<Schedule> {
        if let Some(single) = self.single.as_ref().filter(|s| !s.has("scheduler")) {
            return Schedule::from_value(&single::published_schedule(), &single.config_label("scheduler"));
        }
        let label = self.root.join("scheduler").join("scheduler_config.json").display().to_string();
        Schedule::from_value(&self.component_config("scheduler")?, &label)
    }
}

/// Opens a lone transformers model folder, such as a DINOv2 backbone: `config.json` and `model.safetensors`.
///
/// # Errors
/// No such folder, or no `config.json` in it that is a JSON object.
pub fn open_component(path: &Path) -> Result<Component> {
    let component = Component::at(path)?;
    component.config()?;
    Ok(component)
}

/// One model: a folder with a configuration and weights, or that part of a single file.
#[derive(Debug, Clone)]
pub struct Component {
    path: PathBuf,
    /// Configuration and weights of a part of a single file.
    part: Option<(Value, Weights)>,
}

impl Component {
    fn at(path: &Path) -> Result<Self> {
        if file::is_dir(path) {
            return Ok(Component { path: path.to_path_buf(), part: None });
        }
        match path.metadata() {
            Ok(metadata) => {
                let found = if metadata.is_file() { "a file" } else { "a device, a pipe or a socket" };
                Err(Error::bad(path.display().to_string(), "a folder", found))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(Error::missing(path.display().to_string(), "the folder itself")
                    .with_hint("Is the path spelled right?"))
            }
            Err(e) => Err(Error::io(path.display().to_string(), "read", e.to_string())),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`.
    ///
    /// # Errors
    /// A file that is missing, too large or not a JSON object.
    pub fn config(&self) -> Result<Value> {
        match &self.part {
            Some((config, _)) => Ok(config.clone()),
            None => self.json("config.json"),
        }
    }

    /// Whether the folder holds `file`, which must be a plain name.
    pub fn has_file(&self, file: &str) -> bool {
        is_plain_name(file) && file::is_file(&self.path.join(file))
    }

    /// A text file of at most [`MAX_TEXT`] bytes.
    ///
    /// # Errors
    /// A name that is not plain; a file that is missing, unreadable, too large or not UTF-8.
    pub fn read_text(&self, file: &str) -> Result<String> {
        self.text(file, MAX_TEXT)
    }

    fn text(&self, file: &str, most: u64) -> Result<String> {
        file::text_if_there(&self.file(file)?, most)?.ok_or_else(|| self.missing(file))
    }

    /// A JSON file that holds an object.
    ///
    /// # Errors
    /// As [`Component::read_text`], but of at most [`MAX_CONFIG`] bytes; text that is not a JSON object.
    pub fn json(&self, file: &str) -> Result<Value> {
        let text = self.text(file, MAX_CONFIG)?;
        let place = self.path.join(file).display().to_string();
        match serde_json::from_str(&text) {
            Ok(object @ Value::Object(_)) => Ok(object),
            Ok(_) => Err(Error::bad(place, "a JSON object", "another JSON value")),
            Err(e) => Err(Error::bad(place, "a JSON object", format!("text that does not parse: {e}"))),
        }
    }

    /// The weights: one safetensors file, or the shards that an index names.
    ///
    /// # Errors
    /// No weights; an index that names files outside the folder, or tensors that its shards do not hold; and as
    /// [`Weights::from_blocks`].
    pub fn weights(&self) -> Result<Weights> {
        if let Some((_, weights)) = &self.part {
            return Ok(weights.clone());
        }
        if let Some(file) = WEIGHT_FILES.iter().find(|file| self.has_file(file)) {
            return Weights::from_blocks(alloc::vec![self.map(file)?]);
        }
        if let Some(index) = INDEX_FILES.iter().find(|file| self.has_file(file)) {
            return self.sharded(index);
        }
        Err(Error::missing(
            self.path.display().to_string(),
            format!("`{}` or `{}`", WEIGHT_FILES[0], WEIGHT_FILES[1]),
        )
        .with_hint("Weights must be safetensors; pickle files (.bin, .ckpt) are not read."))
    }

    fn sharded(&self, index: &str) -> Result<Weights> {
        let place = self.path.join(index).display().to_string();
        let json = self.json(index)?;
        let map = json["weight_map"].as_object();
        let map = map.ok_or_else(|| Error::missing(&place, "`weight_map`, an object of tensor: file"))?;
        let mut files = BTreeSet::new();
        for (tensor, file) in map {
            match file.as_str().filter(|file| is_plain_name(file)) {
                Some(file) => files.insert(file),
                None => {
                    let place = format!("{place}: `{tensor}`");
                    return Err(Error::bad(
                        place,
                        "the plain name of a file in this folder",
                        file.to_string(),
                    ));
                }
            };
        }
        let blocks = files.into_iter().map(|file| self.map(file)).collect::<Result<_>>()?;
        let weights = Weights::from_blocks(blocks)?;
        match map.keys().find(|tensor| !weights.contains(tensor)) {
            None => Ok(weights),
            Some(tensor) => {
                let file = map[tensor].as_str().unwrap_or_default();
                Err(Error::missing(self.path.join(file).display().to_string(), format!("tensor `{tensor}`"))
                    .with_hint("The shard index lists it there; do these files belong together?"))
            }
        }
    }

    /// One file of weights.
    fn map(&self, file: &str) -> Result<(String, Storage)> {
        let path = self.file(file)?;
        let storage = file::weights(&path)?.ok_or_else(|| self.missing(file))?;
        Ok((path.display().to_string(), storage))
    }

    /// Path of `file`, which must be a plain name.
    fn file(&self, file: &str) -> Result<PathBuf> {
        if is_plain_name(file) {
            return Ok(self.path.join(file));
        }
        Err(Error::bad(self.path.display().to_string(), "the plain name of a file", format!("`{file}`")))
    }

    fn missing(&self, file: &str) -> Error {
        Error::missing(self.path.display().to_string(), format!("`{file}`"))
            .with_hint("Is the model complete? Download it again.")
    }
}

/// Opens a file of tensors (safetensors or GGUF) as it is, whatever it holds.
///
/// # Errors
/// A file that cannot be read, and as [`Weights::from_blocks`].
pub fn open_tensors(path: &Path) -> Result<Weights> {
    let place = path.display().to_string();
    let storage = file::weights(path)?.ok_or_else(|| Error::io(&place, "read", "no such file or folder"))?;
    Weights::from_blocks(alloc::vec![(place, storage)])
}

#[cfg(test)]
mod tests;
