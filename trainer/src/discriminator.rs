//! The reward: frozen DINOv2 tokens and a small head that learns to tell references from generated images.
//! Head: `Linear(D, 512) -> GELU -> Linear(512, 1)` on the class token and on every patch token alike.
use crate::config::Config;
use crate::optim::AdamW;
use crate::{Error, Result};
use pentimento::exec::{LeafData, PlanId, compile, upload};
use pentimento::folder::open_component;
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Id};
use pentimento::model::{Constants, dino};
use pentimento::pipeline::Pipeline;
use pentimento::rng::Philox;
use pentimento::weights::Weights;
use pentimento_wgsl::kernel::{Act, Unary};
use std::path::Path;

const HIDDEN: usize = 512;
const NAMES: [&str; 4] = ["head/0.weight", "head/0.bias", "head/2.weight", "head/2.bias"];

/// The frozen backbone.
pub struct Backbone {
    config: dino::Config,
    pixels: dino::Pixels,
    weights: Weights,
    constants: Constants,
}

impl Backbone {
    /// Opens a transformers `Dinov2Model` folder.
    ///
    /// # Errors
    /// A missing or damaged file, or a configuration this runtime does not compute.
    pub fn open(path: &Path) -> Result<Self> {
        let component = open_component(path)?;
        let label = path.join("config.json").display().to_string();
        let config = dino::Config::from_value(&component.config()?, &label)?;
        let file = "preprocessor_config.json";
        let pixels = if component.has_file(file) {
            dino::Pixels::from_value(&component.json(file)?, &path.join(file).display().to_string())?
        } else {
            dino::Pixels::imagenet()
        };
        Ok(Backbone { config, pixels, weights: component.weights()?, constants: Constants::new() })
    }
    /// Patches a side at the native size.
    pub fn grid(&self) -> usize {
        self.config.image_size / self.config.patch_size
    }
    /// Numbers in the tokens of one image: `(1 + patches) * D`.
    pub fn token_numbers(&self) -> usize {
        (1 + self.grid() * self.grid()) * self.config.hidden_size
    }
    /// Tokens of images in 0 to 1, `[B, H, W, 3]`, resized to the native size: `[B, 1 + N, D]`.
    pub fn tokens(&mut self, g: &mut Graph, image: Id) -> Id {
        let side = self.config.image_size;
        let x = dino::preprocess(g, &mut self.constants, image, [side, side], &self.pixels);
        dino::encode(g, &mut self.constants, &self.config, "reward", x)
    }
    /// Uploads what a graph with [`Backbone::tokens`] needs.
    ///
    /// # Errors
    /// Missing or mis-shaped tensors.
    pub fn upload(&self, pipeline: &mut Pipeline, g: &Graph) -> Result<()> {
        pipeline.set_constants(&self.constants)?;
        upload(&mut *pipeline.exec, g, "reward/", &self.weights)
    }
}

/// The trainable head with its optimiser.
pub struct Head {
    width: usize,
    tokens: usize,
    batch: usize,
    patch_loss: f32,
    rate: f32,
    params: Vec<Vec<f32>>,
    adam: AdamW,
    step_plan: PlanId,
    score_plan: PlanId,
    score_batch: usize,
}

/// What a head step reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadStep {
    /// Hinge loss: class token plus weighted patches.
    pub loss: f32,
    /// Part of class logits on the right side of zero, before the step.
    pub accuracy: f32,
}

fn head(g: &mut Graph, tokens: Id, width: usize) -> (Id, [Id; 4]) {
    let w0 = g.param(NAMES[0], &[HIDDEN, width]);
    let b0 = g.param(NAMES[1], &[HIDDEN]);
    let w2 = g.param(NAMES[2], &[1, HIDDEN]);
    let b2 = g.param(NAMES[3], &[1]);
    let h = g.linear(tokens, w0, Some(b0));
    let h = g.act(Act::Gelu, h);
    (g.linear(h, w2, Some(b2)), [w0, b0, w2, b2])
}

impl Head {
    /// A fresh head (torch's `nn.Linear` initialisation, uniform in `1 / sqrt(inputs)`) and its two plans.
    ///
    /// # Errors
    /// The device refuses the plans.
    pub fn new(
        pipeline: &mut Pipeline,
        backbone: &Backbone,
        config: &Config,
        score_batch: usize,
    ) -> Result<Self> {
        let width = backbone.config.hidden_size;
        let tokens = 1 + backbone.grid() * backbone.grid();
        let mut rng = Philox::new(config.seed, 0x4ead);
        let mut uniform = |n: usize, inputs: usize| -> Vec<f32> {
            let limit = 1.0 / (inputs as f32).sqrt();
            (0..n).map(|_| (2.0 * rng.uniform() - 1.0) * limit).collect()
        };
        let params = vec![
            uniform(HIDDEN * width, width),
            uniform(HIDDEN, width),
            uniform(HIDDEN, HIDDEN),
            uniform(1, HIDDEN),
        ];
        for (name, data) in NAMES.iter().zip(&params) {
            pipeline.exec.set_leaf(name, LeafData::F32(data))?;
        }
        let adam = AdamW::new((0.5, 0.999), 0.0, params.iter().map(Vec::len));
        let step_plan = step_plan(pipeline, 2 * config.head_batch, tokens, width)?;
        let mut g = Graph::new();
        let x = g.input("tokens", &[score_batch, tokens, width]);
        let (h, _) = head(&mut g, x, width);
        let score_plan = compile(&mut *pipeline.exec, g, &[("score", h)])?;
        let (batch, patch_loss, rate) = (config.head_batch, config.patch_loss, config.head_rate);
        Ok(Head { width, tokens, batch, patch_loss, rate, params, adam, step_plan, score_plan, score_batch })
    }

