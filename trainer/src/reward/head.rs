//! The reward head: a small head over frozen tokens that learns to tell references from generated images.
//! `Linear(D, 512) -> GELU -> Linear(512, 1)` on the class token and on patch tokens alike.
mod plans;

use super::backbone::Backbone;
use super::{HeadStep, Learned};
use crate::config::{MOST_IMAGES, MOST_STEPS};
use crate::settings::Source;
use crate::settings::field::{ANY, COUNT, between, most};
use crate::settings::part::settings;
use crate::{Error, Result};
use pentimento_runtime::exec::{Executor, LeafData, PlanId, finite};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::rng::Philox;
use plans::{head, score_plan, step_plan};
use std::sync::Arc;

settings! {
    /// Settings of the head and of the reward it gives.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "head." {
        /// Weight of the class token in the reward, the patches get the rest (released: 0.7).
        class_weight: f32 = 0.7, between(0.0, 1.0), from Source::Released;
        /// Part of an image's reward, 0 to 1, that is PickScore's: how far the reward model, which has to be a CLIP then, finds
        /// it to be what its prompt says. The head gives the rest, so 1 is a reward that does not learn.
        alignment: f32 = 0.0, between(0.0, 1.0);
        /// Weight of the patches in the head's loss (released: 0.3).
        patch_loss: f32 = 0.3, between(0.0, 1000.0), from Source::Released;
        /// Patches drawn with replacement from each image, for a head step and again for a reward; 0 takes all of them
        /// (released: 64).
        patches: usize = 0, most(MOST_IMAGES), unit "patches", from Source::Released;
        /// Whether the reward divides tokens by their norms, which head training does not (released: yes).
        normalise_reward: bool = false, ANY, from Source::Released;
        /// Learning rate (released: 1e-4), Adam betas (0.5, 0.999).
        rate: f32 = 3e-4, between(0.0, 1.0), from Source::Released;
        /// Steps before the first update.
        warm: usize = 30, most(MOST_STEPS), unit "steps";
        /// Steps per iteration after the first (released: 1).
        steps: usize = 2, most(MOST_STEPS), unit "steps", from Source::Released;
        /// References, and as many generated images, in a step.
        batch: usize = 16, COUNT, unit "images";
        /// Generated images kept; half of a step's negatives come from there.
        replay: usize = 256, most(MOST_IMAGES), unit "images";
        /// Weight of `(h(token + noise) - h(token))^2 / d^2` beside the hinge loss, with noise of plus or minus d =
        /// 0.1 standard deviations of the references' tokens: an R1 penalty (Mescheder et al. 2018) by finite
        /// differences, as APT (arXiv 2501.08316) makes it. 0 leaves it out (released).
        steady: f32 = 1.0, between(0.0, 1000.0), from Source::Paper("2501.08316");
    }
}

/// Size of the noise that holds the head steady, in standard deviations of the references' tokens.
pub const STEADY: f32 = 0.1;

impl Settings {
    /// The released ones.
    pub fn released() -> Self {
        Settings {
            rate: 1e-4,
            steps: 1,
            patches: 64,
            normalise_reward: true,
            steady: 0.0,
            ..Settings::default()
        }
    }
}

/// Hidden units of the released head.
pub const HIDDEN: usize = 512;
/// The head's tensors: leaf names, torch's names after the component.
pub const NAMES: [&str; 4] = ["head/0.weight", "head/0.bias", "head/2.weight", "head/2.bias"];

/// The patches of an image that count: all of them, or a list per image, in which a patch may stand more than once.
#[derive(Clone, Copy, Debug)]
pub enum Patches<'a> {
    /// Every patch, equally.
    All,
    /// Indices from 0 to N - 1, one list per image; lists of one length.
    Picked(&'a [Vec<u32>]),
}

impl Patches<'_> {
    /// Share of each patch of image `i`, summing to one. `n`: patches in an image.
    fn shares(self, i: usize, n: usize) -> Result<Vec<f64>> {
        let Patches::Picked(lists) = self else { return Ok(vec![1.0 / n as f64; n]) };
        let bad = |expected: String, found: String| Error::bad("patch indices", expected, found);
        let list = lists.get(i).filter(|l| !l.is_empty());
        let list = list.ok_or_else(|| bad(format!("at least one for image {i}"), "none".into()))?;
        let mut counts = vec![0u32; n];
        for &patch in list {
            let count = counts.get_mut(patch as usize);
            *count.ok_or_else(|| bad(format!("numbers below {n}"), patch.to_string()))? += 1;
        }
        Ok(counts.into_iter().map(|c| f64::from(c) / list.len() as f64).collect())
    }
}

