//! Writing files so that a reader never sees half of one, and nothing is replaced but files.
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pentimento_runtime::{Error, Result};

/// Writes `bytes` to `path`: into a temporary file in the same folder, flushed to the disk, then renamed over `path`.
///
/// Whatever fails, an existing file at `path` keeps its old content and the temporary file is removed; one that an earlier
/// process left behind in that folder is removed too. A file that is replaced hands its permissions on. A link is written
/// through: what it points to is replaced, in its own folder.
///
/// # Errors
/// A folder that does not exist, something at `path` that is no regular file (a folder, a device, a pipe), and what the
/// operating system refuses (a full disk, missing rights).
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    commit(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] with the writing passed in, so that tests can make it fail.
fn commit(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let place = path.display().to_string();
    let io = |e: io::Error| Error::io(place.as_str(), "write", e.to_string());
    let path = &behind_links(path).map_err(io)?;
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
    let before = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Some(metadata.permissions()),
        Ok(metadata) => {
            let folder = metadata.is_dir();
            let found = if folder { "a folder of that name" } else { "a device, a pipe or a socket" };
            return Err(Error::bad(place, "a regular file, or none yet", found));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(io(e)),
    };
    sweep_once(folder);
    let (temporary, mut file) = create_in(folder).map_err(io)?;
    let written = write(&mut file).and_then(|()| keep(&file, before)).and_then(|()| file.sync_all());
    #[cfg(not(unix))]
    drop(file); // some systems do not rename open files; the others hold the lock until the name is gone
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

/// Where links lead, also to a file that is not there yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    const MOST: usize = 40; // as Linux
    let mut path = path.to_path_buf();
    for _ in 0..MOST {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {}
            _ => return Ok(path),
        }
        let target = fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(target); // an absolute one replaces all
    }
    Err(io::Error::other("too many links"))
}

/// Gives a file the permissions of the one it replaces.
fn keep(file: &File, before: Option<Permissions>) -> io::Result<()> {
    before.map_or(Ok(()), |permissions| file.set_permissions(permissions))
}

/// What the names of temporary files begin and end with; between them stand the process and a count.
const TEMPORARY: (&str, &str) = (".pentimento-", ".tmp");

/// Creates a new file in `folder`, under a name so short that it fits wherever the final one does. It is locked as long as it
/// is open, by which others know that it is in use.
fn create_in(folder: &Path) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..100 {
        let (first, last) = TEMPORARY;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!("{first}{}-{count}{last}", std::process::id()));
        let file = match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(e),
        };
        let _ = file.lock(); // where there are no locks, nobody can take one and remove the file
        if temporary.exists() {
            return Ok((temporary, file));
        } // else another process took it for a stale one, just before it was locked
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Removes what processes that were killed left in a folder, the first time this one writes there.
fn sweep_once(folder: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let known = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    if SWEPT.lock().is_ok_and(|mut swept| swept.insert(known)) {
        sweep(folder);
    }
}

/// Removes temporary files that nobody has locked. What fails is left alone: it is in use, or not ours to remove.
fn sweep(folder: &Path) {
    let ours = |name: &str| {
        let middle = name.strip_prefix(TEMPORARY.0).and_then(|rest| rest.strip_suffix(TEMPORARY.1));
        let number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        middle
            .and_then(|m| m.split_once('-'))
            .is_some_and(|(process, count)| number(process) && number(count))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !regular || !entry.file_name().to_str().is_some_and(ours) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path()); // under the lock: a writer that waits for it looks whether its file is there
        }
    }
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
    #[cfg(unix)]
    fn only_regular_files_are_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let s = Scratch::new("kinds");
        let fifo = s.0.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let socket = s.0.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink("/dev/null", s.0.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", s.0.join("loop")).unwrap();
        for path in [&fifo, &socket, &s.0.join("link"), Path::new("/dev/null")] {
            let text = write_atomically(path, b"x").unwrap_err().to_string();
            assert!(text.contains("expected a regular file, or none yet, found a device, a pipe"), "{text}");
        }
        assert!(
            write_atomically(&s.0.join("loop"), b"x").unwrap_err().to_string().contains("too many links")
        );
        assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
        assert_eq!(s.names().len(), 4, "{:?}", s.names());
    }

    #[test]
    #[cfg(unix)]
    fn links_are_written_through_and_modes_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let s = Scratch::new("links");
        fs::create_dir(s.0.join("there")).unwrap();
        symlink("there/file", s.0.join("one")).unwrap();
        symlink(s.0.join("one"), s.0.join("two")).unwrap();
        let mode = || fs::metadata(s.0.join("there/file")).unwrap().permissions().mode() & 0o7777;
        for (bytes, permissions) in [("new", None), ("again", Some(0o600)), ("more", Some(0o444))] {
            if let Some(mode) = permissions {
                fs::set_permissions(s.0.join("there/file"), Permissions::from_mode(mode)).unwrap();
            }
            write_atomically(&s.0.join("two"), bytes.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(s.0.join("there/file")).unwrap(), bytes);
            assert!(permissions.is_none_or(|p| p == mode()), "{:o}", mode());
        }
        assert!(s.0.join("one").is_symlink() && s.0.join("two").is_symlink());
        assert_eq!(fs::read_dir(s.0.join("there")).unwrap().count(), 1);
    }

    #[test]
    fn names_may_be_as_long_as_the_system_has_them() {
        let s = Scratch::new("long");
        for length in [250, 255] {
            let path = s.0.join("n".repeat(length));
            write_atomically(&path, b"x").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"x");
        }
        assert!(write_atomically(&s.0.join("n".repeat(5000)), b"x").is_err());
        assert_eq!(s.names().len(), 2);
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let s = Scratch::new("stale");
        let mine = s.write(".pentimento-1-0.tmp", "half");
        let others =
            [".pentimento-1-.tmp", ".pentimento-x-0.tmp", ".pentimento-1-0.tmp.png", "pentimento-1-0.tmp"];
        others.iter().for_each(|name| drop(s.write(name, "")));
        fs::create_dir(s.0.join(".pentimento-2-0.tmp")).unwrap();
        let used = File::create(s.0.join(".pentimento-3-0.tmp")).unwrap();
        used.lock().unwrap(); // by a process that writes it
        write_atomically(&s.0.join("out"), b"x").unwrap();
        assert!(!mine.exists() && s.0.join(".pentimento-3-0.tmp").exists());
        assert_eq!(s.names().len(), others.len() + 3);
        drop(used);
        // A process that another test is just starting has the lock, too, until it becomes another program.
        let gone = (0..100).any(|_| {
            sweep(&s.0);
            s.names().len() == others.len() + 2 || {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
        });
        assert!(gone, "{:?}", s.names());
    }

    #[test]
    fn writers_of_one_file_do_not_disturb_each_other() {
        let s = Scratch::new("many");
        let path = s.0.join("out");
        std::thread::scope(|scope| {
            for i in 0..4u8 {
                let (path, folder) = (path.clone(), s.0.clone());
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_atomically(&path, &[i; 999]).unwrap();
                        sweep(&folder);
                        let seen = fs::read(&path).unwrap();
                        assert!(seen.len() == 999 && seen.iter().all(|b| *b == seen[0]));
                    }
                });
            }
        });
        assert_eq!(s.names(), ["out"]);
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
