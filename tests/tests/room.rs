//! The host's memory runs out, at any of the allocations that a model's files or a picture's size make large: that is an error, not the end of
//! the process, and the next try succeeds.
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Pipeline, Sampling};
use pentimento_runtime::weights::Base;
use pentimento_trainer::Result;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};
use tests::adapter::adapter;
use tests::built::workspace;

/// Bytes from which an allocation is large: lists of a graph's nodes and of compilers' stay below.
const LARGE: usize = 180_000;

/// Gives no memory for the large allocation whose turn it is, counted down; 0 and less: gives all.
struct Short(AtomicI64);

impl Short {
    fn refuses(&self, size: usize) -> bool {
        size >= LARGE && self.0.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

// SAFETY: the system's allocator; NULL says that there is no memory.
unsafe impl GlobalAlloc for Short {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        if self.refuses(layout.size()) { core::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        if self.refuses(layout.size()) {
            core::ptr::null_mut()
        } else {
            unsafe { System.alloc_zeroed(layout) }
        }
    }
    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        if self.refuses(size) { core::ptr::null_mut() } else { unsafe { System.realloc(old, layout, size) } }
    }
    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static MEMORY: Short = Short(AtomicI64::new(0));

/// Opens the default model, on disk in half precision, and draws; `base` and `stream` as the pipeline's.
fn drawn(base: Option<Base>, stream: bool) -> Result<Vec<f32>> {
    let gpu = adapter("memory of the host").expect("it was there");
    let mut pipeline =
        Pipeline::open(&ModelFolder::open(&workspace().join("examples/models/icons"))?, Box::new(gpu))?;
    (pipeline.base, pipeline.stream) = (base, stream);
    let texts = pipeline.encode_all(&["icon of a red apple", ""])?;
    let how = Sampling { steps: 1, guidance: 4.0, width: 128, height: 128 };
    Ok(pipeline.generate(&[(&texts[0], 7)], &texts[1], &how, &mut |_, _| true)?.swap_remove(0))
}

#[test]
fn too_little_memory_is_an_error() {
    if adapter("memory of the host").is_none() {
        return;
    }
    for (base, stream) in [(None, false), (Some(Base::Q8), true)] {
        MEMORY.0.store(0, Ordering::Relaxed);
        let want = drawn(base, stream).expect("an image");
        let large = -MEMORY.0.load(Ordering::Relaxed);
        assert!(large > 20, "{large} large allocations: nothing is tried");
        // The first and the last ones, and some between.
        let mut tried = 0;
        for n in (1..=large).filter(|n| *n < 8 || large - n < 6 || n % 13 == 0) {
            MEMORY.0.store(n, Ordering::Relaxed);
            let error = drawn(base, stream).expect_err("no memory").to_string();
            assert!(
                error.contains("device host: out of memory:") && error.contains("bytes for"),
                "{n} of {large}: {error}"
            );
            tried += 1;
        }
        println!("base {base:?}, streamed {stream}: {tried} of {large} large allocations refused");
        assert!(drawn(base, stream).expect("an image") == want, "another image afterwards");
    }
}
