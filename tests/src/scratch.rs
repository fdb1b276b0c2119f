//! Temporary folders.
use std::fs;
use std::path::{Path, PathBuf};

/// A folder under the system's temporary one that removes itself.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// An empty folder; `name` tells it from others of the same process.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pentimento-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// The fixture's CLIP model with a tokenizer beside it, as PickScore is published.
pub fn pickscore(name: &str) -> Scratch {
    let (folder, fixtures) = (Scratch::new(name), Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    copy(&fixtures.join("text/tiny_tokenizers/clip_l"), &folder.0);
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures.join("clip_reward").join(file), folder.0.join(file)).expect("a copy");
    }
    folder
}

/// A copy of the default model without its references.
pub fn icons(name: &str) -> Scratch {
    let (scratch, model) =
        (Scratch::new(name), Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons"));
    for part in [
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
        "reward",
    ] {
        copy(&model.join(part), &scratch.0.join(part));
    }
    fs::copy(model.join("model_index.json"), scratch.0.join("model_index.json")).expect("a copy");
    scratch
}
