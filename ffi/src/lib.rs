//! C interface of pentimento. Everything a C program sees is in this file and in `types.rs`, in the order of
//! include/pentimento.h, which cbindgen makes from them; the rules that hold for all functions are in `cbindgen.toml`.
#![allow(non_camel_case_types, reason = "these are the names C sees")]
#![allow(clippy::missing_safety_doc, reason = "one set of rules for all functions heads the header")]

mod guard;
mod handles;
mod session;
mod turn;
mod types;

use guard::{Failure, Handle, Shared, bytes, exclusive, guard, optional_text, place, record, room, text};
use handles::{forget, keep};
use pentimento_trainer::adapted::Source;
use pentimento_trainer::images::MAX_SIDE;
use session::{Artist, Session, absolute, deliver, native_side, picture, sampling};
use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};
use turn::Turn;
use types::{pmt_config, pmt_phase, pmt_progress, pmt_status};

/// Version of this header's functions and structures. Compare it with `pmt_abi_version` when linking dynamically. It
/// changes only when a program built for the old one would break: new functions, and new fields at the end of
/// structures, keep it.
pub const PMT_ABI_VERSION: u32 = 1;

/// What may move between threads as long as the device may.
struct Moved<T>(T);
// SAFETY: besides the device (checked below), which hides behind `dyn Executor`, a handle owns plain data and files mapped
// read-only; a host's own reward, which might be tied to its thread, cannot be given from C.
unsafe impl<T> Send for Moved<T> {}
const _: fn() = || {
    fn may_move<T: Send>() {}
    may_move::<runtime::exec::wgpu::Wgpu>();
};

/// Where errors are told, and which device is used.
pub struct pmt_context(Arc<Shared>);

/// A training.
pub struct pmt_trainer {
    shared: Arc<Shared>,
    turn: Arc<Turn>,
    session: Mutex<Moved<Session>>,
}

/// A model to draw with, with or without an adapter.
pub struct pmt_pipeline {
    shared: Arc<Shared>,
    turn: Arc<Turn>,
    artist: Mutex<Moved<Artist>>,
}

impl Handle for pmt_context {
    fn shared(&self) -> &Shared {
        &self.0
    }
}
impl Handle for pmt_trainer {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}
impl Handle for pmt_pipeline {
    fn shared(&self) -> &Shared {
        &self.shared
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

/// Makes a context. `device` is a GPU's index, PCI id ("0000:01:00.0") or name, or a part of the name that no other one has;
/// NULL or "" for the best one. Returns at once: the device is opened, and the choice judged, by `pmt_pipeline_new` and the
/// first `pmt_trainer_step`, for each handle anew.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_new(
    device: *const c_char,
    context: *mut *mut pmt_context,
) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let (context, device) =
            unsafe { (place(context, "context", null_mut())?, optional_text(device, "device")?) };
        *context = keep(pmt_context(Arc::new(Shared::new(device))));
        Ok(())
    })
}

/// Frees a context. Its trainers and pipelines live on, but their messages can no longer be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_free(context: *mut pmt_context) {
    guard!(_, {
        forget(context);
        Ok(())
    });
}

/// Copies the sentence about the last call that failed on this context, its trainers or pipelines; "" before. At most
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
        let message = context.0.message();
        whole = message.len();
        if len > 0 {
            let part = &message[..message.floor_char_boundary(len - 1)];
            // SAFETY: the rules in the header; `part` is shorter than `len`.
            unsafe {
                place(buffer, "buffer", 0)?;
                buffer.cast::<u8>().copy_from_nonoverlapping(part.as_ptr(), part.len());
                buffer.add(part.len()).write(0);
            }
        }
        Ok(())
    });
    whole
}

/// Does what `pmt_trainer_cancel` and `pmt_pipeline_cancel` do to all trainers and pipelines of this context. For every
/// thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_cancel(context: *const pmt_context) -> pmt_status {
    guard!(context, {
        context.0.cancel();
        Ok(())
    })
}

/// Names a file that keeps what the driver builds of the library's kernels, so that later programs start faster; NULL for none,
/// which is how a context begins. For handles whose device is opened after this. It is read when the device is opened and
/// written, whole, when the handle is freed; a driver that cannot do it leaves it alone, and a file that is missing, damaged
/// or another device's costs nothing but time. A driver believes what is in it: keep it where nobody else writes. Its folder
/// must be there. Returns at once.
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

