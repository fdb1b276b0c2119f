//! Runs plans on an adapter through wgpu: the product. `wgpu` is named in this file and its parts only.
mod adapters;
mod bisect;
mod cache;
mod device;
mod pipelines;
mod profile;
mod stage;
mod trial;

pub use adapters::{AdapterInfo, Limits, adapters, adapters_within};
pub use bisect::{Checked, Difference, Follow, Note};
pub use cache::{Load, MOST as MOST_CACHED, PipelineCache};
use device::SUBMIT_SECONDS;
pub use device::{Options, Wgpu};
pub use profile::{Clock, Peaks, Profile, Spent, Time};

use super::{Executor, LeafData, PlanId, kept, null};
use crate::caps::Caps;
use crate::graph::{Graph, Leaf, Op};
use crate::plan::{Command, Place, Plan, Slot, check_overlap};
use crate::{Error, Result};
use alloc::{
    borrow::{Cow, ToOwned},
    collections::VecDeque,
    format,
    string::String,
    vec::Vec,
};
use pentimento_wgsl::{Binding, Stored, Variant};
use stage::{Copy, Stage};
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

/// A weight or parameter on the device.
pub(super) struct LeafBuffer {
    kind: Stored,
    len: usize,
    buffer: wgpu::Buffer,
    /// The same numbers as texels, made when a plan first wants them so.
    texture: OnceLock<wgpu::Texture>,
}

/// A plan with its memory; pipelines and bind groups are added by its first run.
pub(super) struct Prepared {
    plan: Plan,
    slabs: Vec<wgpu::Buffer>,
    inputs: wgpu::Buffer,
    unpacked: wgpu::Buffer,
    readback: wgpu::Buffer,
    /// Of the first commands, as many as a run has come to.
    steps: Vec<Step>,
    uniforms: wgpu::Buffer,
    /// Where the next step's uniform block begins, and the textures that the steps so far leave.
    next: (u64, Stage),
    cursor: usize,
    /// Work submitted since the last wait, and when it began.
    pending: (u64, Option<Instant>),
}

struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
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
            let buffer = self.memory(name, kind.bytes(len) as u64, kind.packed())?;
            self.leaves.insert(name.to_owned(), LeafBuffer { kind, len, buffer, texture: OnceLock::new() });
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
    fn locate<'a>(&'a self, p: &'a Prepared, slot: &Slot) -> Result<(&'a wgpu::Buffer, u64)> {
        Ok(match slot.place {
            Place::Absent => (&self.dummy, 0),
            Place::Arena { slab, offset } => (&p.slabs[slab], offset),
            Place::Input(offset) => (&p.inputs, offset),
            Place::Unpacked => (&p.unpacked, 0),
            Place::Leaf(i) => (&self.leaf(&p.plan, i)?.buffer, 0),
        })
    }

    fn bind(
        &self,
        p: &Prepared,
        c: &Command,
        uniforms: (&wgpu::Buffer, u64),
        views: &[Option<wgpu::TextureView>],
        layout: &wgpu::BindGroupLayout,
    ) -> Result<wgpu::BindGroup> {
        let size = core::num::NonZeroU64::new(64); // the largest block any kernel declares
        let uniform = wgpu::BufferBinding { buffer: uniforms.0, offset: uniforms.1, size };
        let mut entries = Vec::from([wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(uniform),
        }]);
        for (((binding, _), slot), view) in c.variant.bindings().into_iter().zip(&c.args).zip(views) {
            let resource = match view {
                Some(view) => wgpu::BindingResource::TextureView(view),
                None => {
                    let (buffer, offset) = self.locate(p, slot)?;
                    let bytes = self.kind(&p.plan, slot)?.bytes(slot.len);
                    let size = core::num::NonZeroU64::new((bytes as u64).max(16).next_multiple_of(16));
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
                }
            };
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        Ok(self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout,
            entries: &entries,
        }))
    }

    /// Adds bind group, pipeline and texture copies of the next command that has none.
    fn build(&mut self, plan: PlanId) -> Result<()> {
        // Taken out while the device is in use.
        let mut stage = core::mem::take(&mut self.plans[plan.0].next.1);
        let step = self.step(plan, &mut stage);
        let p = &mut self.plans[plan.0];
        p.next.1 = stage;
        let (step, stride) = step?;
        p.next.0 += stride;
        p.steps.push(step);
        Ok(())
    }
    fn step(&mut self, plan: PlanId, stage: &mut Stage) -> Result<(Step, u64)> {
        let p = &self.plans[plan.0];
        let variant = p.plan.commands[p.steps.len()].variant;
        let (pipeline, layout) = self.pipeline(&variant)?;
        let c = &p.plan.commands[p.steps.len()];
        let mut views = Vec::with_capacity(c.args.len());
        let mut copies = Vec::new();
        for ((_, kind), slot) in c.variant.bindings().iter().zip(&c.args) {
            views.push(match kind {
                Binding::Texture => Some(self.texels(p, slot, stage, &mut copies)?),
                _ => None,
            });
        }
        stage.written(&c.args[c.args.len() - c.variant.outputs()..]);
        let bind_group = self.bind(p, c, (&p.uniforms, p.next.0), &views, &layout)?;
        Ok((Step { pipeline, bind_group, copies, groups: c.groups, flops: c.flops }, self.uniform_stride(c)))
    }

    /// A view of an argument as texels; adds a copy where the staged texture is stale.
    fn texels(
        &self,
        p: &Prepared,
        slot: &Slot,
        stage: &mut Stage,
        copies: &mut Vec<Copy>,
    ) -> Result<wgpu::TextureView> {
        if let Place::Leaf(i) = slot.place {
            return Ok(self.leaf_texels(self.leaf(&p.plan, i)?));
        }
        let (buffer, offset) = self.locate(p, slot)?;
        let (texture, fresh) = stage.get(&self.device, slot);
        if fresh {
            copies.push(Copy::new(buffer.clone(), offset, texture.clone(), slot.len));
        }
        Ok(texture.create_view(&wgpu::TextureViewDescriptor::default()))
    }
}

