//! Normalisations and softmax, over the last axis (groups of channels for `group_norm`).
use super::Lowered;
use crate::graph::{Graph, Id, Node, Op};
use crate::{Error, Result};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::Act;
use pentimento_wgsl::kernel::norm::{self, Kernel, Params};

impl Graph {
    /// `(x - mean) / sqrt(var + eps)` over the last axis. Ba et al. 2016, eq. 3, without affine part.
    pub fn layer_norm(&mut self, x: Id, eps: f32) -> Id {
        let shape = self.shape(x).to_vec();
        self.push(Op::LayerNorm { eps, mode: 0, rows_per_batch: 1 }, vec![x], shape)
    }
    /// Layer norm times `w` plus `b`, both `[C]`.
    pub fn layer_norm_affine(&mut self, x: Id, w: Id, b: Id, eps: f32) -> Id {
        let shape = self.shape(x).to_vec();
        let c = shape.last().copied().unwrap_or(0);
        if self.len(w) != c || self.len(b) != c {
            return self.fail(format!(
                "layer_norm of {shape:?}: {} weights, {} biases",
                self.len(w),
                self.len(b)
            ));
        }
        self.push(Op::LayerNorm { eps, mode: 2, rows_per_batch: 1 }, vec![x, w, b], shape)
    }
    /// `x / sqrt(mean(x^2) + eps) * w` over the last axis; w: `[C]`. Zhang & Sennrich 2019, eq. 4.
    pub fn rms_norm(&mut self, x: Id, w: Id, eps: f32) -> Id {
        let shape = self.shape(x).to_vec();
        if Some(&self.len(w)) != shape.last() {
            return self.fail(format!("rms_norm of {shape:?}: {} weights", self.len(w)));
        }
        self.push(Op::RmsNorm { eps }, vec![x, w], shape)
    }
    /// `softmax(scale * x)` over the last axis.
    pub fn softmax(&mut self, x: Id, scale: f32) -> Id {
        let shape = self.shape(x).to_vec();
        self.push(Op::Softmax { scale }, vec![x], shape)
    }
    /// Group norm of `[B, H, W, C]` with affine part; w, b: `[C]`. Wu & He 2018.
    pub fn group_norm(&mut self, x: Id, w: Id, b: Id, groups: usize, eps: f32) -> Id {
        let shape = self.shape(x).to_vec();
        let c = shape.last().copied().unwrap_or(0);
        if groups == 0 || c % groups != 0 || self.len(w) != c || self.len(b) != c {
            return self.fail(format!("group_norm of {shape:?} in {groups} groups, {} weights", self.len(w)));
        }
        self.push(Op::GroupNorm { eps, groups, act: Act::None }, vec![x, w, b], shape)
    }
}

pub(super) fn backward(g: &mut Graph, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    let shape = node.shape.clone();
    match node.op {
        Op::LayerNorm { eps, mode: 0, .. } => {
            Ok(vec![Some(g.push(Op::LayerNormBackward { eps }, vec![node.inputs[0], dy], shape))])
        }
        // Forward y = n(x) w + b with n the norm; so dx is that of n for dy w, dw = sum of dy n(x), db = sum of dy.
        Op::LayerNorm { eps, mode: 2, .. } => {
            let (x, w) = (node.inputs[0], node.inputs[1]);
            let c = shape.last().copied().unwrap_or(1);
            let rows = g.len(x) / c.max(1);
            let dx = need[0].then(|| {
                let dn = g.mul(dy, w);
                g.push(Op::LayerNormBackward { eps }, vec![x, dn], shape.clone())
            });
            let dw = need[1].then(|| {
                let n = g.layer_norm(x, eps);
                let d = g.mul(dy, n);
                g.sum(d, 1, rows, c, 1.0, &[c])
            });
            let db = need[2].then(|| g.sum(dy, 1, rows, c, 1.0, &[c]));
            Ok(vec![dx, dw, db])
        }
        Op::RmsNorm { eps } if !need[1] => {
            let inputs = vec![node.inputs[0], node.inputs[1], dy];
            Ok(vec![Some(g.push(Op::RmsNormBackward { eps }, inputs, shape)), None])
        }
        // The activation of a fused norm is a node of its own here: fusion comes after differentiation.
        Op::GroupNorm { eps, groups, act: Act::None } if !need[1] && !need[2] => {
            let inputs = vec![node.inputs[0], node.inputs[1], dy];
            Ok(vec![Some(g.push(Op::GroupNormBackward { eps, groups }, inputs, shape)), None, None])
        }
        Op::GroupNorm { .. } => Err(frozen("a group norm")),
        _ => Err(frozen("an RMS norm")),
    }
}

fn frozen(what: &str) -> Error {
    Error::Graph(format!("a gradient was asked for the weights of {what}, which are frozen"))
}

/// Forward y = softmax(s x); so dx = s y (dy - sum of dy y).
pub(super) fn softmax_backward(g: &mut Graph, y: Id, scale: f32, dy: Id) -> Id {
    let shape = g.shape(y).to_vec();
    g.push(Op::SoftmaxBackward { scale }, vec![y, dy], shape)
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    let c = node.shape.last().copied().unwrap_or(1).max(1);
    let rows = g.len(id) / c;
    let plain = Params {
        rows: rows as u32,
        c: c as u32,
        eps: 0.0,
        mode: 0,
        rows_per_batch: 1,
        groups: 1,
        hw: 1,
        scale: 1.0,
    };
    let grouped = |groups: usize| {
        let (rows, hw) = (node.shape[0] * groups, node.shape[1] * node.shape[2]);
        Params { rows: rows as u32, groups: groups as u32, hw: hw as u32, ..plain }
    };
    let (kernel, params) = match node.op {
        Op::LayerNorm { eps, mode, rows_per_batch } => {
            (Kernel::LayerNorm, Params { eps, mode, rows_per_batch: rows_per_batch as u32, ..plain })
        }
        Op::LayerNormBackward { eps } => (Kernel::LayerNormBackward, Params { eps, ..plain }),
        Op::RmsNorm { eps } => (Kernel::RmsNorm, Params { eps, ..plain }),
        Op::RmsNormBackward { eps } => (Kernel::RmsNormBackward, Params { eps, ..plain }),
        Op::Softmax { scale } => (Kernel::Softmax, Params { scale, ..plain }),
        Op::SoftmaxBackward { scale } => (Kernel::SoftmaxBackward, Params { scale, ..plain }),
        Op::GroupNorm { eps, groups, act } => {
            (Kernel::GroupNorm, Params { eps, mode: act as u32, ..grouped(groups) })
        }
        Op::GroupNormBackward { eps, groups } => {
            (Kernel::GroupNormBackward, Params { eps, ..grouped(groups) })
        }
        _ => unreachable!("a norm"),
    };
    let call = Call::Norm(norm::Call { kernel, params });
    let mut lowered = Lowered::new(call, &node.inputs, 8 * g.len(id) as u64);
    if kernel == Kernel::LayerNorm {
        lowered.inputs.resize(3, None);
    }
    lowered
}
