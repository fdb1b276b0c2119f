//! Reverse-mode differentiation: rules on the graph, not a tape. Backward nodes are ordinary nodes.
use crate::graph::{Graph, Id, Op};
use crate::op;
use crate::{Error, Result};
use alloc::{collections::BTreeMap, vec, vec::Vec};

/// Appends the backward pass of `y` with gradient `dy` and returns the gradients of `wrt`, in order.
/// Values of a numbered block are computed again next to their backward pass when `recompute` is set
/// (Chen et al. 2016), so that only block borders stay in memory; the same kernels give the same bits.
///
/// # Errors
/// [`Error::Graph`] when `y` does not depend on an entry of `wrt`, or through an op without a gradient.
pub fn gradients(g: &mut Graph, y: Id, dy: Id, wrt: &[Id], recompute: bool) -> Result<Vec<Id>> {
    g.check()?;
    g.end_block();
    let end = y.index() + 1;
    let mut needed = vec![false; end];
    for i in 0..end {
        needed[i] = wrt.iter().any(|w| w.index() == i) || g.nodes[i].inputs.iter().any(|x| needed[x.index()]);
    }
    let mut grads: BTreeMap<Id, Id> = BTreeMap::from([(y, dy)]);
    let mut copies = BTreeMap::new();
    for i in (0..end).rev() {
        let id = Id(i as u32);
        let Some(&dy) = grads.get(&id).filter(|_| needed[i]) else { continue };
        if matches!(g.node(id).op, Op::Leaf { .. }) {
            continue;
        }
        let inputs = g.node(id).inputs.clone();
        let need: Vec<bool> = inputs.iter().map(|x| needed[x.index()]).collect();
        let source = if recompute { recomputed(g, id, &mut copies) } else { id };
        for (x, dx) in inputs.iter().zip(op::backward(g, source, dy, &need)?) {
            let Some(dx) = dx.filter(|_| needed[x.index()]) else { continue };
            let total = match grads.get(x) {
                Some(&old) => g.add(old, dx),
                None => dx,
            };
            grads.insert(*x, total);
        }
    }
    wrt.iter()
        .map(|w| {
            grads.get(w).copied().ok_or_else(|| {
                Error::Graph(alloc::format!("the result does not depend on {:?}", g.node(*w).op))
            })
        })
        .collect()
}

/// A copy of a block's value whose operands are copies too, down to the block's border.
fn recomputed(g: &mut Graph, id: Id, copies: &mut BTreeMap<Id, Id>) -> Id {
    let node = g.node(id).clone();
    if node.block == 0 || matches!(node.op, Op::Leaf { .. }) {
        return id;
    }
    if let Some(&copy) = copies.get(&id) {
        return copy;
    }
    let mut inputs = Vec::with_capacity(node.inputs.len());
    for x in node.inputs {
        let inside = g.node(x).block == node.block;
        inputs.push(if inside { recomputed(g, x, copies) } else { x });
    }
    let copy = g.push(node.op, inputs, node.shape);
    copies.insert(id, copy);
    copy
}
