//! Peepholes after differentiation: joins neighbours that one kernel can compute. Fused nodes never need a backward.
//! Each rule rewrites the later node in place, so ids and order stay valid; the earlier one dies if unused.
use crate::graph::{Graph, Id, Node, Op};
use alloc::{vec, vec::Vec};
use pentimento_wgsl::kernel::{Act, Binary, Unary};

/// Applies every rule until none fits. `outputs` are values that must stay readable; `pairs` tells whether matmuls may take a
/// second pair of factors, as the bodies for GPUs do.
pub fn fuse(g: &mut Graph, outputs: &[Id], pairs: bool) {
    let mut uses = vec![0u32; g.nodes.len()];
    let live = live(g, outputs);
    for (i, n) in g.nodes.iter().enumerate() {
        if live[i] {
            n.inputs.iter().for_each(|x| uses[x.index()] += 1);
        }
    }
    outputs.iter().for_each(|x| uses[x.index()] += 1);
    for (i, live) in live.into_iter().enumerate() {
        if live {
            let id = Id(i as u32);
            let _ = activation(g, id, &uses)
                || gate(g, id, &uses)
                || modulate(g, id, &uses)
                || (pairs && pair(g, id, &uses))
                || residual(g, id, &uses);
        }
    }
}

/// Which nodes the outputs depend on.
pub(crate) fn live(g: &Graph, outputs: &[Id]) -> Vec<bool> {
    let mut live = vec![false; g.nodes.len()];
    outputs.iter().for_each(|x| live[x.index()] = true);
    for i in (0..g.nodes.len()).rev() {
        if live[i] {
            g.nodes[i].inputs.iter().for_each(|x| live[x.index()] = true);
        }
    }
    live
}

/// linear -> activation; group_norm -> silu.
fn activation(g: &mut Graph, id: Id, uses: &[u32]) -> bool {
    let Op::Unary(Unary::Act(f)) = g.node(id).op else { return false };
    let x = g.node(id).inputs[0];
    if uses[x.index()] != 1 {
        return false;
    }
    let mut node = g.node(x).clone();
    match &mut node.op {
        Op::Matmul { act: act @ Act::None, gate: None, residual: false, .. } => *act = f,
        Op::GroupNorm { act: act @ Act::None, .. } => *act = f,
        _ => return false,
    }
    node.block = g.node(id).block;
    g.nodes[id.index()] = node;
    true
}

/// linear * per-batch gate.
fn gate(g: &mut Graph, id: Id, uses: &[u32]) -> bool {
    let Op::Binary { f: Binary::Mul, middle, inner, repeat_outer: false, repeat_inner: false } =
        g.node(id).op
    else {
        return false;
    };
    let (x, by) = (g.node(id).inputs[0], g.node(id).inputs[1]);
    let mut node = g.node(x).clone();
    let columns = node.shape.last().copied().unwrap_or(0);
    let Op::Matmul { a_t: false, gate: gate @ None, residual: false, .. } = &mut node.op else {
        return false;
    };
    if uses[x.index()] != 1 || inner != columns {
        return false;
    }
    *gate = Some(middle);
    node.inputs.push(by);
    node.block = g.node(id).block;
    g.nodes[id.index()] = node;
    true
}

/// layer_norm * (1 + scale) + shift.
fn modulate(g: &mut Graph, id: Id, uses: &[u32]) -> bool {
    let Op::Binary { f: Binary::Add, middle, inner, repeat_outer: false, repeat_inner: false } =
        g.node(id).op
    else {
        return false;
    };
    let (scaled, shift) = (g.node(id).inputs[0], g.node(id).inputs[1]);
    let same = Op::Binary { f: Binary::Scale1, middle, inner, repeat_outer: false, repeat_inner: false };
    if uses[scaled.index()] != 1 || g.node(scaled).op != same {
        return false;
    }
    let (norm, scale) = (g.node(scaled).inputs[0], g.node(scaled).inputs[1]);
    let mut node = g.node(norm).clone();
    let columns = node.shape.last().copied().unwrap_or(0);
    let Op::LayerNorm { mode: mode @ 0, rows_per_batch, .. } = &mut node.op else { return false };
    if uses[norm.index()] != 1 || inner != columns {
        return false;
    }
    (*mode, *rows_per_batch) = (1, middle);
    node.inputs.extend([scale, shift]);
    node.block = g.node(id).block;
    g.nodes[id.index()] = node;
    true
}

/// The sum of two products of few and of many columns, as an adapter's beside its layer's, or the gradients of both.
fn pair(g: &mut Graph, id: Id, uses: &[u32]) -> bool {
    let Op::Binary { f: Binary::Add, middle: 1, repeat_outer: false, repeat_inner: false, .. } =
        g.node(id).op
    else {
        return false;
    };
    let (a, b) = (g.node(id).inputs[0], g.node(id).inputs[1]);
    [(a, b), (b, a)].into_iter().any(|(x, low)| {
        let joined = joined(g, x, low).filter(|_| x != low && uses[x.index()] == 1 && uses[low.index()] == 1);
        let Some(mut node) = joined else { return false };
        node.shape = g.node(id).shape.clone();
        node.block = g.node(id).block;
        g.nodes[id.index()] = node;
        true
    })
}

/// `x` with the factors of `low` as its second pair; both are products, at most one of them with a residual.
fn joined(g: &Graph, x: Id, low: Id) -> Option<Node> {
    let (mut node, other) = (g.node(x).clone(), g.node(low));
    let columns = |id: Id| g.shape(id).last().copied().unwrap_or(0);
    let Op::Matmul { a_t: false, b_t, bias, low: pair @ false, act: Act::None, gate: None, residual } =
        &mut node.op
    else {
        return None;
    };
    let Op::Matmul { residual: other_residual, .. } = other.op else { return None };
    let (b_t, act) = (*b_t, Act::None);
    let plain =
        Op::Matmul { a_t: false, b_t, bias: false, low: false, act, gate: None, residual: other_residual };
    let narrow = columns(other.inputs[0]);
    let few = narrow * FEW <= columns(node.inputs[0]);
    if other.op != plain || (*residual && other_residual) || !few {
        return None;
    }
    *pair = true;
    *residual |= other_residual;
    let at = 2 + usize::from(*bias);
    node.inputs.splice(at..at, other.inputs.iter().take(2).copied());
    if other_residual {
        node.inputs.push(other.inputs[2]);
    }
    Some(node)
}

/// So many times as many columns the first pair has at least: the second one's are read one tile of zeros further.
const FEW: usize = 4;

/// linear + tensor of the same shape; conv + tensor.
fn residual(g: &mut Graph, id: Id, uses: &[u32]) -> bool {
    let Op::Binary { f: Binary::Add, middle: 1, repeat_outer: false, repeat_inner: false, .. } =
        g.node(id).op
    else {
        return false;
    };
    let (a, b) = (g.node(id).inputs[0], g.node(id).inputs[1]);
    // The later operand absorbs the other; either will do for correctness.
    for (x, other) in if a > b { [(a, b), (b, a)] } else { [(b, a), (a, b)] } {
        if uses[x.index()] != 1 || x == other {
            continue;
        }
        let mut node = g.node(x).clone();
        match &mut node.op {
            Op::Matmul { a_t: false, residual: r @ false, .. } | Op::Conv2d { residual: r @ false, .. } => {
                *r = true
            }
            _ => continue,
        }
        node.inputs.push(other);
        node.shape = g.node(id).shape.clone();
        node.block = g.node(id).block;
        g.nodes[id.index()] = node;
        return true;
    }
    false
}
