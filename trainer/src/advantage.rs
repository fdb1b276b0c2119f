//! Group-relative advantages: how much better an image, or a place in it, is than its group. Pure functions.
use crate::config::Spread;

/// Deviations from the group's mean. Rewards stand group after group; each row holds `width` numbers that are
/// compared with the same column of the group's other rows.
fn centred(rewards: &[f32], group: usize, width: usize) -> Vec<f32> {
    let mut out = rewards.to_vec();
    for rows in out.chunks_mut(group * width) {
        let n = (rows.len() / width) as f32;
        for c in 0..width {
            let mean = rows.iter().skip(c).step_by(width).sum::<f32>() / n;
            rows.iter_mut().skip(c).step_by(width).for_each(|r| *r -= mean);
        }
    }
    out
}
/// Population standard deviation about the mean.
fn deviation(x: &[f32]) -> f32 {
    let n = x.len().max(1) as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt() as f32
}

/// `(r - mean of the group) / (std + 1e-4)`, clamped. `rewards`: `[groups * group, width]`, result likewise.
pub fn advantages(rewards: &[f32], group: usize, width: usize, spread: Spread, limit: f32) -> Vec<f32> {
    let mut a = centred(rewards, group, width);
    let std = match spread {
        Spread::Global => deviation(rewards),
        Spread::Within => deviation(&a),
    };
    a.iter_mut().for_each(|v| *v = (*v / (std + 1e-4)).clamp(-limit, limit));
    a
}

/// Nearest-neighbour resampling of a map of `from` = (height, width) to `to`.
pub fn resample(map: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let at = |i: usize, from: usize, to: usize| (2 * i + 1) * from / (2 * to);
    let rows = (0..to[0]).map(|y| at(y, from[0], to[0]));
    rows.flat_map(|y| (0..to[1]).map(move |x| map[y * from[1] + at(x, from[1], to[1])])).collect()
}

/// Mean and standard deviation, for reports.
pub fn moments(x: &[f32]) -> (f32, f32) {
    (x.iter().sum::<f32>() / x.len().max(1) as f32, deviation(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_centred_and_scaled() {
        let a = advantages(&[1.0, 3.0, 10.0, 14.0], 2, 1, Spread::Within, 5.0);
        let s = (2.5f32).sqrt() + 1e-4;
        for (got, want) in a.iter().zip([-1.0 / s, 1.0 / s, -2.0 / s, 2.0 / s]) {
            assert!((got - want).abs() <= 1e-5, "{a:?}");
        }
    }
    #[test]
    fn equal_rewards_give_zero_and_outliers_are_clamped() {
        assert!(advantages(&[2.0; 8], 4, 1, Spread::Global, 5.0).iter().all(|a| *a == 0.0));
        let mut r = vec![0.0; 64];
        r[0] = 1.0;
        assert_eq!(advantages(&r, 64, 1, Spread::Global, 5.0)[0], 5.0);
    }
    #[test]
    fn columns_are_compared_with_their_own_kind() {
        let a = advantages(&[0.0, 100.0, 2.0, 100.0], 2, 2, Spread::Within, 5.0);
        assert!(a[0] < 0.0 && a[2] > 0.0 && a[1] == 0.0 && a[3] == 0.0, "{a:?}");
    }
    #[test]
    fn resampling_keeps_corners() {
        assert_eq!(resample(&[1.0, 2.0, 3.0, 4.0], [2, 2], [4, 4])[15], 4.0);
        assert_eq!(resample(&[1.0, 2.0, 3.0, 4.0], [2, 2], [2, 2]), [1.0, 2.0, 3.0, 4.0]);
    }
}
