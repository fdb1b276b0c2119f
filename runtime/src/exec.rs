//! Executors run plans: `cpu` with the twins (the truth), `null` counts, `wgpu` on an adapter (the product).
mod checkpoint;
pub mod cpu;
mod leaf;
#[cfg(feature = "wgpu")]
mod limit;
mod memory;
pub mod null;
mod operands;
mod plans;
pub mod share;
mod stream;
mod texels;
mod trace;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub(crate) use checkpoint::set_tensor;
pub use leaf::{Need, needs};
pub use memory::{Kinds, Memory};
pub use operands::operands;
pub use trace::{finite, wild};

use crate::Result;
use crate::caps::Caps;
use crate::graph::{Graph, Id, Layout, Leaf, Node, Op};
use crate::plan::{Plan, Slot};
use crate::weights::{Base, Shared, Weights};
use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::Plain;

/// A prepared plan of one executor. No other plan ever gets the same id, so one that was forgotten stays an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlanId(pub(crate) usize);

/// Contents of a weight or parameter.
#[derive(Clone, Copy, Debug)]
pub enum LeafData<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Half-precision words or blocks of quantised numbers as in a file.
    Packed(Stored, &'a [u8]),
}

/// Where the numbers of a leaf are while no command reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the device's memory.
    Device,
    /// In the host's, from where they come to the device whenever a plan that reads them runs.
    Host,
}

/// Prefix of outputs that tell whether numbers that do not come out were finite, see [`Executor::read`].
pub const FINITE: &str = "finite/";

/// Runs plans. Weights and parameters are shared by all plans of an executor; inputs belong to one plan and keep their values between
/// runs. What a plan computes lies in memory that the plans share, too: it has to be read before another plan is prepared or runs, and a
/// plan that another one has interrupted begins anew.
pub trait Executor {
    /// What the planner may use.
    fn caps(&self) -> &Caps;
    /// The executor itself, for what only one kind of them can do; `None` where that is nothing.
    fn as_any(&mut self) -> Option<&mut dyn core::any::Any> {
        None
    }
    /// True when a weight or parameter of that name has been set.
    fn has_leaf(&self, name: &str) -> bool;
    /// How a leaf is stored; F32 for unknown ones.
    fn stored(&self, name: &str) -> Stored;
    /// Creates or overwrites a weight or parameter.
    ///
    /// # Errors
    /// Out of memory, or another length than before.
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()>;
    /// Tells of a leaf of `len` numbers that is about to be set. True where its size is all that the executor wants, so that nobody needs
    /// to read the numbers; it then counts as set.
    ///
    /// # Errors
    /// As [`Executor::set_leaf`].
    fn declare(&mut self, _name: &str, _stored: Stored, _len: usize, _home: Home) -> Result<bool> {
        Ok(false)
    }
    /// Creates a weight of `len` numbers that stays on the host. `bytes` are its numbers as they lie on a device
    /// ([`Stored::to_device`]). Results are those of [`Executor::set_leaf`], bit for bit; an executor of the host's does the same.
    ///
    /// # Errors
    /// As [`Executor::set_leaf`]; a file that was changed.
    fn set_streamed(&mut self, name: &str, stored: Stored, len: usize, bytes: Shared) -> Result<()> {
        let bytes = bytes.bytes().ok_or_else(|| checkpoint::changed(name))?;
        self.set_leaf(name, LeafData::Packed(stored, &stored.to_file(bytes, len)))
    }
    /// Bytes that are held and were held.
    fn memory(&self) -> Memory;
    /// Floating-point operations of all commands so far, on an executor that counts them.
    fn work(&self) -> u64 {
        0
    }
    /// Bytes of weights that came from the host because they stay there, in all runs so far.
    fn streamed(&self) -> u64 {
        0
    }
    /// Bytes on the device of the weights and parameters of every component: what their names begin with, up to the first `/`.
    fn components(&self) -> BTreeMap<String, u64>;
    /// Frees what belongs to a plan, and what of the shared memory only it needed.
    ///
    /// # Errors
    /// One that was forgotten before, or the device failed.
    fn forget(&mut self, plan: PlanId) -> Result<()>;
    /// Frees the weights and parameters whose names begin with `prefix`.
    ///
    /// # Errors
    /// A plan that reads one of them, which then all stay; or the device failed.
    fn forget_leaves(&mut self, prefix: &str) -> Result<()>;
    /// Takes a plan whose leaves have all been set.
    ///
    /// # Errors
    /// A leaf that was not set, a plan whose commands are in each other's way, or out of memory.
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
    /// Unknown name, a plan that has not run or after which another one was prepared or ran, or the device failed.
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>>;
    /// [`Executor::peek`] for several outputs, which a device brings back together.
    ///
    /// # Errors
    /// As [`Executor::peek`].
    fn peek_all(&mut self, plan: PlanId, outputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        outputs.iter().map(|output| self.peek(plan, output)).collect()
    }
    /// A plan as it was prepared; an empty one in place of one that was forgotten.
    fn plan(&self, plan: PlanId) -> &Plan;
    /// The numbers of an argument of the command that ran last.
    ///
    /// # Errors
    /// As [`Executor::peek`].
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
        let all = self.read_all(plan, &[output])?;
        Ok(all.into_iter().next().unwrap_or_default())
    }

    /// [`Executor::read`] for several outputs, which a device brings back together.
    ///
    /// # Errors
    /// As [`Executor::read`].
    fn read_all(&mut self, plan: PlanId, outputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        let flags: Vec<String> = outputs.iter().map(|output| format!("{FINITE}{output}")).collect();
        let there = |flag: &&String| self.plan(plan).outputs.iter().any(|o| o.name == **flag);
        let flags: Vec<&str> = flags.iter().filter(there).map(String::as_str).collect();
        let names: Vec<&str> = flags.iter().chain(outputs).copied().collect();
        let mut all = self.peek_all(plan, &names)?;
        for (name, data) in names.iter().zip(&all) {
            trace::accept(self, plan, name.strip_prefix(FINITE).unwrap_or(name), data)?;
        }
        Ok(all.split_off(flags.len()))
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
/// component. The checkpoint's name is the leaf's without the prefix. Matrices in half precision or in blocks stay as they are where the
/// executor can keep them, and those in fp8 become f16; everything else, scaled tensors too, becomes f32, so that no
/// number is rounded.
///
/// # Errors
/// A missing or mis-shaped tensor; out of memory.
pub fn upload(exec: &mut dyn Executor, graph: &Graph, prefix: &str, weights: &Weights) -> Result<()> {
    let way = Way { base: &|_| None, home: &|_| Home::Device };
    upload_as(exec, graph, prefix, weights, &way)
}

/// What becomes of a checkpoint's weights, by the names of their leaves.
pub struct Way<'a> {
    /// What matrices are quantised to on the way, if their rows are whole blocks.
    pub base: &'a dyn Fn(&str) -> Option<Base>,
    /// Where they and the weights of convolutions stay.
    pub home: &'a dyn Fn(&str) -> Home,
}

