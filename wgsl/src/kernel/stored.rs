//! How numbers lie in memory.

/// How a tensor is stored. Activations are F32; the second operand of a matmul may be any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, two a word.
    F16,
    /// bfloat16, two a word.
    BF16,
}

/// Every way, for tables and tests.
pub const STORED: [Stored; 3] = [Stored::F32, Stored::F16, Stored::BF16];

impl Stored {
    /// Numbers and bytes of the smallest unit that can be stored.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Stored::F32 => (1, 4),
            Stored::F16 | Stored::BF16 => (1, 2),
        }
    }
    /// Bytes of `len` numbers.
    pub const fn bytes(self, len: usize) -> usize {
        let (numbers, bytes) = self.block();
        len.div_ceil(numbers) * bytes
    }
    /// Numbers in so many bytes.
    pub const fn numbers(self, bytes: usize) -> usize {
        let (numbers, block) = self.block();
        bytes / block * numbers
    }
    /// Packed words, which kernels only read; they live in a buffer of their own.
    pub const fn packed(self) -> bool {
        match self {
            Stored::F32 => false,
            Stored::F16 | Stored::BF16 => true,
        }
    }
    /// In lower case, as in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Stored::F32 => "f32",
            Stored::F16 => "f16",
            Stored::BF16 => "bf16",
        }
    }
}
