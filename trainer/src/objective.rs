//! What an adapter learns from, an objective a file: its loss on the graph, and how its runs are fed. [`Learn`] gathers the
//! gradients of an optimiser step from an objective and any extra terms, which are objectives, too.
pub mod flow;
pub mod grpo;
mod learn;

pub(crate) use learn::{At, Gradients, Learn, Objective};

use crate::Result;
use pentimento::exec::PlanId;
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Id};
use pentimento::model::mmdit;
use pentimento::pipeline::Pipeline;

/// The adapter's parameters, A then B of each target. The last block drops its text queries' outputs, so the gradient
/// of their adapter is exactly zero; it stays in the file because q, k and v must be adapted together.
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
    /// Leaf name and shape of each tensor.
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
        self.leaves().iter().map(|(name, shape)| g.param(name.clone(), shape)).collect()
    }
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
