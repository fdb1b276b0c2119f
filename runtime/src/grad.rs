//! Reverse-mode differentiation: rules on the graph, not a tape. Backward nodes are ordinary nodes.
use crate::graph::{Graph, Id, Node, Op};
use crate::op;
use crate::{Error, Result};
use alloc::{collections::BTreeMap, vec, vec::Vec};
use pentimento_wgsl::kernel::Unary;

/// Which values of numbered blocks are computed again next to their backward pass instead of being kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recompute {
    /// None.
    #[default]
    Nothing,
    /// All but attentions, whose results are small beside what they cost, the more the longer a sequence is.
    Most,
    /// All, so that only block borders stay in memory (Chen et al. 2016): about a third more work.
    All,
}

impl From<bool> for Recompute {
    fn from(all: bool) -> Self {
        if all { Recompute::All } else { Recompute::Nothing }
    }
}

/// Appends the backward pass of `y` with gradient `dy` and returns the gradients of `wrt`, in order.
/// What `recompute` says is computed again next to the backward pass; the same kernels give the same bits.
///
/// # Errors
/// [`Error::Graph`] when `y` does not depend on an entry of `wrt`, or through an op without a gradient.
pub fn gradients(
    g: &mut Graph,
    y: Id,
    dy: Id,
    wrt: &[Id],
    recompute: impl Into<Recompute>,
) -> Result<Vec<Id>> {
    let recompute = recompute.into();
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
        let (source, node) = source(g, id, recompute, &mut copies);
        let was = g.exact(g.node(id).exact);
        for (x, dx) in inputs.iter().zip(op::backward(g, source, &node, dy, &need)?) {
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

/// Whether [`Recompute::Most`] keeps a value.
fn dear(g: &Graph, id: Id) -> bool {
    match g.node(id).op {
        Op::Attention { .. } => true,
        Op::Second => dear(g, g.node(id).inputs[0]),
        _ => false,
    }
}

/// Where the value of a node lies that its backward pass reads, and the node with the inputs that it reads.
fn source(g: &mut Graph, id: Id, how: Recompute, copies: &mut BTreeMap<Id, Id>) -> (Id, Node) {
    let mut node = g.node(id).clone();
    match how {
        Recompute::Most if node.block != 0 && dear(g, id) => {
            node.inputs = inputs(g, &node, how, copies);
            (id, node)
        }
        Recompute::Most | Recompute::All => {
            let copy = recomputed(g, id, how, copies);
            (copy, g.node(copy).clone())
        }
        Recompute::Nothing => (id, node),
    }
}

/// A node's inputs, those of its own block computed again.
fn inputs(g: &mut Graph, node: &Node, how: Recompute, copies: &mut BTreeMap<Id, Id>) -> Vec<Id> {
    let inside = |g: &Graph, x: Id| g.node(x).block == node.block;
    node.inputs.iter().map(|&x| if inside(g, x) { recomputed(g, x, how, copies) } else { x }).collect()
}

/// A copy of a block's value whose operands are copies too, down to the block's border or to what is kept.
fn recomputed(g: &mut Graph, id: Id, how: Recompute, copies: &mut BTreeMap<Id, Id>) -> Id {
    let node = g.node(id).clone();
    let kept = how == Recompute::Most && dear(g, id);
    if node.block == 0 || kept || matches!(node.op, Op::Leaf { .. }) {
        return id;
    }
    if let Some(&copy) = copies.get(&id) {
        return copy;
    }
    let inputs = inputs(g, &node, how, copies);
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
