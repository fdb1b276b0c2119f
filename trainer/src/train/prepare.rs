//! What comes before training: prompts and references as the networks see them, one piece a step.
use super::{Event, Phase, Setup, Trainer};
use crate::{Error, Result};
use pentimento::exec::PlanId;
use pentimento::pipeline::{Texts, encoder_pixels};
use std::path::{Path, PathBuf};

/// What is still to be encoded.
pub(super) struct Todo {
    /// The empty prompt, the training prompts, the references' captions.
    texts: Vec<String>,
    /// Them on their way through the encoders.
    encoding: Option<Texts>,
    /// How many of them are training prompts.
    prompts: usize,
    /// Where encoded texts are kept between runs.
    text_cache: Option<PathBuf>,
    /// References, then mirrored, in 0 to 1, `[H, W, 3]`; each is dropped when it is encoded.
    images: Vec<Vec<f32>>,
    /// Width and height, pixels.
    size: (usize, usize),
}

impl Todo {
    pub fn new(setup: &Setup<'_>, size: (usize, usize)) -> Result<Self> {
        if setup.references.is_empty() {
            return Err(Error::missing("references", "images").with_hint("Give at least one."));
        }
        let captions: Vec<String> = setup.references.iter().filter_map(|r| r.caption.clone()).collect();
        let prompts = if setup.prompts.is_empty() { captions } else { setup.prompts.to_vec() };
        if prompts.is_empty() {
            return Err(Error::missing("references", "captions")
                .with_hint("Give prompts, or a NAME.txt beside each image, or a metadata.jsonl."));
        }
        let count = prompts.len();
        let captions = setup.references.iter().map(|r| r.caption.clone().unwrap_or_default());
        let texts = core::iter::once(String::new()).chain(prompts).chain(captions).collect();
        let given = setup.references.iter().map(|r| r.pixels.clone());
        let mirrored = setup.references.iter().map(|r| mirror(&r.pixels, size.0));
        let text_cache = setup.text_cache.map(Path::to_path_buf);
        Ok(Todo {
            texts,
            encoding: None,
            prompts: count,
            text_cache,
            images: given.chain(mirrored).collect(),
            size,
        })
    }
}

impl Trainer {
    /// The next run of a text encoder, or of the phase after them.
    pub(super) fn launch_texts(&mut self) -> Result<Option<PlanId>> {
        let mut job = match self.todo.encoding.take() {
            Some(job) => job,
            None => {
                let texts: Vec<&str> = self.todo.texts.iter().map(String::as_str).collect();
                self.pipeline.begin_texts(&texts)?
            }
        };
        if let Some(plan) = self.pipeline.launch_texts(&mut job)? {
            self.todo.encoding = Some(job);
            return Ok(Some(plan));
        }
        let mut texts = self.pipeline.finish_texts(job)?;
        crate::texts::save(&mut self.pipeline, self.todo.text_cache.as_deref())?;
        self.reference_texts = texts.split_off((1 + self.todo.prompts).min(texts.len()));
        self.prompts = texts.split_off(1.min(texts.len()));
        self.null = texts.pop().unwrap_or_default();
        self.phase = Phase::Latents(0);
        self.launch()
    }
    pub(super) fn collect_texts(&mut self) -> Result<Event> {
        let Some(job) = &mut self.todo.encoding else { return Ok(self.encoded()) };
        self.pipeline.collect_texts(job)?;
        Ok(self.encoded())
    }

    pub(super) fn launch_latents(&mut self, k: usize) -> Result<PlanId> {
        let (width, height) = self.todo.size;
        let plan = self.pipeline.image_encoder(width, height)?;
        let image = core::mem::take(&mut self.todo.images[k]);
        self.pipeline.exec.write(plan, "image", &encoder_pixels(&image))?;
        Ok(plan)
    }
    pub(super) fn collect_latents(&mut self, k: usize) -> Result<Event> {
        let (width, height) = self.todo.size;
        let plan = self.pipeline.image_encoder(width, height)?;
        self.latents.push(self.pipeline.exec.read(plan, "z")?);
        self.phase = if k + 1 < self.todo.images.len() { Phase::Latents(k + 1) } else { Phase::Encode(0) };
        Ok(self.encoded())
    }

    pub(super) fn collect_encode(&mut self, first: usize) -> Result<Event> {
        let (all, batch) = (self.latents.len(), self.describe.1);
        let tokens = self.read_tokens(all - first)?;
        self.reference_tokens.extend(tokens);
        let done = (first + batch).min(all);
        self.phase = Phase::Encode(done);
        if done == all {
            self.phase = if self.config.warm_steps > 0 { Phase::Warm(0) } else { self.begin_adversarial()? };
        }
        Ok(self.encoded())
    }

    /// How far the preparation is, in texts, latents and descriptions.
    fn encoded(&self) -> Event {
        let all = self.todo.texts.len();
        let texts = match &self.todo.encoding {
            Some(job) => {
                let (done, distinct) = self.pipeline.texts_progress(job);
                done * all / distinct.max(1)
            }
            None => all,
        };
        let done = texts + self.latents.len() + self.reference_tokens.len();
        Event::Encoded(done, all + 2 * self.todo.images.len())
    }
}

/// Left and right exchanged. `[H, W, 3]`.
fn mirror(pixels: &[f32], width: usize) -> Vec<f32> {
    let row = |r: &[f32]| r.chunks_exact(3).rev().flatten().copied().collect::<Vec<f32>>();
    pixels.chunks_exact(3 * width).flat_map(row).collect()
}
