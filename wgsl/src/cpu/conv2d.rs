//! Twin of `shader/conv2d.wgsl`.
use super::{Real, at};
use alloc::vec::Vec;

pub(super) fn conv2d<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (batch, h, w, c) = (at(p, 0), at(p, 1), at(p, 2), at(p, 3));
    let (ho, wo, out, kh, kw) = (at(p, 4), at(p, 5), at(p, 6), at(p, 7), at(p, 8));
    let (stride, pad, flags) = (at(p, 9), at(p, 10), p[11]);
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
            if flags & 1 != 0 {
                acc += bias[o].wide();
            }
            if flags & 4 != 0 {
                acc += residual[pixel * out + o].wide();
            }
            outputs[0][pixel * out + o] = R::narrow(acc);
        }
    }
}
