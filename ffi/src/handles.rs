//! What C sees as handles: numbers that look like pointers. None is given twice, so one that is wrong, freed or of another kind
//! is found out, and nothing is ever read through it.
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where no system has memory of a program, so that a debugger shows what it is and using it as memory ends at once.
const FIRST: usize = 0x706d_7400_0000_0010_u64 as usize;

struct Entry {
    what: Arc<dyn Any + Send + Sync>,
    /// A fork has its parent's numbers, but none of its driver's threads.
    process: u32,
}

fn live() -> MutexGuard<'static, BTreeMap<usize, Entry>> {
    static LIVE: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle for a value.
pub fn keep<T: Any + Send + Sync>(value: T) -> *mut T {
    static NEXT: AtomicUsize = AtomicUsize::new(FIRST);
    let number = NEXT.fetch_add(16, Ordering::Relaxed);
    live().insert(number, Entry { what: Arc::new(value), process: std::process::id() });
    std::ptr::without_provenance_mut(number)
}

/// What a handle stands for; it lives until nobody uses it.
pub fn find<T: Any + Send + Sync>(handle: *const T) -> Option<Arc<T>> {
    let live = live();
    let entry = live.get(&handle.addr()).filter(|e| e.process == std::process::id())?;
    entry.what.clone().downcast().ok()
}

/// Frees a handle; NULL and what is none are passed over.
pub fn forget<T: Any + Send + Sync>(handle: *const T) {
    let found = find(handle);
    let removed = found.is_some().then(|| live().remove(&handle.addr()));
    drop(removed); // after the lock, which freeing a device must not hold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_handles_of_the_kind_are_found() {
        let (a, b) = (keep(7_u32), keep(8_u32));
        assert_eq!((find(a).as_deref(), find(b).as_deref()), (Some(&7), Some(&8)));
        assert!(find(a.cast::<String>()).is_none(), "another kind");
        forget(a.cast::<String>());
        assert_eq!(find(a).as_deref(), Some(&7), "freed as another kind");
        let used = find(a);
        forget(a);
        forget(a);
        assert!(find(a).is_none() && used.as_deref() == Some(&7), "freed under a user");
        assert_ne!(keep(9_u32), a, "a number was given twice");
        let own = 7_u32;
        assert!(find(&raw const own).is_none() && find(std::ptr::null::<u32>()).is_none());
        forget(std::ptr::null::<u32>());
    }
}
