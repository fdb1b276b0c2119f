//! The T5 tokenizer: a unigram language model over pieces (Kudo 2018, arXiv 1804.10959), read from `tokenizer.json`
//! and exact as the `tokenizers` crate that transformers uses.
//!
//! Steps, in order: special tokens are cut out of the text; the rest is normalised, its spaces become `▁` and it is cut
//! into words; each word is taken apart into the pieces whose probabilities have the largest product.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::Value;

use super::normalizer::{Step, Words};
use super::specials::{Added, Piece, Specials};
use super::{TokenizerFiles, parse_json};
use crate::{Error, Result};

/// What an unknown character costs beyond the least likely piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A unigram tokenizer, such as T5's.
#[derive(Debug, Clone)]
pub struct Unigram {
    model: Model,
    steps: Vec<Step>,
    words: Words,
    specials: Specials,
    /// Ids around every text.
    before: Vec<u32>,
    after: Vec<u32>,
    pad: u32,
    vocab_size: usize,
}

impl Unigram {
    /// Builds a tokenizer from `tokenizer.json` (and, for the padding token, `special_tokens_map.json` or
    /// `tokenizer_config.json`). `label` names the folder in errors.
    ///
    /// # Errors
    /// Files that do not parse, and steps that this tokenizer does not know.
    pub fn new(label: &str, files: &TokenizerFiles<'_>) -> Result<Self> {
        let place = format!("{label}/tokenizer.json");
        let text = files.tokenizer_json.ok_or_else(|| {
            Error::missing(label, "`tokenizer.json`")
                .with_hint("transformers writes it with save_pretrained; spiece.model is not read.")
        })?;
        let json = parse_json(&place, text)?;
        let optional = |name: &str, text: Option<&str>| match text {
            Some(text) => parse_json(&format!("{label}/{name}"), text),
            None => Ok(Value::Null),
        };
        let map = optional("special_tokens_map.json", files.special_tokens_map)?;
        let config = optional("tokenizer_config.json", files.tokenizer_config)?;
        let model = Model::new(&place, &json["model"])?;
        let steps = Step::read(&place, &json["normalizer"])?;
        let words = Words::read(&place, &json["pre_tokenizer"])?;

        let lookup = |token: &str| model.id(token);
        let mut added = Added::new(&place, &lookup);
        added.insert_all(&json)?;
        let default = Value::from("<pad>");
        let pad = [&map["pad_token"], &config["pad_token"], &default].into_iter().find(|v| !v.is_null());
        let pad = added.insert(pad.unwrap_or(&default), None)?;
        let specials = Specials::new(added.tokens, &|text| Step::apply_all(&steps, text));
        let (before, after) = template(&place, &json["post_processor"])?;
        let ids = before.iter().chain(&after).copied();
        let largest = ids.chain([model.largest(), specials.largest()]).max().unwrap_or(0);
        let vocab_size = (largest as usize).saturating_add(1);
        Ok(Unigram { model, steps, words, specials, before, after, pad, vocab_size })
    }

    /// Token ids of `text` with those that surround every text (`</s>` at its end); no padding, no truncation.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        let ids = self.inner_ids(text);
        [self.before.as_slice(), &ids, &self.after].concat()
    }

    /// Exactly `max_length` ids, as `padding="max_length", truncation=True`: a long text loses its tail but keeps its
    /// end token; a short one is filled with the pad token on the right.
    pub fn encode(&self, text: &str, max_length: usize) -> Vec<u32> {
        let mut ids = self.inner_ids(text);
        ids.truncate(max_length.saturating_sub(self.before.len() + self.after.len()));
        let mut ids = [self.before.as_slice(), &ids, &self.after].concat();
        ids.resize(max_length, self.pad);
        ids
    }

    /// Id of the padding token.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Largest id plus one: the embedding table needs at least so many rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn inner_ids(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.specials.cut(text, &|text| Step::apply_all(&self.steps, text), &mut |piece| match piece {
            Piece::Special(id) => ids.push(id),
            Piece::Text(text, first) => {
                self.words.split(text, first, &mut |word| self.model.encode(word, &mut ids));
            }
        });
        ids
    }
}

/// Ids before and after a single text: the `single` template, or nothing without a post-processor.
fn template(place: &str, json: &Value) -> Result<(Vec<u32>, Vec<u32>)> {
    let place = format!("{place}: `post_processor`");
    if json.is_null() {
        return Ok((Vec::new(), Vec::new()));
    }
    if json["type"] != "TemplateProcessing" {
        return Err(Error::bad(place, "TemplateProcessing or null", format!("{}", json["type"])));
    }
    let (mut before, mut after, mut seen) = (Vec::new(), Vec::new(), false);
    for item in json["single"].as_array().into_iter().flatten() {
        if !item["Sequence"].is_null() {
            seen = true;
            continue;
        }
        let name = item["SpecialToken"]["id"].as_str().unwrap_or("");
        let ids = json["special_tokens"][name]["ids"].as_array();
        let ids = ids.and_then(|ids| {
            ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect::<Option<Vec<_>>>()
        });
        let ids = ids.ok_or_else(|| Error::missing(&place, format!("ids of special token `{name}`")))?;
        (if seen { &mut after } else { &mut before }).extend(ids);
    }
    Ok((before, after))
}

