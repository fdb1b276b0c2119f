//! Prompts through a whole model folder: the cache that makes text encoders unnecessary, and T5 where there is one.
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::model::lora::{Pair, Pairs};
use pentimento_runtime::pipeline::{self, Pipeline, TextSettings};
use pentimento_runtime::text::TextCache;
use pentimento_trainer::texts;
use std::path::Path;
use tests::fixture::root;
use tests::scratch::{Scratch, copy};

fn open(folder: &Path, cache: Option<TextCache>, t5_tokens: usize) -> Result<Pipeline, String> {
    let folder = ModelFolder::open(folder).expect("a model folder");
    let text = TextSettings { t5_tokens, cache };
    Pipeline::open_with(&folder, Box::new(Cpu::new()), Pairs::new(), text).map_err(|e| e.to_string())
}

/// The small model's configuration and weights without text encoders.
fn without_encoders(name: &str) -> Scratch {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons");
    let scratch = Scratch::new(name);
    for part in ["transformer", "vae", "scheduler"] {
        copy(&model.join(part), &scratch.0.join(part));
    }
    std::fs::copy(model.join("model_index.json"), scratch.0.join("model_index.json")).expect("a copy");
    scratch
}

#[test]
fn a_full_cache_replaces_the_text_encoders() {
    const TOKENS: usize = 256;
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons");
    let (bare, file) = (without_encoders("cache"), Scratch::new("cache-file"));
    let file = file.0.join("prompts.safetensors");
    let prompts = ["a red fish", "", "a red fish"];

    let mut whole = open(&model, texts::load(Some(&file)).expect("an empty cache"), TOKENS).expect("a model");
    let expected = whole.encode_all(&prompts).expect("a run");
    assert!(expected[0] == expected[2] && expected[0] != expected[1]);
    texts::save(&mut whole, Some(&file)).expect("written");
    let written = std::fs::read(&file).expect("a file");
    assert!(!whole.text_cache_mut().expect("a cache").is_changed());

    let load = || texts::load(Some(&file)).expect("a cache");
    let mut cached = open(&bare.0, load(), TOKENS).expect("a cache is enough");
    assert!(cached.encode_all(&prompts).expect("all are there") == expected, "a cached prompt differs");
    assert_eq!(cached.context_tokens(), whole.context_tokens());
    texts::save(&mut cached, Some(&file)).expect("nothing to do");
    assert!(std::fs::read(&file).expect("a file") == written, "an unchanged cache was written again");
    let error = cached.encode("a blue fish").expect_err("not there").to_string();
    assert!(error.contains("`a blue fish`") && error.contains("no text encoders"), "{error}");

    // With the encoders there, a missing prompt is added; without cache or prompts, they must be there.
    let mut whole = open(&model, load(), TOKENS).expect("a model");
    assert!(whole.encode("a blue fish").expect("encoded") != expected[0]);
    texts::save(&mut whole, Some(&file)).expect("written");
    let mut cached = open(&bare.0, load(), TOKENS).expect("a cache is enough");
    assert!(cached.encode("a blue fish").is_ok() && cached.encode("").is_ok());
    for cache in [None, Some(TextCache::new())] {
        let error = open(&bare.0, cache, TOKENS).err().expect("no encoders");
        assert!(error.contains("text_encoder"), "{error}");
    }
}

#[test]
fn a_stale_cache_is_refused() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons");
    let mut whole = open(&model, Some(TextCache::new()), 256).expect("a model");
    whole.encode("x").expect("a run");
    let cache = whole.text_cache_mut().expect("a cache").clone();
    let error = open(&model, Some(cache.clone()), 128).err().expect("another length");
    assert!(error.contains("another model, adapter or length of text"), "{error}");

    let other = without_encoders("stale");
    for part in ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"] {
        copy(&model.join(part), &other.0.join(part));
    }
    assert!(open(&other.0, Some(cache.clone()), 256).is_ok(), "a copy of the model is the same model");
    let file = other.0.join("text_encoder/model.safetensors");
    let mut bytes = std::fs::read(&file).expect("weights");
    // Train it: every number changes a little.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    bytes[header..].iter_mut().step_by(2).for_each(|b| *b ^= 1);
    std::fs::write(&file, bytes).expect("written");
    let error = open(&other.0, Some(cache), 256).err().expect("other weights");
    assert!(error.contains("another model, adapter or length of text"), "{error}");
}

