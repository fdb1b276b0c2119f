//! Runs plans on an adapter through wgpu: the product. `wgpu` is named in this file and its parts only.
mod adapters;
mod adopt;
mod bisect;
mod cache;
#[cfg(not(target_vendor = "apple"))]
mod deliver;
mod device;
mod executor;
mod fault;
mod flight;
mod pace;
mod pipelines;
mod profile;
mod rooms;
mod selftest;
mod short;
mod stage;
mod stream;
mod trial;
#[cfg(not(target_vendor = "apple"))]
mod vulkan;
#[cfg(not(target_vendor = "apple"))]
mod vulkan_needs;

pub use adapters::{AdapterInfo, Limits, adapter_index, adapters, adapters_within};
pub use adopt::{QueueLock, unsupported};
pub use bisect::{Checked, Difference, Follow, Note};
pub use cache::{Load, MOST as MOST_CACHED, PipelineCache};
#[cfg(not(target_vendor = "apple"))]
pub use deliver::{Semaphore, Target, To};
pub use device::{Options, Wgpu};
pub use fault::Fault;
use fault::device_error;
pub use pace::{Hurry, Pace, Used};
pub use profile::{Clock, Peaks, Profile, Spent, Time};
pub use selftest::Tested;
#[cfg(not(target_vendor = "apple"))]
pub use vulkan::Handles;
#[cfg(not(target_vendor = "apple"))]
pub use vulkan_needs::{MATRIX, Need, NeedKind, needs};

use super::memory;
use super::plans::Held;
use super::{PlanId, kept};
use crate::graph::{Graph, Leaf, Op};
use crate::plan::{Command, Place, Plan, Slot};
use crate::room::copied;
use crate::weights::Shared;
use crate::{Error, Result};
use alloc::{borrow::ToOwned, collections::VecDeque, format, vec::Vec};
use pentimento_wgsl::{Binding, Stored};
use pipelines::Key;
use stage::{Copy, Stage};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

/// A weight or parameter on the device.
pub(super) struct LeafBuffer {
    kind: Stored,
    len: usize,
    numbers: Numbers,
}

/// Where its numbers are.
pub(super) enum Numbers {
    Device {
        buffer: wgpu::Buffer,
        /// The same numbers as texels, made when a plan first wants them so.
        texture: OnceLock<wgpu::Texture>,
    },
    /// On the host, as they lie on the device; see `stream.rs`.
    Host(Shared),
}

/// What a plan has of its own; pipelines and bind groups are added by its first run.
pub(super) struct Prepared {
    inputs: wgpu::Buffer,
    /// Of the first commands, as many as a run has come to.
    steps: Vec<Step>,
    uniforms: wgpu::Buffer,
    /// Where the next step's uniform block begins, and the textures that the steps so far leave.
    next: (u64, Stage),
    /// Work submitted since the last wait, and when it began.
    pending: (u64, Option<Instant>),
    /// Nanoseconds that each command took, as far as a paced run has told; 0 elsewhere.
    took: Vec<f32>,
}

impl Held<Prepared> {
    /// Drops all that a run has made, to be made again by the next; returns the bytes of its textures.
    fn strip(&mut self) -> u64 {
        self.cursor = 0;
        self.own.steps.clear();
        core::mem::take(&mut self.own.next).1.bytes()
    }
}

struct Step {
    /// None where the dispatch of a command before it runs it.
    pipeline: Option<wgpu::ComputePipeline>,
    /// Of each command of the dispatch.
    bind_groups: Vec<wgpu::BindGroup>,
    copies: Vec<Copy>,
    groups: [u32; 2],
    flops: u64,
}

impl Wgpu {
    /// Makes room for a weight or parameter of `len` numbers, all zeros until it is set. Does nothing when it is there.
    ///
    /// # Errors
    /// Out of memory.
    pub fn declare_leaf(&mut self, name: &str, kind: Stored, len: usize) -> Result<()> {
        if !self.leaves.contains_key(name) {
            let bytes = memory::leaf(kind, len);
            let buffer = self.room(name, bytes, kind.packed())?;
            self.count(|k| k.leaves += bytes);
            let numbers = Numbers::Device { buffer, texture: OnceLock::new() };
            self.leaves.insert(name.to_owned(), LeafBuffer { kind, len, numbers });
        }
        Ok(())
    }

