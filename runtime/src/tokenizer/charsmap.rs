//! SentencePiece's compiled normalisation table (`precompiled_charsmap`): a double-array trie from byte strings to
//! replacements. Papers: Aoe 1989 (double arrays); Kudo & Richardson 2018 (arXiv 1808.06226).
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use unicode_segmentation::UnicodeSegmentation;

use crate::{Error, Result};

/// The table.
#[derive(Debug, Clone)]
pub(super) struct Charsmap {
    /// Units of the double array, in the bit layout of `darts-clone`.
    units: Vec<u32>,
    /// Replacements, each ended by a zero.
    text: String,
}

/// A unit of the double array.
#[derive(Clone, Copy)]
struct Unit(u32);

impl Unit {
    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }
    /// Of a leaf: where its replacement begins.
    fn value(self) -> usize {
        (self.0 & 0x7FFF_FFFF) as usize
    }
    /// The byte that leads here; leaves have a bit beyond a byte.
    fn label(self) -> u32 {
        self.0 & 0x8000_00FF
    }
    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 0x200) >> 6)) as usize
    }
}

impl Charsmap {
    /// Reads the base64 text of `tokenizer.json`: the trie's length in bytes, the trie, the replacements.
    pub(super) fn new(place: &str, base64: &str) -> Result<Self> {
        let bad = |found: &str| Error::bad(place, "a precompiled character map", found);
        let bytes = decode_base64(base64).ok_or_else(|| bad("text that is not base64"))?;
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| bad("fewer than 4 bytes"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, text) = rest
            .split_at_checked(length)
            .filter(|_| length.is_multiple_of(4))
            .ok_or_else(|| bad(&format!("a trie of {length} bytes in {}", rest.len())))?;
        let units = trie.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let text = core::str::from_utf8(text).map_err(|_| bad("replacements that are not UTF-8"))?;
        Ok(Charsmap { units, text: text.into() })
    }

    /// Replaces what the table knows. As the `tokenizers` crate, which differs from SentencePiece here: a grapheme of
    /// fewer than 6 bytes is replaced whole when any beginning of it is known, others character by character.
    pub(super) fn apply(&self, text: &str, out: &mut String) {
        for grapheme in text.graphemes(true) {
            if let Some(replacement) = self.find(grapheme).filter(|_| grapheme.len() < 6) {
                out.push_str(replacement);
                continue;
            }
            for (at, c) in grapheme.char_indices() {
                match self.find(&grapheme[at..at + c.len_utf8()]) {
                    Some(replacement) => out.push_str(replacement),
                    None => out.push(c),
                }
            }
        }
    }

    /// The replacement of the shortest beginning of `text` that has one.
    fn find(&self, text: &str) -> Option<&str> {
        let unit = |at: usize| self.units.get(at).map(|&unit| Unit(unit));
        let mut at = unit(0)?.offset();
        for &byte in text.as_bytes() {
            if byte == 0 {
                return None;
            }
            at ^= usize::from(byte);
            let here = unit(at).filter(|unit| unit.label() == u32::from(byte))?;
            at ^= here.offset();
            if here.has_leaf() {
                let tail = self.text.get(unit(at)?.value()..)?;
                return Some(tail.split('\0').next().unwrap_or(tail));
            }
        }
        None
    }
}

/// Standard base64 with padding; `None` when it is not.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let sextet = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let body = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in body.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (i, &c) in group.iter().enumerate() {
            bits |= u32::from(sextet(c)?) << (18 - 6 * i);
        }
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(bytes.get(1..group.len())?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn base64_is_rfc_4648() {
        let pairs: [(&str, &[u8]); 6] = [
            ("", b""),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmE=", b"fooba"),
            ("+/8=", b"\xFB\xFF"),
        ];
        for (text, bytes) in pairs {
            assert_eq!(decode_base64(text).unwrap(), bytes, "{text}");
        }
        for text in ["Zg", "Zg=", "Z===", "====", "Zm9v!", "Zm 9", "Zg==Zg=="] {
            assert!(decode_base64(text).is_none(), "{text}");
        }
    }

    /// A table by hand that maps `a` to `bc`: the root at 0 leads over `a` to a unit whose leaf holds 0.
    fn table() -> Charsmap {
        let mut units = vec![0u32; 256];
        let root = 1 << 10; // offset 1
        units[0] = root;
        let node = 1 ^ usize::from(b'a');
        units[node] = u32::from(b'a') | 1 << 8 | (1 << 10);
        units[node ^ 1] = 1 << 31;
        Charsmap { units, text: "bc\0".into() }
    }

    #[test]
    fn replaces_what_it_knows() {
        let mut out = String::new();
        table().apply("xaay", &mut out);
        assert_eq!(out, "xbcbcy");
        out.clear();
        table().apply("a\u{301}", &mut out);
        assert_eq!(out, "bc", "a short grapheme goes whole");
        out.clear();
        table().apply("a\u{301}\u{302}\u{303}", &mut out);
        assert_eq!(out, "bc\u{301}\u{302}\u{303}");
    }

    #[test]
    fn damaged_tables_are_refused_or_harmless() {
        for text in ["!", "AAAA", "/////w==", "AQAAAAA="] {
            let error = format!("{}", Charsmap::new("t", text).unwrap_err());
            assert!(error.starts_with("t: expected a precompiled character map"), "{error}");
        }
        let mut wild = table();
        for unit in [u32::MAX, 0x7FFF_FFFF, 1 << 8 | 0x61, 0x200 | 0x61] {
            wild.units.iter_mut().for_each(|u| *u = unit);
            let mut out = String::new();
            wild.apply("aaé\u{0}日本", &mut out);
        }
        wild.units.clear();
        let mut out = String::new();
        wild.apply("a", &mut out);
        assert_eq!(out, "a");
    }
}
