//! Bounds of the attention kernels: the formulas of `shader/attention*.wgsl`.
//!
//! Bodies differ in three ways. Logits are to the base e or 2; the latter costs a product with log2(e) on each side of the
//! difference and one with ln 2 in lse. Bodies on cooperative matrices multiply f16: their operands are exact after the
//! rounding that [`pentimento_runtime::exec::operands`] repeats for twin and bound, products of two are exact in f32, and what else
//! is rounded, P and ds, has a relative error of 2^-11 each and loses at most 2^-14 where it is subnormal ([`Real::half`]).
//! The forward pass divides by the sum of the *unrounded* P, so that errors of P do not cancel. P is stored relative to a
//! maximum that may be stale by 2^10, so up to 2^10 larger, which makes the loss smaller; in dk and dv 2^8 larger.
use crate::real::{EPS, FLUSH, Real};
use pentimento_wgsl::kernel::attention::{BIAS, BIAS_BY_QUERY, CAUSAL, Params, Stats};
use pentimento_wgsl::kernel::indices;

/// How a body computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Base e, f32.
    Natural,
    /// Base 2, f32.
    Binary,
    /// Base 2, operands, P and ds in f16.
    Half,
}

impl Body {
    /// An operand of a product.
    fn operand(self, x: f32) -> Real {
        match self {
            Body::Natural | Body::Binary => x.into(),
            Body::Half => Real::of_half(x),
        }
    }
    /// P or ds on its way into a product.
    fn inner(self, x: Real, scale: f64) -> Real {
        match self {
            Body::Natural | Body::Binary => x,
            Body::Half => x.half(scale),
        }
    }
    /// Whether logits are to the base 2.
    fn binary(self) -> bool {
        match self {
            Body::Natural => false,
            Body::Binary | Body::Half => true,
        }
    }
}

struct Dims {
    body: Body,
    batch: usize,
    heads: usize,
    q: usize,
    k: usize,
    d: usize,
    scale: Real,
    flags: u32,
}

impl Dims {
    fn new(body: Body, p: &Params) -> Self {
        let [batch, heads, q, k] = indices([p.block.batch, p.block.heads, p.block.q, p.block.k]);
        let (scale, flags) = (p.block.scale.into(), p.block.flags);
        Dims { body, batch, heads, q, k, d: p.head as usize, scale, flags }
    }
    /// First number of a row of a head; `n` rows a batch.
    fn row(&self, n: usize, b: usize, h: usize, i: usize) -> usize {
        ((b * n + i) * self.heads + h) * self.d
    }
    fn seen(&self, i: usize, j: usize) -> bool {
        self.flags & CAUSAL == 0 || j <= i
    }
    /// Logit of query i and key j, to the body's base. Scaling either operand first rounds each product twice; the sum is of D
    /// products and the bias.
    fn logit(&self, q: &[f32], k: &[f32], bias: &[f32], at: [usize; 4]) -> Real {
        let [b, h, i, j] = at;
        let (qi, kj) = (self.row(self.q, b, h, i), self.row(self.k, b, h, j));
        let operand = |x: f32| self.body.operand(x);
        let extra = match (self.flags & BIAS != 0, self.flags & BIAS_BY_QUERY != 0) {
            (true, _) => Real::from(bias[j]),
            (_, true) => Real::from(bias[(h * self.q + i) * self.k + j]),
            _ => Real::exact(0.0),
        };
        if self.body.binary() {
            let sum = Real::sum((0..self.d).map(|e| operand(q[qi + e]) * operand(k[kj + e])));
            return sum * (self.scale * log2_e()) + extra * log2_e();
        }
        let products = (0..self.d).map(|e| self.scale * operand(q[qi + e]) * operand(k[kj + e]));
        Real::sum(products.chain([extra]))
    }
    /// exp(logit - lse).
    fn probability(&self, logit: Real, lse: f32, extra: f32) -> Real {
        let lse = Real::from(lse);
        if self.body.binary() {
            // In dk and dv bias and lse meet first, with matrices 8 is taken away as well: a rounding each, and an
            // exponential of what is larger by 8.
            let level = lse * log2_e();
            let apart = logit - level;
            let more = EPS * (3.0 * (level.top() + logit.top() + 1.5 * f64::from(extra.abs())) + 48.0);
            return Real { e: apart.e + more, ..apart }.exp2();
        }
        (logit - lse).exp()
    }
    /// The share of ds that its products have, and what their sum is multiplied by: the scale, in one or the other.
    fn scaled(&self, ds: Real) -> Real {
        if self.body.binary() { ds } else { ds * self.scale }
    }
    fn after(&self, sum: Real) -> Real {
        if self.body.binary() { sum * self.scale } else { sum }
    }
}

/// The factor between bases.
fn log2_e() -> Real {
    Real::literal(core::f64::consts::LOG2_E)
}

/// Weights of one query relative to the largest logit, as the online softmax leaves them. A key's weight is the exponential
/// of its distance from the peak of its time, times one factor exp(old peak - new peak) per later step: the distances
/// add up to `peak - s`, so the argument-dependent part of the allowance (2 |x| ULP, and the subtraction's rounding) is
/// 3 (peak - s), the constant part at most 3 ULP and a product for each of the K + 1 steps; each step may flush. To the base 2 the
/// same holds of distances in that base; a stale maximum adds at most 10 on either way.
fn weights(s: &[Real], body: Body) -> Vec<Real> {
    let steps = s.len() as f64 + 1.0;
    let peak = s.iter().map(|s| s.v).fold(f64::NEG_INFINITY, f64::max);
    let one = |s: &Real| {
        let unit = if body.binary() { core::f64::consts::LN_2 } else { 1.0 };
        let v = libm::exp(unit * (s.v - peak));
        let away = peak - s.v + s.e + if body == Body::Half { 20.0 } else { 0.0 };
        let relative = libm::expm1(unit * s.e) + libm::expm1(EPS * (3.0 * away + 4.0 * steps));
        Real { v, e: v * relative * (1.0 + relative) + steps * FLUSH }
    };
    s.iter().map(one).collect()
}