impl Wgpu {
    /// The next commands that are worth one submit, built. The last one may be the first of its variant, which is then
    /// returned: drivers compile when a pipeline is made or first run, for seconds.
    fn next_slice(&mut self, plan: PlanId) -> Result<(Range<usize>, Option<Variant>)> {
        let start = self.plans[plan.0].cursor;
        let (mut end, mut work) = (start, 0);
        while end < self.plans[plan.0].plan.commands.len() && work < self.budget {
            if end == self.plans[plan.0].steps.len() {
                self.build(plan)?;
            }
            let c = &self.plans[plan.0].plan.commands[end];
            work += cost(c.flops);
            end += 1;
            if !self.run.contains(&c.variant) {
                return Ok((start..end, Some(c.variant)));
            }
        }
        self.failure()?;
        Ok((start..end, None))
    }

    /// Submits the next slice; true when it had to wait for a variant's first run.
    fn slice(&mut self, plan: PlanId) -> Result<bool> {
        let (range, new) = self.next_slice(plan)?;
        let p = &mut self.plans[plan.0];
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let steps = &p.steps[range.clone()];
        encode(steps, &mut encoder, None, None);
        self.queue.submit([encoder.finish()]);
        p.cursor = range.end;
        let Some(variant) = new else {
            let work: u64 = steps.iter().map(|step| cost(step.flops)).sum();
            p.pending = (p.pending.0 + work, p.pending.1.or_else(|| Some(Instant::now())));
            self.failure()?;
            return Ok(false);
        };
        p.pending = (0, None); // a compiler's speed is not the adapter's
        self.wait()?;
        self.run.insert(variant);
        Ok(true)
    }
}

