//! Versions, devices and contexts.
use crate::PMT_ABI_VERSION;
use crate::guard::{Failure, Handle, Result, guard, optional_text, place, record, text_into};
use crate::handles::{forget, keep};
use crate::shared::{Shared, of_call};
use crate::types::{pmt_device, pmt_log, pmt_memory, pmt_status};
use runtime::caps::Class;
use runtime::exec::wgpu::{AdapterInfo, adapters};
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

/// A device and the thread that works on it: models, trainings, drawings and jobs belong to one.
pub struct pmt_context(pub Arc<Shared>);

impl Handle for pmt_context {
    fn shared(&self) -> &Shared {
        &self.0
    }
}

/// The library's version, such as "0.1.0". Static.
#[unsafe(no_mangle)]
pub extern "C" fn pmt_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// `PMT_ABI_VERSION` of the library.
#[unsafe(no_mangle)]
pub extern "C" fn pmt_abi_version() -> u32 {
    PMT_ABI_VERSION
}

/// Lists the devices that can compute, the best one first: at most `capacity` of them into `devices`, each of `size` bytes
/// (`sizeof(pmt_device)`), and in `count` how many there are; so `devices` may be NULL when `capacity` is 0. Asks the drivers: up to
/// a second.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_devices(
    devices: *mut pmt_device,
    size: usize,
    capacity: u32,
    count: *mut u32,
) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let count = unsafe { place(count, "count", 0)? };
        let all = adapters();
        *count = u32::try_from(all.len()).unwrap_or(u32::MAX);
        for (index, info) in all.iter().take(capacity as usize).enumerate() {
            // SAFETY: the rules in the header.
            let one =
                unsafe { record(devices.wrapping_byte_add(index.saturating_mul(size)), size, "devices")? };
            one.fill(&described(index, info));
        }
        Ok(())
    })
}

fn described(index: usize, info: &AdapterInfo) -> pmt_device {
    pmt_device {
        memory: info.caps.memory.unwrap_or(0),
        index: index as u32,
        software: u32::from(info.caps.class == Class::Software),
        name: chars(&info.name),
        pci: chars(&info.pci),
        backend: chars(&info.backend),
        driver: chars(&info.driver),
    }
}

/// A text that ends in 0, cut between characters.
pub fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut all = [0; N];
    let text = text.as_bytes().split(|&b| b == 0).next().unwrap_or_default();
    let text = core::str::from_utf8(text).unwrap_or("");
    let part = &text[..text.floor_char_boundary(N - 1)];
    all.iter_mut().zip(part.bytes()).for_each(|(to, byte)| *to = byte as c_char);
    all
}

/// Makes a context. `device` is a device's index, PCI id ("0000:01:00.0") or name, or a part of the name that no other one has;
/// NULL or "" for the best one. Starts a thread and returns at once: the device is opened, and the choice judged, by the first job or
/// by `pmt_context_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_new(
    device: *const c_char,
    context: *mut *mut pmt_context,
) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let (context, device) =
            unsafe { (place(context, "context", null_mut())?, optional_text(device, "device")?) };
        *context = keep(pmt_context(Arc::new(Shared::new(device)?)));
        Ok(())
    })
}

/// Frees a context. What was made with it lives on, and so do its device and its thread, until the last of it is freed; but
/// messages can no longer be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_free(context: *mut pmt_context) {
    guard!(_, {
        forget(context);
        Ok(())
    });
}

/// Copies the sentence about the last call that failed on this context or what was made with it; "" before. At most
/// `len` bytes, the final 0 included, cut between characters. Gives the length of the whole sentence without the 0; so
/// `buffer` may be NULL when `len` is 0. Gives 0 when `context` is NULL. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_error_message(
    context: *const pmt_context,
    buffer: *mut c_char,
    len: usize,
) -> usize {
    let mut whole = 0;
    guard!(context, {
        let message = context.0.message().clone();
        // SAFETY: the rules in the header.
        whole = unsafe { text_into(&message, buffer, len, "buffer")? };
        Ok(())
    });
    whole
}

