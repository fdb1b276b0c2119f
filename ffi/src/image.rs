//! Pixels in a program's memory.
use crate::guard::{Failure, Result, bytes, room};
use crate::types::{pmt_format, pmt_image};
use half::f16;
use pentimento_trainer::host::Picture;
use pentimento_trainer::images::{self, MAX_SIDE};
use std::mem::MaybeUninit;

/// A layout of pixels.
struct Layout {
    /// Bytes of a number, 1, 2 or 4, and numbers of a pixel.
    number: usize,
    channels: usize,
    blue_first: bool,
}

impl Layout {
    fn of(format: u32) -> Result<Self> {
        use pmt_format::*;
        let all = [Rgb8, Rgba8, Bgra8, Rgb16f, Rgba16f, Rgb32f, Rgba32f];
        let found = all.into_iter().find(|f| *f as u32 == format);
        let found = found
            .ok_or_else(|| Failure::argument("image.format", "one of pmt_format", format.to_string()))?;
        let (number, channels) = match found {
            Rgb8 => (1, 3),
            Rgba8 | Bgra8 => (1, 4),
            Rgb16f => (2, 3),
            Rgba16f => (2, 4),
            Rgb32f => (4, 3),
            Rgba32f => (4, 4),
        };
        Ok(Layout { number, channels, blue_first: found == Bgra8 })
    }
    fn pixel(&self) -> usize {
        self.number * self.channels
    }
    /// Where a channel stands in a pixel.
    fn place(&self, channel: usize) -> usize {
        if self.blue_first && channel < 3 { 2 - channel } else { channel }
    }
}

/// Bytes from row to row and of all.
fn measured(image: &pmt_image, layout: &Layout) -> Result<(usize, usize)> {
    if !(1..=MAX_SIDE).contains(&image.width) || !(1..=MAX_SIDE).contains(&image.height) {
        let found = format!("{} x {}", image.width, image.height);
        return Err(Failure::argument("image.width and height", &format!("1 to {MAX_SIDE} pixels"), found));
    }
    let row = image.width as usize * layout.pixel();
    let stride = if image.stride == 0 { row } else { image.stride };
    let all = stride.checked_mul(image.height as usize - 1).and_then(|n| n.checked_add(row));
    let Some(all) = all.filter(|_| stride >= row) else {
        return Err(Failure::argument("image.stride", &format!("at least {row} bytes"), stride.to_string()));
    };
    if image.bytes < all {
        return Err(Failure::argument("image.bytes", &format!("at least {all}"), image.bytes.to_string()));
    }
    Ok((stride, all))
}

/// Reads an image; where it has alpha it is laid over a background.
///
/// # Safety
/// Its `pixels` are NULL or readable for `bytes`.
pub unsafe fn read(image: &pmt_image, background: [u8; 3]) -> Result<images::Picture> {
    let layout = Layout::of(image.format)?;
    let (stride, all) = measured(image, &layout)?;
    // SAFETY: the caller's promise; no more than `bytes`.
    let bytes = unsafe { bytes(image.pixels.cast(), all, "image.pixels")? };
    let mut rgb = runtime::room::room(3 * image.width as usize * image.height as usize, "an image")?;
    for row in bytes.chunks(stride) {
        for pixel in row[..image.width as usize * layout.pixel()].chunks_exact(layout.pixel()) {
            let number =
                |channel: usize| value(&pixel[layout.place(channel) * layout.number..], layout.number);
            let alpha = if layout.channels == 4 { number(3) } else { 1.0 };
            for (channel, under) in background.into_iter().enumerate() {
                let over = number(channel) * alpha + f32::from(under) / 255.0 * (1.0 - alpha);
                rgb.push((over.clamp(0.0, 1.0) * 255.0).round() as u8);
            }
        }
    }
    images::Picture::new(image.width, image.height, rgb).map_err(Failure::Argument)
}

/// A number of 1, 2 or 4 bytes in 0 to 1; what is none is 0.
fn value(bytes: &[u8], size: usize) -> f32 {
    let v = match size {
        1 => f32::from(bytes[0]) / 255.0,
        2 => f16::from_ne_bytes([bytes[0], bytes[1]]).to_f32(),
        _ => f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
    };
    if v.is_nan() { 0.0 } else { v.clamp(0.0, 1.0) }
}

/// Writes a picture into an image of its size; padding between rows stays as it is.
///
/// # Safety
/// Its `pixels` are NULL or writable for `bytes`.
pub unsafe fn write(picture: &Picture, image: &pmt_image) -> Result<()> {
    let layout = Layout::of(image.format)?;
    let size = [image.width as usize, image.height as usize];
    if size != [picture.width, picture.height] {
        let expected = format!("{} x {}, as the picture has", picture.width, picture.height);
        return Err(Failure::argument(
            "image.width and height",
            &expected,
            format!("{} x {}", size[0], size[1]),
        ));
    }
    let (stride, all) = measured(image, &layout)?;
    if !picture.pixels.iter().all(|v| v.is_finite()) {
        return Err(runtime::Error::bad("image", "finite values", "others")
            .with_hint("Is the adapter damaged?")
            .into());
    }
    // SAFETY: the caller's promise; no more than `bytes`.
    let room = unsafe { room(image.pixels.cast(), all, "image.pixels")? };
    for (row, pixels) in room.chunks_mut(stride).zip(picture.pixels.chunks_exact(3 * picture.width)) {
        for (to, rgb) in row.chunks_exact_mut(layout.pixel()).zip(pixels.chunks_exact(3)) {
            for channel in 0..layout.channels {
                let v = rgb.get(channel).map_or(1.0, |v| v.clamp(0.0, 1.0));
                put(&mut to[layout.place(channel) * layout.number..], layout.number, v);
            }
        }
    }
    Ok(())
}