/// The pieces and their log probabilities.
#[derive(Debug, Clone)]
struct Model {
    /// In order of bytes, so that the pieces that begin alike are neighbours.
    pieces: Vec<(String, u32)>,
    /// By id.
    scores: Vec<f64>,
    unknown: u32,
    unknown_score: f64,
}

/// The best way to a position of a word.
#[derive(Clone, Copy)]
struct Reached {
    score: f64,
    from: usize,
    id: u32,
}

impl Model {
    fn new(place: &str, json: &Value) -> Result<Self> {
        let place = format!("{place}: `model`");
        if json["type"] != "Unigram" {
            return Err(Error::bad(place, "type Unigram", format!("{}", json["type"])));
        }
        if json["byte_fallback"].as_bool() == Some(true) {
            return Err(Error::bad(place, "byte_fallback = false, as T5 has it", "true"));
        }
        let vocab = json["vocab"].as_array().filter(|vocab| !vocab.is_empty());
        let vocab = vocab.ok_or_else(|| Error::missing(&place, "`vocab`, a list of [piece, score]"))?;
        let (mut pieces, mut scores) = (BTreeMap::new(), Vec::with_capacity(vocab.len()));
        for (entry, id) in vocab.iter().zip(0u32..) {
            let (Some(piece), Some(score)) = (entry[0].as_str(), entry[1].as_f64()) else {
                return Err(Error::bad(
                    format!("{place}: `vocab`"),
                    "pairs [piece, score]",
                    format!("{entry}"),
                ));
            };
            if !piece.is_empty() {
                pieces.insert(String::from(piece), id);
            }
            scores.push(score);
        }
        let unknown = json["unk_id"].as_u64().filter(|&id| id < scores.len() as u64);
        let unknown = unknown.ok_or_else(|| Error::missing(&place, "`unk_id`, a piece of its vocabulary"))?;
        let unknown_score = scores.iter().copied().fold(f64::INFINITY, f64::min) - UNKNOWN_PENALTY;
        let pieces = pieces.into_iter().collect();
        Ok(Model { pieces, scores, unknown: unknown as u32, unknown_score })
    }

    fn largest(&self) -> u32 {
        u32::try_from(self.scores.len()).unwrap_or(u32::MAX).saturating_sub(1)
    }

    fn id(&self, piece: &str) -> Option<u32> {
        let at = self.pieces.binary_search_by(|(known, _)| known.as_str().cmp(piece)).ok()?;
        self.pieces.get(at).map(|(_, id)| *id)
    }

    /// Calls `found` with length and id of every piece that `text` begins with, shortest first.
    fn beginnings(&self, text: &str, mut found: impl FnMut(usize, u32)) {
        let mut alike = self.pieces.as_slice();
        for (i, byte) in text.bytes().enumerate() {
            let at = |piece: &(String, u32)| piece.0.as_bytes().get(i).copied();
            let start = alike.partition_point(|piece| at(piece) < Some(byte));
            let end = alike.partition_point(|piece| at(piece) <= Some(byte));
            alike = alike.get(start..end).unwrap_or(&[]);
            match alike.first() {
                None => return,
                Some((piece, id)) if piece.len() == i + 1 => found(i + 1, *id),
                Some(_) => {}
            }
        }
    }

    /// Appends the ids of the most likely pieces of `word` (Viterbi 1967). Neighbouring unknown characters are one id.
    fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let mut best: Vec<Option<Reached>> = vec![None; word.len() + 1];
        for (at, c) in word.char_indices() {
            let here = best.get(at).copied().flatten().map_or(0.0, |step| step.score);
            let mut reach = |length: usize, id: u32, score: f64| {
                if let Some(end) = best.get_mut(at + length).filter(|s| s.is_none_or(|s| score > s.score)) {
                    *end = Some(Reached { score, from: at, id });
                }
            };
            let mut known = false;
            self.beginnings(&word[at..], |length, id| {
                known |= length == c.len_utf8();
                let score = self.scores.get(id as usize).copied().unwrap_or(self.unknown_score);
                reach(length, id, score + here);
            });
            if !known {
                reach(c.len_utf8(), self.unknown, self.unknown_score + here);
            }
        }
        self.trace(word, &best, ids);
    }

    /// Follows the best steps back from the end of `word`.
    fn trace(&self, word: &str, best: &[Option<Reached>], ids: &mut Vec<u32>) {
        let (first, mut end) = (ids.len(), word.len());
        // End of the run of unknown characters that `end` lies in.
        let mut run: Option<usize> = None;
        let whole = |from: usize, to: usize| {
            word.get(from..to).and_then(|text| self.id(text)).unwrap_or(self.unknown)
        };
        while let Some(step) = best.get(end).copied().flatten() {
            if step.id == self.unknown {
                run = run.or(Some(end));
            } else {
                ids.extend(run.take().map(|to| whole(end, to)));
                ids.push(step.id);
            }
            end = step.from;
        }
        ids.extend(run.map(|to| whole(end, to)));
        if let Some(new) = ids.get_mut(first..) {
            new.reverse();
        }
    }
}

#[cfg(test)]
mod tests;
