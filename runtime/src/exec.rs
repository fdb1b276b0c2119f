//! Executors run plans: `cpu` with the twins (the truth), `null` counts, `wgpu` on an adapter (the product).
pub mod cpu;
mod leaf;
#[cfg(feature = "wgpu")]
mod limit;
pub mod null;
mod trace;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use leaf::{Need, needs};
#[cfg(feature = "wgpu")]
pub use limit::operands;
pub use trace::{finite, wild};

use crate::Result;
use crate::caps::Caps;
use crate::graph::{Graph, Id, Layout, Leaf, Op};
use crate::plan::{Plan, Slot};
use crate::weights::{DType, TensorView, Weights};
use alloc::{format, vec::Vec};
use pentimento_wgsl::Stored;

/// A prepared plan of one executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanId(pub(crate) usize);

/// Contents of a weight or parameter.
#[derive(Clone, Copy, Debug)]
pub enum LeafData<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Half-precision words as in the file; kept so where the executor can.
    Half(Stored, &'a [u8]),
}

/// Prefix of outputs that tell whether numbers that do not come out were finite, see [`Executor::read`].
pub const FINITE: &str = "finite/";

/// Runs plans. Weights and parameters are shared by all plans of an executor; inputs belong to one plan.
pub trait Executor {
    /// What the planner may use.
    fn caps(&self) -> &Caps;
    /// True when a weight or parameter of that name has been set.
    fn has_leaf(&self, name: &str) -> bool;
    /// How a leaf is stored; F32 for unknown ones.
    fn stored(&self, name: &str) -> Stored;
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
    /// Waits and reads an output, whatever its numbers are.
    ///
    /// # Errors
    /// Unknown name, or the device failed.
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>>;
    /// A plan as it was prepared.
    fn plan(&self, plan: PlanId) -> &Plan;
    /// The numbers of an argument of the command that ran last.
    ///
    /// # Errors
    /// The device failed.
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>>;
    /// Submits the next command alone; true when it was the last.
    ///
    /// # Errors
    /// As [`Executor::advance`].
    fn one(&mut self, plan: PlanId) -> Result<bool>;

    /// Waits and reads an output of finite numbers. Where there is an output `finite/NAME`, its numbers have to be finite,
    /// too: it stands for what was clamped on the way to `NAME`.
    ///
    /// # Errors
    /// As [`Executor::peek`]; [`crate::Error::NotFinite`] tells where the first NaN or infinity came from, for which the plan
    /// runs once more.
    fn read(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        let flag = format!("{FINITE}{output}");
        if self.plan(plan).outputs.iter().any(|o| o.name == flag) {
            let flags = self.peek(plan, &flag)?;
            trace::accept(self, plan, output, &flags)?;
        }
        let data = self.peek(plan, output)?;
        trace::accept(self, plan, output, &data)?;
        Ok(data)
    }

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
    let plan = Plan::new(graph, outputs, exec.caps(), &|name| exec.stored(name))?;
    exec.prepare(plan)
}

/// Uploads every weight leaf of `graph` whose name begins with `prefix` and that the executor lacks, from a checkpoint
/// component. The checkpoint's name is the leaf's without the prefix. Half-precision matrices stay as they are where the
/// executor can keep them, and those in fp8 become so; everything else, quantised and scaled tensors too, becomes f32, so that no
/// number is rounded.
///
/// # Errors
/// A missing or mis-shaped tensor; out of memory.
pub fn upload(exec: &mut dyn Executor, graph: &Graph, prefix: &str, weights: &Weights) -> Result<()> {
    let halves = keep_half(exec.caps(), graph);
    for (node, half) in graph.nodes().iter().zip(halves) {
        let Op::Leaf { kind: Leaf::Weight(layout), name } = &node.op else { continue };
        let Some(leaf) = name.strip_prefix(prefix).filter(|_| !exec.has_leaf(name)) else { continue };
        let t = leaf::find(weights, leaf, &node.shape, *layout)?;
        if half {
            set_tensor(exec, name, &t, half)?;
        } else {
            let values = leaf::values(&t, &node.shape, *layout)?;
            if wild(&values).is_some() {
                t.check_finite()?;
            }
            exec.set_leaf(name, LeafData::F32(&values))?;
        }
    }
    Ok(())
}

/// Whether a checkpoint component has what [`upload`] would take from it, from its headers alone.
///
/// # Errors
/// A missing or mis-shaped tensor.
pub fn check(graph: &Graph, prefix: &str, weights: &Weights) -> Result<()> {
    for node in graph.nodes() {
        let Op::Leaf { kind: Leaf::Weight(layout), name } = &node.op else { continue };
        if let Some(leaf) = name.strip_prefix(prefix) {
            leaf::find(weights, leaf, &node.shape, *layout)?;
        }
    }
    Ok(())
}

/// Sets a leaf from a checkpoint tensor; with `half`, one in half precision stays so, and one in fp8 becomes so, exactly.
pub(crate) fn set_tensor(exec: &mut dyn Executor, name: &str, t: &TensorView<'_>, half: bool) -> Result<()> {
    t.check_finite()?;
    let half = half && t.scale.is_empty();
    match t.dtype {
        DType::F8_E4M3 | DType::F8_E5M2 if half => {
            let words: Vec<u8> =
                t.to_f32().iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
            exec.set_leaf(name, LeafData::Half(Stored::F16, &words))
        }
        DType::F16 if half => exec.set_leaf(name, LeafData::Half(Stored::F16, t.bytes)),
        DType::BF16 if half => exec.set_leaf(name, LeafData::Half(Stored::BF16, t.bytes)),
        _ => exec.set_leaf(name, LeafData::F32(&t.to_f32())),
    }
}

/// Which nodes are weights that stay in half precision where the checkpoint holds them so.
pub fn keep_half(caps: &Caps, graph: &Graph) -> Vec<bool> {
    let plain = |op: &Op| matches!(op, Op::Leaf { kind: Leaf::Weight(Layout::Plain), .. });
    let only = only_weights(graph).into_iter().zip(graph.nodes());
    only.map(|(only, node)| caps.half_weights && only && plain(&node.op)).collect()
}

/// Which nodes are read, only as the second operand of matmuls, and have an even number of elements.
pub(crate) fn only_weights(g: &Graph) -> Vec<bool> {
    let mut uses = alloc::vec![(false, true); g.nodes().len()];
    for node in g.nodes() {
        for (i, x) in node.inputs.iter().enumerate() {
            let (used, only) = &mut uses[x.index()];
            *used = true;
            *only &= i == 1 && matches!(node.op, Op::Matmul { .. });
        }
    }
    let even = |i: usize| g.len(Id(i as u32)).is_multiple_of(2);
    uses.into_iter().enumerate().map(|(i, (used, only))| used && only && even(i)).collect()
}
