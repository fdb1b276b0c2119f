//! How a command's workgroups lie, and where a command becomes several dispatches because a device finishes what it has begun before it
//! does anything for another. The dispatches have the same kernel and the same arguments and begin with workgroups of their own, so each
//! number is computed by the same invocation as in one, and results keep their bits.
use super::Command;
use crate::caps::Caps;
use crate::{Error, Result};
use alloc::{format, vec::Vec};
use pentimento_wgsl::{Call, Variant};

/// Operations that a mid-range GPU makes while it moves a byte (4 TFLOP/s, 200 GB/s).
const BYTE: u64 = 20;
/// Most workgroups along x.
const WIDEST: u32 = 32768;

impl Command {
    /// A command without arguments, alone in its dispatch.
    pub(super) fn new(call: Call, variant: Variant, flops: u64) -> Self {
        let (args, shape) = (Vec::new(), Vec::new());
        Command { call, variant, args, groups: [1, 1], first: 0, together: 1, last: true, flops, shape }
    }
    /// Words of the uniform block.
    pub fn words(&self) -> Vec<u32> {
        let mut words = self.call.words();
        words.push(self.first);
        words
    }
    /// Workgroups.
    pub(super) fn count(&self) -> usize {
        self.call.groups(&self.variant)
    }
    /// Operations in whose time a device makes those of the command or moves what it reads and writes, whichever takes longer.
    pub(super) fn work(&self) -> u64 {
        let bytes = self.args.iter().zip(self.variant.bindings());
        let bytes: usize = bytes.map(|(slot, (_, kind))| kind.bytes(slot.len)).sum();
        self.flops.max(bytes as u64 * BYTE)
    }
}

/// A command of at most [`Caps::longest`], or several that are no shorter than a workgroup.
pub(super) fn dispatches(whole: Command, caps: &Caps) -> Result<Vec<Command>> {
    let count = whole.count();
    let pieces = usize::try_from(whole.work().div_ceil(caps.longest.max(1))).unwrap_or(usize::MAX);
    let widest = widest(caps);
    let mut each = count.div_ceil(pieces.max(1)).max(1);
    if each > widest {
        // Whole rows: what lies beyond a folded grid's end would be computed twice.
        each = each.next_multiple_of(widest);
    }
    let piece = |first: usize| {
        let own = each.min(count - first);
        let flops = (u128::from(whole.flops) * own as u128 / count.max(1) as u128) as u64;
        let groups = fold(own, widest).filter(|g| g[1] <= caps.max_groups && u32::try_from(count).is_ok());
        let groups = groups.ok_or_else(|| too_many(&whole, count, caps))?;
        Ok(Command { groups, first: first as u32, last: first + own == count, flops, ..whole.clone() })
    };
    (0..count.max(1)).step_by(each).map(piece).collect()
}

/// Most workgroups along x.
pub(super) fn widest(caps: &Caps) -> usize {
    WIDEST.min(caps.max_groups) as usize
}

/// Workgroups along x and y.
pub(super) fn fold(count: usize, widest: usize) -> Option<[u32; 2]> {
    let x = count.min(widest).max(1);
    let y = count.div_ceil(x).max(1);
    Some([u32::try_from(x).ok()?, u32::try_from(y).ok()?])
}

fn too_many(whole: &Command, count: usize, caps: &Caps) -> Error {
    let name = whole.call.kernel();
    let reason = format!("{count} workgroups of {name} do not fit one dispatch; use a smaller batch");
    Error::Device { device: caps.name.clone(), reason }
}
