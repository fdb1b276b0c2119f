//! Commands whose arguments are larger than a binding, cut into ranges of rows. The pieces read and write parts of the
//! same tensors with the same kernel, so results keep their bits; nothing is copied.
use super::{Command, Place, Slot};
use alloc::{vec, vec::Vec};
use pentimento_wgsl::Kernel;

/// How an argument goes with the rows that a command is cut by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// Every row reads all of it.
    Whole,
    /// So many numbers a row.
    Rows(usize),
    /// `len` numbers for every `rows` rows, as gates and modulations of one image.
    Group { rows: usize, len: usize },
}

/// The rows of a command.
struct Rows {
    /// How many there are.
    count: usize,
    /// The parameter that counts them, and what it counts for each.
    word: (usize, usize),
    parts: Vec<Part>,
}

/// What bounds a piece.
pub(super) struct Bounds {
    /// Bytes of a binding.
    pub binding: u64,
    /// Bindings begin at multiples of this, bytes.
    pub alignment: u64,
}

/// Pieces that together do what `whole` does, each with its share of `work`; `None` where its kernel cannot be cut so.
/// `bytes`: what each argument binds, 0 for one that no limit concerns.
pub(super) fn split(
    whole: &Command,
    work: usize,
    bytes: &[u64],
    bounds: &Bounds,
) -> Option<Vec<(Command, usize)>> {
    let rows = rows(whole)?;
    let mut most = rows.count;
    for (part, &bytes) in rows.parts.iter().zip(bytes) {
        match part {
            Part::Rows(_) => {
                let row = bytes.div_ceil(rows.count as u64).max(1);
                most = most.min(usize::try_from(bounds.binding / row).ok()?);
            }
            _ if bytes > bounds.binding => return None,
            _ => {}
        }
    }
    let ranges = ranges(&rows, most, bounds.alignment)?;
    ranges.into_iter().map(|(start, count)| piece(whole, &rows, work, start, count)).collect()
}

fn piece(whole: &Command, rows: &Rows, work: usize, start: usize, count: usize) -> Option<(Command, usize)> {
    let mut c = whole.clone();
    for (slot, part) in c.args.iter_mut().zip(&rows.parts) {
        *slot = match *part {
            Part::Whole => *slot,
            Part::Rows(n) => range(slot, start * n, count * n)?,
            Part::Group { rows, len } => range(slot, start / rows * len, count.div_ceil(rows) * len)?,
        };
    }
    *c.params.get_mut(rows.word.0)? = u32::try_from(count * rows.word.1).ok()?;
    c.flops = c.flops / rows.count as u64 * count as u64;
    Some((c, work / rows.count * count))
}

/// A part of a tensor; leaves are bound from their beginning only.
fn range(slot: &Slot, start: usize, len: usize) -> Option<Slot> {
    let bytes = 4 * start as u64;
    let place = match slot.place {
        Place::Absent => return Some(*slot),
        Place::Arena { slab, offset } => Place::Arena { slab, offset: offset + bytes },
        Place::Input(offset) => Place::Input(offset + bytes),
        Place::Leaf(_) => return None,
    };
    (start + len <= slot.len).then_some(Slot { place, len })
}