/// An adapter of a text encoder changes prompts, so a cache never holds those of another one, or of another strength.
#[test]
fn a_cache_knows_its_adapter() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons");
    let folder = ModelFolder::open(&model).expect("a model folder");
    let layers = pipeline::layers(&folder).expect("its layers");
    let pairs = |target: &str, b: f32| -> Pairs {
        let layer = layers[target];
        let pair = Pair::new(1, vec![0.1; layer.inputs], vec![b; layer.outputs], 1.0).expect("factors");
        [(target.to_string(), pair)].into()
    };
    let open = |pairs: &Pairs, cache: &TextCache| {
        let text = TextSettings { cache: Some(cache.clone()), ..TextSettings::default() };
        Pipeline::open_with(&folder, Box::new(Cpu::new()), pairs.clone(), text).map_err(|e| e.to_string())
    };
    let encoder = "text_encoder_2.text_model.encoder.layers.1.mlp.fc2";
    let (none, transformer) = (Pairs::new(), pairs("transformer_blocks.1.attn2.to_k", 0.1));
    let kinds = [none, pairs(encoder, 0.1), pairs(encoder, 0.2)];
    let mut caches = Vec::new();
    let mut texts = Vec::new();
    for pairs in &kinds {
        let mut pipeline = open(pairs, &TextCache::new()).expect("a model");
        texts.push(pipeline.encode("a red fish").expect("a run"));
        caches.push(pipeline.text_cache_mut().expect("a cache").clone());
    }
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2]);
    for (i, cache) in caches.iter().enumerate() {
        for (j, pairs) in kinds.iter().enumerate() {
            let opened = open(pairs, cache);
            assert_eq!(opened.is_ok(), i == j, "cache {i}, adapter {j}");
            if let Err(text) = opened {
                assert!(text.contains("another model, adapter or length of text"), "{text}");
            }
        }
    }
    // The transformer's part says nothing about prompts.
    assert!(open(&transformer, &caches[0]).is_ok() && open(&transformer, &caches[1]).is_err());
    // Without encoders, only prompts of the encoders as they are can be believed.
    let bare = without_encoders("adapted");
    for (cache, believed) in caches.iter().zip([true, false, false]) {
        let opened = self::open(&bare.0, Some(cache.clone()), 256);
        assert_eq!(opened.is_ok(), believed);
        if let Err(text) = opened {
            assert!(text.contains("prompts of adapted ones"), "{text}");
        }
    }
}

/// A whole pipeline folder with T5: its prompts reach the transformer, and they matter.
#[test]
fn t5_reaches_the_transformer() {
    let path = root().join("trace/main/pipeline");
    if !path.join("text_encoder_3").is_dir() {
        println!("SKIPPED: no golden folder {} with text_encoder_3", path.display());
        return;
    }
    const TOKENS: usize = 9;
    let mut pipeline = open(&path, None, TOKENS).expect("a model");
    let mut texts = pipeline.encode_all(&["a cat", "a dog"]).expect("a run");
    let width = pipeline.mmdit.joint_attention_dim;
    assert_eq!(texts[0].context.len(), pipeline.context_tokens() * width);
    let t5 = texts[0].context.len() - TOKENS * width;
    assert!(texts[0].context[t5..] != texts[1].context[t5..], "T5 does not see the prompt");
    let side = pipeline.latent_size(pipeline.native_size(), pipeline.native_size()).expect("its own size");
    let velocity = pipeline.velocity(1, side).expect("a plan");
    let latents: Vec<f32> =
        (0..side[0] * side[1] * pipeline.mmdit.in_channels).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut of = |text: &pentimento_runtime::pipeline::Text| {
        pipeline.write_velocity(velocity, &latents, 0.5, &[text], None).expect("inputs");
        pipeline.exec.run(velocity.plan).expect("a run");
        pipeline.read_velocity(velocity, None).expect("a velocity")
    };
    let first = of(&texts[0]);
    texts[0].context[t5..].fill(0.0);
    let without = of(&texts[0]);
    assert!(first.iter().all(|v| v.is_finite()) && first != without);
}
