//! The DINOv2 head as a judge.
use super::{Judge, Pairs};
use crate::config::Config;
use crate::preprocess::{head_picture, head_pixels};
use crate::recipe::released::{ReleasedSchedule, Script};
use crate::reward::backbone::Backbone;
use crate::reward::head::{Head, NAMES, Patches, Settings, Shape, rewards};
use crate::reward::{HeadStep, Learned};
use crate::{Error, Result};
use pentimento_runtime::exec::{Executor, PlanId, compile};
use pentimento_runtime::graph::Graph;
use pentimento_runtime::pipeline::Pipeline;
use std::collections::VecDeque;
use std::path::Path;

/// A head on frozen tokens.
pub(super) struct DinoHead {
    backbone: Backbone,
    head: Head,
    config: Config,
    d_times: usize,
    /// Width and height in pixels.
    pixels: (usize, usize),
    /// Images in 0 to 1 to tokens; normalised encoder input to tokens. For batches of `group`.
    describe: [PlanId; 2],
    work: Work,
}

/// What is being done.
#[derive(Default)]
struct Work {
    /// A step, else rewards.
    learn: bool,
    /// Inputs to describe, by runs.
    inputs: VecDeque<Vec<Vec<f32>>>,
    tokens: Vec<Vec<f32>>,
    /// Patches that count, of each image.
    picked: Vec<Vec<u32>>,
    scores: Vec<Vec<f32>>,
    step: HeadStep,
}

impl DinoHead {
    /// Opens the backbone and draws a head from the seed; `most`: images or references in a batch.
    pub fn open(
        pipeline: &mut Pipeline,
        folder: &Path,
        config: &Config,
        schedule: &ReleasedSchedule,
        pixels: (usize, usize),
        most: usize,
    ) -> Result<Self> {
        let mut backbone = Backbone::open(folder)?;
        backbone.stream = config.stream;
        let settings = Settings { batch: config.rollout.prompts * most, ..config.head.clone() };
        let shape = Shape { hidden: schedule.hidden, ..Shape::of(&backbone) };
        let head = Head::new(&mut *pipeline.exec, shape, &settings, config.seed, config.rollout.group)?;
        let describe = [
            describe(pipeline, &mut backbone, config.rollout.group, pixels, false)?,
            describe(pipeline, &mut backbone, config.rollout.group, pixels, true)?,
        ];
        Ok(DinoHead {
            backbone,
            head,
            config: config.clone(),
            d_times: schedule.d_times,
            pixels,
            describe,
            work: Work::default(),
        })
    }

    fn pick(&self, name: &str, images: usize, script: &mut dyn Script) -> Result<Vec<Vec<u32>>> {
        let patches = self.backbone.grid() * self.backbone.grid();
        let count = self.config.head.patches.min(patches);
        let picked = script.patches(name, images, count, patches);
        let fits = picked.len() == images && picked.iter().all(|list| !list.is_empty());
        if fits { Ok(picked) } else { Err(Error::bad(name, format!("{images} lists of patches"), "others")) }
    }
    /// Encoder inputs by the head training's way: 8-bit pictures, PIL's bicubic.
    fn eight_bit(&self, images: &[&[f32]], name: &str, script: &mut dyn Script) -> Result<Vec<Vec<f32>>> {
        let (width, height) = (self.pixels.0 as u32, self.pixels.1 as u32);
        let side = self.backbone.image_size() as u32;
        let (mut inputs, mut bytes) = (Vec::with_capacity(images.len()), Vec::new());
        for image in images {
            let picture = head_picture(width, height, image)?;
            bytes.extend(picture.rgb().iter().map(|&b| f32::from(b)));
            inputs.push(head_pixels(&picture, side, self.backbone.pixels())?);
        }
        script.note(name, &bytes);
        Ok(inputs)
    }
    /// Inputs as runs of the plan that describes them.
    fn runs(&self, inputs: Vec<Vec<f32>>) -> impl Iterator<Item = Vec<Vec<f32>>> {
        let group = self.config.rollout.group;
        let mut rest = inputs.into_iter();
        core::iter::from_fn(move || {
            let part: Vec<Vec<f32>> = rest.by_ref().take(group).collect();
            (!part.is_empty()).then_some(part)
        })
    }
}

