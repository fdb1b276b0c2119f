//! Twin of `shader/matmul.wgsl`, `matmul_tile.wgsl`, `matmul_texture.wgsl` and their epilogue.
use super::{Real, activate};
use crate::kernel::indices;
use crate::kernel::matmul::{BIAS, GATE, Params, RESIDUAL};
use alloc::vec::Vec;

pub(crate) fn matmul<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, cols, depth, per] = indices([p.m, p.n, p.k, p.rows_per_batch]);
    let [am, ak, bk, bn] = indices([p.stride_am, p.stride_ak, p.stride_bk, p.stride_bn]);
    let [a, b, bias, gate, residual] = [inputs[0], inputs[1], inputs[2], inputs[3], inputs[4]];
    for m in 0..rows {
        for n in 0..cols {
            let mut acc = 0.0f64;
            for k in 0..depth {
                acc += a[m * am + k * ak].wide() * b[k * bk + n * bn].wide();
            }
            if p.flags & BIAS != 0 {
                acc += bias[n].wide();
            }
            acc = activate(acc, p.act);
            if p.flags & GATE != 0 {
                acc *= gate[(m / per) * cols + n].wide();
            }
            if p.flags & RESIDUAL != 0 {
                acc += residual[m * cols + n].wide();
            }
            outputs[0][m * cols + n] = R::narrow(acc);
        }
    }
}
