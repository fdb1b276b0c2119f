//! Runs plans with the CPU twins: slow and exact, the measure for every other executor.
use super::plans::{self, Held, Plans};
use super::stream::Stream;
use super::{Executor, Kinds, LeafData, Memory, PlanId, operands};
use crate::caps::Caps;
use crate::plan::{Place, Plan, Slot};
use crate::{Error, Result};
use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec, vec::Vec};
use pentimento_wgsl::{Real, Stored, twin};

/// The CPU executor. Its tensors are f32, as a device's are, or f64: then the whole plan runs in f64. Plans have memory of their own here,
/// under the same rules as where they share it, so that what breaks those is found here, too.
pub struct Cpu<R: Real = f32> {
    caps: Caps,
    leaves: BTreeMap<String, Vec<R>>,
    plans: Plans<Prepared<R>>,
    memory: Memory,
}
struct Prepared<R> {
    slabs: Vec<Vec<R>>,
    inputs: Vec<R>,
    unpacked: Vec<R>,
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}

impl Cpu {
    /// An empty executor.
    pub fn new() -> Self {
        Self::empty("cpu")
    }
    /// An empty executor that runs plans as an adapter with these limits and abilities would get them, operands rounded to half
    /// precision where that adapter's bodies do so.
    pub fn planned(caps: Caps) -> Self {
        Cpu { caps, ..Self::new() }
    }
}

impl Cpu<f64> {
    /// An empty executor in f64, for checks that f32 would hide, such as differences.
    pub fn double() -> Self {
        Self::empty("cpu in f64")
    }
}

