//! Twin of `shader/sum.wgsl`.
use super::{at, float};
use alloc::vec::Vec;

pub(super) fn sum(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (outs, n, inner, scale) = (at(p, 0), at(p, 1), at(p, 2), float(p, 3));
    for i in 0..outs {
        let base = (i / inner) * n * inner + i % inner;
        let mut total = 0.0f64;
        for k in 0..n {
            total += f64::from(inputs[0][base + k * inner]);
        }
        outputs[0][i] = (f64::from(scale) * total) as f32;
    }
}
