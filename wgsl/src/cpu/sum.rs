//! Twin of `shader/sum.wgsl`.
use super::Real;
use crate::kernel::indices;
use crate::kernel::sum::Params;
use alloc::vec::Vec;

pub(crate) fn sum<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [outs, n, inner] = indices([p.outputs, p.n, p.inner]);
    for i in 0..outs {
        let base = (i / inner) * n * inner + i % inner;
        let mut total = 0.0f64;
        for k in 0..n {
            total += inputs[0][base + k * inner].wide();
        }
        outputs[0][i] = R::narrow(f64::from(p.scale) * total);
    }
}
