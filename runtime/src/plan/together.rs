//! Commands that share a dispatch. A GPU ends one dispatch before it begins the next that may read what it wrote, so a small product (a
//! text's tokens, an adapter's factors) leaves most of it idle, at the end of each dispatch and from its beginning. Commands of one
//! variant that follow each other and do not depend on each other become one (`pentimento_wgsl::together`). Each remains a command, with
//! its own arguments, twin and place among the plan's.
use super::dispatch::{dispatches, fold, widest};
use super::{Command, Place, Planner, Slot};
use crate::Result;
use crate::caps::Caps;
use crate::graph::Id;
use alloc::vec::Vec;
use pentimento_wgsl::together::shareable;
use pentimento_wgsl::{Stored, Variant};

/// Bytes of a result, at most, for a command to join others or be taken early: what makes more fills a GPU alone, and would be kept longer.
/// An image's hidden layer at 512 x 512 and its tokens at 1024 x 1024, SD3.5-medium with two prompts, have less.
const LARGEST: usize = 56 << 20;

/// Commands that more may join. Until it is closed nothing that they read or write is free.
#[derive(Default)]
pub(super) struct Open {
    commands: Vec<Command>,
    /// What goes on with their results, when all of them are there.
    after: Vec<Command>,
    /// Slab, first byte and bytes of what is free afterwards.
    pub scratch: Vec<(usize, u64, u64)>,
    /// Place of the last one in the planner's order.
    pub until: usize,
}

impl Open {
    pub fn add(&mut self, commands: Vec<Command>, after: Option<Command>) {
        self.commands.extend(commands);
        self.after.extend(after);
    }
}

impl Planner<'_> {
    /// Whether a command could share a dispatch with the open ones.
    pub(super) fn joins(&self, id: Id, variant: &Variant, inputs: &[Slot]) -> bool {
        let open = &self.open.commands;
        let like = !open.is_empty() && open.iter().all(|c| c.variant == *variant);
        let room = open.len() < most(variant, self.caps);
        let written = |c: &Command| c.outputs().iter().any(|out| inputs.iter().any(|x| overlap(out, x)));
        like && room && self.small(id) && !open.iter().chain(&self.open.after).any(written)
    }

    /// Whether a node's command may join others.
    pub(super) fn small(&self, id: Id) -> bool {
        Stored::F32.bytes(self.g.len(id)) <= LARGEST
    }

    /// Adds the open commands to the plan and frees what no later one reads.
    pub(super) fn close(&mut self) -> Result<()> {
        let open = core::mem::take(&mut self.open);
        for commands in [open.commands, open.after] {
            let from = self.plan.commands.len();
            for command in commands {
                self.plan.commands.extend(dispatches(command, self.caps)?);
            }
            share(&mut self.plan.commands[from..], self.caps);
        }
        for (slab, offset, bytes) in open.scratch {
            self.arena.give(slab, offset, bytes);
        }
        self.release(open.until);
        Ok(())
    }
}

impl Command {
    /// What it writes.
    pub fn outputs(&self) -> &[Slot] {
        &self.args[self.args.len() - self.variant.outputs()..]
    }
}

fn overlap(a: &Slot, b: &Slot) -> bool {
    match (a.place, b.place) {
        (Place::Arena { slab: sa, offset: a0 }, Place::Arena { slab: sb, offset: b0 }) => {
            let [a1, b1] = [(a0, a.len), (b0, b.len)].map(|(at, len)| at + Stored::F32.bytes(len) as u64);
            sa == sb && a0 < b1 && b0 < a1
        }
        (a, b) => a == b && a == Place::Unpacked,
    }
}

/// Puts commands that do not depend on each other into as few dispatches as the device and [`Caps::longest`] allow.
fn share(mut commands: &mut [Command], caps: &Caps) {
    while !commands.is_empty() {
        let (head, rest) = commands.split_at_mut(together(commands, caps));
        if head.len() > 1 {
            let mut before = 0;
            for c in head.iter_mut() {
                (c.first, c.together, c.groups) = (0u32.wrapping_sub(before as u32), 0, [0, 0]);
                before += c.count();
            }
            (head[0].together, head[0].groups) =
                (head.len() as u32, fold(before, widest(caps)).unwrap_or([1, 1]));
        }
        commands = rest;
    }
}

/// Commands of a variant that can share a dispatch; one that cannot is alone in its own. Uniform blocks count as bindings, because Metal
/// has 31 places for all buffers of a stage and takes one itself.
pub(super) fn most(variant: &Variant, caps: &Caps) -> usize {
    let places = caps.storage_bindings.saturating_sub(1);
    let most = shareable(variant).map_or(1, |bindings| caps.together.min(places / (bindings + 1)));
    most.max(1) as usize
}

/// How many of them the first dispatch takes; at least one.
fn together(commands: &[Command], caps: &Caps) -> usize {
    let variant = &commands[0].variant;
    let (mut count, mut groups, mut work) = (0, 0usize, 0u64);
    for c in commands.iter().take(most(variant, caps)) {
        (groups, work) = (groups.saturating_add(c.count()), work.saturating_add(c.work()));
        let whole = c.first == 0 && c.last && c.variant == *variant;
        let fits = fold(groups, widest(caps)).is_some_and(|g| g[1] <= caps.max_groups) && groups < 1 << 30;
        if !whole || !fits || work > caps.longest {
            break;
        }
        count += 1;
    }
    count.max(1)
}
