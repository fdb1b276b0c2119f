//! The DINOv2 head as a judge.
use super::{Judge, Pairs};
use crate::config::Config;
use crate::preprocess::{head_picture, head_pixels};
use crate::recipe::released::{Schedule, Script};
use crate::reward::HeadStep;
use crate::reward::dino::Backbone;
use crate::reward::head::{Head, NAMES, Patches, Settings, Shape, rewards};
use crate::{Error, Result};
use pentimento::exec::{Executor, PlanId, compile};
use pentimento::graph::Graph;
use pentimento::pipeline::Pipeline;
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
}

impl DinoHead {
    /// Opens the backbone and draws a head from the seed; `most`: images or references in a batch.
    pub fn open(
        pipeline: &mut Pipeline,
        folder: &Path,
        config: &Config,
        schedule: &Schedule,
        pixels: (usize, usize),
        most: usize,
    ) -> Result<Self> {
        let mut backbone = Backbone::open(folder)?;
        let settings = Settings { batch: config.rollout.prompts * most, ..config.head.clone() };
        let shape = Shape { hidden: schedule.hidden, ..Shape::of(&backbone) };
        let head = Head::new(&mut *pipeline.exec, shape, &settings, config.seed, config.rollout.group)?;
        let describe = [
            describe(pipeline, &mut backbone, config.rollout.group, pixels, false)?,
            describe(pipeline, &mut backbone, config.rollout.group, pixels, true)?,
        ];
        Ok(DinoHead { backbone, head, config: config.clone(), d_times: schedule.d_times, pixels, describe })
    }

    fn pick(&self, name: &str, images: usize, script: &mut dyn Script) -> Result<Vec<Vec<u32>>> {
        let patches = self.backbone.grid() * self.backbone.grid();
        let count = self.config.head.patches.min(patches);
        let picked = script.patches(name, images, count, patches);
        let fits = picked.len() == images && picked.iter().all(|list| !list.is_empty());
        if fits { Ok(picked) } else { Err(Error::bad(name, format!("{images} lists of patches"), "others")) }
    }
    /// Tokens of images in 0 to 1, or of normalised encoder inputs.
    fn tokens(&self, exec: &mut dyn Executor, inputs: &[&[f32]], normalised: bool) -> Result<Vec<Vec<f32>>> {
        let plan = self.describe[usize::from(normalised)];
        let (group, per) = (self.config.rollout.group, self.backbone.token_numbers());
        let mut out = Vec::with_capacity(inputs.len());
        for part in inputs.chunks(group) {
            let mut x: Vec<f32> = part.iter().flat_map(|i| i.iter().copied()).collect();
            x.resize(x.len() / part.len() * group, 0.0);
            exec.write(plan, "image", &x)?;
            exec.run(plan)?;
            let tokens = exec.read(plan, "tokens")?;
            out.extend(tokens.chunks_exact(per).take(part.len()).map(<[f32]>::to_vec));
        }
        Ok(out)
    }
    /// Tokens by the head training's way: 8-bit pictures, PIL's bicubic.
    fn eight_bit_tokens(
        &self,
        exec: &mut dyn Executor,
        images: &[&[f32]],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<Vec<Vec<f32>>> {
        let (width, height) = (self.pixels.0 as u32, self.pixels.1 as u32);
        let side = self.backbone.image_size() as u32;
        let (mut inputs, mut bytes) = (Vec::with_capacity(images.len()), Vec::new());
        for image in images {
            let picture = head_picture(width, height, image)?;
            bytes.extend(picture.rgb().iter().map(|&b| f32::from(b)));
            inputs.push(head_pixels(&picture, side, self.backbone.pixels())?);
        }
        script.note(name, &bytes);
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        self.tokens(exec, &inputs, true)
    }
}

impl Judge for DinoHead {
    fn rewards(
        &mut self,
        exec: &mut dyn Executor,
        _: &str,
        images: &[&[f32]],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<Vec<f32>> {
        let tokens = self.tokens(exec, images, false)?;
        let tokens: Vec<&[f32]> = tokens.iter().map(Vec::as_slice).collect();
        let picked = self.pick(name, images.len(), script)?;
        let scores = self.head.score(exec, &tokens, self.config.head.normalise_reward)?;
        rewards(&scores, self.config.head.class_weight, Patches::Picked(&picked))
    }
    fn learns(&self, epoch: usize, _: f32, _: f32) -> bool {
        !(epoch + 1).is_multiple_of(self.d_times)
    }
    fn learn(
        &mut self,
        exec: &mut dyn Executor,
        all: &[Pairs<'_>],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<HeadStep> {
        let real: Vec<&[f32]> =
            all.iter().flat_map(|b| b.references.iter().map(|r| r.pixels.as_slice())).collect();
        let fake: Vec<&[f32]> = all.iter().flat_map(|b| b.images.iter().map(Vec::as_slice)).collect();
        let n = real.len().min(fake.len());
        let real = self.eight_bit_tokens(exec, &real[..n], &format!("{name}.d_real_u8"), script)?;
        let fake = self.eight_bit_tokens(exec, &fake[..n], &format!("{name}.d_fake_u8"), script)?;
        let mut picked = self.pick(&format!("{name}.d.idx_real"), n, script)?;
        picked.extend(self.pick(&format!("{name}.d.idx_fake"), n, script)?);
        let real: Vec<&[f32]> = real.iter().map(Vec::as_slice).collect();
        let fake: Vec<&[f32]> = fake.iter().map(Vec::as_slice).collect();
        let plan = self.head.begin_step(exec, &real, &fake, Patches::Picked(&picked))?;
        exec.run(plan)?;
        let step = self.head.end_step(exec)?;
        script.note(&format!("{name}.d_loss"), &[step.loss]);
        script.note(&format!("{name}.d_acc"), &[step.accuracy]);
        for (param, data) in NAMES.iter().zip(self.head.params()) {
            script.note(&format!("{name}.{param}"), data);
        }
        Ok(step)
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
