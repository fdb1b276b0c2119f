//! The clipped group-relative objective, and stochastic steps as they were taken, which are its inputs.
use super::{At, Gives, Gradients, Objective, Outputs, Params, compile, with_gradients};
use crate::Result;
use crate::advantage::{Spread, advantages, resample, within};
use crate::archive::kept;
use crate::config::Config;
use crate::machine::Machine;
use crate::settings::Source;
use crate::settings::field::{ANY, COUNT, between, positive};
use crate::settings::part::settings;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::mmdit::time_projection;
use pentimento_runtime::pipeline::{Pipeline, Text};
use pentimento_runtime::sampler::{CpsCoefficients, mean_square};
use pentimento_wgsl::kernel::{Binary, Unary};

/// Which part of an image an advantage is credited to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Credit {
    /// One advantage and one probability ratio per image, as released.
    Image,
    /// One ratio per latent position; its advantage is `w` times that of the reward patch over it (compared with the
    /// same position in the group's other images) plus `1 - w` times the image's.
    Patch(f32),
}

settings! {
    /// Settings of the clipped objective.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "grpo." {
        /// Which part of an image an advantage is credited to: all of it (`image`, released), or each place in it, `patch:W`: W times
        /// the advantage of the reward patch over the place, and 1 - W times the image's.
        credit: Credit = Credit::Patch(0.7), between(0.0, 1.0);
        /// What advantages are divided by: the deviation of all rewards of the iteration (`global`, released), of those within groups
        /// (`within`), or of the prompt's own (`group`).
        spread: Spread = Spread::Within, ANY;
        /// Part of the first iteration's deviation within groups that later ones are divided by at least: where images of a group
        /// differ less than that, they differ by chance (released: 0).
        floor: f32 = 0.2, between(0.0, 1.0);
        /// Advantages are clamped to plus or minus this (released: 5).
        advantage_limit: f32 = 5.0, positive(1e6), from Source::Released;
        /// Clip range c of the ratio (released: 1e-5; Flow-CPS log-probabilities are small).
        clip: f32 = 1e-5, positive(1.0), from Source::Released;
        /// Optimiser steps per iteration; the trained steps are shared out among them (released: 2).
        updates: usize = 1, COUNT, unit "steps", from Source::Released;
        /// Weight of the squared distance between the means of a step with and without the adapter (released: 0).
        beta: f32 = 0.0, between(0.0, 1e6), from Source::Released;
        /// Whether gradients stop at the unconditioned half of guidance (released: no).
        detach_unconditional: bool = true, ANY;
        /// Norm that the gradient is brought to before extra terms such as the anchor are added, so that their weights mean
        /// the same as beside the pathwise gradient; 0 leaves it as it is (released).
        norm: f32 = 5.0, between(0.0, 1e6);
    }
}

impl Settings {
    /// The released ones.
    pub fn released() -> Self {
        let own = Settings { credit: Credit::Image, spread: Spread::Global, ..Settings::default() };
        Settings { updates: 2, floor: 0.0, detach_unconditional: false, norm: 0.0, ..own }
    }
}

/// [`super::guided`] for a micro-batch.
fn guided(
    pipeline: &Pipeline,
    g: &mut Graph,
    config: &Config,
    size: [usize; 2],
    latents: Option<Id>,
) -> (Id, Id) {
    let (n, guidance) = (config.optim.micro_batch, config.rollout.guidance);
    super::guided(pipeline, g, guidance, config.grpo.detach_unconditional, n, size, latents)
}

/// Mean of a stochastic step: `mean_x x + mean_v v`; mean_x, mean_v: `[B, 1, 1, 1]`.
pub fn step_mean(g: &mut Graph, x: Id, v: Id, mean_x: Id, mean_v: Id) -> Id {
    let (a, b) = (g.mul(x, mean_x), g.mul(v, mean_v));
    g.add(a, b)
}

/// Mean of `(a - b)^2` over all but the first `keep` axes. Between a step's result and its mean this is Flow-CPS's
/// `-logp`; between two means it is the released KL term.
pub fn distance(g: &mut Graph, a: Id, b: Id, keep: usize) -> Id {
    let d = g.sub(a, b);
    let square = g.unary(Unary::Square, d);
    g.mean(square, keep)
}

