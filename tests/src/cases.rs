//! The op table: each row builds a small graph from drawn sizes. One row serves adapter against twin, the gradient
//! check, the benchmark and the check that every kernel variant is reached. To add one, put it into the list of its family:
//! `SMOOTH` where central differences apply, `KINKED` where they do not (poles, borders), `FORWARD` without gradient.
mod attention;
mod copy;
mod elementwise;
mod image;
mod matmul;
mod norm;

use pentimento_runtime::graph::{Graph, Id};
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::{BLOCKS, PLAIN};

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name, for reports and for replaying.
    pub name: &'static str,
    /// Builds the graph from three positive sizes; returns the result and the inputs a gradient is asked for.
    pub build: fn(&mut Graph, [usize; 3]) -> (Id, Vec<Id>),
}

/// Rows of several families as one list.
const fn join<const N: usize>(families: &[&[Case]]) -> [Case; N] {
    let mut out = [families[0][0]; N];
    let (mut at, mut f) = (0, 0);
    while f < families.len() {
        let mut i = 0;
        while i < families[f].len() {
            out[at] = families[f][i];
            (at, i) = (at + 1, i + 1);
        }
        f += 1;
    }
    assert!(at == N);
    out
}
const fn count(families: &[&[Case]]) -> usize {
    let (mut n, mut f) = (0, 0);
    while f < families.len() {
        (n, f) = (n + families[f].len(), f + 1);
    }
    n
}

const SMOOTH: &[&[Case]] =
    &[elementwise::SMOOTH, copy::SMOOTH, matmul::SMOOTH, norm::SMOOTH, attention::SMOOTH, image::SMOOTH];
const FORWARD: &[&[Case]] = &[elementwise::FORWARD, norm::FORWARD, attention::FORWARD];

/// Every op that has a gradient, in rows that are differentiable everywhere.
pub const CASES: &[Case] = &join::<{ count(SMOOTH) }>(SMOOTH);
/// Rows without gradient.
pub const FORWARD_ONLY: &[Case] = &join::<{ count(FORWARD) }>(FORWARD);
/// Rows whose gradients have poles or jumps.
pub const KINKED: &[Case] = elementwise::KINKED;
/// Rows with weight leaves, which may be stored in half precision.
pub const WEIGHTED: &[Case] = matmul::WEIGHTED;
/// Rows with weight leaves, which may be stored in blocks.
pub const QUANTISED: &[Case] = matmul::QUANTISED;

/// How the weight leaves of a row may be stored.
pub fn kinds(case: &Case) -> Vec<Stored> {
    let among = |rows: &[Case]| rows.iter().any(|row| row.name == case.name);
    if among(WEIGHTED) {
        PLAIN.map(Stored::from).into()
    } else if among(QUANTISED) {
        BLOCKS.into()
    } else {
        vec![Stored::F32]
    }
}

/// All rows.
pub fn all() -> impl Iterator<Item = Case> {
    [CASES, FORWARD_ONLY, KINKED, WEIGHTED, QUANTISED].into_iter().flatten().copied()
}

/// Shapes of a graph's inputs by name, in order.
pub fn inputs(g: &Graph) -> Vec<(String, usize)> {
    use pentimento_runtime::graph::{Leaf, Op};
    let inputs = g.nodes().iter().filter_map(|n| match &n.op {
        Op::Leaf { kind: Leaf::Input, name } => Some((name.clone(), n.shape.iter().product())),
        _ => None,
    });
    inputs.collect()
}

fn matrix(g: &mut Graph, name: &str, r: usize, c: usize) -> Id {
    g.input(name, &[r, c])
}
fn four(n: usize) -> usize {
    n.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_row_builds() {
        let mut names: Vec<_> = all().map(|c| c.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
        for case in all() {
            for n in [[1, 1, 1], [5, 3, 4], [1, 17, 2]] {
                let mut g = Graph::new();
                (case.build)(&mut g, n);
                g.check().unwrap_or_else(|e| panic!("{} {n:?}: {e}", case.name));
            }
        }
    }
}
