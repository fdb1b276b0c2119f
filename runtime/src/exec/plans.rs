//! The plans of an executor. They never run at the same time, so one arena serves all, as large as the plan needs it that needs most. A
//! plan is a function of its inputs and leaves (`plan::check_overlap`), so what lies there between runs matters to none; but the values of one
//! are gone when another has run.
use super::memory::Sizes;
use super::stream::{Rules, Stream};
use super::{PlanId, null};
use crate::plan::{Place, Plan, Slot, check_overlap};
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, vec::Vec};

/// A plan and what an executor keeps with it.
pub(super) struct Held<T> {
    pub plan: Plan,
    /// How its streamed weights come to the device.
    pub stream: Stream,
    /// Commands behind us.
    pub cursor: usize,
    pub own: T,
}

impl<T> Held<T> {
    /// Whether its last command has run.
    pub fn done(&self) -> bool {
        self.cursor >= self.plan.commands.len()
    }
}

/// All plans, by ids of which none is given twice.
pub(super) struct Plans<T> {
    all: BTreeMap<usize, Held<T>>,
    next: usize,
    /// Whose values are in the arena.
    owner: Option<usize>,
    /// What the plans want together.
    wanted: Sizes,
    /// What there is.
    room: Sizes,
}

impl<T> Default for Plans<T> {
    fn default() -> Self {
        let (wanted, room) = (Sizes::default(), Sizes::default());
        Plans { all: BTreeMap::new(), next: 0, owner: None, wanted, room }
    }
}

/// What of the shared memory has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Arena, unpacked weight and window.
    pub arena: bool,
    pub readback: bool,
}

/// What a forgotten plan looks like.
pub(super) static NONE: Plan = Plan {
    commands: Vec::new(),
    slabs: Vec::new(),
    input_bytes: 0,
    unpacked: 0,
    inputs: Vec::new(),
    outputs: Vec::new(),
    leaves: Vec::new(),
    flops: 0,
};

pub(super) fn forgotten(id: PlanId) -> Error {
    Error::missing("executor", format!("plan {}, which was forgotten", id.0))
        .with_hint("Make it anew where it is still needed.")
}

/// What every plan has to keep to.
pub(super) fn check(plan: &Plan, leaf_len: &dyn Fn(&str) -> Option<usize>) -> Result<()> {
    null::check_leaves(plan, leaf_len)?;
    check_overlap(plan)
}
/// How a plan's streamed weights come to the device.
pub(super) fn stream(plan: &Plan, rules: &Rules<'_>) -> Result<Stream> {
    let stream = Stream::of(plan, rules);
    stream.check(plan, rules).map(|()| stream)
}

impl<T> Plans<T> {
    pub fn get(&self, id: PlanId) -> Result<&Held<T>> {
        self.all.get(&id.0).ok_or_else(|| forgotten(id))
    }
    pub fn get_mut(&mut self, id: PlanId) -> Result<&mut Held<T>> {
        self.all.get_mut(&id.0).ok_or_else(|| forgotten(id))
    }
    /// A plan; an empty one in place of a forgotten one.
    pub fn plan(&self, id: PlanId) -> &Plan {
        self.all.get(&id.0).map_or(&NONE, |held| &held.plan)
    }
    pub fn each_mut(&mut self) -> impl Iterator<Item = &mut Held<T>> {
        self.all.values_mut()
    }
    /// The ids of plans that were made after `since` others.
    #[cfg(feature = "wgpu")]
    pub fn ids_since(&self, since: usize) -> Vec<PlanId> {
        self.all.range(since..).map(|(&id, _)| PlanId(id)).collect()
    }
    /// Plans that were ever made.
    #[cfg(feature = "wgpu")]
    pub fn made(&self) -> usize {
        self.next
    }

