//! Bounds of the attention kernels: the formulas of `shader/attention*.wgsl`.
use crate::real::{EPS, FLUSH, Real};
use pentimento_wgsl::kernel::attention::{BIAS, BIAS_BY_QUERY, CAUSAL, Params, Stats};
use pentimento_wgsl::kernel::indices;

struct Dims {
    batch: usize,
    heads: usize,
    q: usize,
    k: usize,
    d: usize,
    scale: Real,
    flags: u32,
}

impl Dims {
    fn new(p: &Params) -> Self {
        let [batch, heads, q, k] = indices([p.block.batch, p.block.heads, p.block.q, p.block.k]);
        let (scale, flags) = (p.block.scale.into(), p.block.flags);
        Dims { batch, heads, q, k, d: p.head as usize, scale, flags }
    }
    /// First number of a row of a head; `n` rows a batch.
    fn row(&self, n: usize, b: usize, h: usize, i: usize) -> usize {
        ((b * n + i) * self.heads + h) * self.d
    }
    fn seen(&self, i: usize, j: usize) -> bool {
        self.flags & CAUSAL == 0 || j <= i
    }
    /// Logit of query i and key j. Scaling either operand first rounds each product twice; the sum is of D products and
    /// the bias.
    fn logit(&self, q: &[f32], k: &[f32], bias: &[f32], at: [usize; 4]) -> Real {
        let [b, h, i, j] = at;
        let (qi, kj) = (self.row(self.q, b, h, i), self.row(self.k, b, h, j));
        let products = (0..self.d).map(|e| self.scale * Real::from(q[qi + e]) * k[kj + e].into());
        let extra = match (self.flags & BIAS != 0, self.flags & BIAS_BY_QUERY != 0) {
            (true, _) => Real::from(bias[j]),
            (_, true) => Real::from(bias[(h * self.q + i) * self.k + j]),
            _ => Real::exact(0.0),
        };
        Real::sum(products.chain([extra]))
    }
}

/// Weights of one query relative to the largest logit, as the online softmax leaves them. A key's weight is the exponential
/// of its distance from the peak of its time, times one factor exp(old peak - new peak) per later step: the distances
/// add up to `peak - s`, so the argument-dependent part of the allowance (2 |x| ULP, and the subtraction's rounding) is
/// 3 (peak - s), the constant part at most 3 ULP and a product for each of the K + 1 steps; each step may flush.
fn weights(s: &[Real]) -> Vec<Real> {
    let steps = s.len() as f64 + 1.0;
    let peak = s.iter().map(|s| s.v).fold(f64::NEG_INFINITY, f64::max);
    let one = |s: &Real| {
        let v = libm::exp(s.v - peak);
        let away = peak - s.v + s.e;
        let relative = libm::expm1(s.e) + libm::expm1(EPS * (3.0 * away + 4.0 * steps));
        Real { v, e: v * relative * (1.0 + relative) + steps * FLUSH }
    };
    s.iter().map(one).collect()
}

pub(super) fn attention(p: &Params, inputs: &[&[f32]]) -> Vec<Vec<Real>> {
    let g = Dims::new(p);
    let [q, k, v, bias] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let mut y = vec![Real::exact(0.0); q.len()];
    let mut lse = Vec::with_capacity(g.batch * g.heads * g.q);
    for (b, h, i) in queries(&g) {
        let keys: Vec<usize> = (0..g.k).filter(|&j| g.seen(i, j)).collect();
        let s: Vec<Real> = keys.iter().map(|&j| g.logit(q, k, bias, [b, h, i, j])).collect();
        let w = weights(&s);
        let total = Real::sum(w.iter().copied());
        let peak = s.iter().copied().fold(s[0], |a, b| if b.v > a.v { b } else { a });
        // The peak that the shader used may be any of those within their errors.
        let most = s.iter().map(|s| s.e).fold(0.0, f64::max);
        lse.push(Real { v: peak.v, e: most } + total.ln());
        for e in 0..g.d {
            let value = |j: usize| Real::from(v[g.row(g.k, b, h, j) + e]);
            let masked = (0..g.k).filter(|&j| !g.seen(i, j)).map(|j| hidden(value(j)));
            let sum = Real::sum(w.iter().zip(&keys).map(|(&w, &j)| w * value(j)).chain(masked));
            y[g.row(g.q, b, h, i) + e] = sum.over(total);
        }
    }
    vec![y, lse]
}

