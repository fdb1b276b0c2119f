//! What happens to a text before a unigram model sees it: `normalizer` and `pre_tokenizer` of `tokenizer.json`.
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::charsmap::Charsmap;
use crate::{Error, Result};

/// One step of normalisation.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Precompiled(Charsmap),
    Strip {
        left: bool,
        right: bool,
    },
    /// Every occurrence of the pattern.
    Replace {
        pattern: Pattern,
        content: String,
    },
    Lowercase,
    Nfc,
    Nfkc,
}

/// What a replacement looks for.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Text(String),
    /// The regular expression ` {2,}`, as every converted SentencePiece model has it.
    Spaces,
}

impl Step {
    /// Reads a `normalizer`: null, one step or a sequence.
    pub(super) fn read(place: &str, json: &Value) -> Result<Vec<Step>> {
        let place = format!("{place}: `normalizer`");
        let mut steps = Vec::new();
        sequence(json, "normalizers", &mut |json| {
            let step = match json["type"].as_str().unwrap_or("") {
                "Precompiled" => {
                    let map = json["precompiled_charsmap"].as_str().unwrap_or("");
                    if map.is_empty() {
                        return Ok(());
                    }
                    Step::Precompiled(Charsmap::new(&place, map)?)
                }
                "Strip" => {
                    let side = |name: &str| json[name].as_bool().unwrap_or(true);
                    Step::Strip { left: side("strip_left"), right: side("strip_right") }
                }
                "Replace" => {
                    let pattern =
                        match (json["pattern"]["String"].as_str(), json["pattern"]["Regex"].as_str()) {
                            (Some(text), _) if !text.is_empty() => Pattern::Text(text.into()),
                            (_, Some(" {2,}")) => Pattern::Spaces,
                            _ => {
                                let expected = "Replace of a text or of the expression ` {2,}`";
                                return Err(Error::bad(&place, expected, format!("{}", json["pattern"])));
                            }
                        };
                    Step::Replace { pattern, content: json["content"].as_str().unwrap_or("").into() }
                }
                "Lowercase" => Step::Lowercase,
                "NFC" => Step::Nfc,
                "NFKC" => Step::Nfkc,
                other => {
                    let expected = "Precompiled, Strip, Replace, Lowercase, NFC or NFKC";
                    return Err(Error::bad(&place, expected, format!("`{other}`"))
                        .with_hint("This is not a tokenizer as SD3 models use it."));
                }
            };
            steps.push(step);
            Ok(())
        })?;
        Ok(steps)
    }

    /// All steps in order.
    pub(super) fn apply_all(steps: &[Step], text: &str) -> String {
        steps.iter().fold(text.into(), |text, step| step.apply(text))
    }

    fn apply(&self, text: String) -> String {
        match self {
            Step::Precompiled(map) => {
                let mut out = String::with_capacity(text.len());
                map.apply(&text, &mut out);
                out
            }
            Step::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { &text };
                let text = if *right { text.trim_end() } else { text };
                text.into()
            }
            Step::Replace { pattern: Pattern::Text(pattern), content } => text.replace(pattern, content),
            Step::Replace { pattern: Pattern::Spaces, content } => replace_spaces(&text, content),
            Step::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
            Step::Nfc => text.nfc().collect(),
            Step::Nfkc => text.nfkc().collect(),
        }
    }
}

/// Every run of two or more spaces becomes `content`.
fn replace_spaces(text: &str, content: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("  ") {
        let (before, spaces) = rest.split_at(at);
        out.push_str(before);
        out.push_str(content);
        rest = spaces.trim_start_matches(' ');
    }
    out.push_str(rest);
    out
}

/// Calls `one` with every member of a (nested) sequence, or with the only step; null is no step.
fn sequence(json: &Value, members: &str, one: &mut dyn FnMut(&Value) -> Result<()>) -> Result<()> {
    if json.is_null() {
        return Ok(());
    }
    if json["type"] != "Sequence" {
        return one(json);
    }
    // Nesting is bounded by the JSON parser.
    json[members].as_array().into_iter().flatten().try_for_each(|json| sequence(json, members, one))
}

/// When a word gets a leading mark.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Prepend {
    Always,
    /// Only at the beginning of the whole text.
    First,
    Never,
}

/// How a normalised text is cut into words.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// White space separates words and is dropped.
    whitespace: bool,
    /// What stands for a space.
    mark: char,
    prepend: Prepend,
    /// Words begin at marks.
    split: bool,
}

impl Words {
    /// Reads a `pre_tokenizer`: Metaspace, or WhitespaceSplit before Metaspace.
    pub(super) fn read(place: &str, json: &Value) -> Result<Words> {
        let place = format!("{place}: `pre_tokenizer`");
        let (mut whitespace, mut found) = (false, None);
        sequence(json, "pretokenizers", &mut |json| {
            match (json["type"].as_str().unwrap_or(""), &found) {
                ("WhitespaceSplit", None) => whitespace = true,
                ("Metaspace", None) => found = Some(Words { whitespace, ..metaspace(&place, json)? }),
                (other, _) => {
                    let expected = "Metaspace, or WhitespaceSplit and then Metaspace";
                    return Err(Error::bad(&place, expected, format!("`{other}`"))
                        .with_hint("This is not a tokenizer as SD3 models use it."));
                }
            }
            Ok(())
        })?;
        found.ok_or_else(|| Error::missing(place, "Metaspace"))
    }

