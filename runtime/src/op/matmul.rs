//! Matrix product with an epilogue: `y = act(a b + bias) * gate + residual`.
use super::Lowered;
use crate::Result;
use crate::graph::{Graph, Id, Node, Op};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::Act;
use pentimento_wgsl::kernel::matmul::{BIAS, GATE, Params, RESIDUAL};

/// Rows and columns of a tensor seen as a matrix: all but the last axis are rows.
fn matrix(shape: &[usize]) -> (usize, usize) {
    let c = shape.last().copied().unwrap_or(1);
    (shape.iter().product::<usize>() / c.max(1), c)
}

impl Graph {
    /// `a b`, either transposed. a: `[.., M, K]` (`[.., K, M]` when `a_t`), b: `[K, N]` (`[N, K]` when `b_t`).
    /// The result keeps a's leading axes, or is `[M, N]` when `a_t`.
    pub fn matmul(&mut self, a: Id, b: Id, a_t: bool, b_t: bool) -> Id {
        let (ar, ac) = matrix(self.shape(a));
        let (br, bc) = matrix(self.shape(b));
        let (m, k) = if a_t { (ac, ar) } else { (ar, ac) };
        let (n, k2) = if b_t { (br, bc) } else { (bc, br) };
        if k != k2 {
            return self.fail(format!(
                "matmul of {:?} and {:?} (transposed: {a_t}, {b_t}): inner sides {k} and {k2} differ",
                self.shape(a),
                self.shape(b)
            ));
        }
        let mut shape = if a_t { vec![m] } else { self.shape(a)[..self.shape(a).len() - 1].to_vec() };
        shape.push(n);
        let op =
            Op::Matmul { a_t, b_t, bias: false, low: false, act: Act::None, gate: None, residual: false };
        self.push(op, vec![a, b], shape)
    }
    /// `x w^T + bias`. x: `[.., K]`, w: `[N, K]`, bias: `[N]`.
    pub fn linear(&mut self, x: Id, w: Id, bias: Option<Id>) -> Id {
        let y = self.matmul(x, w, false, true);
        let Some(b) = bias else { return y };
        let n = self.shape(y).last().copied().unwrap_or(0);
        if self.len(b) != n {
            return self.fail(format!("linear: bias of {} numbers for {n} outputs", self.len(b)));
        }
        let node = &mut self.nodes[y.index()];
        if let Op::Matmul { bias, .. } = &mut node.op {
            *bias = true;
        }
        node.inputs.push(b);
        y
    }
}

/// Forward y = a b (+ bias); so da = dy b^T, db = a^T dy, dbias = column sums of dy. Fused forms never get here.
pub(super) fn backward(g: &mut Graph, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    let Op::Matmul { a_t, b_t, bias, .. } = node.op else { return Ok(vec![None; need.len()]) };
    let (a, b) = (node.inputs[0], node.inputs[1]);
    let n = g.shape(dy).last().copied().unwrap_or(1);
    let flat = [g.len(dy) / n.max(1), n];
    let dy2 = g.reshape(dy, &flat);
    let mut out = vec![None; need.len()];
    if need[0] {
        // dy as it is, not flattened: the result then has a's shape, and fuse.rs can join a following add.
        let da = if a_t { g.matmul(b, dy2, b_t, true) } else { g.matmul(dy, b, false, !b_t) };
        let shape = g.shape(a).to_vec();
        out[0] = Some(g.reshape(da, &shape));
    }
    if need[1] {
        let db = if b_t { g.matmul(dy2, a, true, a_t) } else { g.matmul(a, dy2, !a_t, false) };
        let shape = g.shape(b).to_vec();
        out[1] = Some(g.reshape(db, &shape));
    }
    if bias && need[2] {
        out[2] = Some(g.sum(dy2, 1, flat[0], n, 1.0, &[n]));
    }
    Ok(out)
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    let Op::Matmul { a_t, b_t, bias, low, act, gate, residual } = node.op else { unreachable!("a matmul") };
    let (ar, ac) = matrix(g.shape(node.inputs[0]));
    let (m, k) = if a_t { (ac, ar) } else { (ar, ac) };
    let n = node.shape.last().copied().unwrap_or(1);
    let (am, ak) = if a_t { (1, m) } else { (k, 1) };
    let (bk, bn) = if b_t { (1, k) } else { (n, 1) };
    let flags = [(bias, BIAS), (gate.is_some(), GATE), (residual, RESIDUAL)];
    let mut params = Params {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        stride_am: am as u32,
        stride_ak: ak as u32,
        stride_bk: bk as u32,
        stride_bn: bn as u32,
        flags: flags.iter().filter(|f| f.0).map(|f| f.1).sum(),
        act: act as u32,
        rows_per_batch: gate.unwrap_or(1) as u32,
        low: 0,
        part: k as u32,
    };
    let mut rest = node.inputs[2..].iter().copied();
    let mut take = |present: bool| if present { rest.next() } else { None };
    let bias = take(bias);
    let low = [take(low), take(low)];
    let (gate, residual) = (take(gate.is_some()), take(residual));
    params.low = low[0].map_or(0, |low| matrix(g.shape(low)).1 as u32);
    let [a, b] = [node.inputs[0], node.inputs[1]];
    let inputs = vec![Some(a), Some(b), low[0], low[1], bias, gate, residual];
    let flops = 2 * (m * n * (k + params.low as usize)) as u64;
    Lowered { call: Call::Matmul(params), inputs, flops }
}
