//! Twin of `shader/binary.wgsl`.
use super::at;
use alloc::vec::Vec;

pub(super) fn binary(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (n, sc, c, stride_o, stride_c) = (at(p, 0), at(p, 2), at(p, 3), at(p, 4), at(p, 5));
    for i in 0..n {
        let u = inputs[0][i];
        let v = inputs[1][(i / sc) * stride_o + (i % c) * stride_c];
        outputs[0][i] = match p[1] {
            0 => u + v,
            1 => u - v,
            2 => u * v,
            3 => u.max(v),
            4 => f32::from(u8::from(u >= v)),
            _ => u * (1.0 + v),
        };
    }
}
