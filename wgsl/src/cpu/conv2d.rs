//! Twin of `shader/conv2d.wgsl`.
use super::at;
use alloc::vec::Vec;

pub(super) fn conv2d(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
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
                        acc += f64::from(x[((b * h + iy) * w + ix) * c + i])
                            * f64::from(weight[((o * kh + ky) * kw + kx) * c + i]);
                    }
                }
            }
            if flags & 1 != 0 {
                acc += f64::from(bias[o]);
            }
            if flags & 4 != 0 {
                acc += f64::from(residual[pixel * out + o]);
            }
            outputs[0][pixel * out + o] = acc as f32;
        }
    }
}
