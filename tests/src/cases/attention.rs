//! Attention in the head widths and masks that the networks use.
use super::Case;
use pentimento_runtime::graph::{Graph, Id};

/// Queries and keys follow the first two sizes, kept small where heads are wide; the third chooses batch and heads.
fn attention(g: &mut Graph, n: [usize; 3], head: usize, causal: bool, bias: bool) -> (Id, Vec<Id>) {
    let (b, heads) = (1 + n[2] % 2, 1 + n[2] % 3);
    let fewer = |n: usize| if n > 200 { n % 200 + 1 } else { n };
    let queries = fewer(n[0]);
    let keys = if causal { queries } else { fewer(n[1]) };
    let q = g.input("q", &[b, queries, heads * head]);
    let k = g.input("k", &[b, keys, heads * head]);
    let v = g.input("v", &[b, keys, heads * head]);
    let bias = bias.then(|| g.input("bias", &[keys]));
    (g.attention(q, k, v, heads, bias, causal), vec![q, k, v])
}

/// As many queries and keys as bodies for large operands ask for, and more than one block of them.
fn large(g: &mut Graph, n: [usize; 3], head: usize, causal: bool, bias: bool) -> (Id, Vec<Id>) {
    let (b, heads) = [(1, 1), (1, 2), (2, 1)][n[2] % 3];
    let queries = 64 + n[0] % 70;
    let keys = if causal { queries } else { 32 + n[1] % 100 };
    let q = g.input("q", &[b, queries, heads * head]);
    let k = g.input("k", &[b, keys, heads * head]);
    let v = g.input("v", &[b, keys, heads * head]);
    let bias = bias.then(|| g.input("bias", &[keys]));
    (g.attention(q, k, v, heads, bias, causal), vec![q, k, v])
}

fn by_query(g: &mut Graph, [b, heads, q, k]: [usize; 4], head: usize) -> (Id, Vec<Id>) {
    let x = g.input("q", &[b, q, heads * head]);
    let (key, v) = (g.input("k", &[b, k, heads * head]), g.input("v", &[b, k, heads * head]));
    let bias = g.input("bias", &[heads, q, k]);
    (g.attention(x, key, v, heads, Some(bias), false), vec![])
}

pub(super) const SMOOTH: &[Case] = &[
    Case { name: "attention_4", build: |g, n| attention(g, n, 4, false, false) },
    Case { name: "attention_64", build: |g, n| attention(g, n, 64, false, false) },
    Case { name: "attention_128", build: |g, n| attention(g, n, 128, false, false) },
    Case { name: "attention_bias_16", build: |g, n| attention(g, n, 16, false, true) },
    Case { name: "attention_causal_8", build: |g, n| attention(g, n, 8, true, false) },
    Case { name: "attention_causal_bias_12", build: |g, n| attention(g, n, 12, true, true) },
    Case { name: "attention_large_64", build: |g, n| large(g, n, 64, false, false) },
    Case { name: "attention_large_bias_80", build: |g, n| large(g, n, 80, false, true) },
    Case { name: "attention_large_causal_52", build: |g, n| large(g, n, 52, true, false) },
    Case { name: "attention_large_causal_bias_20", build: |g, n| large(g, n, 20, true, true) },
];

pub(super) const FORWARD: &[Case] = &[
    Case {
        name: "attention_bias_by_query",
        build: |g, n| by_query(g, [1 + n[2] % 2, 1 + n[2] % 3, n[0], n[1]], 12),
    },
    Case {
        name: "attention_large_bias_by_query",
        build: |g, n| by_query(g, [1, 1 + n[2] % 2, 64 + n[0] % 70, 32 + n[1] % 100], 36),
    },
];
