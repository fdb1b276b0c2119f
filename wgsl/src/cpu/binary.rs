//! Twin of `shader/binary.wgsl`.
use super::{Real, at};
use alloc::vec::Vec;

pub(super) fn binary<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (n, sc, c, stride_o, stride_c) = (at(p, 0), at(p, 2), at(p, 3), at(p, 4), at(p, 5));
    for i in 0..n {
        let u = inputs[0][i];
        let v = inputs[1][(i / sc) * stride_o + (i % c) * stride_c];
        outputs[0][i] = match p[1] {
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
