//! PickScore as a judge.
use super::{Judge, Pairs};
use crate::config::Config;
use crate::images::Picture;
use crate::preprocess::{clip_pixels, head_picture};
use crate::recipe::released::{Schedule, Script};
use crate::reward::HeadStep;
use crate::reward::pickscore::{Model, PickScore};
use crate::{Error, Result};
use pentimento::exec::Executor;
use pentimento::folder::tokenizer_folder;
use pentimento::pipeline::Pipeline;
use pentimento::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::path::Path;

/// PickScore and what it has encoded.
pub(super) struct Pick {
    score: PickScore,
    tokenizer: Tokenizer,
    /// Width and height in pixels.
    pixels: (usize, usize),
    /// Embeddings of prompts; the text encoder does not learn.
    texts: BTreeMap<String, Vec<f32>>,
}

impl Pick {
    /// Opens a `CLIPModel` folder with its tokenizer.
    pub fn open(
        pipeline: &mut Pipeline,
        folder: &Path,
        config: &Config,
        schedule: &Schedule,
        pixels: (usize, usize),
    ) -> Result<Self> {
        let tokenizer = tokenizer_folder(folder)?.tokenizer()?;
        let model = Model::open(folder)?;
        let batch = config.rollout.prompts * config.rollout.group;
        let score =
            PickScore::new(&mut *pipeline.exec, model, batch, schedule.tune_layer, schedule.tune_rate)?;
        Ok(Pick { score, tokenizer, pixels, texts: BTreeMap::new() })
    }

    fn text(&mut self, exec: &mut dyn Executor, prompt: &str) -> Result<Vec<f32>> {
        if let Some(known) = self.texts.get(prompt) {
            return Ok(known.clone());
        }
        let length = self.score.model().text.max_position_embeddings;
        let text = self.score.text(exec, &self.tokenizer.encode(prompt, length))?;
        self.texts.insert(prompt.to_string(), text.clone());
        Ok(text)
    }
    /// States before the layers that learn, of pictures made from images by `eight_bit`.
    fn hidden(
        &self,
        exec: &mut dyn Executor,
        images: &[&[f32]],
        eight_bit: impl Fn(u32, u32, &[f32]) -> pentimento::Result<Picture>,
    ) -> Result<Vec<Vec<f32>>> {
        let model = self.score.model();
        let side = model.vision.image_size as u32;
        let mut inputs = Vec::with_capacity(images.len());
        for image in images {
            let picture = eight_bit(self.pixels.0 as u32, self.pixels.1 as u32, image)?;
            inputs.push(clip_pixels(&picture, side, &model.pixels)?);
        }
        self.score.hidden(exec, &slices(&inputs))
    }
}

fn slices(x: &[Vec<f32>]) -> Vec<&[f32]> {
    x.iter().map(Vec::as_slice).collect()
}

impl Judge for Pick {
    fn rewards(
        &mut self,
        exec: &mut dyn Executor,
        prompt: &str,
        images: &[&[f32]],
        _: &str,
        _: &mut dyn Script,
    ) -> Result<Vec<f32>> {
        let text = self.text(exec, prompt)?;
        let hidden = self.hidden(exec, images, Picture::from_unit)?;
        self.score.scores(exec, &slices(&hidden), &vec![text.as_slice(); images.len()])
    }
    fn learns(&self, _: usize, generated: f32, reference: f32) -> bool {
        reference < generated
    }
    /// Pairs reference and generated image of a prompt in order; lists of unequal length are cut to the shorter.
    /// (The released code pairs across prompts then, and stops where the counts of the epoch differ.)
    fn learn(
        &mut self,
        exec: &mut dyn Executor,
        all: &[Pairs<'_>],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<HeadStep> {
        let (mut real, mut fake, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for batch in all {
            let text = self.text(exec, batch.prompt)?;
            for (reference, image) in batch.references.iter().zip(batch.images) {
                real.push(reference.pixels.as_slice());
                fake.push(image.as_slice());
                texts.push(text.clone());
            }
        }
        let real = self.hidden(exec, &real, head_picture)?;
        let fake = self.hidden(exec, &fake, head_picture)?;
        let step = self.score.step(exec, &slices(&real), &slices(&fake), &slices(&texts))?;
        script.note(&format!("{name}.d_loss"), &[step.loss]);
        script.note(&format!("{name}.d_acc"), &[step.accuracy]);
        Ok(step)
    }
    fn start_from(&mut self, _: &mut dyn Executor, _: Vec<Vec<f32>>) -> Result<()> {
        Err(Error::bad("PickScore", "its own checkpoint to start from", "tensors of a DINOv2 head"))
    }
}
