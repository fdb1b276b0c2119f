//! How numbers lie in memory.
use alloc::{borrow::Cow, collections::TryReserveError, vec::Vec};

/// How a tensor is stored. Activations are F32; the second operand of a matmul may be any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // the names of the format
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, two a word.
    F16,
    /// bfloat16, two a word.
    BF16,
    /// GGUF's blocks of 32 bytes with a scale.
    Q8_0,
    /// Blocks of 32 nibbles with a scale.
    Q4_0,
    /// Blocks of 32 nibbles with a scale and a minimum.
    Q4_1,
    /// Blocks of 32 five-bit numbers with a scale.
    Q5_0,
    /// Blocks of 32 five-bit numbers with a scale and a minimum.
    Q5_1,
    /// Blocks of 256 nibbles, scales and minima in six bits for every 32.
    Q4_K,
    /// Blocks of 256 five-bit numbers, scales and minima in six bits for every 32.
    Q5_K,
    /// Blocks of 256 six-bit numbers, scales in eight bits for every 16.
    Q6_K,
}

/// A way to store that every product reads as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plain {
    /// [`Stored::F32`].
    F32,
    /// [`Stored::F16`].
    F16,
    /// [`Stored::BF16`].
    BF16,
}

/// Every way to store numbers one by one, for tables and tests.
pub const PLAIN: [Plain; 3] = [Plain::F32, Plain::F16, Plain::BF16];
/// Every way to store blocks of quantised ones.
pub const BLOCKS: [Stored; 8] = [
    Stored::Q8_0,
    Stored::Q4_0,
    Stored::Q4_1,
    Stored::Q5_0,
    Stored::Q5_1,
    Stored::Q4_K,
    Stored::Q5_K,
    Stored::Q6_K,
];

impl From<Plain> for Stored {
    fn from(plain: Plain) -> Stored {
        match plain {
            Plain::F32 => Stored::F32,
            Plain::F16 => Stored::F16,
            Plain::BF16 => Stored::BF16,
        }
    }
}

impl Plain {
    /// In lower case, as in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Plain::F32 => "f32",
            Plain::F16 => "f16",
            Plain::BF16 => "bf16",
        }
    }
}

