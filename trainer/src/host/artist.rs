//! A model that draws, on a host's thread.
use super::desk::{Device, Turn};
use super::ticket::{Phase, Picture, Ticket};
use crate::adapted::{self, Source};
use crate::adapter::Adapter;
use crate::train::Glimpse;
use crate::{Error, Result};
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Images, Pipeline, Sampling, Text, TextSettings, Texts};
use pentimento_runtime::weights::Base;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Encoded prompts that are kept; those of SD3.5 take 5 MB each.
const MOST_TEXTS: usize = 64;

/// An adapter in use, and how strongly.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// Its name, for errors.
    pub label: String,
    /// Its corrections at full strength.
    pub adapter: Arc<Adapter>,
    /// Factor, see [`Source::strength`].
    pub strength: f32,
}

impl Attached {
    /// Reads one from a file or a folder, for a model.
    ///
    /// # Errors
    /// As [`adapted::sum`].
    pub fn load(model: &ModelFolder, source: &Source) -> Result<Self> {
        let adapter = adapted::sum(model, &[Source::new(&source.path)])?;
        let label = source.path.display().to_string();
        Ok(Attached { label, adapter: Arc::new(adapter), strength: source.strength })
    }
}

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Prompt and seed of each image.
    pub images: Vec<(String, u64)>,
    /// What guidance leads away from; empty: from the empty prompt.
    pub negative: String,
    /// How they are sampled.
    pub how: Sampling,
    /// How many are sampled at once, at least 1: more are faster and take more memory.
    pub batch: usize,
    /// Sampling steps from one preview of the first image of a batch to the next; 0: none. Each takes a run of the decoder.
    pub preview: usize,
}

impl Drawing {
    /// One image.
    pub fn new(prompt: &str, seed: u64, how: Sampling) -> Self {
        Drawing {
            images: vec![(prompt.to_string(), seed)],
            negative: String::new(),
            how,
            batch: 1,
            preview: 0,
        }
    }
}

/// How far a drawing is.
#[derive(Default)]
pub(super) struct State {
    /// Images that are there.
    pub done: usize,
    texts: Option<Texts>,
    images: Option<Images>,
    running: Option<PlanId>,
    /// Of a training's drawing.
    pub glimpse: Option<Glimpse>,
}

/// How a model's weights are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// What the matrices of the transformer's blocks are quantised to on the device, see [`Pipeline::base`].
    pub base: Option<Base>,
    /// Whether they stay on the host and come to the device for each run, see [`Pipeline::stream`].
    pub stream: bool,
}

/// What an artist is made from.
#[derive(Clone)]
pub(super) struct Sketch {
    pub model: ModelFolder,
    pub adapters: Vec<Attached>,
    pub text: TextSettings,
    pub keeping: Keeping,
}

impl Sketch {
    /// Checks everything that can be told without a device; tells the resolution that the model was trained at.
    pub fn check(&self) -> Result<usize> {
        Ok(self.open(Box::new(Cpu::new()))?.native_size())
    }
    fn open(&self, exec: Box<dyn Executor>) -> Result<Pipeline> {
        let pairs = sum(&self.adapters)?.pairs;
        let mut pipeline = Pipeline::open_with(&self.model, exec, pairs, self.text.clone())?;
        (pipeline.base, pipeline.stream) = (self.keeping.base, self.keeping.stream);
        pipeline.check()?;
        Ok(pipeline)
    }
}

/// Adapters as one.
fn sum(adapters: &[Attached]) -> Result<Adapter> {
    let mut sum = Adapter::default();
    for Attached { label, adapter, strength } in adapters {
        sum.add(Adapter::clone(adapter).scaled(*strength, label)?)?;
    }
    Ok(sum)
}

pub(super) struct Artist {
    sketch: Sketch,
    pipeline: Option<Pipeline>,
    texts: BTreeMap<String, Text>,
}

impl Artist {
    pub fn new(sketch: Sketch) -> Self {
        Artist { sketch, pipeline: None, texts: BTreeMap::new() }
    }
    /// Other adapters from the next drawing on.
    pub fn attach(&mut self, adapters: Vec<Attached>) -> Result<()> {
        let pairs = sum(&adapters)?.pairs;
        let changed = match &mut self.pipeline {
            Some(pipeline) => pipeline.set_adapter(&self.sketch.model, pairs)?,
            None => {
                Sketch { adapters: adapters.clone(), ..self.sketch.clone() }.check()?;
                true
            }
        };
        if changed {
            self.texts.clear();
        }
        self.sketch.adapters = adapters;
        Ok(())
    }
    /// Frees the device's part and takes less from now on; whether that can be.
    pub fn spare(&mut self) -> bool {
        self.unload();
        !core::mem::replace(&mut self.sketch.keeping.stream, true)
    }
    /// Frees the device's part.
    pub fn unload(&mut self) {
        self.pipeline = None;
    }

