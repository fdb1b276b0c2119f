//! Single files in the original layout give what the diffusers folders give that they were made from.
use crate::common::{executors, model};
use crate::text;
use crate::transformer::{Inputs, sample};
use crate::vae;
use half::{bf16, f16};
use pentimento_runtime::folder::{ModelFolder, open_component};
use pentimento_runtime::layout::SingleFile;
use pentimento_runtime::model::{clip, mmdit};
use pentimento_runtime::weights::Weights;
use std::path::{Path, PathBuf};
use tests::fixture::{Check, Golden, rewritten, root};

/// The fixture's file, and the folder of the transformer it was made from.
fn fixture() -> Option<(PathBuf, PathBuf)> {
    let folder = root().join("transformer/single_file");
    let text = std::fs::read_to_string(folder.join("golden.json")).ok();
    let inside = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path());
    let file = inside.into_iter().find(|p| p.extension().is_some_and(|e| e == "safetensors"));
    let (Some(text), Some(file)) = (text, file) else {
        println!("SKIPPED: no single file in {}", folder.display());
        return None;
    };
    let json: serde_json::Value = serde_json::from_str(&text).expect("golden.json is JSON");
    let config =
        json["config"].as_str().and_then(|s| s.split_whitespace().find(|w| w.ends_with("config.json")));
    let base = folder.join(config.expect("`config` names the base's config.json"));
    let base = base.parent().expect("a folder").to_path_buf();
    if !base.join("golden.json").is_file() {
        println!("SKIPPED: no base model {}", base.display());
        return None;
    }
    Some((file, base))
}

fn component(file: &Path, name: &str) -> Weights {
    let single = ModelFolder::open(file).expect("a single file");
    single.single_file().and_then(|s| s.component(name)).expect("the component").clone()
}

/// Only the transformer, without prefix, as diffusion-only files have it.
fn bare(file: &Weights) -> Weights {
    rewritten(
        file,
        "F16",
        |name| name.strip_prefix("model.diffusion_model.").map(String::from),
        |v| f16::from_f32(v).to_le_bytes().to_vec(),
    )
}

#[test]
fn transformers_from_single_files_agree() {
    let Some((path, base)) = fixture() else { return };
    let golden = Golden::open(&base);
    let (_, config, _) = model(&base);
    let cfg = mmdit::MmditConfig::from_value(&config, "config.json").expect("a config");
    let file = pentimento_runtime::folder::open_tensors(&path).expect("a file");
    let single = SingleFile::split(&file).expect("a single file");
    // The norms of queries tell the width of a head.
    if cfg.qk_norm {
        let inferred = single.config("transformer").expect("shapes that make a configuration");
        let inferred = mmdit::MmditConfig::from_value(&inferred, "shapes").expect("a config");
        assert_eq!(inferred, cfg, "shapes tell everything");
    }
    let keep = |name: &str| Some(name.to_string());
    let f32s = rewritten(&file, "F32", keep, |v| v.to_le_bytes().to_vec());
    let split = |w: &Weights| SingleFile::split(w).expect("a single file").component("transformer").cloned();
    let variants =
        [("as it is", split(&file)), ("without prefix", split(&bare(&file))), ("f32", split(&f32s))];
    let inputs = Inputs::new(&golden);
    for (what, weights) in variants {
        let weights = weights.expect("a transformer");
        for (name, mut exec) in executors("single file") {
            let place = format!("{name}, single file {what}");
            let mut check = Check::new(&golden, &place);
            check.tensor("sample_f16w", &sample(exec.as_mut(), &cfg, None, &weights, &inputs));
            check.finish();
        }
    }
}

