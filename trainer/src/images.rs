//! 8-bit RGB pictures: decoding with limits, resizing, contact sheets, PNG.
use std::path::Path;

use pentimento_runtime::{Error, Result, file};

use crate::files::write_atomically;
pub use crate::resize::Filter;
use crate::resize::resize;

mod decode;
mod encode;
mod sheet;
mod whole;

pub use sheet::{COLUMNS, GAP, cells, contact_sheet};

/// Largest accepted width and height, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Largest file of an image that is read, in bytes.
pub const MAX_FILE: u64 = 256 << 20;
/// Largest amount of memory that decoding an image takes beside its file, in bytes.
pub const MAX_DECODED: u64 = 1 << 30;

const WHITE: [u8; 3] = [255; 3];

/// An RGB image, 8 bits per channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl Picture {
    /// From `height * width * 3` bytes in rows of RGB pixels.
    ///
    /// # Errors
    /// A side that is 0 or above [`MAX_SIDE`]; another number of bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let bytes = byte_count(width, height)?;
        if rgb.len() != bytes {
            return Err(Error::bad(
                format!("{width}x{height} image"),
                format!("{bytes} bytes"),
                rgb.len().to_string(),
            ));
        }
        Ok(Picture { width, height, rgb })
    }

    /// From `height * width * 3` values in [0, 1] (H x W x C), rounded; values outside are clamped, NaN becomes 0.
    ///
    /// # Errors
    /// As [`Picture::new`].
    pub fn from_unit(width: u32, height: u32, pixels: &[f32]) -> Result<Self> {
        let rgb = pixels.iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8);
        Self::new(width, height, rgb.collect())
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes, in rows of RGB pixels.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// All values divided by 255: H x W x 3 in [0, 1].
    pub fn to_unit(&self) -> Vec<f32> {
        self.rgb.iter().map(|&v| f32::from(v) / 255.0).collect()
    }

    /// Reads a PNG, JPEG or WebP file: turned upright by its EXIF orientation, transparency composited on white.
    ///
    /// # Errors
    /// A file that is missing, of another kind (judged by content, not by name), damaged, cut short, or beyond [`MAX_FILE`],
    /// [`MAX_SIDE`] or [`MAX_DECODED`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::open_on(path, WHITE)?.0)
    }

    /// As [`Picture::open`], on a background of any colour; and whether the background shows anywhere.
    ///
    /// # Errors
    /// As [`Picture::open`].
    pub fn open_on(path: &Path, background: [u8; 3]) -> Result<(Self, bool)> {
        decode::picture(&path.display().to_string(), &file::read(path, MAX_FILE)?, background, MAX_DECODED)
    }

    /// As [`Picture::open`], from a file's bytes; `label` names them in errors.
    ///
    /// # Errors
    /// As [`Picture::open`].
    pub fn decode(label: &str, bytes: &[u8]) -> Result<Self> {
        Self::decode_within(label, bytes, MAX_DECODED)
    }

    /// As [`Picture::decode`], taking at most `most` bytes of memory beside the file instead of [`MAX_DECODED`].
    ///
    /// # Errors
    /// As [`Picture::open`].
    pub fn decode_within(label: &str, bytes: &[u8], most: u64) -> Result<Self> {
        Ok(decode::picture(label, bytes, WHITE, most)?.0)
    }

    /// Squashed or stretched to exactly `width` x `height`, without cropping; the same bytes as PIL gives.
    ///
    /// # Errors
    /// A side that is 0 or above [`MAX_SIDE`].
    pub fn resized(&self, width: u32, height: u32, filter: Filter) -> Result<Self> {
        byte_count(width, height)?;
        let size = |w: u32, h: u32| (w as usize, h as usize);
        let rgb = resize(&self.rgb, size(self.width, self.height), size(width, height), filter);
        Self::new(width, height, rgb)
    }

    /// The middle `size`, width and height; offsets are rounded down.
    ///
    /// # Errors
    /// A side that is 0 or beyond the picture's.
    pub fn centre(&self, [width, height]: [u32; 2]) -> Result<Self> {
        if width > self.width || height > self.height {
            let found = format!("{}x{}", self.width, self.height);
            return Err(Error::bad("centre crop", format!("at least {width}x{height} pixels"), found));
        }
        let (left, top) = ((self.width - width) as usize / 2, (self.height - height) as usize / 2);
        let row = self.width.max(1) as usize * 3;
        let rows = self.rgb.chunks_exact(row).skip(top).take(height as usize);
        let rgb = rows.flat_map(|r| r.iter().skip(left * 3).take(width as usize * 3).copied());
        Self::new(width, height, rgb.collect())
    }

    /// In the middle of a canvas of `size`, width and height; offsets are rounded down.
    ///
    /// # Errors
    /// A canvas that is smaller than the picture or beyond [`MAX_SIDE`].
    pub fn on_canvas(&self, [width, height]: [u32; 2], colour: [u8; 3]) -> Result<Self> {
        let bytes = byte_count(width, height)?;
        if width < self.width || height < self.height {
            let expected = format!("at least {}x{} pixels", self.width, self.height);
            return Err(Error::bad("canvas", expected, format!("{width}x{height}")));
        }
        let (left, top) = ((width - self.width) as usize / 2, (height - self.height) as usize / 2);
        let mut rgb: Vec<u8> = colour.iter().copied().cycle().take(bytes).collect();
        let targets = rgb.chunks_exact_mut(width as usize * 3).skip(top);
        for (row, target) in self.rgb.chunks_exact(self.width as usize * 3).zip(targets) {
            target[left * 3..][..row.len()].copy_from_slice(row);
        }
        Self::new(width, height, rgb)
    }
}

