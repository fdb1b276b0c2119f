//! Group-relative advantages: how much better an image, or a place in it, is than its group. Pure functions.

/// What the advantage is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Standard deviation of all rewards of the iteration (released: `global_std`).
    Global,
    /// Root mean square of the advantages themselves, so of the deviations within groups.
    Within,
    /// Standard deviation of the prompt's own rewards (released with `global_std` off).
    Group,
}

/// Numbers the groups from 0 in order of appearance: equal keys (the released code takes the prompts) are one group.
pub fn groups<K: PartialEq>(keys: &[K]) -> Vec<usize> {
    let mut first: Vec<usize> = Vec::new();
    let number = |(i, key): (usize, &K)| {
        first.iter().position(|&f| keys[f] == *key).unwrap_or_else(|| {
            first.push(i);
            first.len() - 1
        })
    };
    keys.iter().enumerate().map(number).collect()
}

/// For each group and column, the mean of `f` over its rows. Rows hold `width` numbers. `[groups, width]`.
fn group_means<F: Fn(f64) -> f64>(rows: &[f64], groups: &[usize], width: usize, f: F) -> Vec<f64> {
    let count = groups.iter().max().map_or(0, |m| m + 1);
    let (mut sums, mut sizes) = (vec![0.0; count * width], vec![0u32; count]);
    for (row, &group) in rows.chunks_exact(width).zip(groups) {
        let sum = sums[group * width..].iter_mut();
        sum.zip(row).for_each(|(s, &r)| *s += f(r));
        sizes[group] += 1;
    }
    for (sum, &n) in sums.chunks_exact_mut(width).zip(&sizes) {
        sum.iter_mut().for_each(|s| *s /= f64::from(n.max(1)));
    }
    sums
}

