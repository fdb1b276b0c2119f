//! Pictures inside the page, all of them within a size.
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pentimento_trainer::images::{Filter, Picture};

/// Most bytes of all pictures, as they stand in the page.
const MOST: usize = 10 << 20;
/// Pictures of at most so many pixels are PNG, larger ones JPEG.
const SMALL: u32 = 128 * 128;
const QUALITY: u8 = 85;

/// Embeds pictures while there is room.
#[derive(Default)]
pub struct Album {
    bytes: usize,
    /// Pictures for which there was none.
    pub left_out: usize,
    /// Sides of the largest picture that is shown smaller, before and after.
    pub reduced: Option<(u32, u32)>,
}

impl Album {
    /// A picture's address, its longer side at most `side` pixels; `None` where the page is full.
    pub fn embed(&mut self, picture: &Picture, side: u32) -> Option<String> {
        let made = self.encoded(picture, side).filter(|uri| self.bytes + uri.len() <= MOST);
        match &made {
            Some(uri) => self.bytes += uri.len(),
            None => self.left_out += 1,
        }
        made
    }
    fn encoded(&mut self, picture: &Picture, side: u32) -> Option<String> {
        let [w, h] = [picture.width(), picture.height()];
        let [width, height] = within([w, h], side);
        let smaller = if [width, height] == [w, h] {
            picture.clone()
        } else {
            let whole = (w.max(h), width.max(height));
            self.reduced = self.reduced.max(Some(whole));
            picture.resized(width, height, Filter::Bilinear).ok()?
        };
        let png = width * height <= SMALL;
        let (kind, bytes) =
            if png { ("png", smaller.to_png().ok()?) } else { ("jpeg", smaller.to_jpeg(QUALITY).ok()?) };
        Some(format!("data:image/{kind};base64,{}", STANDARD.encode(bytes)))
    }
}

/// A size of the same shape whose longer side is at most `side`.
pub fn within([w, h]: [u32; 2], side: u32) -> [u32; 2] {
    let long = w.max(h).max(1);
    let fit = |n: u32| (u64::from(n) * u64::from(side) / u64::from(long)).clamp(1, u64::from(side)) as u32;
    if long <= side { [w, h] } else { [fit(w), fit(h)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stays_within_its_size() {
        let noise: Vec<u8> =
            (0..512 * 512 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let picture = Picture::new(512, 512, noise).expect("a picture");
        let mut album = Album { bytes: MOST - (1 << 20), ..Album::default() };
        let fit = (0..6).filter_map(|_| album.embed(&picture, 500)).count();
        assert!(album.bytes <= MOST && fit + album.left_out == 6 && fit > 0 && album.left_out > 0);
        assert_eq!(album.reduced, Some((512, 500)));
        assert_eq!(
            (within([100, 10], 50), within([3, 3], 50), within([16384, 1], 64)),
            ([50, 5], [3, 3], [64, 1])
        );
    }
}
