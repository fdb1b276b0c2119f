//! Twin of `shader/matmul.wgsl`, `matmul_tile.wgsl`, `matmul_texture.wgsl` and their epilogue.
use super::{Real, activate};
use crate::kernel::indices;
use crate::kernel::matmul::{BIAS, GATE, Params, RESIDUAL};
use alloc::vec::Vec;

pub(crate) fn matmul<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, cols, depth, per] = indices([p.m, p.n, p.k, p.rows_per_batch]);
    let [am, ak, bk, bn] = indices([p.stride_am, p.stride_ak, p.stride_bk, p.stride_bn]);
    let [a, b, low_a, low_b] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let [bias, gate, residual] = [inputs[4], inputs[5], inputs[6]];
    let low = p.low as usize;
    let (low_k, low_n) = if p.stride_bk == 1 { (1, low) } else { (cols, 1) };
    for part in 0..p.parts() as usize {
        let range = part * p.part as usize..((part + 1) * p.part as usize).min(depth);
        for m in 0..rows {
            for n in 0..cols {
                let mut acc = 0.0f64;
                for k in range.clone() {
                    acc += a[m * am + k * ak].wide() * b[k * bk + n * bn].wide();
                }
                for k in 0..low {
                    acc += low_a[m * low + k].wide() * low_b[k * low_k + n * low_n].wide();
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
                outputs[0][(part * rows + m) * cols + n] = R::narrow(acc);
            }
        }
    }
}
