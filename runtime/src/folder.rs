//! Model folders on disk, in the layout of diffusers pipelines and of single transformers models.
//!
//! Weights are memory-mapped, so opening a model reads only headers. Do not modify a model's files while it is open.
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::schedule::Schedule;
use crate::weights::{Storage, Weights};
use crate::{Error, Result};

mod tokenizers;

pub use tokenizers::tokenizer_folder;

/// Largest text or JSON file that is read, in bytes.
pub const MAX_TEXT: u64 = 64 << 20;

/// File names that diffusers and transformers give to weights, best first.
const WEIGHT_FILES: [&str; 4] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
];
/// The same for the index of a sharded checkpoint.
const INDEX_FILES: [&str; 4] = [
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "model.safetensors.index.fp16.json",
];

/// Whether `name` names something directly inside a folder: no separators, no drive, not `.` or `..`.
pub fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}

/// A diffusers pipeline folder: `model_index.json` and one folder per component.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    root: PathBuf,
    index: Value,
}

impl ModelFolder {
    /// Opens a pipeline folder. Components are read when asked for.
    ///
    /// # Errors
    /// No such folder, or no `model_index.json` in it that is a JSON object.
    pub fn open(root: &Path) -> Result<Self> {
        let hint = "A diffusers pipeline folder is needed: model_index.json, transformer/, vae/ and so on.";
        let index = Component::at(root)?.json("model_index.json").map_err(|e| e.with_hint(hint))?;
        Ok(ModelFolder { root: root.to_path_buf(), index })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// `model_index.json`.
    pub fn index(&self) -> &Value {
        &self.index
    }

    /// Whether the pipeline has a component: `false` when it is not listed, or listed as `null` or `[null, null]`.
    ///
    /// # Errors
    /// A component that is listed but whose folder does not exist; an entry of another form.
    pub fn has(&self, name: &str) -> Result<bool> {
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
        if self.root.join(name).is_dir() {
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
        let file = if name == "scheduler" { "scheduler_config.json" } else { "config.json" };
        self.component(name)?.json(file)
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

/// One model: a folder with a configuration and weights.
#[derive(Debug, Clone)]
pub struct Component {
    path: PathBuf,
}

impl Component {
    fn at(path: &Path) -> Result<Self> {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Component { path: path.to_path_buf() }),
            Ok(_) => Err(Error::bad(path.display().to_string(), "a folder", "a file")),
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
        self.json("config.json")
    }

    /// Whether the folder holds `file`, which must be a plain name.
    pub fn has_file(&self, file: &str) -> bool {
        is_plain_name(file) && self.path.join(file).is_file()
    }

    /// A text file of at most [`MAX_TEXT`] bytes.
    ///
    /// # Errors
    /// A name that is not plain; a file that is missing, unreadable, too large or not UTF-8.
    pub fn read_text(&self, file: &str) -> Result<String> {
        let path = self.file(file)?;
        let io = |e: std::io::Error| self.io_error(file, &e);
        let mut bytes = Vec::new();
        File::open(&path).map_err(io)?.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(io)?;
        let place = path.display().to_string();
        if bytes.len() as u64 > MAX_TEXT {
            return Err(Error::bad(place, format!("at most {} MiB of text", MAX_TEXT >> 20), "more"));
        }
        String::from_utf8(bytes).map_err(|e| Error::bad(place, "UTF-8 text", e.utf8_error().to_string()))
    }

    /// A JSON file that holds an object.
    ///
    /// # Errors
    /// As [`Component::read_text`]; text that is not a JSON object.
    pub fn json(&self, file: &str) -> Result<Value> {
        let text = self.read_text(file)?;
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

    /// Maps one safetensors file into memory.
    fn map(&self, file: &str) -> Result<(String, Storage)> {
        let path = self.file(file)?;
        let label = path.display().to_string();
        let io = |e: std::io::Error| self.io_error(file, &e);
        let handle = File::open(&path).map_err(io)?;
        if handle.metadata().map_err(io)?.len() == 0 {
            return Err(Error::bad(label, "a safetensors file", "an empty file")
                .with_hint("Is the file complete? Download it again."));
        }
        // SAFETY: the map is read-only. Its bytes change only if another program modifies the file meanwhile, which
        // the module documentation forbids, as every program that maps weights does.
        let map = unsafe { memmap2::Mmap::map(&handle) }.map_err(io)?;
        Ok((label, Arc::new(map)))
    }

    /// Path of `file`, which must be a plain name.
    fn file(&self, file: &str) -> Result<PathBuf> {
        if is_plain_name(file) {
            return Ok(self.path.join(file));
        }
        Err(Error::bad(self.path.display().to_string(), "the plain name of a file", format!("`{file}`")))
    }

    fn io_error(&self, file: &str, e: &std::io::Error) -> Error {
        if e.kind() == ErrorKind::NotFound {
            return Error::missing(self.path.display().to_string(), format!("`{file}`"))
                .with_hint("Is the model complete? Download it again.");
        }
        Error::io(self.path.join(file).display().to_string(), "read", e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder under the system's temporary one, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pentimento-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
        fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A safetensors file with one f32 scalar.
    fn tensor(name: &str, value: f32) -> Vec<u8> {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    const INDEX: &str = r#"{"_class_name":"StableDiffusion3Pipeline","vae":["diffusers","AutoencoderKL"],
        "transformer":["diffusers","SD3Transformer2DModel"],"text_encoder_3":[null,null],
        "scheduler":["diffusers","FlowMatchEulerDiscreteScheduler"]}"#;

    #[test]
    fn a_pipeline_folder_opens() {
        let s = Scratch::new("open");
        s.write("model_index.json", INDEX);
        s.write("vae/config.json", r#"{"latent_channels":16}"#);
        s.write("vae/diffusion_pytorch_model.safetensors", tensor("x", 2.5));
        s.write("scheduler/scheduler_config.json", r#"{"shift":3.0}"#);
        let m = ModelFolder::open(&s.0).unwrap();
        assert!(
            m.has("vae").unwrap() && !m.has("text_encoder_3").unwrap() && !m.has("image_encoder").unwrap()
        );
        assert_eq!(m.component_config("vae").unwrap()["latent_channels"], 16);
        assert_eq!(m.component_weights("vae").unwrap().get("x").unwrap().to_f32(), [2.5]);
        assert_eq!(m.schedule().unwrap().shift, 3.0);
        let text = message(m.has("transformer"));
        assert!(
            text.contains("missing the folder `transformer`") && text.contains("model_index.json lists"),
            "{text}"
        );
        assert!(message(m.component_weights("text_encoder_3")).contains("component `text_encoder_3`"));
        assert!(message(m.has("_class_name")).contains("a pair [library, class]"));
        assert!(message(m.read_text("vae", "none.txt")).contains("missing `none.txt`"));
        assert!(message(m.read_text("vae", "../model_index.json")).contains("plain name"));
        assert!(message(m.tokenizer("vae")).contains("vocab.json"));
    }

    #[test]
    fn folders_that_are_none_are_refused() {
        let s = Scratch::new("none");
        assert!(message(ModelFolder::open(&s.0)).contains("model_index.json"));
        assert!(message(ModelFolder::open(&s.0.join("absent"))).contains("missing the folder itself"));
        s.write("file", "");
        assert!(message(ModelFolder::open(&s.0.join("file"))).contains("expected a folder, found a file"));
        for text in ["", "[1]", "{", "\u{feff}{}"] {
            s.write("model_index.json", text);
            assert!(message(ModelFolder::open(&s.0)).contains("a JSON object"), "{text}");
        }
        s.write("model_index.json", [0xff, 0xfe]);
        assert!(message(ModelFolder::open(&s.0)).contains("UTF-8"));
        s.write("model_index.json", r#"{"../up":["a","b"],"vae":[1,2]}"#);
        let m = ModelFolder::open(&s.0).unwrap();
        assert!(message(m.has("../up")).contains("plain folder name") && m.has("vae").is_err());
        assert!(message(open_component(&s.0)).contains("config.json"));
    }

    #[test]
    fn large_text_is_refused() {
        let s = Scratch::new("large");
        File::create(s.0.join("model_index.json")).unwrap().set_len(MAX_TEXT + 1).unwrap();
        assert!(message(ModelFolder::open(&s.0)).contains("at most 64 MiB"));
    }

    #[test]
    fn shards_are_joined_and_checked() {
        let s = Scratch::new("shards");
        let index = |map: &str| {
            s.write("diffusion_pytorch_model.safetensors.index.json", format!(r#"{{"weight_map":{map}}}"#));
        };
        s.write("config.json", "{}");
        s.write("1.safetensors", tensor("a", 1.0));
        s.write("2.safetensors", tensor("b", 2.0));
        index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
        let c = open_component(&s.0).unwrap();
        assert_eq!(c.weights().unwrap().get("b").unwrap().to_f32(), [2.0]);
        index(r#"{"a":"1.safetensors","c":"2.safetensors"}"#);
        let text = message(c.weights());
        assert!(text.contains("2.safetensors: missing tensor `c`"), "{text}");
        index(r#"{"a":"3.safetensors"}"#);
        assert!(message(c.weights()).contains("missing `3.safetensors`"));
        for bad in ["../1.safetensors", "/etc/passwd", "..", "", "a\\\\b", "C:x"] {
            index(&format!(r#"{{"a":"{bad}"}}"#));
            assert!(message(c.weights()).contains("plain name"), "{bad}");
        }
        index("[]");
        assert!(message(c.weights()).contains("`weight_map`"));
        s.write("2.safetensors", tensor("a", 2.0));
        index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
        assert!(message(c.weights()).contains("a name used once"));
    }

    #[test]
    fn weights_files_are_found_or_named() {
        let s = Scratch::new("weights");
        s.write("config.json", "{}");
        let c = open_component(&s.0).unwrap();
        assert!(
            message(c.weights()).contains("model.safetensors") && message(c.weights()).contains("pickle")
        );
        s.write("model.fp16.safetensors", tensor("half", 0.5));
        assert!(c.weights().unwrap().contains("half"));
        s.write("model.safetensors", "");
        assert!(message(c.weights()).contains("an empty file"));
        s.write("model.safetensors", tensor("x", 1.0));
        assert!(c.weights().unwrap().contains("x"));
        s.write("model.safetensors", &tensor("x", 1.0)[..60]);
        assert!(message(c.weights()).contains("Is the file complete?"));
    }

    #[test]
    fn published_layouts_open() {
        let Some(root) = std::env::var_os("PENTIMENTO_GOLDENS") else {
            std::println!("skipped: PENTIMENTO_GOLDENS is not set");
            return;
        };
        let root = Path::new(&root);
        let m = ModelFolder::open(&root.join("trace/main/pipeline")).unwrap();
        for name in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
            assert!(!m.component_weights(name).unwrap().is_empty(), "{name}");
            assert!(m.component_config(name).unwrap().is_object(), "{name}");
        }
        assert_eq!(m.tokenizer("tokenizer_2").unwrap().pad(), 0);
        assert!(m.schedule().unwrap().sigmas(10, None).is_ok());
        let large = open_component(&root.join("transformer/sd35_large")).unwrap();
        assert!(large.weights().unwrap().label().contains(", "), "sharded");
    }
}