/// What a masked pair adds: zero times something. Where that is not finite, a kernel may pass it on or skip it.
fn hidden(x: Real) -> Real {
    if x.v.is_finite() { Real::exact(0.0) } else { Real::free() }
}

fn queries(g: &Dims) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
    let (heads, q) = (g.heads, g.q);
    (0..g.batch * heads * q).map(move |n| (n / (heads * q), n / q % heads, n % q))
}

pub(super) fn stats(p: &Stats, inputs: &[&[f32]]) -> Vec<Real> {
    let [batch, heads, nq, d] = indices([p.batch, p.heads, p.q, p.d]);
    let [y, dy, lse] = [inputs[0], inputs[1], inputs[2]];
    let mut out = Vec::with_capacity(2 * batch * heads * nq);
    for (i, &lse) in lse.iter().enumerate().take(batch * heads * nq) {
        let bh = i / nq;
        let base = ((bh / heads) * nq + i % nq) * heads * d + (bh % heads) * d;
        out.push(lse.into());
        out.push(Real::sum((base..base + d).map(|e| Real::from(y[e]) * dy[e].into())));
    }
    out
}

/// P and ds of one query and key: exp(s - lse) and P (dP - delta) scale.
fn pair(g: &Dims, inputs: &[&[f32]], at: [usize; 4]) -> (Real, Real) {
    let [q, k, v, dy, bias, stats] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5]];
    let [b, h, i, j] = at;
    let n = 2 * ((b * g.heads + h) * g.q + i);
    let (qi, kj) = (g.row(g.q, b, h, i), g.row(g.k, b, h, j));
    let dp = Real::sum((0..g.d).map(|e| Real::from(dy[qi + e]) * v[kj + e].into()));
    let d = (dp - stats[n + 1].into()) * g.scale;
    if !g.seen(i, j) {
        return (hidden(stats[n].into()), hidden(d));
    }
    let p = (g.logit(q, k, bias, at) - stats[n].into()).exp();
    (p, p * (dp - stats[n + 1].into()) * g.scale)
}

/// A pair's share in a gradient: a masked one adds nothing unless it meets something that is not finite.
fn share(seen: bool, by: Real, x: Real) -> Real {
    if seen || by.e.is_infinite() { by * x } else { hidden(x) }
}

pub(super) fn dq(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let g = Dims::new(p);
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for (b, h, i) in queries(&g) {
        let ds: Vec<Real> = (0..g.k).map(|j| pair(&g, inputs, [b, h, i, j]).1).collect();
        for e in 0..g.d {
            let k = |j: usize| Real::from(inputs[1][g.row(g.k, b, h, j) + e]);
            let terms = ds.iter().enumerate().map(|(j, &ds)| share(g.seen(i, j), ds, k(j)));
            out[g.row(g.q, b, h, i) + e] = Real::sum(terms);
        }
    }
    out
}

pub(super) fn dkv(p: &Params, inputs: &[&[f32]]) -> Vec<Vec<Real>> {
    let g = Dims::new(p);
    let mut dk = vec![Real::exact(0.0); inputs[1].len()];
    let mut dv = dk.clone();
    for n in 0..g.batch * g.heads * g.k {
        let (b, h, j) = (n / (g.heads * g.k), n / g.k % g.heads, n % g.k);
        let pairs: Vec<_> = (0..g.q).map(|i| pair(&g, inputs, [b, h, i, j])).collect();
        for e in 0..g.d {
            let to = g.row(g.k, b, h, j) + e;
            let from = |x: &[f32], i: usize| Real::from(x[g.row(g.q, b, h, i) + e]);
            let term = |i: usize, by: Real, x: &[f32]| share(g.seen(i, j), by, from(x, i));
            dk[to] = Real::sum(pairs.iter().enumerate().map(|(i, p)| term(i, p.1, inputs[0])));
            dv[to] = Real::sum(pairs.iter().enumerate().map(|(i, p)| term(i, p.0, inputs[3])));
        }
    }
    vec![dk, dv]
}