/// Sizes of a head and what it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tokens of an image: the class token and N patches.
    pub tokens: usize,
    /// D, numbers in a token.
    pub width: usize,
    /// Hidden units; [`HIDDEN`] as released.
    pub hidden: usize,
}

impl Shape {
    /// Of a head as released, for a backbone.
    pub fn of(backbone: &Backbone) -> Self {
        let [tokens, width] = backbone.shape();
        Shape { tokens, width, hidden: HIDDEN }
    }
    /// Of the four tensors in [`NAMES`].
    fn params(self) -> [Vec<usize>; 4] {
        [vec![self.hidden, self.width], vec![self.hidden], vec![1, self.hidden], vec![1]]
    }
}

/// The trainable head with its optimiser.
pub struct Head {
    shape: Shape,
    batch: usize,
    patch_loss: f32,
    rate: f32,
    steady: f32,
    learned: Learned,
    /// Made when they are needed, see [`Head::rest`].
    plans: [Option<PlanId>; 2],
    /// Images of the step in progress, real and generated.
    images: usize,
    /// Weight of each of its hinge terms, `[2 B, 1 + N]`.
    weights: Vec<f64>,
    score_batch: usize,
}

/// Places of [`Head::plans`].
const STEP: usize = 0;
const SCORE: usize = 1;

impl Head {
    /// The head's outputs on tokens `[B, 1 + N, D]` of another graph: `[B, 1 + N, 1]`.
    pub fn graph(&self, g: &mut Graph, tokens: Id) -> Id {
        head(g, tokens, self.shape).0
    }
}

impl Head {
    /// A fresh head (torch's `nn.Linear` initialisation, uniform in `1 / sqrt(inputs)`).
    ///
    /// # Errors
    /// No patches or images; the device failed.
    pub fn new(
        exec: &mut dyn Executor,
        shape: Shape,
        settings: &Settings,
        seed: u64,
        score_batch: usize,
    ) -> Result<Self> {
        let Shape { tokens, width, hidden } = shape;
        if tokens < 2 || score_batch == 0 {
            return Err(Error::bad("head", "a class token, patches and images", format!("{tokens} tokens")));
        }
        let mut rng = Philox::new(seed, 0x4ead);
        let mut uniform = |n: usize, inputs: usize| -> Vec<f32> {
            let limit = 1.0 / (inputs as f32).sqrt();
            (0..n).map(|_| (2.0 * rng.uniform() - 1.0) * limit).collect()
        };
        let params = vec![
            uniform(hidden * width, width),
            uniform(hidden, width),
            uniform(hidden, hidden),
            uniform(1, hidden),
        ];
        for (name, data) in NAMES.iter().zip(&params) {
            exec.set_leaf(name, LeafData::F32(data))?;
        }
        let (batch, patch_loss, rate) = (settings.batch, settings.patch_loss, settings.rate);
        let (images, weights) = (0, Vec::new());
        Ok(Head {
            shape,
            batch,
            patch_loss,
            rate,
            steady: settings.steady,
            learned: Learned::new(params, seed),
            plans: [None; 2],
            images,
            weights,
            score_batch,
        })
    }

    fn plan(&mut self, exec: &mut dyn Executor, which: usize) -> Result<PlanId> {
        if let Some(plan) = self.plans[which] {
            return Ok(plan);
        }
        let plan = match which {
            STEP => step_plan(exec, 2 * self.batch, self.shape, self.steady)?,
            _ => score_plan(exec, self.score_batch, self.shape)?,
        };
        self.plans[which] = Some(plan);
        Ok(plan)
    }
    fn made(&self, which: usize) -> Result<PlanId> {
        self.plans[which].ok_or_else(|| Error::missing("head", "the run to read, which was not begun"))
    }
    /// Frees its plans until they are needed again: their inputs, tokens of all images, are as large as a network.
    ///
    /// # Errors
    /// The device failed.
    pub fn rest(&mut self, exec: &mut dyn Executor) -> Result<()> {
        self.plans.iter_mut().filter_map(Option::take).try_for_each(|plan| exec.forget(plan))
    }

