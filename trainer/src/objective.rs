//! Losses on the graph: the supervised flow-matching warm start and the clipped group-relative objective.
use crate::Result;
use crate::config::{Config, Credit};
use pentimento::exec::{Executor, PlanId};
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Id};
use pentimento::model::mmdit;
use pentimento::pipeline::Pipeline;
use pentimento::sampler::mean_square;
use pentimento_wgsl::kernel::{Binary, Unary};

/// The adapter's parameters, A then B of each target. The last block drops its text queries' outputs, so the gradient
/// of their adapter is exactly zero; it stays in the file because q, k and v must be adapted together.
///
/// Values on the host have the rank that was asked for. On the device it is [`device_rank`]: A has rows and B columns of
/// zeros more, each other's gradients are therefore zero, and nothing but [`Params::upload`] and [`Params::gradients`]
/// knows of them.
pub struct Params {
    /// Target, leaf names of A and B, sizes in and out.
    pub targets: Vec<(String, usize, usize)>,
    rank: usize,
}

impl Params {
    /// Of a model.
    pub fn new(config: &mmdit::Config, rank: usize) -> Self {
        Params { targets: mmdit::lora_targets(config), rank }
    }
    /// Leaf name and shape of each tensor, as on the host.
    pub fn leaves(&self) -> Vec<(String, [usize; 2])> {
        let pair = |(t, i, o): &(String, usize, usize)| {
            [
                (format!("lora/{t}.lora_A.weight"), [self.rank, *i]),
                (format!("lora/{t}.lora_B.weight"), [*o, self.rank]),
            ]
        };
        self.targets.iter().flat_map(pair).collect()
    }
    fn ids(&self, g: &mut Graph) -> Vec<Id> {
        let device = Params { targets: self.targets.clone(), rank: device_rank(self.rank) };
        device.leaves().iter().map(|(name, shape)| g.param(name.clone(), shape)).collect()
    }
    /// Values in the order of [`Params::leaves`] to the device.
    ///
    /// # Errors
    /// The device failed, or other lengths than before.
    pub fn upload(&self, pipeline: &mut Pipeline, values: &[Vec<f32>]) -> Result<()> {
        for ((name, shape), data) in self.leaves().iter().zip(values) {
            let [host, device] = self.rows(name, *shape);
            pipeline.set_param(name, &recut(data, host, device))?;
        }
        Ok(())
    }
    /// Gradients of a finished run, in the order of [`Params::leaves`].
    ///
    /// # Errors
    /// The device failed.
    pub fn gradients(&self, exec: &mut dyn Executor, plan: PlanId) -> Result<Vec<Vec<f32>>> {
        let mut all = Vec::new();
        for (name, shape) in self.leaves() {
            let [host, device] = self.rows(&name, shape);
            all.push(recut(&exec.read(plan, &name)?, device, host));
        }
        Ok(all)
    }
    /// Numbers on the host and on the device in what padding continues: the whole of A, a row of B.
    fn rows(&self, name: &str, [_, columns]: [usize; 2]) -> [usize; 2] {
        let each = if name.ends_with("lora_A.weight") { columns } else { 1 };
        [self.rank, device_rank(self.rank)].map(|rank| rank * each)
    }
}

/// The rank that an adapter of rank `rank` has on the device: kernels that read four numbers at a time want it so.
pub fn device_rank(rank: usize) -> usize {
    rank.next_multiple_of(4)
}

/// Rows of `row` numbers as rows of `to`: cut off, or continued with zeros.
pub(crate) fn recut(data: &[f32], row: usize, to: usize) -> Vec<f32> {
    let zeros = to.saturating_sub(row);
    let rows = data.chunks_exact(row.max(1));
    rows.flat_map(|r| r.iter().take(to).copied().chain(core::iter::repeat_n(0.0, zeros))).collect()
}

/// Gradients as outputs named by their leaves.
fn with_gradients(
    g: &mut Graph,
    y: Id,
    dy: Id,
    params: &Params,
    recompute: bool,
    mut outputs: Vec<(String, Id)>,
) -> Result<Vec<(String, Id)>> {
    g.check()?;
    let ids = params.ids(g);
    let grads = gradients(g, y, dy, &ids, recompute)?;
    outputs.extend(params.leaves().into_iter().map(|l| l.0).zip(grads));
    Ok(outputs)
}
fn compile(pipeline: &mut Pipeline, g: Graph, outputs: &[(String, Id)], size: [usize; 2]) -> Result<PlanId> {
    let outputs: Vec<(&str, Id)> = outputs.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    pipeline.compile(g, &outputs, size)
}

/// Flow matching on clean latents: `mean((v(x_sigma) - (eps - x0))^2)` (Lipman et al. 2023, eq. 14 for straight paths).
/// Inputs: the velocity's, and `target` = eps - x0. Outputs: `loss` `[B]` and the gradients.
///
/// # Errors
/// The device refuses the plan.
pub fn supervised(
    pipeline: &mut Pipeline,
    params: &Params,
    batch: usize,
    size: [usize; 2],
    recompute: bool,
) -> Result<PlanId> {
    let mut g = Graph::new();
    let (x, v) = pipeline.velocity_graph(&mut g, "", batch, size, None);
    let shape = g.shape(x).to_vec();
    let target = g.input("target", &shape);
    let d = g.sub(v, target);
    let square = g.unary(Unary::Square, d);
    let loss = g.mean(square, 1);
    let dy = g.input("seed", &[batch]);
    let outputs = with_gradients(&mut g, loss, dy, params, recompute, vec![("loss".into(), loss)])?;
    let plan = compile(pipeline, g, &outputs, size)?;
    pipeline.exec.write(plan, "seed", &vec![1.0 / batch as f32; batch])?;
    Ok(plan)
}

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
