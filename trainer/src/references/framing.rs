//! How a picture of any shape becomes one of the training's.
use core::fmt;
use core::str::FromStr;

use pentimento_runtime::{Error, Result};

use super::Reference;
use crate::images::{Filter, Picture};
use crate::settings::field::ANY;
use crate::settings::part::settings;

/// What happens to a picture of another shape than the training's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fit {
    /// The centre is cut out, as large as it fits, and resized.
    #[default]
    Cover,
    /// All of it is resized until it fits; the background fills the rest.
    Pad,
    /// Width and height are resized each for itself, as the released code does.
    Squash,
}

/// A colour, 8 bits a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Colour {
    /// White.
    pub const WHITE: Colour = Colour([255; 3]);
}

impl Default for Colour {
    fn default() -> Self {
        Colour::WHITE
    }
}

impl FromStr for Colour {
    type Err = Error;

    /// Six hexadecimal digits, red first, with or without `#`.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        let plain = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u32::from_str_radix(digits, 16).ok().filter(|_| plain);
        number.map(|n| Colour([(n >> 16) as u8, (n >> 8) as u8, n as u8])).ok_or_else(|| {
            Error::bad("background", "a colour in six hexadecimal digits, RRGGBB", format!("`{text}`"))
        })
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.0;
        if *self == Colour::WHITE { f.write_str("white") } else { write!(f, "#{r:02x}{g:02x}{b:02x}") }
    }
}

settings! {
    /// How references are brought to the training's shape.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Framing in "" {
        /// What happens to references of another shape than the training's: the centre is cut out (`cover`), all is kept on the background
        /// (`pad`), or width and height are resized each for itself (`squash`, as released).
        fit: Fit = Fit::Cover, ANY;
        /// Colour behind transparent references and around padded ones.
        background: Colour = Colour::WHITE, ANY;
    }
}

impl Framing {
    /// The picture at `width` x `height`, resized with PIL's bilinear filter.
    ///
    /// # Errors
    /// A size that [`Picture::resized`] refuses.
    pub fn apply(&self, picture: &Picture, width: u32, height: u32) -> Result<Picture> {
        let (from, to) = ([picture.width(), picture.height()], [width, height]);
        match self.fit {
            Fit::Squash => picture.resized(width, height, Filter::Bilinear),
            Fit::Cover => picture.centre(largest(to, from))?.resized(width, height, Filter::Bilinear),
            Fit::Pad => {
                let [w, h] = largest(from, to);
                picture.resized(w, h, Filter::Bilinear)?.on_canvas(to, self.background.0)
            }
        }
    }
}

/// The largest size with the shape of `shape` that fits into `room`, rounded and at least 1 x 1.
fn largest(shape: [u32; 2], room: [u32; 2]) -> [u32; 2] {
    let ([w, h], [room_w, room_h]) = (shape.map(u64::from), room.map(u64::from));
    // side * part / whole, rounded.
    let share = |side: u64, part: u64, whole: u64| (side * part + whole / 2) / whole.max(1);
    let [w, h] = if w * room_h >= h * room_w {
        [room_w, share(room_w, h, w).clamp(1, room_h.max(1))]
    } else {
        [share(room_h, w, h).clamp(1, room_w.max(1)), room_h]
    };
    [w as u32, h as u32] // no larger than `room`
}

