//! Files that the system does not know: in a program's own archive, or in its memory. A [`Mount`] gives them paths, which work wherever a path
//! to a model, an adapter or a reward does, in this process and as long as the mount lives.
use crate::room::room;
use crate::weights::Storage;
use crate::{Error, Result};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reads bytes from an offset on; false where it cannot. Called on any thread, one call at a time for each file.
pub type Read = Arc<dyn Fn(u64, &mut [u8]) -> bool + Send + Sync>;

/// A mounted file.
#[derive(Clone)]
pub enum Entry {
    /// Bytes that are there.
    Held(Storage),
    /// So many bytes, to be read when they are needed.
    Read(u64, Read),
}

impl Entry {
    fn len(&self) -> u64 {
        match self {
            Entry::Held(storage) => (**storage).as_ref().len() as u64,
            Entry::Read(bytes, _) => *bytes,
        }
    }
}

type Files = BTreeMap<String, Entry>;

fn all() -> MutexGuard<'static, (u64, BTreeMap<String, Files>)> {
    static ALL: Mutex<(u64, BTreeMap<String, Files>)> = Mutex::new((0, BTreeMap::new()));
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files under a path of their own.
#[derive(Debug)]
pub struct Mount {
    name: String,
}

impl Mount {
    /// Mounts files by their names, such as `transformer/config.json`. What is read later keeps the mount's files, not the mount.
    ///
    /// # Errors
    /// A name that is not a plain path downwards, with `/` between its parts.
    pub fn new(files: impl IntoIterator<Item = (String, Entry)>) -> Result<Self> {
        let files: Files = files.into_iter().collect();
        let plain = |name: &&String| !name.split('/').all(crate::folder::is_plain_name);
        if let Some(name) = files.keys().find(plain) {
            return Err(Error::bad("mounted file", "a name such as transformer/config.json", name.as_str()));
        }
        let mut all = all();
        all.0 += 1;
        let name = format!("<archive {}>", all.0);
        all.1.insert(name.clone(), files);
        Ok(Mount { name })
    }
    /// The folder that has the files.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(&self.name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let files = all().1.remove(&self.name);
        drop(files); // after the lock, which a program's own code must not hold
    }
}

/// What is at a mounted path.
#[derive(Clone)]
pub(crate) enum Found {
    File(Entry),
    Folder,
    Nothing,
}

/// What is at a path; `None` for one that no mount has.
pub(crate) fn find(path: &Path) -> Option<Found> {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return None };
    let first = first.to_str().filter(|first| first.starts_with("<archive "))?;
    let rest: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
    let rest = rest?.join("/");
    let all = all();
    let files = all.1.get(first)?;
    if let Some(entry) = files.get(&rest) {
        return Some(Found::File(entry.clone()));
    }
    let inside =
        |name: &String| rest.is_empty() || name.strip_prefix(&rest).is_some_and(|n| n.starts_with('/'));
    Some(if files.keys().any(inside) { Found::Folder } else { Found::Nothing })
}

/// The bytes of a mounted file of at most `most` bytes.
pub(crate) fn read(path: &Path, entry: &Entry, most: u64) -> Result<Storage> {
    let place = || path.display().to_string();
    if entry.len() > most {
        return Err(Error::bad(place(), format!("at most {most} bytes"), entry.len().to_string()));
    }
    match entry {
        Entry::Held(storage) => Ok(storage.clone()),
        Entry::Read(bytes, read) => {
            let failed = |reason: &str| Error::io(place(), "read", reason.to_string());
            let len = usize::try_from(*bytes).unwrap_or(usize::MAX);
            let mut all = room(len, place())?;
            all.resize(len, 0);
            if read(0, &mut all) { Ok(Arc::new(all)) } else { Err(failed("the program's reader could not")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file;

    #[test]
    fn mounted_files_are_found_and_read_by_their_paths() {
        let held = |text: &str| Entry::Held(Arc::new(text.as_bytes().to_vec()));
        let read: Read = Arc::new(|at, into| {
            into.copy_from_slice(&b"read"[at as usize..][..into.len()]);
            true
        });
        let files = [
            ("a/config.json".to_string(), held("{}")),
            ("b".to_string(), Entry::Read(4, read)),
            ("broken".to_string(), Entry::Read(4, Arc::new(|_, _| false))),
        ];
        let mount = Mount::new(files).expect("a mount");
        let root = mount.root();
        assert!(file::is_dir(&root) && file::is_dir(&root.join("a")) && !file::is_file(&root.join("a")));
        assert!(file::is_file(&root.join("a/config.json")) && !file::is_dir(&root.join("c")));
        assert_eq!(file::text(&root.join("a/config.json"), 9).expect("text"), "{}");
        assert_eq!(file::read(&root.join("b"), 4).expect("bytes"), b"read");
        assert!(file::read(&root.join("b"), 3).expect_err("too large").to_string().contains("at most 3"));
        assert!(file::read_if_there(&root.join("c"), 9).expect("nothing").is_none());
        for (name, part) in [("broken", "reader could not"), ("a", "expected a regular file, found a folder")]
        {
            let error = file::read(&root.join(name), 9).expect_err(name).to_string();
            assert!(error.contains(part) && error.contains("<archive "), "{error}");
        }
        drop(mount);
        assert!(!file::is_dir(&root));
        for name in ["../a", "/a", "a//b", ""] {
            assert!(Mount::new([(name.to_string(), held(""))]).is_err(), "{name}");
        }
    }
}
