//! Runs plans with the CPU twins: slow and exact, the measure for every other executor.
use super::{Executor, LeafData, PlanId};
use crate::caps::Caps;
use crate::plan::{Place, Plan, Slot};
use crate::{Error, Result};
use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec, vec::Vec};
use pentimento_wgsl::{WeightType, twin};

/// The CPU executor.
pub struct Cpu {
    caps: Caps,
    leaves: BTreeMap<String, Vec<f32>>,
    plans: Vec<Prepared>,
}
struct Prepared {
    plan: Plan,
    slabs: Vec<Vec<f32>>,
    inputs: Vec<f32>,
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
        Cpu { caps: Caps::unlimited("cpu"), leaves: BTreeMap::new(), plans: Vec::new() }
    }
    fn get(&self, p: &Prepared, slot: &Slot) -> Vec<f32> {
        let from = |v: &[f32], at: u64| v[at as usize / 4..at as usize / 4 + slot.len].to_vec();
        match slot.place {
            Place::Absent => Vec::new(),
            Place::Arena { slab, offset } => from(&p.slabs[slab], offset),
            Place::Input(offset) => from(&p.inputs, offset),
            Place::Leaf(i) => self.leaves.get(&p.plan.leaves[i].name).cloned().unwrap_or_default(),
        }
    }
}

impl Executor for Cpu {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn has_leaf(&self, name: &str) -> bool {
        self.leaves.contains_key(name)
    }
    fn weight_type(&self, _: &str) -> WeightType {
        WeightType::F32
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()> {
        let data = match data {
            LeafData::F32(d) => d.to_vec(),
            LeafData::Half(kind, bytes) => super::null::widen(kind, bytes),
        };
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
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        super::null::check_leaves(&plan, &|name| self.leaves.get(name).map(Vec::len))?;
        let slabs = plan.slabs.iter().map(|&s| vec![0.0; s as usize / 4]).collect();
        let inputs = vec![0.0; plan.input_bytes as usize / 4];
        self.plans.push(Prepared { plan, slabs, inputs, cursor: 0 });
        Ok(PlanId(self.plans.len() - 1))
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        let p = &mut self.plans[plan.0];
        let at = super::null::input_offset(&p.plan, input, data.len())? as usize / 4;
        p.inputs[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn rewind(&mut self, plan: PlanId) {
        self.plans[plan.0].cursor = 0;
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        let p = &self.plans[plan.0];
        let Some(c) = p.plan.commands.get(p.cursor) else { return Ok(true) };
        let split = c.args.len() - c.variant.kernel.outputs();
        let inputs: Vec<Vec<f32>> = c.args[..split].iter().map(|s| self.get(p, s)).collect();
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<Vec<f32>> = c.args[split..].iter().map(|s| vec![0.0; s.len]).collect();
        twin(c.variant.kernel, &c.params, &inputs, &mut outputs);
        let places: Vec<Place> = c.args[split..].iter().map(|s| s.place).collect();
        let p = &mut self.plans[plan.0];
        for (place, out) in places.into_iter().zip(outputs) {
            if let Place::Arena { slab, offset } = place {
                p.slabs[slab][offset as usize / 4..offset as usize / 4 + out.len()].copy_from_slice(&out);
            }
        }
        p.cursor += 1;
        Ok(p.cursor >= p.plan.commands.len())
    }
    fn read(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        let p = &self.plans[plan.0];
        Ok(self.get(p, &super::null::output(&p.plan, output)?.slot))
    }
}