impl Stored {
    /// Numbers and bytes of a block in a file; one number where they are not quantised.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Stored::F32 => (1, 4),
            Stored::F16 | Stored::BF16 => (1, 2),
            Stored::Q8_0 => (32, 34),
            Stored::Q4_0 => (32, 18),
            Stored::Q4_1 => (32, 20),
            Stored::Q5_0 => (32, 22),
            Stored::Q5_1 => (32, 24),
            Stored::Q4_K => (256, 144),
            Stored::Q5_K => (256, 176),
            Stored::Q6_K => (256, 210),
        }
    }
    /// Where a block has a half without which it would be whole words. On the device two blocks share a word for theirs, which
    /// comes before them.
    const fn odd(self) -> Option<usize> {
        match self {
            Stored::F32 | Stored::F16 | Stored::BF16 => None,
            Stored::Q8_0 | Stored::Q4_0 | Stored::Q5_0 => Some(0),
            Stored::Q6_K => Some(208),
            Stored::Q4_1 | Stored::Q5_1 | Stored::Q4_K | Stored::Q5_K => None,
        }
    }
    /// Bytes of `len` numbers on the device.
    pub const fn bytes(self, len: usize) -> usize {
        let (numbers, bytes) = self.block();
        let blocks = len.div_ceil(numbers);
        match self.odd() {
            Some(_) => blocks.next_multiple_of(2) * bytes,
            None => blocks * bytes,
        }
    }
    /// Numbers in so many bytes of a file.
    pub const fn numbers(self, bytes: usize) -> usize {
        let (numbers, block) = self.block();
        bytes / block * numbers
    }
    /// Packed words, which kernels only read; they live in a buffer of their own.
    pub const fn packed(self) -> bool {
        !matches!(self, Stored::F32)
    }
    /// Without blocks.
    pub const fn plain(self) -> Option<Plain> {
        match self {
            Stored::F32 => Some(Plain::F32),
            Stored::F16 => Some(Plain::F16),
            Stored::BF16 => Some(Plain::BF16),
            Stored::Q8_0 | Stored::Q4_0 | Stored::Q4_1 | Stored::Q5_0 | Stored::Q5_1 => None,
            Stored::Q4_K | Stored::Q5_K | Stored::Q6_K => None,
        }
    }
    /// In lower case, as in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Stored::F32 => "f32",
            Stored::F16 => "f16",
            Stored::BF16 => "bf16",
            Stored::Q8_0 => "q8_0",
            Stored::Q4_0 => "q4_0",
            Stored::Q4_1 => "q4_1",
            Stored::Q5_0 => "q5_0",
            Stored::Q5_1 => "q5_1",
            Stored::Q4_K => "q4_k",
            Stored::Q5_K => "q5_k",
            Stored::Q6_K => "q6_k",
        }
    }
    /// A file's bytes as they lie on the device; nothing is lost.
    ///
    /// # Errors
    /// There is no room for a copy.
    pub fn to_device(self, file: &[u8]) -> Result<Cow<'_, [u8]>, TryReserveError> {
        let Some(odd) = self.odd() else { return Ok(Cow::Borrowed(file)) };
        let (_, size) = self.block();
        let mut out = Vec::new();
        out.try_reserve_exact(file.len().next_multiple_of(2 * size))?;
        for pair in file.chunks(2 * size) {
            let mut blocks = Vec::from(pair);
            blocks.resize(2 * size, 0);
            let halves = [0, size].map(|at| [blocks[at + odd], blocks[at + odd + 1]]);
            out.extend(halves.as_flattened());
            for block in blocks.chunks_exact(size) {
                out.extend_from_slice(&block[..odd]);
                out.extend_from_slice(&block[odd + 2..]);
            }
        }
        Ok(Cow::Owned(out))
    }
    /// The bytes of `len` numbers on the device as they lie in a file.
    pub fn to_file(self, device: &[u8], len: usize) -> Cow<'_, [u8]> {
        let Some(odd) = self.odd() else { return Cow::Borrowed(device) };
        let (numbers, size) = self.block();
        let mut out = Vec::with_capacity(device.len());
        for pair in device.chunks_exact(2 * size) {
            let (halves, rest) = pair.split_at(4);
            for (half, block) in halves.chunks_exact(2).zip(rest.chunks_exact(size - 2)) {
                out.extend_from_slice(&block[..odd]);
                out.extend_from_slice(half);
                out.extend_from_slice(&block[odd..]);
            }
        }
        out.truncate(len.div_ceil(numbers) * size);
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_go_to_the_device_and_back() {
        for stored in BLOCKS {
            let (numbers, size) = stored.block();
            for blocks in 1..5 {
                let file: Vec<u8> = (0..blocks * size).map(|i| (i * 37 + i / 251) as u8).collect();
                let device = stored.to_device(&file).expect("room");
                assert_eq!(device.len(), stored.bytes(blocks * numbers), "{stored:?}");
                assert_eq!(device.len() % 4, 0, "{stored:?}");
                assert_eq!(stored.to_file(&device, blocks * numbers), file, "{stored:?}");
                assert_eq!(stored.numbers(file.len()), blocks * numbers, "{stored:?}");
            }
        }
        // The first word of a pair of Q8_0 holds both scales, the next one the first block's first numbers.
        let file: Vec<u8> = (0..68).collect();
        assert_eq!(Stored::Q8_0.to_device(&file).expect("room")[..8], [0, 1, 34, 35, 2, 3, 4, 5]);
        assert_eq!(Stored::Q8_0.to_device(&file).expect("room")[36..40], [36, 37, 38, 39]);
    }
}