/// Population standard deviation about the mean.
fn deviation(x: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let mean = x.iter().sum::<f64>() / n;
    (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// The group of each row of rewards that stand group after group, `group` rows each.
fn in_order(rewards: &[f32], group: usize, width: usize) -> Vec<usize> {
    (0..rewards.len() / width.max(1)).map(|i| i / group.max(1)).collect()
}

/// [`grouped`] for rewards that stand group after group, `group` rows each.
pub fn advantages(
    rewards: &[f32],
    group: usize,
    width: usize,
    spread: Spread,
    floor: f64,
    limit: f32,
) -> Vec<f32> {
    grouped(rewards, &in_order(rewards, group, width), width, spread, floor, limit)
}

/// What [`Spread::Within`] divides by, for rewards that stand group after group.
pub fn within(rewards: &[f32], group: usize, width: usize) -> f64 {
    deviation(&centred(rewards, &in_order(rewards, group, width), width.max(1)))
}

/// Differences from the means of groups, column by column.
fn centred(rewards: &[f32], groups: &[usize], width: usize) -> Vec<f64> {
    let mut a: Vec<f64> = rewards.iter().map(|&r| f64::from(r)).collect();
    let means = group_means(&a, groups, width, |r| r);
    for (row, &group) in a.chunks_exact_mut(width).zip(groups) {
        row.iter_mut().zip(&means[group * width..]).for_each(|(r, mean)| *r -= mean);
    }
    a
}

/// `(r - mean of the group) / (max(std, floor) + 1e-4)`, clamped. `rewards`: `[rows, width]`, result likewise; each column is
/// compared with the same column of the group's other rows. `groups`: the group of each row, as from [`groups`]. In f64,
/// as numpy computes it in the released code: rewards of a group are close together.
pub fn grouped(
    rewards: &[f32],
    groups: &[usize],
    width: usize,
    spread: Spread,
    floor: f64,
    limit: f32,
) -> Vec<f32> {
    let width = width.max(1);
    let mut a = centred(rewards, groups, width);
    // One deviation per group and column.
    let all = groups.iter().max().map_or(0, |m| (m + 1) * width);
    let stds = match spread {
        Spread::Global => vec![deviation(&rewards.iter().map(|&r| f64::from(r)).collect::<Vec<_>>()); all],
        Spread::Within => vec![deviation(&a); all],
        Spread::Group => {
            group_means(&a, groups, width, |d| d * d).into_iter().map(f64::sqrt).collect::<Vec<f64>>()
        }
    };
    let limit = f64::from(limit);
    for (row, &group) in a.chunks_exact_mut(width).zip(groups) {
        let scaled = row.iter_mut().zip(&stds[group * width..]);
        scaled.for_each(|(v, std)| *v = (*v / (std.max(floor) + 1e-4)).clamp(-limit, limit));
    }
    a.into_iter().map(|v| v as f32).collect()
}

/// Nearest-neighbour resampling of a map of `from` = (height, width) to `to`.
pub fn resample(map: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let at = |i: usize, from: usize, to: usize| (2 * i + 1) * from / (2 * to);
    let rows = (0..to[0]).map(|y| at(y, from[0], to[0]));
    rows.flat_map(|y| (0..to[1]).map(move |x| map[y * from[1] + at(x, from[1], to[1])])).collect()
}

/// Mean and standard deviation, for reports.
pub fn moments(x: &[f32]) -> (f32, f32) {
    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    ((x.iter().sum::<f64>() / x.len().max(1) as f64) as f32, deviation(&x) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_centred_and_scaled() {
        let a = advantages(&[1.0, 3.0, 10.0, 14.0], 2, 1, Spread::Within, 0.0, 5.0);
        let s = (2.5f32).sqrt() + 1e-4;
        for (got, want) in a.iter().zip([-1.0 / s, 1.0 / s, -2.0 / s, 2.0 / s]) {
            assert!((got - want).abs() <= 1e-5, "{a:?}");
        }
    }
    #[test]
    fn equal_rewards_give_zero_and_outliers_are_clamped() {
        assert!(advantages(&[2.0; 8], 4, 1, Spread::Global, 0.0, 5.0).iter().all(|a| *a == 0.0));
        let mut r = vec![0.0; 64];
        r[0] = 1.0;
        assert_eq!(advantages(&r, 64, 1, Spread::Global, 0.0, 5.0)[0], 5.0);
    }
    #[test]
    fn a_floor_keeps_noise_small() {
        let rewards = [1.0, 1.002, 5.0, 5.002];
        assert!((within(&rewards, 2, 1) - 0.001).abs() <= 1e-6);
        let a = advantages(&rewards, 2, 1, Spread::Within, 0.1, 5.0);
        assert!((a[1] - 0.001 / 0.1001).abs() <= 1e-4 && (a[0] + a[1]).abs() <= 1e-6, "{a:?}");
        assert_eq!(a, advantages(&rewards, 2, 1, Spread::Group, 0.1, 5.0));
    }
    #[test]
    fn columns_are_compared_with_their_own_kind() {
        let a = advantages(&[0.0, 100.0, 2.0, 100.0], 2, 2, Spread::Within, 0.0, 5.0);
        assert!(a[0] < 0.0 && a[2] > 0.0 && a[1] == 0.0 && a[3] == 0.0, "{a:?}");
    }
    #[test]
    fn groups_may_be_scattered() {
        let prompts = ["b", "a", "b", "c", "a"];
        let groups = groups(&prompts);
        assert_eq!(groups, [0, 1, 0, 2, 1]);
        let a = grouped(&[1.0, 10.0, 3.0, 7.0, 30.0], &groups, 1, Spread::Group, 0.0, 5.0);
        for (got, want) in a.iter().zip([-1.0, -1.0, 1.0, 0.0, 1.0]) {
            assert!((got - want).abs() <= 1e-3, "{a:?}");
        }
    }
    #[test]
    fn resampling_keeps_corners() {
        assert_eq!(resample(&[1.0, 2.0, 3.0, 4.0], [2, 2], [4, 4])[15], 4.0);
        assert_eq!(resample(&[1.0, 2.0, 3.0, 4.0], [2, 2], [2, 2]), [1.0, 2.0, 3.0, 4.0]);
    }
}
