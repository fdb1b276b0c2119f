//! Runs plans with the CPU twins: slow and exact, the measure for every other executor.
use super::{Executor, LeafData, PlanId, operands};
use crate::caps::Caps;
use crate::plan::{Place, Plan, Slot};
use crate::{Error, Result};
use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec, vec::Vec};
use pentimento_wgsl::{Real, Stored, twin};

/// The CPU executor. Its tensors are f32, as a device's are, or f64: then the whole plan runs in f64.
pub struct Cpu<R: Real = f32> {
    caps: Caps,
    leaves: BTreeMap<String, Vec<R>>,
    plans: Vec<Prepared<R>>,
}
struct Prepared<R> {
    plan: Plan,
    slabs: Vec<Vec<R>>,
    inputs: Vec<R>,
    unpacked: Vec<R>,
    cursor: usize,
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
        Cpu { caps: Caps::unlimited(name), leaves: BTreeMap::new(), plans: Vec::new() }
    }
    /// [`Executor::write`] in the executor's own numbers.
    ///
    /// # Errors
    /// As [`Executor::write`].
    pub fn write_real(&mut self, plan: PlanId, input: &str, data: &[R]) -> Result<()> {
        let p = &mut self.plans[plan.0];
        let at = super::null::input_offset(&p.plan, input, data.len())? as usize / 4;
        p.inputs[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    /// [`Executor::read`] in the executor's own numbers.
    ///
    /// # Errors
    /// As [`Executor::read`].
    pub fn read_real(&self, plan: PlanId, output: &str) -> Result<Vec<R>> {
        let p = &self.plans[plan.0];
        Ok(self.get(p, &super::null::output(&p.plan, output)?.slot))
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
        self.leaves.insert(name.to_owned(), data);
        Ok(())
    }
    // A plan counts bytes of f32; here an element takes what it takes, so offsets are kept in elements.
    fn get(&self, p: &Prepared<R>, slot: &Slot) -> Vec<R> {
        let from = |v: &[R], at: u64| v[at as usize / 4..at as usize / 4 + slot.len].to_vec();
        match slot.place {
            Place::Absent => Vec::new(),
            Place::Arena { slab, offset } => from(&p.slabs[slab], offset),
            Place::Input(offset) => from(&p.inputs, offset),
            Place::Unpacked => from(&p.unpacked, 0),
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
            LeafData::Packed(kind, bytes) => self.set_leaf_real(name, real(&super::null::widen(kind, bytes))),
        }
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        super::null::check_leaves(&plan, &|name| self.leaves.get(name).map(Vec::len))?;
        let slabs = plan.slabs.iter().map(|&s| vec![R::default(); s as usize / 4]).collect();
        let inputs = vec![R::default(); plan.input_bytes as usize / 4];
        let unpacked = vec![R::default(); Stored::F16.numbers(plan.unpacked as usize)];
        self.plans.push(Prepared { plan, slabs, inputs, unpacked, cursor: 0 });
        Ok(PlanId(self.plans.len() - 1))
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        self.write_real(plan, input, &real(data))
    }
    fn rewind(&mut self, plan: PlanId) {
        self.plans[plan.0].cursor = 0;
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        let p = &self.plans[plan.0];
        let Some(c) = p.plan.commands.get(p.cursor) else { return Ok(true) };
        let split = c.args.len() - c.variant.outputs();
        let inputs: Vec<Vec<R>> = c.args[..split].iter().map(|s| self.get(p, s)).collect();
        let inputs: Vec<&[R]> = inputs.iter().map(Vec::as_slice).collect();
        let inputs = operands(&c.variant, &inputs);
        let inputs: Vec<&[R]> = inputs.iter().map(AsRef::as_ref).collect();
        let mut outputs: Vec<Vec<R>> = c.args[split..].iter().map(|s| vec![R::default(); s.len]).collect();
        twin(&c.call, &inputs, &mut outputs);
        let places: Vec<Place> = c.args[split..].iter().map(|s| s.place).collect();
        let p = &mut self.plans[plan.0];
        for (place, out) in places.into_iter().zip(outputs) {
            let (at, to) = match place {
                Place::Arena { slab, offset } => (offset as usize / 4, &mut p.slabs[slab]),
                Place::Unpacked => (0, &mut p.unpacked),
                Place::Absent | Place::Input(_) | Place::Leaf(_) => continue,
            };
            to[at..at + out.len()].copy_from_slice(&out);
        }
        p.cursor += 1;
        Ok(p.cursor >= p.plan.commands.len())
    }
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        Ok(self.read_real(plan, output)?.into_iter().map(|v| v.wide() as f32).collect())
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        &self.plans[plan.0].plan
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        Ok(self.get(&self.plans[plan.0], slot).into_iter().map(|v| v.wide() as f32).collect())
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        self.advance(plan)
    }
}

/// f32 numbers as the executor's own.
fn real<R: Real>(data: &[f32]) -> Vec<R> {
    data.iter().map(|&v| R::narrow(v.into())).collect()
}
