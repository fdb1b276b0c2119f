//! One executor for several users: each has a [`Seat`], which is an executor, too. Weights of the same checkpoint are there once; all
//! else that has a name belongs to its seat. Seats take turns: a plan that another seat's interrupts begins anew.
use super::{Executor, Home, LeafData, Memory, PlanId, plans};
use crate::caps::Caps;
use crate::plan::{Plan, Slot};
use crate::weights::Shared as Bytes;
use crate::{Error, Result};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::cell::{RefCell, RefMut};
use pentimento_wgsl::Stored;

/// An executor and who holds what of it.
struct Common {
    exec: Box<dyn Executor>,
    /// How many seats hold a leaf, by its name in the executor.
    holders: BTreeMap<String, usize>,
    /// Numbers for names that must differ.
    next: usize,
    spaces: BTreeMap<String, usize>,
}

/// An executor that can be shared, on one thread. Clones are one and the same.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Common>>);

impl Shared {
    /// Shares an executor.
    pub fn new(exec: Box<dyn Executor>) -> Self {
        let (holders, spaces) = (BTreeMap::new(), BTreeMap::new());
        Shared(Rc::new(RefCell::new(Common { exec, holders, next: 0, spaces })))
    }
    /// A seat. Leaves whose names begin with one of `common` belong to the checkpoint that `space` names, and so to all seats that name the
    /// same one: they must be equal there and never change.
    ///
    /// # Errors
    /// None, unless it is called from within a call on a seat.
    pub fn seat(&self, space: &str, common: &[&str]) -> Result<Seat> {
        let mut all = self.lock()?;
        all.next += 1;
        let number = all.next;
        let space = *all.spaces.entry(space.to_string()).or_insert(number);
        Ok(Seat {
            shared: self.clone(),
            caps: all.exec.caps().clone(),
            own: format!("@{number:06}"),
            space: format!("@{space:06}"),
            common: common.iter().map(ToString::to_string).collect(),
            held: RefCell::default(),
            plans: BTreeMap::new(),
        })
    }
    /// Bytes that all seats hold and held.
    pub fn memory(&self) -> Memory {
        self.0.try_borrow().map_or_else(|_| Memory::default(), |all| all.exec.memory())
    }
    /// Asks the executor itself something; it must leave leaves and plans alone.
    ///
    /// # Errors
    /// What it was asked, or a call from within a call on a seat.
    pub fn with<R>(&self, ask: impl FnOnce(&mut dyn Executor) -> Result<R>) -> Result<R> {
        ask(&mut *self.lock()?.exec)
    }
    fn lock(&self) -> Result<RefMut<'_, Common>> {
        let busy = |_| Error::bad("shared executor", "one call at a time", "a call from within another");
        self.0.try_borrow_mut().map_err(busy)
    }
}

/// One user's part of a [`Shared`] executor. When it goes, so does what only it held.
pub struct Seat {
    shared: Shared,
    caps: Caps,
    /// What makes names its own, or the checkpoint's.
    own: String,
    space: String,
    common: Vec<String>,
    /// Names in the executor.
    held: RefCell<BTreeSet<String>>,
    /// As they were prepared, with the names that this seat gave.
    plans: BTreeMap<PlanId, Plan>,
}

impl Seat {
    /// A leaf's name in the executor.
    fn full(&self, name: &str) -> String {
        let shares = self.common.iter().any(|prefix| name.starts_with(prefix.as_str()));
        format!("{name}{}", if shares { &self.space } else { &self.own })
    }
    /// Takes note that this seat needs a leaf that is there.
    fn hold(&self, all: &mut Common, full: &str) {
        if self.held.borrow_mut().insert(full.to_string()) {
            *all.holders.entry(full.to_string()).or_insert(0) += 1;
        }
    }
    /// Frees a leaf unless another seat holds it.
    fn release(&self, all: &mut Common, full: &str) -> Result<()> {
        let left = all.holders.get(full).copied().unwrap_or(1).saturating_sub(1);
        if left == 0 {
            all.exec.forget_leaves(full)?;
            all.holders.remove(full);
        } else {
            all.holders.insert(full.to_string(), left);
        }
        self.held.borrow_mut().remove(full);
        Ok(())
    }
    /// A plan of this seat's.
    fn mine(&self, plan: PlanId) -> Result<RefMut<'_, Common>> {
        if !self.plans.contains_key(&plan) {
            return Err(plans::forgotten(plan));
        }
        self.shared.lock()
    }
}

