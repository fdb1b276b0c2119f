//! Models.
use crate::context::{absolute, pmt_context};
use crate::guard::{Failure, Handle, Result, guard, list, optional_text, place, text};
use crate::handles::{forget, keep};
use crate::shared::Shared;
use crate::types::{pmt_file, pmt_read, pmt_status};
use runtime::folder::ModelFolder;
use runtime::mount::{Entry, Mount};
use std::ffi::{c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Arc;

/// A model's files.
pub struct pmt_model {
    pub shared: Arc<Shared>,
    pub folder: ModelFolder,
    /// Absolute.
    pub path: PathBuf,
    /// Where the program's own files are.
    pub mount: Option<Arc<Mount>>,
}

impl Handle for pmt_model {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// Opens a model's files: a diffusers folder of an SD3-family model, or a single file with what it lacks (tokenizers) in folders
/// beside it. Reads configurations and maps weights, milliseconds. Leave the files alone until everything that was made with it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_model_open(
    context: *const pmt_context,
    path: *const c_char,
    model: *mut *mut pmt_model,
) -> pmt_status {
    guard!(context => model, {
        // SAFETY: the rules in the header.
        let (model, path) = unsafe { (place(model, "model", null_mut())?, text(path, "path")?) };
        let path = absolute(Path::new(path), "path")?;
        let folder = ModelFolder::open(&path)?;
        *model = keep(pmt_model { shared: context.0.clone(), folder, path, mount: None });
        Ok(())
    })
}

/// As `pmt_model_open`, with `count` files of the program's own, from an archive or from memory, named as in a model's folder; `file`
/// says which of them is a single file's model, and is NULL for a diffusers folder. Weights that are not in memory are read
/// whole into it when they are needed. `read` may be NULL where all are in memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_model_open_files(
    context: *const pmt_context,
    files: *const pmt_file,
    count: usize,
    file: *const c_char,
    read: pmt_read,
    user: *mut c_void,
    model: *mut *mut pmt_model,
) -> pmt_status {
    guard!(context => model, {
        // SAFETY: the rules in the header.
        let (model, files, file) = unsafe {
            let model = place(model, "model", null_mut())?;
            (model, list(files, count, "files", "files")?, optional_text(file, "file")?)
        };
        let user = User(user);
        // SAFETY: the rules in the header.
        let entry = |(index, file)| unsafe { entry(index, file, read, user) };
        let entries = files.iter().enumerate().map(entry).collect::<Result<Vec<_>>>()?;
        let mount = Mount::new(entries).map_err(Failure::Argument)?;
        let path = file.map_or_else(|| mount.root(), |file| mount.root().join(file));
        let folder = ModelFolder::open(&path)?;
        let (shared, mount) = (context.0.clone(), Some(Arc::new(mount)));
        *model = keep(pmt_model { shared, folder, path, mount });
        Ok(())
    })
}

/// A program's own pointer.
#[derive(Clone, Copy)]
struct User(*mut c_void);
// SAFETY: only handed back to the program's own function, which the header tells to expect any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// Bytes in a program's memory.
struct Lent(*const u8, usize);
// SAFETY: only read, and the header demands that they stay as they are.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the header demands it.
        unsafe { std::slice::from_raw_parts(self.0, self.1) }
    }
}

/// A file by its name.
///
/// # Safety
/// As the header demands.
unsafe fn entry(index: usize, file: &pmt_file, read: pmt_read, user: User) -> Result<(String, Entry)> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(file.name, "files.name")? }.to_string();
    let large = || Failure::argument("files.bytes", "as many as memory can have", file.bytes.to_string());
    let len =
        usize::try_from(file.bytes).ok().filter(|&len| isize::try_from(len).is_ok()).ok_or_else(large)?;
    if !file.data.is_null() {
        return Ok((name, Entry::Held(Arc::new(Lent(file.data.cast(), len)))));
    }
    let read = read.ok_or_else(|| Failure::argument("read", "a function", "NULL"))?;
    let index = u32::try_from(index).map_err(|_| large())?;
    let read = move |offset: u64, into: &mut [u8]| {
        let user = user; // whole, so that it may move between threads
        // SAFETY: the program's function and its own pointer; as much room as it is told.
        unsafe { read(user.0, index, offset, into.as_mut_ptr().cast(), into.len()) == 0 }
    };
    Ok((name, Entry::Read(file.bytes, Arc::new(read))))
}

/// Frees a model. What was made with it keeps what it needs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_model_free(model: *mut pmt_model) {
    guard!(_, {
        forget(model);
        Ok(())
    });
}
