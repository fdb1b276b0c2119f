//! From a graph to commands: which nodes are live, in what order, with which kernel variant, and where each value lies.
//! Shapes are static, so a plan is made once and replayed; a run allocates nothing.
mod loops;
mod split;

use crate::caps::Caps;
use crate::fuse;
use crate::graph::{Graph, Id, Leaf, Op};
use crate::op;
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};
use pentimento_wgsl::kernel::{MatmulBody, Variant};
use pentimento_wgsl::{Binding, Class, Kernel, WeightType};

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
}

/// An argument of a command: a place and a number of f32 elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where.
    pub place: Place,
    /// Elements.
    pub len: usize,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Command {
    /// The kernel as built.
    pub variant: Variant,
    /// Words of the uniform block.
    pub params: Vec<u32>,
    /// Inputs in the kernel's order, then outputs.
    pub args: Vec<Slot>,
    /// Workgroups along x and y.
    pub groups: [u32; 2],
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
    /// Fuses, orders and places `outputs` of a graph for an adapter. `weight_type` tells how a weight is stored.
    ///
    /// # Errors
    /// A broken shape rule of the graph, or a tensor larger than the adapter's binding limit.
    pub fn new(
        mut graph: Graph,
        outputs: &[(&str, Id)],
        caps: &Caps,
        weight_type: &dyn Fn(&str) -> WeightType,
    ) -> Result<Plan> {
        graph.check()?;
        let ids: Vec<Id> = outputs.iter().map(|o| o.1).collect();
        fuse::fuse(&mut graph, &ids);
        Self::unfused(&graph, outputs, caps, weight_type)
    }
    /// As [`Plan::new`], one command per operation: what a fused plan is measured against.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn unfused(
        graph: &Graph,
        outputs: &[(&str, Id)],
        caps: &Caps,
        weight_type: &dyn Fn(&str) -> WeightType,
    ) -> Result<Plan> {
        graph.check()?;
        let ids: Vec<Id> = outputs.iter().map(|o| o.1).collect();
        Planner::new(graph, &ids, caps, weight_type).plan(outputs)
    }
    /// Bytes of the arena and the inputs together.
    pub fn bytes(&self) -> u64 {
        self.slabs.iter().sum::<u64>() + self.input_bytes
    }
}

