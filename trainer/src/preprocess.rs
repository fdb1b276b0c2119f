//! How the released code brings images to the networks that judge them. It has several ways, and they differ:
//!
//! | input | way | where |
//! | --- | --- | --- |
//! | images in the DINO reward | floats, torch's bicubic, nothing clamped | on the device: `dino::preprocess` |
//! | images in the head's training | cut to 8 bits, PIL's bicubic | [`head_pixels`] of [`head_picture`] |
//! | references, before either | PIL's bilinear to 512 x 512, whatever their shape | [`reference()`] |
//! | images in PickScore | rounded to 8 bits, PIL's bicubic on the shorter side, centre crop | [`clip_pixels`] |
use crate::images::{Filter, Picture};
use pentimento_runtime::Result;
use pentimento_runtime::model::dino::Pixels;

/// Side of a reference after [`reference()`], pixels.
pub const REFERENCE_SIDE: u32 = 512;

/// A reference as the released loader gives it to the reward: squashed to [`REFERENCE_SIDE`] squared.
///
/// # Errors
/// As [`Picture::resized`].
pub fn reference(picture: &Picture) -> Result<Picture> {
    picture.resized(REFERENCE_SIDE, REFERENCE_SIDE, Filter::Bilinear)
}

/// A pixel in -1 to 1 as a byte: clamped and cut off, not rounded.
pub fn truncated(signed: f32) -> u8 {
    ((signed * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0) as u8
}

/// An image in 0 to 1, `[H, W, 3]`, as the 8-bit picture that the head is trained on. It goes to -1 to 1 and back in
/// f32 before it is cut off, so that even an 8-bit image may lose one level.
///
/// # Errors
/// As [`Picture::new`].
pub fn head_picture(width: u32, height: u32, image01: &[f32]) -> Result<Picture> {
    let bytes = image01.iter().map(|&v| truncated((v - 0.5) * 2.0));
    Picture::new(width, height, bytes.collect())
}

/// Encoder input of the head's training: `side` squared by PIL's bicubic, then [`normalised`]. `[side, side, 3]`.
///
/// # Errors
/// As [`Picture::resized`].
pub fn head_pixels(picture: &Picture, side: u32, pixels: &Pixels) -> Result<Vec<f32>> {
    Ok(normalised(&picture.resized(side, side, Filter::Bicubic)?, pixels))
}

/// Encoder input of PickScore, as CLIP's processor makes it: the shorter side becomes `side` (PIL's bicubic), then the
/// middle is cut out, offsets rounded down. `[side, side, 3]`.
///
/// # Errors
/// As [`Picture::resized`].
pub fn clip_pixels(picture: &Picture, side: u32, pixels: &Pixels) -> Result<Vec<f32>> {
    let (w, h) = (picture.width(), picture.height());
    let long = u64::from(side) * u64::from(w.max(h)) / u64::from(w.min(h).max(1));
    let long = u32::try_from(long).unwrap_or(u32::MAX);
    let (w, h) = if w <= h { (side, long) } else { (long, side) };
    let resized = picture.resized(w, h, Filter::Bicubic)?;
    Ok(normalised(&resized.centre([side, side])?, pixels))
}

/// `(v / 255 - mean) / std` per channel. `[H, W, 3]`.
pub fn normalised(picture: &Picture, pixels: &Pixels) -> Vec<f32> {
    let channel = |(i, v): (usize, f32)| (v - pixels.mean[i % 3]) / pixels.std[i % 3];
    picture.to_unit().into_iter().enumerate().map(channel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_cut_off() {
        assert_eq!([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0].map(truncated), [0, 0, 127, 254, 255, 255]);
        assert_eq!(truncated(f32::NAN), 0);
    }

    #[test]
    fn crops_are_central_and_rounded_down() {
        let rgb: Vec<u8> = (0..4).flat_map(|x| [x; 3]).collect();
        let wide = Picture::new(4, 1, rgb).unwrap();
        assert_eq!(wide.centre([1, 1]).unwrap().rgb(), [1; 3]);
        assert!(wide.centre([2, 2]).is_err());
        let pixels = Pixels { mean: [0.0; 3], std: [1.0; 3] };
        assert_eq!(clip_pixels(&wide, 1, &pixels).unwrap(), [1.0 / 255.0; 3]);
    }
}
