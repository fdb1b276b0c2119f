//! Writing files so that a reader never sees half of one.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pentimento::{Error, Result};

/// Writes `bytes` to `path`: into a temporary file in the same folder, flushed to the disk, then renamed over `path`.
///
/// Whatever fails, an existing file at `path` keeps its old content and the temporary file is removed.
///
/// # Errors
/// A folder that does not exist, and what the operating system refuses (a full disk, missing rights).
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    commit(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] with the writing passed in, so that tests can make it fail.
fn commit(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let place = path.display().to_string();
    let Some(name) = path.file_name() else {
        return Err(Error::bad(place, "a path that ends in a file name", "none"));
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::missing(folder.display().to_string(), "the folder itself")
            .with_hint(&format!("Create it before writing {} there.", name.to_string_lossy())));
    }
    if path.is_dir() {
        return Err(Error::bad(place, "a file to write", "a folder of that name"));
    }
    let io = |e: io::Error| Error::io(place.as_str(), "write", e.to_string());
    let (temporary, mut file) = create_beside(folder, name).map_err(io)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    drop(file); // some systems do not rename open files
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    if let Err(e) = renamed {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
        return Err(io(e));
    }
    // Make the rename itself durable where folders can be synced (Unix); elsewhere this fails harmlessly.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Creates a new file `.NAME.PROCESS-COUNT.tmp` in `folder`.
fn create_beside(folder: &Path, name: &std::ffi::OsStr) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..100 {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let temporary = folder.join(temporary);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder under the system's temporary one, removed at the end.
    pub(crate) struct Scratch(pub PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pentimento-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            fs::write(self.0.join(name), bytes).unwrap();
            self.0.join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn writes_and_replaces() {
        let s = Scratch::new("replace");
        let path = s.0.join("out.bin");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(s.names(), ["out.bin"], "no temporary file stays behind");
    }

    #[test]
    fn a_missing_folder_is_a_sentence() {
        let s = Scratch::new("nofolder");
        let text = write_atomically(&s.0.join("absent/out.bin"), b"x").unwrap_err().to_string();
        assert!(text.contains("absent: missing the folder itself. Create it"), "{text}");
        assert!(
            write_atomically(Path::new("/"), b"x").is_err()
                && write_atomically(Path::new(".."), b"x").is_err()
        );
        assert!(write_atomically(&s.0, b"x").unwrap_err().to_string().contains("a folder of that name"));
        assert!(s.names().is_empty());
    }

    #[test]
    fn a_failed_write_changes_nothing() {
        let s = Scratch::new("full");
        let path = s.write("out.bin", "old");
        let full = |file: &mut File| {
            file.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let text = commit(&path, full).unwrap_err().to_string();
        assert!(text.contains("out.bin: cannot write: ") && text.contains("storage"), "{text}");
        assert_eq!((fs::read(&path).unwrap(), s.names()), (b"old".to_vec(), vec!["out.bin".to_string()]));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_really_full_device_is_reported() {
        let s = Scratch::new("devfull");
        let path = s.0.join("out.bin");
        // The operating system's own "no space left" from /dev/full, on the way to an ordinary file.
        let write = |_: &mut File| OpenOptions::new().write(true).open("/dev/full")?.write_all(&[0; 4096]);
        let text = commit(&path, write).unwrap_err().to_string();
        assert!(text.contains("No space left"), "{text}");
        assert!(s.names().is_empty());
    }
}
