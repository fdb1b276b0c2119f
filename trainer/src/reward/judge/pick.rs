//! PickScore as a judge.
use super::{Judge, Pairs};
use crate::config::Config;
use crate::images::Picture;
use crate::preprocess::{clip_pixels, head_picture};
use crate::recipe::released::{ReleasedSchedule, Script};
use crate::reward::pickscore::{Model, PickScore};
use crate::reward::{HeadStep, Learned};
use crate::{Error, Result};
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::folder::tokenizer_folder;
use pentimento_runtime::pipeline::Pipeline;
use pentimento_runtime::tokenizer::Tokenizer;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

/// PickScore and what it has encoded.
pub(super) struct Pick {
    score: PickScore,
    tokenizer: Tokenizer,
    /// Width and height in pixels.
    pixels: (usize, usize),
    /// Embeddings of prompts; the text encoder does not learn.
    texts: BTreeMap<String, Vec<f32>>,
    work: Work,
}

/// What is being done.
#[derive(Default)]
struct Work {
    /// A step, else rewards.
    learn: bool,
    /// Prompts to encode first.
    unknown: VecDeque<String>,
    /// Encoder inputs, by runs.
    inputs: VecDeque<Vec<Vec<f32>>>,
    /// States of the images before the layers that learn.
    hidden: Vec<Vec<f32>>,
    /// Prompts of the images, or of the pairs.
    prompts: Vec<String>,
    scores: Vec<f32>,
    /// Once the step's first run has told.
    step: Option<HeadStep>,
}

impl Pick {
    /// Opens a `CLIPModel` folder with its tokenizer.
    pub fn open(
        pipeline: &mut Pipeline,
        folder: &Path,
        config: &Config,
        schedule: &ReleasedSchedule,
        pixels: (usize, usize),
    ) -> Result<Self> {
        let tokenizer = tokenizer_folder(folder)?.tokenizer()?;
        let model = Model::open(folder)?;
        let batch = config.rollout.prompts * config.rollout.group;
        let score =
            PickScore::new(&mut *pipeline.exec, model, batch, schedule.tune_layer, schedule.tune_rate)?;
        Ok(Pick { score, tokenizer, pixels, texts: BTreeMap::new(), work: Work::default() })
    }

    /// Encoder inputs of pictures made from images by `eight_bit`, by runs.
    fn inputs(
        &self,
        images: &[&[f32]],
        eight_bit: impl Fn(u32, u32, &[f32]) -> pentimento_runtime::Result<Picture>,
    ) -> Result<VecDeque<Vec<Vec<f32>>>> {
        let model = self.score.model();
        let side = model.vision.image_size as u32;
        let input = |image: &&[f32]| {
            let picture = eight_bit(self.pixels.0 as u32, self.pixels.1 as u32, image)?;
            clip_pixels(&picture, side, &model.pixels)
        };
        images.chunks(self.score.batch()).map(|part| part.iter().map(input).collect()).collect()
    }
    /// Those prompts that are not encoded yet, each once.
    fn unknown<'a>(&self, prompts: impl Iterator<Item = &'a str>) -> VecDeque<String> {
        let mut out: VecDeque<String> = VecDeque::new();
        for prompt in prompts.filter(|p| !self.texts.contains_key(*p)) {
            if !out.iter().any(|known| known == prompt) {
                out.push_back(prompt.to_string());
            }
        }
        out
    }
}

fn slices(x: &[Vec<f32>]) -> Vec<&[f32]> {
    x.iter().map(Vec::as_slice).collect()
}

