//! Resizing 8-bit RGB images exactly as PIL does, to the last bit.
//!
//! The released Adv-GRPO code resizes references and head inputs with PIL, so the same integers matter. Follows Pillow's
//! `Resample.c` (13.0.0): separable, weights in 22-bit fixed point, every pass rounded and clamped to 8 bits. When
//! shrinking, the filter's support grows by the same factor (antialiasing).
use std::borrow::Cow;

/// How neighbouring pixels are weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle (PIL `BILINEAR`).
    Bilinear,
    /// Cubic with a = -0.5 (PIL `BICUBIC`).
    Bicubic,
}

impl Filter {
    /// Half the filter's width, in source pixels at scale 1.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear if x < 1.0 => 1.0 - x,
            Filter::Bicubic if x < 1.0 => ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

/// Fraction bits of a weight: 32 bits less 8 for the pixel and 2 for overshoot.
const BITS: u32 = 32 - 8 - 2;

/// The source pixels that make one target pixel.
struct Window {
    start: usize,
    weights: Vec<i64>,
}

/// One window per target pixel along an axis.
fn windows(source: usize, target: usize, filter: Filter) -> Vec<Window> {
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let start = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(source);
        let raw = (start..end).map(|x| filter.weight((x as f64 - center + 0.5) * (1.0 / stretch)));
        let raw: Vec<f64> = raw.collect();
        let sum: f64 = raw.iter().sum();
        let one = f64::from(1u32 << BITS);
        let fixed = |w: &f64| {
            let w = if sum == 0.0 { *w } else { w / sum } * one;
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i64
        };
        Window { start, weights: raw.iter().map(fixed).collect() }
    };
    (0..target).map(window).collect()
}

/// Weighted sum of every `stride`-th byte, rounded and clamped.
fn sum(bytes: &[u8], stride: usize, weights: &[i64]) -> u8 {
    let taps = bytes.iter().step_by(stride).zip(weights);
    let total: i64 = taps.map(|(&b, w)| i64::from(b) * w).sum();
    ((total + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// Whether Pillow 13 runs the vertical pass first: when the height loses more than twice the pixels that the width does.
/// Both passes round, so the order shows in the last bit. (Earlier versions always begin with the rows.)
fn columns_first(size: (usize, usize), target: (usize, usize)) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    let (width, height) = (lost(size.0, target.0), lost(size.1, target.1));
    height > 0 && height > 2 * width
}

/// Resizes every row of `width` pixels to `target` pixels.
fn resize_rows(rgb: &[u8], width: usize, target: usize, filter: Filter) -> Vec<u8> {
    let windows = windows(width, target, filter);
    let row = |row: &[u8]| -> Vec<u8> {
        let pixel = |w: &Window| [0, 1, 2].map(|c| sum(&row[w.start * 3 + c..], 3, &w.weights));
        windows.iter().flat_map(pixel).collect()
    };
    rgb.chunks_exact(width * 3).flat_map(row).collect()
}

/// Resizes the columns of an image `width` pixels wide from `height` to `target` pixels.
fn resize_columns(rgb: &[u8], width: usize, height: usize, target: usize, filter: Filter) -> Vec<u8> {
    let stride = width * 3;
    let column = |w: &Window| -> Vec<u8> {
        (0..stride).map(|x| sum(&rgb[w.start * stride + x..], stride, &w.weights)).collect()
    };
    windows(height, target, filter).iter().flat_map(column).collect()
}

/// Resizes RGB pixels from `size` to `target`, both (width, height) and at least 1.
/// `rgb` holds `width * height * 3` bytes.
pub(crate) fn resize(rgb: &[u8], size: (usize, usize), target: (usize, usize), filter: Filter) -> Vec<u8> {
    let passes = if columns_first(size, target) { [false, true] } else { [true, false] };
    let (mut pixels, mut width) = (Cow::Borrowed(rgb), size.0);
    for along_rows in passes {
        if along_rows && size.0 != target.0 {
            pixels = Cow::Owned(resize_rows(&pixels, size.0, target.0, filter));
            width = target.0;
        } else if !along_rows && size.1 != target.1 {
            pixels = Cow::Owned(resize_columns(&pixels, width, size.1, target.1, filter));
        }
    }
    pixels.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_of_pil() {
        // PIL 13.0.0: Image.fromarray of one row [0, 100, 200, 50] resized to width 2 and to width 8.
        let row: Vec<u8> = [0, 100, 200, 50].iter().flat_map(|&v| [v; 3]).collect();
        let red = |target: usize, filter| -> Vec<u8> {
            resize(&row, (4, 1), (target, 1), filter).into_iter().step_by(3).collect()
        };
        assert_eq!(red(2, Filter::Bilinear), [71, 121]);
        assert_eq!(red(2, Filter::Bicubic), [68, 127]);
        assert_eq!(red(8, Filter::Bilinear), [0, 25, 75, 125, 175, 163, 88, 50]);
        assert_eq!(red(8, Filter::Bicubic), [0, 17, 71, 131, 193, 174, 81, 37]);
        // The vertical pass is the same filter.
        let column: Vec<u8> = resize(&row, (1, 4), (1, 8), Filter::Bicubic).into_iter().step_by(3).collect();
        assert_eq!(column, [0, 17, 71, 131, 193, 174, 81, 37]);
    }

    #[test]
    fn passes_run_in_pillows_order() {
        // Sizes at which PIL 13.0.0 was seen to agree with one order only, on random pixels.
        for (size, target) in
            [((44, 64), (48, 48)), ((90, 90), (70, 30)), ((49, 47), (70, 30)), ((60, 90), (48, 48))]
        {
            assert!(columns_first(size, target), "{size:?} {target:?}");
        }
        for (size, target) in
            [((90, 60), (70, 30)), ((20, 40), (48, 48)), ((64, 44), (48, 48)), ((56, 40), (30, 70))]
        {
            assert!(!columns_first(size, target), "{size:?} {target:?}");
        }
        // PIL 13.0.0: pixel (x, y, c) = (7 x + 13 y + 29 c + 37 x y) % 256, 2 x 5 to 3 x 2.
        let source: Vec<u8> = (0..5usize)
            .flat_map(|y| {
                (0..2usize)
                    .flat_map(move |x| (0..3usize).map(move |c| (7 * x + 13 * y + 29 * c + 37 * x * y) as u8))
            })
            .collect();
        assert_eq!(
            resize(&source, (2, 5), (3, 2), Filter::Bicubic),
            [8, 37, 66, 31, 60, 93, 53, 82, 119, 33, 62, 97, 103, 132, 116, 172, 201, 135]
        );
    }

    #[test]
    fn constants_stay_constant() {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for target in [(1, 1), (3, 50), (7, 5), (40, 2)] {
                let out = resize(&[77; 7 * 5 * 3], (7, 5), target, filter);
                assert_eq!(out, vec![77; target.0 * target.1 * 3], "{filter:?} {target:?}");
            }
        }
    }
}
