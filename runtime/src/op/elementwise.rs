//! Elementwise functions of one and two arguments, and the sum that undoes a repetition.
use super::Lowered;
use crate::graph::{Graph, Id, Node, Op};
use crate::{Error, Result};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::elementwise::{Call as Elementwise, Map, Pair};
use pentimento_wgsl::kernel::{Act, Binary, Unary, sum};

impl Graph {
    /// `f(x)`, elementwise.
    pub fn unary(&mut self, f: Unary, x: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.push(Op::Unary(f), vec![x], shape)
    }
    /// An activation.
    pub fn act(&mut self, act: Act, x: Id) -> Id {
        self.unary(Unary::Act(act), x)
    }
    /// `alpha * x + beta`.
    pub fn affine(&mut self, x: Id, alpha: f32, beta: f32) -> Id {
        self.unary(Unary::Affine(alpha, beta), x)
    }
    pub(crate) fn unary_backward(&mut self, f: Unary, x: Id, dy: Id) -> Id {
        if let Unary::Affine(alpha, _) = f {
            return if alpha == 1.0 { dy } else { self.affine(dy, alpha, 0.0) };
        }
        let shape = self.shape(x).to_vec();
        self.push(Op::UnaryBackward(f), vec![x, dy], shape)
    }
    /// `f(a, b)`; b has a's shape, or 1 in some axes such that it is a `[O, 1, I]`, `[1, 1, I]`, `[O, 1, 1]` or
    /// single number against a's `[O, S, I]`. Missing leading axes of b count as 1.
    pub fn binary(&mut self, f: Binary, a: Id, b: Id) -> Id {
        let (sa, sb) = (self.shape(a).to_vec(), self.shape(b).to_vec());
        match repeat(&sa, &sb) {
            Some((middle, inner, repeat_outer, repeat_inner)) => {
                self.push(Op::Binary { f, middle, inner, repeat_outer, repeat_inner }, vec![a, b], sa)
            }
            None => {
                self.fail(format!("{f:?} of {sa:?} and {sb:?}: the second cannot be repeated to the first"))
            }
        }
    }
    /// `a + b`, see [`Graph::binary`].
    pub fn add(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Add, a, b)
    }
    /// `a - b`, see [`Graph::binary`].
    pub fn sub(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Sub, a, b)
    }
    /// `a * b`, see [`Graph::binary`].
    pub fn mul(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Mul, a, b)
    }
    /// `scale * sum` over the middle of x seen as `[outer, n, inner]`; the result gets `shape`.
    pub fn sum(&mut self, x: Id, outer: usize, n: usize, inner: usize, scale: f32, shape: &[usize]) -> Id {
        if self.len(x) != outer * n * inner || shape.iter().product::<usize>() != outer * inner {
            return self.fail(format!("sum of {:?} as [{outer}, {n}, {inner}] to {shape:?}", self.shape(x)));
        }
        // A long sum into few outputs would be one slow invocation: cut it in two.
        let cut = (2..=256).rev().find(|c| n.is_multiple_of(*c)).filter(|_| n > 1024 && outer * inner < 1024);
        if let Some(parts) = cut {
            let x = self.push(Op::Sum { n: n / parts, inner, scale }, vec![x], vec![outer, parts, inner]);
            return self.push(Op::Sum { n: parts, inner, scale: 1.0 }, vec![x], shape.to_vec());
        }
        self.push(Op::Sum { n, inner, scale }, vec![x], shape.to_vec())
    }
    /// Mean over all but the first `keep` axes; the result has those `keep` axes.
    pub fn mean(&mut self, x: Id, keep: usize) -> Id {
        let shape = self.shape(x)[..keep].to_vec();
        let outer = shape.iter().product::<usize>();
        let n = self.len(x) / outer.max(1);
        self.sum(x, outer, n, 1, 1.0 / n as f32, &shape)
    }
}

/// (middle, inner, repeat_outer, repeat_inner) that repeat `b` to `a`.
fn repeat(a: &[usize], b: &[usize]) -> Option<(usize, usize, bool, bool)> {
    let n: usize = a.iter().product();
    if b.iter().product::<usize>() == 1 {
        return Some((1, n, true, true));
    }
    if b.len() > a.len() {
        return None;
    }
    let b: Vec<usize> = core::iter::repeat_n(1, a.len() - b.len()).chain(b.iter().copied()).collect();
    if a == b {
        return Some((1, n, false, false));
    }
    // Axes that b keeps at the front, then ones, then axes that b keeps at the back.
    let front = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let back = a.iter().zip(&b).rev().take_while(|(x, y)| x == y).count();
    if front + back > a.len() || b[front..b.len() - back].iter().any(|&v| v != 1) {
        return None;
    }
    let outer: usize = a[..front].iter().product();
    let inner: usize = a[a.len() - back..].iter().product();
    let middle = n / (outer * inner).max(1);
    Some((middle, inner, false, false))
}

