//! The CLIP tokenizer: text in, token ids out, exactly as the `tokenizers` backend of transformers gives them.
//!
//! Steps, in order: special tokens are cut out of the text; the rest is normalised (NFC, white space collapsed, lower
//! case), cut into words by CLIP's pattern, and each word is merged by byte-pair encoding (`bpe`). Unlike OpenAI's own
//! code there is no `ftfy` repair and no HTML unescaping; transformers does neither.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::{Error, Result};

mod bpe;
mod words;

/// Contents of the files in a `tokenizer` folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`.
    pub vocab: &'a str,
    /// `merges.txt`.
    pub merges: &'a str,
    /// `special_tokens_map.json`, where present.
    pub special_tokens_map: Option<&'a str>,
    /// `tokenizer_config.json`, where present.
    pub tokenizer_config: Option<&'a str>,
    /// `tokenizer.json`, where present; only its `added_tokens` are read.
    pub tokenizer_json: Option<&'a str>,
}

/// A CLIP tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    bpe: bpe::Bpe,
    /// Found in the raw text, longest first.
    raw_specials: Vec<(String, u32)>,
    /// Found in the normalised text, longest first.
    normalized_specials: Vec<(String, u32)>,
    bos: u32,
    eos: u32,
    pad: u32,
    vocab_size: usize,
    max_length: Option<usize>,
}

impl Tokenizer {
    /// Builds a tokenizer. `label` names the folder in errors.
    ///
    /// # Errors
    /// Files that do not parse, merges that lead outside the vocabulary, special tokens without an id, and special
    /// tokens with options (`lstrip`, `rstrip`, `single_word`) that CLIP tokenizers do not use.
    pub fn new(label: &str, files: &TokenizerFiles<'_>) -> Result<Self> {
        let parse = |name: &str, text: Option<&str>| match text {
            Some(text) => parse_json(&format!("{label}/{name}"), text),
            None => Ok(Value::Null),
        };
        let map = parse("special_tokens_map.json", files.special_tokens_map)?;
        let config = parse("tokenizer_config.json", files.tokenizer_config)?;
        let json = parse("tokenizer.json", files.tokenizer_json)?;
        let place = format!("{label}/vocab.json");
        let vocab: BTreeMap<String, u32> = serde_json::from_str(files.vocab).map_err(|e| {
            Error::bad(&place, "an object of token: id", format!("text that does not parse: {e}"))
        })?;

        let mut added = Added { place: &place, vocab: &vocab, tokens: BTreeMap::new() };
        for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
            added.insert(token, id.parse().ok())?;
        }
        for token in json["added_tokens"].as_array().into_iter().flatten() {
            added.insert(token, token["id"].as_u64().and_then(|id| u32::try_from(id).ok()))?;
        }
        let mut role = |key: &str, default: &str| {
            let default = Value::from(default);
            let token = [&map[key], &config[key], &default].into_iter().find(|v| !v.is_null());
            added.insert(token.unwrap_or(&default), None)
        };
        let bos = role("bos_token", "<|startoftext|>")?;
        let eos = role("eos_token", "<|endoftext|>")?;
        let unk = role("unk_token", "<|endoftext|>")?;
        let pad = role("pad_token", "<|endoftext|>")?;

