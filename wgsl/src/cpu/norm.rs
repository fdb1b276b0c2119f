//! Twin of `shader/norm.wgsl`.
use super::{activate, at, float};
use alloc::vec::Vec;

/// Mean and reciprocal standard deviation of a row.
fn moments(x: impl Iterator<Item = f32> + Clone, eps: f32) -> (f64, f64) {
    let n = x.clone().count() as f64;
    let mean = x.clone().map(f64::from).sum::<f64>() / n;
    let var = x.map(|v| (f64::from(v) - mean) * (f64::from(v) - mean)).sum::<f64>() / n;
    (mean, 1.0 / libm::sqrt(var + f64::from(eps)))
}
pub(super) fn layer_norm(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, c, eps, mode, per) = (at(p, 0), at(p, 1), float(p, 2), p[3], at(p, 4));
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let (mean, rstd) = moments(x.iter().copied(), eps);
        let b = (row / per) * c;
        for i in 0..c {
            let n = (f64::from(x[i]) - mean) * rstd;
            outputs[0][row * c + i] = match mode {
                1 => n * (1.0 + f64::from(inputs[1][b + i])) + f64::from(inputs[2][b + i]),
                2 => n * f64::from(inputs[1][i]) + f64::from(inputs[2][i]),
                _ => n,
            } as f32;
        }
    }
}
pub(super) fn layer_norm_backward(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, c, eps) = (at(p, 0), at(p, 1), float(p, 2));
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let dy = &inputs[1][row * c..(row + 1) * c];
        let (mean, rstd) = moments(x.iter().copied(), eps);
        let n = |i: usize| (f64::from(x[i]) - mean) * rstd;
        let md = dy.iter().map(|&d| f64::from(d)).sum::<f64>() / c as f64;
        let mdn = (0..c).map(|i| f64::from(dy[i]) * n(i)).sum::<f64>() / c as f64;
        for i in 0..c {
            outputs[0][row * c + i] = (rstd * (f64::from(dy[i]) - md - n(i) * mdn)) as f32;
        }
    }
}
fn rms(x: &[f32], eps: f32) -> f64 {
    let v = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / x.len() as f64;
    1.0 / libm::sqrt(v + f64::from(eps))
}
pub(super) fn rms_norm(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, c, eps) = (at(p, 0), at(p, 1), float(p, 2));
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let r = rms(x, eps);
        for i in 0..c {
            outputs[0][row * c + i] = (f64::from(x[i]) * r * f64::from(inputs[1][i])) as f32;
        }
    }
}
pub(super) fn rms_norm_backward(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, c, eps) = (at(p, 0), at(p, 1), float(p, 2));
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let dy = &inputs[2][row * c..(row + 1) * c];
        let r = rms(x, eps);
        let g = |i: usize| f64::from(dy[i]) * f64::from(inputs[1][i]);
        let m = (0..c).map(|i| g(i) * f64::from(x[i])).sum::<f64>() / c as f64;
        for i in 0..c {
            outputs[0][row * c + i] = (r * (g(i) - f64::from(x[i]) * r * r * m)) as f32;
        }
    }
}
pub(super) fn softmax(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, c, scale) = (at(p, 0), at(p, 1), f64::from(float(p, 7)));
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let peak = x.iter().map(|&v| scale * f64::from(v)).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = x.iter().map(|&v| libm::exp(scale * f64::from(v) - peak)).sum();
        for i in 0..c {
            outputs[0][row * c + i] = (libm::exp(scale * f64::from(x[i]) - peak) / total) as f32;
        }
    }
}
pub(super) fn group_norm(p: &[u32], inputs: &[&[f32]], outputs: &mut [Vec<f32>]) {
    let (rows, c, eps, act, groups, hw) = (at(p, 0), at(p, 1), float(p, 2), p[3], at(p, 5), at(p, 6));
    let per = c / groups;
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let base = (row / groups) * hw * c + c0;
        let index = move |i: usize| base + (i / per) * c + i % per;
        let (mean, rstd) = moments((0..hw * per).map(|i| inputs[0][index(i)]), eps);
        for i in 0..hw * per {
            let n = (f64::from(inputs[0][index(i)]) - mean) * rstd * f64::from(inputs[1][c0 + i % per])
                + f64::from(inputs[2][c0 + i % per]);
            outputs[0][index(i)] = activate(n, act) as f32;
        }
    }
}
