//! Philox4x32-10: a counter-based random generator, the same on every machine.
//!
//! Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". Block `i` of a stream depends only on
//! (seed, stream, i), so a shader can draw element `i` without drawing those before it and a checkpoint only
//! needs [`Philox::position`].

use alloc::vec::Vec;
pub use pentimento_wgsl::cpu::philox4x32_10;

/// Splits a `u64` into (low, high) words.
fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// A stream of random numbers: key = seed, counter = (block, stream).
///
/// Streams of one seed never overlap; give every purpose (latents, noise, shuffling ...) its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Philox {
    seed: u64,
    stream: u64,
    position: u64,
    /// Block `position / 4`, valid when `position % 4 != 0`.
    block: [u32; 4],
}

impl Philox {
    /// Length of [`Philox::state`].
    pub const STATE: usize = 12;

    /// Starts stream `stream` of `seed` at position 0.
    pub fn new(seed: u64, stream: u64) -> Self {
        Philox { seed, stream, position: 0, block: [0; 4] }
    }

    /// Number of 32-bit words drawn so far; pass it to [`Philox::seek`] to go on exactly here.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Moves to an absolute position, in 32-bit words.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
        self.block = self.block_at(position / 4);
    }

    /// The input of [`crate::graph::Graph::philox`] that draws on from here: seed, stream and block as 16-bit halves,
    /// lowest first, so that each is exact in f32. Begins at the next whole block: the rest of a started one is dropped.
    pub fn state(&self) -> [f32; Self::STATE] {
        let all = [self.seed, self.stream, self.position.div_ceil(4)];
        core::array::from_fn(|i| f32::from((all[i / 4] >> (16 * (i % 4))) as u16))
    }

    fn block_at(&self, index: u64) -> [u32; 4] {
        let (i, s) = (words(index), words(self.stream));
        philox4x32_10([i[0], i[1], s[0], s[1]], words(self.seed))
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let lane = (self.position % 4) as usize;
        if lane == 0 {
            self.block = self.block_at(self.position / 4);
        }
        self.position = self.position.wrapping_add(1);
        self.block[lane]
    }

    /// Uniform in [0, 1): the upper 24 bits of one word, so every value is exact in f32.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Standard normal pair from two words (Box-Muller in f64, rounded to f32).
    fn normal_pair(&mut self) -> [f32; 2] {
        let scale = 1.0 / 4_294_967_296.0;
        let u = (f64::from(self.next_u32()) + 1.0) * scale; // (0, 1]: the logarithm is finite
        let v = f64::from(self.next_u32()) * scale;
        let radius = libm::sqrt(-2.0 * libm::log(u));
        let (sin, cos) = libm::sincos(core::f64::consts::TAU * v);
        [(radius * cos) as f32, (radius * sin) as f32]
    }

    /// One standard normal number. Always uses two words, so [`Philox::position`] is the whole state.
    pub fn normal(&mut self) -> f32 {
        self.normal_pair()[0]
    }

    /// `n` signs, 1 or -1, one bit each; begins with a new word.
    pub fn signs(&mut self, n: usize) -> Vec<f32> {
        let mut word = 0;
        let mut sign = |i: usize| {
            if i.is_multiple_of(32) {
                word = self.next_u32();
            }
            if word >> (i % 32) & 1 == 1 { 1.0 } else { -1.0 }
        };
        (0..n).map(&mut sign).collect()
    }

    /// Fills `out` with standard normal numbers: two per two words; the spare of an odd length is dropped.
    pub fn normals(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let values = self.normal_pair();
            pair.copy_from_slice(&values[..pair.len()]);
        }
    }

    /// Uniform integer in [0, n), without bias (Lemire 2019, "Fast random integer generation in an interval").
    /// `n = 0` gives 0.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let reject_below = n.wrapping_neg() % n; // 2^32 mod n
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product as u32 >= reject_below {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts `items` into a random order (Fisher-Yates). Only the first 2^32 - 1 items take part.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        let n = u32::try_from(items.len()).unwrap_or(u32::MAX);
        for i in (1..n).rev() {
            items.swap(i as usize, self.below(i + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_stream_is_its_blocks_in_order() {
        let mut rng = Philox::new(0, 0);
        let drawn: Vec<u32> = (0..8).map(|_| rng.next_u32()).collect();
        assert_eq!(drawn[..4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(drawn[4..], philox4x32_10([1, 0, 0, 0], [0, 0]));
        let mut other = Philox::new(0x0123_4567_89ab_cdef, 7 << 32);
        assert_eq!(other.next_u32(), philox4x32_10([0, 0, 0, 7], [0x89ab_cdef, 0x0123_4567])[0]);
    }

    #[test]
    fn seek_resumes_exactly_from_any_position() {
        for skip in 0..11 {
            let mut rng = Philox::new(42, 3);
            for _ in 0..skip {
                rng.next_u32();
            }
            let mut resumed = Philox::new(42, 3);
            resumed.seek(rng.position());
            for _ in 0..9 {
                assert_eq!(rng.next_u32(), resumed.next_u32());
            }
        }
    }

    #[test]
    fn uniform_stays_below_one() {
        let mut rng = Philox::new(1, 0);
        let n = 20_000;
        let values: Vec<f32> = (0..n).map(|_| rng.uniform()).collect();
        assert!(values.iter().all(|v| (0.0..1.0).contains(v)));
        let mean = values.iter().sum::<f32>() / n as f32;
        assert!((mean - 0.5).abs() <= 4.0 * 0.2887 / libm::sqrtf(n as f32), "mean {mean}");
        assert!((u32::MAX >> 8) as f32 * (1.0 / 16_777_216.0) < 1.0);
    }

    #[test]
    fn normals_have_unit_moments() {
        let mut rng = Philox::new(5, 9);
        let mut x = vec![0.0f32; 40_001];
        rng.normals(&mut x);
        assert!(x.iter().all(|v| v.is_finite()));
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|v| libm::pow(f64::from(*v), f64::from(k))).sum::<f64>() / n;
        // Limits: four standard errors of each moment.
        assert!(moment(1).abs() <= 4.0 / libm::sqrt(n));
        assert!((moment(2) - 1.0).abs() <= 4.0 * libm::sqrt(2.0 / n));
        assert!(moment(3).abs() <= 4.0 * libm::sqrt(15.0 / n));
        assert!((moment(4) - 3.0).abs() <= 4.0 * libm::sqrt(96.0 / n));
        assert_eq!(rng.position(), 40_002, "an odd length uses one whole pair for its last element");
    }

    #[test]
    fn normals_and_normal_agree() {
        let (mut a, mut b) = (Philox::new(8, 8), Philox::new(8, 8));
        let mut x = [0.0; 6];
        a.normals(&mut x);
        assert_eq!([x[0], x[2], x[4]], [b.normal(), b.normal(), b.normal()]);
    }

    #[test]
    fn below_is_even_and_handles_the_edges() {
        let mut rng = Philox::new(2, 0);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) <= 400), "{counts:?}");
        assert!((0..100).all(|_| rng.below(u32::MAX) < u32::MAX));
    }

    #[test]
    fn shuffle_permutes() {
        let mut rng = Philox::new(3, 0);
        let mut items: Vec<u32> = (0..50).collect();
        rng.shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
        rng.shuffle::<u8>(&mut []);
        let mut one = [1];
        rng.shuffle(&mut one);
        assert_eq!(one, [1]);
    }
}
