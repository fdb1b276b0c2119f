//! The op table: each row builds a small graph from drawn sizes. One row serves GPU against twin and the gradient check.
use pentimento::graph::{Graph, Id};
use pentimento_wgsl::kernel::{Act, Binary, Unary};

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name, for reports.
    pub name: &'static str,
    /// Builds the graph from three sizes in `1..=40`; returns the result and the inputs a gradient is asked for.
    pub build: fn(&mut Graph, [usize; 3]) -> (Id, Vec<Id>),
}

fn matrix(g: &mut Graph, name: &str, r: usize, c: usize) -> Id {
    g.input(name, &[r, c])
}
fn four(n: usize) -> usize {
    n.next_multiple_of(4)
}
fn unary(g: &mut Graph, n: [usize; 3], f: Unary) -> (Id, Vec<Id>) {
    let x = matrix(g, "x", n[0], n[1]);
    (g.unary(f, x), vec![x])
}
fn binary(g: &mut Graph, n: [usize; 3], f: Binary, b: &[usize]) -> (Id, Vec<Id>) {
    let x = g.input("x", &[n[0], n[1], n[2]]);
    let y = g.input("y", b);
    (g.binary(f, x, y), vec![x, y])
}
fn attention(g: &mut Graph, n: [usize; 3], head: usize, causal: bool, bias: bool) -> (Id, Vec<Id>) {
    let (b, heads) = (1 + n[2] % 2, 1 + n[2] % 3);
    let keys = if causal { n[0] } else { n[1] };
    let q = g.input("q", &[b, n[0], heads * head]);
    let k = g.input("k", &[b, keys, heads * head]);
    let v = g.input("v", &[b, keys, heads * head]);
    let bias = bias.then(|| g.input("bias", &[keys]));
    (g.attention(q, k, v, heads, bias, causal), vec![q, k, v])
}

/// Every op, forward and where it has one backward.
pub const CASES: &[Case] = &[
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
    Case { name: "sub_row", build: |g, n| binary(g, n, Binary::Sub, &[n[2]]) },
    Case { name: "mul_batch", build: |g, n| binary(g, n, Binary::Mul, &[n[0], 1, n[2]]) },
    Case { name: "mul_outer", build: |g, n| binary(g, n, Binary::Mul, &[n[0], 1, 1]) },
    Case { name: "scale1_batch", build: |g, n| binary(g, n, Binary::Scale1, &[n[0], 1, n[2]]) },
    Case { name: "mul_scalar", build: |g, n| binary(g, n, Binary::Mul, &[1]) },
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
    Case {
        name: "slice",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.slice(x, 1, n[1] / 2, n[1] - n[1] / 2), vec![x])
        },
    },
    Case {
        name: "concat",
        build: |g, n| {
            let (x, y) = (g.input("x", &n), g.input("y", &[n[0], 3, n[2]]));
            (g.concat(x, y, 1), vec![x, y])
        },
    },
    Case {
        name: "permute",
        build: |g, n| {
            let x = g.input("x", &[2, n[0], n[1], n[2]]);
            (g.permute(x, &[0, 3, 1, 2]), vec![x])
        },
    },
    Case {
        name: "linear",
        build: |g, n| {
            let (x, w) = (matrix(g, "x", n[0], n[2]), matrix(g, "w", n[1], n[2]));
            let b = g.input("b", &[n[1]]);
            (g.linear(x, w, Some(b)), vec![x, w, b])
        },
    },
    Case {
        name: "linear_four",
        build: |g, n| {
            let (x, w) = (matrix(g, "x", four(n[0]), four(n[2])), matrix(g, "w", four(n[1]), four(n[2])));
            (g.linear(x, w, None), vec![x, w])
        },
    },
    Case {
        name: "linear_fused",
        build: |g, n| {
            let (k, c) = (four(n[2]), four(n[1]));
            let x = g.input("x", &[2, n[0], k]);
            let w = matrix(g, "w", c, k);
            let b = g.input("b", &[c]);
            let gate = g.input("gate", &[2, 1, c]);
            let other = g.input("other", &[2, n[0], c]);
            let y = g.linear(x, w, Some(b));
            let y = g.act(Act::GeluTanh, y);
            let y = g.mul(y, gate);
            (g.add(other, y), vec![x, other])
        },
    },
    Case {
        name: "matmul_nn",
        build: |g, n| {
            let (a, b) = (matrix(g, "a", n[0], n[2]), matrix(g, "b", n[2], n[1]));
            (g.matmul(a, b, false, false), vec![a, b])
        },
    },
    Case {
        name: "matmul_tn",
        build: |g, n| {
            let (a, b) = (matrix(g, "a", n[2], n[0]), matrix(g, "b", n[2], n[1]));
            (g.matmul(a, b, true, false), vec![a, b])
        },
    },
    Case {
        name: "layer_norm",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[1] + 1);
            (g.layer_norm(x, 1e-5), vec![x])
        },
    },
    Case {
        name: "layer_norm_modulated",
        build: |g, n| {
            let x = g.input("x", &[2, n[0], n[1] + 1]);
            let (scale, shift) = (g.input("scale", &[2, 1, n[1] + 1]), g.input("shift", &[2, 1, n[1] + 1]));
            let y = g.layer_norm(x, 1e-5);
            let y = g.binary(Binary::Scale1, y, scale);
            (g.add(y, shift), vec![x])
        },
    },
    Case {
        name: "layer_norm_affine",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[1] + 1);
            let (w, b) = (g.input("w", &[n[1] + 1]), g.input("b", &[n[1] + 1]));
            (g.layer_norm_affine(x, w, b, 1e-5), vec![x, w, b])
        },
    },
    Case {
        name: "rms_norm",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[1]);
            let w = g.input("w", &[n[1]]);
            (g.rms_norm(x, w, 1e-5), vec![x])
        },
    },
    Case { name: "attention_64", build: |g, n| attention(g, n, 64, false, false) },
    Case { name: "attention_bias_16", build: |g, n| attention(g, n, 16, false, true) },
    Case { name: "attention_causal_8", build: |g, n| attention(g, n, 8, true, false) },
];

