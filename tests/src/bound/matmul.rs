//! Bounds of the products: `shader/matmul*.wgsl` with their epilogue, and `shader/conv2d*.wgsl`.
use super::elementwise::activate;
use crate::real::{EPS, Real};
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::blocks::{Call as Unpack, Unpacked};
use pentimento_wgsl::kernel::matmul::{BIAS, GATE, Params, RESIDUAL, Variant};
use pentimento_wgsl::kernel::{conv, indices};

const SMALLEST_NORMAL_HALF: f32 = 6.103_515_6e-5;

/// A weight as a shader loads it. `unpack2x16float` may flush a subnormal half (WGSL 15.7.2); a bfloat16 has f32's range.
fn load(w: f32, kind: Stored) -> Real {
    let e = if kind == Stored::F16 && w.abs() < SMALLEST_NORMAL_HALF { f64::from(w).abs() } else { 0.0 };
    Real { e, ..w.into() }
}

/// An operand of a cooperative matrix, rounded already: one below f16's normal numbers may be flushed.
fn half(w: f32) -> Real {
    load(w, Stored::F16)
}

/// The second pair of factors goes in divided and multiplied by 64: roundings at other places, and an end at 1023.
fn low_half(w: f32, up: bool) -> Real {
    let (smallest, most) =
        if up { (0.0, 1000.0) } else { (64.0 * f64::from(SMALLEST_NORMAL_HALF), f64::INFINITY) };
    let size = f64::from(w).abs();
    let rounded = if size < smallest { smallest / 1024.0 } else { 0.0 };
    let e = if size > most { f64::INFINITY } else { rounded + half(w).e };
    Real { e, ..w.into() }
}

/// Numbers of blocks: `d * scale * q - dmin * min` in any order of operations, contracted or not. Of the parts only the result
/// is known here; they are no larger than four times the largest number of their block, whose codes are random.
fn blocks(b: &[f32]) -> Vec<Real> {
    let block = |numbers: &[f32]| {
        let most = numbers.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let e = 16.0 * EPS * f64::from(most);
        numbers.iter().map(|&v| Real { e, ..v.into() }).collect::<Vec<_>>()
    };
    b.chunks(32).flat_map(block).collect()
}

/// Blocks written out; a half is the one above or below, and flushed below the normal ones.
pub(super) fn unpack(c: &Unpack, b: &[f32]) -> Vec<Real> {
    let half = |r: Real| {
        let size = r.v.abs();
        let flushed = if size < f64::from(SMALLEST_NORMAL_HALF) { size } else { 0.0 };
        Real { e: r.e + size / 1024.0 + flushed + f64::from(SMALLEST_NORMAL_HALF) / 1024.0, ..r }
    };
    let numbers = blocks(b).into_iter();
    match c.to {
        Unpacked::F32 => numbers.collect(),
        Unpacked::F16 => numbers.map(half).collect(),
    }
}

pub(super) fn matmul(p: &Params, inputs: &[&[f32]], variant: &Variant) -> Vec<Real> {
    let kind = variant.stored();
    let coop = matches!(variant, Variant::Coop { .. });
    let [rows, cols, depth, per] = indices([p.m, p.n, p.k, p.rows_per_batch]);
    let [am, ak, bk, bn] = indices([p.stride_am, p.stride_ak, p.stride_bk, p.stride_bn]);
    let [a, b, low_a, low_b] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let [bias, gate, residual] = [inputs[4], inputs[5], inputs[6]];
    let a: Vec<Real> = a.iter().map(|&x| if coop { half(x) } else { x.into() }).collect();
    let b: Vec<Real> = match kind.plain() {
        None => blocks(b),
        Some(_) => b.iter().map(|&w| if coop { half(w) } else { load(w, kind) }).collect(),
    };
    let low = p.low as usize;
    let low_columns = low;
    let (low_k, low_n) = if bk == 1 { (1, low) } else { (cols, 1) };
    let mut out = Vec::with_capacity(rows * cols * p.parts() as usize);
    for part in 0..p.parts() as usize {
        let range = part * p.part as usize..((part + 1) * p.part as usize).min(depth);
        for (m, n) in (0..rows).flat_map(|m| (0..cols).map(move |n| (m, n))) {
            let main = range.clone().map(|k| a[m * am + k * ak] * b[k * bk + n * bn]);
            let factors = |k: usize| (low_a[m * low + k], low_b[k * low_k + n * low_n]);
            let low = |(a, b): (f32, f32)| {
                if coop { low_half(a, false) * low_half(b, true) } else { Real::from(a) * b.into() }
            };
            let second = (0..low_columns).map(factors).map(low);
            let mut v = Real::sum(main.chain(second));
            if p.flags & BIAS != 0 {
                v = v + bias[n].into();
            }
            v = activate(v, p.act);
            if p.flags & GATE != 0 {
                v = v * gate[(m / per) * cols + n].into();
            }
            if p.flags & RESIDUAL != 0 {
                v = v + residual[m * cols + n].into();
            }
            out.push(v);
        }
    }
    out
}