        let (mut raw_specials, mut normalized_specials) = (Vec::new(), Vec::new());
        for (content, token) in added.tokens {
            if token.normalized {
                normalized_specials.push((normalize(&content), token.id));
            } else {
                raw_specials.push((content, token.id));
            }
        }
        let specials = raw_specials.iter().chain(&normalized_specials).map(|(_, id)| *id);
        let largest = vocab.values().copied().chain(specials).max().unwrap_or(0);
        raw_specials.sort_by_key(|(content, _)| core::cmp::Reverse(content.len()));
        normalized_specials.sort_by_key(|(content, _)| core::cmp::Reverse(content.len()));
        let bpe = bpe::Bpe::new(&vocab, files.merges, unk, &format!("{label}/merges.txt"))?;
        // transformers writes 1e30 for "no limit".
        let max_length = config["model_max_length"].as_u64().and_then(|n| usize::try_from(n).ok());
        Ok(Tokenizer {
            bpe,
            raw_specials,
            normalized_specials,
            bos,
            eos,
            pad,
            vocab_size: (largest as usize).saturating_add(1),
            max_length: max_length.filter(|n| (2..=1 << 20).contains(n)),
        })
    }

    /// Token ids of `text`: BOS, the text's own tokens, EOS; no padding, no truncation.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let mut ids = alloc::vec![self.bos];
        for piece in split(text, &self.raw_specials) {
            match piece {
                Piece::Special(id) => ids.push(id),
                Piece::Text(text) => {
                    let text = normalize(text);
                    for piece in split(&text, &self.normalized_specials) {
                        match piece {
                            Piece::Special(id) => ids.push(id),
                            Piece::Text(text) => words::split(text, |word| self.bpe.encode(word, &mut ids)),
                        }
                    }
                }
            }
        }
        ids.push(self.eos);
        ids
    }

    /// Exactly `max_length` ids, as `padding="max_length", truncation=True`: a long text loses its tail but keeps EOS
    /// last; a short one is filled with the pad token on the right. (Below 2, there is no room for BOS and EOS.)
    pub fn encode(&self, text: &str, max_length: usize) -> Vec<u32> {
        let mut ids = self.ids(text);
        if ids.len() > max_length {
            ids.truncate(max_length);
            if let Some(last) = ids.last_mut().filter(|_| max_length > 1) {
                *last = self.eos;
            }
        }
        ids.resize(max_length, self.pad);
        ids
    }

    /// Id of the token that starts every sequence.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Id of the token that ends every sequence.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Id of the padding token (the end token in CLIP-L, `!` = 0 in SD3's second tokenizer).
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Largest id plus one: the embedding table needs at least so many rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// `model_max_length` of `tokenizer_config.json` (77 for the published CLIP models), where it is a real limit.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }
}

fn parse_json(place: &str, text: &str) -> Result<Value> {
    let json: Value = serde_json::from_str(text)
        .map_err(|e| Error::bad(place, "a JSON object", format!("text that does not parse: {e}")))?;
    if json.is_object() { Ok(json) } else { Err(Error::bad(place, "a JSON object", "another JSON value")) }
}

/// NFC, runs of white space to one space, lower case character by character (no final-sigma rule, as in Rust's
/// `char::to_lowercase`, which the `tokenizers` crate uses too).
fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.nfc() {
        if !c.is_whitespace() {
            out.extend(c.to_lowercase());
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out
}

/// A special token's id and where it is looked for.
struct Special {
    id: u32,
    /// Looked for in the normalised text (so case does not matter) instead of the raw text.
    normalized: bool,
}

/// Special tokens by content; the first description of a token wins.
struct Added<'a> {
    place: &'a str,
    vocab: &'a BTreeMap<String, u32>,
    tokens: BTreeMap<String, Special>,
}

impl Added<'_> {
    /// Adds a token given as a string or as `{content, normalized, ...}`; returns its id.
    fn insert(&mut self, token: &Value, id: Option<u32>) -> Result<u32> {
        let content = token.as_str().or_else(|| token["content"].as_str()).unwrap_or("");
        if content.is_empty() {
            return Err(Error::bad(self.place, "special tokens with a content", token.to_string()));
        }
        if let Some(known) = self.tokens.get(content) {
            return Ok(known.id);
        }
        for option in ["lstrip", "rstrip", "single_word"] {
            if token[option].as_bool() == Some(true) {
                let place = format!("{}: special token `{content}`", self.place);
                return Err(Error::bad(place, format!("{option} = false"), "true")
                    .with_hint("This is not a CLIP tokenizer as SD3 models use it."));
            }
        }
        let id = self.vocab.get(content).copied().or(id).ok_or_else(|| {
            Error::missing(self.place, format!("special token `{content}`"))
                .with_hint("Do vocab.json and tokenizer_config.json belong together?")
        })?;
        let normalized = token["normalized"].as_bool().unwrap_or(false);
        self.tokens.insert(content.to_string(), Special { id, normalized });
        Ok(id)
    }
}

enum Piece<'t> {
    Text(&'t str),
    Special(u32),
}

/// Cuts `text` at every special token, leftmost first, longest first. `specials` are sorted by falling length.
fn split<'t>(text: &'t str, specials: &[(String, u32)]) -> Vec<Piece<'t>> {
    let (mut pieces, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(c) = text[at..].chars().next() {
        let Some((content, id)) =
            specials.iter().find(|(content, _)| text[at..].starts_with(content.as_str()))
        else {
            at += c.len_utf8();
            continue;
        };
        if start < at {
            pieces.push(Piece::Text(&text[start..at]));
        }
        pieces.push(Piece::Special(*id));
        at += content.len();
        start = at;
    }
    if start < text.len() {
        pieces.push(Piece::Text(&text[start..]));
    }
    pieces
}

#[cfg(test)]
mod tests;
