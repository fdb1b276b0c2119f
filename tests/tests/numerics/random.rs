//! Random numbers: the device draws the host's words, and normal numbers are normal.
use crate::harness::{Values, executors, property, run};
use pentimento_runtime::exec::Executor;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::Graph;
use pentimento_runtime::rng::{Philox, philox4x32_10};
use proptest::prelude::*;
use std::cell::RefCell;

/// Words as an executor draws them from a state.
fn words(exec: &mut dyn Executor, state: &[f32], n: usize) -> Vec<u32> {
    let mut g = Graph::new();
    let input = g.input("state", &[Philox::STATE]);
    let (upper, lower) = g.philox(input, &[n]);
    let got = run(exec, &g, &[upper, lower], &Values::from([("state".to_string(), state.to_vec())]));
    got[0].iter().zip(&got[1]).map(|(&u, &l)| (u * 16_777_216.0) as u32 * 256 + l as u32).collect()
}

/// Published answers (Random123, kat_vectors): counter, key, words.
const KNOWN: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
    ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
    ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
    (
        [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
        [0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
    ),
];

/// A stream at a block, without the limits of positions in words.
struct At {
    seed: u64,
    stream: u64,
    block: u64,
}
impl At {
    fn state(&self) -> Vec<f32> {
        let all = [self.seed, self.stream, self.block];
        (0..12).map(|i| f32::from((all[i / 4] >> (16 * (i % 4))) as u16)).collect()
    }
    fn words(&self, exec: &mut dyn Executor, n: usize) -> Vec<u32> {
        words(exec, &self.state(), n)
    }
    fn expected(&self, n: usize) -> Vec<u32> {
        let half = |x: u64| [x as u32, (x >> 32) as u32];
        let blocks = (0..n.div_ceil(4) as u64).flat_map(|i| {
            let (c, s) = (half(self.block.wrapping_add(i)), half(self.stream));
            philox4x32_10([c[0], c[1], s[0], s[1]], half(self.seed))
        });
        blocks.take(n).collect()
    }
}

#[test]
fn philox_gives_the_published_answers() {
    for (who, mut exec) in executors("known answers of Philox") {
        for (c, k, want) in KNOWN {
            let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
            let at = At { seed: join(k[0], k[1]), stream: join(c[2], c[3]), block: join(c[0], c[1]) };
            assert_eq!(at.words(&mut *exec, 4), want, "{who}: counter {c:x?}, key {k:x?}");
            assert_eq!(philox4x32_10(c, k), want);
        }
        println!("Philox: {} known answers on {who}", KNOWN.len());
    }
}

#[test]
fn the_device_draws_the_hosts_words() {
    for (who, exec) in executors("Philox") {
        let exec = RefCell::new(exec);
        // Blocks around 2^32 as well, where the counter carries.
        let block = prop_oneof![any::<u64>(), (0u64..1 << 33), (0u64..200).prop_map(|b| (1 << 32) - 100 + b)];
        let strategy = (any::<u64>(), any::<u64>(), block, 1usize..=1000);
        let cases = property("Philox", strategy, |(seed, stream, block, n)| {
            let at = At { seed, stream, block };
            let (got, want) = (at.words(&mut **exec.borrow_mut(), n), at.expected(n));
            match (0..n).find(|&i| got[i] != want[i]) {
                None => Ok(()),
                Some(i) => Err(format!("word {i} is {:08x}, expected {:08x}", got[i], want[i])),
            }
        });
        // As the host's stream goes on, from any position; uniform numbers are the very same f32.
        for skip in [0u64, 4, 5, 1 << 20] {
            let mut rng = Philox::new(42, 7);
            rng.seek(skip);
            let state = rng.state();
            rng.seek(skip.next_multiple_of(4)); // the rest of a started block is dropped
            let drawn = words(&mut **exec.borrow_mut(), &state, 50_001);
            assert!(drawn.iter().all(|&w| w == rng.next_u32()), "{who}: from {skip}");
        }
        let mut rng = Philox::new(1, 2);
        let mut g = Graph::new();
        let state = g.input("state", &[Philox::STATE]);
        let u = g.philox(state, &[3, 70]).0;
        let inputs = Values::from([("state".to_string(), rng.state().to_vec())]);
        let got = run(&mut **exec.borrow_mut(), &g, &[u], &inputs).remove(0);
        assert!(got.iter().all(|&v| v.to_bits() == rng.uniform().to_bits()), "{who}");
        println!("Philox, bit for bit: {cases} streams and 200004 words in a row on {who}");
    }
}

#[test]
fn words_have_no_gradient_and_states_a_length() {
    let mut g = Graph::new();
    let state = g.input("state", &[Philox::STATE]);
    let u = g.philox(state, &[8]).0;
    let dy = g.input("dy", &[8]);
    let error = gradients(&mut g, u, dy, &[state], false).expect_err("no gradient").to_string();
    assert!(error.contains("Philox"), "{error}");
    let mut g = Graph::new();
    let state = g.input("state", &[4]);
    g.philox(state, &[8]);
    assert!(g.check().is_err_and(|e| e.to_string().contains("state of 12")));
    // The comparison sees one wrong bit.
    let at = At { seed: 3, stream: 4, block: 5 };
    let mut other = at.expected(9);
    other[8] ^= 1 << 31;
    assert_ne!(at.words(&mut pentimento_runtime::exec::cpu::Cpu::new(), 9), other);
}

const N: usize = 1_000_000;
/// Standard deviations allowed; 5 are exceeded once in 1.7 million draws.
const SIGMAS: f64 = 5.0;

fn normals(seed: u64, stream: u64) -> Vec<f64> {
    let mut x = vec![0.0f32; N];
    Philox::new(seed, stream).normals(&mut x);
    x.into_iter().map(f64::from).collect()
}

/// Mean, variance, skewness and kurtosis within [`SIGMAS`] of their sampling distributions under normality: variances
/// 1/n, 2/n, 6/n, 24/n (Kendall & Stuart, vol. 1, ch. 10 and 12; the terms in 1/n^2 are far below these at n = 1e6).
fn moments(x: &[f64]) -> Result<(), String> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let central = |k: i32| x.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
    let var = central(2);
    let found = [mean, var - 1.0, central(3) / var.powf(1.5), central(4) / (var * var) - 3.0];
    for ((name, v), variance) in
        ["mean", "variance", "skewness", "kurtosis"].iter().zip(found).zip([1.0, 2.0, 6.0, 24.0])
    {
        let limit = SIGMAS * f64::sqrt(variance / n);
        if v.abs() <= limit {
            continue;
        }
        return Err(format!("{name} is off by {v:.2e}, limit {limit:.2e}"));
    }
    Ok(())
}

