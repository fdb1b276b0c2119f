//! Bounds of the elementwise kernels and the sum: the formulas of `shader/shared/activation.wgsl`, `unary.wgsl`,
//! `binary.wgsl` and `sum.wgsl`.
use crate::real::{EPS, FLUSH, Real};
use pentimento_wgsl::kernel::elementwise::{Map, Pair};
use pentimento_wgsl::kernel::{indices, sum};

const ONE: Real = Real::exact(1.0);
const HALF: Real = Real::exact(0.5);

fn sigmoid(x: Real) -> Real {
    if x.v < -87.0 && x.v.is_finite() && x.e.is_finite() {
        // exp overflows, or leaves the domain of the division: the kernel counts on 1 / inf = 0.
        let v = libm::exp((x.v + x.e).min(-87.0));
        return Real { v: libm::exp(x.v), e: v.max(FLUSH) };
    }
    ONE.over(ONE + (-x).exp())
}

/// `tanh_safe` of an argument whose exact value is `v`; beyond 15 only its sign matters.
fn tanh(x: Real) -> Real {
    let v = libm::tanh(x.v);
    if x.v.abs() - x.e > 15.0 || (!x.e.is_finite() && x.v.abs() > 1e30) {
        // e = exp(-30) vanishes beside 1, so one division of ones is left.
        return Real { v, e: 4.5 * EPS };
    }
    let e = (Real::exact(-2.0) * x.abs()).exp();
    let t = (ONE - e).over(ONE + e);
    Real { v, e: t.e + EPS }
}

/// Abramowitz & Stegun 7.1.26, whose own error is below 1.5e-7. Horner's rule on the coefficients; the error of t goes
/// through the polynomial's slope, that of the roundings through the sum of the magnitudes (Higham, section 5.1).
fn erf(x: Real) -> Real {
    const C: [f64; 5] = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429];
    let a = x.abs();
    let t = ONE.over(ONE + Real::literal(0.3275911) * a);
    let (mut p, mut slope, mut size) = (0.0, 0.0, 0.0);
    for (i, c) in C.iter().enumerate() {
        let power = t.v.powi(i as i32);
        p += c * power;
        slope += i as f64 * c * t.v.powi(i as i32 - 1);
        size += (2 * i + 2) as f64 * c.abs() * power;
    }
    // The second-order part of t's error: |p''| <= 20 on [0, 1].
    let p = Real { v: p, e: slope.abs() * t.e + 10.0 * t.e * t.e + EPS * size };
    let tail = (-(a * a)).exp();
    let r = ONE - p * t * tail;
    Real { v: libm::erf(x.v), e: r.e + 1.5e-7 }
}

fn cubic(x: Real) -> Real {
    Real::literal(0.797_884_560_802_865_4) * (x + Real::literal(0.044715) * x * x * x)
}

/// An activation by number.
pub(super) fn activate(x: Real, act: u32) -> Real {
    match act {
        1 => x * sigmoid(x),
        2 => HALF * x * (ONE + erf(x * Real::literal(core::f64::consts::FRAC_1_SQRT_2))),
        3 => HALF * x * (ONE + tanh(cubic(x))),
        4 => x * sigmoid(Real::literal(1.702) * x),
        5 => x.max(Real::exact(0.0)),
        _ => x,
    }
}

fn activate_slope(x: Real, act: u32) -> Real {
    match act {
        1 => {
            let s = sigmoid(x);
            s * (ONE + x * (ONE - s))
        }
        2 => {
            let tail = (Real::exact(-0.5) * x * x).exp();
            HALF * (ONE + erf(x * Real::literal(core::f64::consts::FRAC_1_SQRT_2)))
                + x * Real::literal(0.398_942_280_401_432_7) * tail
        }
        3 => {
            let t = tanh(cubic(x));
            let outer = ONE + Real::literal(0.134145) * x * x;
            HALF * (ONE + t) + HALF * x * (ONE - t * t) * Real::literal(0.797_884_560_802_865_4) * outer
        }
        4 => {
            let s = sigmoid(Real::literal(1.702) * x);
            s * (ONE + x * Real::literal(1.702) * (ONE - s))
        }
        5 => x.step(),
        _ => ONE,
    }
}

