//! CLIP's word pattern, by hand:
//! `<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`.
use unicode_normalization::char::is_combining_mark;

/// Words that are matched before any class of characters.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
/// Spelled-out special tokens. transformers runs GPT-2's pattern over each word afterwards, which cuts these in three.
const MARKERS: [[&str; 3]; 2] = [["<|", "startoftext", "|>"], ["<|", "endoftext", "|>"]];

#[derive(PartialEq, Eq, Clone, Copy)]
enum Class {
    Space,
    Letter,
    Number,
    Other,
}

fn class(c: char) -> Class {
    if c.is_whitespace() {
        Class::Space
    } else if c.is_numeric() {
        Class::Number
    } else if is_letter(c) {
        Class::Letter
    } else {
        Class::Other
    }
}

/// General category L. Rust knows the property Alphabetic, which also holds for letter-like numbers (category Nl),
/// some combining marks (M), and the circled and squared Latin letters (So).
pub(super) fn is_letter(c: char) -> bool {
    let symbol = matches!(c, '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F149}' | '\u{1F150}'..='\u{1F169}' | '\u{1F170}'..='\u{1F189}');
    c.is_alphabetic() && !c.is_numeric() && !is_combining_mark(c) && !symbol
}

/// Calls `word` with every word of `text`; white space is dropped.
pub(super) fn split(text: &str, mut word: impl FnMut(&str)) {
    let mut rest = text;
    'next: while let Some(first) = rest.chars().next() {
        for parts in &MARKERS {
            let after = parts.iter().try_fold(rest, |rest, part| rest.strip_prefix(part));
            if let Some(after) = after {
                parts.iter().for_each(|part| word(part));
                rest = after;
                continue 'next;
            }
        }
        let class_of_first = class(first);
        let contraction = CONTRACTIONS.iter().find(|c| rest.starts_with(**c));
        let length = match (contraction, class_of_first) {
            (Some(contraction), _) => contraction.len(),
            (None, Class::Number | Class::Space) => first.len_utf8(),
            (None, _) => rest.find(|c| class(c) != class_of_first).unwrap_or(rest.len()),
        };
        let (head, tail) = rest.split_at(length);
        if class_of_first != Class::Space {
            word(head);
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn words(text: &str) -> Vec<alloc::string::String> {
        let mut out = Vec::new();
        split(text, |w| out.push(w.to_string()));
        out
    }

    #[test]
    fn cuts_as_the_pattern_does() {
        assert_eq!(words("it's 20 cats..."), ["it", "'s", "2", "0", "cats", "..."]);
        assert_eq!(words("'single' !'s"), ["'s", "ingle", "'", "!'", "s"]);
        assert_eq!(
            words("we'll they're i'd 've 'm't"),
            ["we", "'ll", "they", "'re", "i", "'d", "'ve", "'m", "'t"]
        );
        assert_eq!(words("x<|endoftext|>!!y"), ["x", "<|", "endoftext", "|>", "!!", "y"]);
        assert_eq!(words("!<|endoftext|>!!"), ["!<|", "endoftext", "|>!!"]);
        assert_eq!(words("a\u{a0}\u{b}b\u{2003}c\0"), ["a", "b", "c", "\0"]);
        assert!(words("").is_empty() && words(" \t\r\n\u{3000}").is_empty());
    }

    #[test]
    fn letters_are_category_l_only() {
        assert!(['a', 'ß', 'ª', '日', 'ʰ', 'ǅ', 'ا', '\u{10400}'].into_iter().all(is_letter));
        // Nl, Nd, No, So, Mc, Mn, Me, Pc.
        for c in ['Ⅷ', '٣', '½', 'Ⓐ', '\u{1F130}', '\u{093E}', '\u{0345}', '\u{20DD}', '_'] {
            assert!(!is_letter(c), "{c:?}");
        }
    }
}