/// Bytes of a `width` x `height` RGB image, if it is within the limits.
fn byte_count(width: u32, height: u32) -> Result<usize> {
    let side = 1..=MAX_SIDE;
    if side.contains(&width) && side.contains(&height) {
        return Ok(width as usize * height as usize * 3); // at most 805 million: fits 32 bits
    }
    Err(Error::bad("image", format!("sides of 1 to {MAX_SIDE} pixels"), format!("{width}x{height}")))
}

/// Writes a PNG file, atomically. `rgb` holds `h * w * 3` bytes in rows of RGB pixels.
///
/// # Errors
/// As [`Picture::new`] and [`write_atomically`].
pub fn encode_png(path: &Path, w: u32, h: u32, rgb: &[u8]) -> Result<()> {
    write_atomically(path, &Picture::new(w, h, rgb.to_vec())?.to_png()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    fn message<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    fn plain(w: u32, h: u32, value: u8) -> Picture {
        Picture::new(w, h, vec![value; (w * h * 3) as usize]).unwrap()
    }

    /// PNG bytes of raw samples in any colour type.
    fn png(w: u32, h: u32, data: &[u8], color: ExtendedColorType) -> Vec<u8> {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(data, w, h, color).unwrap();
        bytes
    }

    #[test]
    fn png_round_trip_is_exact() {
        let s = Scratch::new("png");
        let rgb: Vec<u8> = (0..5 * 3 * 3).map(|i| (i * 7) as u8).collect();
        let path = s.0.join("a.png");
        encode_png(&path, 5, 3, &rgb).unwrap();
        let read = Picture::open(&path).unwrap();
        assert_eq!((read.width(), read.height(), read.rgb()), (5, 3, &rgb[..]));
        assert_eq!(Picture::from_unit(5, 3, &read.to_unit()).unwrap(), read);
        assert!(message(encode_png(&s.0.join("no/a.png"), 5, 3, &rgb)).contains("missing the folder"));
        assert!(message(encode_png(&path, 5, 4, &rgb)).contains("60 bytes, found 45"));
    }

    #[test]
    fn alpha_is_composited_on_white() {
        let rgba = [10, 20, 30, 255, 10, 20, 30, 0, 0, 0, 0, 128];
        let picture = Picture::decode("a", &png(3, 1, &rgba, ExtendedColorType::Rgba8)).unwrap();
        assert_eq!(picture.rgb(), [10, 20, 30, 255, 255, 255, 127, 127, 127]);
        let grey = Picture::decode("a", &png(2, 1, &[7, 200], ExtendedColorType::L8)).unwrap();
        assert_eq!(grey.rgb(), [7, 7, 7, 200, 200, 200]);
    }

    #[test]
    fn backgrounds_show_where_a_file_says_so() {
        let s = Scratch::new("background");
        let open = |bytes: &[u8]| {
            let path = s.write("a.png", bytes);
            let (picture, transparent) = Picture::open_on(&path, [0, 100, 255]).unwrap();
            (picture.rgb().to_vec(), transparent)
        };
        let rgba = [10, 20, 30, 0, 0, 200, 255, 128];
        let (rgb, transparent) = open(&png(2, 1, &rgba, ExtendedColorType::Rgba8));
        assert_eq!((rgb, transparent), (vec![0, 100, 255, 0, 150, 255], true));
        let opaque = [10, 20, 30, 255];
        assert_eq!(open(&png(1, 1, &opaque, ExtendedColorType::Rgba8)), (vec![10, 20, 30], false));
        // Three colours of a palette, the second of them transparent.
        let hex = "89504e470d0a1a0a0000000d49484452000000030000000108030000002c3ee48600000009504c5445c800000064000a\
             141e35f8f6fd0000000274524e53ff00e5b7304a0000000c49444154789c6360606402000008000436e0b0a600000000\
             49454e44ae426082";
        let byte = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let palette: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        assert_eq!(open(&palette), (vec![200, 0, 0, 0, 100, 255, 10, 20, 30], true));
    }

    #[test]
    fn exif_orientation_turns_upright() {
        use image::codecs::jpeg::JpegEncoder;
        let (mut jpeg, mut rgb) = (Vec::new(), vec![250; 16 * 8 * 3]);
        rgb.chunks_exact_mut(16 * 3).for_each(|row| row[..8 * 3].fill(5)); // the left half dark
        JpegEncoder::new_with_quality(&mut jpeg, 100)
            .write_image(&rgb, 16, 8, ExtendedColorType::Rgb8)
            .unwrap();
        // Exif, big-endian: one entry, orientation (0x0112), a short, 6: turn by 90 degrees to the right.
        let tag = b"\xff\xe1\0\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        jpeg.splice(2..2, tag.iter().copied());
        let picture = Picture::decode("a", &jpeg).unwrap();
        assert_eq!((picture.width(), picture.height()), (8, 16));
        assert!(picture.rgb()[0] < 50 && picture.rgb()[15 * 8 * 3] > 200, "the left half is the upper one");
    }

    #[test]
    fn centres_and_canvases_round_down() {
        let row = Picture::new(4, 1, (0..4).flat_map(|x| [x; 3]).collect()).unwrap();
        assert_eq!(row.centre([1, 1]).unwrap().rgb(), [1; 3]);
        let canvas = row.centre([2, 1]).unwrap().on_canvas([3, 2], [7; 3]).unwrap();
        assert_eq!(canvas.rgb().iter().step_by(3).copied().collect::<Vec<u8>>(), [1, 2, 7, 7, 7, 7]);
        assert!(message(row.centre([1, 2])).contains("at least 1x2 pixels, found 4x1"));
        assert!(message(row.centre([0, 1])).contains("sides of 1 to"));
        assert!(message(row.on_canvas([3, 9], [0; 3])).contains("at least 4x1 pixels, found 3x9"));
        assert!(message(row.on_canvas([u32::MAX, 1], [0; 3])).contains("sides of 1 to"));
    }

    #[test]
    fn other_formats_decode() {
        use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
        let rgb = plain(8, 8, 90);
        let (mut jpeg, mut webp) = (Vec::new(), Vec::new());
        JpegEncoder::new(&mut jpeg).write_image(rgb.rgb(), 8, 8, ExtendedColorType::Rgb8).unwrap();
        WebPEncoder::new_lossless(&mut webp).write_image(rgb.rgb(), 8, 8, ExtendedColorType::Rgb8).unwrap();
        assert_eq!(Picture::decode("w", &webp).unwrap(), rgb);
        assert!(Picture::decode("j", &jpeg).unwrap().rgb().iter().all(|v| v.abs_diff(90) <= 2));
    }

    #[test]
    fn unreadable_images_are_sentences() {
        let whole = png(9, 9, plain(9, 9, 5).rgb(), ExtendedColorType::Rgb8);
        for bytes in [&b""[..], b"hello", b"GIF89a\x01\0\x01\0", &whole[..20], &whole[..whole.len() / 2]] {
            let text = message(Picture::decode("x.png", bytes));
            assert!(text.starts_with("x.png: expected a PNG, JPEG or WebP image, found"), "{text}");
        }
        let mut huge = whole.clone();
        huge[16..20].copy_from_slice(&20_000u32.to_be_bytes()); // IHDR width; the checksum is wrong too
        assert!(message(Picture::decode("x.png", &huge)).starts_with("x.png: expected"));
        assert!(message(Picture::open(Path::new("/no/such.png"))).contains("cannot read"));
    }

    #[test]
    fn sizes_are_limited() {
        for (w, h) in [(0, 1), (1, 0), (MAX_SIDE + 1, 1), (u32::MAX, u32::MAX)] {
            assert!(message(Picture::new(w, h, vec![])).contains("sides of 1 to 16384"));
            assert!(plain(2, 2, 0).resized(w, h, Filter::Bilinear).is_err());
        }
        let rgb = Picture::from_unit(1, 1, &[f32::NAN, -1.0, 2.0]).unwrap();
        assert_eq!(rgb.rgb(), [0, 0, 255]);
    }

    #[test]
    fn a_contact_sheet_has_gaps() {
        let images = [plain(2, 1, 1), plain(2, 1, 2), plain(2, 1, 3)];
        let sheet = contact_sheet(&images, 2, 1).unwrap();
        assert_eq!((sheet.width(), sheet.height()), (7, 5));
        let red: Vec<u8> = sheet.rgb().iter().step_by(3).copied().collect();
        assert_eq!(red[7..14], [255, 1, 1, 255, 2, 2, 255]);
        assert_eq!(red[21..28], [255, 3, 3, 255, 255, 255, 255]);
        assert_eq!(contact_sheet(&images, 9, 0).unwrap().width(), 6, "no empty columns");
        assert!(contact_sheet(&[], 2, 1).is_err() && contact_sheet(&images, 0, 1).is_err());
        assert!(message(contact_sheet(&[plain(2, 1, 1), plain(1, 2, 1)], 2, 1)).contains("images of 2x1"));
        assert!(contact_sheet(&images, 2, u32::MAX).is_err());
        assert_eq!(cells(&sheet, [2, 1], 1, 9).unwrap(), images);
        assert_eq!(cells(&sheet, [2, 1], 1, 2).unwrap(), images[..2]);
        for (size, gap) in
            [([3, 1], 1), ([2, 2], 1), ([0, 1], 1), ([2, 1], 0), ([2, u32::MAX], 1), ([2, 1], u32::MAX)]
        {
            assert!(message(cells(&sheet, size, gap, 9)).contains("found 7x5"), "{size:?} {gap}");
        }
    }
}