/// One line: how many references there are, how many of another shape than `width` x `height` and what was done to
/// them, how many transparent ones.
pub fn summary(references: &[Reference], framing: &Framing, width: u32, height: u32) -> String {
    let [w, h] = [width, height].map(u64::from);
    // Larger for wider pictures; compared as fractions.
    let across = |r: &Reference| (u64::from(r.size[0]) * h, u64::from(r.size[1]) * w);
    let extreme = |r: &Reference| {
        let (a, b) = across(r);
        a.max(b) as f64 / a.min(b).max(1) as f64
    };
    let other = || references.iter().filter(|r| across(r).0 != across(r).1);
    let mut parts = Vec::new();
    if let Some(most) = other().max_by(|a, b| extreme(a).total_cmp(&extreme(b))) {
        let what = match framing.fit {
            Fit::Cover => "cropped to cover".to_string(),
            Fit::Pad => format!("padded with {}", framing.background),
            Fit::Squash => "squashed".to_string(),
        };
        let (a, b) = across(most);
        let name = if a > b { "widest" } else { "tallest" };
        parts.push(format!("{} {what} (the {name} {}x{})", other().count(), most.size[0], most.size[1]));
    }
    let transparent = references.iter().filter(|r| r.transparent).count();
    if transparent > 0 {
        parts.push(format!("{transparent} transparent on {}", framing.background));
    }
    let plural = if references.len() == 1 { "" } else { "s" };
    let done = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{} reference{plural}{done}", references.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red says the column, green the row.
    fn picture(w: u32, h: u32) -> Picture {
        let rgb = (0..h).flat_map(|y| (0..w).flat_map(move |x| [x as u8, y as u8, 0]));
        Picture::new(w, h, rgb.collect()).unwrap()
    }
    fn framed(fit: Fit, w: u32, h: u32, to: [u32; 2]) -> Vec<[u8; 2]> {
        let framing = Framing { fit, background: Colour([9, 8, 7]) };
        let out = framing.apply(&picture(w, h), to[0], to[1]).unwrap();
        assert_eq!([out.width(), out.height()], to);
        out.rgb().chunks_exact(3).map(|p| [p[0], p[1]]).collect()
    }

    #[test]
    fn covering_keeps_the_centre() {
        assert_eq!(framed(Fit::Cover, 5, 2, [2, 2]), [[1, 0], [2, 0], [1, 1], [2, 1]]);
        assert_eq!(framed(Fit::Cover, 2, 6, [2, 2]), [[0, 2], [1, 2], [0, 3], [1, 3]]);
        assert_eq!(framed(Fit::Cover, 8, 4, [4, 2]), framed(Fit::Squash, 8, 4, [4, 2]));
        assert_eq!(framed(Fit::Cover, 1, 201, [3, 3]), [[0, 100]; 9]);
        assert_eq!(framed(Fit::Cover, 201, 1, [3, 3]), [[100, 0]; 9]);
    }

    #[test]
    fn padding_keeps_all_of_it() {
        let (edge, dot) = ([9, 8], [0, 0]);
        assert_eq!(framed(Fit::Pad, 2, 1, [2, 3]), [edge, edge, [0, 0], [1, 0], edge, edge]);
        assert_eq!(framed(Fit::Pad, 1, 2, [3, 2]), [edge, dot, edge, edge, [0, 1], edge]);
        assert_eq!(framed(Fit::Pad, 4, 4, [2, 2]), framed(Fit::Squash, 4, 4, [2, 2]));
        let line = framed(Fit::Pad, 1, 200, [5, 5]);
        assert_eq!(line.iter().filter(|p| **p == edge).count(), 20, "one column is left of a line");
        assert_eq!(framed(Fit::Pad, crate::images::MAX_SIDE, 1, [3, 3])[..3], [edge; 3]);
    }

    #[test]
    fn squashing_keeps_neither_shape_nor_edge() {
        assert_eq!(framed(Fit::Squash, 4, 1, [2, 1]), framed(Fit::Squash, 4, 1, [2, 2])[..2]);
        for fit in [Fit::Cover, Fit::Pad, Fit::Squash] {
            let framing = Framing { fit, ..Framing::default() };
            let error = framing.apply(&picture(3, 2), 0, 4).unwrap_err().to_string();
            assert!(error.contains("sides of 1 to"), "{fit:?}: {error}");
        }
    }

    #[test]
    fn colours_are_read() {
        assert_eq!(Framing::default(), Framing { fit: Fit::Cover, background: Colour([255; 3]) });
        assert_eq!("00fF7a".parse::<Colour>().unwrap(), Colour([0, 255, 122]));
        assert_eq!("#010203".parse::<Colour>().unwrap().to_string(), "#010203");
        assert_eq!(Colour::default().to_string(), "white");
        for bad in ["", "#", "fff", "ffffff0", "+fffff", "gggggg", "##fffff", "white", "ääˈ"] {
            let error = bad.parse::<Colour>().unwrap_err().to_string();
            assert!(error.starts_with("background: expected a colour in six"), "{bad}: {error}");
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[test]
    fn a_run_says_what_was_done() {
        let of = |w, h, transparent| Reference {
            name: "x".into(),
            caption: None,
            pixels: Vec::new(),
            size: [w, h],
            transparent,
        };
        let some = [of(64, 64, true), of(512, 200, false), of(90, 100, true), of(7, 7, false)];
        let mut framing = Framing::default();
        assert_eq!(
            summary(&some, &framing, 64, 64),
            "4 references: 2 cropped to cover (the widest 512x200), 2 transparent on white"
        );
        framing = Framing { fit: Fit::Pad, background: Colour([0, 16, 255]) };
        assert_eq!(
            summary(&some[2..3], &framing, 64, 64),
            "1 reference: 1 padded with #0010ff (the tallest 90x100), 1 transparent on #0010ff"
        );
        framing.fit = Fit::Squash;
        assert_eq!(summary(&some[3..], &framing, 8, 16), "1 reference: 1 squashed (the widest 7x7)");
        assert_eq!(summary(&some[3..], &framing, 8, 8), "1 reference");
    }
}
