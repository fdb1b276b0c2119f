//! Attention in the head widths and masks that the networks use.
use super::Case;
use pentimento::graph::{Graph, Id};

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

pub(super) const SMOOTH: &[Case] = &[
    Case { name: "attention_4", build: |g, n| attention(g, n, 4, false, false) },
    Case { name: "attention_64", build: |g, n| attention(g, n, 64, false, false) },
    Case { name: "attention_128", build: |g, n| attention(g, n, 128, false, false) },
    Case { name: "attention_bias_16", build: |g, n| attention(g, n, 16, false, true) },
    Case { name: "attention_causal_8", build: |g, n| attention(g, n, 8, true, false) },
    Case { name: "attention_causal_bias_12", build: |g, n| attention(g, n, 12, true, true) },
];

pub(super) const FORWARD: &[Case] = &[Case {
    name: "attention_bias_by_query",
    build: |g, n| {
        let (b, heads) = (1 + n[2] % 2, 1 + n[2] % 3);
        let q = g.input("q", &[b, n[0], heads * 12]);
        let (k, v) = (g.input("k", &[b, n[1], heads * 12]), g.input("v", &[b, n[1], heads * 12]));
        let bias = g.input("bias", &[heads, n[0], n[1]]);
        (g.attention(q, k, v, heads, Some(bias), false), vec![])
    },
}];