    /// Makes room for every leaf of a graph as a checkpoint would fill it whose tensors are stored so; for checks of a whole
    /// plan without the checkpoint.
    ///
    /// # Errors
    /// Out of memory.
    pub fn declare_leaves(&mut self, graph: &Graph, stored: &dyn Fn(&str) -> Stored) -> Result<()> {
        for (node, stored) in graph.nodes().iter().zip(kept(&self.caps, graph, stored)) {
            let Op::Leaf { kind: Leaf::Weight(_) | Leaf::Param, name } = &node.op else { continue };
            self.declare_leaf(name, stored, node.shape.iter().product())?;
        }
        Ok(())
    }

    fn leaf(&self, plan: &Plan, index: usize) -> Result<&LeafBuffer> {
        let name = &plan.leaves[index].name;
        self.leaves.get(name).ok_or_else(|| Error::missing("executor", format!("`{name}`")))
    }

    /// How an argument is stored.
    fn kind(&self, plan: &Plan, slot: &Slot) -> Result<Stored> {
        Ok(match slot.place {
            Place::Leaf(i) => self.leaf(plan, i)?.kind,
            place => place.stored(|_| Stored::F32),
        })
    }

    /// Buffer and byte offset of an argument; the dummy for an absent one.
    fn locate<'a>(&'a self, p: &'a Held<Prepared>, slot: &Slot) -> Result<(&'a wgpu::Buffer, u64)> {
        let gone = || Error::missing("executor", "the arena, which is made before a plan runs");
        Ok(match slot.place {
            Place::Absent => (&self.dummy, 0),
            Place::Arena { slab, offset } => (self.rooms.slabs.get(slab).ok_or_else(gone)?, offset),
            Place::Input(offset) => (&p.own.inputs, offset),
            Place::Unpacked => (self.rooms.unpacked.as_ref().ok_or_else(gone)?, 0),
            Place::Leaf(i) => (self.resident(&p.plan, i)?, 0),
        })
    }

    fn bind(
        &self,
        p: &Held<Prepared>,
        c: &Command,
        uniforms: (&wgpu::Buffer, u64),
        views: &[Option<wgpu::TextureView>],
        layout: &wgpu::BindGroupLayout,
    ) -> Result<wgpu::BindGroup> {
        let size = core::num::NonZeroU64::new((4 * c.words().len() as u64).next_multiple_of(16));
        let uniform = wgpu::BufferBinding { buffer: uniforms.0, offset: uniforms.1, size };
        let mut entries = Vec::from([wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(uniform),
        }]);
        for (((binding, _), slot), view) in c.variant.bindings().into_iter().zip(&c.args).zip(views) {
            let resource = match view {
                Some(view) => wgpu::BindingResource::TextureView(view),
                None => {
                    let (buffer, offset) = self.found(p, slot)?;
                    let bytes = self.kind(&p.plan, slot)?.bytes(slot.len);
                    let size = core::num::NonZeroU64::new((bytes as u64).max(16).next_multiple_of(16));
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
                }
            };
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout, entries: &entries };
        Ok(self.ours(|| self.device.create_bind_group(&descriptor)))
    }

    /// Adds bind group, pipeline and texture copies of the next command that has none.
    fn build(&mut self, plan: PlanId) -> Result<()> {
        // Taken out while the device is in use.
        let mut stage = core::mem::take(&mut self.plans.get_mut(plan)?.own.next.1);
        let before = stage.bytes();
        let step = self.step(plan, &mut stage).and_then(|step| self.failure().map(|()| step));
        self.count(|k| k.textures = k.textures + stage.bytes() - before);
        let held = self.plans.get_mut(plan)?;
        held.own.next.1 = stage;
        match step {
            Ok((step, stride)) => {
                held.own.next.0 += stride;
                held.own.steps.push(step);
                Ok(())
            }
            // What was made may be no good: whoever tries again begins anew.
            Err(error) => {
                let staged = held.strip();
                self.count(|k| k.textures -= staged);
                Err(error)
            }
        }
    }
    fn step(&self, plan: PlanId, stage: &mut Stage) -> Result<(Step, u64)> {
        let p = self.plans.get(plan)?;
        let at = p.own.steps.len();
        let c = &p.plan.commands[at];
        let stride = memory::uniform_stride(c, &self.caps);
        let mut step = Step {
            pipeline: None,
            bind_groups: Vec::new(),
            copies: Vec::new(),
            groups: c.groups,
            flops: c.flops,
        };
        let Some(key) = c.pipeline() else { return Ok((step, stride)) };
        let (pipeline, layout) = self.pipeline(&key)?;
        step.pipeline = Some(pipeline);
        let mut uniform = p.own.next.0;
        for c in &p.plan.commands[at..at + c.together as usize] {
            let views = self.views(p, c, stage, &mut step.copies)?;
            step.bind_groups.push(self.bind(p, c, (&p.own.uniforms, uniform), &views, &layout)?);
            uniform += memory::uniform_stride(c, &self.caps);
        }
        Ok((step, stride))
    }

    /// What a command's arguments are bound as, where they are texels.
    fn views(
        &self,
        p: &Held<Prepared>,
        c: &Command,
        stage: &mut Stage,
        copies: &mut Vec<Copy>,
    ) -> Result<Vec<Option<wgpu::TextureView>>> {
        let mut views = Vec::with_capacity(c.args.len());
        for ((_, kind), slot) in c.variant.bindings().iter().zip(&c.args) {
            views.push(match kind {
                Binding::Texture => Some(self.texels(p, slot, stage, copies)?),
                Binding::Storage | Binding::Written(_) | Binding::Packed(_) => None,
            });
        }
        stage.written(c.outputs());
        Ok(views)
    }

    /// A view of an argument as texels; adds a copy where the staged texture is stale.
    fn texels(
        &self,
        p: &Held<Prepared>,
        slot: &Slot,
        stage: &mut Stage,
        copies: &mut Vec<Copy>,
    ) -> Result<wgpu::TextureView> {
        if let Place::Leaf(i) = slot.place
            && let Numbers::Device { .. } = self.leaf(&p.plan, i)?.numbers
        {
            return self.leaf_texels(self.leaf(&p.plan, i)?);
        }
        let (buffer, offset) = self.found(p, slot)?;
        let (texture, fresh) = stage.get(slot, || self.texture(slot.len));
        if fresh {
            copies.push(Copy::new(buffer.clone(), offset, texture.clone(), slot.len));
        }
        Ok(self.ours(|| texture.create_view(&wgpu::TextureViewDescriptor::default())))
    }
}

