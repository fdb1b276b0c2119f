//! Twin of `shader/unary.wgsl` and `shader/shared/activation.wgsl`.
use super::Real;
use crate::kernel::elementwise::Map;
use alloc::vec::Vec;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}
const ROOT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

/// Activation by number: 0 none, 1 silu, 2 gelu (erf), 3 gelu (tanh), 4 quick_gelu, 5 relu.
pub fn activate(x: f64, act: u32) -> f64 {
    match act {
        1 => x * sigmoid(x),
        2 => 0.5 * x * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2)),
        3 => 0.5 * x * (1.0 + libm::tanh(ROOT_2_OVER_PI * (x + 0.044715 * x * x * x))),
        4 => x * sigmoid(1.702 * x),
        5 => {
            if x > 0.0 || x.is_nan() {
                x
            } else {
                0.0
            }
        }
        _ => x,
    }
}
/// Derivative of [`activate`].
pub fn activate_slope(x: f64, act: u32) -> f64 {
    match act {
        1 => {
            let s = sigmoid(x);
            s * (1.0 + x * (1.0 - s))
        }
        2 => {
            0.5 * (1.0 + libm::erf(x * core::f64::consts::FRAC_1_SQRT_2))
                + x * 0.398_942_280_401_432_7 * libm::exp(-0.5 * x * x)
        }
        3 => {
            let t = libm::tanh(ROOT_2_OVER_PI * (x + 0.044715 * x * x * x));
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * ROOT_2_OVER_PI * (1.0 + 0.134145 * x * x)
        }
        4 => {
            let s = sigmoid(1.702 * x);
            s * (1.0 + 1.702 * x * (1.0 - s))
        }
        5 => f64::from(u8::from(x > 0.0)),
        _ => 1.0,
    }
}
/// [`crate::kernel::Unary::Balance`].
fn balance(x: f64) -> f64 {
    if x < f64::from(f32::MIN_POSITIVE) || !x.is_finite() || x > f64::from(f32::MAX) {
        return 1.0;
    }
    libm::exp2(f64::from((-4 - libm::ilogb(x)).max(-126)))
}
fn value(x: f64, op: u32, alpha: f64, beta: f64) -> f64 {
    match op {
        16 => alpha * x + beta,
        17 => libm::exp(x),
        18 => x * x,
        19 => x.max(alpha).min(beta),
        20 => libm::sqrt(x),
        21 => 1.0 / x,
        22 => x.abs(),
        23 => balance(x),
        _ => activate(x, op),
    }
}
fn slope(x: f64, op: u32, alpha: f64, beta: f64) -> f64 {
    match op {
        16 => alpha,
        17 => libm::exp(x),
        18 => 2.0 * x,
        19 => f64::from(u8::from(x >= alpha && x <= beta)),
        20 => 0.5 / libm::sqrt(x),
        21 => -1.0 / (x * x),
        23 => 0.0,
        22 => {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                0.0
            }
        }
        _ => activate_slope(x, op),
    }
}
pub(crate) fn unary<R: Real>(p: &Map, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    for i in 0..p.n as usize {
        outputs[0][i] = R::narrow(value(inputs[0][i].wide(), p.op, p.alpha.into(), p.beta.into()));
    }
}
pub(crate) fn unary_backward<R: Real>(p: &Map, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (x, dy) = (inputs[0], inputs[1]);
    for i in 0..p.n as usize {
        outputs[0][i] = R::narrow(dy[i].wide() * slope(x[i].wide(), p.op, p.alpha.into(), p.beta.into()));
    }
}
