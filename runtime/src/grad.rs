//! Reverse-mode differentiation: rules on the graph, not a tape. Backward nodes are ordinary nodes.
use crate::graph::{Graph, Id, Op};
use crate::op;
use crate::{Error, Result};
use alloc::{collections::BTreeMap, vec, vec::Vec};
use pentimento_wgsl::kernel::Unary;

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
    let mut scales = Vec::new();
    for i in (0..end).rev() {
        let id = Id(i as u32);
        let Some(&dy) = grads.get(&id).filter(|_| needed[i]) else { continue };
        if matches!(g.node(id).op, Op::Leaf { .. }) {
            continue;
        }
        // The only gradient there is: all that is asked for comes from it.
        let narrow = grads.keys().all(|x| x.index() >= i || !needed[x.index()]);
        if matches!(g.node(id).op, Op::Balance) && narrow && !wrt.contains(&id) {
            let scale = scale(g, dy);
            let dx = g.mul(dy, scale);
            scales.push(scale);
            grads.insert(g.node(id).inputs[0], dx);
            continue;
        }
        let inputs = g.node(id).inputs.clone();
        let need: Vec<bool> = inputs.iter().map(|x| needed[x.index()]).collect();
        let source = if recompute { recomputed(g, id, &mut copies) } else { id };
        let was = g.exact(g.node(id).exact);
        for (x, dx) in inputs.iter().zip(op::backward(g, source, dy, &need)?) {
            let Some(dx) = dx.filter(|_| needed[x.index()]) else { continue };
            let total = match grads.get(x) {
                Some(&old) => g.add(old, dx),
                None => dx,
            };
            grads.insert(*x, total);
        }
        g.exact(was);
    }
    let missing = |w: &Id| Error::Graph(alloc::format!("the result does not depend on {:?}", g.node(*w).op));
    let found: Result<Vec<Id>> =
        wrt.iter().map(|w| grads.get(w).copied().ok_or_else(|| missing(w))).collect();
    let mut found = found?;
    if let Some(scale) = scales.into_iter().reduce(|a, b| g.mul(a, b)) {
        let inverse = g.unary(Unary::Reciprocal, scale);
        found.iter_mut().for_each(|d| *d = g.mul(*d, inverse));
    }
    Ok(found)
}

/// The power of two that makes the mean size of these numbers about 1/8.
fn scale(g: &mut Graph, dy: Id) -> Id {
    let size = g.unary(Unary::Abs, dy);
    let n = g.len(size);
    let mean = g.sum(size, 1, n, 1, 1.0 / n as f32, &[1]);
    g.unary(Unary::Balance, mean)
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
    let was = g.exact(node.exact);
    let copy = g.push(node.op, inputs, node.shape);
    g.exact(was);
    copies.insert(id, copy);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cpu::Cpu;
    use crate::exec::{Executor, compile};

    /// The gradient of `mean(balance(x)^2)` or without, times a seed.
    fn gradient(seed: f32, balanced: bool, also: bool) -> (Vec<f32>, bool) {
        let mut g = Graph::new();
        let x = g.param("x", &[4]);
        let y = if balanced { g.balance(x) } else { x };
        let mut y = g.unary(Unary::Square, y);
        if also {
            y = g.add(y, x); // a second way, past the mark
        }
        let dy = g.input("dy", &[4]);
        let d = gradients(&mut g, y, dy, &[x], false).expect("a gradient")[0];
        let scaled = g.nodes().iter().any(|n| n.op == Op::Unary(Unary::Balance));
        let mut exec = Cpu::new();
        exec.set_leaf("x", crate::exec::LeafData::F32(&[1.0, 2.0, -3.0, 0.0])).expect("a leaf");
        let plan = compile(&mut exec, g, &[("d", d)]).expect("a plan");
        exec.write(plan, "dy", &[seed, -2.0 * seed, 3.0 * seed, seed]).expect("an input");
        exec.run(plan).and_then(|()| exec.read(plan, "d")).map(|d| (d, scaled)).expect("a run")
    }

    #[test]
    fn balance_changes_no_bit_and_works_where_it_may() {
        for seed in [1e-7, 1.0, 3e5, 0.0] {
            let (plain, _) = gradient(seed, false, false);
            assert_eq!(gradient(seed, true, false), (plain.clone(), true));
            assert!(!gradient(seed, true, true).1, "not every gradient passes through");
        }
    }
}
