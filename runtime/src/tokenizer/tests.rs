//! Tests of the whole tokenizer: a small inline vocabulary, and the published ones where they are at hand.
use super::*;
use alloc::string::ToString;

const MERGES: &str = "#version: 0.2\nc a\nca t</w>\nd o\ndo g</w>\n! !\n!! !</w>\n";

/// All bytes, all bytes with `</w>`, the merges' results, then the two markers: ids 518 and 519.
fn vocab() -> String {
    let chars: Vec<char> = {
        let printable = (33..=126).chain(161..=172).chain(174..=255).filter_map(char::from_u32);
        printable.chain((256..324).filter_map(char::from_u32)).collect()
    };
    let mut tokens: Vec<String> = chars.iter().map(|c| c.to_string()).collect();
    tokens.extend(chars.iter().map(|c| format!("{c}</w>")));
    tokens.extend(["ca", "cat</w>", "do", "dog</w>", "!!", "!!!</w>"].map(String::from));
    tokens.extend(["<|startoftext|>", "<|endoftext|>"].map(String::from));
    let map: BTreeMap<String, u32> = tokens.into_iter().zip(0..).collect();
    serde_json::to_string(&map).unwrap()
}

fn build(config: Option<&str>, map: Option<&str>, json: Option<&str>) -> Result<Tokenizer> {
    let vocab = vocab();
    let files = TokenizerFiles {
        vocab: Some(&vocab),
        merges: Some(MERGES),
        special_tokens_map: map,
        tokenizer_config: config,
        tokenizer_json: json,
    };
    Tokenizer::new("t", &files)
}

const CAT: u32 = 513;
const DOG: u32 = 515;
const BOS: u32 = 518;
const EOS: u32 = 519;

#[test]
fn pads_and_truncates_like_transformers() {
    let t = build(None, None, None).unwrap();
    assert_eq!((t.bos(), t.eos(), t.pad(), t.vocab_size(), t.max_length()), (BOS, EOS, EOS, 520, None));
    assert_eq!(t.ids(" A CAT!!!\tdog"), [BOS, 256 + 64, CAT, 517, DOG, EOS]);
    assert_eq!(t.encode("cat dog", 6), [BOS, CAT, DOG, EOS, EOS, EOS]);
    assert_eq!(t.encode("cat dog cat dog", 4), [BOS, CAT, DOG, EOS]);
    assert_eq!(t.encode("cat dog", 4), [BOS, CAT, DOG, EOS]);
    assert_eq!(t.encode("", 3), [BOS, EOS, EOS]);
    assert_eq!(t.encode("cat", 2), [BOS, EOS]);
    assert_eq!((t.encode("cat", 1), t.encode("cat", 0)), ([BOS].into(), Vec::new()));
}

#[test]
fn normalises_before_it_merges() {
    let t = build(None, None, None).unwrap();
    assert_eq!(t.ids("e\u{301}"), t.ids("\u{e9}"), "NFC");
    assert_eq!(t.ids("\u{c9}"), t.ids("\u{e9}"), "lower case");
    assert_eq!(t.ids("ΣΑΣ"), t.ids("σασ"), "no final sigma");
    assert_eq!(t.ids("cat\u{a0}\n dog"), [BOS, CAT, DOG, EOS]);
}

