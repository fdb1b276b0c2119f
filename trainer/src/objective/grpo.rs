//! The clipped group-relative objective, and stochastic steps as they were taken, which are its inputs.
use super::{Params, compile, with_gradients};
use crate::Result;
use crate::config::{Config, Credit};
use pentimento::exec::PlanId;
use pentimento::graph::{Graph, Id};
use pentimento::model::mmdit::time_projection;
use pentimento::pipeline::{Pipeline, Text};
use pentimento::sampler::{CpsCoefficients, mean_square};
use pentimento_wgsl::kernel::{Binary, Unary};

/// Guided velocity of a micro-batch at `size`, `u + guidance (c - u)`, and its latents. Gradients go through c, and
/// through u only without `detach_unconditional`.
fn guided(
    pipeline: &Pipeline,
    g: &mut Graph,
    config: &Config,
    size: [usize; 2],
    latents: Option<Id>,
) -> (Id, Id) {
    let n = config.micro_batch;
    let (x, cond) = pipeline.velocity_graph(g, "", n, size, latents);
    if config.guidance == 1.0 {
        return (x, cond);
    }
    let (_, uncond) = pipeline.velocity_graph(g, "u.", n, size, Some(x));
    let uncond = if config.detach_unconditional { g.detach(uncond) } else { uncond };
    let d = g.sub(cond, uncond);
    let d = g.affine(d, config.guidance, 0.0);
    (x, g.add(uncond, d))
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
pub fn grpo(
    pipeline: &mut Pipeline,
    params: &Params,
    config: &Config,
    size: [usize; 2],
    recompute: bool,
) -> Result<PlanId> {
    let n = config.micro_batch;
    let mut g = Graph::new();
    let (x, v) = guided(pipeline, &mut g, config, size, None);
    let shape = g.shape(x).to_vec();
    let next = g.input("next", &shape);
    let mean_x = g.input("mean_x", &[n, 1, 1, 1]);
    let mean_v = g.input("mean_v", &[n, 1, 1, 1]);
    let mean = step_mean(&mut g, x, v, mean_x, mean_v);
    let places = places(config, size);
    let keep = match config.credit {
        Credit::Image => 1,
        Credit::Patch(_) => 3,
    };
    let negative = distance(&mut g, next, mean, keep);
    let negative = g.reshape(negative, &[n, places]);
    let old = g.input("old", &[n, places]);
    let advantage = g.input("advantage", &[n, places]);
    let seed = g.input("seed", &[n, places]);
    let (mut loss, ratio) = clipped(&mut g, old, negative, advantage, config.clip);
    let mut outputs = vec![("ratio".into(), ratio), ("distance".into(), negative)];
    if config.beta > 0.0 {
        // The same graph without the adapter: the reference needs no weights of its own.
        let lora = pipeline.lora.take();
        let (_, v) = guided(pipeline, &mut g, config, size, Some(x));
        pipeline.lora = lora;
        let reference = step_mean(&mut g, x, v, mean_x, mean_v);
        let reference = g.detach(reference);
        let kl = distance(&mut g, mean, reference, keep);
        let kl = g.reshape(kl, &[n, places]);
        outputs.push(("kl".into(), kl));
        let kl = g.affine(kl, config.beta, 0.0);
        loss = g.add(loss, kl);
    }
    outputs.push(("loss".into(), loss));
    let outputs = with_gradients(&mut g, loss, seed, params, recompute, outputs)?;
    compile(pipeline, g, &outputs, size)
}

/// Ratios per image.
pub fn places(config: &Config, size: [usize; 2]) -> usize {
    match config.credit {
        Credit::Image => 1,
        Credit::Patch(_) => size[0] * size[1],
    }
}

/// `-logp` of each place: the mean squared distance of `next` from `mean`, both `[positions, channels]`.
///
/// # Errors
/// Lengths that differ.
pub fn distances(config: &Config, next: &[f32], mean: &[f32], channels: usize) -> Result<Vec<f32>> {
    let width = match config.credit {
        Credit::Image => next.len(),
        Credit::Patch(_) => channels,
    };
    let width = width.max(1);
    let pairs = next.chunks(width).zip(mean.chunks(width));
    pairs.map(|(a, b)| Ok(mean_square(a, b)? as f32)).collect()
}

/// One stochastic step of some images.
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
        let coefficients = CpsCoefficients::new(sigma, next_sigma, config.eta)?;
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
        if config.guidance != 1.0 {
            pipeline.exec.write(plan, "u.time", &time)?;
            pipeline.exec.write(plan, "u.context", &null.context.repeat(n))?;
            pipeline.exec.write(plan, "u.pooled", &null.pooled.repeat(n))?;
        }
        Ok(())
    }
}