impl Wgpu {
    /// The next commands that are worth one submit, built. The last one may be the first of its variant, which is then
    /// returned: drivers compile when a pipeline is made or first run, for seconds.
    fn next_slice(&mut self, plan: PlanId) -> Result<(Range<usize>, Option<Key>)> {
        self.plans.get(plan)?;
        self.fit(&self.plans.wanted())?;
        let p = self.plans.start(plan)?;
        let (start, builds) = (p.cursor, p.own.steps.len() < p.plan.commands.len());
        let until = p.stream.until(start, p.plan.commands.len());
        if builds {
            self.submit(None); // what wgpu keeps of uploads need not be there beside textures that are to be made
        }
        self.fill(plan)?;
        let (mut end, mut work, piece) = (start, 0, self.pace.piece());
        loop {
            let p = self.plans.get(plan)?;
            if end == until {
                break;
            }
            let key = p.plan.commands[end].pipeline();
            // A dispatch counts where it begins.
            let all = end..end + p.plan.commands[end].together as usize;
            let next: u64 = match piece {
                Some(_) => all.map(|i| self.expected(p, i)).sum(),
                None => all.map(|i| cost(p.plan.commands[i].flops)).sum(),
            };
            // What a dispatch before it runs comes with that.
            let full = p.plan.commands[end].together > 0
                && match piece {
                    Some(most) => work + next > most,
                    None => work >= self.budget,
                };
            if end > start && (full || self.budget == ALONE) {
                break;
            }
            if end == p.own.steps.len() {
                self.build(plan)?;
            }
            work += next;
            end += 1;
            if let Some(key) = key.filter(|key| !self.run.contains(key)) {
                return Ok((start..end, Some(key)));
            }
        }
        self.failure()?;
        Ok((start..end, None))
    }