/// As [`upload`], with a say in what becomes of matrices. All else is on the device.
///
/// # Errors
/// As [`upload`].
pub fn upload_as(
    exec: &mut dyn Executor,
    graph: &Graph,
    prefix: &str,
    weights: &Weights,
    way: &Way<'_>,
) -> Result<()> {
    for (node, packs) in graph.nodes().iter().zip(packable(graph)) {
        let Op::Leaf { kind: Leaf::Weight(layout), name } = &node.op else { continue };
        let Some(leaf) = name.strip_prefix(prefix).filter(|_| !exec.has_leaf(name)) else { continue };
        let t = leaf::find(weights, leaf, &node.shape, *layout)?;
        let base = (way.base)(name).filter(|b| packs && keeps(exec.caps(), &node.shape, b.stored()));
        let large = packs || matches!(layout, Layout::Conv | Layout::Patch);
        let home = if large { (way.home)(name) } else { Home::Device };
        if packs && base.is_none() {
            let file = (home == Home::Host).then_some(weights);
            checkpoint::set(exec, name, &t, true, file)?;
            continue;
        }
        let (stored, len) = (base.map_or(Stored::F32, Base::stored), node.shape.iter().product());
        if exec.declare(name, stored, len, home)? {
            continue;
        }
        let values = leaf::values(&t, &node.shape, *layout)?;
        if wild(&values).is_some() {
            t.check_finite()?;
        }
        match base {
            Some(base) => checkpoint::bytes(exec, name, (stored, len), base.quantise(&values)?, home)?,
            None => checkpoint::floats(exec, name, &values, home)?,
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

/// Whether a matrix of this shape is kept so, or else as f32: halves where the device reads them fast, blocks where rows are made of whole
/// ones.
pub fn keeps(caps: &Caps, shape: &[usize], stored: Stored) -> bool {
    match stored.plain() {
        Some(Plain::F32) => true,
        Some(Plain::F16 | Plain::BF16) => caps.half_weights,
        None => shape.last().is_some_and(|row| row.is_multiple_of(stored.block().0)),
    }
}

/// How each node would be kept, were the checkpoint stored so.
pub fn kept(caps: &Caps, graph: &Graph, stored: &dyn Fn(&str) -> Stored) -> Vec<Stored> {
    let nodes = graph.nodes().iter().zip(packable(graph));
    let one = |(node, packs): (&Node, bool)| match &node.op {
        Op::Leaf { name, .. } if packs => {
            let stored = stored(name);
            if keeps(caps, &node.shape, stored) { stored } else { Stored::F32 }
        }
        _ => Stored::F32,
    };
    nodes.map(one).collect()
}

/// Which nodes are weights that kernels read in other forms than f32.
fn packable(graph: &Graph) -> Vec<bool> {
    let plain = |op: &Op| matches!(op, Op::Leaf { kind: Leaf::Weight(Layout::Plain), .. });
    let only = only_weights(graph).into_iter().zip(graph.nodes());
    only.map(|(only, node)| only && plain(&node.op)).collect()
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