fn value(x: Real, op: u32, alpha: f32, beta: f32) -> Real {
    match op {
        16 => Real::from(alpha) * x + Real::from(beta),
        17 => x.exp(),
        18 => x * x,
        19 => x.max(alpha.into()).min(beta.into()),
        20 => x.sqrt(),
        21 => ONE.over(x),
        22 => x.abs(),
        23 => balance(x),
        _ => activate(x, op),
    }
}

/// From the exponent's bits, so exact; a subnormal number has none, flushed or not.
fn balance(x: Real) -> Real {
    let inside = x.v >= f64::from(f32::MIN_POSITIVE) && x.v.is_finite();
    Real::exact(if inside { 2f64.powi((-4 - x.v.log2().floor() as i32).max(-126)) } else { 1.0 })
}

fn slope(x: Real, op: u32, alpha: f32, beta: f32) -> Real {
    match op {
        16 => alpha.into(),
        17 => x.exp(),
        18 => Real::exact(2.0) * x,
        19 => {
            let (lo, hi) = (f64::from(alpha), f64::from(beta));
            // Comparisons are exact; only a flushed operand may fall on the other side.
            let open = (x.v - lo).abs() <= x.e || (x.v - hi).abs() <= x.e;
            let inside = x.v >= lo && x.v <= hi;
            if x.v.is_nan() { Real::free() } else { decided(inside, open && x.e > 0.0) }
        }
        20 => HALF.over(x.sqrt()),
        21 => -ONE.over(x * x),
        23 => Real::exact(0.0),
        22 if x.v.is_nan() => Real::free(),
        22 => Real { v: if x.v == 0.0 { 0.0 } else { x.v.signum() }, e: f64::from(u8::from(x.e > 0.0)) },
        _ => activate_slope(x, op),
    }
}

fn decided(yes: bool, open: bool) -> Real {
    Real { v: f64::from(u8::from(yes)), e: f64::from(u8::from(open)) }
}

pub(super) fn unary(p: &Map, x: &[f32]) -> Vec<Real> {
    x.iter().take(p.n as usize).map(|&x| value(x.into(), p.op, p.alpha, p.beta)).collect()
}

pub(super) fn unary_backward(p: &Map, x: &[f32], dy: &[f32]) -> Vec<Real> {
    let pairs = x.iter().zip(dy).take(p.n as usize);
    pairs.map(|(&x, &dy)| Real::from(dy) * slope(x.into(), p.op, p.alpha, p.beta)).collect()
}

pub(super) fn binary(p: &Pair, a: &[f32], b: &[f32]) -> Vec<Real> {
    let [n, sc, c, stride_o, stride_c] = indices([p.n, p.sc, p.c, p.stride_o, p.stride_c]);
    let one = |i: usize| {
        let (u, v) = (Real::from(a[i]), Real::from(b[(i / sc) * stride_o + (i % c) * stride_c]));
        match p.op {
            0 => u + v,
            1 => u - v,
            2 => u * v,
            3 => u.max(v),
            4 if u.v.is_nan() || v.v.is_nan() => Real::free(),
            4 => decided(u.v >= v.v, u.e + v.e > 0.0),
            _ => u * (ONE + v),
        }
    };
    (0..n).map(one).collect()
}

pub(super) fn sum(p: &sum::Params, x: &[f32]) -> Vec<Real> {
    let [outs, n, inner] = indices([p.outputs, p.n, p.inner]);
    let one = |i: usize| {
        let base = (i / inner) * n * inner + i % inner;
        Real::from(p.scale) * Real::sum((0..n).map(|k| Real::from(x[base + k * inner])))
    };
    (0..outs).map(one).collect()
}