impl<R: Real> Cpu<R> {
    fn empty(name: &str) -> Self {
        Cpu {
            caps: Caps::unlimited(name),
            leaves: BTreeMap::new(),
            plans: Plans::default(),
            memory: Memory::default(),
        }
    }
    /// [`Executor::write`] in the executor's own numbers.
    ///
    /// # Errors
    /// As [`Executor::write`].
    pub fn write_real(&mut self, plan: PlanId, input: &str, data: &[R]) -> Result<()> {
        let p = self.plans.get_mut(plan)?;
        let at = super::null::input_offset(&p.plan, input, data.len())? as usize / 4;
        p.own.inputs[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    /// [`Executor::read`] in the executor's own numbers.
    ///
    /// # Errors
    /// As [`Executor::read`].
    pub fn read_real(&self, plan: PlanId, output: &str) -> Result<Vec<R>> {
        let p = self.plans.get(plan)?;
        let slot = super::null::output(&p.plan, output)?.slot;
        self.plans.holds(plan, &slot, &format!("output `{output}`"))?;
        Ok(self.get(p, &slot))
    }
    /// [`Executor::set_leaf`] in the executor's own numbers.
    ///
    /// # Errors
    /// As [`Executor::set_leaf`].
    pub fn set_leaf_real(&mut self, name: &str, data: Vec<R>) -> Result<()> {
        if let Some(old) = self.leaves.get(name).filter(|old| old.len() != data.len()) {
            return Err(Error::Graph(format!(
                "`{name}` has {} numbers, {} were given",
                old.len(),
                data.len()
            )));
        }
        let (bytes, old) = (bytes(&data), self.leaves.insert(name.to_owned(), data));
        if old.is_none() {
            self.memory.change(|k| k.leaves += bytes);
        }
        Ok(())
    }
    /// Takes the room's new size, which makes what was computed as stale as where it is shared.
    fn count(&mut self) {
        self.plans.fit(&self.plans.wanted());
        let mut held = Kinds { leaves: self.memory.now.leaves, ..Kinds::default() };
        for p in self.plans.each_mut() {
            held.arena += p.own.slabs.iter().map(|slab| bytes(slab)).sum::<u64>();
            held.inputs += bytes(&p.own.inputs);
            held.unpacked += bytes(&p.own.unpacked);
        }
        self.memory.change(|k| *k = held);
    }
    // A plan counts bytes of f32; here an element takes what it takes, so offsets are kept in elements.
    fn get(&self, p: &Held<Prepared<R>>, slot: &Slot) -> Vec<R> {
        let from = |v: &[R], at: u64| v[at as usize / 4..at as usize / 4 + slot.len].to_vec();
        match slot.place {
            Place::Absent => Vec::new(),
            Place::Arena { slab, offset } => from(&p.own.slabs[slab], offset),
            Place::Input(offset) => from(&p.own.inputs, offset),
            Place::Unpacked => from(&p.own.unpacked, 0),
            Place::Leaf(i) => self.leaves.get(&p.plan.leaves[i].name).cloned().unwrap_or_default(),
        }
    }
}

impl<R: Real> Executor for Cpu<R> {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn has_leaf(&self, name: &str) -> bool {
        self.leaves.contains_key(name)
    }
    fn stored(&self, _: &str) -> Stored {
        Stored::F32
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()> {
        match data {
            LeafData::F32(d) => self.set_leaf_real(name, real(d)),
            LeafData::Packed(kind, bytes) => {
                self.set_leaf_real(name, real(&super::null::widen(kind, bytes)?))
            }
        }
    }
    fn memory(&self) -> Memory {
        self.memory
    }
    fn components(&self) -> BTreeMap<String, u64> {
        super::null::by_component(self.leaves.iter().map(|(name, data)| (name, bytes(data))))
    }
    fn forget(&mut self, plan: PlanId) -> Result<()> {
        self.plans.remove(plan)?;
        self.count();
        Ok(())
    }
    fn forget_leaves(&mut self, prefix: &str) -> Result<()> {
        self.plans.reads_none(prefix)?;
        self.leaves.retain(|name, _| !name.starts_with(prefix));
        let all = self.leaves.values().map(|data| bytes(data)).sum();
        self.memory.change(|k| k.leaves = all);
        Ok(())
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        plans::check(&plan, &|name| self.leaves.get(name).map(Vec::len))?;
        let own = Prepared {
            slabs: plan.slabs.iter().map(|&s| vec![R::default(); s as usize / 4]).collect(),
            inputs: vec![R::default(); plan.input_bytes as usize / 4],
            unpacked: vec![R::default(); Stored::F16.numbers(plan.unpacked as usize)],
        };
        let id = self.plans.insert(plan, Stream::default(), own);
        self.count();
        Ok(id)
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        self.write_real(plan, input, &real(data))
    }
    fn rewind(&mut self, plan: PlanId) {
        self.plans.rewind(plan);
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        self.plans.start(plan)?;
        let p = self.plans.get(plan)?;
        let Some(c) = p.plan.commands.get(p.cursor) else { return Ok(true) };
        if !c.last {
            // The last of several dispatches does the work of all.
            self.plans.get_mut(plan)?.cursor += 1;
            return Ok(false);
        }
        let split = c.args.len() - c.variant.outputs();
        let inputs: Vec<Vec<R>> = c.args[..split].iter().map(|s| self.get(p, s)).collect();
        let inputs: Vec<&[R]> = inputs.iter().map(Vec::as_slice).collect();
        let inputs = operands(&c.variant, &inputs);
        let inputs: Vec<&[R]> = inputs.iter().map(AsRef::as_ref).collect();
        let mut outputs: Vec<Vec<R>> = c.args[split..].iter().map(|s| vec![R::default(); s.len]).collect();
        twin(&c.call, &inputs, &mut outputs);
        let places: Vec<Place> = c.args[split..].iter().map(|s| s.place).collect();
        let p = self.plans.get_mut(plan)?;
        for (place, out) in places.into_iter().zip(outputs) {
            let (at, to) = match place {
                Place::Arena { slab, offset } => (offset as usize / 4, &mut p.own.slabs[slab]),
                Place::Unpacked => (0, &mut p.own.unpacked),
                Place::Absent | Place::Input(_) | Place::Leaf(_) => continue,
            };
            to[at..at + out.len()].copy_from_slice(&out);
        }
        p.cursor += 1;
        Ok(p.done())
    }
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        Ok(self.read_real(plan, output)?.into_iter().map(|v| v.wide() as f32).collect())
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        self.plans.plan(plan)
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        self.plans.holds(plan, slot, "argument")?;
        Ok(self.get(self.plans.get(plan)?, slot).into_iter().map(|v| v.wide() as f32).collect())
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        self.advance(plan)
    }
}

fn bytes<R>(data: &[R]) -> u64 {
    core::mem::size_of_val(data) as u64
}

/// f32 numbers as the executor's own.
fn real<R: Real>(data: &[f32]) -> Vec<R> {
    data.iter().map(|&v| R::narrow(v.into())).collect()
}