struct Planner<'a> {
    g: &'a Graph,
    caps: &'a Caps,
    weight_type: &'a dyn Fn(&str) -> WeightType,
    live: Vec<bool>,
    /// Index of the last command that reads a value's storage; outputs live for ever.
    last: BTreeMap<Id, usize>,
    places: BTreeMap<Id, Place>,
    arena: Arena,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(g: &'a Graph, ids: &[Id], caps: &'a Caps, weight_type: &'a dyn Fn(&str) -> WeightType) -> Self {
        let mut live = fuse::live(g, ids);
        // A second output is written whether it is read or not; its parent must exist for it.
        let mut last = BTreeMap::new();
        for (i, n) in g.nodes().iter().enumerate() {
            if live[i] {
                last.extend(n.inputs.iter().map(|&x| (g.root(x), i)));
            }
        }
        last.extend(ids.iter().map(|&x| (g.root(x), usize::MAX)));
        live.iter_mut().zip(g.nodes()).for_each(|(l, n)| *l &= !matches!(n.op, Op::Reshape | Op::Detach));
        let arena = Arena::new(caps.alignment, caps.max_buffer);
        Planner { g, caps, weight_type, live, last, places: BTreeMap::new(), arena, plan: Plan::default() }
    }

    fn plan(mut self, outputs: &[(&str, Id)]) -> Result<Plan> {
        let seconds = self.seconds();
        for i in 0..self.g.nodes().len() {
            if self.live[i] {
                self.node(Id(i as u32), &seconds)?;
            }
        }
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
        let bytes = 4 * self.g.len(id) as u64;
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
        let inputs: Vec<Slot> = lowered.inputs.iter().map(|&x| self.slot(x)).collect();
        let variant = loops::bounded(self.variant(&lowered, &inputs), &lowered.params, self.caps)?;
        let mut args = inputs;
        args.push(self.alloc(id));
        if lowered.kernel.outputs() == 2 {
            args.push(match seconds.get(&id) {
                Some(&second) => self.alloc(second),
                None => self.scratch(second_len(self.g, id)),
            });
        }
        self.plan.flops += lowered.flops;
        let whole = Command {
            variant,
            params: lowered.params,
            args,
            groups: [1, 1],
            flops: lowered.flops,
            shape: node.shape.clone(),
        };
        for (mut command, work) in self.fitting(whole, lowered.work)? {
            command.groups = groups(&variant, &command.params, work, self.caps)?;
            self.plan.commands.push(command);
        }
        self.release(id.index());
        Ok(())
    }

    /// A command, or pieces of it where its arguments exceed a binding; each with its work.
    fn fitting(&self, whole: Command, work: usize) -> Result<Vec<(Command, usize)>> {
        let kinds = whole.variant.bindings();
        let bytes = |(slot, (_, kind)): (&Slot, &(u32, Binding))| match kind {
            Binding::Storage => 4 * slot.len as u64,
            Binding::Packed => 2 * slot.len as u64,
            Binding::Texture => 0,
        };
        let bytes: Vec<u64> = whole.args.iter().zip(&kinds).map(bytes).collect();
        let largest = bytes.iter().copied().max().unwrap_or(0);
        if largest <= self.caps.max_binding {
            return Ok(vec![(whole, work)]);
        }
        let bounds = split::Bounds { binding: self.caps.max_binding, alignment: self.caps.alignment };
        let pieces = split::split(&whole, work, &bytes, &bounds);
        pieces.ok_or_else(|| {
            let name = whole.variant.entry();
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
            let size = (4 * len as u64).max(16).next_multiple_of(self.caps.alignment);
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
        let place = self.places.get(&self.g.root(id)).copied().unwrap_or(Place::Absent);
        Slot { place, len: self.g.len(id) }
    }
    fn alloc(&mut self, id: Id) -> Slot {
        let len = self.g.len(id);
        let (slab, offset) = self.arena.take(4 * len as u64);
        let place = Place::Arena { slab, offset };
        self.places.insert(id, place);
        self.last.entry(id).or_insert_with(|| id.index()); // written, never read
        Slot { place, len }
    }
    /// Room for an output nobody reads, free again after the command.
    fn scratch(&mut self, len: usize) -> Slot {
        let (slab, offset) = self.arena.take(4 * len as u64);
        self.arena.give(slab, offset, 4 * len as u64);
        Slot { place: Place::Arena { slab, offset }, len }
    }
    /// Frees what no later command reads.
    fn release(&mut self, now: usize) {
        let done: Vec<Id> = self.last.iter().filter(|&(_, &l)| l <= now).map(|(&id, _)| id).collect();
        for id in done {
            self.last.remove(&id);
            if let Some(&Place::Arena { slab, offset }) = self.places.get(&id) {
                self.arena.give(slab, offset, 4 * self.g.len(id) as u64);
            }
        }
    }

    fn variant(&self, lowered: &op::Lowered, inputs: &[Slot]) -> Variant {
        let mut v = Variant::plain(lowered.kernel, self.caps.class);
        let p = &lowered.params;
        let software = self.caps.class == Class::Software;
        let stageable =
            |s: &Slot| s.len.div_ceil(4096) <= self.caps.texture_rows as usize && s.len.is_multiple_of(4);
        match lowered.kernel {
            Kernel::Matmul => {
                let weight = match inputs[1].place {
                    Place::Leaf(i) => (self.weight_type)(&self.plan.leaves[i].name),
                    _ => WeightType::F32,
                };
                v.weight = weight;
                let (m, n, k) = (p[0], p[1], p[2]);
                let (a_t, b_t) =
                    (p[4] != 1 || (p[3] == 1 && m > 1 && k > 1), p[5] == 1 && (n > 1 && k > 1 || p[6] != 1));
                let texels =
                    software && weight == WeightType::F32 && stageable(&inputs[0]) && stageable(&inputs[1]);
                v.body = match (a_t, b_t) {
                    (false, true) if texels && k.is_multiple_of(4) => MatmulBody::TextureNt,
                    (false, false) if texels && k.is_multiple_of(4) && n.is_multiple_of(4) => {
                        MatmulBody::TextureNn
                    }
                    (true, false) if texels && m.is_multiple_of(4) && n.is_multiple_of(4) => {
                        MatmulBody::TextureTn
                    }
                    _ if software => MatmulBody::Naive,
                    _ => MatmulBody::Tile,
                };
            }
            Kernel::Attention | Kernel::AttentionDq | Kernel::AttentionDkv => {
                v.head = (inputs[0].len as u32) / (p[0] * p[1] * p[2]).max(1);
                v.textures = software && inputs[..3].iter().all(stageable);
            }
            Kernel::Conv2d | Kernel::Conv2dDx => {
                v.textures = software && inputs[..2].iter().all(stageable);
            }
            _ => {}
        }
        v
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

/// Workgroups of a command, folded over x and y.
fn groups(v: &Variant, p: &[u32], work: usize, caps: &Caps) -> Result<[u32; 2]> {
    let up = |n: usize, d: u32| n.div_ceil(d.max(1) as usize);
    let count = match v.kernel {
        Kernel::Matmul => {
            let (m, n) = (p[0] as usize, p[1] as usize);
            match v.body {
                MatmulBody::Naive => up(m * n, v.workgroup()),
                MatmulBody::Tile => up(m, 64) * up(n, 64),
                _ => up(up(m, 12) * up(n, 16), v.workgroup()),
            }
        }
        Kernel::Attention | Kernel::AttentionDq => {
            up((p[0] * p[1]) as usize * up(p[2] as usize, v.queries()), v.workgroup())
        }
        Kernel::AttentionDkv => up((p[0] * p[1]) as usize * up(p[3] as usize, v.queries()), v.workgroup()),
        k if k.by_row() && v.class == Class::Gpu => work,
        _ => up(work, v.workgroup()),
    };
    let x = count.min(32768.min(caps.max_groups as usize)).max(1);
    let y = count.div_ceil(x).max(1);
    match (u32::try_from(x), u32::try_from(y)) {
        (Ok(x), Ok(y)) if y <= caps.max_groups => Ok([x, y]),
        _ => Err(Error::Device {
            device: caps.name.clone(),
            reason: format!(
                "{count} workgroups of {:?} do not fit one dispatch; use a smaller batch",
                v.kernel
            ),
        }),
    }
}

/// First-fit allocator over slabs no larger than one buffer.
struct Arena {
    alignment: u64,
    limit: u64,
    slabs: Vec<u64>,
    /// (slab, offset, size), sorted, never adjacent.
    free: Vec<(usize, u64, u64)>,
}

impl Arena {
    fn new(alignment: u64, limit: u64) -> Self {
        Arena { alignment: alignment.max(16), limit, slabs: vec![0], free: Vec::new() }
    }
    fn size(&self, bytes: u64) -> u64 {
        bytes.max(16).next_multiple_of(self.alignment)
    }
    fn take(&mut self, bytes: u64) -> (usize, u64) {
        let size = self.size(bytes);
        if let Some(i) = self.free.iter().position(|f| f.2 >= size) {
            let (slab, offset, room) = self.free[i];
            if room == size {
                self.free.remove(i);
            } else {
                self.free[i] = (slab, offset + size, room - size);
            }
            return (slab, offset);
        }
        // Grow the last slab, reusing a free range at its end.
        let slab = self.slabs.len() - 1;
        let end = self.slabs[slab];
        let tail = self.free.iter().position(|f| f.0 == slab && f.1 + f.2 == end);
        let offset = tail.map_or(end, |i| self.free[i].1);
        if offset + size <= self.limit || offset == 0 {
            if let Some(i) = tail {
                self.free.remove(i);
            }
            self.slabs[slab] = offset + size;
            return (slab, offset);
        }
        self.slabs.push(size);
        (slab + 1, 0)
    }
    fn give(&mut self, slab: usize, offset: u64, bytes: u64) {
        let size = self.size(bytes);
        let at = self.free.partition_point(|f| (f.0, f.1) < (slab, offset));
        self.free.insert(at, (slab, offset, size));
        if at + 1 < self.free.len() && self.free[at + 1].0 == slab && self.free[at + 1].1 == offset + size {
            self.free[at].2 += self.free[at + 1].2;
            self.free.remove(at + 1);
        }
        if at > 0 && self.free[at - 1].0 == slab && self.free[at - 1].1 + self.free[at - 1].2 == offset {
            self.free[at - 1].2 += self.free[at].2;
            self.free.remove(at);
        }
    }
}

/// Checks that no command writes where it reads or where a later reader still needs the old value.
///
/// # Errors
/// [`Error::Graph`] naming the command. `wgpu` accepts overlapping `read_write` bindings, so this is ours to prove.
pub fn check_overlap(plan: &Plan) -> Result<()> {
    let range = |s: &Slot| match s.place {
        Place::Arena { slab, offset } => Some((slab, offset, offset + 4 * s.len as u64)),
        _ => None,
    };
    for (i, c) in plan.commands.iter().enumerate() {
        let split = c.args.len() - c.variant.kernel.outputs();
        for out in &c.args[split..] {
            let Some((slab, start, end)) = range(out) else {
                return Err(Error::Graph(format!("command {i} writes outside the arena")));
            };
            let hit = |s: &Slot| range(s).is_some_and(|(b, from, to)| b == slab && from < end && start < to);
            if c.args[..split].iter().any(hit) {
                return Err(Error::Graph(format!(
                    "command {i} ({:?}) writes over its own input",
                    c.variant.kernel
                )));
            }
            if plan.slabs.get(slab).is_none_or(|&size| end > size) {
                return Err(Error::Graph(format!("command {i} writes past the end of slab {slab}")));
            }
        }
    }
    Ok(())
}
