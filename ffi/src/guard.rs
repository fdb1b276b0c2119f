//! What every exported function goes through: NULL checks, caught panics, the context's message; and pointers read.
use crate::pmt_status;
use crate::shared::Shared;
use runtime::Error;
use std::any::Any;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, TryLockError};

#[cfg(panic = "abort")]
compile_error!("the C interface catches panics: build it with panic = \"unwind\"");

/// Why a call failed.
#[derive(Debug)]
pub enum Failure {
    /// The caller's mistake.
    Argument(Error),
    /// What runtime or trainer report.
    Library(Error),
    /// A panic, by its message.
    Panic(String),
    /// No failure: there is nothing yet.
    Pending,
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Library(e)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Argument(e) | Failure::Library(e) => e.fmt(f),
            Failure::Pending => f.write_str("There is nothing yet."),
            Failure::Panic(text) => write!(f, "pentimento: a bug: {text}. Free the handle and report this."),
        }
    }
}

impl Failure {
    pub fn argument(place: &str, expected: &str, found: impl Into<String>) -> Self {
        Failure::Argument(Error::bad(place, expected, found))
    }
    pub fn status(&self) -> pmt_status {
        match self {
            Failure::Argument(_) | Failure::Library(Error::Call { .. }) => pmt_status::BadArgument,
            Failure::Library(Error::Bad { .. }) => pmt_status::BadFile,
            Failure::Library(Error::Missing { .. }) => pmt_status::Missing,
            Failure::Library(Error::Io { .. }) => pmt_status::Io,
            Failure::Pending => pmt_status::Pending,
            Failure::Library(Error::Device { .. }) => pmt_status::Device,
            Failure::Library(Error::Memory { .. }) => pmt_status::OutOfMemory,
            Failure::Library(Error::Cancelled) => pmt_status::Cancelled,
            Failure::Library(Error::NotFinite { .. }) => pmt_status::NotFinite,
            Failure::Library(_) | Failure::Panic(_) => pmt_status::Internal,
        }
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

/// Runs a body; a panic becomes a failure.
pub fn attempt(body: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::Panic(text_of(&*payload))))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}

/// What C sees as a handle.
pub trait Handle {
    fn shared(&self) -> &Shared;
}

/// The body of an exported function. `guard!(handle, body)` returns BAD_ARGUMENT for what is no live handle and keeps the
/// message of a failure in its context; `guard!(_, body)` is for functions without a handle; `guard!(handle => result, body)` first
/// sets a result to NULL.
macro_rules! guard {
    (_, $body:expr) => {
        $crate::guard::attempt(|| $body).map_or_else(|failure| failure.status(), |()| $crate::pmt_status::Ok)
    };
    ($handle:ident => $result:ident, $body:expr) => {{
        if !$result.is_null() {
            // SAFETY: valid for writing, as the header demands.
            unsafe { $result.write(std::ptr::null_mut()) };
        }
        $crate::guard::guard!($handle, $body)
    }};
    ($handle:ident, $body:expr) => {
        match $crate::handles::find($handle) {
            Some(found) => {
                let $handle = &*found;
                $crate::guard::Handle::shared($handle).run(|| $body)
            }
            None => $crate::pmt_status::BadArgument,
        }
    };
}
pub(crate) use guard;

/// Exclusive use of a handle's contents. A panic spoils them for good.
pub fn exclusive<'a, T>(lock: &'a Mutex<T>, what: &str) -> Result<MutexGuard<'a, T>> {
    lock.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => {
            Failure::argument(what, "one thread at a time", "a call from another thread")
        }
        TryLockError::Poisoned(_) => Failure::Panic(format!("an earlier call on this {what} panicked")),
    })
}

fn null(name: &str) -> Failure {
    Failure::argument(name, "a pointer", "NULL")
}

/// A string argument.
///
/// # Safety
/// NULL or a string that ends in 0.
pub unsafe fn text<'a>(p: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    unsafe { optional_text(p, name) }?.ok_or_else(|| null(name))
}

