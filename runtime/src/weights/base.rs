//! Quantising weights that a checkpoint holds in more bits, to GGUF's blocks.
use super::DType;
use crate::Result;
use crate::room::room;
use alloc::vec::Vec;
use core::str::FromStr;
use half::f16;
use pentimento_wgsl::Stored;

/// What frozen matrices become on the device, to save its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// [`Stored::Q8_0`]: 8.5 bits a weight.
    Q8,
    /// [`Stored::Q4_0`]: 4.5 bits a weight.
    Q4,
}

impl FromStr for Base {
    type Err = crate::Error;
    fn from_str(name: &str) -> crate::Result<Self> {
        match name {
            "q8" => Ok(Base::Q8),
            "q4" => Ok(Base::Q4),
            _ => Err(crate::Error::bad("base", "q8 or q4", name)),
        }
    }
}

impl Base {
    /// As a way to store.
    pub const fn stored(self) -> Stored {
        match self {
            Base::Q8 => Stored::Q8_0,
            Base::Q4 => Stored::Q4_0,
        }
    }
    /// Whole blocks of numbers, as a file would hold them; bit for bit those of gguf-py's `quants.py`. What is left beyond a last whole
    /// block is left out.
    ///
    /// # Errors
    /// The host's memory has no room for them.
    pub fn quantise(self, values: &[f32]) -> Result<Vec<u8>> {
        let (blocks, _) = values.as_chunks::<32>();
        let mut out = room(blocks.len() * self.stored().block().1, "a tensor's blocks")?;
        for block in blocks {
            match self {
                Base::Q8 => q8_0(block, &mut out),
                Base::Q4 => q4_0(block, &mut out),
            }
        }
        Ok(out)
    }
    /// The numbers that are left of `values`.
    ///
    /// # Errors
    /// The host's memory has no room for them.
    pub fn rounded(self, values: &[f32]) -> Result<Vec<f32>> {
        DType::from(self.stored()).decode(&self.quantise(values)?)
    }
}

/// One over a scale; 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The largest size becomes 127.
fn q8_0(block: &[f32; 32], out: &mut Vec<u8>) {
    let d = block.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
    let id = inverse(d);
    out.extend(f16::from_f32(d).to_le_bytes());
    out.extend(block.iter().map(|v| libm::roundf(v * id) as i8 as u8));
}

/// The number of the largest size becomes -8, so that the scale has its sign.
fn q4_0(block: &[f32; 32], out: &mut Vec<u8>) {
    let most = block.iter().fold(0.0f32, |most, &v| if v.abs() > most.abs() { v } else { most });
    let d = most / -8.0;
    let id = f64::from(inverse(d));
    out.extend(f16::from_f32(d).to_le_bytes());
    let code = |v: f32| ((f64::from(v) * id + 8.5) as f32).clamp(0.0, 15.0) as u8;
    out.extend((0..16).map(|i| code(block[i]) | code(block[i + 16]) << 4));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_half_a_step() {
        let values: Vec<f32> = (0..96).map(|i| libm::sinf(i as f32) * 0.05).collect();
        for (base, steps) in [(Base::Q8, 127.0), (Base::Q4, 8.0)] {
            let back = base.rounded(&values).unwrap();
            for (block, left) in values.chunks(32).zip(back.chunks(32)) {
                let step = block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / steps;
                // Half a step by rounding; at Q4's upper end a whole one is missing; the scale itself is a half.
                let most = if base == Base::Q4 { 1.0 } else { 0.5 } * step + 0.001 * 0.05;
                assert!(block.iter().zip(left).all(|(a, b)| (a - b).abs() <= most), "{base:?}");
            }
        }
        assert_eq!(Base::Q4.rounded(&[0.0; 32]).unwrap(), [0.0; 32]);
        assert_eq!(Base::Q8.quantise(&[0.0; 32]).unwrap(), [0; 34]);
        assert_eq!(Base::Q8.rounded(&[0.5; 40]).unwrap().len(), 32);
        assert!("q5".parse::<Base>().is_err() && "q4".parse() == Ok(Base::Q4));
    }
}
