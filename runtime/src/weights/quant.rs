//! GGUF's blocks of quantised numbers, one function per type: a block in, its elements appended.
//!
//! Layouts: ggml's `ggml-common.h`. Scales are widened to f32 first and products are taken in the order of gguf-py's
//! `quants.py`, so results are equal bit for bit to its dequantisation.
use alloc::vec::Vec;

use half::f16;

/// The half-precision number at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `[d f16, 32 x i8]`: d * q.
pub(super) fn q8_0(b: &[u8; 34], out: &mut Vec<f32>) {
    let d = half(b, 0);
    out.extend(b[2..].iter().map(|&q| d * f32::from(q as i8)));
}

/// The low nibbles of 16 bytes, then their high nibbles.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 15).chain(bytes.iter().map(|b| b >> 4))
}

/// `[d f16, 32 nibbles]`: d * (q - 8).
pub(super) fn q4_0(b: &[u8; 18], out: &mut Vec<f32>) {
    let d = half(b, 0);
    out.extend(nibbles(&b[2..]).map(|q| d * (f32::from(q) - 8.0)));
}

/// `[d f16, m f16, 32 nibbles]`: d * q + m.
pub(super) fn q4_1(b: &[u8; 20], out: &mut Vec<f32>) {
    let (d, m) = (half(b, 0), half(b, 2));
    out.extend(nibbles(&b[4..]).map(|q| d * f32::from(q) + m));
}

/// 32 five-bit numbers: a word of fifth bits, then nibbles.
fn fives(high: [u8; 4], low: &[u8]) -> impl Iterator<Item = u8> {
    let high = u32::from_le_bytes(high);
    nibbles(low).enumerate().map(move |(i, q)| q | ((high >> i & 1) as u8) << 4)
}

/// `[d f16, fifth bits u32, 32 nibbles]`: d * (q - 16).
pub(super) fn q5_0(b: &[u8; 22], out: &mut Vec<f32>) {
    let d = half(b, 0);
    out.extend(fives([b[2], b[3], b[4], b[5]], &b[6..]).map(|q| d * (f32::from(q) - 16.0)));
}

/// `[d f16, m f16, fifth bits u32, 32 nibbles]`: d * q + m.
pub(super) fn q5_1(b: &[u8; 24], out: &mut Vec<f32>) {
    let (d, m) = (half(b, 0), half(b, 2));
    out.extend(fives([b[4], b[5], b[6], b[7]], &b[8..]).map(|q| d * f32::from(q) + m));
}

/// Six-bit scale and minimum of group `i` of 8, packed in 12 bytes: the first four pairs lie in the low six bits of
/// bytes 0..4 and 4..8, the others in nibbles of bytes 8..12 with their upper bits above the first ones.
fn scale_min(s: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (s[i] & 63, s[i + 4] & 63)
    } else {
        ((s[i + 4] & 15) | (s[i - 4] >> 6) << 4, (s[i + 4] >> 4) | (s[i] >> 6) << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// `[d f16, dmin f16, scales 12, 256 nibbles]`: d * scale * q - dmin * min per group of 32.
pub(super) fn q4_k(b: &[u8; 144], out: &mut Vec<f32>) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    for i in 0..8 {
        let (scale, min) = scale_min(&b[4..16], i);
        let (scale, min) = (d * scale, dmin * min);
        let bytes = &b[16 + i / 2 * 32..][..32];
        out.extend(bytes.iter().map(|v| scale * f32::from(v >> (4 * (i % 2)) & 15) - min));
    }
}

/// `[d f16, dmin f16, scales 12, fifth bits 32, 256 nibbles]`; bit i of fifth byte j belongs to element j of group i.
pub(super) fn q5_k(b: &[u8; 176], out: &mut Vec<f32>) {
    let (d, dmin) = (half(b, 0), half(b, 2));
    let high = &b[16..48];
    for i in 0..8 {
        let (scale, min) = scale_min(&b[4..16], i);
        let (scale, min) = (d * scale, dmin * min);
        let bytes = b[48 + i / 2 * 32..][..32].iter().zip(high);
        out.extend(bytes.map(|(v, h)| {
            let q = (v >> (4 * (i % 2)) & 15) | (h >> i & 1) << 4;
            scale * f32::from(q) - min
        }));
    }
}

/// `[low nibbles 128, high pairs 64, scales 16 x i8, d f16]`: d * scale * (q - 32) per group of 16.
pub(super) fn q6_k(b: &[u8; 210], out: &mut Vec<f32>) {
    let d = half(b, 208);
    for part in 0..2 {
        let (low, high) = (&b[part * 64..][..64], &b[128 + part * 32..][..32]);
        for quarter in 0..4 {
            for j in 0..32 {
                let scale = b[192 + part * 8 + quarter * 2 + j / 16] as i8;
                let nibble = low[quarter % 2 * 32 + j] >> (4 * (quarter / 2)) & 15;
                let q = nibble | (high[j] >> (2 * quarter) & 3) << 4;
                out.push(d * f32::from(scale) * (f32::from(q) - 32.0));
            }
        }
    }
}