    /// The four tensors, in the order of [`NAMES`].
    pub fn params(&self) -> &[Vec<f32>] {
        &self.learned.params
    }
    /// What it has learnt.
    pub(crate) fn learned(&self) -> &Learned {
        &self.learned
    }
    /// Goes on from what another one has learnt.
    ///
    /// # Errors
    /// Other lengths; the device failed.
    pub(crate) fn learn_from(&mut self, exec: &mut dyn Executor, learned: Learned) -> Result<()> {
        self.learned.go_on(learned)?;
        self.upload(exec)
    }
    /// Replaces the four tensors; the optimiser keeps its moments.
    ///
    /// # Errors
    /// Other lengths than before; the device failed.
    pub fn set_params(&mut self, exec: &mut dyn Executor, params: Vec<Vec<f32>>) -> Result<()> {
        let lengths = |p: &[Vec<f32>]| p.iter().map(Vec::len).collect::<Vec<_>>();
        if lengths(&params) != lengths(self.params()) {
            let expected = format!("tensors of {:?} numbers", lengths(self.params()));
            return Err(Error::bad("head", expected, format!("{:?}", lengths(&params))));
        }
        self.learned.params = Arc::new(params);
        self.upload(exec)
    }
    fn upload(&self, exec: &mut dyn Executor) -> Result<()> {
        NAMES.iter().zip(self.params()).try_for_each(|(name, data)| exec.set_leaf(name, LeafData::F32(data)))
    }

    /// Writes the inputs of one step: as many real as generated images, at most `batch` of each, tokens `[1 + N, D]`
    /// each, and which patches of the real ones, then of the generated ones, count. Returns the plan.
    ///
    /// # Errors
    /// Unequal numbers of images, none or too many; patches that do not exist; the device failed.
    pub fn begin_step(
        &mut self,
        exec: &mut dyn Executor,
        real: &[&[f32]],
        fake: &[&[f32]],
        patches: Patches,
    ) -> Result<PlanId> {
        let n = real.len();
        if n != fake.len() || n == 0 || n > self.batch {
            let expected = format!("as many real as generated images, 1 to {}", self.batch);
            return Err(Error::bad("head step", expected, format!("{n} and {}", fake.len())));
        }
        // Places of the plan that are left over hold zeros and weigh nothing.
        let all = 2 * self.batch;
        let mut x: Vec<f32> = real.iter().chain(fake).flat_map(|t| t.iter().copied()).collect();
        x.resize(all * self.shape.tokens * self.shape.width, 0.0);
        let plan = self.plan(exec, STEP)?;
        exec.write(plan, "tokens", &x)?;
        if self.steady > 0.0 {
            let known = &x[..n * self.shape.tokens * self.shape.width];
            let size = STEADY * deviation(known);
            let signs = self.learned.signs.signs(x.len());
            let noisy: Vec<f32> = x.iter().zip(signs).map(|(v, s)| v + s * size).collect();
            exec.write(plan, "noisy", &noisy)?;
        }
        // relu(1 - h) for references, relu(1 + h) for generated images.
        let sign: Vec<f32> = (0..all).map(|i| if i < n { -1.0 } else { 1.0 }).collect();
        exec.write(plan, "sign", &sign)?;
        self.images = 2 * n;
        self.weights = self.loss_weights(n, patches)?;
        self.weights.resize(all * self.shape.tokens, 0.0);
        let weights: Vec<f32> = self.weights.iter().map(|&w| w as f32).collect();
        exec.write(plan, "weight", &weights)?;
        Ok(plan)
    }
    /// Weight of each hinge term: half for each side, means over images and over patches.
    fn loss_weights(&self, batch: usize, patches: Patches) -> Result<Vec<f64>> {
        let n = self.shape.tokens - 1;
        let class = 0.5 / batch as f64;
        let patch = f64::from(self.patch_loss) * class;
        let mut all = Vec::with_capacity(2 * batch * (n + 1));
        for i in 0..2 * batch {
            all.push(class);
            all.extend(patches.shares(i, n)?.iter().map(|share| share * patch));
        }
        Ok(all)
    }
    /// Gradients of a finished step, in the order of [`NAMES`].
    ///
    /// # Errors
    /// The device failed.
    pub fn gradients(&self, exec: &mut dyn Executor) -> Result<Vec<Vec<f32>>> {
        let names = [NAMES[0], NAMES[1], NAMES[2], "hinge"];
        let mut all = exec.read_all(self.made(STEP)?, &names)?;
        let hinge = all.pop().unwrap_or_default();
        all.push(vec![self.shift(&hinge)]);
        Ok(all)
    }
    /// Gradient of the last bias: the weights of generated images' active hinge terms minus those of references'. The two
    /// sides all but cancel, and do in a fresh head: a sum in f32 would leave rounding, which Adam turns into a whole step.
    fn shift(&self, hinge: &[f32]) -> f32 {
        let real = self.images / 2 * self.shape.tokens;
        let (mut known, mut made) = (0.0, 0.0);
        for (i, (_, &w)) in hinge.iter().zip(&self.weights).enumerate().filter(|(_, (h, _))| **h > 0.0) {
            *(if i < real { &mut known } else { &mut made }) += w;
        }
        // Shares that are no binary fractions leave the last bits of f64.
        let cancelled = f64::abs(made - known) <= 1e-12 * (made + known);
        if cancelled { 0.0 } else { (made - known) as f32 }
    }
    /// Reads the gradients of a finished step and moves the head.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_step(&mut self, exec: &mut dyn Executor) -> Result<HeadStep> {
        let hinge = exec.read(self.made(STEP)?, "hinge")?;
        let loss = hinge.iter().zip(&self.weights).map(|(&h, &w)| f64::from(h) * w).sum::<f64>() as f32;
        // A class logit is on the right side where its hinge term is below 1.
        let class = hinge.iter().step_by(self.shape.tokens).take(self.images);
        let accuracy = class.filter(|h| **h < 1.0).count() as f32 / self.images.max(1) as f32;
        let grads = self.gradients(exec)?;
        self.learned.step(&grads, self.rate);
        for (name, tensor) in NAMES.iter().zip(self.params()) {
            finite(&format!("`{name}` after a step of the reward head"), tensor)?;
        }
        self.upload(exec)?;
        Ok(HeadStep { loss, accuracy })
    }

    /// Head outputs of images' tokens: `[1 + N]` each, the class token's first. With `normalised`, tokens are first
    /// divided by their 2-norm plus 1e-6, as the released reward does it (and the released head training does not).
    ///
    /// # Errors
    /// The device failed.
    pub fn score(
        &mut self,
        exec: &mut dyn Executor,
        tokens: &[&[f32]],
        normalised: bool,
    ) -> Result<Vec<Vec<f32>>> {
        let mut out = Vec::with_capacity(tokens.len());
        for part in tokens.chunks(self.score_batch) {
            let plan = self.begin_score(exec, part, normalised)?;
            exec.run(plan)?;
            out.extend(self.end_score(exec, part.len())?);
        }
        Ok(out)
    }
    /// Images in one run of [`Head::begin_score`].
    pub fn score_batch(&self) -> usize {
        self.score_batch
    }
    /// Writes the tokens of up to [`Head::score_batch`] images; returns the plan that scores them as [`Head::score`] does.
    ///
    /// # Errors
    /// Too many images, tokens of another shape.
    pub fn begin_score(
        &mut self,
        exec: &mut dyn Executor,
        tokens: &[&[f32]],
        normalised: bool,
    ) -> Result<PlanId> {
        let mut x: Vec<f32> = tokens.iter().flat_map(|t| t.iter().copied()).collect();
        if normalised {
            x.chunks_exact_mut(self.shape.width).for_each(normalise);
        }
        let all = self.score_batch * self.shape.tokens * self.shape.width;
        if x.len() > all {
            let found = format!("{} numbers of {} images", x.len(), tokens.len());
            return Err(Error::bad("head", format!("at most {all} numbers"), found));
        }
        x.resize(all, 0.0);
        let plan = self.plan(exec, SCORE)?;
        exec.write(plan, "tokens", &x)?;
        Ok(plan)
    }
    /// Reads the scores of the first `images` of a finished run.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_score(&self, exec: &mut dyn Executor, images: usize) -> Result<Vec<Vec<f32>>> {
        let h = exec.read(self.made(SCORE)?, "score")?;
        Ok(h.chunks_exact(self.shape.tokens).take(images).map(<[f32]>::to_vec).collect())
    }
}

