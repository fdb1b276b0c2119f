//! Weights that stay in the host's memory and pass through the device while a plan runs.
//!
//! ```text
//! commands  | a  b  c  | d  e  f  g | h ..      what the commands of a window read of such weights lies side by side
//! window    | A  B  C  | D  E     G | A ..      in one room; the next window begins at the room's start again
//! ```
//!
//! Where a window begins and where a weight lies in it follows from the plan and the weights' sizes alone, so bind groups are the same in
//! every run, and the executor that counts has the same windows as the one that computes.
use super::memory::buffer;
use crate::plan::{Command, Place, Plan};
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, vec::Vec};

/// Bytes of a window, where no command's weights have more: some milliseconds of any bus, beside which a submit is nothing. A window
/// that held a whole block of SD3.5-medium (190 MB in f16) would save the way back one of its three passes, at three times these bytes.
pub(super) const WINDOW: u64 = 32 << 20;

/// A streamed weight in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Entry of [`Plan::leaves`].
    pub leaf: usize,
    /// Byte offset in the room.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What is in the room from one command on, until the next window begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// The first command that reads of it.
    pub start: usize,
    pub loads: Vec<Load>,
}

impl Window {
    /// Bytes from the room's start to the end of the last weight.
    pub fn bytes(&self) -> u64 {
        self.loads.iter().map(|load| load.offset + load.bytes).max().unwrap_or(0)
    }
    fn load(&self, leaf: usize) -> Option<&Load> {
        self.loads.iter().find(|load| load.leaf == leaf)
    }
}

/// The windows of one plan, in the order of its commands; none where all its weights are on the device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stream(Vec<Window>);

/// What windows are made for.
pub(super) struct Rules<'a> {
    /// Bytes of a window, where no command's weights have more.
    pub window: u64,
    /// Bindings begin at multiples of this, bytes.
    pub alignment: u64,
    /// Bytes of a leaf that is streamed, by name; `None` for all others.
    pub streamed: &'a dyn Fn(&str) -> Option<u64>,
}

/// Entries of [`Plan::leaves`] that a command reads.
fn read(c: &Command) -> impl Iterator<Item = usize> {
    c.args.iter().filter_map(|slot| match slot.place {
        Place::Leaf(leaf) => Some(leaf),
        Place::Absent | Place::Arena { .. } | Place::Input(_) | Place::Unpacked => None,
    })
}

impl Stream {
    /// Puts streamed weights side by side in the order of their first reader, until one does not fit.
    pub fn of(plan: &Plan, rules: &Rules<'_>) -> Self {
        let sizes: Vec<Option<u64>> = plan.leaves.iter().map(|leaf| (rules.streamed)(&leaf.name)).collect();
        let step = |bytes: u64| bytes.next_multiple_of(rules.alignment.max(16));
        let mut windows: Vec<Window> = Vec::new();
        for (start, c) in plan.commands.iter().enumerate() {
            // What shares a dispatch reads of one window.
            let all = &plan.commands[start..plan.commands.len().min(start + c.together as usize)];
            let wanted =
                || all.iter().flat_map(read).filter_map(|leaf| sizes[leaf].map(|bytes| (leaf, bytes)));
            let last = windows.last();
            let new = wanted().filter(|w| last.is_none_or(|window| window.load(w.0).is_none()));
            let new: BTreeMap<usize, u64> = new.collect();
            let more: u64 = new.values().map(|&bytes| step(bytes)).sum();
            if more == 0 {
                continue;
            }
            if last.is_none_or(|window| step(window.bytes()) + more > rules.window) {
                windows.push(Window { start, loads: Vec::new() });
            }
            let Some(window) = windows.last_mut() else { continue };
            for (leaf, bytes) in wanted() {
                if window.load(leaf).is_none() {
                    let offset = step(window.bytes());
                    window.loads.push(Load { leaf, offset, bytes });
                }
            }
        }
        Stream(windows)
    }

    /// Bytes of the room; 0 without windows.
    pub fn room(&self) -> u64 {
        self.0.iter().map(|window| buffer(window.bytes())).max().unwrap_or(0)
    }
    /// The window that a command reads of, if one has begun.
    fn window(&self, command: usize) -> Option<&Window> {
        let behind = self.0.partition_point(|window| window.start <= command);
        self.0.get(behind.checked_sub(1)?)
    }
    /// The window that begins with a command.
    pub fn begins(&self, command: usize) -> Option<&Window> {
        self.window(command).filter(|window| window.start == command)
    }
    /// Where the window that a command reads of ends: the first command of the next one, or `all`.
    pub fn until(&self, command: usize, all: usize) -> usize {
        let behind = self.0.partition_point(|window| window.start <= command);
        self.0.get(behind).map_or(all, |window| window.start)
    }
    /// Where a command finds a streamed weight; `None` for one that is on the device.
    pub fn offset(&self, command: usize, leaf: usize) -> Option<u64> {
        self.window(command)?.load(leaf).map(|load| load.offset)
    }

    /// Checks that every command finds what it reads, whole, where a binding may begin and nothing else lies.
    ///
    /// # Errors
    /// [`Error::Graph`] naming the command or the window.
    pub fn check(&self, plan: &Plan, rules: &Rules<'_>) -> Result<()> {
        let mut next = 0;
        for (i, window) in self.0.iter().enumerate() {
            let broken = |what: &str| Err(Error::Graph(format!("window {i} of streamed weights {what}")));
            if window.start < next || window.start >= plan.commands.len() {
                return broken("begins before the one in front of it, or past the last command");
            }
            if plan.commands[window.start].together == 0 {
                return broken("begins in the middle of a dispatch");
            }
            next = window.start + 1;
            let mut loads = window.loads.clone();
            loads.sort_by_key(|load| load.offset);
            if loads.windows(2).any(|pair| pair[0].offset + pair[0].bytes > pair[1].offset) {
                return broken("has one over another");
            }
            if loads.iter().any(|load| !load.offset.is_multiple_of(rules.alignment.max(1))) {
                return broken("has one where no binding may begin");
            }
        }
        for (i, c) in plan.commands.iter().enumerate() {
            for leaf in read(c) {
                let name = &plan.leaves[leaf].name;
                let Some(bytes) = (rules.streamed)(name) else { continue };
                let found = self.window(i).and_then(|window| window.load(leaf));
                if found.is_none_or(|load| load.bytes < bytes) {
                    let what = format!("command {i} ({}) reads `{name}`", c.variant.kernel());
                    return Err(Error::Graph(format!("{what}, which its window does not hold")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
