//! Twin of `shader/sum.wgsl`.
use super::{Real, at, float};
use alloc::vec::Vec;

pub(super) fn sum<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (outs, n, inner, scale) = (at(p, 0), at(p, 1), at(p, 2), float(p, 3));
    for i in 0..outs {
        let base = (i / inner) * n * inner + i % inner;
        let mut total = 0.0f64;
        for k in 0..n {
            total += inputs[0][base + k * inner].wide();
        }
        outputs[0][i] = R::narrow(f64::from(scale) * total);
    }
}