/// Fills in the recommended settings, for GPUs; with a CPU driver set `max_seconds`, or draw fewer images. `size` is
/// `sizeof(pmt_config)`; one that is larger than the library knows, so of a newer header, is PMT_STATUS_BAD_ARGUMENT.
/// Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_config_default(config: *mut pmt_config, size: usize) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let config = unsafe { record(config, size, "config")? };
        config.fill(&pmt_config { size: size as u64, ..pmt_config::default() });
        Ok(())
    })
}

/// Fills in the settings of a recipe, one of `pmt_recipe`, as `pmt_config_default` does the recommended ones. Returns at
/// once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_config_recipe(config: *mut pmt_config, size: usize, recipe: u32) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let config = unsafe { record(config, size, "config")? };
        config.fill(&pmt_config { size: size as u64, ..pmt_config::recipe(recipe)? });
        Ok(())
    })
}

/// Makes a training. `model` is a diffusers folder of an SD3-family model, or a single file with what it lacks
/// (tokenizers) in folders beside it; `reward` is a Dinov2Model folder or NULL for the folder `reward` inside the
/// model's, `config` the settings. Reads configurations and maps weights, milliseconds; the device is opened by the
/// first step.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_new(
    context: *const pmt_context,
    model: *const c_char,
    reward: *const c_char,
    config: *const pmt_config,
    trainer: *mut *mut pmt_trainer,
) -> pmt_status {
    guard!(context => trainer, {
        // SAFETY: the rules in the header.
        let (trainer, model, reward, config) = unsafe {
            let trainer = place(trainer, "trainer", null_mut())?;
            (trainer, text(model, "model")?, optional_text(reward, "reward")?, pmt_config::read(config)?)
        };
        let session = Mutex::new(Moved(Session::new(model, reward, &config)?));
        *trainer = keep(pmt_trainer { shared: context.0.clone(), turn: context.0.turn(), session });
        Ok(())
    })
}

/// Frees a training and its device memory. An adapter that was not saved is lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_free(trainer: *mut pmt_trainer) {
    guard!(_, {
        forget(trainer);
        Ok(())
    });
}

/// Makes the `pmt_trainer_step` or `pmt_trainer_generate` in progress return PMT_STATUS_CANCELLED; with `ask` 0 takes that
/// back. A step ends first and loses nothing: the next one goes on. Drawing stops before its next submit. Where no call is in
/// progress nothing happens, to later ones neither. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_cancel(trainer: *const pmt_trainer, ask: u32) -> pmt_status {
    guard!(trainer, {
        trainer.turn.ask(ask != 0);
        Ok(())
    })
}

/// The training resolution in pixels. References may have any size: they are brought to this one as the settings' `fit`
/// says. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_resolution(
    trainer: *const pmt_trainer,
    width: *mut u32,
    height: *mut u32,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let (width, height) = unsafe { (place(width, "width", 0)?, place(height, "height", 0)?) };
        [*width, *height] = exclusive(&trainer.session, "trainer")?.0.size;
        Ok(())
    })
}

/// Adds a reference image, before the first step. Rows begin `stride` bytes apart, at least `3 * width`; the last one
/// need not be padded. Sides are 1 to 16384. `caption` says what it shows, NULL: nothing. Copied. Milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_add_reference(
    trainer: *mut pmt_trainer,
    pixels: *const u8,
    width: u32,
    height: u32,
    stride: usize,
    caption: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        let len = image_bytes(width, height, stride)?;
        // SAFETY: the rules in the header.
        let (pixels, caption) =
            unsafe { (bytes(pixels, len, "pixels")?, optional_text(caption, "caption")?) };
        let picture = picture(pixels, width, height, stride)?;
        exclusive(&trainer.session, "trainer")?.0.add_reference(&picture, caption)
    })
}

/// Adds a prompt to draw from while training, before the first step. Without any, the captions serve. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_add_prompt(
    trainer: *mut pmt_trainer,
    prompt: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let prompt = unsafe { text(prompt, "prompt")? };
        exclusive(&trainer.session, "trainer")?.0.add_prompt(prompt)
    })
}

