//! From a graph to commands: which nodes are live, in what order, with which kernel variant, and where each value lies.
//! Shapes are static, so a plan is made once and replayed; a run allocates nothing.
mod arena;
mod check;
mod choose;
mod dispatch;
mod order;
mod parted;
mod split;
mod together;
mod unpack;
mod view;

use crate::caps::Caps;
use crate::fuse;
use crate::graph::{Graph, Id, Leaf, Op};
use crate::op::{self, Lowered};
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};
use arena::Arena;
pub use check::check_overlap;
use pentimento_wgsl::kernel::Operand;
use pentimento_wgsl::{Call, Class, Stored, Variant};
use together::Open;
use view::Views;

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An optional operand that is not there.
    Absent,
    /// In slab `slab` of the plan's arena, at a byte offset.
    Arena {
        /// Slab index.
        slab: usize,
        /// Byte offset.
        offset: u64,
    },
    /// In the plan's input buffer, at a byte offset.
    Input(u64),
    /// Entry of [`Plan::leaves`].
    Leaf(usize),
    /// The plan's room for one unpacked weight in f16, see [`Plan::unpacked`].
    Unpacked,
}

impl Place {
    /// How numbers lie there; `leaf` tells it of [`Plan::leaves`].
    pub fn stored(self, leaf: impl FnOnce(usize) -> Stored) -> Stored {
        match self {
            Place::Leaf(i) => leaf(i),
            Place::Unpacked => Stored::F16,
            Place::Absent | Place::Arena { .. } | Place::Input(_) => Stored::F32,
        }
    }
}

/// An argument of a command: a place and a number of f32 elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where.
    pub place: Place,
    /// Elements.
    pub len: usize,
}

/// One call of a kernel.
#[derive(Clone, Debug)]
pub struct Command {
    /// The kernel with its parameters.
    pub call: Call,
    /// The kernel as built.
    pub variant: Variant,
    /// Inputs in the kernel's order, then outputs.
    pub args: Vec<Slot>,
    /// Workgroups along x and y, of all commands that are dispatched with it.
    pub groups: [u32; 2],
    /// The first workgroup, where a dispatch of other commands begins the same work. Where commands share a dispatch, the workgroups of
    /// those before it, subtracted from zero.
    pub first: u32,
    /// Commands of its dispatch, from this one on: more than one for several of the same variant that do not depend on each other; 0
    /// for those that an earlier one's dispatch runs.
    pub together: u32,
    /// Whether the results are there afterwards, or another command goes on with the same work.
    pub last: bool,
    /// Floating-point operations, for cutting work into submits.
    pub flops: u64,
    /// Shape of the graph's value that this computes, or a part of which where it was cut to fit bindings.
    pub shape: Vec<usize>,
}

/// A tensor shared by plans: a weight or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafInfo {
    /// Name, component first.
    pub name: String,
    /// Weight or parameter.
    pub kind: Leaf,
    /// Device shape.
    pub shape: Vec<usize>,
}

/// A named value of a plan.
#[derive(Clone, Debug)]
pub struct Named {
    /// Name.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Where it lies.
    pub slot: Slot,
}

/// Commands and memory of one computation.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// In order of execution.
    pub commands: Vec<Command>,
    /// Sizes of the arena's slabs, bytes.
    pub slabs: Vec<u64>,
    /// Size of the input buffer, bytes.
    pub input_bytes: u64,
    /// Bytes of the largest quantised weight that is written out in f16 before a product reads it.
    pub unpacked: u64,
    /// Values set before a run.
    pub inputs: Vec<Named>,
    /// Values readable after a run.
    pub outputs: Vec<Named>,
    /// Shared tensors.
    pub leaves: Vec<LeafInfo>,
    /// Sum over the commands.
    pub flops: u64,
}

impl Plan {
    /// Fuses, orders and places `outputs` of a graph for an adapter. `stored` tells how a weight is stored.
    ///
    /// # Errors
    /// A broken shape rule of the graph, or a tensor larger than the adapter's binding limit.
    pub fn new(
        mut graph: Graph,
        outputs: &[(&str, Id)],
        caps: &Caps,
        stored: &dyn Fn(&str) -> Stored,
    ) -> Result<Plan> {
        graph.check()?;
        let ids: Vec<Id> = outputs.iter().map(|o| o.1).collect();
        fuse::fuse(&mut graph, &ids, caps.class == Class::Gpu);
        Self::unfused(&graph, outputs, caps, stored)
    }
    /// As [`Plan::new`], one command per operation: what a fused plan is measured against.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn unfused(
        graph: &Graph,
        outputs: &[(&str, Id)],
        caps: &Caps,
        stored: &dyn Fn(&str) -> Stored,
    ) -> Result<Plan> {
        graph.check()?;
        let ids: Vec<Id> = outputs.iter().map(|o| o.1).collect();
        Planner::new(graph, &ids, caps, stored).plan(outputs)
    }
    /// Dispatches of a run.
    pub fn dispatches(&self) -> usize {
        self.commands.iter().filter(|c| c.together > 0).count()
    }
    /// Bytes of the arena, the inputs and the unpacked weight together.
    pub fn bytes(&self) -> u64 {
        self.slabs.iter().sum::<u64>() + self.input_bytes + self.unpacked
    }
}

