//! Twin of `shader/copy.wgsl`.
use super::{Real, at};
use alloc::vec::Vec;

pub(super) fn slice<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (n, a, b, c) = (at(p, 0), at(p, 1), at(p, 2), at(p, 3));
    for i in 0..n {
        outputs[0][i] = inputs[0][(i / a) * b + c + i % a];
    }
}
pub(super) fn pad<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (n, a, b, c) = (at(p, 0), at(p, 1), at(p, 2), at(p, 3));
    for i in 0..n {
        let r = i % b;
        outputs[0][i] = if r >= c && r < c + a { inputs[0][(i / b) * a + r - c] } else { R::default() };
    }
}
pub(super) fn concat<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (n, a, b) = (at(p, 0), at(p, 1), at(p, 2));
    for i in 0..n {
        let (o, r) = (i / (a + b), i % (a + b));
        outputs[0][i] = if r < a { inputs[0][o * a + r] } else { inputs[1][o * b + r - a] };
    }
}
pub(super) fn permute<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    for i in 0..at(p, 0) {
        let mut r = i;
        let mut from = 0;
        for axis in (1..5).rev() {
            let size = at(p, 1 + axis);
            from += (r % size) * at(p, 6 + axis);
            r /= size;
        }
        outputs[0][i] = inputs[0][from + r * at(p, 6)];
    }
}
pub(super) fn upsample<R: Real>(p: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let (n, w, channels) = (at(p, 0), at(p, 2), at(p, 3));
    for i in 0..n {
        let (c, px) = (i % channels, i / channels);
        let (col, row) = (px % (2 * w), px / (2 * w));
        outputs[0][i] = inputs[0][((row / 2) * w + col / 2) * channels + c];
    }
}
