//! Normalisations and softmax.
use super::{Case, matrix};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_wgsl::kernel::{Act, Binary};

/// Rows that GPUs give to 64 invocations, and to 256.
const MIDDLE: usize = 300;
const LONG: usize = 1024;

/// A few rows of so many numbers and some.
fn few(n: [usize; 3], long: usize) -> [usize; 2] {
    [1 + n[0] % 8, long + n[1]]
}
fn layer_norm(g: &mut Graph, [rows, c]: [usize; 2]) -> (Id, Vec<Id>) {
    let x = matrix(g, "x", rows, c);
    (g.layer_norm(x, 1e-5), vec![x])
}
fn rms_norm(g: &mut Graph, [rows, c]: [usize; 2]) -> (Id, Vec<Id>) {
    let x = matrix(g, "x", rows, c);
    let w = g.input("w", &[c]);
    (g.rms_norm(x, w, 1e-5), vec![x])
}
fn softmax(g: &mut Graph, [rows, c]: [usize; 2]) -> (Id, Vec<Id>) {
    let x = matrix(g, "x", rows, c);
    (g.softmax(x, 0.7), vec![x])
}
fn group_norm(g: &mut Graph, [h, w, per]: [usize; 3], groups: usize) -> (Id, Vec<Id>) {
    let c = groups * per;
    let x = g.input("x", &[1, h, w, c]);
    let (k, b) = (g.input("w", &[c]), g.input("b", &[c]));
    (g.group_norm(x, k, b, groups, 1e-6), vec![x])
}

pub(super) const SMOOTH: &[Case] = &[
    Case { name: "layer_norm", build: |g, n| layer_norm(g, [n[0], n[1] + 1]) },
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
    Case { name: "rms_norm", build: |g, n| rms_norm(g, [n[0], n[1]]) },
    Case { name: "softmax", build: |g, n| softmax(g, [n[0], n[1]]) },
    Case { name: "group_norm", build: |g, n| group_norm(g, [1 + n[0] % 7, n[1], n[2]], 3) },
    Case { name: "layer_norm_middle", build: |g, n| layer_norm(g, few(n, MIDDLE)) },
    Case { name: "rms_norm_middle", build: |g, n| rms_norm(g, few(n, MIDDLE)) },
    Case { name: "softmax_middle", build: |g, n| softmax(g, few(n, MIDDLE)) },
    Case {
        name: "group_norm_middle",
        build: |g, n| group_norm(g, [MIDDLE / 12, 12 + n[1] % 5, 1 + n[2] % 2], 2),
    },
    Case { name: "layer_norm_long", build: |g, n| layer_norm(g, few(n, LONG)) },
    Case { name: "rms_norm_long", build: |g, n| rms_norm(g, few(n, LONG)) },
    Case { name: "softmax_long", build: |g, n| softmax(g, few(n, LONG)) },
    Case { name: "group_norm_parts", build: |g, n| group_norm(g, [64 + n[0] % 3, 40, 1 + n[2] % 2], 2) },
    Case {
        name: "group_norm_long",
        build: |g, n| group_norm(g, [LONG / 12, 12 + n[1] % 5, 1 + n[2] % 2], 2),
    },
];

// A gradient keeps the activation apart, so the fused norm has a row without.
pub(super) const FORWARD: &[Case] = &[Case {
    name: "group_norm_silu",
    build: |g, n| {
        let c = 2 * n[2];
        let x = g.input("x", &[2, n[0], 1 + n[1] % 7, c]);
        let (w, b) = (g.input("w", &[c]), g.input("b", &[c]));
        let y = g.group_norm(x, w, b, 2, 1e-5);
        (g.act(Act::Silu, y), vec![])
    },
}];
