//! Twins of `shader/conv2d.wgsl` and `shader/conv2d_dx.wgsl`.
use super::Real;
use crate::kernel::conv::{BIAS, Dx, Params, RESIDUAL};
use crate::kernel::indices;
use alloc::vec::Vec;

pub(crate) fn conv2d<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [batch, h, w, c] = indices([p.batch, p.h, p.w, p.c]);
    let [ho, wo, out, kh, kw] = indices([p.ho, p.wo, p.o, p.kh, p.kw]);
    let [stride, pad] = indices([p.stride, p.pad]);
    let [x, weight, bias, residual] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    for pixel in 0..batch * ho * wo {
        let (b, oy, ox) = (pixel / (ho * wo), (pixel / wo) % ho, pixel % wo);
        for o in 0..out {
            let mut acc = 0.0f64;
            for ky in 0..kh {
                for kx in 0..kw {
                    let (iy, ix) =
                        ((oy * stride + ky).wrapping_sub(pad), (ox * stride + kx).wrapping_sub(pad));
                    if iy >= h || ix >= w {
                        continue;
                    }
                    for i in 0..c {
                        acc += x[((b * h + iy) * w + ix) * c + i].wide()
                            * weight[((o * kh + ky) * kw + kx) * c + i].wide();
                    }
                }
            }
            if p.flags & BIAS != 0 {
                acc += bias[o].wide();
            }
            if p.flags & RESIDUAL != 0 {
                acc += residual[pixel * out + o].wide();
            }
            outputs[0][pixel * out + o] = R::narrow(acc);
        }
    }
}

pub(crate) fn conv2d_dx<R: Real>(p: &Dx, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [batch, h, w, c] = indices([p.batch, p.h, p.w, p.c]);
    let [ho, wo, out, kh, kw] = indices([p.ho, p.wo, p.o, p.kh, p.kw]);
    let [stride, pad] = indices([p.stride, p.pad]);
    let wide = out.next_multiple_of(4);
    let [dy, weight] = [inputs[0], inputs[1]];
    for pixel in 0..batch * h * w {
        let (b, iy, ix) = (pixel / (h * w), (pixel / w) % h, pixel % w);
        for i in 0..c {
            let mut acc = 0.0f64;
            for ky in 0..kh {
                for kx in 0..kw {
                    let (ty, tx) = ((iy + pad).wrapping_sub(ky), (ix + pad).wrapping_sub(kx));
                    let (oy, ox) = (ty / stride, tx / stride);
                    if ty % stride != 0 || tx % stride != 0 || oy >= ho || ox >= wo {
                        continue;
                    }
                    for o in 0..out {
                        acc += dy[((b * ho + oy) * wo + ox) * wide + o].wide()
                            * weight[((o * kh + ky) * kw + kx) * c + i].wide();
                    }
                }
            }
            outputs[0][pixel * c + i] = R::narrow(acc);
        }
    }
}
