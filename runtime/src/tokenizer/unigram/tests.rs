//! Tests of the whole tokenizer on a small inline vocabulary; the published ones are compared in the parity tests.
use super::*;
use alloc::string::ToString;
use serde_json::json;

/// Pieces: ids from 0 on.
fn vocab() -> Value {
    json!([
        ["<pad>", 0.0],
        ["</s>", 0.0],
        ["<unk>", 0.0],
        ["\u{2581}", -2.0],
        ["a", -3.0],
        ["b", -3.0],
        ["ab", -5.0],
        ["\u{2581}ab", -4.0],
        ["ba", -9.0],
        ["<x>", 0.0]
    ])
}

fn json() -> Value {
    json!({
        "added_tokens": [
            {"id": 0, "content": "<pad>", "special": true}, {"id": 1, "content": "</s>", "special": true},
            {"id": 9, "content": "<x>", "special": true}],
        "normalizer": {"type": "Strip", "strip_left": false, "strip_right": true},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab(), "byte_fallback": false}
    })
}

fn build(json: &Value, config: Option<&str>) -> Result<Unigram> {
    let json = json.to_string();
    let files =
        TokenizerFiles { tokenizer_json: Some(&json), tokenizer_config: config, ..Default::default() };
    Unigram::new("t", &files)
}

#[test]
fn the_most_likely_pieces_win() {
    let t = build(&json(), None).unwrap();
    assert_eq!((t.vocab_size(), t.pad()), (10, 0));
    assert_eq!(t.ids("ab"), [7, 1], "one piece of -4 beats -2 - 5");
    assert_eq!(t.ids("abab"), [7, 6, 1], "-5 beats -3 - 3");
    assert_eq!(t.ids("ba"), [3, 5, 4, 1], "-6 beats -9");
    assert_eq!(t.ids("ab ab  "), [7, 7, 1]);
    assert_eq!((t.ids(""), t.ids("  ")), (vec![1], vec![1]));
}

#[test]
fn unknown_characters_join() {
    let t = build(&json(), None).unwrap();
    assert_eq!(t.ids("xyz"), [3, 2, 1]);
    assert_eq!(t.ids("xaéyb"), [3, 2, 4, 2, 5, 1]);
    assert_eq!(t.ids("x y"), [3, 2, 3, 2, 1], "not over words");
}

#[test]
fn special_tokens_cut_the_text() {
    let t = build(&json(), None).unwrap();
    assert_eq!(t.ids("ab<x>ab</s>"), [7, 9, 7, 1, 1]);
}

#[test]
fn pads_and_truncates_like_transformers() {
    let t = build(&json(), None).unwrap();
    assert_eq!(t.encode("ab ab", 5), [7, 7, 1, 0, 0]);
    assert_eq!(t.encode("ab ab ab", 3), [7, 7, 1]);
    assert_eq!((t.encode("ab", 1), t.encode("ab", 0)), (vec![1], vec![]));
    let t = build(&json(), Some(r#"{"pad_token":"<x>"}"#)).unwrap();
    assert_eq!(t.encode("ab", 3), [7, 1, 9]);
    let mut bare = json();
    bare["post_processor"] = Value::Null;
    assert_eq!(build(&bare, None).unwrap().ids("ab"), [7]);
}

#[test]
fn long_words_stay_fast() {
    let t = build(&json(), None).unwrap();
    assert_eq!(t.ids(&"ab".repeat(100_000)).len(), 100_001);
}

#[test]
fn bad_files_are_sentences() {
    let message = |json: &Value| build(json, None).err().map(|e| e.to_string()).unwrap_or_default();
    let with = |path: &str, value: Value| {
        let mut json = json();
        *json.pointer_mut(path).unwrap() = value;
        message(&json)
    };
    assert!(with("/model/type", "BPE".into()).contains("type Unigram"));
    assert!(with("/model/unk_id", 10.into()).contains("`unk_id`"));
    assert!(with("/model/unk_id", Value::Null).contains("`unk_id`"));
    assert!(with("/model/vocab", json!([])).contains("`vocab`"));
    assert!(with("/model/vocab/3", json!(["a"])).contains("pairs [piece, score]"));
    assert!(with("/model/byte_fallback", true.into()).contains("byte_fallback"));
    assert!(with("/post_processor/type", "x".into()).contains("TemplateProcessing"));
    assert!(with("/post_processor/special_tokens", json!({})).contains("`</s>`"));
    assert!(with("/pre_tokenizer", Value::Null).contains("Metaspace"));
    assert!(with("/model/vocab/0", json!(["<p>", 0.0])).is_empty(), "added_tokens name <pad>, too");
    let files = TokenizerFiles::default();
    assert!(Unigram::new("t", &files).unwrap_err().to_string().contains("t: missing `tokenizer.json`"));
    let files = TokenizerFiles { tokenizer_json: Some("["), ..Default::default() };
    assert!(Unigram::new("t", &files).unwrap_err().to_string().starts_with("t/tokenizer.json"));
}