/// `max(-A rho, -A clamp(rho, 1 - c, 1 + c))` with `rho = exp(logp - logp_old)`, and rho. Elementwise; old and new are
/// *negative* log-probabilities. Schulman et al. 2017 (arXiv 1707.06347), eq. 7.
pub fn clipped(g: &mut Graph, old: Id, new: Id, advantage: Id, clip: f32) -> (Id, Id) {
    let log = g.sub(old, new);
    let ratio = g.unary(Unary::Exp, log);
    let clamped = g.unary(Unary::Clamp(1.0 - clip, 1.0 + clip), ratio);
    let (free, bound) = (g.mul(ratio, advantage), g.mul(clamped, advantage));
    let (free, bound) = (g.affine(free, -1.0, 0.0), g.affine(bound, -1.0, 0.0));
    (g.binary(Binary::Max, free, bound), ratio)
}

/// The clipped objective of one trained Flow-CPS step: [`clipped`] with `logp = -mean((x' - mean)^2)`,
/// `mean = mean_x x + mean_v v` and guided `v = u + guidance (c - u)` (where gradients go: `detach_unconditional`). With
/// [`Credit::Image`] the mean runs over an image, with [`Credit::Patch`] over the channels of each latent position.
/// A positive `beta` adds `beta mean((mean - mean_ref)^2)`, mean_ref being that of the model without its adapter (as
/// released: not divided by the variance).
///
/// Inputs: the velocity's twice (`u.` and plain), `next` x', `mean_x`, `mean_v` `[B, 1, 1, 1]`, `old`, `advantage`,
/// `seed`: `[B, P]`. Outputs: `loss`, `ratio`, `distance` (`-logp`), with `beta` also `kl`, `[B, P]`, and the gradients. P is
/// 1 or the number of latent positions.
///
/// # Errors
/// The device refuses the plan.
pub fn grpo(pipeline: &mut Pipeline, params: &Params, config: &Config, size: [usize; 2]) -> Result<PlanId> {
    let n = config.optim.micro_batch;
    let mut g = Graph::new();
    let (x, v) = guided(pipeline, &mut g, config, size, None);
    let shape = g.shape(x).to_vec();
    let next = g.input("next", &shape);
    let mean_x = g.input("mean_x", &[n, 1, 1, 1]);
    let mean_v = g.input("mean_v", &[n, 1, 1, 1]);
    let mean = step_mean(&mut g, x, v, mean_x, mean_v);
    let places = places(config, size);
    let keep = match config.grpo.credit {
        Credit::Image => 1,
        Credit::Patch(_) => 3,
    };
    let negative = distance(&mut g, next, mean, keep);
    let negative = g.reshape(negative, &[n, places]);
    let old = g.input("old", &[n, places]);
    let advantage = g.input("advantage", &[n, places]);
    let seed = g.input("seed", &[n, places]);
    let (mut loss, ratio) = clipped(&mut g, old, negative, advantage, config.grpo.clip);
    let mut outputs = vec![("ratio".into(), ratio), ("distance".into(), negative)];
    if config.grpo.beta > 0.0 {
        // The same graph without the adapter: the reference needs no weights of its own.
        let lora = pipeline.lora.take();
        let (_, v) = guided(pipeline, &mut g, config, size, Some(x));
        pipeline.lora = lora;
        let reference = step_mean(&mut g, x, v, mean_x, mean_v);
        let reference = g.detach(reference);
        let kl = distance(&mut g, mean, reference, keep);
        let kl = g.reshape(kl, &[n, places]);
        outputs.push(("kl".into(), kl));
        let kl = g.affine(kl, config.grpo.beta, 0.0);
        loss = g.add(loss, kl);
    }
    outputs.push(("loss".into(), loss));
    let outputs = with_gradients(&mut g, loss, seed, params, config.recomputes(size), outputs)?;
    compile(pipeline, g, &outputs, size)
}

/// Ratios per image.
pub fn places(config: &Config, size: [usize; 2]) -> usize {
    match config.grpo.credit {
        Credit::Image => 1,
        Credit::Patch(_) => size[0] * size[1],
    }
}

/// `-logp` of each place: the mean squared distance of `next` from `mean`, both `[positions, channels]`.
///
/// # Errors
/// Lengths that differ.
pub fn distances(config: &Config, next: &[f32], mean: &[f32], channels: usize) -> Result<Vec<f32>> {
    let width = match config.grpo.credit {
        Credit::Image => next.len(),
        Credit::Patch(_) => channels,
    };
    let width = width.max(1);
    let pairs = next.chunks(width).zip(mean.chunks(width));
    pairs.map(|(a, b)| Ok(mean_square(a, b)? as f32)).collect()
}

