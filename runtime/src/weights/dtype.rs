//! Element types of stored tensors and their decoding to f32.
use crate::Result;
use crate::room::room;
use alloc::vec::Vec;

use half::{bf16, f16};

use super::quant;
use pentimento_wgsl::Stored;

/// Element type of a stored tensor: plain numbers, or GGUF's blocks of quantised ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(non_camel_case_types)] // the names of the format
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// Eight bits: sign, 4 of exponent, 3 of mantissa; finite but for two NaN (`float8_e4m3fn`).
    F8_E4M3,
    /// Eight bits: sign, 5 of exponent, 2 of mantissa; the upper half of an `F16`.
    F8_E5M2,
    /// 32 signed bytes with one scale.
    Q8_0,
    /// 32 nibbles with one scale.
    Q4_0,
    /// 32 nibbles with a scale and a minimum.
    Q4_1,
    /// 32 five-bit numbers with one scale.
    Q5_0,
    /// 32 five-bit numbers with a scale and a minimum.
    Q5_1,
    /// 256 nibbles in 8 groups, each with a six-bit scale and minimum.
    Q4_K,
    /// 256 five-bit numbers in 8 groups, each with a six-bit scale and minimum.
    Q5_K,
    /// 256 six-bit numbers in 16 groups, each with an eight-bit scale.
    Q6_K,
}

impl From<Stored> for DType {
    fn from(stored: Stored) -> DType {
        match stored {
            Stored::F32 => DType::F32,
            Stored::F16 => DType::F16,
            Stored::BF16 => DType::BF16,
            Stored::Q8_0 => DType::Q8_0,
            Stored::Q4_0 => DType::Q4_0,
            Stored::Q4_1 => DType::Q4_1,
            Stored::Q5_0 => DType::Q5_0,
            Stored::Q5_1 => DType::Q5_1,
            Stored::Q4_K => DType::Q4_K,
            Stored::Q5_K => DType::Q5_K,
            Stored::Q6_K => DType::Q6_K,
        }
    }
}

impl DType {
    /// How a device can keep it; `None` for fp8, which no kernel reads.
    pub fn stored(self) -> Option<Stored> {
        Some(match self {
            DType::F8_E4M3 | DType::F8_E5M2 => return None,
            DType::F32 => Stored::F32,
            DType::F16 => Stored::F16,
            DType::BF16 => Stored::BF16,
            DType::Q8_0 => Stored::Q8_0,
            DType::Q4_0 => Stored::Q4_0,
            DType::Q4_1 => Stored::Q4_1,
            DType::Q5_0 => Stored::Q5_0,
            DType::Q5_1 => Stored::Q5_1,
            DType::Q4_K => Stored::Q4_K,
            DType::Q5_K => Stored::Q5_K,
            DType::Q6_K => Stored::Q6_K,
        })
    }

    /// Every type.
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8_E4M3,
        DType::F8_E5M2,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
    ];

    /// (elements, bytes) of the smallest unit that is stored: (1, size) for plain numbers.
    pub fn block(self) -> (usize, usize) {
        self.stored().map_or((1, 1), Stored::block)
    }

    /// Bytes that `elements` take; `None` when they do not fill whole blocks, or overflow.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        let (per, size) = self.block();
        if elements.is_multiple_of(per) { (elements / per).checked_mul(size) } else { None }
    }

    /// All elements of whole blocks as f32: exact for plain numbers, and `scale * q + minimum` in f32 for quantised
    /// ones, as the reference implementation of GGUF computes it. A last block that is cut is left out.
    ///
    /// # Errors
    /// The host's memory has no room for them.
    pub fn decode(self, bytes: &[u8]) -> Result<Vec<f32>> {
        let (per, size) = self.block();
        let mut out = room(bytes.len() / size * per, "a tensor as f32")?;
        match self {
            DType::F32 => out.extend(words(bytes).map(f32::from_le_bytes)),
            DType::F16 => out.extend(words(bytes).map(|b| f16::from_le_bytes(b).to_f32())),
            DType::BF16 => out.extend(words(bytes).map(|b| bf16::from_le_bytes(b).to_f32())),
            DType::F8_E4M3 => out.extend(bytes.iter().map(|&b| e4m3(b))),
            DType::F8_E5M2 => out.extend(bytes.iter().map(|&b| f16::from_bits(u16::from(b) << 8).to_f32())),
            DType::Q8_0 => bytes.as_chunks::<34>().0.iter().for_each(|b| quant::q8_0(b, &mut out)),
            DType::Q4_0 => bytes.as_chunks::<18>().0.iter().for_each(|b| quant::q4_0(b, &mut out)),
            DType::Q4_1 => bytes.as_chunks::<20>().0.iter().for_each(|b| quant::q4_1(b, &mut out)),
            DType::Q5_0 => bytes.as_chunks::<22>().0.iter().for_each(|b| quant::q5_0(b, &mut out)),
            DType::Q5_1 => bytes.as_chunks::<24>().0.iter().for_each(|b| quant::q5_1(b, &mut out)),
            DType::Q4_K => bytes.as_chunks::<144>().0.iter().for_each(|b| quant::q4_k(b, &mut out)),
            DType::Q5_K => bytes.as_chunks::<176>().0.iter().for_each(|b| quant::q5_k(b, &mut out)),
            DType::Q6_K => bytes.as_chunks::<210>().0.iter().for_each(|b| quant::q6_k(b, &mut out)),
        }
        Ok(out)
    }
}

/// A `float8_e4m3fn` number (Micikevicius et al. 2022, arXiv 2209.05433): exponent bias 7, no infinities.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(code >> 3 & 15), u32::from(code & 7));
    let size = match (exponent, mantissa) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
    };
    if code & 0x80 != 0 { -size } else { size }
}

/// Words of N bytes.
fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

impl core::fmt::Display for DType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DType::F8_E4M3 => "f8_e4m3",
            DType::F8_E5M2 => "f8_e5m2",
            other => other.stored().map_or("", Stored::name),
        })
    }
}
