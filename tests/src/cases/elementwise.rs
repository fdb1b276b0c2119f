//! Functions of one and two arguments in every form of repetition, and sums.
use super::{Case, matrix};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::rng::Philox;
use pentimento_wgsl::kernel::{Act, Binary, Unary};

fn unary(g: &mut Graph, n: [usize; 3], f: Unary) -> (Id, Vec<Id>) {
    let x = matrix(g, "x", n[0], n[1]);
    (g.unary(f, x), vec![x])
}
fn binary(g: &mut Graph, n: [usize; 3], f: Binary, b: &[usize]) -> (Id, Vec<Id>) {
    let x = g.input("x", &[n[0], n[1], n[2]]);
    let y = g.input("y", b);
    (g.binary(f, x, y), vec![x, y])
}

pub(super) const SMOOTH: &[Case] = &[
    Case { name: "silu", build: |g, n| unary(g, n, Unary::Act(Act::Silu)) },
    Case { name: "gelu", build: |g, n| unary(g, n, Unary::Act(Act::Gelu)) },
    Case { name: "gelu_tanh", build: |g, n| unary(g, n, Unary::Act(Act::GeluTanh)) },
    Case { name: "quick_gelu", build: |g, n| unary(g, n, Unary::Act(Act::QuickGelu)) },
    Case { name: "exp", build: |g, n| unary(g, n, Unary::Exp) },
    Case { name: "square", build: |g, n| unary(g, n, Unary::Square) },
    Case { name: "affine", build: |g, n| unary(g, n, Unary::Affine(-1.5, 0.25)) },
    Case {
        name: "sqrt_reciprocal",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[1]);
            let s = g.unary(Unary::Square, x);
            let s = g.affine(s, 1.0, 0.5);
            let r = g.unary(Unary::Sqrt, s);
            (g.unary(Unary::Reciprocal, r), vec![x])
        },
    },
    Case { name: "add_same", build: |g, n| binary(g, n, Binary::Add, &n) },
    Case { name: "add_batch", build: |g, n| binary(g, n, Binary::Add, &[n[0], 1, n[2]]) },
    Case { name: "sub_row", build: |g, n| binary(g, n, Binary::Sub, &[n[2]]) },
    Case { name: "mul_same", build: |g, n| binary(g, n, Binary::Mul, &n) },
    Case { name: "mul_batch", build: |g, n| binary(g, n, Binary::Mul, &[n[0], 1, n[2]]) },
    Case { name: "mul_outer", build: |g, n| binary(g, n, Binary::Mul, &[n[0], 1, 1]) },
    Case { name: "mul_scalar", build: |g, n| binary(g, n, Binary::Mul, &[1]) },
    Case { name: "scale1_batch", build: |g, n| binary(g, n, Binary::Scale1, &[n[0], 1, n[2]]) },
    Case { name: "scale1_row", build: |g, n| binary(g, n, Binary::Scale1, &[n[1], n[2]]) },
    Case {
        name: "sum_first",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.sum(x, 1, n[0], n[1] * n[2], 1.0, &[n[1], n[2]]), vec![x])
        },
    },
    Case {
        name: "sum_middle",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.sum(x, n[0], n[1], n[2], 0.5, &[n[0], n[2]]), vec![x])
        },
    },
    Case {
        name: "mean_long",
        build: |g, n| {
            let x = g.input("x", &[2, 32 * n[0], 64]);
            (g.mean(x, 1), vec![x])
        },
    },
];

pub(super) const KINKED: &[Case] = &[
    Case { name: "relu", build: |g, n| unary(g, n, Unary::Act(Act::Relu)) },
    Case { name: "balance", build: |g, n| unary(g, n, Unary::Balance) },
    Case { name: "abs", build: |g, n| unary(g, n, Unary::Abs) },
    Case { name: "clamp", build: |g, n| unary(g, n, Unary::Clamp(-0.5, 1.25)) },
    Case { name: "sqrt", build: |g, n| unary(g, n, Unary::Sqrt) },
    Case { name: "reciprocal", build: |g, n| unary(g, n, Unary::Reciprocal) },
    Case { name: "max_same", build: |g, n| binary(g, n, Binary::Max, &n) },
    Case { name: "max_row", build: |g, n| binary(g, n, Binary::Max, &[n[2]]) },
];

pub(super) const FORWARD: &[Case] = &[
    Case {
        name: "ge_outer",
        build: |g, n| {
            let (y, _) = binary(g, n, Binary::Ge, &[n[0], 1, 1]);
            (y, vec![])
        },
    },
    Case {
        name: "philox",
        build: |g, n| {
            // Sixteen bits in each number, whatever is drawn; other states are `numerics/random.rs`'s.
            let zero = g.input("zero", &[Philox::STATE]);
            let state = g.affine(zero, 1.0, 50_861.0);
            let (upper, lower) = g.philox(state, &[n[0], n[1]]);
            (g.add(upper, lower), vec![])
        },
    },
];