/// The clipped objective on an iteration's stochastic steps: trained step by trained step, micro-batch by micro-batch.
#[derive(Default)]
pub(crate) struct Grpo {
    /// `[images, places]`.
    advantages: Vec<f32>,
    /// Part of `norm` that its gradient is worth: less where the floor holds advantages down.
    worth: f32,
    clipped: usize,
    ratios: usize,
    /// Sum of the distances from the base model's steps.
    kl: f64,
}

impl Grpo {
    /// Trained step and first image of a run.
    fn place(&self, c: &Config, at: At) -> (usize, usize) {
        let batches = c.images().div_ceil(c.optim.micro_batch);
        let step = at.update * (c.rollout.window / c.grpo.updates) + at.run / batches;
        (step, at.run % batches * c.optim.micro_batch)
    }
}

/// How much better each place is than its group, `[images, places]`, and how far the floor held that down: 1 where it did not.
pub(super) fn credited(m: &Machine, s: &mut State) -> Result<(Vec<f32>, f32)> {
    let (c, group) = (&m.config.grpo, m.config.rollout.group);
    let mut worth = 1.0f64;
    let mut scaled = |kind: usize, rewards: &[f32], width: usize| {
        let own = within(rewards, group, width);
        let floor = f64::from(c.floor) * *s.spread[kind].get_or_insert(own);
        worth = worth.min(if own < floor { own / floor } else { 1.0 });
        advantages(rewards, group, width, c.spread, floor, c.advantage_limit)
    };
    let image = scaled(0, &s.batch.rewards, 1);
    let Credit::Patch(part) = c.credit else { return Ok((image, worth as f32)) };
    let grid = s.batch.scores.first().map_or(0, |h| h.len().saturating_sub(1).isqrt());
    let patches: Vec<f32> = s.batch.scores.iter().flat_map(|h| h[1..].iter().copied()).collect();
    let local = scaled(1, &patches, grid * grid);
    let mixed = local.chunks_exact(grid * grid).zip(&image).flat_map(|(map, a)| {
        let map = resample(map, [grid, grid], m.size);
        map.into_iter().map(move |l| part * l + (1.0 - part) * a)
    });
    let mixed = mixed.collect();
    Ok((mixed, worth as f32))
}

pub(super) fn root_mean_square(x: &[f32]) -> f32 {
    (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32).sqrt()
}

impl Objective for Grpo {
    fn begin(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        let (advantages, worth) = credited(m, s)?;
        s.metrics.advantage_spread = root_mean_square(&advantages);
        *self = Grpo { advantages, worth, ..Grpo::default() };
        Ok(())
    }
    fn runs(&self, m: &Machine) -> usize {
        let c = &m.config;
        c.rollout.window / c.grpo.updates * c.images().div_ceil(c.optim.micro_batch)
    }
    fn norm(&self, m: &Machine) -> f32 {
        m.config.grpo.norm * self.worth
    }
    fn launch(&mut self, m: &mut Machine, s: &State, at: At) -> Result<PlanId> {
        let plan = plan(m)?;
        let c = &m.config;
        let ((step, first), n, all) = (self.place(c, at), c.optim.micro_batch, c.images());
        // Rows past the end repeat the last image with weight zero.
        let rows: Vec<usize> = (first..first + n).map(|i| i.min(all - 1)).collect();
        let (real, places) = (n.min(all - first), places(c, m.size));
        // The loss of an optimiser step is the mean over its steps, images and places.
        let steps = c.rollout.window / c.grpo.updates;
        let each = 1.0 / (steps * all * places) as f32;
        let seed: Vec<f32> = (0..n * places).map(|i| if i < real * places { each } else { 0.0 }).collect();
        let texts = s.batch.texts(&m.known, c.rollout.group);
        let texts: Vec<&Text> = rows.iter().map(|&i| texts[i]).collect();
        let inputs = Rows { images: &rows, texts: &texts, advantages: &self.advantages, seed: &seed };
        s.batch.taken[step].write(&mut m.pipeline, plan, c, &inputs, &m.known.null)?;
        Ok(plan)
    }
    fn gives(&self, m: &Machine, _: usize) -> Gives {
        let all = m.config.optim.micro_batch * places(&m.config, m.size);
        let kl = (m.config.grpo.beta > 0.0).then_some(("kl", all));
        Gives::gradients([("ratio", all)].into_iter().chain(kl).collect())
    }
    fn collect(
        &mut self,
        m: &mut Machine,
        s: &mut State,
        at: At,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<()> {
        let c = &m.config;
        let (_, first) = self.place(c, at);
        let real = c.optim.micro_batch.min(c.images() - first) * places(c, m.size);
        let ratio = gave.of("ratio")?;
        let outside = ratio.iter().take(real).filter(|r| (**r - 1.0).abs() > c.grpo.clip);
        self.clipped += outside.count();
        self.ratios += real;
        s.metrics.clip_fraction = self.clipped as f32 / self.ratios.max(1) as f32;
        if c.grpo.beta > 0.0 {
            let kl = gave.of("kl")?;
            self.kl += kl.iter().take(real).map(|v| f64::from(*v)).sum::<f64>();
            s.metrics.kl = Some((self.kl / self.ratios.max(1) as f64) as f32);
        }
        sum.add(gave.gradients);
        Ok(())
    }
}

fn plan(m: &mut Machine) -> Result<PlanId> {
    m.plan("grpo", grpo)
}

/// One stochastic step of some images.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Noise level before the step.
    pub sigma: f32,
    /// Of the step.
    pub coefficients: CpsCoefficients,
    /// Numbers in the latents of one image.
    pub per: usize,
    /// Latents before, image after image.
    pub x: Vec<f32>,
    /// Latents after.
    pub next: Vec<f32>,
    /// `-logp` of each place, image after image.
    pub old: Vec<f32>,
}

