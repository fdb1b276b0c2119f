//! Reading files that others made: regular ones only, and never more than a stated size.
//!
//! A pipe would be waited for and a device read without end, so both are refused before they are opened.
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::SystemTime;

use crate::mount::{self, Found};
use crate::room::room;
use crate::weights::Storage;
use crate::{Error, Result};

/// Files of weights up to this size are read, larger ones are mapped; bytes.
const MAPPED: u64 = 32 << 20;

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::io(path.display().to_string(), "read", e.to_string())
}

/// Opens a regular file, or a link to one; `None` when nothing is there.
///
/// # Errors
/// Anything but a file; what the operating system refuses.
pub fn open_if_there(path: &Path) -> Result<Option<(File, Metadata)>> {
    let regular = |metadata: Metadata| match metadata.file_type() {
        kind if kind.is_file() => Ok(metadata),
        kind => {
            let found = if kind.is_dir() { "a folder" } else { "a device, a pipe or a socket" };
            Err(Error::bad(path.display().to_string(), "a regular file", found))
        }
    };
    match path.metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => regular(metadata.map_err(|e| failed(path, &e))?)?,
    };
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        // Should the path have become a pipe since: opening it must not wait for a writer.
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = match options.open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| failed(path, &e))?,
    };
    let metadata = regular(file.metadata().map_err(|e| failed(path, &e))?)?;
    Ok(Some((file, metadata)))
}

/// Whether there is a file, mounted ([`crate::mount`]) or in the file system.
pub fn is_file(path: &Path) -> bool {
    mount::find(path).map_or_else(|| path.is_file(), |found| matches!(found, Found::File(_)))
}
/// Whether there is a folder, mounted or in the file system.
pub fn is_dir(path: &Path) -> bool {
    mount::find(path).map_or_else(|| path.is_dir(), |found| matches!(found, Found::Folder))
}

/// The bytes of a mounted file, `None` where nothing is mounted there; the outer one where no mount has the path.
fn mounted(path: &Path, most: u64) -> Option<Result<Option<Storage>>> {
    Some(match mount::find(path)? {
        Found::File(entry) => mount::read(path, &entry, most).map(Some),
        Found::Nothing => Ok(None),
        Found::Folder => Err(Error::bad(path.display().to_string(), "a regular file", "a folder")),
    })
}

/// The bytes of a regular file of at most `most` bytes; `None` when nothing is there.
///
/// # Errors
/// As [`open_if_there`]; a larger file, or one that memory cannot hold.
pub fn read_if_there(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    if let Some(found) = mounted(path, most) {
        return Ok(found?.map(|storage| (*storage).as_ref().to_vec()));
    }
    let Some((file, metadata)) = open_if_there(path)? else { return Ok(None) };
    let large = || Error::bad(path.display().to_string(), format!("at most {}", size(most)), "more");
    if metadata.len() > most {
        return Err(large());
    }
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX).saturating_add(1);
    let mut bytes = room(len, path.display())?;
    // A file can grow meanwhile, and some (in /proc) say that they are empty.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| failed(path, &e))?;
    if bytes.len() as u64 > most { Err(large()) } else { Ok(Some(bytes)) }
}

/// As [`read_if_there`], where a missing file is an error.
///
/// # Errors
/// As [`read_if_there`], and nothing there.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    read_if_there(path, most)?.ok_or_else(|| failed(path, &ErrorKind::NotFound.into()))
}

/// A text file in UTF-8, without its byte-order mark; `None` when nothing is there.
///
/// # Errors
/// As [`read_if_there`], and another encoding.
pub fn text_if_there(path: &Path, most: u64) -> Result<Option<String>> {
    let Some(bytes) = read_if_there(path, most)? else { return Ok(None) };
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let text = String::from_utf8(bytes).map_err(|e| {
        let found = if utf16 { "UTF-16".to_string() } else { e.utf8_error().to_string() };
        Error::bad(path.display().to_string(), "UTF-8 text", found).with_hint("Save it as UTF-8.")
    })?;
    Ok(Some(text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text)))
}

/// As [`text_if_there`], where a missing file is an error.
///
/// # Errors
/// As [`text_if_there`], and nothing there.
pub fn text(path: &Path, most: u64) -> Result<String> {
    text_if_there(path, most)?.ok_or_else(|| failed(path, &ErrorKind::NotFound.into()))
}

/// A limit in words.
fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}