/// Gives the context time, once a frame: microseconds of the GPU and of the context's own thread. Work takes it in pieces of half of
/// `gpu_us`; no more than two pieces, and no more than `gpu_us` together, are ever submitted and not done, however rarely or often this is called.
/// What is not used is lost, and what took longer is taken off later calls. A piece is as long as its longest kernel at least, and then the
/// only one: kernels are cut to what the device makes in 2 ms, measured when it is opened, copies of weights to 32 MB. How
/// long pieces take is learnt from the GPU's own clock where it has one. 0 pauses. Before the first call, and after one with UINT32_MAX for both, work goes as fast as it can. While another thread waits in
/// a function that waits, budgets are not kept. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_poll(
    context: *const pmt_context,
    gpu_us: u32,
    cpu_us: u32,
) -> pmt_status {
    guard!(context, {
        let pace = context.0.host.pace();
        let time = |us: u32| Duration::from_micros(us.into());
        if (gpu_us, cpu_us) == (u32::MAX, u32::MAX) {
            pace.free();
        } else {
            pace.poll(time(gpu_us), time(cpu_us));
        }
        Ok(())
    })
}

/// Opens the device now, and so tells whether there is one, instead of with the first job. Waits: seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_open(context: *const pmt_context) -> pmt_status {
    guard!(context, { context.0.host.open().map(drop).map_err(of_call) })
}

/// Tells what the context holds on the device. `size` is `sizeof(pmt_memory)`. Waits for the piece of work in progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_memory(
    context: *const pmt_context,
    memory: *mut pmt_memory,
    size: usize,
) -> pmt_status {
    guard!(context, {
        // SAFETY: the rules in the header.
        let memory = unsafe { record(memory, size, "memory")? };
        let held = context.0.host.memory()?;
        let (now, weights, activations) = (held.now.total(), held.now.leaves, held.now.arena);
        let other = now - weights - activations;
        memory.fill(&pmt_memory { now, peak: held.peak.total(), weights, activations, other });
        Ok(())
    })
}

/// Limits what all work of this context holds on the device together, in bytes; UINT64_MAX lifts it. A training that begins later keeps to
/// it as to its setting `memory`, or its job is PMT_STATUS_BAD_ARGUMENT with the least that would do; a drawing for which there is no more room
/// frees its model's weights and has them come from the host's memory for each run, and where that is not enough is
/// PMT_STATUS_OUT_OF_MEMORY. What is held already stays. Counted is what `pmt_context_memory` tells, without what a driver adds for itself.
/// For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_limit_memory(context: *const pmt_context, bytes: u64) -> pmt_status {
    guard!(context, { context.0.host.set_memory(bytes).map_err(of_call) })
}

/// Cancels all jobs of this context. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_cancel(context: *const pmt_context) -> pmt_status {
    guard!(context, {
        context.0.cancel();
        Ok(())
    })
}

/// Names a function that is told what happens, and what it is given; NULL for none. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_log(
    context: *const pmt_context,
    log: pmt_log,
    user: *mut c_void,
) -> pmt_status {
    guard!(context, {
        context.0.set_log(log, user);
        Ok(())
    })
}

/// Names a file that keeps what the driver builds of the library's kernels, so that later programs start faster; NULL for none,
/// which is how a context begins. It is read when the device is opened and written, whole, when the context ends; a
/// driver that cannot do it leaves it alone, and a file that is missing, damaged or another device's costs nothing but time. A driver
/// believes what is in it: keep it where nobody else writes. Its folder must be there. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_pipeline_cache(
    context: *const pmt_context,
    file: *const c_char,
) -> pmt_status {
    guard!(context, {
        // SAFETY: the rules in the header.
        let file = unsafe { optional_text(file, "file")? };
        let file = file.map(|file| absolute(Path::new(file), "file")).transpose()?;
        context.0.keep_pipelines(file);
        Ok(())
    })
}

/// A path that means the same when the program's folder changes.
pub fn absolute(path: &Path, name: &str) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Failure::argument(name, "a path", e.to_string()))
}