    /// Submits the next slice; true when it had to wait for a variant's first run.
    fn slice(&mut self, plan: PlanId) -> Result<bool> {
        let (range, new) = self.next_slice(plan)?;
        if self.pace.limited() {
            self.send(plan, range.clone(), new.is_some())?;
        } else {
            let steps = &self.plans.get(plan)?.own.steps[range.clone()];
            let mut encoder = self.encoder();
            self.ours(|| encode(steps, &mut encoder, None, None));
            self.submit(Some(encoder));
        }
        let p = self.plans.get_mut(plan)?;
        let work: u64 = p.own.steps[range.clone()].iter().map(|step| cost(step.flops)).sum();
        p.cursor = range.end;
        let Some(variant) = new else {
            let since = p.own.pending.1.or_else(|| Some(Instant::now()));
            p.own.pending = (p.own.pending.0 + work, since);
            self.failure()?;
            return Ok(false);
        };
        p.own.pending = (0, None); // a compiler's speed is not the adapter's
        self.wait()?;
        self.run.insert(variant);
        Ok(true)
    }

    /// Brings values to the host, as many at once as there is room for.
    fn bring(&mut self, plan: PlanId, mut slots: VecDeque<Slot>) -> Result<Vec<Vec<f32>>> {
        let Some(readback) = self.rooms.readback.clone() else {
            return Err(Error::missing("executor", "room to read"));
        };
        let mut all = Vec::with_capacity(slots.len());
        while !slots.is_empty() {
            let (mut bytes, mut lengths, mut encoder) = (0, Vec::new(), self.encoder());
            while let Some(slot) = slots.front() {
                let size = Stored::F32.bytes(slot.len) as u64;
                if bytes > 0 && bytes + size > readback.size() {
                    break;
                }
                let (buffer, offset) = self.locate(self.plans.get(plan)?, slot)?;
                encoder.copy_buffer_to_buffer(buffer, offset, &readback, bytes, size);
                bytes += size;
                lengths.push(slot.len);
                slots.pop_front();
            }
            self.carry(Some(encoder), bytes)?;
            let data: Vec<f32> = self.map(&readback, bytes)?;
            if lengths.len() == 1 {
                all.push(data);
                continue;
            }
            let mut rest = data.as_slice();
            for len in lengths {
                let (one, more) = rest.split_at(len);
                all.push(copied(one, "what the device gave")?);
                rest = more;
            }
        }
        Ok(all)
    }
}

impl Command {
    /// What its dispatch is made with; `None` where an earlier command's dispatch runs it.
    fn pipeline(&self) -> Option<Key> {
        (self.together > 0).then_some((self.variant, self.together))
    }
}

impl Step {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        let Some(pipeline) = &self.pipeline else { return };
        pass.set_pipeline(pipeline);
        for (at, bind_group) in (0..).zip(&self.bind_groups) {
            pass.set_bind_group(at, bind_group, &[]);
        }
        pass.dispatch_workgroups(self.groups[0], self.groups[1], 1);
    }
}

/// A timestamp that is taken on the way.
type Mark<'a> = Option<(&'a wgpu::QuerySet, u32)>;

/// Encodes commands, in one pass as long as no copy comes between them; `begin` is taken when the first pass begins, `end` when
/// the last one ends.
fn encode(steps: &[Step], encoder: &mut wgpu::CommandEncoder, mut begin: Mark<'_>, end: Mark<'_>) {
    let mut runs = steps.chunk_by(|_, next| next.copies.is_empty()).peekable();
    while let Some(run) = runs.next() {
        run[0].copies.iter().for_each(|copy| copy.encode(encoder));
        let (begin, end) = (begin.take(), end.filter(|_| runs.peek().is_none()));
        let timestamp_writes = begin.or(end).map(|(query_set, _)| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: begin.map(|mark| mark.1),
            end_of_pass_write_index: end.map(|mark| mark.1),
        });
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        run.iter().for_each(|step| step.dispatch(&mut pass));
    }
}

/// The budget with which a slice is one command, whatever the pace.
const ALONE: u64 = 1;

/// Work of a command: a launch costs something, too.
fn cost(flops: u64) -> u64 {
    flops + 1_000_000
}

#[cfg(test)]
mod tests;
