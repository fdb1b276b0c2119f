//! What comes before training: prompts and references as the networks see them, one piece a step.
use super::Stage;
use crate::machine::Machine;
use crate::reward::pickscore::unit;
use crate::train::state::State;
use crate::train::{Event, Setup};
use crate::{Error, Result};
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::{self, Text, encoder_pixels};
use std::path::{Path, PathBuf};

/// What is known before training, and what of it is still to be encoded.
#[derive(Default)]
pub(crate) struct Known {
    /// The empty prompt, the training prompts, the references' captions.
    list: Vec<String>,
    /// How many of them are training prompts.
    count: usize,
    /// Where encoded texts are kept between runs.
    text_cache: Option<PathBuf>,
    /// References, then mirrored, in 0 to 1, `[H, W, 3]`; each is dropped when it is encoded.
    images: Vec<Vec<f32>>,
    /// The empty prompt, for guidance.
    pub null: Text,
    /// Training prompts.
    pub prompts: Vec<Text>,
    /// Captions of the references, empty ones where they have none.
    pub captions: Vec<Text>,
    /// Reference latents: as given, then mirrored.
    pub latents: Vec<Vec<f32>>,
    /// Reward tokens of those latents.
    pub tokens: Vec<Vec<f32>>,
    /// Unit vectors of the training prompts in a CLIP's space, where the reward asks for them.
    pub aligned: Vec<Vec<f32>>,
    /// Latents that the base model drew, each with the index of its prompt.
    pub base: Vec<(usize, Vec<f32>)>,
}

impl Known {
    /// Prompts, or captions where none are given; references and their mirror images, `width` pixels wide.
    pub fn new(setup: &Setup<'_>, width: usize) -> Result<Self> {
        if setup.references.is_empty() {
            return Err(Error::missing("references", "images").with_hint("Give at least one."));
        }
        let captions: Vec<String> = setup.references.iter().filter_map(|r| r.caption.clone()).collect();
        let prompts = if setup.prompts.is_empty() { captions } else { setup.prompts.to_vec() };
        if prompts.is_empty() {
            return Err(Error::missing("references", "captions")
                .with_hint("Give prompts, or a NAME.txt beside each image, or a metadata.jsonl."));
        }
        let captions = setup.references.iter().map(|r| r.caption.clone().unwrap_or_default());
        let given = setup.references.iter().map(|r| r.pixels.clone());
        let mirrored = setup.references.iter().map(|r| mirror(&r.pixels, width));
        let images = given.chain(mirrored).collect();
        Ok(Known { images, ..Known::texts(setup, prompts, captions.collect()) })
    }
    /// Texts only.
    pub fn texts(setup: &Setup<'_>, prompts: Vec<String>, captions: Vec<String>) -> Self {
        let count = prompts.len();
        let list = core::iter::once(String::new()).chain(prompts).chain(captions).collect();
        Known { list, count, text_cache: setup.text_cache.map(Path::to_path_buf), ..Known::default() }
    }
    /// How many training prompts there are.
    pub fn count(&self) -> usize {
        self.count
    }
    /// A training prompt.
    pub fn prompt(&self, i: usize) -> &str {
        self.list.get(1 + i).map_or("", String::as_str)
    }

    /// A text that is encoded already.
    pub fn find(&self, text: &str) -> Option<&Text> {
        let encoded = core::iter::once(&self.null).chain(&self.prompts).chain(&self.captions);
        let known = self.list.iter().zip(encoded).find(|(known, _)| *known == text);
        known.map(|(_, encoded)| encoded).filter(|encoded| !encoded.pooled.is_empty())
    }

    /// All texts: the empty prompt, the training prompts, the captions.
    pub fn list(&self) -> &[String] {
        &self.list
    }
    /// Whether they are encoded.
    pub fn read(&self) -> bool {
        !self.null.pooled.is_empty()
    }
    /// Takes them, encoded, in that order.
    pub fn take(&mut self, mut texts: Vec<Text>) {
        self.captions = texts.split_off((1 + self.count).min(texts.len()));
        self.prompts = texts.split_off(1.min(texts.len()));
        self.null = texts.pop().unwrap_or_default();
    }

    /// Places of the first `most` training prompts that differ.
    pub fn distinct(&self, most: usize) -> Vec<usize> {
        let prompts = self.list.get(1..1 + self.count).unwrap_or_default();
        let first = |i: &usize| !prompts[..*i].contains(&prompts[*i]);
        (0..prompts.len()).filter(first).take(most).collect()
    }
}

