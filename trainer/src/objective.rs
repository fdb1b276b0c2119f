//! What an adapter learns from, an objective a file: its loss on the graph, and how its runs are fed. `Learn` gathers the
//! gradients of an optimiser step from an objective and any extra terms, which are objectives, too.
pub mod anchor;
pub mod flow;
mod gave;
pub mod grpo;
mod learn;
pub mod nft;
pub mod pathwise;
pub mod prior;

pub(crate) use gave::{Gives, Outputs};
pub(crate) use learn::{At, Gradients, Learn, Objective};

use crate::Result;
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::grad::{Recompute, gradients};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::lora::{device_rank, leaves, recut};
use pentimento_runtime::model::mmdit;
use pentimento_runtime::pipeline::{Pipeline, Text};
use pentimento_runtime::sampler;

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
    pub fn new(config: &mmdit::MmditConfig, rank: usize) -> Self {
        Params { targets: mmdit::lora_targets(config), rank }
    }
    /// Leaf name and shape of each tensor, as on the host.
    pub fn leaves(&self) -> Vec<(String, [usize; 2])> {
        let pair = |(t, i, o): &(String, usize, usize)| {
            let [a, b] = leaves(t);
            [(a, [self.rank, *i]), (b, [*o, self.rank])]
        };
        self.targets.iter().flat_map(pair).collect()
    }
    /// Whether values, or gradients, have these shapes.
    pub(crate) fn fit(&self, values: &[Vec<f32>]) -> bool {
        values.iter().map(Vec::len).eq(self.leaves().iter().map(|(_, [rows, columns])| rows * columns))
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
        let leaves = self.leaves();
        let names: Vec<&str> = leaves.iter().map(|l| l.0.as_str()).collect();
        let gradients = exec.read_all(plan, &names)?;
        let one = |((name, shape), gradient): (&(String, [usize; 2]), Vec<f32>)| {
            let [host, device] = self.rows(name, *shape);
            recut(&gradient, device, host)
        };
        Ok(leaves.iter().zip(gradients).map(one).collect())
    }
    /// Numbers on the host and on the device in what padding continues: the whole of A, a row of B.
    fn rows(&self, name: &str, [_, columns]: [usize; 2]) -> [usize; 2] {
        let each = if name.ends_with("lora_A.weight") { columns } else { 1 };
        [self.rank, device_rank(self.rank)].map(|rank| rank * each)
    }
}

/// Gradients as outputs named by their leaves.
fn with_gradients(
    g: &mut Graph,
    y: Id,
    dy: Id,
    params: &Params,
    recompute: Recompute,
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

/// Guided velocity of `n` latents, `u + guidance (c - u)`, and the latents. Gradients go through c, and through u only
/// without `detach`.
fn guided(
    pipeline: &Pipeline,
    g: &mut Graph,
    guidance: f32,
    detach: bool,
    n: usize,
    size: [usize; 2],
    latents: Option<Id>,
) -> (Id, Id) {
    let (x, cond) = pipeline.velocity_graph(g, "", n, size, latents);
    if !sampler::guides(guidance) {
        return (x, g.balance(cond));
    }
    let (_, uncond) = pipeline.velocity_graph(g, "u.", n, size, Some(x));
    let uncond = if detach { g.detach(uncond) } else { uncond };
    let d = g.sub(cond, uncond);
    let d = g.affine(d, guidance, 0.0);
    let v = g.add(uncond, d);
    (x, g.balance(v))
}

/// Writes a velocity's inputs but the latents: time embeddings of all rows, and a text for each.
fn write_condition(
    pipeline: &mut Pipeline,
    plan: PlanId,
    prefix: &str,
    time: &[f32],
    texts: &[&Text],
) -> Result<()> {
    let all = |f: fn(&Text) -> &[f32]| texts.iter().map(|t| f(t)).collect::<Vec<_>>().concat();
    pipeline.exec.write(plan, &format!("{prefix}time"), time)?;
    pipeline.exec.write(plan, &format!("{prefix}pooled"), &all(|t| &t.pooled))?;
    pipeline.exec.write(plan, &format!("{prefix}context"), &all(|t| &t.context))
}
