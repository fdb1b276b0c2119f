//! Tokenizers against transformers: exact ids.
use pentimento_runtime::folder::{Component, tokenizer_folder};
use pentimento_runtime::tokenizer::{Tokenizer, TokenizerFiles, Unigram};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tests::fixture::root;

fn folder(path: &Path) -> Component {
    tokenizer_folder(path).expect("a tokenizer folder")
}

fn list(v: &Value) -> Vec<u32> {
    serde_json::from_value(v.clone()).expect("a list of ids")
}

/// The published tokenizers with their prompts, where the set has them.
fn golden() -> Option<(PathBuf, Value)> {
    let path = root().join("text/tokenizers");
    let Ok(text) = fs::read_to_string(path.join("golden.json")) else {
        println!("SKIPPED: no golden folder {}", path.display());
        return None;
    };
    Some((path, serde_json::from_str(&text).expect("golden.json is JSON")))
}

/// What `tokenizer.json` would hold of a CLIP tokenizer given as `vocab.json` and `merges.txt`.
fn in_one_file(path: &Path) -> Tokenizer {
    let component = folder(path);
    let merges = component.read_text("merges.txt").expect("merges");
    let pairs: Vec<Vec<&str>> = merges
        .lines()
        .filter(|l| !l.starts_with("#version") && !l.trim().is_empty())
        .map(|l| l.split(' ').collect())
        .collect();
    let vocab = component.json("vocab.json").expect("a vocabulary");
    let json = json!({"model": {"type": "BPE", "vocab": vocab, "merges": pairs}}).to_string();
    let config = component.read_text("tokenizer_config.json").expect("a config");
    let map = component.read_text("special_tokens_map.json").expect("a map");
    let files = TokenizerFiles {
        tokenizer_json: Some(&json),
        tokenizer_config: Some(&config),
        special_tokens_map: Some(&map),
        ..Default::default()
    };
    Tokenizer::new("joined", &files).expect("a tokenizer")
}

#[test]
fn ids_are_those_of_transformers() {
    let Some((path, golden)) = golden() else { return };
    let clip = |name: &str| folder(&path.join(name)).tokenizer().expect("a tokenizer");
    let (l, g) = (clip("clip_l"), clip("clip_g"));
    let (l_joined, g_joined) = (in_one_file(&path.join("clip_l")), in_one_file(&path.join("clip_g")));
    let t5 = folder(&path.join("t5")).unigram_tokenizer().expect("a tokenizer");
    let other_json: Vec<&Value> = golden["differs_tokenizer_json"].as_array().into_iter().flatten().collect();
    let mut compared = BTreeMap::new();
    for prompt in golden["prompts"].as_array().expect("prompts") {
        let text = prompt["text"].as_str().expect("a text");
        for (key, want) in prompt.as_object().expect("an object") {
            let length = || list(want).len();
            let got = match key.trim_end_matches(char::is_numeric) {
                // Other libraries' ids, which transformers' differ from: nothing to compare with.
                "text" | "clip_ids_openclip_ftfy" | "t5_ids_sentencepiece" => continue,
                "clip_l_ids" => vec![l.ids(text), l_joined.ids(text)],
                "clip_l_padded" => vec![l.encode(text, length()), l_joined.encode(text, length())],
                "clip_g_padded" => vec![g.encode(text, length()), g_joined.encode(text, length())],
                "t5_ids_tokenizer_json" if other_json.iter().any(|t| *t == text) => continue,
                "t5_ids_transformers" | "t5_ids_tokenizer_json" => vec![t5.ids(text)],
                "t5_padded" => vec![t5.encode(text, length())],
                other => panic!("{}: `{other}` is not understood", path.display()),
            };
            for got in got {
                assert_eq!(got, list(want), "{key} of {text:?}");
            }
            *compared.entry(key.clone()).or_insert(0) += 1;
        }
    }
    assert!(compared.len() >= 5, "{compared:?}");
    println!("{}: {compared:?} agree", path.display());
}

/// The comparison can fail: the two CLIP tokenizers share a vocabulary and differ only in one special token.
#[test]
fn the_second_clip_tokenizer_is_not_the_first() {
    let Some((path, golden)) = golden() else { return };
    let l = folder(&path.join("clip_l")).tokenizer().expect("a tokenizer");
    let g = folder(&path.join("clip_g")).tokenizer().expect("a tokenizer");
    for text in golden["differs_clip_g"].as_array().expect("prompts") {
        let text = text.as_str().expect("a text");
        assert_ne!(l.ids(text), g.ids(text), "{text:?}");
    }
}

/// The small example's tokenizers hold both forms.
#[test]
fn one_file_gives_the_ids_of_two() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons");
    for name in ["tokenizer", "tokenizer_2"] {
        let component = folder(&model.join(name));
        let two = component.tokenizer().expect("a tokenizer");
        let read = |file: &str| component.read_text(file).expect("a file");
        let (json, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
        let files = TokenizerFiles {
            tokenizer_json: Some(&json),
            tokenizer_config: Some(&config),
            ..Default::default()
        };
        let one = Tokenizer::new(name, &files).expect("a tokenizer");
        for text in ["", "a photo of a CAT!!!", "naïve café — résumé 20's", "<|endoftext|> x", "日本 ☕️"]
        {
            assert_eq!(one.encode(text, 77), two.encode(text, 77), "{name}: {text:?}");
        }
    }
}

/// Compares with a JSON list of `[folder, text, ids]` made by transformers or tokenizers, for fuzzing against the
/// original.
#[test]
fn rows_of_an_oracle() {
    let Some(path) = std::env::var_os("PENTIMENTO_TOKENIZER_ROWS") else {
        println!("SKIPPED: PENTIMENTO_TOKENIZER_ROWS is not set");
        return;
    };
    enum Either {
        Clip(Tokenizer),
        T5(Unigram),
    }
    let text = fs::read_to_string(path).expect("a file");
    let rows: Vec<(String, String, Vec<u32>)> = serde_json::from_str(&text).expect("rows");
    let mut open: BTreeMap<String, Either> = BTreeMap::new();
    for (name, text, ids) in &rows {
        let tokenizer = open.entry(name.clone()).or_insert_with(|| {
            let component = folder(Path::new(name));
            match component.tokenizer() {
                Ok(clip) => Either::Clip(clip),
                Err(_) => Either::T5(component.unigram_tokenizer().expect("a tokenizer")),
            }
        });
        let got = match tokenizer {
            Either::Clip(clip) => clip.ids(text),
            Either::T5(t5) => t5.ids(text),
        };
        assert_eq!(&got, ids, "{name}: {text:?}");
    }
    println!("{} rows agree", rows.len());
}
