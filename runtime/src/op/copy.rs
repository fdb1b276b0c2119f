//! Operations that only move numbers.
use super::Lowered;
use crate::Result;
use crate::graph::{Graph, Id, Node, Op};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::copy as kernel;
use pentimento_wgsl::kernel::copy::{Axes, Image, Joint, Window};

impl Graph {
    /// The same numbers in another shape.
    pub fn reshape(&mut self, x: Id, shape: &[usize]) -> Id {
        if self.shape(x) == shape {
            return x;
        }
        if self.len(x) != shape.iter().product::<usize>() {
            return self.fail(format!("reshape of {:?} to {shape:?}", self.shape(x)));
        }
        self.push(Op::Reshape, vec![x], shape.to_vec())
    }
    /// Stops gradients on purpose.
    pub fn detach(&mut self, x: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.push(Op::Detach, vec![x], shape)
    }
    /// `x`, where a backward pass may change the scale of what it carries: kernels on cooperative matrices round their operands to
    /// f16, which ends at 6e-8 and 65504. Where the gradients of everything asked for pass through here and nowhere else,
    /// [`crate::grad::gradients`] multiplies them by a power of two that makes their mean size about 1/8, and divides its
    /// results by it: the numbers are the same, but for what f16 could not have held.
    pub fn balance(&mut self, x: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.push(Op::Balance, vec![x], shape)
    }
    /// `len` entries of `axis` from `start`.
    pub fn slice(&mut self, x: Id, axis: usize, start: usize, len: usize) -> Id {
        let mut shape = self.shape(x).to_vec();
        if axis >= shape.len() || start + len > shape[axis] {
            return self.fail(format!("slice {start}..{} of axis {axis} of {shape:?}", start + len));
        }
        let n = core::mem::replace(&mut shape[axis], len);
        let inner = shape[axis + 1..].iter().product();
        self.push(Op::Slice { n, inner, start, len }, vec![x], shape)
    }
    /// x at `start` of an `axis` of `n` entries, zeros around it; the transpose of [`Graph::slice`].
    pub fn pad(&mut self, x: Id, axis: usize, start: usize, n: usize) -> Id {
        let mut shape = self.shape(x).to_vec();
        if axis >= shape.len() || start + shape[axis] > n {
            return self.fail(format!("pad of axis {axis} of {shape:?} to {n} entries from {start}"));
        }
        let len = core::mem::replace(&mut shape[axis], n);
        let inner = shape[axis + 1..].iter().product();
        self.push(Op::Pad { n, inner, start, len }, vec![x], shape)
    }
    /// a then b along `axis`.
    pub fn concat(&mut self, a: Id, b: Id, axis: usize) -> Id {
        let (sa, sb) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        let same = sa.len() == sb.len() && (0..sa.len()).all(|i| i == axis || sa[i] == sb[i]);
        if !same || axis >= sa.len() {
            return self.fail(format!("concat of {sa:?} and {sb:?} along axis {axis}"));
        }
        let mut shape = sa.clone();
        shape[axis] += sb[axis];
        let op = Op::Concat { a: sa[axis..].iter().product(), b: sb[axis..].iter().product() };
        self.push(op, vec![a, b], shape)
    }
    /// Axes in another order: output axis i is input axis `axes[i]`. At most five axes.
    pub fn permute(&mut self, x: Id, axes: &[usize]) -> Id {
        let s = self.shape(x).to_vec();
        let mut seen = axes.to_vec();
        seen.sort_unstable();
        if axes.len() != s.len() || s.len() > 5 || seen.iter().enumerate().any(|(i, &a)| i != a) {
            return self.fail(format!("permute of {s:?} by {axes:?}"));
        }
        let shape = axes.iter().map(|&a| s[a]).collect();
        self.push(Op::Permute { axes: axes.to_vec() }, vec![x], shape)
    }
}

pub(super) fn backward(g: &mut Graph, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    let x = node.inputs[0];
    let shape = g.shape(x).to_vec();
    Ok(match &node.op {
        &Op::Slice { n, inner, start, len } => {
            vec![Some(g.push(Op::Pad { n, inner, start, len }, vec![dy], shape))]
        }
        &Op::Pad { n, inner, start, len } => {
            vec![Some(g.push(Op::Slice { n, inner, start, len }, vec![dy], shape))]
        }
        &Op::Concat { a, b } => {
            let mut part = |on: bool, start: usize, len: usize, like: Id| {
                let shape = g.shape(like).to_vec();
                on.then(|| g.push(Op::Slice { n: a + b, inner: 1, start, len }, vec![dy], shape))
            };
            vec![part(need[0], 0, a, x), part(need[1], a, b, node.inputs[1])]
        }
        Op::Permute { axes } => {
            let mut inverse = vec![0; axes.len()];
            for (i, &a) in axes.iter().enumerate() {
                inverse[a] = i;
            }
            vec![Some(g.permute(dy, &inverse))]
        }
        _ => vec![None],
    })
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    let n = g.len(id);
    let window = |n: usize, [side, inner, start, len]: [usize; 4]| {
        let [n, len, side, start] = [n, len * inner, side * inner, start * inner].map(|v| v as u32);
        Window { n, len, side, start }
    };
    let call = match &node.op {
        &Op::Slice { n: side, inner, start, len } => {
            kernel::Call::Slice(window(n, [side, inner, start, len]))
        }
        &Op::Pad { n: side, inner, start, len } => kernel::Call::Pad(window(n, [side, inner, start, len])),
        &Op::Concat { a, b } => {
            let [n, a, b] = [n, a, b].map(|v| v as u32);
            kernel::Call::Concat(Joint { n, a, b })
        }
        Op::Upsample => {
            let s = g.shape(node.inputs[0]);
            let [n, h, w, c] = [n, s[1], s[2], s[3]].map(|v| v as u32);
            kernel::Call::Upsample(Image { n, h, w, c })
        }
        Op::Permute { axes } => kernel::Call::Permute(permuted(n, g.shape(node.inputs[0]), axes)),
        _ => unreachable!("a copy op"),
    };
    Lowered::new(Call::Copy(call), &node.inputs, 0)
}

/// `n` numbers of shape `s` with their axes in another order.
fn permuted(n: usize, s: &[usize], axes: &[usize]) -> Axes {
    let mut p = Axes { n: n as u32, sizes: [1; 5], strides: [0; 5] };
    let lead = 5 - axes.len();
    for (i, &a) in axes.iter().enumerate() {
        p.sizes[lead + i] = s[a] as u32;
        p.strides[lead + i] = s[a + 1..].iter().product::<usize>() as u32;
    }
    p
}
