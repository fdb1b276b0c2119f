//! Decoding: upright, on a background, whole pictures only, within a limit of memory.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use pentimento_runtime::{Error, Result};

use super::{MAX_SIDE, Picture, whole};

/// Memory for what comes before the pixels (colour profiles, which are compressed, and texts), in bytes.
const MAX_PROFILE: u64 = 16 << 20;

/// The upright picture on a background, and whether that shows anywhere; decoding takes at most `most` bytes.
pub(super) fn picture(place: &str, bytes: &[u8], background: [u8; 3], most: u64) -> Result<(Picture, bool)> {
    let bad = |found: String| {
        Error::bad(place, "a PNG, JPEG or WebP image", found).with_hint("Repair, convert or remove the file.")
    };
    let cut = || bad("one that is cut short".to_string());
    let unreadable = |e: ImageError| bad(format!("one that cannot be read: {e}"));
    // What follows a picture's end is nobody's business.
    let (format, jpeg, end) = match image::guess_format(bytes) {
        Ok(format @ ImageFormat::Jpeg) => {
            let jpeg = whole::jpeg(bytes).ok_or_else(cut)?;
            (format, Some(jpeg), jpeg.end + 2)
        }
        Ok(format @ ImageFormat::Png) => (format, None, whole::png(bytes).ok_or_else(cut)?),
        Ok(format @ ImageFormat::WebP) => (format, None, whole::webp(bytes).ok_or_else(cut)?),
        _ => return Err(bad("another kind of file".to_string())),
    };
    let bytes = bytes.get(..end).unwrap_or(bytes);
    let mut decoder = open(bytes, format).map_err(unreadable)?;
    let orientation = decoder.orientation().map_err(unreadable)?;
    let takes = takes(&decoder, orientation, format, jpeg.as_ref(), bytes);
    if takes > most {
        let (width, height) = decoder.dimensions();
        let expected = format!("an image whose decoding takes at most {} MiB", most >> 20);
        return Err(Error::bad(
            place,
            expected,
            format!("{width}x{height}, which takes {} MiB", takes >> 20),
        )
        .with_hint("Make it smaller."));
    }
    if let Some(jpeg) = jpeg {
        // Twice, the first time with more bits than there are: the same picture, unless bits were missing.
        let longer = whole::with_surplus(bytes, jpeg.end);
        let longer = open(&longer, format).and_then(DynamicImage::from_decoder).map_err(unreadable)?;
        let seen = digest(&longer);
        drop(longer);
        let image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
        return if digest(&image) == seen { upright(image, orientation, background) } else { Err(cut()) };
    }
    upright(DynamicImage::from_decoder(decoder).map_err(unreadable)?, orientation, background)
}

fn open(bytes: &[u8], format: ImageFormat) -> image::ImageResult<impl ImageDecoder + '_> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_PROFILE);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    decoder.set_limits(limits)?;
    Ok(decoder)
}

/// Memory that decoding takes at most, with what comes before and after it, in bytes.
fn takes(
    decoder: &impl ImageDecoder,
    orientation: Orientation,
    format: ImageFormat,
    jpeg: Option<&whole::Jpeg>,
    bytes: &[u8],
) -> u64 {
    let ((width, height), decoded) = (decoder.dimensions(), decoder.total_bytes());
    let pixels = u64::from(width) * u64::from(height);
    let decoding = match (jpeg, format) {
        (Some(jpeg), _) => cost_jpeg(pixels, decoded, jpeg, bytes.len() as u64),
        (None, ImageFormat::WebP) => cost_webp(pixels, decoded, bytes),
        _ => decoded,
    };
    let converted = match decoder.color_type() {
        ColorType::Rgb8 | ColorType::Rgba8 => 0,
        _ => 4 * pixels,
    };
    let turned = if orientation == Orientation::NoTransforms { 0 } else { 8 * pixels };
    MAX_PROFILE + decoding.max(decoded + converted).max(turned)
}

fn digest(image: &DynamicImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.as_bytes().hash(&mut hasher);
    hasher.finish()
}

/// Two decoders keep a copy of the file each, beside the longer one, and, for several scans, all coefficients in 16 bits.
fn cost_jpeg(pixels: u64, decoded: u64, jpeg: &whole::Jpeg, file: u64) -> u64 {
    let coefficients = if jpeg.several_scans { 2 * jpeg.components * pixels } else { 0 };
    coefficients + decoded + 3 * file
}

/// A lossy frame, an alpha channel and the canvas of an animation beside the pixels, a frame that turns out larger than the
/// picture, and the code tables of a lossless one, of which few bits make many.
fn cost_webp(pixels: u64, decoded: u64, bytes: &[u8]) -> u64 {
    const FRAME: u64 = 3 << 27; // 16383 x 16383 pixels of 12 bits
    const TABLES: u64 = 640 << 20; // 65536 groups of five
    let lossless = bytes.windows(4).take(1 << 10).any(|w| w == b"VP8L" || w == b"ALPH");
    let extended = bytes.get(12..16) == Some(b"VP8X");
    let tables = if lossless { TABLES.min(512 * bytes.len() as u64) } else { 0 };
    decoded + 9 * pixels + tables + if extended { FRAME } else { 0 }
}

/// Turns a picture upright and puts it on its background, in the memory that it has.
fn upright(image: DynamicImage, orientation: Orientation, background: [u8; 3]) -> Result<(Picture, bool)> {
    let mut image = match image.color().has_alpha() {
        true => DynamicImage::from(image.into_rgba8()),
        false => DynamicImage::from(image.into_rgb8()),
    };
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    let mut transparent = false;
    let rgb = match image {
        DynamicImage::ImageRgba8(image) => {
            let mut bytes = image.into_raw();
            let pixels = bytes.len() / 4;
            for i in 0..pixels {
                let [r, g, b, alpha] = [0, 1, 2, 3].map(|c| bytes[4 * i + c]);
                transparent |= alpha < 255;
                for (c, value) in [r, g, b].into_iter().enumerate() {
                    bytes[3 * i + c] = over(value, alpha, background[c]);
                }
            }
            bytes.truncate(3 * pixels);
            bytes
        }
        other => other.into_rgb8().into_raw(),
    };
    Ok((Picture::new(width, height, rgb)?, transparent))
}

/// `value * alpha + background * (1 - alpha)`, rounded, all in 0..=255.
fn over(value: u8, alpha: u8, background: u8) -> u8 {
    let [value, alpha, background] = [value, alpha, background].map(u32::from);
    ((value * alpha + background * (255 - alpha) + 127) / 255) as u8
}