kept!(CpsCoefficients { mean_x, mean_v, std });
kept!(Taken { sigma, coefficients, per, x, next, old });

/// The images of one training run and what they count.
pub struct Rows<'a> {
    /// Index of each sample's image.
    pub images: &'a [usize],
    /// Text of each sample.
    pub texts: &'a [&'a Text],
    /// Advantages of all images, `[images, places]`.
    pub advantages: &'a [f32],
    /// Weight of each place's loss in that of the optimiser step, `[samples, places]`; 0 leaves a sample out.
    pub seed: &'a [f32],
}

impl Taken {
    /// The step to `next_sigma` with noise `z`, from guided velocities `v` of images of `per` numbers in `channels`.
    ///
    /// # Errors
    /// Sigmas or lengths that do not fit.
    pub fn step(
        config: &Config,
        [sigma, next_sigma]: [f32; 2],
        x: &[f32],
        v: &[f32],
        z: &[f32],
        [per, channels]: [usize; 2],
    ) -> Result<Taken> {
        let coefficients = CpsCoefficients::new(sigma, next_sigma, config.rollout.eta)?;
        let mean = coefficients.mean(x, v)?;
        let next = coefficients.next(&mean, z)?;
        let images = next.chunks_exact(per.max(1)).zip(mean.chunks_exact(per.max(1)));
        let old = images.map(|(n, m)| distances(config, n, m, channels));
        let old = old.collect::<Result<Vec<_>>>()?.concat();
        Ok(Taken { sigma, coefficients, per, x: x.to_vec(), next, old })
    }

    /// Writes the inputs of a training run.
    ///
    /// # Errors
    /// Images that do not exist and lengths that do not fit the plan.
    pub fn write(
        &self,
        pipeline: &mut Pipeline,
        plan: PlanId,
        config: &Config,
        rows: &Rows<'_>,
        null: &Text,
    ) -> Result<()> {
        let n = rows.images.len();
        let time = time_projection(pipeline.schedule.timestep(self.sigma)).repeat(n);
        // Each list below holds as many numbers for every image.
        let all = (self.x.len() / self.per.max(1)).max(1);
        let pick = |data: &[f32]| -> Vec<f32> {
            let width = data.len() / all;
            rows.images.iter().flat_map(|&i| data.iter().skip(i * width).take(width).copied()).collect()
        };
        let text = |f: fn(&Text) -> &[f32]| rows.texts.iter().flat_map(|t| f(t)).copied().collect();
        let inputs: [(&str, Vec<f32>); 10] = [
            ("latents", pick(&self.x)),
            ("next", pick(&self.next)),
            ("old", pick(&self.old)),
            ("advantage", pick(rows.advantages)),
            ("seed", rows.seed.to_vec()),
            ("mean_x", vec![self.coefficients.mean_x; n]),
            ("mean_v", vec![self.coefficients.mean_v; n]),
            ("time", time.clone()),
            ("context", text(|t| &t.context)),
            ("pooled", text(|t| &t.pooled)),
        ];
        for (name, data) in inputs {
            pipeline.exec.write(plan, name, &data)?;
        }
        if config.rollout.guided() {
            pipeline.exec.write(plan, "u.time", &time)?;
            pipeline.exec.write(plan, "u.context", &null.context.repeat(n))?;
            pipeline.exec.write(plan, "u.pooled", &null.pooled.repeat(n))?;
        }
        Ok(())
    }
}
