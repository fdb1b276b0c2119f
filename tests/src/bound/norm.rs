//! Bounds of the row kernels: the formulas of `shader/norm.wgsl`.
use super::elementwise::activate;
use super::{at, float};
use crate::real::Real;

const ONE: Real = Real::exact(1.0);

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

pub(super) fn layer_norm(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, eps, mode, per) = (at(p, 0), at(p, 1), float(p, 2), p[3], at(p, 4));
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let (d, rstd) = moments(&reals(&inputs[0][row * c..(row + 1) * c]), eps);
        let b = (row / per) * c;
        out.extend(d.iter().enumerate().map(|(i, &d)| match mode {
            1 => d * rstd * (ONE + inputs[1][b + i].into()) + inputs[2][b + i].into(),
            2 => d * rstd * inputs[1][i].into() + inputs[2][i].into(),
            _ => d * rstd,
        }));
    }
    out
}

pub(super) fn layer_norm_backward(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, eps) = (at(p, 0), at(p, 1), float(p, 2));
    let n = Real::exact(c as f64);
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let (d, rstd) = moments(&reals(&inputs[0][row * c..(row + 1) * c]), eps);
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

pub(super) fn rms_norm(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, eps) = (at(p, 0), at(p, 1), float(p, 2));
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let x = reals(&inputs[0][row * c..(row + 1) * c]);
        let r = rms(&x, eps);
        out.extend(x.iter().zip(inputs[1]).map(|(&x, &w)| x * r * w.into()));
    }
    out
}

pub(super) fn rms_norm_backward(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, eps) = (at(p, 0), at(p, 1), float(p, 2));
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let x = reals(&inputs[0][row * c..(row + 1) * c]);
        let dy = &inputs[2][row * c..(row + 1) * c];
        let g: Vec<Real> = dy.iter().zip(inputs[1]).map(|(&d, &w)| Real::from(d) * w.into()).collect();
        let r = rms(&x, eps);
        let m = Real::sum(g.iter().zip(&x).map(|(&g, &x)| g * x)).over(Real::exact(c as f64));
        out.extend(g.iter().zip(&x).map(|(&g, &x)| r * (g - x * r * r * m)));
    }
    out
}

pub(super) fn softmax(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, scale) = (at(p, 0), at(p, 1), Real::from(float(p, 7)));
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

pub(super) fn softmax_backward(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, scale) = (at(p, 0), at(p, 1), Real::from(float(p, 7)));
    let mut out = Vec::with_capacity(rows * c);
    for row in 0..rows {
        let [y, dy] = [inputs[0], inputs[1]].map(|x| reals(&x[row * c..(row + 1) * c]));
        let total = Real::sum(y.iter().zip(&dy).map(|(&y, &d)| d * y));
        out.extend(y.iter().zip(&dy).map(|(&y, &d)| scale * y * (d - total)));
    }
    out
}

pub(super) fn group_norm(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, eps, act, groups, hw) = (at(p, 0), at(p, 1), float(p, 2), p[3], at(p, 5), at(p, 6));
    let per = c / groups;
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let index = |i: usize| (row / groups) * hw * c + c0 + (i / per) * c + i % per;
        let x: Vec<Real> = (0..hw * per).map(|i| inputs[0][index(i)].into()).collect();
        let (d, rstd) = moments(&x, eps);
        for (i, &d) in d.iter().enumerate() {
            let (w, b) = (inputs[1][c0 + i % per], inputs[2][c0 + i % per]);
            out[index(i)] = activate(d * rstd * w.into() + b.into(), act);
        }
    }
    out
}

pub(super) fn group_norm_backward(p: &[u32], inputs: &[&[f32]]) -> Vec<Real> {
    let (rows, c, eps, groups, hw) = (at(p, 0), at(p, 1), float(p, 2), at(p, 5), at(p, 6));
    let per = c / groups;
    let n = Real::exact((hw * per) as f64);
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for row in 0..rows {
        let c0 = (row % groups) * per;
        let index = |i: usize| (row / groups) * hw * c + c0 + (i / per) * c + i % per;
        let x: Vec<Real> = (0..hw * per).map(|i| inputs[0][index(i)].into()).collect();
        let (d, rstd) = moments(&x, eps);
        let dn = |i: usize| Real::from(inputs[2][index(i)]) * inputs[1][c0 + i % per].into();
        let md = Real::sum((0..d.len()).map(dn)).over(n);
        let mdn = Real::sum(d.iter().enumerate().map(|(i, &d)| dn(i) * d * rstd)).over(n);
        for (i, &d) in d.iter().enumerate() {
            out[index(i)] = rstd * (dn(i) - md - d * rstd * mdn);
        }
    }
    out
}
