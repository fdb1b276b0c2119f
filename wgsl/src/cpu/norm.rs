//! Twin of `shader/norm.wgsl`.
use super::{Real, activate};
use crate::kernel::indices;
use crate::kernel::norm::Params;
use alloc::vec::Vec;

/// Mean and reciprocal standard deviation of a row.
fn moments<R: Real>(x: impl Iterator<Item = R> + Clone, eps: f32) -> (f64, f64) {
    let n = x.clone().count() as f64;
    let mean = x.clone().map(R::wide).sum::<f64>() / n;
    let var = x.map(|v| (v.wide() - mean) * (v.wide() - mean)).sum::<f64>() / n;
    (mean, 1.0 / libm::sqrt(var + f64::from(eps)))
}
pub(crate) fn layer_norm<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c, per] = indices([p.rows, p.c, p.rows_per_batch]);
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let (mean, rstd) = moments(x.iter().copied(), p.eps);
        let b = (row / per) * c;
        for i in 0..c {
            let n = (x[i].wide() - mean) * rstd;
            outputs[0][row * c + i] = R::narrow(match p.mode {
                1 => n * (1.0 + inputs[1][b + i].wide()) + inputs[2][b + i].wide(),
                2 => n * inputs[1][i].wide() + inputs[2][i].wide(),
                _ => n,
            });
        }
    }
}
pub(crate) fn layer_norm_backward<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c] = indices([p.rows, p.c]);
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let dy = &inputs[1][row * c..(row + 1) * c];
        let (mean, rstd) = moments(x.iter().copied(), p.eps);
        let n = |i: usize| (x[i].wide() - mean) * rstd;
        let md = dy.iter().map(|&d| d.wide()).sum::<f64>() / c as f64;
        let mdn = (0..c).map(|i| dy[i].wide() * n(i)).sum::<f64>() / c as f64;
        for i in 0..c {
            outputs[0][row * c + i] = R::narrow(rstd * (dy[i].wide() - md - n(i) * mdn));
        }
    }
}
fn rms<R: Real>(x: &[R], eps: f32) -> f64 {
    let v = x.iter().map(|&v| v.wide() * v.wide()).sum::<f64>() / x.len() as f64;
    1.0 / libm::sqrt(v + f64::from(eps))
}
pub(crate) fn rms_norm<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c] = indices([p.rows, p.c]);
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let r = rms(x, p.eps);
        for i in 0..c {
            outputs[0][row * c + i] = R::narrow(x[i].wide() * r * inputs[1][i].wide());
        }
    }
}
pub(crate) fn rms_norm_backward<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c] = indices([p.rows, p.c]);
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let dy = &inputs[2][row * c..(row + 1) * c];
        let r = rms(x, p.eps);
        let g = |i: usize| dy[i].wide() * inputs[1][i].wide();
        let m = (0..c).map(|i| g(i) * x[i].wide()).sum::<f64>() / c as f64;
        for i in 0..c {
            outputs[0][row * c + i] = R::narrow(r * (g(i) - x[i].wide() * r * r * m));
        }
    }
}
pub(crate) fn softmax<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c] = indices([p.rows, p.c]);
    let scale = f64::from(p.scale);
    for row in 0..rows {
        let x = &inputs[0][row * c..(row + 1) * c];
        let peak = x.iter().map(|&v| scale * v.wide()).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = x.iter().map(|&v| libm::exp(scale * v.wide() - peak)).sum();
        for i in 0..c {
            outputs[0][row * c + i] = R::narrow(libm::exp(scale * x[i].wide() - peak) / total);
        }
    }
}
pub(crate) fn softmax_backward<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c] = indices([p.rows, p.c]);
    let scale = f64::from(p.scale);
    for row in 0..rows {
        let y = &inputs[0][row * c..(row + 1) * c];
        let dy = &inputs[1][row * c..(row + 1) * c];
        let total: f64 = (0..c).map(|i| dy[i].wide() * y[i].wide()).sum();
        for i in 0..c {
            outputs[0][row * c + i] = R::narrow(scale * y[i].wide() * (dy[i].wide() - total));
        }
    }
}
pub(crate) fn group_norm<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c, groups, hw] = indices([p.rows, p.c, p.groups, p.hw]);
    let per = c / groups;
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let base = (row / groups) * hw * c + c0;
        let index = move |i: usize| base + (i / per) * c + i % per;
        let (mean, rstd) = moments((0..hw * per).map(|i| inputs[0][index(i)]), p.eps);
        for i in 0..hw * per {
            let n = (inputs[0][index(i)].wide() - mean) * rstd * inputs[1][c0 + i % per].wide()
                + inputs[2][c0 + i % per].wide();
            outputs[0][index(i)] = R::narrow(activate(n, p.mode));
        }
    }
}
pub(crate) fn group_norm_backward<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [rows, c, groups, hw] = indices([p.rows, p.c, p.groups, p.hw]);
    let per = c / groups;
    let n = hw * per;
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let base = (row / groups) * hw * c + c0;
        let index = move |i: usize| base + (i / per) * c + i % per;
        let (mean, rstd) = moments((0..n).map(|i| inputs[0][index(i)]), p.eps);
        let norm = |i: usize| (inputs[0][index(i)].wide() - mean) * rstd;
        let dn = |i: usize| inputs[2][index(i)].wide() * inputs[1][c0 + i % per].wide();
        let md = (0..n).map(dn).sum::<f64>() / n as f64;
        let mdn = (0..n).map(|i| dn(i) * norm(i)).sum::<f64>() / n as f64;
        for i in 0..n {
            outputs[0][index(i)] = R::narrow(rstd * (dn(i) - md - norm(i) * mdn));
        }
    }
}
