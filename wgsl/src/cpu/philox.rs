//! Twin of `shader/philox.wgsl`, and the generator itself, which the host uses too.
use super::Real;
use crate::kernel::philox::Params;
use alloc::vec::Vec;

/// Multipliers of the two lanes (Random123, `philox.h`).
const M: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Key increments: the golden ratio and sqrt(3) - 1.
const W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten Philox rounds (Salmon et al. 2011): 128 random bits for a 128-bit `counter` and a 64-bit `key`, least
/// significant word first.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(W[0]), key[1].wrapping_add(W[1])];
        }
        let p0 = u64::from(M[0]) * u64::from(counter[0]);
        let p1 = u64::from(M[1]) * u64::from(counter[2]);
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
    }
    counter
}

pub(crate) fn philox<R: Real>(p: &Params, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    let n = p.n as usize;
    let half = |i: usize| inputs[0][i].wide() as u32 & 0xffff;
    let word = |i: usize| half(2 * i) | half(2 * i + 1) << 16;
    let first = u64::from(word(4)) | u64::from(word(5)) << 32;
    for i in 0..n.div_ceil(4) {
        let block = first.wrapping_add(i as u64);
        let words = philox4x32_10([block as u32, (block >> 32) as u32, word(2), word(3)], [word(0), word(1)]);
        for (j, w) in words.into_iter().enumerate().take(n - 4 * i) {
            outputs[0][4 * i + j] = R::narrow(f64::from(w >> 8) / 16_777_216.0);
            outputs[1][4 * i + j] = R::narrow(f64::from(w & 255));
        }
    }
}
