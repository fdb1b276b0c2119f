//! What the encoders do not read of a prompt that is too long for them.
use super::TextEncoders;
use crate::shown::Shown;
use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::fmt;

/// Most characters of what is cut that are shown.
const MOST: usize = 300;

/// The end of a prompt that an encoder does not read. Displays as a sentence, without the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// `CLIP` or `T5`.
    pub encoder: &'static str,
    /// Tokens of the whole prompt, with those that surround every prompt.
    pub tokens: usize,
    /// How many of them are read.
    pub reads: usize,
    /// What is not read.
    pub rest: String,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { encoder, tokens, reads, rest } = self;
        let rest = Shown { text: rest.trim(), most: MOST };
        write!(f, "{encoder} reads {reads} of {tokens} tokens; what is cut: `{rest}`")
    }
}

impl TextEncoders {
    /// What is cut off a prompt: nothing, or one part for the CLIP encoders and one for T5.
    pub fn cuts(&self, prompt: &str) -> Vec<Cut> {
        let clip = self.clips.iter().filter_map(|(clip, _)| {
            let count = |text: &str| clip.tokenizer.ids(text).len();
            cut("CLIP", prompt, clip.config.max_position_embeddings, &count)
        });
        let t5 = self.t5.as_ref().and_then(|(t5, _)| {
            let count = |text: &str| t5.tokenizer.ids(text).len();
            cut("T5", prompt, self.t5_tokens, &count)
        });
        clip.max_by_key(|cut| cut.rest.len()).into_iter().chain(t5).collect()
    }
}

/// What is left of a prompt after the longest beginning of at most `reads` tokens.
fn cut(encoder: &'static str, prompt: &str, reads: usize, count: &dyn Fn(&str) -> usize) -> Option<Cut> {
    let tokens = count(prompt);
    if tokens <= reads {
        return None;
    }
    // A longer beginning has no fewer tokens, but for the last word's, of which one more letter can make fewer.
    let ends: Vec<usize> = prompt.char_indices().map(|(at, _)| at).collect();
    let fits = ends.partition_point(|&end| count(&prompt[..end]) <= reads);
    let end = ends.get(fits.saturating_sub(1)).copied().unwrap_or(0);
    Some(Cut { encoder, tokens, reads, rest: prompt[end..].to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// A token for every word, one before and one after.
    fn words(text: &str) -> usize {
        2 + text.split_whitespace().count()
    }

    #[test]
    fn the_rest_is_shown() {
        assert_eq!(cut("CLIP", "one two three", 5, &words), None);
        assert_eq!(cut("CLIP", "", 2, &words), None);
        let some = cut("CLIP", "one two thr\u{1b}ee vier", 4, &words).unwrap();
        assert_eq!((some.tokens, some.reads, some.rest.as_str()), (6, 4, "thr\u{1b}ee vier"));
        let text = format!("{some}");
        assert_eq!(text, "CLIP reads 4 of 6 tokens; what is cut: `thr\\u{1b}ee vier`");
        assert_eq!(cut("T5", "ä ö ü", 2, &words).unwrap().rest, "ä ö ü");
        let long = "wort ".repeat(1 << 12);
        let text = format!("{}", cut("T5", &long, 77, &words).unwrap());
        assert!(text.starts_with("T5 reads 77 of 4098 tokens") && text.len() < 500, "{text}");
    }
}
