//! Trainings.
use crate::context::absolute;
use crate::guard::{
    Failure, Handle, Result, bytes, exclusive, given, guard, optional_text, place, record, text,
};
use crate::handles::{forget, keep};
use crate::image;
use crate::job::{begin, pmt_job};
use crate::model::pmt_model;
use crate::pipeline::wanted;
use crate::settings::{chosen, pmt_settings};
use crate::shared::{Shared, of_call};
use crate::types::{pmt_drawing, pmt_estimate, pmt_image, pmt_status, pmt_write};
use pentimento_trainer::adapted;
use pentimento_trainer::estimate;
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::host::{Brief, Job, Training};
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::references::{Reference, load_from};
use pentimento_trainer::reward::{self, backbone::Backbone};
use pentimento_trainer::settings::Settings;
use pentimento_trainer::train::Setup;
use runtime::Error;
use runtime::exec::cpu::Cpu;
use runtime::mount::Mount;
use runtime::pipeline::TextSettings;
use runtime::room::copied;
use std::ffi::{c_char, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

/// Largest state that is read, bytes.
const MOST_STATE: u64 = 1 << 36;

/// A training.
pub struct pmt_trainer {
    pub shared: Arc<Shared>,
    size: [u32; 2],
    pub session: Mutex<Session>,
    /// Behind the session, so that it goes after it.
    _mount: Option<Arc<Mount>>,
}

impl Handle for pmt_trainer {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// A training before and after its first start.
pub enum Session {
    New(Box<Brief>),
    Started(Training),
}

impl Session {
    /// What may still be changed.
    pub fn brief(&mut self, what: &str) -> Result<&mut Brief> {
        match self {
            Session::New(brief) => Ok(brief),
            Session::Started(_) => {
                Err(Failure::argument(what, "all of them before the training is started", "one more"))
            }
        }
    }
    pub fn training(&self) -> Result<&Training> {
        match self {
            Session::Started(training) => Ok(training),
            Session::New(_) => Err(Failure::argument("trainer", "one that was started", "one that was not")),
        }
    }
    fn start(&mut self, shared: &Shared) -> Result<Job> {
        Ok(self.placed(shared)?.start()?)
    }
    /// On its host, from now on if not before.
    pub fn placed(&mut self, shared: &Shared) -> Result<&Training> {
        if let Session::New(brief) = self {
            let brief = core::mem::take(&mut **brief);
            *self = Session::Started(shared.host.training(brief)?);
        }
        self.training()
    }
}

/// Makes a training. `reward` is the folder of a Dinov2Model, or of a CLIPModel such as PickScore's, or NULL for the folder `reward` inside the model's; `settings` NULL for the recommended
/// ones. Reads configurations, milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_new(
    model: *const pmt_model,
    reward: *const c_char,
    settings: *const pmt_settings,
    trainer: *mut *mut pmt_trainer,
) -> pmt_status {
    guard!(model => trainer, {
        // SAFETY: the rules in the header.
        let (trainer, reward) =
            unsafe { (place(trainer, "trainer", null_mut())?, optional_text(reward, "reward")?) };
        let reward = reward.map(|reward| absolute(Path::new(reward), "reward")).transpose()?;
        let settings = chosen(settings)?;
        let size = checked(model, reward.as_deref(), &settings)?;
        let brief = Brief { model: model.path.clone(), reward, settings, ..Brief::default() };
        let session = Mutex::new(Session::New(Box::new(brief)));
        let (shared, _mount) = (model.shared.clone(), model.mount.clone());
        *trainer = keep(pmt_trainer { shared, size, session, _mount });
        Ok(())
    })
}

/// Everything that can be told before a device is there; gives the training resolution.
fn checked(model: &pmt_model, reward: Option<&Path>, settings: &Settings) -> Result<[u32; 2]> {
    let config = &settings.config;
    let cpu = Box::new(Cpu::new());
    let pipeline = adapted::open_with(&model.folder, &[], cpu, TextSettings::default())?;
    let side = |asked: usize| if asked == 0 { pipeline.native_size() } else { asked };
    let (width, height) = (side(config.width), side(config.height));
    pipeline.latent_size(width, height).map_err(Failure::Argument)?;
    if !matches!(config.recipe, Recipe::Released | Recipe::Supervised) {
        Backbone::open(&reward::folder(&model.folder, reward))?;
    }
    Ok([width as u32, height as u32])
}

/// Frees a training, with its part of the device's memory. What it has learnt and nobody saved is lost; its job is cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_free(trainer: *mut pmt_trainer) {
    guard!(_, {
        forget(trainer);
        Ok(())
    });
}