/// A string argument that may be NULL.
///
/// # Safety
/// As [`text`].
pub unsafe fn optional_text<'a>(p: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if p.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(p) };
    bytes.to_str().map(Some).map_err(|e| Failure::argument(name, "UTF-8", e.to_string()))
}

/// A place for a result, filled with `first`.
///
/// # Safety
/// NULL or valid for writing a `T`.
pub unsafe fn place<'a, T>(p: *mut T, name: &str, first: T) -> Result<&'a mut T> {
    if p.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL; the caller's promise. Written before a reference exists.
    unsafe {
        p.write(first);
        Ok(&mut *p)
    }
}

/// Bytes to read.
///
/// # Safety
/// NULL or valid for reading `len` bytes.
pub unsafe fn bytes<'a>(p: *const u8, len: usize, name: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { list(p, len, name, "bytes") }
}

/// `len` values to read; `what` they are.
///
/// # Safety
/// NULL or valid for reading as many.
pub unsafe fn list<'a, T>(p: *const T, len: usize, name: &str, what: &str) -> Result<&'a [T]> {
    if p.is_null() {
        return Err(null(name));
    }
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Failure::argument(name, &format!("fewer {what}"), format!("{len} {what}")));
    }
    // SAFETY: not NULL, not too long; the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(p, len) })
}

/// A structure to read.
///
/// # Safety
/// NULL or valid for reading a `T`.
pub unsafe fn given<'a, T>(p: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { p.as_ref() }.ok_or_else(|| null(name))
}

/// A structure to read that begins with its size, perhaps an older and shorter one: what it lacks is as in `rest`.
///
/// # Safety
/// NULL, or its first 8 bytes are readable and say how many are.
pub unsafe fn stamped<T: Fields + Copy>(p: *const T, rest: T, name: &str) -> Result<T> {
    let mut all = rest;
    // SAFETY: the caller's promise.
    let size = unsafe { bytes(p.cast(), size_of::<u64>(), name).map(|_| p.cast::<u64>().read_unaligned())? };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    check_size::<T>(size, &format!("{name}.size"))?;
    // SAFETY: the caller's promise; no more than there is room for.
    unsafe { (&raw mut all).cast::<u8>().copy_from_nonoverlapping(p.cast(), size) };
    Ok(all)
}

/// Copies a text, as much as there is room for, cut between characters, and a 0 behind it; gives its length.
///
/// # Safety
/// NULL or valid for writing `len` bytes.
pub unsafe fn text_into(text: &str, buffer: *mut c_char, len: usize, name: &str) -> Result<usize> {
    if len > 0 {
        let part = &text[..text.floor_char_boundary(len - 1)];
        // SAFETY: the caller's promise; `part` is shorter than `len`.
        unsafe {
            place(buffer, name, 0)?;
            buffer.cast::<u8>().copy_from_nonoverlapping(part.as_ptr(), part.len());
            buffer.add(part.len()).write(0);
        }
    }
    Ok(text.len())
}

/// Room for `len` bytes.
///
/// # Safety
/// NULL or valid for writing `len` bytes.
pub unsafe fn room<'a>(p: *mut u8, len: usize, name: &str) -> Result<&'a mut [MaybeUninit<u8>]> {
    // SAFETY: the caller's promise.
    unsafe { bytes(p, 0, name)? };
    let len = len.min(isize::MAX as usize);
    // SAFETY: not NULL, not too long; the caller's promise. The bytes may be uninitialised, as their type says.
    Ok(unsafe { std::slice::from_raw_parts_mut(p.cast(), len) })
}

/// Room for a plain structure as long as the program knows it, perhaps an older and shorter one.
pub struct Record<'a, T>(&'a mut [MaybeUninit<u8>], PhantomData<T>);

impl<T: Copy> Record<'_, T> {
    pub fn fill(self, value: &T) {
        // SAFETY: any initialised byte or padding is a valid `MaybeUninit<u8>`.
        let all = unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) };
        self.0.copy_from_slice(&all[..self.0.len()]);
    }
}

/// A structure that may grow: fields of 8 bytes, then fields of 4, without padding.
pub trait Fields {
    /// How many of 8.
    const WIDE: usize;
}

