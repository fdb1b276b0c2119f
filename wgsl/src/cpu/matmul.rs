//! Twin of `shader/matmul.wgsl`, `matmul_tile.wgsl`, `matmul_texture.wgsl` and their epilogue.
use super::{activate, at};
use alloc::vec::Vec;

pub(super) fn matmul(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, cols, depth) = (at(p, 0), at(p, 1), at(p, 2));
    let (am, ak, bk, bn) = (at(p, 3), at(p, 4), at(p, 5), at(p, 6));
    let (flags, act, per) = (p[7], p[8], at(p, 9));
    let [a, b, bias, gate, residual] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]];
    for m in 0..rows {
        for n in 0..cols {
            let mut acc = 0.0f64;
            for k in 0..depth {
                acc += f64::from(a[m * am + k * ak]) * f64::from(b[k * bk + n * bn]);
            }
            if flags & 1 != 0 {
                acc += f64::from(bias[n]);
            }
            acc = activate(acc, act);
            if flags & 2 != 0 {
                acc *= f64::from(gate[(m / per) * cols + n]);
            }
            if flags & 4 != 0 {
                acc += f64::from(residual[m * cols + n]);
            }
            outputs[0][m * cols + n] = acc as f32;
        }
    }
}