/// The training resolution in pixels. References may have any size: they are brought to this one as the setting `fit`
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
        [*width, *height] = trainer.size;
        Ok(())
    })
}

/// Adds a reference image, before the training is started. `caption` says what it shows, NULL: nothing. Copied. Milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_add_reference(
    trainer: *mut pmt_trainer,
    image: *const pmt_image,
    caption: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let (image, caption) = unsafe { (given(image, "image")?, optional_text(caption, "caption")?) };
        let mut session = exclusive(&trainer.session, "trainer")?;
        let brief = session.brief("references")?;
        let framing = brief.settings.framing;
        // SAFETY: the rules in the header.
        let picture = unsafe { image::read(image, framing.background.0)? };
        let name = format!("reference {}", brief.references.len() + 1);
        brief.references.push(Reference::framed(&name, caption, &picture, trainer.size, &framing)?);
        Ok(())
    })
}

/// Adds the PNG, JPEG or WebP image of a file, or those of a folder in the order of their names, before the training is started.
/// `caption` says what all of them show; NULL: what is beside them in NAME.txt, NAME.png.txt, NAME.caption, metadata.jsonl or metadata.csv. They are
/// turned upright. `count` gets how many they are, and may be NULL. Where one cannot be read none is added. As long as reading them takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_add_references(
    trainer: *mut pmt_trainer,
    path: *const c_char,
    caption: *const c_char,
    count: *mut u32,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let (path, caption) = unsafe { (text(path, "path")?, optional_text(caption, "caption")?) };
        let mut session = exclusive(&trainer.session, "trainer")?;
        let brief = session.brief("references")?;
        let read = load_from(Path::new(path), caption, trainer.size, &brief.settings.framing)?;
        if !count.is_null() {
            // SAFETY: the rules in the header.
            unsafe { *place(count, "count", 0)? = read.len() as u32 };
        }
        brief.references.extend(read);
        Ok(())
    })
}

/// Adds a prompt to draw from while training, before the training is started. Without any, the captions serve. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_add_prompt(
    trainer: *mut pmt_trainer,
    prompt: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let prompt = unsafe { text(prompt, "prompt")? };
        let mut session = exclusive(&trainer.session, "trainer")?;
        session.brief("prompts")?.prompts.push(prompt.into());
        Ok(())
    })
}

/// Goes on with a training that `pmt_trainer_save_state` wrote: to be called before the start of a training of the same model,
/// reward, settings, prompts and references, but for more `iterations`; the setting `seconds` counts those of the saved one, too. The
/// file is read now; whether it fits is told by the job, with a sentence that names the difference.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_resume(trainer: *mut pmt_trainer, path: *const c_char) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let path = unsafe { text(path, "path")? };
        let mut session = exclusive(&trainer.session, "trainer")?;
        let brief = session.brief("a state")?;
        let bytes = runtime::file::read(Path::new(path), MOST_STATE)?;
        brief.state = Some((path.into(), bytes));
        Ok(())
    })
}

/// As `pmt_trainer_resume`, with the bytes of such a file. Copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_resume_bytes(
    trainer: *mut pmt_trainer,
    state: *const u8,
    len: usize,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let state = unsafe { bytes(state, len, "state")? };
        let mut session = exclusive(&trainer.session, "trainer")?;
        session.brief("a state")?.state = Some(("state".into(), copied(state, "a state")?));
        Ok(())
    })
}

/// Tells what a training would take, before it is started; with the setting `memory`, within that. `size` is `sizeof(pmt_estimate)`. Opens
/// the device, if that has not happened, but puts nothing on it. Waits: seconds with a large model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_estimate(
    trainer: *mut pmt_trainer,
    estimate: *mut pmt_estimate,
    size: usize,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let place = unsafe { record(estimate, size, "estimate")? };
        let caps = trainer.shared.host.caps().map_err(of_call)?;
        let mut session = exclusive(&trainer.session, "trainer")?;
        let Brief { model, reward, references, prompts, settings, .. } = session.brief("an estimate")?;
        let reward = reward.as_deref();
        let setup = Setup { model, config: None, reward, references, prompts, text_cache: None };
        let own = settings.memory.map(|memory| memory.0);
        let known = match own.into_iter().chain(trainer.shared.host.memory_limit()).min() {
            Some(most) => estimate::fit(&caps, &setup, &settings.config, most)?.1,
            None => estimate::estimate(&caps, &setup, &settings.config)?,
        };
        place.fill(&pmt_estimate {
            peak: known.most(),
            weights: known.peak.leaves,
            activations: known.peak.arena,
            state: known.state,
            work_before: known.work.prepare + known.work.warm,
            work_iteration: known.work.iteration,
        });
        Ok(())
    })
}