    pub fn insert(&mut self, plan: Plan, stream: Stream, own: T) -> PlanId {
        self.wanted = core::mem::take(&mut self.wanted).joined(&Sizes::of(&plan, &stream));
        let id = self.next;
        self.next += 1;
        self.all.insert(id, Held { plan, stream, cursor: 0, own });
        PlanId(id)
    }
    /// Takes a plan out; [`Plans::kept`] tells what the others still fit.
    pub fn remove(&mut self, id: PlanId) -> Result<Held<T>> {
        let held = self.all.remove(&id.0).ok_or_else(|| forgotten(id))?;
        self.owner = self.owner.filter(|&owner| owner != id.0);
        let all = self.all.values().map(|held| Sizes::of(&held.plan, &held.stream));
        self.wanted = all.fold(Sizes::default(), |sum, one| sum.joined(&one));
        Ok(held)
    }
    #[cfg(feature = "wgpu")]
    pub fn clear(&mut self) {
        self.all.clear();
        (self.owner, self.wanted, self.room) = (None, Sizes::default(), Sizes::default());
    }
    /// Refuses to part with leaves that a plan reads.
    pub fn reads_none(&self, prefix: &str) -> Result<()> {
        let mut leaves = self.all.values().flat_map(|held| &held.plan.leaves);
        match leaves.find(|leaf| leaf.name.starts_with(prefix)) {
            None => Ok(()),
            Some(leaf) => {
                let found = format!("one that reads `{}`", leaf.name);
                Err(Error::bad("executor", format!("no plan that reads `{prefix}..`"), found)
                    .with_hint("Forget the plans before their weights."))
            }
        }
    }

    /// The room for a plan and all others.
    pub fn with(&self, plan: &Plan, stream: &Stream) -> Sizes {
        self.wanted.clone().joined(&Sizes::of(plan, stream))
    }
    /// What the plans want together.
    pub fn wanted(&self) -> Sizes {
        self.wanted.clone()
    }
    /// What of the room has the size that is wanted. The rest is to be freed at once, and comes back with the next run.
    pub fn kept(&self) -> Sizes {
        let Change { arena, readback } = self.change(&self.wanted);
        Sizes {
            slabs: if arena { Vec::new() } else { self.room.slabs.clone() },
            unpacked: if arena { 0 } else { self.room.unpacked },
            window: if arena { 0 } else { self.room.window },
            readback: if readback { 0 } else { self.room.readback },
        }
    }
    fn change(&self, to: &Sizes) -> Change {
        Change {
            arena: (&self.room.slabs, self.room.unpacked, self.room.window)
                != (&to.slabs, to.unpacked, to.window),
            readback: self.room.readback != to.readback,
        }
    }
    /// Changes the room and tells what has to be made anew; the values in it are lost.
    pub fn fit(&mut self, to: &Sizes) -> Change {
        let change = self.change(to);
        if change.arena {
            self.owner = None;
        }
        self.room = to.clone();
        change
    }

    pub fn rewind(&mut self, id: PlanId) {
        if let Some(held) = self.all.get_mut(&id.0) {
            held.cursor = 0;
        }
    }
    /// A plan whose next command is about to run. It begins anew if another one has run since its last.
    pub fn start(&mut self, id: PlanId) -> Result<&mut Held<T>> {
        let held = self.all.get_mut(&id.0).ok_or_else(|| forgotten(id))?;
        if !held.done() {
            if self.owner != Some(id.0) {
                held.cursor = 0;
            }
            self.owner = Some(id.0);
        }
        Ok(held)
    }
    /// Whether a value is still there: `what` names it.
    pub fn holds(&self, id: PlanId, slot: &Slot, what: &str) -> Result<()> {
        match slot.place {
            Place::Arena { .. } | Place::Unpacked if self.owner != Some(id.0) => {
                self.get(id)?;
                Err(Error::missing(
                    what,
                    "the values: their plan did not run, or another plan has been prepared or run since",
                )
                .with_hint("Read what a plan computed before anything else runs."))
            }
            Place::Arena { .. } | Place::Unpacked | Place::Absent | Place::Input(_) | Place::Leaf(_) => {
                Ok(())
            }
        }
    }
}
