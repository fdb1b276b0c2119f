//! Bounds of the row kernels: the formulas of `shader/norm.wgsl`.
use super::elementwise::activate;
use crate::real::Real;
use pentimento_wgsl::kernel::indices;
use pentimento_wgsl::kernel::norm::{Call, Kernel, Params};

const ONE: Real = Real::exact(1.0);

pub(super) fn bounds(call: &Call, inputs: &[&[f32]]) -> Vec<Real> {
    let p = &call.params;
    match call.kernel {
        Kernel::LayerNorm => layer_norm(p, inputs),
        Kernel::LayerNormBackward => layer_norm_backward(p, inputs),
        Kernel::RmsNorm => rms_norm(p, inputs),
        Kernel::RmsNormBackward => rms_norm_backward(p, inputs),
        Kernel::Softmax => softmax(p, inputs),
        Kernel::SoftmaxBackward => softmax_backward(p, inputs),
        Kernel::GroupNorm => group_norm(p, inputs),
        Kernel::GroupNormBackward => group_norm_backward(p, inputs),
    }
}

/// Deviations from the mean and reciprocal standard deviation of a row.
fn moments(x: &[Real], eps: f32) -> (Vec<Real>, Real) {
    let n = Real::exact(x.len() as f64);
    let mean = Real::sum(x.iter().copied()).over(n);
    let d: Vec<Real> = x.iter().map(|&x| x - mean).collect();
    let var = Real::sum(d.iter().map(|&d| d * d)).over(n);
    (d, ONE.over((var + Real::from(eps)).sqrt()))
}

fn reals(x: &[f32]) -> Vec<Real> {
    x.iter().map(|&x| x.into()).collect()
}

fn layer_norm(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c, per] = indices([p.rows, p.c, p.rows_per_batch]);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let (d, rstd) = moments(&reals(&inputs[0][row * c..(row + 1) * c]), p.eps);
        let b = (row / per) * c;
        out.extend(d.iter().enumerate().map(|(i, &d)| match p.mode {
            1 => d * rstd * (ONE + inputs[1][b + i].into()) + inputs[2][b + i].into(),
            2 => d * rstd * inputs[1][i].into() + inputs[2][i].into(),
            _ => d * rstd,
        }));
    }
    out
}

fn layer_norm_backward(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c] = indices([p.rows, p.c]);
    let n = Real::exact(c as f64);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let (d, rstd) = moments(&reals(&inputs[0][row * c..(row + 1) * c]), p.eps);
        let dy = reals(&inputs[1][row * c..(row + 1) * c]);
        let md = Real::sum(dy.iter().copied()).over(n);
        let mdn = Real::sum(dy.iter().zip(&d).map(|(&g, &d)| g * d * rstd)).over(n);
        out.extend(dy.iter().zip(&d).map(|(&g, &d)| rstd * (g - md - d * rstd * mdn)));
    }
    out
}

fn rms(x: &[Real], eps: f32) -> Real {
    let mean = Real::sum(x.iter().map(|&x| x * x)).over(Real::exact(x.len() as f64));
    ONE.over((mean + eps.into()).sqrt())
}

fn rms_norm(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c] = indices([p.rows, p.c]);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let x = reals(&inputs[0][row * c..(row + 1) * c]);
        let r = rms(&x, p.eps);
        out.extend(x.iter().zip(inputs[1]).map(|(&x, &w)| x * r * w.into()));
    }
    out
}

fn rms_norm_backward(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c] = indices([p.rows, p.c]);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let x = reals(&inputs[0][row * c..(row + 1) * c]);
        let dy = &inputs[2][row * c..(row + 1) * c];
        let g: Vec<Real> = dy.iter().zip(inputs[1]).map(|(&d, &w)| Real::from(d) * w.into()).collect();
        let r = rms(&x, p.eps);
        let m = Real::sum(g.iter().zip(&x).map(|(&g, &x)| g * x)).over(Real::exact(c as f64));
        out.extend(g.iter().zip(&x).map(|(&g, &x)| r * (g - x * r * r * m)));
    }
    out
}

fn softmax(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c] = indices([p.rows, p.c]);
    let scale = Real::from(p.scale);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let t: Vec<Real> = inputs[0][row * c..(row + 1) * c].iter().map(|&x| scale * x.into()).collect();
        // Whatever the shader takes for the peak, it takes it everywhere: the result does not depend on it.
        let peak = Real::exact(t.iter().map(|t| t.v).fold(f64::NEG_INFINITY, f64::max));
        let shares: Vec<Real> = t.iter().map(|&t| (t - peak).exp()).collect();
        let total = Real::sum(shares.iter().copied());
        out.extend(shares.iter().map(|&s| s.over(total)));
    }
    out
}

fn softmax_backward(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c] = indices([p.rows, p.c]);
    let scale = Real::from(p.scale);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let [y, dy] = [inputs[0], inputs[1]].map(|x| reals(&x[row * c..(row + 1) * c]));
        let total = Real::sum(y.iter().zip(&dy).map(|(&y, &d)| d * y));
        out.extend(y.iter().zip(&dy).map(|(&y, &d)| scale * y * (d - total)));
    }
    out
}

fn group_norm(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c, groups, hw] = indices([p.rows, p.c, p.groups, p.hw]);
    let per = c / groups;
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let index = |i: usize| (row / groups) * hw * c + c0 + (i / per) * c + i % per;
        let x: Vec<Real> = (0..hw * per).map(|i| inputs[0][index(i)].into()).collect();
        let (d, rstd) = moments(&x, p.eps);
        for (i, &d) in d.iter().enumerate() {
            let (w, b) = (inputs[1][c0 + i % per], inputs[2][c0 + i % per]);
            out[index(i)] = activate(d * rstd * w.into() + b.into(), p.mode);
        }
    }
    out
}

fn group_norm_backward(p: &Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [rows, c, groups, hw] = indices([p.rows, p.c, p.groups, p.hw]);
    let per = c / groups;
    let n = Real::exact((hw * per) as f64);
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let index = |i: usize| (row / groups) * hw * c + c0 + (i / per) * c + i % per;
        let x: Vec<Real> = (0..hw * per).map(|i| inputs[0][index(i)].into()).collect();
        let (d, rstd) = moments(&x, p.eps);
        let dn = |i: usize| Real::from(inputs[2][index(i)]) * inputs[1][c0 + i % per].into();
        let md = Real::sum((0..d.len()).map(dn)).over(n);
        let mdn = Real::sum(d.iter().enumerate().map(|(i, &d)| dn(i) * d * rstd)).over(n);
        for (i, &d) in d.iter().enumerate() {
            out[index(i)] = rstd * (dn(i) - md - d * rstd * mdn);
        }
    }
    out
}