    /// Writes the inputs of one step: as many real as generated images, tokens `[1 + N, D]` each. Returns the plan.
    ///
    /// # Errors
    /// The device failed.
    pub fn begin_step(
        &mut self,
        pipeline: &mut Pipeline,
        real: &[&[f32]],
        fake: &[&[f32]],
    ) -> Result<PlanId> {
        if real.len() != self.batch || fake.len() != self.batch {
            let found = format!("{} and {}", real.len(), fake.len());
            return Err(Error::bad(
                "head step",
                format!("{} real and generated images each", self.batch),
                found,
            ));
        }
        let x: Vec<f32> = real.iter().chain(fake).flat_map(|t| t.iter().copied()).collect();
        pipeline.exec.write(self.step_plan, "tokens", &x)?;
        // relu(1 - h) for references, relu(1 + h) for generated images.
        let sign: Vec<f32> = (0..2 * self.batch).map(|i| if i < self.batch { -1.0 } else { 1.0 }).collect();
        pipeline.exec.write(self.step_plan, "sign", &sign)?;
        pipeline.exec.write(self.step_plan, "weight", &self.loss_weights())?;
        Ok(self.step_plan)
    }
    /// Weight of each hinge term: half for each side, means over images and over patches.
    fn loss_weights(&self) -> Vec<f32> {
        let class = 0.5 / self.batch as f32;
        let patch = self.patch_loss * 0.5 / (self.batch * (self.tokens - 1)) as f32;
        let row = core::iter::once(class).chain(core::iter::repeat_n(patch, self.tokens - 1));
        row.collect::<Vec<_>>().repeat(2 * self.batch)
    }
    /// Reads the gradients of a finished step and moves the head.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_step(&mut self, pipeline: &mut Pipeline) -> Result<HeadStep> {
        let hinge = pipeline.exec.read(self.step_plan, "hinge")?;
        let loss = hinge.iter().zip(self.loss_weights()).map(|(h, w)| h * w).sum();
        // A class logit is on the right side where its hinge term is below 1.
        let right = hinge.iter().step_by(self.tokens).filter(|h| **h < 1.0).count();
        let accuracy = right as f32 / (2 * self.batch) as f32;
        let mut grads = Vec::with_capacity(4);
        for name in NAMES {
            grads.push(pipeline.exec.read(self.step_plan, name)?);
        }
        self.adam.update(&mut self.params, &grads, self.rate);
        for (name, data) in NAMES.iter().zip(&self.params) {
            pipeline.exec.set_leaf(name, LeafData::F32(data))?;
        }
        Ok(HeadStep { loss, accuracy })
    }

    /// Head outputs of images' tokens: `[1 + N]` each, the class token's first.
    ///
    /// # Errors
    /// The device failed.
    pub fn score(&self, pipeline: &mut Pipeline, tokens: &[&[f32]]) -> Result<Vec<Vec<f32>>> {
        let mut out = Vec::with_capacity(tokens.len());
        for part in tokens.chunks(self.score_batch) {
            let mut x: Vec<f32> = part.iter().flat_map(|t| t.iter().copied()).collect();
            x.resize(self.score_batch * self.tokens * self.width, 0.0);
            pipeline.exec.write(self.score_plan, "tokens", &x)?;
            pipeline.exec.run(self.score_plan)?;
            let h = pipeline.exec.read(self.score_plan, "score")?;
            out.extend(h.chunks_exact(self.tokens).take(part.len()).map(<[f32]>::to_vec));
        }
        Ok(out)
    }
}

fn step_plan(pipeline: &mut Pipeline, batch: usize, tokens: usize, width: usize) -> Result<PlanId> {
    let mut g = Graph::new();
    let x = g.input("tokens", &[batch, tokens, width]);
    let sign = g.input("sign", &[batch, 1]);
    let weight = g.input("weight", &[batch, tokens]);
    let (h, params) = head(&mut g, x, width);
    let h = g.reshape(h, &[batch, tokens]);
    let signed = g.mul(h, sign);
    let margin = g.affine(signed, 1.0, 1.0);
    let hinge = g.unary(Unary::Act(Act::Relu), margin);
    let grads = gradients(&mut g, hinge, weight, &params, false)?;
    let mut outputs = vec![("hinge", hinge)];
    outputs.extend(NAMES.into_iter().zip(grads));
    compile(&mut *pipeline.exec, g, &outputs)
}