/// Trains a little. The first call opens the device and loads the reward model: seconds. Every later one encodes a text,
/// or submits or reads one piece of work, about 0.1 s; at first it also builds shaders, or waits for the threads that do, one
/// after another as 0.1 s allow, so that a call takes as long as the slowest shader: seconds on drivers that compile slowly. `progress` may be NULL; else `size` is `sizeof(pmt_progress)`. Call until
/// `progress->phase` is PMT_PHASE_DONE; calls after that do nothing. After a failure the adapter can still be saved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_step(
    trainer: *mut pmt_trainer,
    progress: *mut pmt_progress,
    size: usize,
) -> pmt_status {
    guard!(trainer, {
        let wanted = !progress.is_null();
        // SAFETY: the rules in the header.
        let progress = wanted.then(|| unsafe { record(progress, size, "progress") }).transpose()?;
        let mut session = exclusive(&trainer.session, "trainer")?;
        let turn = trainer.turn.begin();
        let now = session.0.step(&trainer.shared)?;
        progress.into_iter().for_each(|p| p.fill(now));
        turn.check()
    })
}

/// Writes the adapter as it is now, averaged over the iterations, or the best one seen if the last look (see
/// `watch_every`) found that one worse, as a safetensors file that diffusers, ComfyUI and
/// stable-diffusion.cpp read. Not before the first step. A reader never sees half a file. Milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_save_adapter(
    trainer: *mut pmt_trainer,
    path: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let path = unsafe { text(path, "path")? };
        let mut session = exclusive(&trainer.session, "trainer")?;
        Ok(session.0.trainer()?.adapter()?.save(Path::new(path))?)
    })
}

/// Writes all that the training is, as of the last moment between two of its stages or two steps of the warm start: adapter, averages,
/// optimisers, reward head, random streams. `pmt_trainer_resume` goes on from there to the same adapter, bit for bit, on the same device
/// and driver. After a failure, a lost device for one, too. PMT_STATUS_BAD_ARGUMENT while prompts and references are still being
/// prepared: there is nothing to save then. A reader never sees half a file, and the one that is replaced stays whole until then. As
/// long as writing takes: the file is about six adapters and the images that the head remembers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_save_state(
    trainer: *mut pmt_trainer,
    path: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let path = unsafe { text(path, "path")? };
        exclusive(&trainer.session, "trainer")?.0.save_state(Path::new(path))
    })
}

/// Goes on with a training that `pmt_trainer_save_state` wrote: to be called before the first step of a training of the same model,
/// reward, settings, prompts and references, but for more `iterations`; `max_seconds` counts those of the saved one, too. The file is
/// read now; whether it fits is told by the first step, with a sentence that names the difference.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_resume(trainer: *mut pmt_trainer, path: *const c_char) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let path = unsafe { text(path, "path")? };
        exclusive(&trainer.session, "trainer")?.0.resume(Path::new(path))
    })
}

/// Draws an image with the adapter that `pmt_trainer_save_adapter` would write; training goes on as if nothing had been
/// drawn. Not before the first step. Parameters and time as `pmt_pipeline_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_generate(
    trainer: *mut pmt_trainer,
    prompt: *const c_char,
    seed: u64,
    steps: u32,
    guidance: f32,
    width: u32,
    height: u32,
    rgb: *mut u8,
    rgb_len: usize,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let (prompt, room) = unsafe { (text(prompt, "prompt")?, room(rgb, rgb_len, "rgb")?) };
        let mut session = exclusive(&trainer.session, "trainer")?;
        let artist = session.0.trainer()?;
        let how = sampling(artist.pipeline(), steps, guidance, [width, height], room)?;
        let turn = trainer.turn.begin();
        let image = artist.draw(prompt, seed, &how, &mut |_, _| !turn.asked())?;
        deliver(&image, room)
    })
}

/// Opens a model to draw with. `model` is a diffusers folder of an SD3-family model, or a single file with what it
/// lacks (tokenizers) in folders beside it; `adapter` is a LoRA file or folder or NULL. An adapter that does not fit
/// the model in every part is refused. Opens the device and loads the text encoders: seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_new(
    context: *const pmt_context,
    model: *const c_char,
    adapter: *const c_char,
    pipeline: *mut *mut pmt_pipeline,
) -> pmt_status {
    guard!(context => pipeline, {
        // SAFETY: the rules in the header.
        let (pipeline, model, adapter) = unsafe {
            let pipeline = place(pipeline, "pipeline", null_mut())?;
            (pipeline, text(model, "model")?, optional_text(adapter, "adapter")?)
        };
        let adapter: Vec<Source> = adapter.into_iter().map(Source::new).collect();
        let artist = Mutex::new(Moved(Artist::new(model, &adapter, &context.0)?));
        *pipeline = keep(pmt_pipeline { shared: context.0.clone(), turn: context.0.turn(), artist });
        Ok(())
    })
}