impl Executor for Seat {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn has_leaf(&self, name: &str) -> bool {
        let full = self.full(name);
        let Ok(mut all) = self.shared.lock() else { return false };
        let there = all.exec.has_leaf(&full);
        if there {
            self.hold(&mut all, &full);
        }
        there
    }
    fn stored(&self, name: &str) -> Stored {
        self.shared.lock().map_or(Stored::F32, |all| all.exec.stored(&self.full(name)))
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()> {
        let full = self.full(name);
        let mut all = self.shared.lock()?;
        all.exec.set_leaf(&full, data)?;
        self.hold(&mut all, &full);
        Ok(())
    }
    fn declare(&mut self, name: &str, stored: Stored, len: usize, home: Home) -> Result<bool> {
        let full = self.full(name);
        let mut all = self.shared.lock()?;
        let counts = all.exec.declare(&full, stored, len, home)?;
        if counts {
            self.hold(&mut all, &full);
        }
        Ok(counts)
    }
    fn set_streamed(&mut self, name: &str, stored: Stored, len: usize, bytes: Bytes) -> Result<()> {
        let full = self.full(name);
        let mut all = self.shared.lock()?;
        all.exec.set_streamed(&full, stored, len, bytes)?;
        self.hold(&mut all, &full);
        Ok(())
    }
    fn streamed(&self) -> u64 {
        self.shared.lock().map_or(0, |all| all.exec.streamed())
    }
    fn memory(&self) -> Memory {
        self.shared.memory()
    }
    fn work(&self) -> u64 {
        self.shared.lock().map_or(0, |all| all.exec.work())
    }
    fn components(&self) -> BTreeMap<String, u64> {
        self.shared.lock().map_or_else(|_| BTreeMap::new(), |all| all.exec.components())
    }
    fn forget(&mut self, plan: PlanId) -> Result<()> {
        self.mine(plan)?.exec.forget(plan)?;
        self.plans.remove(&plan);
        Ok(())
    }
    fn forget_leaves(&mut self, prefix: &str) -> Result<()> {
        if let Some(leaf) = self.plans.values().flat_map(|p| &p.leaves).find(|l| l.name.starts_with(prefix)) {
            let found = format!("one that reads `{}`", leaf.name);
            return Err(Error::bad("executor", format!("no plan that reads `{prefix}..`"), found)
                .with_hint("Forget the plans before their weights."));
        }
        let gone: Vec<String> =
            self.held.borrow().iter().filter(|full| full.starts_with(prefix)).cloned().collect();
        let mut all = self.shared.lock()?;
        gone.iter().try_for_each(|full| self.release(&mut all, full))
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        let mut renamed = plan.clone();
        renamed.leaves.iter_mut().for_each(|leaf| leaf.name = self.full(&leaf.name));
        let id = self.shared.lock()?.exec.prepare(renamed)?;
        self.plans.insert(id, plan);
        Ok(id)
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        self.mine(plan)?.exec.write(plan, input, data)
    }
    fn rewind(&mut self, plan: PlanId) {
        if let Ok(mut all) = self.mine(plan) {
            all.exec.rewind(plan);
        }
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        self.mine(plan)?.exec.advance(plan)
    }
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        self.mine(plan)?.exec.peek(plan, output)
    }
    fn peek_all(&mut self, plan: PlanId, outputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.mine(plan)?.exec.peek_all(plan, outputs)
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        self.plans.get(&plan).unwrap_or(&plans::NONE)
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        self.mine(plan)?.exec.argument(plan, slot)
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        self.mine(plan)?.exec.one(plan)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Ok(mut all) = self.shared.lock() else { return };
        // What a failed device does not free goes with the device.
        for &plan in self.plans.keys() {
            let _ = all.exec.forget(plan);
        }
        let held = self.held.take();
        for full in &held {
            let _ = self.release(&mut all, full);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::compile;
    use crate::exec::cpu::Cpu;
    use crate::graph::{Graph, Layout};

    fn plan(seat: &mut Seat) -> PlanId {
        let mut g = Graph::new();
        let x = g.input("x", &[1, 2]);
        let w = g.weight("net/w", &[2, 2], Layout::Plain);
        let y = g.linear(x, w, None);
        let p = g.param("own/p", &[1, 2]);
        let y = g.add(y, p);
        let id = compile(seat, g, &[("y", y)]).expect("a plan");
        seat.write(id, "x", &[1.0, 1.0]).expect("x");
        id
    }
    fn y(seat: &mut Seat, id: PlanId) -> Vec<f32> {
        seat.run(id).and_then(|()| seat.read(id, "y")).expect("y")
    }
    fn seated(shared: &Shared, space: &str, own: f32) -> Seat {
        let mut seat = shared.seat(space, &["net/"]).expect("a seat");
        if !seat.has_leaf("net/w") {
            seat.set_leaf("net/w", LeafData::F32(&[1.0, 2.0, 3.0, 4.0])).expect("w");
        }
        seat.set_leaf("own/p", LeafData::F32(&[own, own])).expect("p");
        seat
    }

    #[test]
    fn weights_of_one_checkpoint_are_there_once_and_all_else_is_apart() {
        let shared = Shared::new(Box::new(Cpu::new()));
        let mut a = seated(&shared, "model", 10.0);
        let one = shared.memory().now.leaves;
        let mut b = seated(&shared, "model", 20.0);
        assert_eq!(shared.memory().now.leaves - one, 8, "only b's own two numbers");
        let mut c = shared.seat("another model", &["net/"]).expect("a seat");
        assert!(!c.has_leaf("net/w"), "another checkpoint's");
        c.set_leaf("net/w", LeafData::F32(&[0.0; 4])).expect("w");
        c.set_leaf("own/p", LeafData::F32(&[0.0; 2])).expect("p");
        let (pa, pb, pc) = (plan(&mut a), plan(&mut b), plan(&mut c));
        assert_eq!(y(&mut a, pa), [13.0, 17.0]);
        assert_eq!(y(&mut b, pb), [23.0, 27.0]);
        assert_eq!(y(&mut c, pc), [0.0, 0.0]);
        assert_eq!(a.plan(pa).leaves[0].name, "net/w", "names are the seat's own");
        assert!(a.advance(pb).is_err() && a.plan(pb).commands.is_empty(), "another's plan");

        assert!(a.forget_leaves("net/").is_err(), "a plan reads them");
        a.forget(pa).and_then(|()| a.forget_leaves("net/")).expect("gone");
        assert_eq!(y(&mut b, pb), [23.0, 27.0], "b holds them still");
        drop(b);
        assert!(!a.has_leaf("net/w"), "nobody held them");
        drop((a, c));
        assert_eq!(shared.memory().now.leaves, 0);
    }

    #[test]
    fn seats_take_turns() {
        let shared = Shared::new(Box::new(Cpu::new()));
        let (mut a, mut b) = (seated(&shared, "model", 1.0), seated(&shared, "model", 2.0));
        let (pa, pb) = (plan(&mut a), plan(&mut b));
        a.rewind(pa);
        a.one(pa).expect("a command");
        assert_eq!(y(&mut b, pb), [5.0, 9.0]);
        assert_eq!(y(&mut a, pa), [4.0, 8.0], "it began anew");
        assert!(b.read(pb, "y").is_err(), "overwritten");
    }
}