/// The bytes of a file of weights, read or, of a large one, mapped; `None` when nothing is there.
///
/// # Errors
/// As [`read_if_there`]; an empty file.
pub(crate) fn weights(path: &Path) -> Result<Option<Storage>> {
    let empty = || {
        Err(Error::bad(path.display().to_string(), "a safetensors file", "an empty file")
            .with_hint("Is the file complete? Download it again."))
    };
    if let Some(found) = mounted(path, u64::MAX) {
        let found = found?;
        return if found.as_ref().is_some_and(|s| (**s).as_ref().is_empty()) { empty() } else { Ok(found) };
    }
    let Some((file, metadata)) = open_if_there(path)? else { return Ok(None) };
    if metadata.len() == 0 {
        return empty();
    }
    if metadata.len() <= MAPPED {
        return Ok(read_if_there(path, MAPPED)?.map(|bytes| Arc::new(bytes) as Storage));
    }
    // SAFETY: the map is read-only. Another program can still change or cut the file: `Mapped` refuses a file of which it
    // sees that, and the module documentation of `folder` forbids it, as every program that maps weights does.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| failed(path, &e))?;
    Ok(Some(Arc::new(Mapped { changed: metadata.modified().ok(), map, file })))
}

/// A mapped file. Pages beyond the end of a file that another program has cut cannot be read (on Unix that ends the process
/// with SIGBUS), so its size is looked at before every use.
struct Mapped {
    map: memmap2::Mmap,
    file: File,
    changed: Option<SystemTime>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        let same = self
            .file
            .metadata()
            .is_ok_and(|now| now.len() == self.map.len() as u64 && now.modified().ok() == self.changed);
        if same { &self.map } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pentimento-file-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn sizes_are_limited() {
        let s = scratch("size");
        let path = s.join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(message(read(&path, 4)).contains("expected at most 4 bytes, found more"));
        File::create(&path).unwrap().set_len(1 << 40).unwrap(); // a terabyte that takes no room
        assert!(message(read(&path, 3 << 20)).contains("at most 3 MiB"));
        assert!(message(text(&path, 1 << 10)).contains("at most 1 KiB"));
        assert!(read_if_there(&s.join("b"), 1).unwrap().is_none() && read(&s.join("b"), 1).is_err());
        std::fs::remove_dir_all(s).unwrap();
    }

    #[test]
    fn texts_are_utf8_with_or_without_a_mark() {
        let s = scratch("text");
        let path = s.join("a");
        for (bytes, seen) in
            [(&b"\xef\xbb\xbfx\xc3\xa4"[..], "xä"), (b"x", "x"), (b"", ""), (b"\xef\xbb\xbf", "")]
        {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(text(&path, 9).unwrap(), seen);
        }
        std::fs::write(&path, b"\xff\xfex\0").unwrap();
        assert!(message(text(&path, 9)).contains("expected UTF-8 text, found UTF-16. Save it as UTF-8."));
        std::fs::write(&path, b"ic\xf4ne").unwrap();
        assert!(message(text(&path, 9)).contains("UTF-8"));
        std::fs::remove_dir_all(s).unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn only_regular_files_are_read() {
        let s = scratch("kinds");
        let fifo = s.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let socket = s.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = s.join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for path in [&fifo, &socket, &link, Path::new("/dev/zero"), Path::new("/dev/stdin"), &s] {
            if path.metadata().is_ok_and(|m| m.is_file()) {
                continue; // a test's input may be one
            }
            for text in [message(read(path, 9)), message(text(path, 9)), message(weights(path))] {
                assert!(text.contains("expected a regular file, found a"), "{}: {text}", path.display());
            }
        }
        std::fs::remove_file(&link).unwrap();
        std::fs::write(s.join("a"), "x").unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        assert_eq!(read(&link, 9).unwrap(), b"x");
        std::fs::remove_dir_all(s).unwrap();
    }

    #[test]
    fn a_mapped_file_that_changes_is_seen() {
        let s = scratch("mapped");
        let path = s.join("a");
        let made = File::create(&path).unwrap();
        made.set_len(MAPPED + 4096).unwrap();
        let storage = weights(&path).unwrap().unwrap();
        assert_eq!((*storage).as_ref().len() as u64, MAPPED + 4096);
        made.set_len(4096).unwrap();
        assert!((*storage).as_ref().is_empty(), "cut");
        made.set_len(MAPPED + 4096).unwrap();
        made.set_modified(SystemTime::now() + std::time::Duration::from_secs(9)).unwrap();
        assert!((*storage).as_ref().is_empty(), "written anew");
        std::fs::remove_dir_all(s).unwrap();
    }
}
