//! Convolutions.
use super::{Case, four};

pub(super) const SMOOTH: &[Case] = &[
    Case {
        name: "conv2d_1x1",
        build: |g, n| {
            let (h, w, c) = (1 + n[0] % 9, 1 + n[1] % 9, four(n[2]));
            let x = g.input("x", &[1, h, w, c]);
            let k = g.input("k", &[n[1] % 50 + 1, 1, 1, c]);
            (g.conv2d(x, k, None, 1, 0, 0), vec![x])
        },
    },
    Case {
        name: "conv2d_3x3",
        build: |g, n| {
            let (h, w, c) = (1 + n[0] % 9, 1 + n[1] % 9, four(1 + n[2] % 8));
            let outs = n[2] % 100 + 1;
            let x = g.input("x", &[2, h, w, c]);
            let k = g.input("k", &[outs, 3, 3, c]);
            let b = g.input("b", &[outs]);
            let y = g.conv2d(x, k, Some(b), 1, 1, 0);
            let r = g.input("r", &[2, h, w, outs]);
            (g.add(y, r), vec![x, r])
        },
    },
    Case {
        name: "conv2d_fours",
        build: |g, n| {
            let (h, w, c) = (1 + n[0] % 9, 1 + n[1] % 9, four(1 + n[2] % 40));
            let outs = four(1 + n[0] % 100);
            let x = g.input("x", &[2, h, w, c]);
            let k = g.input("k", &[outs, 3, 3, c]);
            let b = g.input("b", &[outs]);
            let y = g.conv2d(x, k, Some(b), 1, 1, 0);
            let r = g.input("r", &[2, h, w, outs]);
            (g.add(y, r), vec![x, r])
        },
    },
    Case {
        name: "conv2d_down_fours",
        build: |g, n| {
            let (h, w) = (2 + n[0] % 9, 2 + n[1] % 9);
            let x = g.input("x", &[2, h, w, 8]);
            let k = g.input("k", &[four(n[2] % 70 + 1), 3, 3, 8]);
            (g.conv2d(x, k, None, 2, 0, 1), vec![x])
        },
    },
    Case {
        name: "conv2d_down",
        build: |g, n| {
            let (h, w) = (2 + n[0] % 9, 2 + n[1] % 9);
            let x = g.input("x", &[1, h, w, 4]);
            let k = g.input("k", &[5, 3, 3, 4]);
            (g.conv2d(x, k, None, 2, 0, 1), vec![x])
        },
    },
];