/// Kolmogorov-Smirnov: the largest distance of the empirical distribution from `cdf`. By Massart 1990 it exceeds e with
/// probability at most 2 exp(-2 n e^2), for every n; e is where that is the two-sided tail of [`SIGMAS`], 5.7e-7.
/// Storing as f32 moves a number by 6e-8 of itself, which is nothing beside e = 2.7e-3.
fn kolmogorov_smirnov(x: &[f64], cdf: impl Fn(f64) -> f64) -> Result<f64, String> {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = x.len() as f64;
    let distance = sorted.iter().enumerate().map(|(i, &v)| {
        let f = cdf(v);
        (f - i as f64 / n).abs().max(((i + 1) as f64 / n - f).abs())
    });
    let distance = distance.fold(0.0, |m: f64, d| if d <= m { m } else { d });
    let limit = ((2.0f64 / 5.73e-7).ln() / (2.0 * n)).sqrt();
    if distance <= limit { Ok(distance) } else { Err(format!("distance {distance:.2e}, limit {limit:.2e}")) }
}
/// Distribution function of the standard normal, by Simpson's rule on a table of step 2^-8: error below 1e-11.
struct Normal(Vec<f64>);
impl Normal {
    const STEP: f64 = 1.0 / 256.0;
    fn density(x: f64) -> f64 {
        (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    }
    fn piece(from: f64, to: f64) -> f64 {
        (to - from) / 6.0 * (Self::density(from) + 4.0 * Self::density(0.5 * (from + to)) + Self::density(to))
    }
    fn new() -> Self {
        let mut table = vec![0.5];
        for i in 0..(9.0 / Self::STEP) as usize {
            let x = i as f64 * Self::STEP;
            table.push(table[i] + Self::piece(x, x + Self::STEP));
        }
        Normal(table)
    }
    fn cdf(&self, x: f64) -> f64 {
        let i = ((x.abs() / Self::STEP) as usize).min(self.0.len() - 1);
        let upper = self.0[i] + Self::piece(i as f64 * Self::STEP, x.abs());
        if x < 0.0 { 1.0 - upper } else { upper }
    }
}

/// The correlation of independent samples of unit variance has variance 1/n.
fn independent(x: &[f64], y: &[f64]) -> Result<(), String> {
    let n = x.len().min(y.len()) as f64;
    let correlation = x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>() / n;
    let limit = SIGMAS / n.sqrt();
    if correlation.abs() <= limit {
        Ok(())
    } else {
        Err(format!("correlation {correlation:.2e}, limit {limit:.2e}"))
    }
}

#[test]
fn normals_are_normal() {
    let normal = Normal::new();
    assert!((normal.cdf(1.959_963_984_540_054) - 0.975).abs() <= 1e-11 && normal.cdf(-40.0).abs() <= 1e-11);
    for (seed, stream) in [(0, 0), (7, 1), (u64::MAX, 1 << 40)] {
        let x = normals(seed, stream);
        moments(&x).unwrap_or_else(|e| panic!("seed {seed}, stream {stream}: {e}"));
        let d = kolmogorov_smirnov(&x, |v| normal.cdf(v))
            .unwrap_or_else(|e| panic!("seed {seed}, stream {stream}: {e}"));
        println!("normals of seed {seed}, stream {stream}: {N} numbers, Kolmogorov-Smirnov distance {d:.1e}");
    }
}

#[test]
fn streams_seeds_and_neighbours_are_independent() {
    let x = normals(5, 0);
    let squares = |x: &[f64]| -> Vec<f64> { x.iter().map(|v| (v * v - 1.0) / 2f64.sqrt()).collect() };
    let mut pairs = 0;
    for (seed, stream) in [(5, 1), (5, 1 << 32), (6, 0), (5 + (1 << 32), 0), (0, 5)] {
        let y = normals(seed, stream);
        for (a, b) in [(&x, &y), (&squares(&x), &squares(&y))] {
            independent(a, b)
                .unwrap_or_else(|e| panic!("seed 5, stream 0 and seed {seed}, stream {stream}: {e}"));
            pairs += 1;
        }
    }
    // Neighbours: the two of a Box-Muller pair, of a block, of different blocks. Squares too: the pair shares a radius.
    for lag in [1, 2, 3, 4, 5, 8, 64, 4096] {
        for y in [&x, &squares(&x)] {
            independent(y, &y[lag..]).unwrap_or_else(|e| panic!("lag {lag}: {e}"));
            pairs += 1;
        }
    }
    println!("independent streams, seeds and neighbours: {pairs} correlations of {N} numbers");
}

/// Each of the 32 bits is set in half of the words: counts are binomial, with variance n/4.
fn even_bits(words: impl Iterator<Item = u32>) -> Result<(), String> {
    let (mut counts, mut n) = ([0u32; 32], 0u32);
    for w in words {
        n += 1;
        (0..32).for_each(|b| counts[b] += w >> b & 1);
    }
    let limit = SIGMAS * 0.5 * f64::from(n).sqrt();
    let far = counts.iter().position(|&c| (f64::from(c) - 0.5 * f64::from(n)).abs() > limit);
    far.map_or(Ok(()), |b| Err(format!("bit {b} is set in {} of {n} words", counts[b])))
}

#[test]
fn bits_and_uniform_numbers_are_even() {
    let mut rng = Philox::new(11, 3);
    even_bits((0..N).map(|_| rng.next_u32())).expect("even bits");
    let u: Vec<f64> = (0..N).map(|_| rng.uniform().into()).collect();
    let d = kolmogorov_smirnov(&u, |v| v.clamp(0.0, 1.0)).expect("uniform");
    println!("uniform numbers: {N}, Kolmogorov-Smirnov distance {d:.1e}; 32 even bits");
}

#[test]
fn the_checks_of_distributions_refuse_others() {
    let normal = Normal::new();
    let ks = |x: &[f64]| kolmogorov_smirnov(x, |v| normal.cdf(v));
    let mut rng = Philox::new(1, 1);
    // Uniform with the mean and variance of a standard normal.
    let uniform: Vec<f64> = (0..N).map(|_| (f64::from(rng.uniform()) - 0.5) * 12f64.sqrt()).collect();
    assert!(moments(&uniform).is_err_and(|e| e.contains("kurtosis")) && ks(&uniform).is_err());
    let x = normals(1, 2);
    let map = |f: &dyn Fn(f64) -> f64| -> Vec<f64> { x.iter().map(|&v| f(v)).collect() };
    assert!(
        moments(&map(&|v| v + 0.01)).is_err_and(|e| e.contains("mean")) && ks(&map(&|v| v + 0.01)).is_err()
    );
    assert!(moments(&map(&|v| 1.01 * v)).is_err_and(|e| e.contains("variance")));
    assert!(moments(&map(&|v| v + 0.02 * (v * v - 1.0))).is_err_and(|e| e.contains("skewness")));
    assert!(ks(&map(&f64::abs)).is_err());
    let mut bad = x.clone();
    bad[7] = f64::NAN;
    assert!(moments(&bad).is_err() && ks(&bad).is_err() && independent(&bad, &x).is_err());
    // One part in a hundred of another stream.
    let y = normals(1, 3);
    let mixed: Vec<f64> = x.iter().zip(&y).map(|(x, y)| 0.01 * x + (1.0f64 - 1e-4).sqrt() * y).collect();
    assert!(independent(&x, &y).is_ok() && independent(&x, &mixed).is_err() && independent(&x, &x).is_err());
    // A counter has even low bits only; a word stuck in one bit.
    assert!(even_bits((0..100_000).map(|i| i * 3)).is_err());
    let mut rng = Philox::new(2, 2);
    assert!(even_bits((0..N).map(|_| rng.next_u32() | 1)).is_err());
}
