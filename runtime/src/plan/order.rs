//! In which order commands run. A graph's own order is a right one, but a stream of tokens goes through all of its layers there before
//! the next one begins. What could share a dispatch with a command, being of the same variant and ready, is taken right after it.
use super::Planner;
use super::choose;
use super::together::most;
use crate::graph::{Id, Op};
use crate::op;
use alloc::{vec, vec::Vec};
use pentimento_wgsl::Variant;

/// How many commands further on are looked at. What is taken early is kept longer, so it cannot be many: a block has about a hundred.
const AHEAD: usize = 40;

impl Planner<'_> {
    /// All live nodes.
    pub(super) fn ordered(&self) -> Vec<Id> {
        let nodes = (0..self.live.len()).filter(|&i| self.live[i]).map(|i| Id(i as u32));
        if self.caps.together < 2 {
            return nodes.collect();
        }
        let mut schedule = Schedule { planner: self, done: vec![false; self.live.len()], order: Vec::new() };
        let nodes: Vec<(Id, Option<Variant>)> = nodes.map(|id| (id, self.sharing(id))).collect();
        for (at, &(id, variant)) in nodes.iter().enumerate() {
            if schedule.done[id.index()] {
                continue;
            }
            let from = schedule.order.len();
            schedule.take(id);
            let Some(variant) = variant else { continue };
            let (mut count, most) = (1, most(&variant, self.caps));
            let later =
                nodes[at + 1..].iter().filter(|(id, _)| !matches!(self.g.node(*id).op, Op::Leaf { .. }));
            for &(other, its) in later.take(AHEAD) {
                if count < most && its == Some(variant) && self.small(other) && schedule.ready(other, from) {
                    schedule.take(other);
                    count += 1;
                }
            }
        }
        schedule.order
    }

    /// The variant of a node's command, where it can share a dispatch.
    fn sharing(&self, id: Id) -> Option<Variant> {
        let lowered = op::lower(self.g, id)?;
        let operands = self.operands(&lowered);
        let variant = choose::body(&lowered.call, &operands, self.caps, self.g.node(id).exact).ok()?;
        Some(variant).filter(|v| most(v, self.caps) > 1)
    }
}

struct Schedule<'a> {
    planner: &'a Planner<'a>,
    done: Vec<bool>,
    order: Vec<Id>,
}

impl Schedule<'_> {
    /// Whether all that a node reads is there before the place `from`. Leaves are there when they are wanted.
    fn ready(&self, id: Id, from: usize) -> bool {
        if self.done[id.index()] {
            return false;
        }
        let there = |x: &Id| {
            let owner = self.planner.views.storage(self.planner.g, *x).0;
            let recent = || self.order[from..].contains(&owner);
            match self.planner.g.node(owner).op {
                Op::Leaf { .. } => true,
                Op::Second => {
                    let parent = self.planner.g.node(owner).inputs[0];
                    self.done[parent.index()] && !self.order[from..].contains(&parent)
                }
                _ => self.done[owner.index()] && !recent(),
            }
        };
        self.planner.g.node(id).inputs.iter().all(there)
    }
    /// A node next, after what it reads that has no command of its own.
    fn take(&mut self, id: Id) {
        let inputs = &self.planner.g.node(id).inputs;
        for x in inputs {
            let owner = self.planner.views.storage(self.planner.g, *x).0;
            let free = matches!(self.planner.g.node(owner).op, Op::Leaf { .. } | Op::Second);
            if free && self.planner.live[owner.index()] && !self.done[owner.index()] {
                self.done[owner.index()] = true;
                self.order.push(owner);
            }
        }
        self.done[id.index()] = true;
        self.order.push(id);
    }
}
