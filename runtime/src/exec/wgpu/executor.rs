//! The executor's calls.
use super::device::SUBMIT_SECONDS;
use super::{ALONE, Numbers, Prepared, Stage, Wgpu, stage};
use crate::caps::Caps;
use crate::exec::memory::{self, LARGE_UPLOAD};
use crate::exec::{Executor, LeafData, Memory, PlanId, null, plans};
use crate::plan::{Command, Plan, Slot};
use crate::weights::Shared;
use crate::{Error, Result};
use alloc::{borrow::Cow, collections::BTreeMap, format, string::String, vec::Vec};
use pentimento_wgsl::Stored;
use std::time::Instant;

impl Executor for Wgpu {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn as_any(&mut self) -> Option<&mut dyn core::any::Any> {
        Some(self)
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
            LeafData::Packed(kind, b) => {
                (*kind, kind.numbers(b.len()), crate::exec::checkpoint::on_device(name, *kind, b)?)
            }
        };
        let new = !self.leaves.contains_key(name);
        self.declare_leaf(name, kind, len)?;
        let Some(leaf) = self.leaves.get(name) else { return Err(Error::missing("executor", name)) };
        null::check_set(name, (leaf.kind, leaf.len), (kind, len))?;
        let Numbers::Device { buffer, texture } = &leaf.numbers else {
            return self.set_streamed(name, kind, len, Shared::own(bytes.into_owned()));
        };
        self.upload(buffer, 0, &bytes);
        if let (Some(texture), LeafData::F32(d)) = (texture.get(), &data) {
            self.count(|k| k.staging += memory::texels(len));
            self.ours(|| stage::write(&self.queue, texture, d));
        }
        // Else wgpu keeps a copy of everything until something runs.
        let large = bytes.len() > LARGE_UPLOAD;
        let carried = if large { self.carry(None, bytes.len() as u64).map(drop) } else { Ok(()) };
        let set = carried.and_then(|()| self.failure());
        if set.is_err() && new {
            // Nobody must take it for set.
            self.leaves.remove(name);
            self.count(|k| k.leaves -= memory::leaf(kind, len));
        }
        set
    }
    fn set_streamed(&mut self, name: &str, stored: Stored, len: usize, bytes: Shared) -> Result<()> {
        self.set_hosted(name, (stored, len), bytes)
    }
    fn streamed(&self) -> u64 {
        self.streamed
    }
    fn memory(&self) -> Memory {
        self.counted()
    }
    fn components(&self) -> BTreeMap<String, u64> {
        null::by_component(self.leaves.iter().map(|(name, leaf)| (name, leaf.bytes())))
    }
    fn forget(&mut self, plan: PlanId) -> Result<()> {
        self.drop_plan(plan)
    }
    fn forget_leaves(&mut self, prefix: &str) -> Result<()> {
        self.drop_leaves(prefix)
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        plans::check(&plan, &|name| self.leaves.get(name).map(|l| l.len))?;
        let stream = self.stream(&plan)?;
        self.fit(&self.plans.with(&plan, &stream))?;
        let inputs = self.buffer("inputs", memory::inputs(&plan))?;
        let uniforms = self.uniforms(&plan)?;
        self.failure()?;
        self.count(|k| {
            k.inputs += inputs.size();
            k.uniforms += uniforms.size();
        });
        let (steps, next) = (Vec::with_capacity(plan.commands.len()), (0, Stage::default()));
        let own = Prepared { inputs, steps, uniforms, next, pending: (0, None), took: Vec::new() };
        let id = self.plans.insert(plan, stream, own);
        let commands = &self.plans.get(id)?.plan.commands;
        let count = commands.len();
        self.pipelines.ahead(commands.iter().filter_map(Command::pipeline));
        if self.validates() {
            let built = (0..count).try_for_each(|_| self.build(id)).and_then(|()| self.failure());
            if built.is_err() {
                self.drop_plan(id)?;
            }
            built?;
        }
        Ok(id)
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        let p = self.plans.get(plan)?;
        let offset = null::input_offset(&p.plan, input, data.len())?;
        self.upload(&p.own.inputs, offset, bytemuck::cast_slice(data));
        self.failure()
    }
    fn rewind(&mut self, plan: PlanId) {
        self.plans.rewind(plan);
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        let began = Instant::now();
        loop {
            let new = self.slice(plan)?;
            let done = self.plans.get(plan)?.done();
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
        let p = self.plans.get(plan)?;
        let one = |output: &&str| {
            let slot = null::output(&p.plan, output)?.slot;
            self.plans.holds(plan, &slot, &format!("output `{output}`"))?;
            Ok(slot)
        };
        let slots = outputs.iter().map(one).collect::<Result<_>>()?;
        self.fit(&self.plans.wanted())?;
        let all = self.bring(plan, slots)?;
        let p = self.plans.get_mut(plan)?;
        if let (work, Some(since)) = core::mem::take(&mut p.own.pending) {
            let seconds = since.elapsed().as_secs_f64();
            self.learn(work, seconds);
        }
        Ok(all)
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        self.plans.plan(plan)
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        self.fetch(plan, slot)
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        let budget = core::mem::replace(&mut self.budget, ALONE);
        let ran = self.slice(plan);
        self.budget = budget;
        ran?;
        let p = self.plans.get_mut(plan)?;
        p.own.pending = (0, None);
        Ok(p.done())
    }
}