/// Room for a `T` of which the program knows `size` bytes.
///
/// # Safety
/// NULL or valid for writing `size` bytes.
pub unsafe fn record<'a, T: Fields>(p: *mut T, size: usize, name: &str) -> Result<Record<'a, T>> {
    check_size::<T>(size, name)?;
    // SAFETY: the caller's promise.
    Ok(Record(unsafe { room(p.cast(), size, name)? }, PhantomData))
}

/// A size of 8 bytes, the least any structure had, to all of them, that ends with a field: a program may be older than the
/// library, not newer.
pub fn check_size<T: Fields>(size: usize, name: &str) -> Result<()> {
    let unit = if size < 8 * T::WIDE { 8 } else { 4 };
    if (8..=size_of::<T>()).contains(&size) && size.is_multiple_of(unit) {
        return Ok(());
    }
    let expected = format!("a structure of 8 to {} bytes, whole fields of it", size_of::<T>());
    Err(Failure::argument(name, &expected, format!("{size}; is the program newer than the library?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Own(Shared);
    impl Handle for Own {
        fn shared(&self) -> &Shared {
            &self.0
        }
    }
    fn call(shared: &Shared, body: fn() -> Result<()>) -> pmt_status {
        shared.run(body)
    }
    fn fail() -> Result<()> {
        let none = std::hint::black_box(None::<u8>);
        none.expect("the test's own panic");
        Ok(())
    }

    #[test]
    fn a_panic_stops_here() {
        let shared = Shared::new(None).expect("a context");
        assert_eq!(call(&shared, fail), pmt_status::Internal);
        assert!(shared.message().contains("the test's own panic"), "{}", shared.message());
        assert_eq!(call(&shared, || panic!("number {}", 7)), pmt_status::Internal);
        assert!(shared.message().contains("number 7"), "{}", shared.message());
        let odd = || std::panic::panic_any(7_u32);
        assert_eq!(call(&shared, odd), pmt_status::Internal);
        assert_eq!(guard!(_, fail()), pmt_status::Internal);
        assert_eq!(call(&shared, || Ok(())), pmt_status::Ok);
        let own = Own(Shared::new(None).expect("a context"));
        let (handle, none) = (crate::handles::keep(own), std::ptr::null::<Own>());
        assert_eq!(guard!(handle, Ok(())), pmt_status::Ok);
        crate::handles::forget(handle);
        assert_eq!(
            (guard!(handle, fail()), guard!(none, fail())),
            (pmt_status::BadArgument, pmt_status::BadArgument)
        );
    }

    #[test]
    fn a_spoiled_handle_stays_spoiled_and_a_busy_one_says_so() {
        let lock = Mutex::new(0);
        let panicked = attempt(|| {
            let _held = exclusive(&lock, "trainer")?;
            fail()
        });
        assert_eq!(panicked.unwrap_err().status(), pmt_status::Internal);
        assert_eq!(exclusive(&lock, "trainer").unwrap_err().status(), pmt_status::Internal);
        let lock = Mutex::new(0);
        let _held = lock.lock();
        let busy = exclusive(&lock, "trainer").unwrap_err();
        assert_eq!(busy.status(), pmt_status::BadArgument);
        assert!(busy.to_string().contains("one thread at a time"), "{busy}");
    }

    #[test]
    fn each_kind_has_its_status() {
        for (error, status) in [
            (Error::bad("a", "b", "c"), pmt_status::BadFile),
            (Error::call("a", "b", "c"), pmt_status::BadArgument),
            (Error::missing("a", "b"), pmt_status::Missing),
            (Error::io("a", "b", "c"), pmt_status::Io),
            (Error::Graph("a".into()), pmt_status::Internal),
            (Error::Device { device: "a".into(), reason: "b".into() }, pmt_status::Device),
            (
                Error::Memory { device: "a".into(), reason: "b".into(), hint: String::new() },
                pmt_status::OutOfMemory,
            ),
            (Error::Cancelled, pmt_status::Cancelled),
        ] {
            assert_eq!(Failure::from(error.clone()).status(), status, "{error}");
        }
    }
}