pub(super) fn conv2d(p: &conv::Params, inputs: &[&[f32]]) -> Vec<Real> {
    let [batch, h, w, c] = indices([p.batch, p.h, p.w, p.c]);
    let [ho, wo, outs, kh, kw] = indices([p.ho, p.wo, p.o, p.kh, p.kw]);
    let [stride, pad] = indices([p.stride, p.pad]);
    let [x, weight, bias, residual] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let mut out = Vec::with_capacity(batch * ho * wo * outs);
    for pixel in 0..batch * ho * wo {
        let (b, oy, ox) = (pixel / (ho * wo), (pixel / wo) % ho, pixel % wo);
        for o in 0..outs {
            let taps = (0..kh * kw).filter_map(|t| {
                let iy = (oy * stride + t / kw).checked_sub(pad).filter(|&y| y < h)?;
                let ix = (ox * stride + t % kw).checked_sub(pad).filter(|&x| x < w)?;
                Some((((b * h + iy) * w + ix) * c, (o * kh * kw + t) * c))
            });
            let products =
                taps.flat_map(|(xi, wi)| (0..c).map(move |i| Real::from(x[xi + i]) * weight[wi + i].into()));
            let mut v = Real::sum(products);
            if p.flags & conv::BIAS != 0 {
                v = v + bias[o].into();
            }
            if p.flags & conv::RESIDUAL != 0 {
                v = v + residual[pixel * outs + o].into();
            }
            out.push(v);
        }
    }
    out
}

pub(super) fn conv2d_dx(p: &conv::Dx, inputs: &[&[f32]]) -> Vec<Real> {
    let [batch, h, w, c] = indices([p.batch, p.h, p.w, p.c]);
    let [ho, wo, outs, kh, kw] = indices([p.ho, p.wo, p.o, p.kh, p.kw]);
    let [stride, pad] = indices([p.stride, p.pad]);
    let wide = outs.next_multiple_of(4);
    let [dy, weight] = [inputs[0], inputs[1]];
    // The output whose tap `k` reads input `i`.
    let reached = |i: usize, k: usize, n: usize| {
        let t = (i + pad).checked_sub(k)?;
        (t.is_multiple_of(stride) && t / stride < n).then_some(t / stride)
    };
    let mut out = Vec::with_capacity(batch * h * w * c);
    for pixel in 0..batch * h * w {
        let (b, iy, ix) = (pixel / (h * w), (pixel / w) % h, pixel % w);
        for i in 0..c {
            let taps = (0..kh * kw).filter_map(|t| {
                let (oy, ox) = (reached(iy, t / kw, ho)?, reached(ix, t % kw, wo)?);
                Some((((b * ho + oy) * wo + ox) * wide, t * c + i))
            });
            let products = taps.flat_map(|(at, wi)| {
                (0..outs).map(move |o| Real::from(dy[at + o]) * weight[o * kh * kw * c + wi].into())
            });
            out.push(Real::sum(products));
        }
    }
    out
}
