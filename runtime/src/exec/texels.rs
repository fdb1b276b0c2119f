//! Which tensors a plan's commands find as texels, in the order of their first run; the textures themselves are an executor's.
use super::memory::{ROW_BYTES, texture_rows};
use crate::plan::{Command, Place, Slot};
use alloc::vec::Vec;
use pentimento_wgsl::{Binding, Stored};

/// Textures of one plan, reused in order of age; remembers which tensor each holds.
#[derive(Default)]
pub(super) struct Texels {
    held: Vec<Texture>,
    clock: u64,
}

struct Texture {
    slot: Slot,
    valid: bool,
    used: u64,
    rows: u32,
}

/// Textures kept per height before the oldest is reused: q, k, v, dy and the operands of a matmul fit.
const KEPT: usize = 6;

impl Texels {
    /// The texture for a tensor, counted from 0, and whether it must be filled. The one after the last is to be made.
    pub fn get(&mut self, slot: &Slot) -> (usize, bool) {
        self.clock += 1;
        let (clock, rows) = (self.clock, texture_rows(slot.len));
        if let Some(at) = self.held.iter().position(|h| h.valid && h.slot == *slot) {
            self.held[at].used = clock;
            return (at, false);
        }
        let new = Texture { slot: *slot, valid: true, used: clock, rows };
        let alike = || self.held.iter().enumerate().filter(|(_, h)| h.rows == rows);
        let oldest = alike().min_by_key(|(_, h)| (h.valid, h.used)).map(|(at, _)| at);
        if let (Some(at), true) = (oldest, alike().count() >= KEPT) {
            self.held[at] = new;
            return (at, true);
        }
        self.held.push(new);
        (self.held.len() - 1, true)
    }
    /// Forgets what a command has overwritten.
    pub fn written(&mut self, outputs: &[Slot]) {
        let range = |s: &Slot| match s.place {
            Place::Arena { slab, offset } => (slab, offset, offset + Stored::F32.bytes(s.len) as u64),
            Place::Absent | Place::Input(_) | Place::Leaf(_) | Place::Unpacked => (usize::MAX, 0, 0),
        };
        for out in outputs {
            let (slab, start, end) = range(out);
            for h in &mut self.held {
                let (b, from, to) = range(&h.slot);
                if b == slab && from < end && start < to {
                    h.valid = false;
                }
            }
        }
    }
    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.held.iter().map(|h| u64::from(h.rows) * ROW_BYTES).sum()
    }
    /// What a command does to them; returns the leaves that it reads as texels, which are no plan's unless they are streamed.
    pub fn run(&mut self, c: &Command, streamed: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut leaves = Vec::new();
        for ((_, kind), slot) in c.variant.bindings().iter().zip(&c.args) {
            match (kind, slot.place) {
                (Binding::Texture, Place::Leaf(leaf)) if !streamed(leaf) => leaves.push(leaf),
                (Binding::Texture, _) => drop(self.get(slot)),
                (Binding::Storage | Binding::Written(_) | Binding::Packed(_), _) => {}
            }
        }
        self.written(&c.args[c.args.len() - c.variant.outputs()..]);
        leaves
    }
}