/// Starts a training, or goes on with one whose job was cancelled or failed: after a lost device, or where memory ran out, on a device opened anew
/// from the last moment between two stages, in the second case with less at once. The job ends when all iterations are complete. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_start(trainer: *mut pmt_trainer, job: *mut *mut pmt_job) -> pmt_status {
    guard!(trainer => job, {
        // SAFETY: the rules in the header.
        let job = unsafe { place(job, "job", null_mut())? };
        let started = exclusive(&trainer.session, "trainer")?.start(&trainer.shared)?;
        *job = begin(&trainer.shared, started);
        Ok(())
    })
}

/// Begins a drawing with the adapter that `pmt_trainer_save_adapter` would write; training goes on as if nothing had been
/// drawn. One that is paused in the middle lets the training go on, and begins its image anew. No previews. Not before the training was loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_draw(
    trainer: *mut pmt_trainer,
    drawing: *const pmt_drawing,
    job: *mut *mut pmt_job,
) -> pmt_status {
    guard!(trainer => job, {
        let native = trainer.size.map(|side| side as usize);
        // SAFETY: the rules in the header.
        let (job, drawing) = unsafe { (place(job, "job", null_mut())?, wanted(drawing, native)?) };
        let begun = exclusive(&trainer.session, "trainer")?.training()?.draw(drawing)?;
        *job = begin(&trainer.shared, begun);
        Ok(())
    })
}

/// Writes the adapter as it is now, averaged over the iterations, or the best one seen if the last look (see the setting
/// `watch.every`) found that one worse, as a safetensors file that diffusers, ComfyUI and
/// stable-diffusion.cpp read. Not before the model was loaded. A reader never sees half a file. Waits for the piece of work in
/// progress; milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_save_adapter(
    trainer: *mut pmt_trainer,
    path: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let path = unsafe { text(path, "path")? };
        Ok(exclusive(&trainer.session, "trainer")?.training()?.adapter()?.save(Path::new(path))?)
    })
}

/// As `pmt_trainer_save_adapter`, with the file's bytes given to the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_write_adapter(
    trainer: *mut pmt_trainer,
    write: pmt_write,
    user: *mut c_void,
) -> pmt_status {
    guard!(trainer, {
        let adapter = exclusive(&trainer.session, "trainer")?.training()?.adapter()?;
        // SAFETY: the rules in the header.
        unsafe { written(&adapter.write_bytes()?, write, user) }
    })
}

/// Writes all that the training is, as of the last moment between two of its stages or two steps of the warm start: adapter, averages,
/// optimisers, reward head, random streams. `pmt_trainer_resume` goes on from there to the same adapter, bit for bit, on the same device
/// and driver. After a failure, a lost device for one, too. PMT_STATUS_MISSING while prompts and references are still being
/// prepared: there is nothing to save then. A reader never sees half a file, and the one that is replaced stays whole until then. Waits for
/// the piece of work in progress, and as long as writing takes: the file is about six adapters and the images that the head remembers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_save_state(
    trainer: *mut pmt_trainer,
    path: *const c_char,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let path = unsafe { text(path, "path")? };
        let state = exclusive(&trainer.session, "trainer")?.training()?.state()?;
        Ok(write_atomically(Path::new(path), &state)?)
    })
}

/// As `pmt_trainer_save_state`, with the file's bytes given to the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_write_state(
    trainer: *mut pmt_trainer,
    write: pmt_write,
    user: *mut c_void,
) -> pmt_status {
    guard!(trainer, {
        let state = exclusive(&trainer.session, "trainer")?.training()?.state()?;
        // SAFETY: the rules in the header.
        unsafe { written(&state, write, user) }
    })
}

/// Gives bytes to a program's function.
///
/// # Safety
/// NULL, or a function that takes them.
pub unsafe fn written(bytes: &[u8], write: pmt_write, user: *mut c_void) -> Result<()> {
    let write = write.ok_or_else(|| Failure::argument("write", "a function", "NULL"))?;
    // SAFETY: the caller's promise.
    match unsafe { write(user, bytes.as_ptr(), bytes.len()) } {
        0 => Ok(()),
        other => Err(Error::io("the program's writer", "write", format!("it gave {other}")).into()),
    }
}