/// Ranges (first row, rows) of at most `most` rows such that every argument begins at an aligned offset and no range
/// reaches from the middle of a group into the next.
fn ranges(rows: &Rows, most: usize, alignment: u64) -> Option<Vec<(usize, usize)>> {
    let aligned = |len: usize| alignment as usize / gcd(alignment as usize, 4 * len); // so many, or multiples of it
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

/// How a command can be cut; the parameters are those of its shader.
fn rows(c: &Command) -> Option<Rows> {
    use Part::{Group, Rows as Row, Whole};
    let p = |i: usize| c.params.get(i).map_or(0, |&v| v as usize);
    let rows = |count: usize, word: (usize, usize), parts: Vec<Part>| Some(Rows { count, word, parts });
    let found = match c.variant.kernel {
        Kernel::Unary => rows(p(0), (0, 1), vec![Row(1); 2]),
        Kernel::UnaryBackward => rows(p(0), (0, 1), vec![Row(1); 3]),
        Kernel::Binary => {
            let (n, sc, c, outer, inner) = (p(0), p(2), p(3), p(4), p(5));
            match (outer, inner) {
                (o, 1) if o == c && sc == c => rows(n, (0, 1), vec![Row(1); 3]), // the same shape
                (0, 0) => rows(n, (0, 1), vec![Row(1), Whole, Row(1)]),
                (0, _) => rows(n / c.max(1), (0, c), vec![Row(c), Whole, Row(c)]),
                (o, _) => {
                    let b = Group { rows: sc / c.max(1), len: o };
                    rows(n / c.max(1), (0, c), vec![Row(c), b, Row(c)])
                }
            }
        }
        k if k.by_row() => norm(k, &p),
        Kernel::Slice => rows(p(0) / p(1).max(1), (0, p(1)), vec![Row(p(2)), Row(p(1))]),
        Kernel::Pad => rows(p(0) / p(2).max(1), (0, p(2)), vec![Row(p(1)), Row(p(2))]),
        Kernel::Concat => {
            let (a, b) = (p(1), p(2));
            rows(p(0) / (a + b).max(1), (0, a + b), vec![Row(a), Row(b), Row(a + b)])
        }
        Kernel::Sum => {
            let inner = p(2);
            rows(p(0) / inner.max(1), (0, inner), vec![Row(p(1) * inner), Row(inner)])
        }
        Kernel::Matmul if p(3) == p(2) && p(4) == 1 => {
            let (n, k) = (p(1), p(2));
            let gate = if p(7) & 2 != 0 { Group { rows: p(9), len: n } } else { Whole };
            rows(p(0), (0, 1), vec![Row(k), Whole, Whole, gate, Row(n), Row(n)])
        }
        Kernel::Upsample => {
            let small = p(2) * p(3);
            rows(p(0) / (4 * small).max(1), (0, 4 * small), vec![Row(small), Row(4 * small)])
        }
        Kernel::Attention
        | Kernel::AttentionDq
        | Kernel::AttentionDkv
        | Kernel::AttentionStats
        | Kernel::Conv2d
        | Kernel::Conv2dDx => images(c, p(0)),
        _ => None,
    };
    let mut found = found.filter(|r| r.count > 1 && r.parts.len() == c.args.len())?;
    for part in &mut found.parts {
        if matches!(part, Group { rows, .. } if *rows == 0 || *rows >= found.count) {
            *part = Whole;
        }
    }
    Some(found)
}

/// Norms and softmax are cut by rows, group norms by images.
fn norm(kernel: Kernel, p: &dyn Fn(usize) -> usize) -> Option<Rows> {
    use Part::{Group, Rows as Row, Whole};
    let (c, image) = (p(1), p(6) * p(1));
    let by_row = |parts: Vec<Part>| Some(Rows { count: p(0), word: (0, 1), parts });
    let by_image = |parts: Vec<Part>| Some(Rows { count: p(0) / p(5).max(1), word: (0, p(5)), parts });
    match kernel {
        Kernel::LayerNorm => {
            let w = if p(3) == 1 { Group { rows: p(4), len: c } } else { Whole };
            by_row(vec![Row(c), w, w, Row(c)])
        }
        Kernel::LayerNormBackward | Kernel::SoftmaxBackward => by_row(vec![Row(c); 3]),
        Kernel::RmsNorm => by_row(vec![Row(c), Whole, Row(c)]),
        Kernel::RmsNormBackward => by_row(vec![Row(c), Whole, Row(c), Row(c)]),
        Kernel::Softmax => by_row(vec![Row(c); 2]),
        Kernel::GroupNorm => by_image(vec![Row(image), Whole, Whole, Row(image)]),
        Kernel::GroupNormBackward => by_image(vec![Row(image), Whole, Row(image), Row(image)]),
        _ => None,
    }
}

/// Attention and convolution are cut by images; biases and convolution kernels are shared by them.
fn images(c: &Command, batch: usize) -> Option<Rows> {
    let shared: &[usize] = match c.variant.kernel {
        Kernel::Attention => &[3],
        Kernel::AttentionStats => &[],
        Kernel::Conv2d => &[1, 2],
        Kernel::Conv2dDx => &[1],
        _ => &[4],
    };
    let part = |(i, s): (usize, &Slot)| {
        if shared.contains(&i) { Part::Whole } else { Part::Rows(s.len / batch.max(1)) }
    };
    Some(Rows { count: batch, word: (0, 1), parts: c.args.iter().enumerate().map(part).collect() })
}
