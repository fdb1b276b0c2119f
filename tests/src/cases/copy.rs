//! Everything that only moves numbers.
use super::Case;

pub(super) const SMOOTH: &[Case] = &[
    Case {
        name: "slice",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.slice(x, 1, n[1] / 3, n[1] - n[1] / 2), vec![x])
        },
    },
    Case {
        name: "slice_last",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.slice(x, 2, n[2] - 1, 1), vec![x])
        },
    },
    Case {
        name: "pad_first",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.pad(x, 0, 2, n[0] + 3), vec![x])
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
        name: "concat_last",
        build: |g, n| {
            let (x, y) = (g.input("x", &n), g.input("y", &[n[0], n[1], 5]));
            (g.concat(x, y, 2), vec![x, y])
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
        name: "permute_heads",
        build: |g, n| {
            let x = g.input("x", &[2, n[0], n[1], n[2]]);
            (g.permute(x, &[0, 2, 1, 3]), vec![x])
        },
    },
    Case {
        name: "permute_five",
        build: |g, n| {
            let x = g.input("x", &[n[0], 2, n[1], 3, n[2]]);
            (g.permute(x, &[3, 0, 4, 1, 2]), vec![x])
        },
    },
    Case {
        name: "upsample",
        build: |g, n| {
            let x = g.input("x", &[2, 1 + n[0] % 5, 1 + n[1] % 5, n[2] + n[0] % 2]);
            (g.upsample(x), vec![x])
        },
    },
];
