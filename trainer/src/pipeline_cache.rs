//! A file that keeps what drivers build between runs. It is never required: whatever is wrong with it costs time only.
use crate::files::write_atomically;
use pentimento_runtime::exec::wgpu::{Limits, MOST_CACHED, Options, PipelineCache, Wgpu};
use pentimento_runtime::{Error, Result, file};
use std::cell::OnceCell;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Where pipelines are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this file, in a folder that is there. Another adapter's are replaced.
    File(PathBuf),
    /// In a file for each adapter, in a folder that is made, for its owner only, when there is something to write.
    Folder(PathBuf),
}

impl Place {
    /// The user's folder for what can be made anew, by the system's environment variables; `None` where they tell none.
    pub fn usual(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Self> {
        let folder = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = if cfg!(windows) {
            folder("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            folder("HOME").map(|home| home.join("Library/Caches"))
        } else {
            folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
        };
        caches.map(|caches| Place::Folder(caches.join("pentimento")))
    }
    fn file(&self, adapter: &str) -> PathBuf {
        match self {
            Place::File(path) => path.clone(),
            Place::Folder(path) => path.join(adapter),
        }
    }
}

/// A device as [`Wgpu::open_within`] opens it, with what is kept at `place`; and, where its driver can do it, what is to be kept
/// of it in turn.
///
/// # Errors
/// As [`Wgpu::open_within`].
pub fn open(device: Option<&str>, limits: Limits, place: Option<&Place>) -> Result<(Wgpu, Option<Kept>)> {
    open_by(limits, place, |options| Wgpu::open_with(device, options))
}

/// As [`open`] by a function that opens, or adopts, the device.
///
/// # Errors
/// Those of the function.
pub fn open_by(
    limits: Limits,
    place: Option<&Place>,
    open: impl FnOnce(&Options<'_>) -> Result<Wgpu>,
) -> Result<(Wgpu, Option<Kept>)> {
    let options = Options { limits, ..Options::default() };
    let Some(place) = place else { return Ok((open(&options)?, None)) };
    let before = OnceCell::new();
    let load = |adapter: &str| {
        let kept = file::read_if_there(&place.file(adapter), MOST_CACHED)?;
        let _ = before.set(kept.as_deref().map(hash));
        Ok(kept)
    };
    let exec = open(&Options { cache: Some(&load), ..options })?;
    let kept = exec.pipeline_cache().map(|cache| Kept {
        path: place.file(cache.name()),
        make: matches!(place, Place::Folder(_)),
        cache,
        before: before.into_inner().flatten(),
    });
    Ok((exec, kept))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// A device's pipelines and their file. It may outlive the device's executor.
pub struct Kept {
    cache: PipelineCache,
    path: PathBuf,
    /// Whether the folder is to be made.
    make: bool,
    /// Of the file's content.
    before: Option<u64>,
}

impl Kept {
    /// Writes the file, unless nothing was built since it was read.
    ///
    /// # Errors
    /// As [`write_atomically`].
    pub fn save(&mut self) -> Result<()> {
        let Some(bytes) = self.cache.bytes() else { return Ok(()) };
        let now = Some(hash(&bytes));
        if self.before != now {
            if let Some(folder) = self.path.parent().filter(|_| self.make) {
                make(folder)?;
            }
            write_atomically(&self.path, &bytes)?;
            self.before = now;
        }
        Ok(())
    }
}

/// Makes a folder that others cannot write to.
fn make(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| Error::io(folder.display().to_string(), "create", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(unix, not(target_os = "macos")))]
    fn the_usual_folder_is_what_the_system_says() {
        let usual = |xdg: Option<&str>, home: Option<&str>| {
            Place::usual(&|name| match name {
                "XDG_CACHE_HOME" => xdg.map(OsString::from),
                "HOME" => home.map(OsString::from),
                _ => None,
            })
        };
        let folder = |path: &str| Some(Place::Folder(path.into()));
        assert_eq!(usual(Some("/c"), Some("/h")), folder("/c/pentimento"));
        for none in [None, Some(""), Some("c")] {
            assert_eq!(usual(none, Some("/h")), folder("/h/.cache/pentimento"));
            assert_eq!(usual(none, none), None);
        }
    }
}
