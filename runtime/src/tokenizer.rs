//! Tokenizers: text in, token ids out, exactly as the `tokenizers` backend of transformers gives them. [`Tokenizer`] is
//! CLIP's, [`Unigram`] is T5's.
//!
//! CLIP's steps, in order: special tokens are cut out of the text; the rest is normalised (NFC, white space collapsed,
//! lower case), cut into words by CLIP's pattern, and each word is merged by byte-pair encoding (`bpe`). Unlike OpenAI's
//! own code there is no `ftfy` repair and no HTML unescaping; transformers does neither.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use crate::{Error, Result};

use specials::{Added, Piece, Specials};
pub use unigram::Unigram;

mod bpe;
mod charsmap;
mod normalizer;
mod specials;
mod unigram;
mod words;

/// Contents of the files in a `tokenizer` folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`; without it CLIP's vocabulary is that of `tokenizer.json`.
    pub vocab: Option<&'a str>,
    /// `merges.txt`; without it CLIP's merges are those of `tokenizer.json`.
    pub merges: Option<&'a str>,
    /// `special_tokens_map.json`, where present.
    pub special_tokens_map: Option<&'a str>,
    /// `tokenizer_config.json`, where present.
    pub tokenizer_config: Option<&'a str>,
    /// `tokenizer.json`, where present. T5's tokenizer is read from it; CLIP's takes `added_tokens` and what has no file
    /// of its own.
    pub tokenizer_json: Option<&'a str>,
}

/// A CLIP tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    bpe: bpe::Bpe,
    specials: Specials,
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
    /// Files that do not parse, merges that lead outside the vocabulary, special tokens without an id.
    pub fn new(label: &str, files: &TokenizerFiles<'_>) -> Result<Self> {
        let parse = |name: &str, text: Option<&str>| match text {
            Some(text) => parse_json(&format!("{label}/{name}"), text),
            None => Ok(Value::Null),
        };
        let map = parse("special_tokens_map.json", files.special_tokens_map)?;
        let config = parse("tokenizer_config.json", files.tokenizer_config)?;
        let json = parse("tokenizer.json", files.tokenizer_json)?;
        let (place, vocab) = vocabulary(label, files.vocab, &json)?;
        let lookup = |token: &str| vocab.get(token).copied();
        let mut added = Added::new(&place, &lookup);
        for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
            added.insert(token, id.parse().ok())?;
        }
        added.insert_all(&json)?;
        let mut role = |key: &str, default: &str| {
            let default = Value::from(default);
            let token = [&map[key], &config[key], &default].into_iter().find(|v| !v.is_null());
            added.insert(token.unwrap_or(&default), None)
        };
        let bos = role("bos_token", "<|startoftext|>")?;
        let eos = role("eos_token", "<|endoftext|>")?;
        let unk = role("unk_token", "<|endoftext|>")?;
        let pad = role("pad_token", "<|endoftext|>")?;
        let specials = Specials::new(added.tokens, &normalize);
        let largest = vocab.values().copied().max().unwrap_or(0).max(specials.largest());
        let bpe = match files.merges {
            Some(merges) => bpe::Bpe::new(&vocab, merges, unk, &format!("{label}/merges.txt"))?,
            None => bpe::Bpe::new(
                &vocab,
                &merges(label, &json)?,
                unk,
                &format!("{label}/tokenizer.json: merges"),
            )?,
        };
        // transformers writes 1e30 for "no limit".
        let max_length = config["model_max_length"].as_u64().and_then(|n| usize::try_from(n).ok());
        Ok(Tokenizer {
            bpe,
            specials,
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
        self.specials.cut(text, &normalize, &mut |piece| match piece {
            Piece::Special(id) => ids.push(id),
            Piece::Text(text, _) => words::split(text, |word| self.bpe.encode(word, &mut ids)),
        });
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

/// CLIP's vocabulary and the file it comes from.
fn vocabulary(label: &str, file: Option<&str>, json: &Value) -> Result<(String, BTreeMap<String, u32>)> {
    let (place, vocab) = match file {
        Some(text) => (format!("{label}/vocab.json"), serde_json::from_str(text)),
        None if json["model"]["type"] == "BPE" => {
            (format!("{label}/tokenizer.json"), serde_json::from_value(json["model"]["vocab"].clone()))
        }
        None => return Err(Error::missing(label, "`vocab.json`, or a `tokenizer.json` whose model is BPE")),
    };
    let vocab = vocab.map_err(|e| {
        Error::bad(&place, "an object of token: id", format!("text that does not parse: {e}"))
    })?;
    Ok((place, vocab))
}

/// The merges of a `tokenizer.json`, given as pairs or as texts with a space, in the form of `merges.txt`.
fn merges(label: &str, json: &Value) -> Result<String> {
    let missing = || Error::missing(label, "`merges.txt`, or a `tokenizer.json` with merges");
    let mut text = String::new();
    for merge in json["model"]["merges"].as_array().ok_or_else(missing)? {
        match (merge.as_str(), merge[0].as_str(), merge[1].as_str()) {
            (Some(pair), ..) => text.push_str(pair),
            (_, Some(left), Some(right)) => text.extend([left, " ", right]),
            _ => {
                let place = format!("{label}/tokenizer.json: `merges`");
                return Err(Error::bad(place, "pairs of tokens", format!("{merge}")));
            }
        }
        text.push('\n');
    }
    Ok(text)
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

#[cfg(test)]
mod tests;
