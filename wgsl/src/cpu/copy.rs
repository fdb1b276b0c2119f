//! Twin of `shader/copy.wgsl`.
use super::Real;
use crate::kernel::copy::{Axes, Image, Joint, Window};
use crate::kernel::indices;
use alloc::vec::Vec;

pub(crate) fn slice<R: Real>(p: &Window, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [n, a, b, c] = indices([p.n, p.len, p.side, p.start]);
    for i in 0..n {
        outputs[0][i] = inputs[0][(i / a) * b + c + i % a];
    }
}
pub(crate) fn pad<R: Real>(p: &Window, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [n, a, b, c] = indices([p.n, p.len, p.side, p.start]);
    for i in 0..n {
        let r = i % b;
        outputs[0][i] = if r >= c && r < c + a { inputs[0][(i / b) * a + r - c] } else { R::default() };
    }
}
pub(crate) fn concat<R: Real>(p: &Joint, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [n, a, b] = indices([p.n, p.a, p.b]);
    for i in 0..n {
        let (o, r) = (i / (a + b), i % (a + b));
        outputs[0][i] = if r < a { inputs[0][o * a + r] } else { inputs[1][o * b + r - a] };
    }
}
pub(crate) fn permute<R: Real>(p: &Axes, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (sizes, strides) = (indices(p.sizes), indices(p.strides));
    for i in 0..p.n as usize {
        let mut r = i;
        let mut from = 0;
        for axis in (1..5).rev() {
            from += (r % sizes[axis]) * strides[axis];
            r /= sizes[axis];
        }
        outputs[0][i] = inputs[0][from + r * strides[0]];
    }
}
pub(crate) fn upsample<R: Real>(p: &Image, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let [n, w, channels] = indices([p.n, p.w, p.c]);
    for i in 0..n {
        let (c, px) = (i % channels, i / channels);
        let (col, row) = (px % (2 * w), px / (2 * w));
        outputs[0][i] = inputs[0][((row / 2) * w + col / 2) * channels + c];
    }
}
