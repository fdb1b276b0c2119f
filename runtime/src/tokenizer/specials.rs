//! Special tokens: strings that become one id wherever they stand, before and after the text is normalised.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use crate::{Error, Result};

/// One special token.
#[derive(Debug, Clone)]
pub(super) struct Special {
    pub(super) id: u32,
    /// Looked for in the normalised text (so case may not matter) instead of the raw text.
    normalized: bool,
    /// Swallows white space before it.
    lstrip: bool,
    /// Swallows white space after it.
    rstrip: bool,
}

/// Special tokens by content; the first description of a token wins.
pub(super) struct Added<'a> {
    /// The vocabulary's file, for errors.
    pub(super) place: &'a str,
    /// Id of a token in the vocabulary; it beats the id in the description.
    pub(super) vocab: &'a dyn Fn(&str) -> Option<u32>,
    pub(super) tokens: BTreeMap<String, Special>,
}

impl<'a> Added<'a> {
    pub(super) fn new(place: &'a str, vocab: &'a dyn Fn(&str) -> Option<u32>) -> Self {
        Added { place, vocab, tokens: BTreeMap::new() }
    }

    /// Adds a token given as a string or as `{content, normalized, ...}`; returns its id.
    pub(super) fn insert(&mut self, token: &Value, id: Option<u32>) -> Result<u32> {
        let content = token.as_str().or_else(|| token["content"].as_str()).unwrap_or("");
        if content.is_empty() {
            return Err(Error::bad(self.place, "special tokens with a content", token.to_string()));
        }
        if let Some(known) = self.tokens.get(content) {
            return Ok(known.id);
        }
        let flag = |option: &str| token[option].as_bool() == Some(true);
        if flag("single_word") {
            let place = format!("{}: special token `{content}`", self.place);
            return Err(Error::bad(place, "single_word = false", "true")
                .with_hint("This is not a tokenizer as SD3 models use it."));
        }
        let id = (self.vocab)(content).or(id).ok_or_else(|| {
            Error::missing(self.place, format!("special token `{content}`"))
                .with_hint("Do the vocabulary and tokenizer_config.json belong together?")
        })?;
        let (normalized, lstrip, rstrip) = (flag("normalized"), flag("lstrip"), flag("rstrip"));
        self.tokens.insert(content.to_string(), Special { id, normalized, lstrip, rstrip });
        Ok(id)
    }

    /// Adds `added_tokens` of a `tokenizer.json`.
    pub(super) fn insert_all(&mut self, json: &Value) -> Result<()> {
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            self.insert(token, token["id"].as_u64().and_then(|id| u32::try_from(id).ok()))?;
        }
        Ok(())
    }
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Piece<'t> {
    /// Ordinary text, normalised; never empty. True when it begins where the whole text does.
    Text(&'t str, bool),
    /// A special token's id.
    Special(u32),
}

/// The special tokens of a tokenizer, each list by falling length.
#[derive(Debug, Clone, Default)]
pub(super) struct Specials {
    raw: Vec<(String, Special)>,
    normalized: Vec<(String, Special)>,
}

impl Specials {
    pub(super) fn new(tokens: BTreeMap<String, Special>, normalize: &dyn Fn(&str) -> String) -> Self {
        let mut all = Specials::default();
        for (content, token) in tokens {
            if !token.normalized {
                all.raw.push((content, token));
                continue;
            }
            let content = normalize(&content);
            if !content.is_empty() {
                all.normalized.push((content, token));
            }
        }
        all.raw.sort_by_key(|(content, _)| core::cmp::Reverse(content.len()));
        all.normalized.sort_by_key(|(content, _)| core::cmp::Reverse(content.len()));
        all
    }

    /// Largest id.
    pub(super) fn largest(&self) -> u32 {
        self.raw.iter().chain(&self.normalized).map(|(_, token)| token.id).max().unwrap_or(0)
    }

    /// Cuts a text at its special tokens, normalising what lies between; pieces go to `take` in order.
    pub(super) fn cut(
        &self,
        text: &str,
        normalize: &dyn Fn(&str) -> String,
        take: &mut dyn FnMut(Piece<'_>),
    ) {
        split(text, &self.raw, &mut |piece| match piece {
            Piece::Special(_) => take(piece),
            Piece::Text(raw, first) => split(&normalize(raw), &self.normalized, &mut |piece| match piece {
                Piece::Special(_) => take(piece),
                Piece::Text(text, start) => take(Piece::Text(text, first && start)),
            }),
        });
    }
}

/// Cuts `text` at every special token, leftmost first, longest first.
fn split(text: &str, specials: &[(String, Special)], take: &mut dyn FnMut(Piece<'_>)) {
    let (mut start, mut at) = (0, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let Some((content, token)) = specials.iter().find(|(content, _)| rest.starts_with(content.as_str()))
        else {
            at += c.len_utf8();
            continue;
        };
        let before = &text[start..at];
        let before = if token.lstrip { before.trim_end() } else { before };
        if !before.is_empty() {
            take(Piece::Text(before, start == 0));
        }
        take(Piece::Special(token.id));
        at += content.len();
        start = at;
        if token.rstrip {
            start += text[at..].len() - text[at..].trim_start().len();
        }
        at = start;
    }
    if start < text.len() {
        take(Piece::Text(&text[start..], start == 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str, flags: &str) -> Vec<String> {
        let vocab = |token: &str| (token == "<b>").then_some(7);
        let mut added = Added::new("vocab", &vocab);
        let token = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        added.insert(&token(&format!(r#"{{"content":"<a>"{flags}}}"#)), Some(3)).unwrap();
        added.insert(&token(r#""<b>""#), Some(9)).unwrap();
        added.insert(&token(r#"{"content":"<C>","normalized":true}"#), Some(4)).unwrap();
        let lower = |text: &str| text.to_lowercase();
        let specials = Specials::new(added.tokens, &lower);
        let mut out = Vec::new();
        specials.cut(text, &lower, &mut |piece| {
            out.push(match piece {
                Piece::Text(text, first) => format!("{text}{}", if first { "^" } else { "" }),
                Piece::Special(id) => id.to_string(),
            });
        });
        out
    }

    #[test]
    fn cuts_before_and_after_normalising() {
        assert_eq!(pieces("X <a> Y<A><c><C><b>", ""), ["x ^", "3", " y<a>", "4", "4", "7"]);
        assert_eq!(pieces("X <a> Y", r#","lstrip":true"#), ["x^", "3", " y"]);
        assert_eq!(pieces(" <a> <a> Y", r#","lstrip":true,"rstrip":true"#), ["3", "3", "y"]);
        assert_eq!(pieces("X <a> Y", r#","rstrip":true"#), ["x ^", "3", "y"]);
        assert!(pieces("", "").is_empty());
    }

    #[test]
    fn whole_word_tokens_are_refused() {
        let mut added = Added::new("vocab", &|_| Some(1));
        let token = serde_json::json!({"content": "<a>", "single_word": true});
        let text = added.insert(&token, None).unwrap_err().to_string();
        assert!(text.contains("`<a>`: expected single_word = false"), "{text}");
    }
}
