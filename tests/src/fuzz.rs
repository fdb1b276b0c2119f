//! Fuzzing with a generator of our own: a corpus is mutated, a parser is run, and it may neither panic, nor take much more
//! memory than its input, nor long. What fails is written to a file.
use crate::busy::worked;
use crate::memory::peak;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Seconds that a target is run for unless `PENTIMENTO_FUZZ` says so.
const SECONDS: f64 = 4.0;
/// Longest time that one input may take, of a processor.
const SLOW: Duration = Duration::from_secs(10);

/// A parser under test.
pub struct Target<'a> {
    /// Its name.
    pub name: &'a str,
    /// Inputs to begin with.
    pub corpus: Vec<Vec<u8>>,
    /// Pieces that mutations insert.
    pub words: &'a [&'a str],
    /// Most memory, in bytes, for an input of so many bytes.
    pub memory: fn(usize) -> usize,
    /// Longest input.
    pub longest: usize,
}

impl Target<'_> {
    /// Runs `parse` on mutated inputs for as long as the environment says. `finish` is the last mutation: it mends what would
    /// end every attempt early, such as lengths and checksums.
    ///
    /// # Panics
    /// An input at which `parse` panics, takes too much memory or too long; it is written to a file first.
    pub fn run(&self, finish: impl Fn(&mut Random, Vec<u8>) -> Vec<u8>, mut parse: impl FnMut(&[u8])) {
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<f64>().ok());
        let only = std::env::var("PENTIMENTO_FUZZ_TARGET").unwrap_or_default();
        if !self.name.contains(&only) {
            return;
        }
        let seconds = number("PENTIMENTO_FUZZ").unwrap_or(SECONDS);
        let seed = number("PENTIMENTO_SEED").unwrap_or(0.0) as u64;
        let name = self.name.bytes().fold(seed, |n, b| n.wrapping_mul(131).wrapping_add(u64::from(b)));
        let mut random = Random(name);
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let (mut runs, mut worst) = (0u64, 0.0f64);
        while Instant::now() < until {
            for _ in 0..64 {
                let mutated = self.mutated(&mut random);
                let input = finish(&mut random, mutated);
                let start = worked();
                let done = catch_unwind(AssertUnwindSafe(|| peak(|| parse(&input)).1));
                let why = match done {
                    Err(_) => "panics".to_string(),
                    Ok(most) if most > (self.memory)(input.len()) => {
                        format!("takes {most} bytes of memory for {}", input.len())
                    }
                    Ok(_) if worked().saturating_sub(start) > SLOW => {
                        format!("takes more than {SLOW:?}")
                    }
                    Ok(most) => {
                        worst = worst.max(most as f64 / (self.memory)(input.len()) as f64);
                        runs += 1;
                        continue;
                    }
                };
                panic!("{}: {} {why}", self.name, self.save(&input).display());
            }
        }
        println!(
            "fuzz {}: {runs} executions, at most {:.0} % of the memory allowed",
            self.name,
            100.0 * worst
        );
    }

    fn save(&self, input: &[u8]) -> PathBuf {
        let folder = std::env::temp_dir().join("pentimento-fuzz");
        let _ = std::fs::create_dir_all(&folder);
        let path = folder.join(format!("{}-{:08x}", self.name, crc32(input)));
        let _ = std::fs::write(&path, input);
        path
    }

    fn mutated(&self, random: &mut Random) -> Vec<u8> {
        let mut input = random.of(&self.corpus).clone();
        for _ in 0..1 + random.skewed(4) {
            self.mutate(random, &mut input);
        }
        input.truncate(self.longest);
        input
    }

    fn mutate(&self, random: &mut Random, input: &mut Vec<u8>) {
        let at = random.below(input.len() + 1);
        let upto = at + random.skewed(10).min(input.len() - at);
        match random.below(10) {
            0 => input.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
            1 => input.iter_mut().skip(at).take(1).for_each(|b| *b = random.word() as u8),
            2 => drop(input.drain(at..upto)),
            3 => {
                let part = input[at..upto].to_vec();
                let times = 1 + random.skewed(6);
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = random.of(&self.corpus);
                let from = random.below(other.len() + 1);
                input.splice(at..upto, other[from..].iter().copied().take(1 + random.skewed(10)));
            }
            5 => drop(
                input.splice(at..upto, (0..random.below(9)).map(|_| random.word() as u8).collect::<Vec<_>>()),
            ),
            6 if !self.words.is_empty() => {
                let word = random.of(self.words).as_bytes().to_vec();
                let upto = if random.below(2) == 0 { at } else { upto.min(at + word.len()) };
                input.splice(at..upto, word);
            }
            7 => {
                let wide = random.number();
                let bytes = if random.below(2) == 0 { wide.to_le_bytes() } else { wide.to_be_bytes() };
                let size = *random.of(&[1, 2, 4, 8]);
                let bytes = if bytes[0] == 0 { &bytes[8 - size..] } else { &bytes[..size] };
                input.iter_mut().skip(at).zip(bytes).for_each(|(b, new)| *b = *new);
            }
            _ => {
                // A number in decimal digits, as headers and configurations have them.
                let digit = |b: &u8| b.is_ascii_digit();
                let from = input.iter().skip(at).position(digit).map_or(at, |n| at + n);
                let end = input[from..].iter().position(|b| !digit(b)).map_or(input.len(), |n| from + n);
                input.splice(from..end, random.number().to_string().into_bytes());
            }
        }
    }
}

/// Splitmix64.
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// A number below `n`, 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() % n.max(1) as u64) as usize
    }
    /// A number of up to `bits` bits, small ones as often as large ones.
    pub fn skewed(&mut self, bits: usize) -> usize {
        let bits = self.below(bits);
        self.below(1 << bits)
    }
    /// One of several.
    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
    /// A number near a border of some type, or any.
    pub fn number(&mut self) -> u64 {
        let power = 1u64.checked_shl(self.below(65) as u32).unwrap_or(0);
        match self.below(6) {
            0 => self.below(20) as u64,
            1 => power,
            2 => power.wrapping_sub(1),
            3 => power.wrapping_add(self.below(3) as u64),
            4 => self.below(1 << 20) as u64,
            _ => self.word(),
        }
    }
}

/// The checksum of PNG.
pub fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    !bytes.iter().fold(!0u32, |crc, b| (0..8).fold(crc ^ u32::from(*b), |crc, _| bit(crc)))
}