/// `x / (|x| + 1e-6)`.
fn normalise(x: &mut [f32]) {
    let norm = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt() + 1e-6;
    x.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
}

/// Rewards of images from [`Head::score`]: `class_weight` of the class token's, the rest of the patches' mean.
///
/// # Errors
/// Patches that do not exist.
pub fn rewards(scores: &[Vec<f32>], class_weight: f32, patches: Patches) -> Result<Vec<f32>> {
    let reward = |(i, h): (usize, &Vec<f32>)| {
        let Some((class, rest)) = h.split_first().filter(|(_, rest)| !rest.is_empty()) else {
            return Err(Error::bad("reward", "scores of a class token and patches", format!("{h:?}")));
        };
        let patch = match patches {
            Patches::All => return Ok(all_patches(class_weight, *class, rest)),
            picked => picked.shares(i, rest.len())?,
        };
        let mean: f64 = patch.iter().zip(rest).map(|(&share, &h)| share * f64::from(h)).sum();
        let w = f64::from(class_weight);
        Ok((w * f64::from(*class) + (1.0 - w) * mean) as f32)
    };
    scores.iter().enumerate().map(reward).collect()
}

fn all_patches(class_weight: f32, class: f32, patches: &[f32]) -> f32 {
    class_weight * class + (1.0 - class_weight) * patches.iter().sum::<f32>() / patches.len() as f32
}

/// Standard deviation of all numbers.
fn deviation(x: &[f32]) -> f32 {
    let n = x.len().max(1) as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt() as f32
}