struct Planner<'a> {
    g: &'a Graph,
    caps: &'a Caps,
    stored: &'a dyn Fn(&str) -> Stored,
    views: Views,
    live: Vec<bool>,
    /// Nodes in the order of their commands.
    order: Vec<Id>,
    /// Place in that order.
    now: usize,
    /// The last place where a value's storage is read; outputs live for ever.
    last: BTreeMap<Id, usize>,
    places: BTreeMap<Id, Place>,
    arena: Arena,
    open: Open,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(g: &'a Graph, ids: &[Id], caps: &'a Caps, stored: &'a dyn Fn(&str) -> Stored) -> Self {
        let mut live = fuse::live(g, ids);
        let views = Views::new(g, caps);
        live.iter_mut().enumerate().for_each(|(i, l)| *l &= !views.is_view(g, Id(i as u32)));
        let arena = Arena::new(caps.alignment, caps.max_buffer);
        let (places, last) = (BTreeMap::new(), BTreeMap::new());
        let (order, open, plan) = (Vec::new(), Open::default(), Plan::default());
        let mut planner =
            Planner { g, caps, stored, views, live, order, now: 0, last, places, arena, open, plan };
        planner.order = planner.ordered();
        // A second output is written whether it is read or not; its parent must exist for it.
        for (at, &id) in planner.order.iter().enumerate() {
            let inputs = &g.node(id).inputs;
            planner.last.extend(inputs.iter().map(|&x| (planner.views.storage(g, x).0, at)));
        }
        planner.last.extend(ids.iter().map(|&x| (planner.views.storage(g, x).0, usize::MAX)));
        planner
    }

    fn plan(mut self, outputs: &[(&str, Id)]) -> Result<Plan> {
        let seconds = self.seconds();
        for at in 0..self.order.len() {
            self.now = at;
            self.node(self.order[at], &seconds)?;
        }
        self.close()?;
        for (name, id) in outputs {
            let slot = self.slot(Some(*id));
            let shape = self.g.shape(*id).to_vec();
            self.plan.outputs.push(Named { name: (*name).into(), shape, slot });
        }
        self.plan.slabs = self.arena.slabs;
        Ok(self.plan)
    }

    /// Two-output nodes whose second output is read: parent -> that node.
    fn seconds(&self) -> BTreeMap<Id, Id> {
        let seconds = self.g.nodes().iter().enumerate().filter(|(i, n)| self.live[*i] && n.op == Op::Second);
        seconds.map(|(i, n)| (n.inputs[0], Id(i as u32))).collect()
    }

    fn node(&mut self, id: Id, seconds: &BTreeMap<Id, Id>) -> Result<()> {
        let node = self.g.node(id);
        let bytes = Stored::F32.bytes(self.g.len(id)) as u64;
        if bytes == 0 {
            return Err(Error::Graph(format!(
                "a tensor of shape {:?} has no elements ({:?}); plans hold non-empty tensors only, so leave an empty batch out",
                node.shape, node.op
            )));
        }
        if bytes > self.caps.max_buffer {
            return Err(self.too_large(&node.shape, bytes, "buffer", self.caps.max_buffer));
        }
        if let Op::Leaf { kind, name } = &node.op {
            let place = self.leaf(*kind, name, &node.shape);
            self.places.insert(id, place);
            return Ok(());
        }
        let Some(lowered) = op::lower(self.g, id) else { return Ok(()) };
        let mut inputs: Vec<Slot> = lowered.inputs.iter().map(|&x| self.slot(x)).collect();
        let mut operands = self.operands(&lowered);
        let unpacked = self.unpack(&lowered.call, &mut inputs, &mut operands, node.exact)?;
        let variant = choose::body(&lowered.call, &operands, self.caps, node.exact)?;
        if !unpacked && !self.joins(id, &variant, &inputs) {
            self.close()?;
        }
        let mut args = inputs;
        args.push(self.alloc(id));
        if variant.outputs() == 2 {
            args.push(match seconds.get(&id) {
                Some(&second) => self.alloc(second),
                None => self.scratch(second_len(self.g, id)),
            });
        }
        self.plan.flops += lowered.flops;
        let shape = node.shape.clone();
        let whole = Command { args, shape, ..Command::new(lowered.call, variant, lowered.flops) };
        match self.parted(&whole)? {
            Some([first, second]) => self.open.add(vec![first], Some(second)),
            None => {
                let pieces = self.fitting(whole)?;
                self.open.add(pieces, None);
            }
        }
        self.open.until = self.now;
        Ok(())
    }

    /// The inputs as the choice of a body sees them. Only the second operand of a matmul may be packed (`exec::only_weights`).
    fn operands(&self, lowered: &Lowered) -> Vec<Operand> {
        let leaf = |x: Id| match &self.g.node(self.views.storage(self.g, x).0).op {
            Op::Leaf { kind, name } if *kind != Leaf::Input => Some((*kind, name)),
            _ => None,
        };
        let operand = |(index, input): (usize, &Option<Id>)| {
            let leaf = input.and_then(leaf);
            let stored = match (&lowered.call, index, leaf) {
                (Call::Matmul(_), 1, Some((_, name))) => (self.stored)(name),
                _ => Stored::F32,
            };
            let frozen = matches!(leaf, Some((Leaf::Weight(_), _)));
            Operand { len: input.map_or(0, |x| self.g.len(x)), stored, frozen }
        };
        lowered.inputs.iter().enumerate().map(operand).collect()
    }

    /// A command, or pieces of it where its arguments exceed a binding.
    fn fitting(&self, whole: Command) -> Result<Vec<Command>> {
        let kinds = whole.variant.bindings();
        let bytes = whole.args.iter().zip(&kinds).map(|(slot, (_, kind))| kind.bytes(slot.len) as u64);
        let bytes: Vec<u64> = bytes.collect();
        let largest = bytes.iter().copied().max().unwrap_or(0);
        if largest <= self.caps.max_binding {
            return Ok(vec![whole]);
        }
        split::split(&whole, &bytes, self.caps).ok_or_else(|| {
            let name = whole.call.kernel();
            self.too_large(&whole.shape, largest, &format!("binding of {name}"), self.caps.max_binding)
        })
    }

    fn too_large(&self, shape: &[usize], bytes: u64, what: &str, most: u64) -> Error {
        Error::Device {
            device: self.caps.name.clone(),
            reason: format!(
                "a tensor beside {shape:?} needs {bytes} bytes, a {what} holds {most}; use a smaller batch or resolution"
            ),
        }
    }

    fn leaf(&mut self, kind: Leaf, name: &str, shape: &[usize]) -> Place {
        let len: usize = shape.iter().product();
        if kind == Leaf::Input {
            let offset = self.plan.input_bytes;
            let size = (Stored::F32.bytes(len) as u64).max(16).next_multiple_of(self.caps.alignment);
            self.plan.input_bytes += size;
            let slot = Slot { place: Place::Input(offset), len };
            self.plan.inputs.push(Named { name: name.into(), shape: shape.into(), slot });
            return slot.place;
        }
        self.plan.leaves.push(LeafInfo { name: name.into(), kind, shape: shape.into() });
        Place::Leaf(self.plan.leaves.len() - 1)
    }

    fn slot(&self, id: Option<Id>) -> Slot {
        let Some(id) = id else { return Slot { place: Place::Absent, len: 0 } };
        let (owner, from) = self.views.storage(self.g, id);
        let place = match self.places.get(&owner).copied().unwrap_or(Place::Absent) {
            Place::Arena { slab, offset } => Place::Arena { slab, offset: offset + from },
            place => place,
        };
        Slot { place, len: self.g.len(id) }
    }
    fn alloc(&mut self, id: Id) -> Slot {
        let len = self.g.len(id);
        let (slab, offset) = self.arena.take(Stored::F32.bytes(len) as u64);
        let place = Place::Arena { slab, offset };
        self.places.insert(id, place);
        self.last.entry(id).or_insert(self.now); // written, never read
        Slot { place, len }
    }
    /// Room for what nobody reads later, free again when the open commands are closed.
    fn scratch(&mut self, len: usize) -> Slot {
        let bytes = Stored::F32.bytes(len) as u64;
        let (slab, offset) = self.arena.take(bytes);
        self.open.scratch.push((slab, offset, bytes));
        Slot { place: Place::Arena { slab, offset }, len }
    }
    /// Frees what no later command reads.
    fn release(&mut self, now: usize) {
        let done: Vec<Id> = self.last.iter().filter(|&(_, &l)| l <= now).map(|(&id, _)| id).collect();
        for id in done {
            self.last.remove(&id);
            if let Some(&Place::Arena { slab, offset }) = self.places.get(&id) {
                self.arena.give(slab, offset, Stored::F32.bytes(self.g.len(id)) as u64);
            }
        }
    }
}

/// Elements of the second output of a two-output node.
fn second_len(g: &Graph, id: Id) -> usize {
    let node = g.node(id);
    match node.op {
        Op::Attention { heads, .. } => node.shape[0] * heads * node.shape[1],
        _ => g.len(id),
    }
}
