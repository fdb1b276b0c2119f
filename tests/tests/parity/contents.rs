//! What checkpoints hold against what the networks read: golden checkpoints are complete, damaged ones are not.
use crate::common::model;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::model::contents::{self, Contents, Needs};
use pentimento_runtime::weights::Weights;
use std::path::PathBuf;
use tests::fixture::{folders, rewritten, root};

/// Model folders of every kind that is read.
fn models() -> Vec<PathBuf> {
    let mut all = folders("transformer", "_class_name", "SD3Transformer2DModel");
    all.extend(folders("vae", "_class_name", "AutoencoderKL"));
    all.extend(folders("text", "model_type", "clip_text_model"));
    all.extend(folders("dino", "model_type", "dinov2"));
    all
}

fn complete(place: &str, weights: &Weights, needs: &Needs) {
    let found = Contents::of(weights, Some(needs));
    assert_eq!((&found.missing, &found.wrong, &found.unknown), (&vec![], &vec![], &vec![]), "{place}");
    found.usable(place).expect("a usable checkpoint");
}

#[test]
fn golden_checkpoints_are_complete() {
    for path in models() {
        let (_, config, weights) = model(&path);
        let place = path.display().to_string();
        complete(&place, &weights, &contents::of(&config, &place).expect("a config"));
    }
}

/// Transformers of single files and GGUF files, by the configuration that their shapes tell.
#[test]
fn single_files_are_complete() {
    let inside = ["transformer/single_file", "gguf"].map(|f| std::fs::read_dir(root().join(f)));
    let files = inside.into_iter().flatten().flatten().flatten().map(|e| e.path());
    let is_model = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        (name.ends_with(".gguf") && name != "blocks.gguf")
            || (name.ends_with(".safetensors") && name != "golden.safetensors")
    };
    for path in files.filter(is_model) {
        let place = path.display().to_string();
        let model = ModelFolder::open(&path).expect("a single file");
        let config = model.component_config("transformer");
        let stored = model.single_file().and_then(|s| s.component("transformer")).expect("a transformer");
        if config.is_err() && !stored.contains("transformer_blocks.0.attn.norm_q.weight") {
            println!("SKIPPED: without norms of queries, nothing tells how wide a head of {place} is");
            continue;
        }
        let needs = contents::of(&config.expect("shapes that make a configuration"), &place);
        let weights = model.component_weights("transformer").expect("weights");
        complete(&place, &weights, &needs.expect("a config"));
    }
}

/// Without a tensor, with one too many, and with one of another shape, it is said which.
#[test]
fn damage_is_named() {
    for path in models() {
        let (_, config, weights) = model(&path);
        let needs = contents::of(&config, "config.json").expect("a config");
        let victim = needs.keys().nth(needs.len() / 2).expect("a tensor");
        let store = |v: f32| v.to_le_bytes().to_vec();
        let without = rewritten(&weights, "F32", |n| (n != victim).then(|| n.to_string()), store);
        let found = Contents::of(&without, Some(&needs));
        assert_eq!((&found.missing, found.unknown.len()), (&vec![victim.clone()], 0), "{}", path.display());
        assert!(found.usable("m").unwrap_err().to_string().contains(victim.as_str()));
        let renamed =
            rewritten(&weights, "F32", |n| Some(if n == victim { "x" } else { n }.to_string()), store);
        let found = Contents::of(&renamed, Some(&needs));
        assert_eq!((found.missing.len(), &found.unknown), (1, &vec!["x".to_string()]));
        let mut other = needs.clone();
        let need = other.get_mut(victim).expect("a need");
        need.shape.iter_mut().for_each(|n| *n += 1);
        let found = Contents::of(&weights, Some(&other));
        assert_eq!(found.wrong.len(), 1, "{}", path.display());
        assert!(found.usable("m").unwrap_err().to_string().contains(victim.as_str()));
    }
}
