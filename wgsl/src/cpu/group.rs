//! Twins of `shader/group.wgsl`.
use super::{Real, activate};
use crate::kernel::group::Params;
use crate::kernel::indices;
use alloc::vec::Vec;

/// One part of one group of an image.
struct Row {
    /// First row of the group.
    group: usize,
    /// First channel.
    c0: usize,
    /// Where each number lies.
    at: Vec<usize>,
}

/// Channels of a group.
fn per(p: &Params) -> usize {
    (p.c / p.groups) as usize
}

/// Numbers of a part.
fn count(p: &Params, part: usize) -> usize {
    let [pixels, hw] = indices([p.part, p.hw]);
    pixels.min(hw - part * pixels) * per(p)
}

fn row(p: &Params, row: usize) -> Row {
    let [parts, pixels, c, groups, hw] = indices([p.parts, p.part, p.c, p.groups, p.hw]);
    let per = per(p);
    let c0 = row / parts % groups * per;
    let base = (row / parts / groups * hw + row % parts * pixels) * c + c0;
    let at = (0..count(p, row % parts)).map(|i| base + i / per * c + i % per).collect();
    Row { group: row / parts * parts, c0, at }
}

/// Mean and sum of squared deviations.
fn spread<R: Real>(x: &[R], at: &[usize]) -> (f64, f64) {
    let mean = at.iter().map(|&i| x[i].wide()).sum::<f64>() / at.len() as f64;
    let squared = |&i: &usize| (x[i].wide() - mean) * (x[i].wide() - mean);
    (mean, at.iter().map(squared).sum())
}

/// Mean and reciprocal deviation of a whole group from the stats of its parts.
fn moments<R: Real>(p: &Params, stats: &[R], group: usize, each: usize) -> (f64, f64) {
    let all = (p.hw as usize * per(p)) as f64;
    let parts = 0..p.parts as usize;
    let of = |part: usize| stats[(group + part) * each].wide();
    let mean = parts.clone().map(|part| count(p, part) as f64 * of(part)).sum::<f64>() / all;
    let squared = |part: usize| {
        let d = of(part) - mean;
        stats[(group + part) * each + 1].wide() + count(p, part) as f64 * d * d
    };
    let v = parts.map(squared).sum::<f64>() / all;
    (mean, 1.0 / libm::sqrt(v + f64::from(p.eps)))
}

pub(crate) fn stats<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    for r in 0..p.rows as usize {
        let (mean, squared) = spread(inputs[0], &row(p, r).at);
        outputs[0][2 * r] = R::narrow(mean);
        outputs[0][2 * r + 1] = R::narrow(squared);
    }
}

pub(crate) fn stats_backward<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (x, w, dy) = (inputs[0], inputs[1], inputs[2]);
    for r in 0..p.rows as usize {
        let Row { c0, at, .. } = row(p, r);
        let (mean, squared) = spread(x, &at);
        let dn = |(k, &i): (usize, &usize)| dy[i].wide() * w[c0 + k % per(p)].wide();
        let sum = at.iter().enumerate().map(dn).sum::<f64>();
        let product = at.iter().enumerate().map(|(k, i)| dn((k, i)) * (x[*i].wide() - mean)).sum::<f64>();
        for (j, v) in [mean, squared, sum, product].into_iter().enumerate() {
            outputs[0][4 * r + j] = R::narrow(v);
        }
    }
}

pub(crate) fn apply<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    for r in 0..p.rows as usize {
        let Row { group, c0, at } = row(p, r);
        let (mean, rstd) = moments(p, inputs[3], group, 2);
        for (k, i) in at.into_iter().enumerate() {
            let c = c0 + k % per(p);
            let n = (inputs[0][i].wide() - mean) * rstd * inputs[1][c].wide() + inputs[2][c].wide();
            outputs[0][i] = R::narrow(activate(n, p.mode));
        }
    }
}

pub(crate) fn apply_backward<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let all = (p.hw as usize * per(p)) as f64;
    let stats = inputs[3];
    for r in 0..p.rows as usize {
        let Row { group, c0, at } = row(p, r);
        let (mean, rstd) = moments(p, stats, group, 4);
        let (mut sum, mut product) = (0.0, 0.0);
        for part in stats[group * 4..(group + p.parts as usize) * 4].chunks_exact(4) {
            sum += part[2].wide();
            product += part[3].wide() + (part[0].wide() - mean) * part[2].wide();
        }
        let (md, mdn) = (sum / all, product / all * rstd);
        for (k, i) in at.into_iter().enumerate() {
            let dn = inputs[2][i].wide() * inputs[1][c0 + k % per(p)].wide();
            let n = (inputs[0][i].wide() - mean) * rstd;
            outputs[0][i] = R::narrow(rstd * (dn - md - n * mdn));
        }
    }
}
