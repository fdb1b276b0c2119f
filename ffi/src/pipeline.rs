//! Models that draw.

use crate::guard::{
    Failure, Handle, Result, bytes, exclusive, guard, list, optional_text, place, record, stamped, text,
};
use crate::handles::{forget, keep};
use crate::job::{begin, pmt_job};
use crate::model::pmt_model;
use crate::settings::{chosen, pmt_settings};
use crate::shared::{Shared, of_call};
use crate::types::{pmt_drawing, pmt_status};
use pentimento_trainer::adapted::Source;
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::host::{Artist, Attached, Drawing, Keeping};
use runtime::folder::ModelFolder;
use runtime::mount::Mount;
use runtime::pipeline::{Sampling, TextSettings, layers};
use runtime::room::copied;
use std::ffi::c_char;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex};

/// A model to draw with, with or without adapters.
pub struct pmt_pipeline {
    shared: Arc<Shared>,
    folder: ModelFolder,
    artist: Artist,
    adapters: Mutex<Adapters>,
    /// Behind the artist, so that it goes after it.
    _mount: Option<Arc<Mount>>,
}

#[derive(Default)]
struct Adapters {
    last: u32,
    all: Vec<(u32, Attached)>,
}

impl Handle for pmt_pipeline {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// Makes a model ready to draw, which the first drawing completes. Pipelines and trainings of one model and one context share its weights.
/// Of `settings`, which may be NULL, the ones called `base`, `stream` and `text_tokens` count. Milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_new(
    model: *const pmt_model,
    settings: *const pmt_settings,
    pipeline: *mut *mut pmt_pipeline,
) -> pmt_status {
    guard!(model => pipeline, {
        // SAFETY: the rules in the header.
        let pipeline = unsafe { place(pipeline, "pipeline", null_mut())? };
        let config = chosen(settings)?.config;
        let folder = model.folder.clone();
        let text = TextSettings { t5_tokens: config.text_tokens, ..TextSettings::default() };
        let keeping = Keeping { base: config.base, stream: config.stream };
        let artist = model.shared.host.artist(folder.clone(), Vec::new(), text, keeping)?;
        let (shared, adapters) = (model.shared.clone(), Mutex::default());
        *pipeline = keep(pmt_pipeline { shared, folder, artist, adapters, _mount: model.mount.clone() });
        Ok(())
    })
}

/// Frees a pipeline, with its part of the device's memory. Drawings that are not done are cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_free(pipeline: *mut pmt_pipeline) {
    guard!(_, {
        forget(pipeline);
        Ok(())
    });
}

/// The side, in pixels, of the square images the model was trained on. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_resolution(
    pipeline: *const pmt_pipeline,
    side: *mut u32,
) -> pmt_status {
    guard!(pipeline, {
        // SAFETY: the rules in the header.
        let side = unsafe { place(side, "side", 0)? };
        *side = u32::try_from(pipeline.artist.native_size()).unwrap_or(u32::MAX);
        Ok(())
    })
}

/// Attaches the adapter of a LoRA file or folder, from the next drawing on: adapters add up, and their ranks and layers may differ.
/// `strength`: 1 is as trained, 0 nothing, a negative one takes away what the adapter learnt. `id` names it for later calls. One that
/// does not fit the model in every part is refused. Not while a drawing is under way. Waits for the piece of work in progress; milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_attach(
    pipeline: *mut pmt_pipeline,
    path: *const c_char,
    strength: f32,
    id: *mut u32,
) -> pmt_status {
    guard!(pipeline, {
        // SAFETY: the rules in the header.
        let (path, id) = unsafe { (text(path, "path")?, place(id, "id", 0)?) };
        let source = Source { path: Path::new(path).into(), strength: finite(strength)? };
        *id = pipeline.attach(Attached::load(&pipeline.folder, &source)?)?;
        Ok(())
    })
}

/// As `pmt_pipeline_attach`, with the bytes of a safetensors file. Copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_attach_bytes(
    pipeline: *mut pmt_pipeline,
    adapter: *const u8,
    len: usize,
    strength: f32,
    id: *mut u32,
) -> pmt_status {
    guard!(pipeline, {
        // SAFETY: the rules in the header.
        let (bytes, id) = unsafe { (bytes(adapter, len, "adapter")?, place(id, "id", 0)?) };
        let label = "adapter".to_string();
        let adapter = Adapter::parse(&label, copied(bytes, "an adapter")?, None, &layers(&pipeline.folder)?)?;
        *id = pipeline.attach(Attached { label, adapter: Arc::new(adapter), strength: finite(strength)? })?;
        Ok(())
    })
}

/// Gives an attached adapter another strength, from the next drawing on. Not while one is under way. Waits for the piece of work in progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_set_strength(
    pipeline: *mut pmt_pipeline,
    id: u32,
    strength: f32,
) -> pmt_status {
    guard!(pipeline, {
        let strength = finite(strength)?;
        pipeline.change(|all| {
            found(all, id)?.strength = strength;
            Ok(())
        })
    })
}

/// Takes an adapter away, from the next drawing on. Not while one is under way. Waits for the piece of work in progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_detach(pipeline: *mut pmt_pipeline, id: u32) -> pmt_status {
    guard!(pipeline, {
        pipeline.change(|all| {
            found(all, id)?;
            all.retain(|(other, _)| *other != id);
            Ok(())
        })
    })
}

