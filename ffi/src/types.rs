//! What crosses the boundary by value.
use crate::guard::Fields;
use std::ffi::{c_char, c_void};

/// The outcome of a call, or of a job.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_status {
    /// It worked.
    Ok = 0,
    /// A NULL, size, setting or order of calls that cannot be.
    BadArgument = 1,
    /// A model, adapter or other file cannot be used as it is.
    BadFile = 2,
    /// A file, tensor, adapter or device that must be there is not.
    Missing = 3,
    /// The operating system, or the program's own reader or writer, refused to read or write.
    Io = 4,
    /// The GPU cannot run this, or failed while running it. The next job opens it anew.
    Device = 5,
    /// Stopped by `pmt_job_cancel` or `pmt_context_cancel`, or what it worked on was freed.
    Cancelled = 6,
    /// A bug in the library. What it was working on is of no more use: free it.
    Internal = 7,
    /// A NaN or infinity in a file, or made by a training that diverged or by settings; the message names the first. The
    /// adapter from before stays readable.
    NotFinite = 8,
    /// No mistake: the job is not over, or there is nothing to fetch yet.
    Pending = 9,
    /// The device has too little memory left.
    OutOfMemory = 10,
}

/// What a job is doing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_phase {
    /// Other jobs go first.
    Waiting = 0,
    /// The device is opened.
    Opening = 1,
    /// Weights and plans are made ready, and memory is planned.
    Loading = 2,
    /// Prompts and references are encoded; `done` of `total` pieces.
    Encoding = 3,
    /// Supervised steps on the references; `done` of `total`.
    Warm = 4,
    /// Iterations; `done` of `total` model runs within the one that follows `iteration`.
    Iterating = 5,
    /// Sampling steps of all images; `done` of `total`.
    Drawing = 6,
    /// Over.
    Over = 7,
}

/// How pixels lie in memory. 8-bit values are 0 to 255, others 0 to 1, all as displays take them (sRGB). Alpha is written as opaque; of a
/// reference, it mixes with the `background` setting.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_format {
    /// 3 bytes.
    Rgb8 = 0,
    /// 4 bytes.
    Rgba8 = 1,
    /// 4 bytes, blue first.
    Bgra8 = 2,
    /// 3 half-precision numbers.
    Rgb16f = 3,
    /// 4 half-precision numbers.
    Rgba16f = 4,
    /// 3 single-precision numbers.
    Rgb32f = 5,
    /// 4 single-precision numbers.
    Rgba32f = 6,
}

/// An image in the program's memory, to be read or written.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pmt_image {
    /// The first row, the uppermost.
    pub pixels: *mut c_void,
    /// Bytes that may be used from there.
    pub bytes: usize,
    /// Bytes from one row to the next; 0: no padding. The last row needs none.
    pub stride: usize,
    /// Pixels, 1 to 16384.
    pub width: u32,
    /// Pixels, 1 to 16384.
    pub height: u32,
    /// One of `pmt_format`.
    pub format: u32,
    /// 0.
    pub reserved: u32,
}

/// What is to be drawn. Start from `pmt_drawing_default`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pmt_drawing {
    /// Bytes of this structure in the program, set by `pmt_drawing_default`.
    pub size: u64,
    /// A prompt for each image.
    pub prompts: *const *const c_char,
    /// A seed for each image; NULL: 0, 1, 2 and so on. Equal parameters give equal images on one device.
    pub seeds: *const u64,
    /// What guidance leads away from; NULL: nothing in particular.
    pub negative: *const c_char,
    /// Images, 1 to 1024.
    pub count: u32,
    /// Pixels; 0: the side of the images that the model was trained on.
    pub width: u32,
    /// Pixels; 0: as for `width`.
    pub height: u32,
    /// Sampling steps, 1 to 1000.
    pub steps: u32,
    /// Images sampled at once: more are faster and take more memory.
    pub batch: u32,
    /// Sampling steps from one preview to the next; 0: none. Each takes a run of the decoder. Not from trainers.
    pub preview: u32,
    /// Classifier-free guidance; 1 turns it off.
    pub guidance: f32,
    /// 0.
    pub reserved: u32,
}

