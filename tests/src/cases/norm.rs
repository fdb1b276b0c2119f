//! Normalisations and softmax.
use super::{Case, matrix};
use pentimento_wgsl::kernel::{Act, Binary};

pub(super) const SMOOTH: &[Case] = &[
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
    Case {
        name: "softmax",
        build: |g, n| {
            let x = matrix(g, "x", n[0], n[1]);
            (g.softmax(x, 0.7), vec![x])
        },
    },
    Case {
        name: "group_norm",
        build: |g, n| {
            let c = 3 * n[2];
            let x = g.input("x", &[1, 1 + n[0] % 7, n[1], c]);
            let (w, b) = (g.input("w", &[c]), g.input("b", &[c]));
            (g.group_norm(x, w, b, 3, 1e-6), vec![x])
        },
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