/// Frees what the device holds of a pipeline until the next drawing, which brings it back. Waits for the piece of work in progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_unload(pipeline: *mut pmt_pipeline) -> pmt_status {
    guard!(pipeline, { pipeline.artist.unload().map_err(of_call) })
}

/// Fills in a drawing: an image of the model's own size, 28 steps, guidance 4.5. `size` is `sizeof(pmt_drawing)`; one that is larger
/// than the library knows, so of a newer header, is PMT_STATUS_BAD_ARGUMENT. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_drawing_default(drawing: *mut pmt_drawing, size: usize) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let drawing = unsafe { record(drawing, size, "drawing")? };
        drawing.fill(&pmt_drawing { size: size as u64, ..DEFAULT });
        Ok(())
    })
}

const DEFAULT: pmt_drawing = pmt_drawing {
    size: size_of::<pmt_drawing>() as u64,
    prompts: null(),
    seeds: null(),
    negative: null(),
    count: 1,
    width: 0,
    height: 0,
    steps: 28,
    batch: 1,
    preview: 0,
    guidance: 4.5,
    reserved: 0,
};

/// Begins a drawing. Drawings go before trainings. Prompts are encoded once and kept; their encoders leave the device again. Returns at
/// once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_pipeline_draw(
    pipeline: *mut pmt_pipeline,
    drawing: *const pmt_drawing,
    job: *mut *mut pmt_job,
) -> pmt_status {
    guard!(pipeline => job, {
        let native = pipeline.artist.native_size();
        // SAFETY: the rules in the header.
        let (job, drawing) = unsafe { (place(job, "job", null_mut())?, wanted(drawing, [native; 2])?) };
        *job = begin(&pipeline.shared, pipeline.artist.draw(drawing)?);
        Ok(())
    })
}

impl pmt_pipeline {
    fn attach(&self, adapter: Attached) -> Result<u32> {
        let mut adapters = exclusive(&self.adapters, "pipeline")?;
        let id = adapters.last + 1;
        let mut all = adapters.all.clone();
        all.push((id, adapter));
        self.artist.attach(all.iter().map(|(_, a)| a.clone()).collect()).map_err(of_call)?;
        *adapters = Adapters { last: id, all };
        Ok(id)
    }
    fn change(&self, by: impl FnOnce(&mut Vec<(u32, Attached)>) -> Result<()>) -> Result<()> {
        let mut adapters = exclusive(&self.adapters, "pipeline")?;
        let mut all = adapters.all.clone();
        by(&mut all)?;
        self.artist.attach(all.iter().map(|(_, a)| a.clone()).collect()).map_err(of_call)?;
        adapters.all = all;
        Ok(())
    }
}

fn found(all: &mut [(u32, Attached)], id: u32) -> Result<&mut Attached> {
    let found = all.iter_mut().find(|(other, _)| *other == id);
    let none = || Failure::argument("id", "that of an attached adapter", id.to_string());
    found.map(|(_, attached)| attached).ok_or_else(none)
}

fn finite(strength: f32) -> Result<f32> {
    let odd = || Failure::argument("strength", "a finite number", strength.to_string());
    if strength.is_finite() { Ok(strength) } else { Err(odd()) }
}

/// Most images of a drawing.
const MOST: u32 = 1024;

/// A drawing as the host asks for it.
///
/// # Safety
/// NULL, or as the header demands.
pub unsafe fn wanted(drawing: *const pmt_drawing, native: [usize; 2]) -> Result<Drawing> {
    // SAFETY: the caller's promise.
    let d = unsafe { stamped(drawing, DEFAULT, "drawing")? };
    let between = |name: &str, value: u32, most: u32| match value {
        1.. if value <= most => Ok(value as usize),
        _ => Err(Failure::argument(&format!("drawing.{name}"), &format!("1 to {most}"), value.to_string())),
    };
    let (count, steps) = (between("count", d.count, MOST)?, between("steps", d.steps, 1000)?);
    let batch = between("batch", d.batch, MOST)?;
    if !d.guidance.is_finite() {
        return Err(Failure::argument("drawing.guidance", "a finite number", d.guidance.to_string()));
    }
    // SAFETY: the caller's promise.
    let (prompts, negative) = unsafe {
        (
            list(d.prompts, count, "drawing.prompts", "prompts")?,
            optional_text(d.negative, "drawing.negative")?,
        )
    };
    let seeds: Vec<u64> = match d.seeds.is_null() {
        true => (0..count as u64).collect(),
        // SAFETY: the caller's promise.
        false => unsafe { list(d.seeds, count, "drawing.seeds", "seeds")? }.to_vec(),
    };
    // SAFETY: the caller's promise.
    let one = |(&prompt, seed): (&*const c_char, u64)| unsafe {
        Ok((text(prompt, "drawing.prompts")?.to_string(), seed))
    };
    let images = prompts.iter().zip(seeds).map(one).collect::<Result<Vec<_>>>()?;
    let side = |asked: u32, own: usize| if asked == 0 { own } else { asked as usize };
    let how = Sampling {
        steps,
        guidance: d.guidance,
        width: side(d.width, native[0]),
        height: side(d.height, native[1]),
    };
    let negative = negative.unwrap_or("").to_string();
    Ok(Drawing { images, negative, how, batch, preview: d.preview as usize })
}