/// As `pmt_pipeline_new`, with `count` adapters that add up; their ranks and layers may differ. `adapters` may be NULL when
/// `count` is 0. Each has its finite number of `strengths`: 1 is as trained, 0 nothing, a negative one takes away what the
/// adapter learnt; NULL is 1 for all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_new_adapted(
    context: *const pmt_context,
    model: *const c_char,
    adapters: *const *const c_char,
    strengths: *const f32,
    count: usize,
    pipeline: *mut *mut pmt_pipeline,
) -> pmt_status {
    guard!(context => pipeline, {
        // SAFETY: the rules in the header.
        let (pipeline, model, adapters) = unsafe {
            let pipeline = place(pipeline, "pipeline", null_mut())?;
            (pipeline, text(model, "model")?, guard::adapters(adapters, strengths, count)?)
        };
        let artist = Mutex::new(Moved(Artist::new(model, &adapters, &context.0)?));
        *pipeline = keep(pmt_pipeline { shared: context.0.clone(), turn: context.0.turn(), artist });
        Ok(())
    })
}

/// Frees a pipeline and its device memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_free(pipeline: *mut pmt_pipeline) {
    guard!(_, {
        forget(pipeline);
        Ok(())
    });
}

/// Makes the `pmt_pipeline_generate` in progress return PMT_STATUS_CANCELLED before its next submit, as `pmt_trainer_cancel`
/// does. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_cancel(pipeline: *const pmt_pipeline, ask: u32) -> pmt_status {
    guard!(pipeline, {
        pipeline.turn.ask(ask != 0);
        Ok(())
    })
}

/// The side, in pixels, of the square images the model was trained on: one that `pmt_pipeline_generate` can draw, or
/// PMT_STATUS_BAD_FILE. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_resolution(
    pipeline: *const pmt_pipeline,
    side: *mut u32,
) -> pmt_status {
    guard!(pipeline, {
        // SAFETY: the rules in the header.
        let side = unsafe { place(side, "side", 0)? };
        *side = native_side(&exclusive(&pipeline.artist, "pipeline")?.0.pipeline)?;
        Ok(())
    })
}

/// Draws an image: `steps` sampling steps (1 to 1000), classifier-free `guidance` (1 turns it off), into the first
/// `3 * width * height` of the `rgb_len` bytes at `rgb`. Equal parameters give equal images on one device. Blocks until
/// the image is there: `steps` model runs (two each where guided) and the decoder's; the first image of a size also
/// loads the model and builds shaders, and its buffers are kept for the next one until the handle is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_generate(
    pipeline: *mut pmt_pipeline,
    prompt: *const c_char,
    seed: u64,
    steps: u32,
    guidance: f32,
    width: u32,
    height: u32,
    rgb: *mut u8,
    rgb_len: usize,
) -> pmt_status {
    guard!(pipeline, {
        // SAFETY: the rules in the header.
        let (prompt, room) = unsafe { (text(prompt, "prompt")?, room(rgb, rgb_len, "rgb")?) };
        let mut artist = exclusive(&pipeline.artist, "pipeline")?;
        let how = sampling(&artist.0.pipeline, steps, guidance, [width, height], room)?;
        let turn = pipeline.turn.begin();
        let image = artist.0.draw(prompt, seed, &how, &turn)?;
        deliver(&image, room)
    })
}

/// Bytes from the first pixel to the last.
fn image_bytes(width: u32, height: u32, stride: usize) -> guard::Result<usize> {
    let (side, row) = (1..=MAX_SIDE, 3 * u64::from(width));
    if !side.contains(&width) || !side.contains(&height) {
        let expected = format!("sides of 1 to {MAX_SIDE} pixels");
        return Err(Failure::argument("image size", &expected, format!("{width} x {height}")));
    }
    let len = u64::try_from(stride).ok().filter(|&s| s >= row);
    let len = len.and_then(|s| s.checked_mul(u64::from(height) - 1)?.checked_add(row));
    let bad = || Failure::argument("stride", &format!("at least {row} bytes"), stride.to_string());
    len.and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)
}
