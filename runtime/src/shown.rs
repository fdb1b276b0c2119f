//! Text from outside (names of tensors and files, prompts, the contents of settings) as it may be shown: short, on one line,
//! and without anything a terminal or a log would act on.
use core::fmt::{self, Write};

/// Most characters of a text that are shown unless told otherwise.
pub const MOST: usize = 200;

/// [`Shown`] with at most [`MOST`] characters.
pub fn shown(text: &str) -> Shown<'_> {
    Shown { text, most: MOST }
}

/// Displays a text: characters that are no plain part of a line are written as escapes (`\u{1b}`), and of a long text the
/// middle is left out. What is shown so can be shown so again without a change.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The text.
    pub text: &'a str,
    /// Most of its characters that are shown; of more, three quarters are those at its beginning.
    pub most: usize,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { text, most } = *self;
        // A character takes at most four bytes: only what may be too long is counted, and only as far as needed.
        if text.len() <= most || text.chars().nth(most).is_none() {
            return line(f, text);
        }
        let (first, last) = (most - most / 4, most / 4);
        let head = text.char_indices().nth(first).map_or(text.len(), |(at, _)| at);
        let tail = text.char_indices().rev().nth(last.saturating_sub(1)).map_or(head, |(at, _)| at.max(head));
        line(f, &text[..head])?;
        write!(f, " [{} bytes left out] ", tail - head)?;
        line(f, &text[tail..])
    }
}

fn line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_control() || is_invisible(c) => write!(f, "{}", c.escape_unicode()),
        c => f.write_char(c),
    })
}

/// Characters that end lines, turn the direction of writing or cannot be seen, so that a text could pass for another; and
/// those of no meaning, which private use and tags are.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
        && c != '\u{200d}' // joins emoji
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn plain_text_stays() {
        for text in ["", "transformer_blocks.0.attn.to_q", "Café \\ \"quoted\" `名前` 🍋 👩\u{200d}🌾"]
        {
            assert_eq!(format!("{}", shown(text)), text);
        }
    }

    #[test]
    fn nothing_acts_on_a_terminal() {
        let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\t\u{9b}31m\u{7f}\u{202e}gnp.exe\u{2028}\u{feff}\0";
        let seen = format!("{}", shown(hostile));
        assert_eq!(
            seen,
            r"\u{1b}]0;owned\u{7}\u{1b}[2J\r\n\t\u{9b}31m\u{7f}\u{202e}gnp.exe\u{2028}\u{feff}\u{0}"
        );
        assert_eq!(format!("{}", shown(&seen)), seen, "showing again changes nothing");
        for code in 0..=u32::from(char::MAX) {
            let Some(c) = char::from_u32(code) else { continue };
            let out = format!("{}", shown(c.encode_utf8(&mut [0; 4])));
            assert!(!out.chars().any(char::is_control), "{code:x}");
        }
    }

    #[test]
    fn long_text_loses_its_middle() {
        let long: String = ('a'..='z').cycle().take(1 << 20).collect();
        let seen = format!("{}", shown(&long));
        assert!(seen.starts_with(&long[..150]) && seen.ends_with(&long[long.len() - 50..]), "{seen}");
        assert!(seen.contains(" [1048376 bytes left out] ") && seen.len() < 240, "{seen}");
        assert_eq!(format!("{}", Shown { text: &long[..200], most: 200 }), long[..200]);
        let wide = "é".repeat(201);
        assert!(format!("{}", shown(&wide)).contains("[2 bytes left out]"));
        for most in 0..9 {
            let seen = format!("{}", Shown { text: "äöüäöüäöü", most });
            assert!(seen.chars().count() <= most + 22 && seen.contains("left out"), "{most}: {seen}");
        }
    }
}
