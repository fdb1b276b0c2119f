//! Products in every orientation and with every epilogue.
use super::{Case, four, matrix};
use pentimento_runtime::graph::{Graph, Id, Layout};
use pentimento_wgsl::kernel::Act;

/// A linear layer with bias and activation, which fuse.
fn activated(g: &mut Graph, n: [usize; 3], act: Act) -> (Id, Vec<Id>) {
    let (k, c) = (four(n[2]), four(n[1]));
    let (x, w, b) = (matrix(g, "x", n[0], k), matrix(g, "w", c, k), g.input("b", &[c]));
    let y = g.linear(x, w, Some(b));
    (g.act(act, y), vec![x])
}
/// a, b and their product; `round` makes the sides multiples of four, as the texture bodies want them.
fn product(g: &mut Graph, n: [usize; 3], a_t: bool, b_t: bool, round: bool) -> (Id, Vec<Id>) {
    let [m, n, k] = if round { n.map(four) } else { n };
    let a = if a_t { matrix(g, "a", k, m) } else { matrix(g, "a", m, k) };
    let b = if b_t { matrix(g, "b", n, k) } else { matrix(g, "b", k, n) };
    (g.matmul(a, b, a_t, b_t), vec![a, b])
}
/// A weight leaf; its name tells its shape, since an executor keeps leaves by name.
fn weight(g: &mut Graph, r: usize, c: usize) -> Id {
    g.weight(format!("w {r}x{c}"), &[r, c], Layout::Plain)
}

/// Everything that fuses into one product.
fn fused(g: &mut Graph, n: [usize; 3], w: fn(&mut Graph, usize, usize) -> Id) -> (Id, Vec<Id>) {
    let (k, c) = (four(n[2]), four(n[1]));
    let x = g.input("x", &[2, n[0], k]);
    let w = w(g, c, k);
    let b = g.input("b", &[c]);
    let gate = g.input("gate", &[2, 1, c]);
    let other = g.input("other", &[2, n[0], c]);
    let y = g.linear(x, w, Some(b));
    let y = g.act(Act::GeluTanh, y);
    let y = g.mul(y, gate);
    (g.add(other, y), vec![x, other])
}

/// A layer with an adapter of few columns, which is a second pair of factors where bodies take one.
fn adapted(g: &mut Graph, n: [usize; 3], w: fn(&mut Graph, usize, usize) -> Id) -> (Id, Vec<Id>) {
    let (k, c) = (16 * n[2].div_ceil(16), four(n[1]));
    let x = g.input("x", &[2, n[0], k]);
    let w = w(g, c, k);
    let bias = g.input("b", &[c]);
    let (down, up) = (matrix(g, "down", 4, k), matrix(g, "up", c, 4));
    let gate = g.input("gate", &[2, 1, c]);
    let other = g.input("other", &[2, n[0], c]);
    let y = g.linear(x, w, Some(bias));
    let low = g.linear(x, down, None);
    let low = g.linear(low, up, None);
    let y = g.add(y, low);
    let y = g.mul(y, gate);
    (g.add(other, y), vec![x, down, up])
}

pub(super) const SMOOTH: &[Case] = &[
    Case { name: "linear_adapted", build: |g, n| adapted(g, n, |g, c, k| matrix(g, "w", c, k)) },
    Case {
        name: "matmul_tn_long",
        build: |g, n| {
            let (a, b) = (matrix(g, "a", 200 + n[2], 4), matrix(g, "b", 200 + n[2], four(n[1].min(24))));
            (g.matmul(a, b, true, false), vec![a, b])
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
    Case { name: "linear_four", build: |g, n| product(g, n, false, true, true) },
    Case { name: "matmul_nn", build: |g, n| product(g, n, false, false, false) },
    Case { name: "matmul_nn_four", build: |g, n| product(g, n, false, false, true) },
    Case { name: "matmul_tn", build: |g, n| product(g, n, true, false, false) },
    Case { name: "matmul_tn_four", build: |g, n| product(g, n, true, false, true) },
    Case { name: "matmul_tt", build: |g, n| product(g, n, true, true, false) },
    Case { name: "linear_silu", build: |g, n| activated(g, n, Act::Silu) },
    Case { name: "linear_gelu", build: |g, n| activated(g, n, Act::Gelu) },
    Case { name: "linear_quick_gelu", build: |g, n| activated(g, n, Act::QuickGelu) },
    Case { name: "linear_fused", build: |g, n| fused(g, n, |g, c, k| matrix(g, "w", c, k)) },
    Case {
        name: "linear_gate",
        build: |g, n| {
            let (x, w) = (g.input("x", &[3, n[0], n[2]]), matrix(g, "w", n[1], n[2]));
            let gate = g.input("gate", &[3, 1, n[1]]);
            let y = g.linear(x, w, None);
            (g.mul(y, gate), vec![x])
        },
    },
    Case {
        name: "linear_residual",
        build: |g, n| {
            let (x, w) = (matrix(g, "x", n[0], n[2]), matrix(g, "w", n[1], n[2]));
            let r = matrix(g, "r", n[0], n[1]);
            let y = g.linear(x, w, None);
            (g.add(y, r), vec![x, r])
        },
    },
    Case {
        name: "linear_of_slice",
        build: |g, n| {
            let (k, c) = (four(n[2]), four(n[1]));
            let (x, w) = (g.input("x", &[2, n[0], 3 * k]), matrix(g, "w", c, k));
            let y = g.slice(x, 2, k, k);
            let y = g.linear(y, w, None);
            (g.permute(y, &[1, 0, 2]), vec![x, w])
        },
    },
];

pub(super) const WEIGHTED: &[Case] = &[
    Case {
        name: "linear_weight",
        build: |g, n| {
            let x = g.input("x", &[2, n[0], n[2]]);
            let w = weight(g, n[1], n[2]);
            let b = g.input("b", &[n[1]]);
            (g.linear(x, w, Some(b)), vec![x])
        },
    },
    Case {
        name: "linear_weight_four",
        build: |g, n| {
            let x = matrix(g, "x", n[0], four(n[2]));
            let w = weight(g, four(n[1]), four(n[2]));
            (g.linear(x, w, None), vec![x])
        },
    },
    Case { name: "linear_weight_fused", build: |g, n| fused(g, n, weight) },
    Case { name: "linear_weight_adapted", build: |g, n| adapted(g, n, weight) },
    Case {
        name: "matmul_weight_tn",
        build: |g, n| {
            let x = matrix(g, "x", n[2], four(n[0]));
            let w = weight(g, n[2], four(n[1]));
            (g.matmul(x, w, true, false), vec![])
        },
    },
    Case {
        name: "matmul_weight",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[2]);
            let w = weight(g, n[2], n[1]);
            (g.matmul(x, w, false, false), vec![x])
        },
    },
];

pub(super) const QUANTISED: &[Case] = &[
    Case {
        name: "linear_blocks",
        build: |g, n| {
            let (k, c) = (256 * (1 + n[2] % 2), four(n[1].min(40)));
            let x = matrix(g, "x", n[0].min(40), k);
            let w = weight(g, c, k);
            (g.linear(x, w, None), vec![x])
        },
    },
    Case {
        name: "linear_blocks_adapted",
        build: |g, n| adapted(g, [n[0].min(20), n[1].min(40), 256], weight),
    },
];