impl Judge for DinoHead {
    fn begin_rewards(
        &mut self,
        _: &str,
        images: &[&[f32]],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<()> {
        let picked = self.pick(name, images.len(), script)?;
        let inputs = self.runs(images.iter().map(|i| i.to_vec()).collect()).collect();
        self.work = Work { inputs, picked, ..Work::default() };
        Ok(())
    }
    fn rewards(&mut self) -> Result<Vec<f32>> {
        let Work { scores, picked, .. } = core::mem::take(&mut self.work);
        rewards(&scores, self.config.head.class_weight, Patches::Picked(&picked))
    }
    fn learns(&self, epoch: usize, _: f32, _: f32) -> bool {
        !(epoch + 1).is_multiple_of(self.d_times)
    }
    fn begin_step(&mut self, all: &[Pairs<'_>], name: &str, script: &mut dyn Script) -> Result<()> {
        let real: Vec<&[f32]> =
            all.iter().flat_map(|b| b.references.iter().map(|r| r.pixels.as_slice())).collect();
        let fake: Vec<&[f32]> = all.iter().flat_map(|b| b.images.iter().map(Vec::as_slice)).collect();
        let n = real.len().min(fake.len());
        let real = self.eight_bit(&real[..n], &format!("{name}.d_real_u8"), script)?;
        let fake = self.eight_bit(&fake[..n], &format!("{name}.d_fake_u8"), script)?;
        let inputs = self.runs(real).chain(self.runs(fake)).collect();
        let mut picked = self.pick(&format!("{name}.d.idx_real"), n, script)?;
        picked.extend(self.pick(&format!("{name}.d.idx_fake"), n, script)?);
        self.work = Work { learn: true, inputs, picked, ..Work::default() };
        Ok(())
    }
    fn step(&mut self, name: &str, script: &mut dyn Script) -> Result<HeadStep> {
        let step = core::mem::take(&mut self.work).step;
        script.note(&format!("{name}.d_loss"), &[step.loss]);
        script.note(&format!("{name}.d_acc"), &[step.accuracy]);
        for (param, data) in NAMES.iter().zip(self.head.params()) {
            script.note(&format!("{name}.{param}"), data);
        }
        Ok(step)
    }
    fn launch(&mut self, exec: &mut dyn Executor) -> Result<PlanId> {
        let w = &self.work;
        if let Some(part) = w.inputs.front() {
            let plan = self.describe[usize::from(w.learn)];
            let mut x = part.concat();
            x.resize(x.len() / part.len().max(1) * self.config.rollout.group, 0.0);
            exec.write(plan, "image", &x)?;
            return Ok(plan);
        }
        let tokens: Vec<&[f32]> = w.tokens.iter().map(Vec::as_slice).collect();
        if w.learn {
            let (real, fake) = tokens.split_at(tokens.len() / 2);
            return self.head.begin_step(exec, real, fake, Patches::Picked(&w.picked));
        }
        let rest = tokens.get(w.scores.len()..).unwrap_or_default();
        let part = &rest[..rest.len().min(self.head.score_batch())];
        self.head.begin_score(exec, part, self.config.head.normalise_reward)
    }
    fn collect(&mut self, exec: &mut dyn Executor) -> Result<bool> {
        let w = &mut self.work;
        if let Some(part) = w.inputs.pop_front() {
            let tokens = exec.read(self.describe[usize::from(w.learn)], "tokens")?;
            let each = tokens.chunks_exact(self.backbone.token_numbers());
            w.tokens.extend(each.take(part.len()).map(<[f32]>::to_vec));
            return Ok(false);
        }
        if w.learn {
            w.step = self.head.end_step(exec)?;
            return Ok(true);
        }
        let left = (w.tokens.len() - w.scores.len()).min(self.head.score_batch());
        w.scores.extend(self.head.end_score(exec, left)?);
        Ok(w.scores.len() == w.tokens.len())
    }
    fn learned(&self) -> &Learned {
        self.head.learned()
    }
    fn learn_from(&mut self, exec: &mut dyn Executor, learned: Learned) -> Result<()> {
        self.head.learn_from(exec, learned)
    }
    fn fingerprint(&self) -> String {
        self.backbone.fingerprint()
    }
    fn start_from(&mut self, exec: &mut dyn Executor, params: Vec<Vec<f32>>) -> Result<()> {
        self.head.set_params(exec, params)
    }
}

/// The reward backbone on images in 0 to 1, or on its own normalised input.
fn describe(
    pipeline: &mut Pipeline,
    backbone: &mut Backbone,
    batch: usize,
    (width, height): (usize, usize),
    normalised: bool,
) -> Result<PlanId> {
    let mut g = Graph::new();
    let side = backbone.image_size();
    let tokens = if normalised {
        let x = g.input("image", &[batch, side, side, 3]);
        backbone.tokens_of_pixels(&mut g, x)
    } else {
        let x = g.input("image", &[batch, height, width, 3]);
        backbone.tokens(&mut g, x)
    };
    g.check()?;
    backbone.upload(&mut *pipeline.exec, &g)?;
    compile(&mut *pipeline.exec, g, &[("tokens", tokens)])
}
