//! Twin of `shader/binary.wgsl`.
use super::Real;
use crate::kernel::elementwise::Pair;
use crate::kernel::indices;
use alloc::vec::Vec;

pub(crate) fn binary<R: Real>(p: &Pair, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [n, sc, c, stride_o, stride_c] = indices([p.n, p.sc, p.c, p.stride_o, p.stride_c]);
    for i in 0..n {
        let u = inputs[0][i];
        let v = inputs[1][(i / sc) * stride_o + (i % c) * stride_c];
        outputs[0][i] = match p.op {
            0 => u + v,
            1 => u - v,
            2 => u * v,
            3 => u.larger(v),
            4 => {
                if u >= v {
                    R::ONE
                } else {
                    R::default()
                }
            }
            _ => u * (R::ONE + v),
        };
    }
}