    /// A piece of work.
    pub fn turn(
        &mut self,
        device: &Device,
        drawing: &Drawing,
        state: &mut State,
        ticket: &Ticket,
    ) -> Result<Turn> {
        if self.pipeline.is_none() {
            ticket.at(Phase::Loading, 0, 0);
            let seat = device.seat(&format!(
                "{} {:?}",
                self.sketch.model.path().display(),
                self.sketch.keeping.base
            ))?;
            self.pipeline = Some(self.sketch.open(seat)?);
            return Ok(Turn::Within);
        }
        let Some(pipeline) = &mut self.pipeline else { return Ok(Turn::Within) };
        if let Some(plan) = state.running {
            if !pipeline.exec.advance(plan)? {
                return Ok(Turn::Within);
            }
            state.running = None;
            return collect(pipeline, drawing, state, ticket);
        }
        if let Some(mut texts) = state.texts.take() {
            state.running = pipeline.launch_texts(&mut texts)?;
            match state.running {
                Some(plan) => {
                    pipeline.exec.rewind(plan);
                    state.texts = Some(texts);
                }
                None => {
                    let wanted = missing(&self.texts, drawing);
                    let encoded = pipeline.finish_texts(texts)?;
                    pipeline.forget_texts()?;
                    self.texts.extend(wanted.into_iter().zip(encoded));
                }
            }
            return Ok(Turn::Within);
        }
        if let Some(images) = &mut state.images {
            state.running = pipeline.launch_images(images)?;
            if state.running.is_none() {
                return self.finish(drawing, state, ticket);
            }
            return Ok(Turn::Within);
        }
        self.begin(drawing, state, ticket)
    }

    /// The next texts or images.
    fn begin(&mut self, drawing: &Drawing, state: &mut State, ticket: &Ticket) -> Result<Turn> {
        let Some(pipeline) = &mut self.pipeline else { return Ok(Turn::Within) };
        let rest = &drawing.images[state.done..];
        if rest.is_empty() {
            return Ok(Turn::Done);
        }
        let mut wanted = missing(&self.texts, drawing);
        if !wanted.is_empty() && self.texts.len() + wanted.len() > MOST_TEXTS {
            self.texts.clear();
            wanted = missing(&self.texts, drawing);
        }
        if !wanted.is_empty() {
            ticket.at(Phase::Encoding, 0, wanted.len());
            let list: Vec<&str> = wanted.iter().map(String::as_str).collect();
            state.texts = Some(pipeline.begin_texts(&list)?);
            return Ok(Turn::Within);
        }
        let text = |prompt: &str| {
            self.texts.get(prompt).ok_or_else(|| Error::missing("texts", format!("`{prompt}`")))
        };
        let some = rest.iter().take(drawing.batch.max(1));
        let some = some.map(|(prompt, seed)| Ok((text(prompt)?, *seed))).collect::<Result<Vec<_>>>()?;
        let images = pipeline.begin_images(&some, text(&drawing.negative)?, &drawing.how)?;
        state.images = Some(images);
        ticket.at(Phase::Drawing, state.done * drawing.how.steps, drawing.images.len() * drawing.how.steps);
        Ok(Turn::Within)
    }
    /// Hands a batch out.
    fn finish(&mut self, drawing: &Drawing, state: &mut State, ticket: &Ticket) -> Result<Turn> {
        let (Some(pipeline), Some(images)) = (&mut self.pipeline, state.images.take()) else {
            return Ok(Turn::Within);
        };
        let how = &drawing.how;
        let images = pipeline.finish_images(images)?;
        state.done += images.len();
        let picture = |pixels| Picture { width: how.width, height: how.height, pixels: Arc::new(pixels) };
        ticket.deliver(images.into_iter().map(picture).collect());
        // A host may draw at any number of sizes: the last one's plans are kept.
        let last = pipeline.latent_size(how.width, how.height)?;
        pipeline.forget_plans(&|_, size| size == last)?;
        let done = state.done == drawing.images.len();
        Ok(if done { Turn::Done } else { Turn::Between })
    }
}

/// Reads a finished run.
fn collect(pipeline: &mut Pipeline, drawing: &Drawing, state: &mut State, ticket: &Ticket) -> Result<Turn> {
    let Drawing { how, images, preview, .. } = drawing;
    if let Some(texts) = &mut state.texts {
        pipeline.collect_texts(texts)?;
        let (done, all) = pipeline.texts_progress(texts);
        ticket.at(Phase::Encoding, done, all);
        return Ok(Turn::Within);
    }
    let Some(job) = &mut state.images else { return Ok(Turn::Within) };
    let before = job.progress().0;
    pipeline.collect_images(job)?;
    let (step, steps) = job.progress();
    if let Some(pixels) = job.take_preview() {
        ticket.show(step, Picture { width: how.width, height: how.height, pixels: Arc::new(pixels) });
    } else if step > before {
        let batch = drawing.batch.max(1).min(images.len() - state.done);
        ticket.at(Phase::Drawing, state.done * steps + step * batch, images.len() * steps);
        let left = ticket.left_in_phase();
        ticket.update(|p| p.seconds_left = left);
        if *preview > 0 && step % *preview == 0 {
            job.ask_preview();
        }
    }
    Ok(Turn::Within)
}

/// Prompts of a drawing that are not encoded yet, each once.
fn missing(known: &BTreeMap<String, Text>, drawing: &Drawing) -> Vec<String> {
    let prompts = drawing.images.iter().map(|(prompt, _)| prompt).chain([&drawing.negative]);
    let mut all: Vec<String> = Vec::new();
    for prompt in prompts {
        if !known.contains_key(prompt) && !all.contains(prompt) {
            all.push(prompt.clone());
        }
    }
    all
}
