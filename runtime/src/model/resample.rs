//! Resampling of images and position tables on the graph: a linear map per axis, whose matrix the host makes.
use super::{Constants, image_shape};
use crate::graph::{Graph, Id};
use alloc::{format, vec, vec::Vec};

/// The cubic kernel (Keys 1981) and what happens around it. torch has two of them, PIL the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cubic {
    /// torch's `interpolate(mode="bicubic", align_corners=False)`: a = -0.75, four taps at any scale, pixels beyond a
    /// border repeat it.
    Plain,
    /// The same with `antialias=True`: a = -0.5, the kernel widens when shrinking, taps beyond a border are left out.
    Antialiased,
}

/// Resampling of `[B, H, W, C]` to `h x w`. Skips an axis that keeps its length.
pub fn bicubic(g: &mut Graph, constants: &mut Constants, x: Id, h: usize, w: usize, kind: Cubic) -> Id {
    let x = bicubic_rows(g, constants, x, h, kind, &[1, 0, 2, 3]);
    bicubic_rows(g, constants, x, w, kind, &[2, 0, 1, 3])
}

/// Brings an axis of `[B, H, W, C]` to the front, resamples it and puts it back.
fn bicubic_rows(
    g: &mut Graph,
    constants: &mut Constants,
    x: Id,
    to: usize,
    kind: Cubic,
    front: &[usize; 4],
) -> Id {
    let s = image_shape(g, x, "bicubic");
    let from = s[front[0]];
    if from == to {
        return x;
    }
    let name = format!("bicubic/{kind:?}/{from}/{to}");
    let map = constants.tensor(g, name, &[to, from], || bicubic_matrix(from, to, kind));
    let x = g.permute(x, front);
    let x = g.reshape(x, &[from, s.iter().product::<usize>() / from.max(1)]);
    let x = g.matmul(map, x, false, false);
    let x = g.reshape(x, &[to, s[front[1]], s[front[2]], s[front[3]]]);
    g.permute(x, if front[0] == 1 { &[1, 0, 2, 3] } else { &[1, 2, 0, 3] })
}

/// The cubic convolution kernel with parameter `a` (Keys 1981, eq. 4).
fn keys(a: f64, x: f64) -> f64 {
    match x.abs() {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

/// `[to, from]`: row i holds the weights of target i; pixels are centred on halves.
pub fn bicubic_matrix(from: usize, to: usize, kind: Cubic) -> Vec<f32> {
    let mut rows = vec![0.0f64; from * to];
    let scale = from as f64 / to as f64;
    for (i, row) in rows.chunks_exact_mut(from.max(1)).enumerate() {
        let center = (i as f64 + 0.5) * from as f64 / to as f64;
        match kind {
            Cubic::Plain => plain_row(row, center),
            Cubic::Antialiased => antialiased_row(row, center, scale.max(1.0)),
        }
    }
    rows.into_iter().map(|v| v as f32).collect()
}

fn plain_row(row: &mut [f64], center: f64) {
    let center = center - 0.5;
    let (first, last) = (libm::floor(center) as i64 - 1, row.len() as i64 - 1);
    for x in first..first + 4 {
        if let Some(weight) = row.get_mut(x.clamp(0, last) as usize) {
            *weight += keys(-0.75, x as f64 - center);
        }
    }
}

fn antialiased_row(row: &mut [f64], center: f64, stretch: f64) {
    // torch truncates both ends of the window after adding a half.
    let start = libm::trunc(center - 2.0 * stretch + 0.5).max(0.0) as usize;
    let end = (libm::trunc(center + 2.0 * stretch + 0.5) as usize).min(row.len());
    let mut sum = 0.0;
    for (x, weight) in row.iter_mut().enumerate().take(end).skip(start) {
        *weight = keys(-0.5, (x as f64 + 0.5 - center) / stretch);
        sum += *weight;
    }
    row.iter_mut().for_each(|w| *w /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bicubic_weights_sum_to_one() {
        for kind in [Cubic::Plain, Cubic::Antialiased] {
            for (from, to) in [(4, 6), (7, 3), (1, 5), (5, 1), (4, 4), (37, 16)] {
                for row in bicubic_matrix(from, to, kind).chunks_exact(from) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() <= 1e-6, "{from} -> {to}: {row:?}");
                }
            }
            assert_eq!(bicubic_matrix(3, 3, kind), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        }
    }

    #[test]
    fn the_two_kernels_differ_where_torch_does() {
        // torch.nn.functional.interpolate of [0, 1] to 4: the first pixel lies at -0.25.
        let row = &bicubic_matrix(2, 4, Cubic::Plain)[..2];
        assert!((row[1] + 0.10546875).abs() <= 1e-6, "{row:?}");
        // Antialiased, taps at distances 0.25 and 1.25 only, normalised.
        let (near, far) = (keys(-0.5, 0.25), keys(-0.5, 1.25));
        let row = &bicubic_matrix(2, 4, Cubic::Antialiased)[..2];
        assert!((f64::from(row[1]) - far / (near + far)).abs() <= 1e-6, "{row:?}");
        // Shrinking four to one averages all four when antialiased.
        assert!(bicubic_matrix(4, 1, Cubic::Antialiased).iter().all(|w| *w > 0.0));
    }
}
