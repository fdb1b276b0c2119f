//! Bounds of group norms among workgroups: the formulas of `shader/group.wgsl`.
use super::elementwise::activate;
use crate::real::Real;
use pentimento_wgsl::kernel::group::{Call, Kernel, Params};
use pentimento_wgsl::kernel::indices;

/// Channels of a group.
fn per(p: &Params) -> usize {
    (p.c / p.groups) as usize
}

/// Numbers of a part.
fn count(p: &Params, part: usize) -> Real {
    let [pixels, hw] = indices([p.part, p.hw]);
    Real::exact((pixels.min(hw - part * pixels) * per(p)) as f64)
}

/// Where the numbers of a row lie, each with its channel.
fn places(p: &Params, row: usize) -> Vec<(usize, usize)> {
    let [parts, pixels, c, groups, hw] = indices([p.parts, p.part, p.c, p.groups, p.hw]);
    let (image, group, part) = (row / parts / groups, row / parts % groups, row % parts);
    let channels = group * per(p)..(group + 1) * per(p);
    let pixels = part * pixels..((part + 1) * pixels).min(hw);
    pixels.flat_map(|pixel| channels.clone().map(move |ch| ((image * hw + pixel) * c + ch, ch))).collect()
}

/// Mean and reciprocal deviation of a group, from its parts' stats.
fn moments(p: &Params, parts: &[&[f32]]) -> (Real, Real) {
    let all = Real::exact((p.hw as usize * per(p)) as f64);
    let of = |i: usize, j: usize| Real::from(parts[i][j]);
    let mean = Real::sum((0..parts.len()).map(|i| count(p, i) * of(i, 0))).over(all);
    let squared = |i: usize| {
        let d = of(i, 0) - mean;
        of(i, 1) + count(p, i) * d * d
    };
    let v = Real::sum((0..parts.len()).map(squared)).over(all);
    (mean, Real::exact(1.0).over((v + Real::from(p.eps)).sqrt()))
}

pub(super) fn bounds(call: &Call, inputs: &[&[f32]]) -> Vec<Real> {
    match call.kernel {
        Kernel::Stats => stats(&call.params, inputs, false),
        Kernel::StatsBackward => stats(&call.params, inputs, true),
        Kernel::Apply => apply(&call.params, inputs, false),
        Kernel::ApplyBackward => apply(&call.params, inputs, true),
    }
}

fn stats(p: &Params, inputs: &[&[f32]], backward: bool) -> Vec<Real> {
    let mut out = Vec::new();
    for row in 0..p.rows as usize {
        let places = places(p, row);
        let x: Vec<Real> = places.iter().map(|&(i, _)| inputs[0][i].into()).collect();
        let mean = Real::sum(x.iter().copied()).over(count(p, row % p.parts as usize));
        let d: Vec<Real> = x.iter().map(|&x| x - mean).collect();
        out.extend([mean, Real::sum(d.iter().map(|&d| d * d))]);
        if backward {
            let dn = |&(i, c): &(usize, usize)| Real::from(inputs[2][i]) * inputs[1][c].into();
            let dn: Vec<Real> = places.iter().map(dn).collect();
            out.extend([Real::sum(dn.iter().copied()), Real::sum(dn.iter().zip(&d).map(|(&a, &b)| a * b))]);
        }
    }
    out
}

fn apply(p: &Params, inputs: &[&[f32]], backward: bool) -> Vec<Real> {
    let (each, group) = (if backward { 4 } else { 2 }, p.parts as usize);
    let all = Real::exact((p.hw as usize * per(p)) as f64);
    let mut out = vec![Real::exact(0.0); inputs[0].len()];
    for row in 0..p.rows as usize {
        let parts = &inputs[3][row / group * group * each..][..group * each];
        let parts: Vec<&[f32]> = parts.chunks_exact(each).collect();
        let (mean, rstd) = moments(p, &parts);
        let (mut md, mut mdn) = (Real::exact(0.0), Real::exact(0.0));
        if backward {
            md = Real::sum(parts.iter().map(|s| s[2].into())).over(all);
            let product = |s: &&[f32]| Real::from(s[3]) + (Real::from(s[0]) - mean) * s[2].into();
            mdn = Real::sum(parts.iter().map(product)).over(all) * rstd;
        }
        for (i, c) in places(p, row) {
            let n = (Real::from(inputs[0][i]) - mean) * rstd;
            let (w, other) = (Real::from(inputs[1][c]), inputs[2]);
            out[i] = match backward {
                false => activate(n * w + other[c].into(), p.mode),
                true => rstd * (Real::from(other[i]) * w - md - n * mdn),
            };
        }
    }
    out
}
