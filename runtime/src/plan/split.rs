//! Cutting a command whose operands exceed one binding into several that each bind a range of them.
//!
//! A kernel's work is a number of equal units (rows, images, single elements); per unit each operand has a fixed number
//! of elements, or is read whole. Pieces write disjoint ranges of the same outputs; each number comes from the same formula
//! and the same numbers as without the cut.
use super::{Place, Slot};
use crate::caps::Caps;
use crate::op::Lowered;
use alloc::{vec, vec::Vec};
use pentimento_wgsl::Kernel;

/// How a command divides.
struct Units {
    /// How many there are.
    count: usize,
    /// Elements of each argument that one unit owns; 0 for an argument read whole.
    each: Vec<usize>,
    /// Parameter words that count units, and by how much a unit counts.
    words: Vec<(usize, usize)>,
}

/// One part of a command.
pub(super) struct Piece {
    /// Parameters and cost.
    pub lowered: Lowered,
    /// Inputs, then outputs.
    pub args: Vec<Slot>,
}

/// Units of a kernel; `None` where its outputs do not divide into ranges.
fn units(l: &Lowered, args: &[Slot]) -> Option<Units> {
    let p = |i: usize| l.params.get(i).map_or(0, |&w| w as usize);
    let rows =
        |per: usize, each: Vec<usize>| Some(Units { count: p(0) / per.max(1), each, words: vec![(0, per)] });
    match l.kernel {
        Kernel::Unary => rows(1, vec![1, 1]),
        Kernel::UnaryBackward => rows(1, vec![1, 1, 1]),
        Kernel::Binary => binary(p(0), [p(2), p(3), p(4), p(5)]),
        Kernel::Sum => rows(p(2), vec![p(1) * p(2), p(2)]),
        Kernel::Slice => rows(p(1), vec![p(2), p(1)]),
        Kernel::Pad => rows(p(2), vec![p(1), p(2)]),
        Kernel::Concat => rows(p(1) + p(2), vec![p(1), p(2), p(1) + p(2)]),
        Kernel::Upsample => rows(4 * p(2) * p(3), vec![p(2) * p(3), 4 * p(2) * p(3)]),
        // A modulated layer norm has a scale and a shift for each batch of rows.
        Kernel::LayerNorm if p(3) == 1 => rows(p(4), vec![p(4) * p(1), p(1), p(1), p(4) * p(1)]),
        Kernel::LayerNorm => rows(1, vec![p(1), 0, 0, p(1)]),
        Kernel::LayerNormBackward => rows(1, vec![p(1); 3]),
        Kernel::RmsNorm => rows(1, vec![p(1), 0, p(1)]),
        Kernel::RmsNormBackward => rows(1, vec![p(1), 0, p(1), p(1)]),
        Kernel::Softmax => rows(1, vec![p(1); 2]),
        Kernel::GroupNorm => rows(p(5), vec![p(6) * p(1), 0, 0, p(6) * p(1)]),
        Kernel::Matmul => matmul(l),
        _ => images(l.kernel, p(0), args),
    }
}

/// The forms of repetition: one number or one row for all, none, or one row or number for each outer entry.
fn binary(n: usize, [sc, c, stride_o, stride_c]: [usize; 4]) -> Option<Units> {
    let (per, b, words) = match (stride_o, stride_c) {
        (0, 0) => (1, 0, vec![(0, 1)]),
        _ if sc == n && c == n => (1, 1, vec![(0, 1), (2, 1), (3, 1)]),
        _ if sc == n => (c, 0, vec![(0, c)]),
        _ => (sc, stride_o, vec![(0, sc)]),
    };
    Some(Units { count: n / per.max(1), each: vec![per, b, per], words })
}

/// Rows of a; with a gate, the batches of rows that share one.
fn matmul(l: &Lowered) -> Option<Units> {
    let [m, n, k, am, ak, _, _, flags, _, per] = *<&[u32; 10]>::try_from(l.params.as_slice()).ok()?;
    let [m, n, k, per] = [m, n, k, per].map(|v| v as usize);
    if ak != 1 || am as usize != k {
        return None;
    }
    let (gated, residual) = (flags & 2 != 0, flags & 4 != 0);
    let rows = if gated { per.max(1) } else { 1 };
    let each = vec![rows * k, 0, 0, if gated { n } else { 0 }, if residual { rows * n } else { 0 }, rows * n];
    Some(Units { count: m / rows, each, words: vec![(0, rows)] })
}

/// Kernels over batches: whatever is as long as a multiple of the batch and not shared belongs to it.
fn images(kernel: Kernel, batch: usize, args: &[Slot]) -> Option<Units> {
    let shared: &[usize] = match kernel {
        Kernel::Attention => &[3],
        Kernel::AttentionDq | Kernel::AttentionDkv => &[4],
        Kernel::AttentionStats => &[],
        Kernel::Conv2d => &[1, 2],
        _ => return None,
    };
    let own = |(i, s): (usize, &Slot)| if shared.contains(&i) { 0 } else { s.len / batch.max(1) };
    let each = args.iter().enumerate().map(own).collect();
    Some(Units { count: batch, each, words: vec![(0, 1)] })
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A range of an argument; `None` for one that cannot be bound from its middle.
fn part(slot: &Slot, each: usize, from: usize, units: usize) -> Option<Slot> {
    if each == 0 || slot.place == Place::Absent {
        return Some(*slot);
    }
    let skip = 4 * (each * from) as u64;
    let place = match slot.place {
        Place::Arena { slab, offset } => Place::Arena { slab, offset: offset + skip },
        Place::Input(offset) => Place::Input(offset + skip),
        // Leaves are bound whole; one that fits needs no range.
        _ => return None,
    };
    Some(Slot { place, len: each * units })
}

/// The pieces of a command, each within `caps.max_binding`; `None` where there is no such cut.
pub(super) fn split(l: &Lowered, args: &[Slot], caps: &Caps) -> Option<Vec<Piece>> {
    let u = units(l, args)?;
    let most = usize::try_from(caps.max_binding / 4).ok()?;
    let per = |i: usize| u.each.get(i).copied().unwrap_or(0);
    // Pieces begin at offsets that may be bound.
    let alignment = usize::try_from(caps.alignment / 4).ok()?.max(1);
    let mut step = 1;
    let mut room = u.count;
    for (i, slot) in args.iter().enumerate() {
        if per(i) == 0 {
            if slot.len > most {
                return None;
            }
            continue;
        }
        let align = alignment / gcd(alignment, per(i));
        step = step / gcd(step, align) * align;
        room = room.min(most / per(i));
    }
    let size = room / step * step;
    if size == 0 {
        return None;
    }
    let pieces = (0..u.count).step_by(size).map(|from| {
        let units = size.min(u.count - from);
        let args = args.iter().enumerate().map(|(i, s)| part(s, per(i), from, units));
        let mut params = l.params.clone();
        for &(word, by) in &u.words {
            *params.get_mut(word)? = u32::try_from(units * by).ok()?;
        }
        // Work and cost are proportional to the units.
        let share = |whole: usize| whole / u.count * units;
        let (work, flops) = (share(l.work), l.flops / u.count as u64 * units as u64);
        let lowered = Lowered { kernel: l.kernel, params, inputs: l.inputs.clone(), work, flops };
        Some(Piece { lowered, args: args.collect::<Option<_>>()? })
    });
    pieces.collect()
}
