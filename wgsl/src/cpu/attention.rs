//! Twins of the `shader/attention*.wgsl` kernels. They store one row of probabilities at a time.
use super::Real;
use crate::kernel::attention::{BIAS, BIAS_BY_QUERY, CAUSAL, Params, Stats};
use crate::kernel::indices;
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
    fn new(p: &Params) -> Self {
        let [batch, heads, q, k] = indices([p.block.batch, p.block.heads, p.block.q, p.block.k]);
        let has = |flag: u32| p.block.flags & flag != 0;
        let scale = p.block.scale.into();
        Dims {
            batch,
            heads,
            q,
            k,
            scale,
            bias: has(BIAS),
            causal: has(CAUSAL),
            bias_by_query: has(BIAS_BY_QUERY),
        }
    }
    /// Logits of query `i`; unseen keys get minus infinity.
    fn logits<R: Real>(
        &self,
        q: &[R],
        k: &[R],
        bias: &[R],
        d: usize,
        b: usize,
        h: usize,
        i: usize,
    ) -> Vec<f64> {
        let row = self.heads * d;
        (0..self.k)
            .map(|j| {
                if self.causal && j > i {
                    return f64::NEG_INFINITY;
                }
                let (qi, kj) = ((b * self.q + i) * row + h * d, (b * self.k + j) * row + h * d);
                let s: f64 = (0..d).map(|e| q[qi + e].wide() * k[kj + e].wide()).sum();
                let extra = match (self.bias, self.bias_by_query) {
                    (true, _) => bias[j],
                    (_, true) => bias[(h * self.q + i) * self.k + j],
                    _ => R::default(),
                };
                self.scale * s + extra.wide()
            })
            .collect()
    }
}
pub(crate) fn attention<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let g = Dims::new(p);
    let [q, k, v, bias] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let d = p.head as usize;
    let row = g.heads * d;
    for b in 0..g.batch {
        for h in 0..g.heads {
            for i in 0..g.q {
                let s = g.logits(q, k, bias, d, b, h, i);
                let top = s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = s.iter().map(|x| libm::exp(x - top)).sum();
                for e in 0..d {
                    let sum: f64 = (0..g.k)
                        .map(|j| libm::exp(s[j] - top) * v[(b * g.k + j) * row + h * d + e].wide())
                        .sum();
                    outputs[0][(b * g.q + i) * row + h * d + e] = R::narrow(sum / total);
                }
                outputs[1][(b * g.heads + h) * g.q + i] = R::narrow(top + libm::log(total));
            }
        }
    }
}
pub(crate) fn attention_stats<R: Real>(p: &Stats, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [batch, heads, nq, d] = indices([p.batch, p.heads, p.q, p.d]);
    let [y, dy, lse] = [inputs[0], inputs[1], inputs[2]];
    for i in 0..batch * heads * nq {
        let bh = i / nq;
        let base = ((bh / heads) * nq + i % nq) * heads * d + (bh % heads) * d;
        let delta: f64 = (0..d).map(|e| y[base + e].wide() * dy[base + e].wide()).sum();
        outputs[0][2 * i] = lse[i];
        outputs[0][2 * i + 1] = R::narrow(delta);
    }
}
/// P and ds of one query row.
fn row_gradient<R: Real>(
    g: &Dims,
    inputs: &[&[R]],
    d: usize,
    b: usize,
    h: usize,
    i: usize,
) -> (Vec<f64>, Vec<f64>) {
    let [q, k, v, dy, bias, stats] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5]];
    let row = g.heads * d;
    let at = 2 * ((b * g.heads + h) * g.q + i);
    let (lse, delta) = (stats[at].wide(), stats[at + 1].wide());
    let p: Vec<f64> = g.logits(q, k, bias, d, b, h, i).iter().map(|s| libm::exp(s - lse)).collect();
    let ds = (0..g.k)
        .map(|j| {
            let dp: f64 = (0..d)
                .map(|e| {
                    dy[(b * g.q + i) * row + h * d + e].wide() * v[(b * g.k + j) * row + h * d + e].wide()
                })
                .sum();
            p[j] * (dp - delta) * g.scale
        })
        .collect();
    (p, ds)
}
pub(crate) fn attention_dq<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let g = Dims::new(p);
    let d = p.head as usize;
    let row = g.heads * d;
    for b in 0..g.batch {
        for h in 0..g.heads {
            for i in 0..g.q {
                let (_, ds) = row_gradient(&g, inputs, d, b, h, i);
                for e in 0..d {
                    let sum: f64 =
                        (0..g.k).map(|j| ds[j] * inputs[1][(b * g.k + j) * row + h * d + e].wide()).sum();
                    outputs[0][(b * g.q + i) * row + h * d + e] = R::narrow(sum);
                }
            }
        }
    }
}
pub(crate) fn attention_dkv<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let g = Dims::new(p);
    let d = p.head as usize;
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
                        dk[to] += ds[j] * q[at + e].wide();
                        dv[to] += prob[j] * dy[at + e].wide();
                    }
                }
            }
        }
    }
    for i in 0..dk.len() {
        outputs[0][i] = R::narrow(dk[i]);
        outputs[1][i] = R::narrow(dv[i]);
    }
}
