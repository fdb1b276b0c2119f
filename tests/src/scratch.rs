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