pub(super) fn binary_backward(g: &mut Graph, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    let Op::Binary { f, middle, inner, repeat_outer, repeat_inner } = node.op else {
        return Ok(vec![None, None]);
    };
    let (a, b) = (node.inputs[0], node.inputs[1]);
    let again = |g: &mut Graph, f: Binary, x: Id, b: Id| {
        let shape = g.shape(x).to_vec();
        g.push(Op::Binary { f, middle, inner, repeat_outer, repeat_inner }, vec![x, b], shape)
    };
    let da = match f {
        _ if !need[0] => None,
        Binary::Add | Binary::Sub => Some(dy),
        Binary::Mul => Some(again(g, Binary::Mul, dy, b)),
        Binary::Scale1 => Some(again(g, Binary::Scale1, dy, b)),
        Binary::Max => {
            let won = again(g, Binary::Ge, a, b);
            Some(g.mul(dy, won))
        }
        Binary::Ge => None,
    };
    // Gradient of b before the repetition is undone.
    let db = match f {
        _ if !need[1] => None,
        Binary::Add => Some(dy),
        Binary::Sub => Some(g.affine(dy, -1.0, 0.0)),
        Binary::Mul | Binary::Scale1 => Some(g.mul(dy, a)),
        Binary::Max => {
            let lost = again(g, Binary::Ge, a, b);
            let lost = g.affine(lost, -1.0, 1.0);
            Some(g.mul(dy, lost))
        }
        Binary::Ge => None,
    };
    if (need[0] || need[1]) && f == Binary::Ge {
        return Err(Error::Graph("a gradient was asked through a comparison, which has none".into()));
    }
    let db = db.map(|d| {
        let shape = g.shape(b).to_vec();
        let (n, nb) = (g.len(d), g.len(b));
        if n == nb {
            g.reshape(d, &shape)
        } else if repeat_inner {
            g.sum(d, 1, n, 1, 1.0, &shape)
        } else {
            g.sum(d, n / (middle * inner).max(1), middle, inner, 1.0, &shape)
        }
    });
    Ok(vec![da, db])
}

/// Forward summed the middle; so each summand gets the sum's gradient times the constant.
pub(super) fn sum_backward(g: &mut Graph, node: &Node, dy: Id) -> Id {
    let Op::Sum { n, inner, scale } = node.op else { return dy };
    let shape = g.shape(node.inputs[0]).to_vec();
    let outer = shape.iter().product::<usize>() / (n * inner).max(1);
    // Repeat dy over n: 0 * x + dy would read x for nothing, so spread it with a matmul-free add to zeros.
    let zeros = g.zeros(&[outer, n, inner]);
    let dy = g.reshape(dy, &[outer, 1, inner]);
    let dy = if scale == 1.0 { dy } else { g.affine(dy, scale, 0.0) };
    let spread = Op::Binary { f: Binary::Add, middle: n, inner, repeat_outer: false, repeat_inner: false };
    let dx = g.push(spread, vec![zeros, dy], vec![outer, n, inner]);
    g.reshape(dx, &shape)
}

impl Graph {
    /// A tensor of zeros: the input "zero" (one number, always 0) padded out.
    fn zeros(&mut self, shape: &[usize]) -> Id {
        let zero = self.input("zero", &[1]);
        let n = shape.iter().product::<usize>();
        self.push(Op::Pad { n, inner: 1, start: 0, len: 1 }, vec![zero], shape.to_vec())
    }
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    let n = g.len(id);
    let (call, flops) = match node.op {
        Op::Unary(f) => (Call::Elementwise(Elementwise::Unary(Map::new(n, f))), n),
        Op::UnaryBackward(f) => (Call::Elementwise(Elementwise::UnaryBackward(Map::new(n, f))), n),
        Op::Binary { f, middle, inner, repeat_outer, repeat_inner } => {
            let pair = Pair {
                n: n as u32,
                op: f as u32,
                sc: ((middle * inner) as u32).max(1),
                c: inner.max(1) as u32,
                stride_o: if repeat_outer { 0 } else { inner as u32 },
                stride_c: u32::from(!repeat_inner),
            };
            (Call::Elementwise(Elementwise::Binary(pair)), n)
        }
        Op::Sum { n: count, inner, scale } => {
            let [outputs, terms, inner] = [n, count, inner].map(|v| v as u32);
            (Call::Sum(sum::Params { outputs, n: terms, inner, scale }), n * count)
        }
        _ => unreachable!("an elementwise op"),
    };
    Lowered::new(call, &node.inputs, flops as u64)
}
