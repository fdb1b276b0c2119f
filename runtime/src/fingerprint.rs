//! Names for contents.
use crate::model::lora::Pair;
use crate::weights::Weights;
use alloc::format;
use alloc::string::String;

/// FNV-1a of 128 bits: names contents, protects from accidents, not from attacks.
pub struct Hash(u128);

impl Default for Hash {
    fn default() -> Self {
        Hash::new()
    }
}

impl Hash {
    /// Of nothing yet.
    pub fn new() -> Self {
        Hash(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.add(b.into());
        }
    }
    /// Adds words, each as one.
    pub fn words(&mut self, words: impl Iterator<Item = u32>) {
        words.for_each(|word| self.add(word.into()));
    }
    fn add(&mut self, x: u128) {
        self.0 = (self.0 ^ x).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    /// Names, types and shapes of all tensors, all bytes of small ones and samples of large ones.
    pub(crate) fn weights(&mut self, weights: &Weights) {
        const SMALL: usize = 4096;
        const SAMPLES: usize = 8;
        const SAMPLE: usize = 64;
        for name in weights.names() {
            self.bytes(name.as_bytes());
            let Ok(view) = weights.get(name) else { continue };
            self.bytes(format!("{:?} {:?}", view.dtype, view.shape).as_bytes());
            view.scale.iter().for_each(|scale| self.bytes(&scale.to_le_bytes()));
            if view.bytes.len() <= SMALL {
                self.bytes(view.bytes);
                continue;
            }
            let step = view.bytes.len() / SAMPLES;
            view.bytes.chunks(step).for_each(|part| self.bytes(part.get(..SAMPLE).unwrap_or(part)));
        }
    }
    /// A correction with its target, all of it: strengths and small changes count.
    pub(crate) fn pair(&mut self, target: &str, pair: &Pair) {
        self.bytes(target.as_bytes());
        let words = pair.a.iter().chain(&pair.b).map(|v| v.to_bits());
        [pair.rank as u32].into_iter().chain(words).for_each(|word| self.bytes(&word.to_le_bytes()));
    }
    /// 32 digits.
    pub fn finish(self) -> String {
        format!("{:032x}", self.0)
    }
}

impl core::fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

impl Weights {
    /// Names its tensors: equal for equal names, types, shapes and numbers. Of a large tensor a few hundred bytes are looked at, so that a
    /// checkpoint of gigabytes need not be read; any training changes those.
    pub fn fingerprint(&self) -> String {
        let mut hash = Hash::new();
        hash.weights(self);
        hash.finish()
    }
}