fn put(to: &mut [MaybeUninit<u8>], size: usize, v: f32) {
    let write = |to: &mut [MaybeUninit<u8>], bytes: &[u8]| {
        for (to, &byte) in to.iter_mut().zip(bytes) {
            to.write(byte);
        }
    };
    match size {
        1 => write(to, &[(v * 255.0).round() as u8]),
        2 => write(to, &f16::from_f32(v).to_ne_bytes()),
        _ => write(to, &v.to_ne_bytes()),
    }
}

/// A picture's bytes in a format, rows without padding.
pub fn packed(picture: &Picture, format: u32) -> Result<Vec<u8>> {
    let bytes = picture.width * picture.height * Layout::of(format)?.pixel();
    let mut all = vec![0; bytes];
    let (width, height) = (picture.width as u32, picture.height as u32);
    let pixels = all.as_mut_ptr().cast();
    let image = pmt_image { pixels, bytes, stride: 0, width, height, format, reserved: 0 };
    // SAFETY: as many bytes as it says.
    unsafe { write(picture, &image)? };
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn image(pixels: &mut [u8], format: pmt_format, stride: usize, [width, height]: [u32; 2]) -> pmt_image {
        let (bytes, format) = (pixels.len(), format as u32);
        pmt_image { pixels: pixels.as_mut_ptr().cast(), bytes, stride, width, height, format, reserved: 0 }
    }

    #[test]
    fn every_format_gives_back_what_was_written() {
        use pmt_format::*;
        let pixels: Vec<f32> = (0..2 * 3 * 3).map(|i| i as f32 / 17.0).collect();
        let picture = Picture { width: 2, height: 3, pixels: Arc::new(pixels.clone()) };
        for format in [Rgb8, Rgba8, Bgra8, Rgb16f, Rgba16f, Rgb32f, Rgba32f] {
            let pixel = Layout::of(format as u32).expect("a layout").pixel();
            let stride = 2 * pixel + 5;
            let mut buffer = vec![0xab_u8; stride * 2 + 2 * pixel];
            let image = image(&mut buffer, format, stride, [2, 3]);
            // SAFETY: the buffer is as long as it says.
            let back = unsafe {
                write(&picture, &image).expect("written");
                read(&image, [0; 3]).expect("read")
            };
            let expected: Vec<u8> = pixels.iter().map(|v| (v * 255.0).round() as u8).collect();
            assert_eq!(back.rgb(), expected, "{format:?}");
            assert_eq!(buffer[2 * pixel..stride], [0xab; 5], "{format:?}: padding");
        }
        let mut one = [0u8; 4];
        let blue = Picture { width: 1, height: 1, pixels: Arc::new(vec![0.0, 0.0, 1.0]) };
        // SAFETY: the buffer is as long as it says.
        unsafe { write(&blue, &image(&mut one, Bgra8, 0, [1, 1])).expect("written") };
        assert_eq!(one, [255, 0, 0, 255]);
        let mut half = [255, 0, 0, 128];
        // SAFETY: the buffer is as long as it says.
        let over = unsafe { read(&image(&mut half, Rgba8, 0, [1, 1]), [0, 0, 255]).expect("read") };
        assert_eq!(over.rgb(), [128, 0, 127]);
        let mut odd = f32::NAN.to_ne_bytes().repeat(3);
        // SAFETY: the buffer is as long as it says.
        let none = unsafe { read(&image(&mut odd, Rgb32f, 0, [1, 1]), [9; 3]).expect("read") };
        assert_eq!(none.rgb(), [0; 3], "no number");
    }

    #[test]
    fn lengths_are_checked_before_anything_is_touched() {
        let picture = Picture { width: 2, height: 2, pixels: Arc::new(vec![0.5; 12]) };
        let mut buffer = [7u8; 12];
        let good = image(&mut buffer, pmt_format::Rgb8, 0, [2, 2]);
        for (bad, part) in [
            (pmt_image { bytes: 11, ..good }, "image.bytes"),
            (pmt_image { stride: 5, ..good }, "image.stride"),
            (pmt_image { stride: usize::MAX, ..good }, "image.stride"),
            (pmt_image { width: 3, ..good }, "2 x 2"),
            (pmt_image { format: 99, ..good }, "pmt_format"),
            (pmt_image { pixels: std::ptr::null_mut(), ..good }, "image.pixels"),
        ] {
            // SAFETY: refused before it is used.
            let error = unsafe { write(&picture, &bad) }.expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        // SAFETY: refused before it is used.
        assert!(unsafe { read(&pmt_image { width: 0, ..good }, [0; 3]) }.is_err());
        assert_eq!(buffer, [7; 12]);
    }
}
