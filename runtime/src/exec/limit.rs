//! How far an adapter's result of one command may be from its twin's.
use alloc::vec::Vec;
use pentimento_wgsl::kernel::{Accuracy, Rounding};
use pentimento_wgsl::{Call, Variant, twin};

/// Relative size of the changes by which a result's sensitivity is measured: far above the roundings of f32, small
/// enough for the first order.
const STEP: f32 = 1.0 / 4096.0;

/// Norm of the difference that rounding explains, for each output; `inputs` are those of [`operands`].
///
/// An adapter computes in f32 what its twin sums up in f64. A good kernel returns the exact result of inputs that are
/// changed by a few roundings (backward stability), and the error of a sum of L terms grows as sqrt(L) of them, since
/// roundings have random signs (Higham & Mary 2019, theorem 2.4). So the limit is
///
///   C sqrt(L) eps (|y| + |y(x (1 +- h)) - y| / h) + L sqrt(N) 2^-126,
///
/// with L by [`Call::terms`], where the twin itself tells how much its N results change with inputs that change at random by h, and the last term
/// is for drivers that flush small numbers. C counts the roundings of a term: 4 for products and sums; 12 where exp,
/// division and square roots take part, each of which WGSL allows some 3 ulp. Kernels that only move numbers have none
/// ([`Accuracy`]). Where a body rounds factors of its own to f16 ([`Rounding`]), 2^-11 is added to C sqrt(L) eps.
pub(crate) fn limits(variant: &Variant, call: &Call, inputs: &[&[f32]], outputs: &[Vec<f32>]) -> Vec<f64> {
    let roundings = match call.accuracy() {
        Accuracy::Exact => return outputs.iter().map(|_| 0.0).collect(),
        Accuracy::Products => 4.0,
        Accuracy::Functions => 12.0,
    };
    let terms = call.terms() as f64;
    let inner = match variant.rounding() {
        Rounding::None | Rounding::Half { inner: false, .. } => 0.0,
        Rounding::Half { inner: true, .. } => 1.0 / 2048.0,
    };
    let factor = roundings * libm::sqrt(terms) * f64::from(f32::EPSILON) + inner;
    let changed: Vec<Vec<f32>> = inputs.iter().enumerate().map(|(i, x)| change(x, i as u32)).collect();
    let changed: Vec<&[f32]> = changed.iter().map(Vec::as_slice).collect();
    let mut moved: Vec<Vec<f32>> = outputs.iter().map(|y| alloc::vec![0.0; y.len()]).collect();
    twin(call, &changed, &mut moved);
    let small = |n: usize| terms * libm::sqrt(n as f64) * f64::from(f32::MIN_POSITIVE);
    let limit = |(y, z): (&Vec<f32>, &Vec<f32>)| {
        let sensitivity = finite(y.iter().zip(z).map(|(a, b)| f64::from(b - a))) / f64::from(STEP);
        factor * (finite(y.iter().map(|&v| f64::from(v))) + sensitivity) + small(y.len())
    };
    outputs.iter().zip(&moved).map(limit).collect()
}

/// Norm of the difference. Equal infinities and two NaNs agree; one NaN makes the norm NaN, which no limit accepts.
pub(crate) fn difference(want: &[f32], got: &[f32]) -> f64 {
    let one = |(a, b): (&f32, &f32)| {
        if a == b || (a.is_nan() && b.is_nan()) { 0.0 } else { f64::from(*a) - f64::from(*b) }
    };
    libm::sqrt(want.iter().zip(got).map(one).map(|d| d * d).sum())
}

/// Norm of the finite ones.
fn finite(values: impl Iterator<Item = f64>) -> f64 {
    libm::sqrt(values.filter(|v| v.is_finite()).map(|v| v * v).sum())
}

/// Every number times 1 + h or 1 - h, by a hash of its index.
fn change(x: &[f32], salt: u32) -> Vec<f32> {
    let sign = |i: usize| {
        let h = (i as u32 ^ salt.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
        let h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
        if (h >> 16) & 1 == 0 { STEP } else { -STEP }
    };
    x.iter().enumerate().map(|(i, v)| v * (1.0 + sign(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use pentimento_wgsl::kernel::elementwise::{self, Map};
    use pentimento_wgsl::kernel::{Act, Unary};

    #[test]
    fn nan_and_wrong_values_exceed_every_limit() {
        let x: Vec<f32> = (0..64).map(|i| i as f32 - 31.5).collect();
        let gelu = Call::Elementwise(elementwise::Call::Unary(Map::new(64, Unary::Act(Act::Gelu))));
        let mut y = [vec![0.0; 64]];
        twin(&gelu, &[&x], &mut y);
        let variant = gelu.ranked(&[], &crate::caps::Caps::webgpu().abilities())[0];
        let limit = limits(&variant, &gelu, &[&x], &y)[0];
        assert!(limit > 0.0 && limit < 1e-3);
        let mut bad = y[0].clone();
        assert!(difference(&y[0], &bad) <= limit);
        bad[40] *= 1.001;
        assert!(difference(&y[0], &bad) > limit);
        bad[40] = f32::NAN;
        assert!(difference(&y[0], &bad).is_nan()); // no limit accepts it
        assert!(difference(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY]) == 0.0);
        assert!(difference(&[f32::INFINITY], &[f32::NEG_INFINITY]) == f64::INFINITY);
    }
}