    /// Calls `word` with every word of `text`; `first` when the text is the beginning of the whole.
    pub(super) fn split(&self, text: &str, first: bool, word: &mut dyn FnMut(&str)) {
        if !self.whitespace {
            return self.mark_spaces(text, first, word);
        }
        for part in text.split(char::is_whitespace).filter(|part| !part.is_empty()) {
            self.mark_spaces(part, first && text.starts_with(part), word);
        }
    }

    fn mark_spaces(&self, text: &str, first: bool, word: &mut dyn FnMut(&str)) {
        let mut marked = String::with_capacity(text.len() + self.mark.len_utf8());
        let wanted = match self.prepend {
            Prepend::Always => true,
            Prepend::First => first,
            Prepend::Never => false,
        };
        if wanted && !text.is_empty() && !text.starts_with([' ', self.mark]) {
            marked.push(self.mark);
        }
        marked.extend(text.chars().map(|c| if c == ' ' { self.mark } else { c }));
        let mut rest = marked.as_str();
        while self.split && !rest.is_empty() {
            let after = rest.chars().next().map_or(0, char::len_utf8);
            let end =
                rest.get(after..).and_then(|tail| tail.find(self.mark)).map_or(rest.len(), |at| after + at);
            let (head, tail) = rest.split_at(end);
            word(head);
            rest = tail;
        }
        if !rest.is_empty() {
            word(rest);
        }
    }
}

fn metaspace(place: &str, json: &Value) -> Result<Words> {
    let mut chars = json["replacement"].as_str().unwrap_or("▁").chars();
    let (Some(mark), None) = (chars.next(), chars.next()) else {
        return Err(Error::bad(place, "a replacement of one character", format!("{}", json["replacement"])));
    };
    let prepend = match (json["prepend_scheme"].as_str(), json["add_prefix_space"].as_bool()) {
        (Some("always"), _) | (None, Some(true) | None) => Prepend::Always,
        (Some("first"), _) => Prepend::First,
        (Some("never"), _) | (None, Some(false)) => Prepend::Never,
        (Some(other), _) => {
            return Err(Error::bad(place, "prepend_scheme always, first or never", format!("`{other}`")));
        }
    };
    Ok(Words { whitespace: false, mark, prepend, split: json["split"].as_bool().unwrap_or(true) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(scheme: &str, split: bool, text: &str, first: bool) -> Vec<String> {
        let json = json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": scheme, "split": split});
        let mut out = Vec::new();
        Words::read("t", &json).unwrap().split(text, first, &mut |word| out.push(word.into()));
        out
    }

    #[test]
    fn words_begin_with_their_mark() {
        assert_eq!(words("always", true, "a  b_c ", false), ["_a", "_", "_b", "_c", "_"]);
        assert_eq!(words("first", true, "a b", false), ["a", "_b"]);
        assert_eq!(words("first", true, "a b", true), ["_a", "_b"]);
        assert_eq!(words("never", false, " a b", true), ["_a_b"]);
        assert!(words("always", true, "", true).is_empty());
        let both = json!({"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}]});
        let mut out = Vec::new();
        Words::read("t", &both).unwrap().split(" a\tb ", true, &mut |word| out.push(String::from(word)));
        assert_eq!(out, ["▁a", "▁b"]);
    }

    #[test]
    fn steps_apply_in_order() {
        let json = json!({"type": "Sequence", "normalizers": [
            {"type": "NFKC"},
            {"type": "Strip", "strip_left": false, "strip_right": true},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
            {"type": "Replace", "pattern": {"String": "b"}, "content": "xx"},
            {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}]});
        let steps = Step::read("t", &json).unwrap();
        assert_eq!(Step::apply_all(&steps, " ﬁ   B b  c d  "), " fi▁b xx▁c d");
        assert!(Step::read("t", &Value::Null).unwrap().is_empty());
    }

    #[test]
    fn unknown_steps_are_named() {
        let text = |r: Result<()>| format!("{}", r.unwrap_err());
        let step = |json: Value| text(Step::read("t", &json).map(|_| ()));
        assert!(step(json!({"type": "StripAccents"})).contains("`StripAccents`"));
        assert!(step(json!({"type": "Replace", "pattern": {"Regex": "x+"}, "content": ""})).contains("x+"));
        let words = |json: Value| text(Words::read("t", &json).map(|_| ()));
        assert!(words(json!({"type": "ByteLevel"})).contains("`ByteLevel`"));
        assert!(words(Value::Null).contains("missing Metaspace"));
        assert!(words(json!({"type": "Metaspace", "replacement": "ab"})).contains("one character"));
        assert!(words(json!({"type": "Metaspace", "prepend_scheme": "x"})).contains("`x`"));
    }
}