/// Ops that have no gradient.
pub const FORWARD_ONLY: &[Case] = &[
    Case {
        name: "attention_bias_by_query",
        build: |g, n| {
            let (b, heads) = (1 + n[2] % 2, 1 + n[2] % 3);
            let q = g.input("q", &[b, n[0], heads * 12]);
            let (k, v) = (g.input("k", &[b, n[1], heads * 12]), g.input("v", &[b, n[1], heads * 12]));
            let bias = g.input("bias", &[heads, n[0], n[1]]);
            (g.attention(q, k, v, heads, Some(bias), false), vec![])
        },
    },
    Case {
        name: "softmax",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[1]);
            (g.softmax(x, 0.7), vec![])
        },
    },
    Case {
        name: "group_norm_silu",
        build: |g, n| {
            let c = 2 * n[2];
            let x = g.input("x", &[2, n[0], 1 + n[1] % 7, c]);
            let (w, b) = (g.input("w", &[c]), g.input("b", &[c]));
            let y = g.group_norm(x, w, b, 2, 1e-5);
            (g.act(Act::Silu, y), vec![])
        },
    },
    Case {
        name: "conv2d_3x3",
        build: |g, n| {
            let (h, w, c) = (1 + n[0] % 9, 1 + n[1] % 9, four(1 + n[2] % 8));
            let x = g.input("x", &[2, h, w, c]);
            let k = g.input("k", &[n[2], 3, 3, c]);
            let b = g.input("b", &[n[2]]);
            let y = g.conv2d(x, k, Some(b), 1, 1, 0);
            let r = g.input("r", &[2, h, w, n[2]]);
            (g.add(y, r), vec![])
        },
    },
    Case {
        name: "conv2d_down",
        build: |g, n| {
            let (h, w) = (2 + n[0] % 9, 2 + n[1] % 9);
            let x = g.input("x", &[1, h, w, 4]);
            let k = g.input("k", &[5, 3, 3, 4]);
            (g.conv2d(x, k, None, 2, 0, 1), vec![])
        },
    },
    Case {
        name: "upsample",
        build: |g, n| {
            let x = g.input("x", &[2, 1 + n[0] % 5, 1 + n[1] % 5, n[2]]);
            (g.upsample(x), vec![])
        },
    },
];

/// Shapes of a graph's inputs by name, in order.
pub fn inputs(g: &Graph) -> Vec<(String, usize)> {
    use pentimento::graph::{Leaf, Op};
    let inputs = g.nodes().iter().filter_map(|n| match &n.op {
        Op::Leaf { kind: Leaf::Input, name } => Some((name.clone(), n.shape.iter().product())),
        _ => None,
    });
    inputs.collect()
}
