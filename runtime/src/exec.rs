//! Executors run plans: `cpu` with the twins (the truth), `null` counts, `wgpu` on an adapter (the product).
pub mod cpu;
mod leaf;
#[cfg(feature = "wgpu")]
mod limit;
pub mod null;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use leaf::{Need, needs};

use crate::Result;
use crate::caps::Caps;
use crate::graph::{Graph, Id, Layout, Leaf, Op};
use crate::plan::Plan;
use crate::weights::{DType, TensorView, Weights};
use alloc::vec::Vec;
use pentimento_wgsl::WeightType;

/// A prepared plan of one executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanId(pub(crate) usize);

/// Contents of a weight or parameter.
#[derive(Clone, Copy, Debug)]
pub enum LeafData<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Half-precision words as in the file; kept so where the executor can.
    Half(WeightType, &'a [u8]),
}

/// Runs plans. Weights and parameters are shared by all plans of an executor; inputs belong to one plan.
pub trait Executor {
    /// What the planner may use.
    fn caps(&self) -> &Caps;
    /// True when a weight or parameter of that name has been set.
    fn has_leaf(&self, name: &str) -> bool;
    /// How a leaf is stored; F32 for unknown ones.
    fn weight_type(&self, name: &str) -> WeightType;
    /// Creates or overwrites a weight or parameter.
    ///
    /// # Errors
    /// Out of memory, or another length than before.
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()>;
    /// Takes a plan whose leaves have all been set.
    ///
    /// # Errors
    /// A leaf that was not set, or out of memory.
    fn prepare(&mut self, plan: Plan) -> Result<PlanId>;
    /// Sets an input of a plan. Inputs start as zeros and keep their value between runs.
    ///
    /// # Errors
    /// Unknown name or wrong length.
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()>;
    /// Puts a plan back to its first command.
    fn rewind(&mut self, plan: PlanId);
    /// Submits the next slice of a plan's commands; true when the last one is submitted. Short enough for every
    /// operating system's patience, and the place where a caller may pause for as long as it likes. A plan's first run also
    /// builds shaders, few a slice.
    ///
    /// # Errors
    /// The device failed, or its driver refuses a pipeline.
    fn advance(&mut self, plan: PlanId) -> Result<bool>;
    /// Waits and reads an output.
    ///
    /// # Errors
    /// Unknown name, or the device failed.
    fn read(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>>;

    /// Runs a plan from its first command to its last.
    ///
    /// # Errors
    /// As [`Executor::advance`].
    fn run(&mut self, plan: PlanId) -> Result<()> {
        self.rewind(plan);
        while !self.advance(plan)? {}
        Ok(())
    }
}

/// Plans `outputs` of a graph and prepares them.
///
/// # Errors
/// As [`Plan::new`] and [`Executor::prepare`].
pub fn compile(exec: &mut dyn Executor, graph: Graph, outputs: &[(&str, Id)]) -> Result<PlanId> {
    let plan = Plan::new(graph, outputs, exec.caps(), &|name| exec.weight_type(name))?;
    exec.prepare(plan)
}

/// Uploads every weight leaf of `graph` whose name begins with `prefix` and that the executor lacks, from a checkpoint
/// component. The checkpoint's name is the leaf's without the prefix. Half-precision matrices stay as they are where the
/// executor can keep them; everything else, quantised tensors too, becomes f32, so that no number is rounded.
///
/// # Errors
/// A missing or mis-shaped tensor; out of memory.
pub fn upload(exec: &mut dyn Executor, graph: &Graph, prefix: &str, weights: &Weights) -> Result<()> {
    for (i, node) in graph.nodes().iter().enumerate() {
        let Op::Leaf { kind: Leaf::Weight(layout), name } = &node.op else { continue };
        let Some(leaf) = name.strip_prefix(prefix).filter(|_| !exec.has_leaf(name)) else { continue };
        let half = keeps_half(exec.caps(), graph, Id(i as u32), *layout);
        let t = leaf::find(weights, leaf, &node.shape, *layout)?;
        if half {
            set_tensor(exec, name, &t, half)?;
        } else {
            exec.set_leaf(name, LeafData::F32(&leaf::values(&t, &node.shape, *layout)?))?;
        }
    }
    Ok(())
}

/// Sets a leaf from a checkpoint tensor; with `half`, one in half precision stays so.
pub(crate) fn set_tensor(exec: &mut dyn Executor, name: &str, t: &TensorView<'_>, half: bool) -> Result<()> {
    match t.dtype {
        DType::F16 if half => exec.set_leaf(name, LeafData::Half(WeightType::F16, t.bytes)),
        DType::BF16 if half => exec.set_leaf(name, LeafData::Half(WeightType::BF16, t.bytes)),
        _ => exec.set_leaf(name, LeafData::F32(&t.to_f32())),
    }
}

/// Whether a weight that the checkpoint holds in half precision stays so.
pub(crate) fn keeps_half(caps: &Caps, graph: &Graph, id: Id, layout: Layout) -> bool {
    caps.half_weights && layout == Layout::Plain && only_weight(graph, id)
}

/// Read only as the second operand of matmuls, with an even number of elements.
pub(crate) fn only_weight(g: &Graph, id: Id) -> bool {
    let uses = g.nodes().iter().filter(|n| n.inputs.contains(&id));
    g.len(id).is_multiple_of(2)
        && uses.clone().count() > 0
        && uses.clone().all(|n| {
            matches!(n.op, Op::Matmul { .. }) && n.inputs.iter().enumerate().all(|(i, x)| *x != id || i == 1)
        })
}
