//! Twins of the `shader/attention*.wgsl` kernels. They store one row of probabilities at a time.
use super::{at, float};
use alloc::{vec, vec::Vec};

struct Dims {
    batch: usize,
    heads: usize,
    q: usize,
    k: usize,
    scale: f64,
    bias: bool,
    causal: bool,
    /// The bias is [H, Q, K], not [K].
    bias_by_query: bool,
}
impl Dims {
    fn new(p: &[u32]) -> Self {
        Dims {
            batch: at(p, 0),
            heads: at(p, 1),
            q: at(p, 2),
            k: at(p, 3),
            scale: float(p, 4).into(),
            bias: p[5] & 1 != 0,
            causal: p[5] & 2 != 0,
            bias_by_query: p[5] & 4 != 0,
        }
    }
    /// Logits of query `i`; unseen keys get minus infinity.
    fn logits(&self, q: &[f32], k: &[f32], bias: &[f32], d: usize, b: usize, h: usize, i: usize) -> Vec<f64> {
        let row = self.heads * d;
        (0..self.k)
            .map(|j| {
                if self.causal && j > i {
                    return f64::NEG_INFINITY;
                }
                let (qi, kj) = ((b * self.q + i) * row + h * d, (b * self.k + j) * row + h * d);
                let s: f64 = (0..d).map(|e| f64::from(q[qi + e]) * f64::from(k[kj + e])).sum();
                let extra = match (self.bias, self.bias_by_query) {
                    (true, _) => bias[j],
                    (_, true) => bias[(h * self.q + i) * self.k + j],
                    _ => 0.0,
                };
                self.scale * s + f64::from(extra)
            })
            .collect()
    }
}
pub(super) fn attention(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let g = Dims::new(p);
    let [q, k, v, bias] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let d = q.len() / (g.batch * g.heads * g.q).max(1);
    let row = g.heads * d;
    for b in 0..g.batch {
        for h in 0..g.heads {
            for i in 0..g.q {
                let s = g.logits(q, k, bias, d, b, h, i);
                let top = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = s.iter().map(|x| libm::exp(x - top)).sum();
                for e in 0..d {
                    let sum: f64 = (0..g.k)
                        .map(|j| libm::exp(s[j] - top) * f64::from(v[(b * g.k + j) * row + h * d + e]))
                        .sum();
                    outputs[0][(b * g.q + i) * row + h * d + e] = (sum / total) as f32;
                }
                outputs[1][(b * g.heads + h) * g.q + i] = (top + libm::log(total)) as f32;
            }
        }
    }
}
pub(super) fn attention_stats(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (batch, heads, nq, d) = (at(p, 0), at(p, 1), at(p, 2), at(p, 3));
    let [y, dy, lse] = [inputs[0], inputs[1], inputs[2]];
    for i in 0..batch * heads * nq {
        let bh = i / nq;
        let base = ((bh / heads) * nq + i % nq) * heads * d + (bh % heads) * d;
        let delta: f64 = (0..d).map(|e| f64::from(y[base + e]) * f64::from(dy[base + e])).sum();
        outputs[0][2 * i] = lse[i];
        outputs[0][2 * i + 1] = delta as f32;
    }
}
/// P and ds of one query row.
fn row_gradient(g: &Dims, inputs: &[&[f32]], d: usize, b: usize, h: usize, i: usize) -> (Vec<f64>, Vec<f64>) {
    let [q, k, v, dy, bias, stats] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5]];
    let row = g.heads * d;
    let at = 2 * ((b * g.heads + h) * g.q + i);
    let (lse, delta) = (f64::from(stats[at]), f64::from(stats[at + 1]));
    let p: Vec<f64> = g.logits(q, k, bias, d, b, h, i).iter().map(|s| libm::exp(s - lse)).collect();
    let ds = (0..g.k)
        .map(|j| {
            let dp: f64 = (0..d)
                .map(|e| {
                    f64::from(dy[(b * g.q + i) * row + h * d + e])
                        * f64::from(v[(b * g.k + j) * row + h * d + e])
                })
                .sum();
            p[j] * (dp - delta) * g.scale
        })
        .collect();
    (p, ds)
}
pub(super) fn attention_dq(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let g = Dims::new(p);
    let d = inputs[0].len() / (g.batch * g.heads * g.q).max(1);
    let row = g.heads * d;
    for b in 0..g.batch {
        for h in 0..g.heads {
            for i in 0..g.q {
                let (_, ds) = row_gradient(&g, inputs, d, b, h, i);
                for e in 0..d {
                    let sum: f64 =
                        (0..g.k).map(|j| ds[j] * f64::from(inputs[1][(b * g.k + j) * row + h * d + e])).sum();
                    outputs[0][(b * g.q + i) * row + h * d + e] = sum as f32;
                }
            }
        }
    }
}
pub(super) fn attention_dkv(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let g = Dims::new(p);
    let d = inputs[0].len() / (g.batch * g.heads * g.q).max(1);
    let row = g.heads * d;
    let (q, dy) = (inputs[0], inputs[3]);
    let mut dk = vec![0.0f64; g.batch * g.k * row];
    let mut dv = dk.clone();
    for b in 0..g.batch {
        for h in 0..g.heads {
            for i in 0..g.q {
                let (prob, ds) = row_gradient(&g, inputs, d, b, h, i);
                let at = (b * g.q + i) * row + h * d;
                for j in 0..g.k {
                    for e in 0..d {
                        let to = (b * g.k + j) * row + h * d + e;
                        dk[to] += ds[j] * f64::from(q[at + e]);
                        dv[to] += prob[j] * f64::from(dy[at + e]);
                    }
                }
            }
        }
    }
    for i in 0..dk.len() {
        outputs[0][i] = dk[i] as f32;
        outputs[1][i] = dv[i] as f32;
    }
}
