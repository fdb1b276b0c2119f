//! Twin of `shader/matmul.wgsl`, `matmul_tile.wgsl`, `matmul_texture.wgsl` and their epilogue.
use super::{Real, activate, at};
use alloc::vec::Vec;

pub(super) fn matmul<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (rows, cols, depth) = (at(p, 0), at(p, 1), at(p, 2));
    let (am, ak, bk, bn) = (at(p, 3), at(p, 4), at(p, 5), at(p, 6));
    let (flags, act, per) = (p[7], p[8], at(p, 9));
    let [a, b, bias, gate, residual] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]];
    for m in 0..rows {
        for n in 0..cols {
            let mut acc = 0.0f64;
            for k in 0..depth {
                acc += a[m * am + k * ak].wide() * b[k * bk + n * bn].wide();
            }
            if flags & 1 != 0 {
                acc += bias[n].wide();
            }
            acc = activate(acc, act);
            if flags & 2 != 0 {
                acc *= gate[(m / per) * cols + n].wide();
            }
            if flags & 4 != 0 {
                acc += residual[m * cols + n].wide();
            }
            outputs[0][m * cols + n] = R::narrow(acc);
        }
    }
}