#[test]
fn pad_may_be_a_special_exclamation_mark() {
    let map = r#"{"pad_token":"!"}"#;
    let t = build(None, Some(map), None).unwrap();
    assert_eq!(t.encode("CAT!!!", 7), [BOS, CAT, 0, 0, 0, EOS, 0]);
    let config = r#"{"pad_token":"!","model_max_length":77}"#;
    let t = build(Some(config), None, None).unwrap();
    assert_eq!((t.pad(), t.max_length()), (0, Some(77)));
    let t = build(Some(r#"{"model_max_length":1000000000000000019884624838656}"#), None, None).unwrap();
    assert_eq!(t.max_length(), None);
}

#[test]
fn case_matters_only_for_raw_specials() {
    let spelled = |normalized: bool| {
        let token = format!(r#"{{"content":"<|startoftext|>","normalized":{normalized},"special":true}}"#);
        let from_map = build(None, Some(&format!(r#"{{"bos_token":{token}}}"#)), None).unwrap();
        let decoder =
            format!(r#"{{"added_tokens_decoder":{{"518":{token}}},"bos_token":"<|startoftext|>"}}"#);
        let opposite = format!(r#"{{"bos_token":{}}}"#, token.replace("true,\"s", "false,\"s"));
        let from_decoder = build(Some(&decoder), Some(&opposite), None).unwrap();
        let from_json = build(None, None, Some(&format!(r#"{{"added_tokens":[{token}]}}"#))).unwrap();
        let text = "cat<|STARTOFTEXT|>dog<|startoftext|>";
        assert_eq!(from_map.ids(text), from_decoder.ids(text));
        assert_eq!(from_map.ids(text), from_json.ids(text));
        from_map.ids(text)
    };
    assert_eq!(spelled(true), [BOS, CAT, BOS, DOG, BOS, EOS]);
    let raw = spelled(false);
    assert_eq!(
        (raw[..2].to_vec(), raw[raw.len() - 3..].to_vec()),
        ([BOS, CAT].into(), [DOG, BOS, EOS].into())
    );
    assert!(raw.len() > 6, "the upper-case spelling is ordinary text");
}

#[test]
fn added_tokens_may_lie_beyond_the_vocabulary() {
    let config = r#"{"added_tokens_decoder":{"700":{"content":"<style>"},"701":{"content":"<style>s"}}}"#;
    let t = build(Some(config), None, None).unwrap();
    assert_eq!(t.ids("cat<style> <style>s"), [BOS, CAT, 700, 701, EOS], "the longest match wins");
    assert_eq!(t.vocab_size(), 702);
}

#[test]
fn bad_files_are_sentences() {
    let message = |r: Result<Tokenizer>| r.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(
        message(build(Some("["), None, None)).starts_with("t/tokenizer_config.json: expected a JSON object")
    );
    assert!(message(build(None, Some("[]"), None)).starts_with("t/special_tokens_map.json"));
    assert!(message(build(None, None, Some("3"))).starts_with("t/tokenizer.json"));
    assert!(message(build(None, Some(r#"{"bos_token":"<s>"}"#), None)).contains("special token `<s>`"));
    assert!(message(build(None, Some(r#"{"bos_token":7}"#), None)).contains("found 7"));
    assert!(message(build(None, Some(r#"{"bos_token":""}"#), None)).contains("content"));
    let whole = r#"{"eos_token":{"content":"<|endoftext|>","single_word":true}}"#;
    assert!(message(build(None, Some(whole), None)).contains("single_word = false"));
    for vocab in ["", "[]", r#"{"a":-1}"#, r#"{"a":"b"}"#, r#"{"a":4294967296}"#] {
        let files = TokenizerFiles { vocab: Some(vocab), ..Default::default() };
        assert!(message(Tokenizer::new("t", &files)).starts_with("t/vocab.json"), "{vocab}");
    }
    let files = TokenizerFiles { vocab: Some("{}"), ..Default::default() };
    assert!(message(Tokenizer::new("t", &files)).contains("`<|startoftext|>`"));
    assert!(message(Tokenizer::new("t", &TokenizerFiles::default())).contains("missing `vocab.json`, or"));
    for (json, part) in [
        (r#"{"model":{"type":"Unigram"}}"#, "`vocab.json`"),
        (r#"{"model":{"type":"BPE","vocab":3}}"#, "t/tokenizer.json: expected an object"),
        (r#"{"model":{"type":"BPE","vocab":{"<|startoftext|>":0,"<|endoftext|>":1}}}"#, "`merges.txt`"),
        (r#"{"model":{"type":"BPE","vocab":{"<|startoftext|>":0,"<|endoftext|>":1},"merges":[3]}}"#, "pairs"),
        (
            r#"{"model":{"type":"BPE","vocab":{"<|startoftext|>":0,"<|endoftext|>":1},"merges":["a b"]}}"#,
            "line 1",
        ),
    ] {
        let files = TokenizerFiles { tokenizer_json: Some(json), ..Default::default() };
        let text = message(Tokenizer::new("t", &files));
        assert!(text.contains(part), "{json}: {text}");
    }
}

#[test]
fn one_file_is_as_good_as_two() {
    let vocab: Value = serde_json::from_str(&vocab()).unwrap();
    let lines: Vec<&str> = MERGES.lines().skip(1).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let split = build(None, None, None).unwrap();
    for merges in [serde_json::json!(lines), serde_json::json!(pairs)] {
        let json = serde_json::json!({"model": {"type": "BPE", "vocab": vocab, "merges": merges}});
        let json = serde_json::to_string(&json).unwrap();
        let files = TokenizerFiles { tokenizer_json: Some(&json), ..Default::default() };
        let joined = Tokenizer::new("t", &files).unwrap();
        assert_eq!(joined.ids("A CAT!!! dog"), split.ids("A CAT!!! dog"));
    }
}