/// Every tensor of every component is bit for bit the rounded one of its folder, in f16, f32 and bf16 storage.
#[test]
fn every_tensor_of_a_single_file_is_the_folders() {
    let Some((path, base)) = fixture() else { return };
    let file = pentimento_runtime::folder::open_tensors(&path).expect("a file");
    let keep = |name: &str| Some(name.to_string());
    let bf16s = rewritten(&file, "BF16", keep, |v| bf16::from_f32(v).to_le_bytes().to_vec());
    let f32s = rewritten(&file, "F32", keep, |v| v.to_le_bytes().to_vec());
    let half = |v: f32| f16::from_f32(v).to_f32();
    let brain = |v: f32| bf16::from_f32(half(v)).to_f32();
    let roundings: [(&Weights, &dyn Fn(f32) -> f32); 3] = [(&file, &half), (&f32s, &half), (&bf16s, &brain)];
    let folders = [
        ("transformer", base),
        ("vae", root().join("vae")),
        ("text_encoder", root().join("text/clip_l")),
        ("text_encoder_2", root().join("text/clip_g")),
        ("text_encoder_3", root().join("text/t5")),
    ];
    for (file, round) in roundings {
        let single = SingleFile::split(file).expect("a single file");
        assert_eq!(single.unknown(), [""; 0], "nothing is left over");
        for (name, folder) in &folders {
            let Some(got) = single.component(name) else { continue };
            let Ok(folder) = open_component(folder) else {
                println!("SKIPPED: no folder for {name}");
                continue;
            };
            let want = folder.weights().expect("weights");
            for tensor in want.names() {
                let want = want.get(tensor).expect("a tensor");
                let Ok(got) = got.expect(tensor, want.shape) else {
                    // Tied weights are stored once in either.
                    assert!(
                        tensor.ends_with("embed_tokens.weight"),
                        "{name}: {tensor} is in the single file"
                    );
                    continue;
                };
                let want = want.to_f32().expect("room").into_iter().map(|v| round(v).to_bits());
                assert!(
                    got.to_f32().expect("room").iter().map(|v| v.to_bits()).eq(want),
                    "{name}: {tensor} differs"
                );
            }
            for tensor in got.names() {
                assert!(want.contains(tensor), "{name}: {tensor} is in the folder");
            }
        }
    }
}

#[test]
fn autoencoders_and_text_encoders_from_single_files_agree() {
    let Some((path, _)) = fixture() else { return };
    if let Some(golden) = Golden::find("vae") {
        let (_, config, _) = model(&golden.path);
        let cfg =
            pentimento_runtime::model::vae::VaeConfig::from_value(&config, "config.json").expect("a config");
        let weights = component(&path, "vae");
        for (name, mut exec) in executors("VAE of a single file") {
            let place = format!("{name}, single file");
            let mut check = Check::new(&golden, &place);
            vae::decode(exec.as_mut(), &cfg, &weights, &golden, &mut check, "_f16w", usize::MAX);
            vae::encode(exec.as_mut(), &cfg, &weights, &golden, &mut check, "_f16w", usize::MAX);
            check.finish();
        }
    }
    for (folder, name) in [("text/clip_l", "text_encoder"), ("text/clip_g", "text_encoder_2")] {
        let Some(golden) = Golden::find(folder) else { continue };
        let (_, config, _) = model(&golden.path);
        let cfg = clip::ClipConfig::from_value(&config, "config.json").expect("a config");
        text::compare(&golden, &cfg, &component(&path, name), "_f16w");
    }
}

/// The comparison fails where halves are not exchanged, or q and k are.
#[test]
fn wrong_splits_fail() {
    let Some((path, base)) = fixture() else { return };
    let golden = Golden::open(&base);
    let (_, config, folder) = model(&base);
    let cfg = mmdit::MmditConfig::from_value(&config, "config.json").expect("a config");
    let good = component(&path, "transformer");
    let change = |from: &'static str, to: &'static str| {
        let name = move |n: &str| {
            Some(if n == from {
                to.into()
            } else if n == to {
                from.into()
            } else {
                n.to_string()
            })
        };
        rewritten(&good, "F16", name, |v| f16::from_f32(v).to_le_bytes().to_vec())
    };
    let swapped = change("transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.to_k.weight");
    let plain = tests::fixture::to_f16(&folder);
    let unswapped = {
        let halves = good.get("norm_out.linear.weight").expect("a tensor").to_f32().expect("room");
        let (a, b) = halves.split_at(halves.len() / 2);
        let back = [b, a].concat();
        let stored = plain.get("norm_out.linear.weight").expect("a tensor").to_f32().expect("room");
        assert_ne!(back, stored, "the file has the other order");
        swapped
    };
    let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
    let got = sample(&mut exec, &cfg, None, &unswapped, &Inputs::new(&golden));
    let tol = golden.tolerance("sample_f16w");
    assert!(tests::fixture::within(&got, golden.floats("sample_f16w"), tol).is_err(), "q and k exchanged");
}
