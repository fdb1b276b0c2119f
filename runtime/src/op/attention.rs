//! Multi-head attention that never stores the S x S matrix, and its backward passes.
use super::Lowered;
use crate::graph::{Graph, Id, Node, Op};
use crate::{Error, Result};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::attention as kernel;
use pentimento_wgsl::kernel::attention::{Block, Params, Pass, Stats};

/// Widest head the fused kernels hold in registers.
pub const MAX_HEAD: usize = kernel::MAX_HEAD as usize;

impl Graph {
    /// `softmax(q k^T / sqrt(D) + bias) v` per head. q: `[B, Q, H*D]`, k, v: `[B, K, H*D]`; `bias`: `[K]`, added to the
    /// logits of every query (`log N` stands for N equal keys), or `[H, Q, K]` (relative positions; forward only);
    /// `causal` hides keys after the query.
    /// Heads are multiples of 4 wide and at most 128.
    pub fn attention(&mut self, q: Id, k: Id, v: Id, heads: usize, bias: Option<Id>, causal: bool) -> Id {
        let (sq, sk, sv) = (self.shape(q).to_vec(), self.shape(k).to_vec(), self.shape(v).to_vec());
        let fits = sq.len() == 3 && sk.len() == 3 && sk == sv && sq[0] == sk[0] && sq[2] == sk[2];
        let head = sq.get(2).map_or(0, |c| c / heads.max(1));
        if !fits || heads == 0 || head * heads != sq[2] || head % 4 != 0 || head > MAX_HEAD {
            return self.fail(format!(
                "attention of q {sq:?}, k {sk:?}, v {sv:?} with {heads} heads (head widths: multiples of 4 up to {MAX_HEAD})"
            ));
        }
        if let Some(b) = bias.filter(|&b| self.len(b) != sk[1] && self.shape(b) != [heads, sq[1], sk[1]]) {
            let (found, by_query) = (self.shape(b).to_vec(), [heads, sq[1], sk[1]]);
            return self
                .fail(format!("attention: expected a bias of {} or {by_query:?}, found {found:?}", sk[1]));
        }
        let mut inputs = vec![q, k, v];
        inputs.extend(bias);
        self.push(Op::Attention { heads, causal, bias: bias.is_some() }, inputs, sq)
    }
}

pub(super) fn backward(g: &mut Graph, id: Id, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    let Op::Attention { heads, causal, bias } = node.op else { return Ok(vec![None; need.len()]) };
    let (q, k, v) = (node.inputs[0], node.inputs[1], node.inputs[2]);
    if bias && g.len(node.inputs[3]) != g.shape(k)[1] {
        return Err(Error::Graph("a gradient was asked through attention with a bias by query".into()));
    }
    let s = node.shape.clone();
    let stats_shape = vec![s[0], heads, s[1]];
    let lse = g.push(Op::Second, vec![id], stats_shape);
    let stats = g.push(Op::AttentionStats { heads }, vec![id, dy, lse], vec![s[0], heads, s[1], 2]);
    let mut inputs = vec![q, k, v, dy];
    if bias {
        inputs.push(node.inputs[3]);
    }
    inputs.push(stats);
    let mut out = vec![None; need.len()];
    if need[0] {
        out[0] = Some(g.push(Op::AttentionDq { heads, causal, bias }, inputs.clone(), s));
    }
    if need[1] || need[2] {
        let shape = g.shape(k).to_vec();
        let dk = g.push(Op::AttentionDkv { heads, causal, bias }, inputs, shape.clone());
        out[1] = Some(dk);
        out[2] = Some(g.push(Op::Second, vec![dk], shape));
    }
    Ok(out)
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let node = g.node(id);
    if let Op::AttentionStats { heads } = node.op {
        let s = g.shape(node.inputs[0]);
        let [batch, heads, q, d] = [s[0], heads, s[1], s[2] / heads].map(|v| v as u32);
        let call = Call::Attention(kernel::Call::Stats(Stats { batch, heads, q, d }));
        let n = s[0] * s[1] * s[2];
        return Lowered::new(call, &node.inputs, 2 * n as u64);
    }
    let (pass, heads, causal, bias, products) = match node.op {
        Op::Attention { heads, causal, bias } => (Pass::Forward, heads, causal, bias, 2),
        Op::AttentionDq { heads, causal, bias } => (Pass::Dq, heads, causal, bias, 3),
        Op::AttentionDkv { heads, causal, bias } => (Pass::Dkv, heads, causal, bias, 4),
        _ => unreachable!("an attention op"),
    };
    let (sq, sk) = (g.shape(node.inputs[0]), g.shape(node.inputs[1]));
    let scale = 1.0 / libm::sqrtf((sq[2] / heads) as f32);
    // The backward passes only know a bias by key.
    let by_query = pass == Pass::Forward && bias && g.len(node.inputs[3]) != sk[1];
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    let flags = flag(bias && !by_query, kernel::BIAS)
        | flag(causal, kernel::CAUSAL)
        | flag(by_query, kernel::BIAS_BY_QUERY);
    let [batch, q, k, head] = [sq[0], sq[1], sk[1], sq[2] / heads].map(|v| v as u32);
    let block = Block { batch, heads: heads as u32, q, k, scale, flags };
    let call = Call::Attention(kernel::Call::Pass(pass, Params { block, head }));
    let mut inputs: Vec<Option<Id>> = node.inputs.iter().map(|&i| Some(i)).collect();
    if !bias {
        inputs.insert(if pass == Pass::Forward { 3 } else { 4 }, None);
    }
    let flops = 2 * products * (sq[0] * sq[1] * sk[1] * sq[2]) as u64;
    Lowered { call, inputs, flops }
}