/// What one iteration did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct pmt_metrics {
    /// Mean reward of the generated images.
    pub reward_generated: f32,
    /// Mean reward of the references.
    pub reward_reference: f32,
    /// Standard deviation of the rewards within groups.
    pub reward_spread: f32,
    /// Hinge loss of the reward head.
    pub head_loss: f32,
    /// Part of images the reward head told apart, 0 to 1.
    pub head_accuracy: f32,
    /// Part of probability ratios outside the clip range, 0 to 1.
    pub clip_fraction: f32,
    /// Gradient norm before clipping.
    pub gradient_norm: f32,
    /// How well the gradients of two halves of the images agree, a cosine; -2 where all went through in one run.
    pub agreement: f32,
    /// Learning rate of the last optimiser step.
    pub rate: f32,
    /// Mean squared distance from the warm start's velocities where noise is high.
    pub anchor_loss: f32,
    /// Loss of the last supervised step.
    pub supervised_loss: f32,
    /// Seconds of work it took, pauses not counted.
    pub seconds: f32,
}

/// How far a job is. Numbers of the last complete iteration stay until the next one is complete.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pmt_progress {
    /// One of `pmt_phase`: where `done` and `total` belong.
    pub phase: u32,
    /// PMT_STATUS_PENDING, or how the job ended.
    pub status: u32,
    /// Pieces of this phase.
    pub done: u32,
    /// All pieces of this phase; 0 while unknown.
    pub total: u32,
    /// Iterations complete.
    pub iteration: u32,
    /// All iterations; 0 where time decides, and for drawings.
    pub iterations: u32,
    /// Seconds of work to the end at the speed so far; -1 while unknown.
    pub seconds_left: f32,
    /// Loss of the last supervised step.
    pub warm_loss: f32,
    /// How far fixed pictures keep the base model's shapes at the last look, 0 to 1; -1 where those have no background, and
    /// before the first look.
    pub silhouettes: f32,
    /// How far they are from the references, in units of the references' deviations; -1 before the first look.
    pub distance: f32,
    /// Iteration of the best look so far; 0: the warm start's. It is the adapter's when the last look is worse.
    pub best_iteration: u32,
    /// Of the last complete iteration.
    pub metrics: pmt_metrics,
}

/// What happened to a job.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_event_kind {
    /// The device is open; `text` is its name.
    Opened = 1,
    /// Another `phase`.
    Phase = 2,
    /// `done` of `total` pieces of the phase.
    Step = 3,
    /// Step `done` of the warm start; its `loss`.
    Warm = 4,
    /// Iteration `iteration` is complete; its `metrics`.
    Iteration = 5,
    /// A look at fixed pictures after `iteration`; `silhouettes` and `distance` as in `pmt_progress`; `text` says why training
    /// ends here, or is empty.
    Look = 6,
    /// `pmt_job_preview` shows sampling step `done`.
    Preview = 7,
    /// Something that is to be known; `text`.
    Note = 8,
    /// Over; `status`, and `text` where it failed.
    Over = 9,
    /// A training waits for others: `total` pieces are to be made by `pmt_trainer_work` and given to `pmt_trainer_give`; `text` is `rollout` or
    /// `gradients`.
    Wanted = 10,
}

/// An event. Fields that its kind does not name are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pmt_event {
    /// One of `pmt_event_kind`.
    pub kind: u32,
    /// One of `pmt_phase`.
    pub phase: u32,
    /// One of `pmt_status`.
    pub status: u32,
    /// See the kinds.
    pub done: u32,
    /// See the kinds.
    pub total: u32,
    /// See the kinds.
    pub iteration: u32,
    /// See the kinds.
    pub loss: f32,
    /// See the kinds.
    pub silhouettes: f32,
    /// See the kinds.
    pub distance: f32,
    /// See the kinds.
    pub metrics: pmt_metrics,
    /// UTF-8 that ends in 0, cut between characters where it is longer.
    pub text: [c_char; 256],
}

