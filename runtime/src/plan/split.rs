//! Commands whose arguments are larger than a binding, cut into ranges of rows. The pieces read and write parts of the
//! same tensors with the same kernel, so results keep their bits; nothing is copied. How a call can be cut, its family
//! says (`Call::rows`).
use super::{Command, Place, Slot};
use crate::caps::Caps;
use alloc::vec::Vec;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::{Part, Rows};

/// Pieces that together do what `whole` does; `None` where its kernel cannot be cut so.
/// `bytes`: what each argument binds, 0 for one that no limit concerns.
pub(super) fn split(whole: &Command, bytes: &[u64], caps: &Caps) -> Option<Vec<Command>> {
    let rows = rows(whole)?;
    let mut most = rows.count;
    for (part, &bytes) in rows.parts.iter().zip(bytes) {
        match part {
            Part::Rows(_) => {
                let row = bytes.div_ceil(rows.count as u64).max(1);
                most = most.min(usize::try_from(caps.max_binding / row).ok()?);
            }
            _ if bytes > caps.max_binding => return None,
            _ => {}
        }
    }
    let ranges = ranges(&rows, most, caps.alignment)?;
    ranges.into_iter().map(|(start, count)| piece(whole, &rows, start, count)).collect()
}

fn piece(whole: &Command, rows: &Rows, start: usize, count: usize) -> Option<Command> {
    let mut c = whole.clone();
    for (slot, part) in c.args.iter_mut().zip(&rows.parts) {
        *slot = match *part {
            Part::Whole => *slot,
            Part::Rows(n) => range(slot, start * n, count * n)?,
            Part::Group { rows, len } => range(slot, start / rows * len, count.div_ceil(rows) * len)?,
        };
    }
    *c.call.counted() = u32::try_from(count * rows.unit).ok()?;
    c.flops = c.flops / rows.count as u64 * count as u64;
    Some(c)
}

/// A part of a tensor; leaves are bound from their beginning only.
fn range(slot: &Slot, start: usize, len: usize) -> Option<Slot> {
    let bytes = Stored::F32.bytes(start) as u64;
    let place = match slot.place {
        Place::Absent => return Some(*slot),
        Place::Arena { slab, offset } => Place::Arena { slab, offset: offset + bytes },
        Place::Input(offset) => Place::Input(offset + bytes),
        Place::Leaf(_) | Place::Unpacked => return None,
    };
    (start + len <= slot.len).then_some(Slot { place, len })
}

/// Ranges (first row, rows) of at most `most` rows such that every argument begins at an aligned offset and no range
/// reaches from the middle of a group into the next.
fn ranges(rows: &Rows, most: usize, alignment: u64) -> Option<Vec<(usize, usize)>> {
    let aligned = |len: usize| alignment as usize / gcd(alignment as usize, Stored::F32.bytes(len)); // so many, or multiples of it
    let mut unit = 1;
    let mut whole_groups = 1;
    let mut group: Option<usize> = None;
    for part in &rows.parts {
        match *part {
            Part::Rows(len) if len > 0 => unit = lcm(unit, aligned(len)),
            Part::Group { rows, len } => {
                if group.is_some_and(|g| g != rows) {
                    return None;
                }
                group = Some(rows);
                whole_groups = lcm(whole_groups, aligned(len));
            }
            _ => {}
        }
    }
    let Some(group) = group else { return cut(0, rows.count, most / unit * unit) };
    let several = lcm(unit, whole_groups * group);
    if several <= most {
        return cut(0, rows.count, most / several * several);
    }
    if whole_groups != 1 || !group.is_multiple_of(unit) {
        return None;
    }
    let mut all = Vec::new();
    for start in (0..rows.count).step_by(group) {
        all.extend(cut(start, group.min(rows.count - start), most / unit * unit)?);
    }
    Some(all)
}

fn cut(start: usize, count: usize, step: usize) -> Option<Vec<(usize, usize)>> {
    if step == 0 {
        return None;
    }
    Some((0..count).step_by(step).map(|i| (start + i, step.min(count - i))).collect())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
fn lcm(a: usize, b: usize) -> usize {
    a / gcd(a, b).max(1) * b
}

/// How a command can be cut. A group that holds all rows is simply there.
fn rows(c: &Command) -> Option<Rows> {
    let mut rows = c.call.rows().filter(|r| r.count > 1 && r.parts.len() == c.args.len())?;
    for part in &mut rows.parts {
        if matches!(part, Part::Group { rows: group, .. } if *group == 0 || *group >= rows.count) {
            *part = Part::Whole;
        }
    }
    Some(rows)
}
