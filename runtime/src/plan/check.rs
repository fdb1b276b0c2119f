//! What is proved of a plan before it runs, because `wgpu` would not notice: it accepts overlapping `read_write` bindings.
use super::{Place, Plan, Slot};
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format};
use pentimento_wgsl::Stored;

/// A range of the arena's bytes: slab, first byte, end.
type Bytes = (usize, u64, u64);

/// Checks that no command writes outside the arena or over what it reads itself, and that every byte of the arena which a command reads, or
/// an output consists of, was written by an earlier command. So a plan is a function of its inputs and leaves alone, whatever another plan has
/// left in an arena that they share. Whether a later command
/// has meanwhile put another value there only the planner knows, which frees a value's memory after its last reader; it would show in results
/// that differ from those of [`Plan::unfused`], whose values lie elsewhere.
///
/// # Errors
/// [`Error::Graph`] naming the command or the output.
pub fn check_overlap(plan: &Plan) -> Result<()> {
    let size = |slab| plan.slabs.get(slab).copied().unwrap_or(plan.unpacked);
    let mut written = Written::default();
    for (i, c) in plan.commands.iter().enumerate() {
        let named = |what: &str| Error::Graph(format!("command {i} ({}) {what}", c.variant.kernel()));
        let (inputs, outputs) = c.args.split_at(c.args.len() - c.variant.outputs());
        if inputs.iter().filter_map(|s| range(plan, s)).any(|bytes| !written.covers(bytes)) {
            return Err(named("reads what no command before it wrote"));
        }
        for out in outputs {
            let Some(to) = range(plan, out) else {
                return Err(Error::Graph(format!("command {i} writes outside the arena")));
            };
            let hit = |s: &Slot| range(plan, s).is_some_and(|at| at.0 == to.0 && at.1 < to.2 && to.1 < at.2);
            if inputs.iter().any(hit) {
                return Err(named("writes over its own input"));
            }
            if to.2 > size(to.0) {
                return Err(Error::Graph(format!("command {i} writes past the end of slab {}", to.0)));
            }
        }
        outputs.iter().filter_map(|s| range(plan, s)).for_each(|bytes| written.add(bytes));
    }
    check_together(plan)?;
    let missing = |out: &&super::Named| range(plan, &out.slot).is_some_and(|bytes| !written.covers(bytes));
    match plan.outputs.iter().find(missing) {
        Some(out) => Err(Error::Graph(format!("no command writes the output `{}`", out.name))),
        None => Ok(()),
    }
}

/// Every command belongs to one dispatch, whose commands are of one variant and could run in any order.
fn check_together(plan: &Plan) -> Result<()> {
    let mut rest = plan.commands.as_slice();
    while let Some(first) = rest.first() {
        let broken = |what: &str| {
            let at = plan.commands.len() - rest.len();
            Err(Error::Graph(format!("the dispatch of command {at} ({}) {what}", first.variant.kernel())))
        };
        let count = first.together as usize;
        if count == 0 || count > rest.len() || rest[1..count].iter().any(|c| c.together != 0) {
            return broken("does not take the commands that it should");
        }
        let (all, later) = rest.split_at(count);
        let meet = |a: &Slot, b: &Slot| match (range(plan, a), range(plan, b)) {
            (Some(a), Some(b)) => a.0 == b.0 && a.1 < b.2 && b.1 < a.2,
            _ => false,
        };
        for (at, c) in all.iter().enumerate() {
            let others = all.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, c)| &c.args);
            if c.variant != first.variant
                || c.outputs().iter().any(|out| others.clone().any(|x| meet(out, x)))
            {
                return broken("has another kernel in it, or a command that another one depends on");
            }
        }
        rest = later;
    }
    Ok(())
}

fn range(plan: &Plan, s: &Slot) -> Option<Bytes> {
    match s.place {
        Place::Arena { slab, offset } => Some((slab, offset, offset + Stored::F32.bytes(s.len) as u64)),
        // A buffer of its own, as a slab after all others.
        Place::Unpacked => Some((plan.slabs.len(), 0, Stored::F16.bytes(s.len) as u64)),
        Place::Absent | Place::Input(_) | Place::Leaf(_) => None,
    }
}

/// Ranges that were written, by slab and first byte; never adjacent.
#[derive(Default)]
struct Written(BTreeMap<(usize, u64), u64>);

impl Written {
    /// The last range that begins there or before.
    fn before(&self, slab: usize, at: u64) -> Option<(u64, u64)> {
        self.0.range((slab, 0)..=(slab, at)).next_back().map(|(&(_, start), &end)| (start, end))
    }
    fn covers(&self, (slab, start, end): Bytes) -> bool {
        self.before(slab, start).is_some_and(|known| known.1 >= end)
    }
    fn add(&mut self, (slab, mut start, mut end): Bytes) {
        // Everything that touches it becomes one range with it.
        while let Some((from, to)) = self.before(slab, end).filter(|known| known.1 >= start) {
            (start, end) = (start.min(from), end.max(to));
            self.0.remove(&(slab, from));
        }
        self.0.insert((slab, start), end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together() {
        let mut w = Written::default();
        w.add((0, 0, 16));
        w.add((0, 32, 48));
        w.add((1, 16, 32));
        assert!(w.covers((0, 4, 16)) && !w.covers((0, 4, 20)) && !w.covers((0, 16, 32)));
        w.add((0, 16, 32));
        assert!(w.covers((0, 0, 48)) && !w.covers((0, 0, 49)) && w.0.len() == 2);
        w.add((0, 8, 64));
        w.add((0, 10, 20));
        assert!(w.covers((0, 0, 64)) && w.covers((1, 16, 32)) && !w.covers((2, 0, 1)) && w.0.len() == 2);
    }
}