impl Step {
    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
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

/// Work of a command: a launch costs something, too.
fn cost(flops: u64) -> u64 {
    flops + 1_000_000
}

impl Wgpu {
    /// Forgets every plan, weight and parameter and frees their memory; the device and its compiled pipelines stay. Ids
    /// of forgotten plans mean nothing any more.
    pub fn clear(&mut self) {
        self.pipelines.stop();
        self.plans.clear();
        self.leaves.clear();
        // wgpu frees what is gone when it next looks; a failure comes up with the next use of the device.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }
}

/// Bytes of outputs that come back at once, where one alone has no more.
const READBACK: u64 = 64 << 20;

/// Room for the largest output, and for all together if they are small.
fn readback_bytes(plan: &Plan) -> u64 {
    let bytes = || plan.outputs.iter().map(|o| Stored::F32.bytes(o.slot.len) as u64);
    bytes().sum::<u64>().min(READBACK).max(bytes().max().unwrap_or(0)).max(16)
}

/// Bytes of a leaf that is sent to the device at once.
const LARGE_UPLOAD: usize = 1 << 22;

impl Executor for Wgpu {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn has_leaf(&self, name: &str) -> bool {
        self.leaves.contains_key(name)
    }
    fn stored(&self, name: &str) -> Stored {
        self.leaves.get(name).map_or(Stored::F32, |l| l.kind)
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()> {
        let (kind, len, bytes): (_, _, Cow<'_, [u8]>) = match &data {
            LeafData::F32(d) => (Stored::F32, d.len(), bytemuck::cast_slice(d).into()),
            LeafData::Packed(kind, b) => (*kind, kind.numbers(b.len()), kind.to_device(b)),
        };
        self.declare_leaf(name, kind, len)?;
        let Some(leaf) = self.leaves.get(name) else { return Err(Error::missing("executor", name)) };
        if leaf.kind != kind || leaf.len != len {
            return Err(Error::bad(
                format!("`{name}`"),
                format!("{} numbers as {:?}", leaf.len, leaf.kind),
                format!("{len} as {kind:?}"),
            ));
        }
        self.upload(&leaf.buffer, 0, &bytes);
        if bytes.len() > LARGE_UPLOAD {
            self.queue.submit([]); // else wgpu keeps a copy of everything until something runs
        }
        if let (Some(texture), LeafData::F32(d)) = (leaf.texture.get(), &data) {
            stage::write(&self.queue, texture, d);
        }
        self.failure()
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        null::check_leaves(&plan, &|name| self.leaves.get(name).map(|l| l.len))?;
        check_overlap(&plan)?;
        // Whole texture rows are copied, so a slab ends with room for one row past its last tensor.
        let slabs: Result<Vec<_>> =
            plan.slabs.iter().map(|&s| self.memory("arena", s + stage::ROW_BYTES, false)).collect();
        let slabs = slabs?;
        let inputs = self.buffer("inputs", plan.input_bytes + stage::ROW_BYTES)?;
        let unpacked = self.memory("unpacked weight", plan.unpacked, false)?;
        let uniforms = self.uniforms(&plan)?;
        let (steps, next) = (Vec::with_capacity(plan.commands.len()), (0, Stage::default()));
        let readback = self.readback_buffer(readback_bytes(&plan))?;
        self.failure()?;
        let (cursor, pending) = (0, (0, None));
        let prepared =
            Prepared { plan, slabs, inputs, unpacked, readback, steps, uniforms, next, cursor, pending };
        self.plans.push(prepared);
        let id = PlanId(self.plans.len() - 1);
        self.pipelines.ahead(self.plans[id.0].plan.commands.iter().map(|c| c.variant));
        if self.validates() {
            (0..self.plans[id.0].plan.commands.len()).try_for_each(|_| self.build(id))?;
            self.failure()?;
        }
        Ok(id)
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        let p = &self.plans[plan.0];
        let offset = null::input_offset(&p.plan, input, data.len())?;
        self.upload(&p.inputs, offset, bytemuck::cast_slice(data));
        self.failure()
    }
    fn rewind(&mut self, plan: PlanId) {
        self.plans[plan.0].cursor = 0;
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        let began = Instant::now();
        loop {
            let new = self.slice(plan)?;
            let p = &self.plans[plan.0];
            let done = p.cursor >= p.plan.commands.len();
            if done || !new || began.elapsed().as_secs_f64() > SUBMIT_SECONDS {
                return Ok(done);
            }
        }
    }
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        let all = self.peek_all(plan, &[output])?;
        Ok(all.into_iter().next().unwrap_or_default())
    }
    fn peek_all(&mut self, plan: PlanId, outputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        let p = &self.plans[plan.0];
        let slots = outputs.iter().map(|output| Ok(null::output(&p.plan, output)?.slot));
        let mut slots: VecDeque<Slot> = slots.collect::<Result<_>>()?;
        let mut all = Vec::with_capacity(outputs.len());
        while !slots.is_empty() {
            let (mut bytes, mut lengths) = (0, Vec::new());
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            while let Some(slot) = slots.front() {
                let size = Stored::F32.bytes(slot.len) as u64;
                if bytes > 0 && bytes + size > p.readback.size() {
                    break;
                }
                let (buffer, offset) = self.locate(p, slot)?;
                encoder.copy_buffer_to_buffer(buffer, offset, &p.readback, bytes, size);
                bytes += size;
                lengths.push(slot.len);
                slots.pop_front();
            }
            self.queue.submit([encoder.finish()]);
            let data: Vec<f32> = self.map(&p.readback, bytes)?;
            if lengths.len() == 1 {
                all.push(data);
                continue;
            }
            let mut rest = data.as_slice();
            for len in lengths {
                let (one, more) = rest.split_at(len);
                all.push(one.to_vec());
                rest = more;
            }
        }
        let p = &mut self.plans[plan.0];
        if let (work, Some(since)) = core::mem::take(&mut p.pending) {
            let seconds = since.elapsed().as_secs_f64();
            self.learn(work, seconds);
        }
        Ok(all)
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        &self.plans[plan.0].plan
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        self.fetch(plan, slot)
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        let budget = core::mem::replace(&mut self.budget, 1);
        let ran = self.slice(plan);
        self.budget = budget;
        let p = &mut self.plans[plan.0];
        p.pending = (0, None);
        let done = p.cursor >= p.plan.commands.len();
        ran.map(|_| done)
    }
}

/// Adapter name and reason as an error.
pub(super) fn device_error(device: &str, reason: impl Into<String>) -> Error {
    // wgpu's messages are lists of causes, one a line; an error is one sentence.
    let reason: String = reason.into();
    let lines: Vec<&str> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Error::Device { device: device.into(), reason: lines.join(" ") }
}

#[cfg(test)]
mod tests;