/// A device that can compute.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pmt_device {
    /// Bytes of its own memory; 0 where the system does not tell.
    pub memory: u64,
    /// Its place in the list: the best one is 0.
    pub index: u32,
    /// 1 for a driver that computes on the processor, else 0.
    pub software: u32,
    /// Name as the driver gives it.
    pub name: [c_char; 128],
    /// PCI address such as "0000:01:00.0"; empty where the system tells none.
    pub pci: [c_char; 32],
    /// "vulkan", "metal", "dx12".
    pub backend: [c_char; 32],
    /// Driver and its version.
    pub driver: [c_char; 128],
}

/// Bytes on the device, of all that belongs to a context.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct pmt_memory {
    /// Held now.
    pub now: u64,
    /// Held when it was most.
    pub peak: u64,
    /// Of `now`: weights, adapters and other parameters.
    pub weights: u64,
    /// Of `now`: values between kernels.
    pub activations: u64,
    /// Of `now`: all else.
    pub other: u64,
}

/// What a training takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct pmt_estimate {
    /// Most bytes on the device at a time.
    pub peak: u64,
    /// Of these: weights, adapters and other parameters.
    pub weights: u64,
    /// Of these: values between kernels.
    pub activations: u64,
    /// Bytes of a saved state, and of the program's memory for it.
    pub state: u64,
    /// Floating-point operations of everything before the first iteration.
    pub work_before: f64,
    /// Floating-point operations of an iteration.
    pub work_iteration: f64,
}

/// A setting of a training. All texts are static.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pmt_setting {
    /// Its name, as in "optim.rate".
    pub name: *const c_char,
    /// What it may be, a part of a sentence.
    pub expected: *const c_char,
    /// What it counts; empty where it has no unit.
    pub unit: *const c_char,
    /// What it is.
    pub about: *const c_char,
    /// Where it comes from: a paper, the released code, or this library.
    pub source: *const c_char,
}

/// A file of the program's own.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pmt_file {
    /// Its name inside the model's folder, with `/` between parts: "transformer/config.json".
    pub name: *const c_char,
    /// Its bytes, if they are in memory: they have to stay until everything that was made with the model is freed. NULL: they are read when
    /// they are needed.
    pub data: *const c_void,
    /// How many they are.
    pub bytes: u64,
}

/// Reads `len` bytes of the file of an index from `offset` on into `into`. Not 0: it could not. Called until everything that was made with the
/// model is freed, on any thread, several at a time; it must not call what waits.
pub type pmt_read = Option<
    unsafe extern "C" fn(user: *mut c_void, file: u32, offset: u64, into: *mut c_void, len: usize) -> i32,
>;

/// Takes a sentence, without a line's end, that ends in 0. Called on the context's own thread, which waits for it:
/// it must not call what waits.
pub type pmt_log = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char)>;

/// Takes `len` bytes, all of them in one call. Not 0: it could not, which is PMT_STATUS_IO for the call it was given to. Called before that call
/// returns, on its thread.
pub type pmt_write = Option<unsafe extern "C" fn(user: *mut c_void, bytes: *const u8, len: usize) -> i32>;

// Fields may be added at the end only if there is no padding in which old programs have garbage.
const _: () = assert!(size_of::<pmt_drawing>() == 4 * 8 + 8 * 4 && size_of::<pmt_image>() == 3 * 8 + 4 * 4);
const _: () = assert!(size_of::<pmt_metrics>() == 12 * 4 && size_of::<pmt_progress>() == 23 * 4);
const _: () = assert!(size_of::<pmt_event>() == 21 * 4 + 256 && size_of::<pmt_device>() == 2 * 8 + 320);
const _: () = assert!(size_of::<pmt_memory>() == 5 * 8 && size_of::<pmt_estimate>() == 6 * 8);
const _: () = assert!(size_of::<pmt_setting>() == 5 * 8 && size_of::<pmt_file>() == 3 * 8);

macro_rules! fields {
    ($($type:ty: $wide:literal),*) => { $(impl Fields for $type {
        const WIDE: usize = $wide;
    })* };
}
fields!(pmt_drawing: 4, pmt_progress: 0, pmt_event: 0, pmt_device: 1, pmt_memory: 5, pmt_estimate: 6, pmt_setting: 5);