impl Judge for Pick {
    fn begin_rewards(&mut self, prompt: &str, images: &[&[f32]], _: &str, _: &mut dyn Script) -> Result<()> {
        let (unknown, inputs) =
            (self.unknown([prompt].into_iter()), self.inputs(images, Picture::from_unit)?);
        let prompts = vec![prompt.to_string(); images.len()];
        self.work = Work { unknown, inputs, prompts, ..Work::default() };
        Ok(())
    }
    fn rewards(&mut self) -> Result<Vec<f32>> {
        Ok(core::mem::take(&mut self.work).scores)
    }
    fn learns(&self, _: usize, generated: f32, reference: f32) -> bool {
        reference < generated
    }
    /// Pairs reference and generated image of a prompt in order; lists of unequal length are cut to the shorter.
    /// (The released code pairs across prompts then, and stops where the counts of the epoch differ.)
    fn begin_step(&mut self, all: &[Pairs<'_>], _: &str, _: &mut dyn Script) -> Result<()> {
        let (mut real, mut fake, mut prompts) = (Vec::new(), Vec::new(), Vec::new());
        for batch in all {
            for (reference, image) in batch.references.iter().zip(batch.images) {
                real.push(reference.pixels.as_slice());
                fake.push(image.as_slice());
                prompts.push(batch.prompt.to_string());
            }
        }
        let unknown = self.unknown(all.iter().map(|b| b.prompt));
        let mut inputs = self.inputs(&real, head_picture)?;
        inputs.append(&mut self.inputs(&fake, head_picture)?);
        self.work = Work { learn: true, unknown, inputs, prompts, ..Work::default() };
        Ok(())
    }
    fn step(&mut self, name: &str, script: &mut dyn Script) -> Result<HeadStep> {
        let step = core::mem::take(&mut self.work).step.unwrap_or_default();
        script.note(&format!("{name}.d_loss"), &[step.loss]);
        script.note(&format!("{name}.d_acc"), &[step.accuracy]);
        Ok(step)
    }
    fn launch(&mut self, exec: &mut dyn Executor) -> Result<PlanId> {
        let w = &self.work;
        if let Some(prompt) = w.unknown.front() {
            let length = self.score.model().text.max_position_embeddings;
            return self.score.begin_text(exec, &self.tokenizer.encode(prompt, length));
        }
        if let Some(part) = w.inputs.front() {
            return self.score.begin_hidden(exec, &slices(part));
        }
        let texts = w.prompts.iter().map(|p| self.texts.get(p).map_or(&[][..], Vec::as_slice));
        let (texts, hidden) = (texts.collect::<Vec<_>>(), slices(&w.hidden));
        if w.learn {
            let (real, fake) = hidden.split_at(hidden.len() / 2);
            return self.score.begin_step(exec, real, fake, &texts);
        }
        let part = w.scores.len()..hidden.len().min(w.scores.len() + self.score.batch());
        self.score.begin_scores(exec, &hidden[part.clone()], &texts[part])
    }
    fn collect(&mut self, exec: &mut dyn Executor) -> Result<bool> {
        let w = &mut self.work;
        if let Some(prompt) = w.unknown.pop_front() {
            self.texts.insert(prompt, self.score.end_text(exec)?);
            return Ok(false);
        }
        if let Some(part) = w.inputs.pop_front() {
            w.hidden.extend(self.score.end_hidden(exec, part.len())?);
            return Ok(false);
        }
        if w.learn {
            let second = w.step.is_some();
            if second {
                self.score.end_step(exec)?;
            } else {
                w.step = Some(self.score.seed_step(exec, w.prompts.len())?);
            }
            return Ok(second);
        }
        let left = (w.hidden.len() - w.scores.len()).min(self.score.batch());
        w.scores.extend(self.score.end_scores(exec, left)?);
        Ok(w.scores.len() == w.hidden.len())
    }
    fn learned(&self) -> &Learned {
        self.score.learned()
    }
    fn learn_from(&mut self, exec: &mut dyn Executor, learned: Learned) -> Result<()> {
        self.score.learn_from(exec, learned)
    }
    fn fingerprint(&self) -> String {
        self.score.model().weights.fingerprint()
    }
    fn start_from(&mut self, _: &mut dyn Executor, _: Vec<Vec<f32>>) -> Result<()> {
        Err(Error::bad("PickScore", "its own checkpoint to start from", "tensors of a DINOv2 head"))
    }
}