/// Encodes the texts.
#[derive(Default)]
pub(crate) struct Texts(Option<pipeline::Texts>);

impl Stage for Texts {
    fn launch(&mut self, m: &mut Machine, _: &mut State) -> Result<Option<PlanId>> {
        if m.known.read() {
            return Ok(None);
        }
        let mut job = match self.0.take() {
            Some(job) => job,
            None => {
                let texts: Vec<&str> = m.known.list.iter().map(String::as_str).collect();
                m.pipeline.begin_texts(&texts)?
            }
        };
        if let Some(plan) = m.pipeline.launch_texts(&mut job)? {
            self.0 = Some(job);
            return Ok(Some(plan));
        }
        let texts = m.pipeline.finish_texts(job)?;
        read(m, texts)?;
        Ok(None)
    }
    fn collect(&mut self, m: &mut Machine, _: &mut State) -> Result<Event> {
        let Some(job) = &mut self.0 else { return Ok(encoded(m, None)) };
        m.pipeline.collect_texts(job)?;
        let progress = m.pipeline.texts_progress(job);
        Ok(encoded(m, Some(progress)))
    }
}

/// Takes the encoded texts, keeps them where that is wanted, and lets the encoders leave the device.
pub(crate) fn read(m: &mut Machine, texts: Vec<Text>) -> Result<()> {
    crate::texts::save(&mut m.pipeline, m.known.text_cache.as_deref())?;
    m.known.take(texts);
    m.pipeline.forget_texts()
}

/// Encodes the references.
#[derive(Default)]
pub(crate) struct Latents;

impl Stage for Latents {
    fn launch(&mut self, m: &mut Machine, _: &mut State) -> Result<Option<PlanId>> {
        let Some(image) = m.known.images.get_mut(m.known.latents.len()) else {
            m.pipeline.forget_image_encoder()?;
            return Ok(None);
        };
        let image = core::mem::take(image);
        let plan = m.pipeline.image_encoder(m.pixels.0, m.pixels.1)?;
        m.pipeline.exec.write(plan, "image", &encoder_pixels(&image))?;
        Ok(Some(plan))
    }
    fn collect(&mut self, m: &mut Machine, _: &mut State) -> Result<Event> {
        let plan = m.pipeline.image_encoder(m.pixels.0, m.pixels.1)?;
        m.known.latents.push(m.pipeline.exec.read(plan, "z")?);
        Ok(encoded(m, None))
    }
}

/// Encodes the training prompts for the reward.
#[derive(Default)]
pub(crate) struct Aligned;

impl Stage for Aligned {
    fn launch(&mut self, m: &mut Machine, _: &mut State) -> Result<Option<PlanId>> {
        let critic = m.critic.as_ref().ok_or_else(crate::reward::none)?;
        let next = m.known.aligned.len();
        let Some(plan) = critic.prompt.filter(|_| next < m.known.count) else { return Ok(None) };
        critic.backbone.write_prompt(&mut *m.pipeline.exec, plan, m.known.prompt(next))?;
        Ok(Some(plan))
    }
    fn collect(&mut self, m: &mut Machine, _: &mut State) -> Result<Event> {
        let (pipeline, critic) = m.judged()?;
        if let Some(plan) = critic.prompt {
            let mut text = pipeline.exec.read(plan, "pooled")?;
            unit(&mut text);
            m.known.aligned.push(text);
        }
        Ok(encoded(m, None))
    }
}

/// How far the preparation is, in texts, latents, descriptions and images of the base model. `texts`: done and all of the distinct ones, while they
/// are on their way.
pub(super) fn encoded(m: &Machine, texts: Option<(usize, usize)>) -> Event {
    let (known, all) = (&m.known, m.known.list.len());
    let texts = texts.map_or(all, |(done, distinct)| done * all / distinct.max(1));
    let each = 1 + usize::from(m.critic.is_some());
    let done = texts + known.latents.len() + known.tokens.len() + known.base.len() + known.aligned.len();
    let prompts = if m.critic.as_ref().is_some_and(|c| c.prompt.is_some()) { known.count } else { 0 };
    Event::Encoded(done, all + prompts + each * known.images.len() + m.config.base_images())
}

/// Left and right exchanged. `[H, W, 3]`.
fn mirror(pixels: &[f32], width: usize) -> Vec<f32> {
    let row = |r: &[f32]| r.chunks_exact(3).rev().flatten().copied().collect::<Vec<f32>>();
    pixels.chunks_exact(3 * width).flat_map(row).collect()
}