pub(super) fn attention(body: Body, p: &Params, inputs: &[&[f32]]) -> Vec<Vec<Real>> {
    let g = Dims::new(body, p);
    let [q, k, v, bias] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let mut y = vec![Real::exact(0.0); q.len()];
    let mut lse = Vec::with_capacity(g.batch * g.heads * g.q);
    for (b, h, i) in queries(&g) {
        let keys: Vec<usize> = (0..g.k).filter(|&j| g.seen(i, j)).collect();
        let s: Vec<Real> = keys.iter().map(|&j| g.logit(q, k, bias, [b, h, i, j])).collect();
        let w = weights(&s, body);
        let total = Real::sum(w.iter().copied());
        let peak = s.iter().copied().fold(s[0], |a, b| if b.v > a.v { b } else { a });
        // The peak that the shader used may be any of those within their errors.
        let most = s.iter().map(|s| s.e).fold(0.0, f64::max);
        let peak = Real { v: peak.v, e: most };
        lse.push(if body.binary() {
            // A stale maximum is not the peak: both parts may be larger by 10 than they seem.
            let sum = peak + total.log2();
            Real { e: sum.e + 60.0 * EPS, ..sum } * Real::literal(core::f64::consts::LN_2)
        } else {
            peak + total.ln()
        });
        for e in 0..g.d {
            let value = |j: usize| body.operand(v[g.row(g.k, b, h, j) + e]);
            let masked = (0..g.k).filter(|&j| !g.seen(i, j)).map(|j| hidden(value(j)));
            let terms = w.iter().zip(&keys).map(|(&w, &j)| body.inner(w, 1.0) * value(j));
            let sum = Real::sum(terms.chain(masked));
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

/// P and ds of one query and key: exp(s - lse) and P (dP - delta), scaled where products are.
fn pair(g: &Dims, inputs: &[&[f32]], at: [usize; 4]) -> (Real, Real) {
    let [q, k, v, dy, bias, stats] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5]];
    let [b, h, i, j] = at;
    let n = 2 * ((b * g.heads + h) * g.q + i);
    let (qi, kj) = (g.row(g.q, b, h, i), g.row(g.k, b, h, j));
    let operand = |x: f32| g.body.operand(x);
    let dp = Real::sum((0..g.d).map(|e| operand(dy[qi + e]) * operand(v[kj + e])));
    let d = (dp - stats[n + 1].into()) * g.scale;
    if !g.seen(i, j) {
        return (hidden(stats[n].into()), hidden(d));
    }
    let extra = if g.flags & BIAS != 0 { bias[j] } else { 0.0 };
    let p = g.probability(g.logit(q, k, bias, at), stats[n], extra);
    let ds = p * (dp - stats[n + 1].into());
    (g.body.inner(p, 256.0), g.scaled(g.body.inner(ds, 1.0)))
}

/// A pair's share in a gradient: a masked one adds nothing unless it meets something that is not finite, which a kernel may pass
/// on or skip.
fn share(seen: bool, by: Real, x: Real) -> Real {
    if seen {
        by * x
    } else if by.e.is_infinite() {
        Real::free()
    } else {
        hidden(x)
    }
}

pub(super) fn dq(body: Body, p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let g = Dims::new(body, p);
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for (b, h, i) in queries(&g) {
        let ds: Vec<Real> = (0..g.k).map(|j| pair(&g, inputs, [b, h, i, j]).1).collect();
        for e in 0..g.d {
            let k = |j: usize| body.operand(inputs[1][g.row(g.k, b, h, j) + e]);
            let terms = ds.iter().enumerate().map(|(j, &ds)| share(g.seen(i, j), ds, k(j)));
            out[g.row(g.q, b, h, i) + e] = g.after(Real::sum(terms));
        }
    }
    out
}

pub(super) fn dkv(body: Body, p: &Params, inputs: &[&[f32]]) -> Vec<Vec<Real>> {
    let g = Dims::new(body, p);
    let mut dk = vec![Real::exact(0.0); inputs[1].len()];
    let mut dv = dk.clone();
    for n in 0..g.batch * g.heads * g.k {
        let (b, h, j) = (n / (g.heads * g.k), n / g.k % g.heads, n % g.k);
        let pairs: Vec<_> = (0..g.q).map(|i| pair(&g, inputs, [b, h, i, j])).collect();
        for e in 0..g.d {
            let to = g.row(g.k, b, h, j) + e;
            let from = |x: &[f32], i: usize| body.operand(x[g.row(g.q, b, h, i) + e]);
            let term = |i: usize, by: Real, x: &[f32]| share(g.seen(i, j), by, from(x, i));
            dk[to] = g.after(Real::sum(pairs.iter().enumerate().map(|(i, p)| term(i, p.1, inputs[0]))));
            dv[to] = Real::sum(pairs.iter().enumerate().map(|(i, p)| term(i, p.0, inputs[3])));
        }
    }
    vec![dk, dv]
}
