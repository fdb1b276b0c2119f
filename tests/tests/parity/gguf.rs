//! GGUF: every element type, and transformers that run from quantised files.
use crate::common::executors;
use crate::transformer::{Inputs, sample};
use pentimento_runtime::folder::{ModelFolder, open_tensors};
use pentimento_runtime::model::mmdit;
use pentimento_runtime::weights::{Base, Weights};
use serde_json::Value;
use std::path::PathBuf;
use tests::fixture::{Check, Golden};

/// Bits of a tensor: equality that tells zeros apart and knows NaN.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The file of an expectation `<set>.<kind>.sample`.
fn file(golden: &Golden, set: &str, kind: &str) -> Option<PathBuf> {
    let part = format!("_{set}_{kind}_");
    let names = golden.json["checkpoint"].as_array().expect("a list of files");
    let name = names.iter().filter_map(Value::as_str).find(|n| n.contains(&part) && n.ends_with(".gguf"));
    let path = golden.path.join(name.unwrap_or_else(|| panic!("a file for {set}.{kind}")));
    if !path.is_file() {
        println!("SKIPPED: no {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn every_block_type_is_exact() {
    let Some(golden) = Golden::find("gguf") else { return };
    let weights = open_tensors(&golden.path.join("blocks.gguf")).expect("a GGUF file");
    let mut check = Check::new(&golden, "host");
    for name in golden.names().filter(|n| n.starts_with("blocks.") && *n != "blocks.source") {
        let stored = name.replacen("blocks.", "t.", 1);
        let view = weights.expect(&stored, golden.shape(name)).expect("a tensor");
        check.exact(name, &bits(&view.to_f32().expect("room")), &bits(golden.floats(name)));
        assert_eq!(
            view.rows(1, 1).expect("room").expect("a row"),
            view.to_f32().expect("room")[view.shape[1]..2 * view.shape[1]],
            "{name}"
        );
    }
    check.finish();
}

/// Quantising gives gguf-py's bytes.
#[test]
fn quantised_blocks_are_exact() {
    let Some(golden) = Golden::find("gguf") else { return };
    let weights = open_tensors(&golden.path.join("blocks.gguf")).expect("a GGUF file");
    for base in [Base::Q8, Base::Q4] {
        let view = weights.get(&format!("t.{:?}", base.stored())).expect("a tensor");
        let mut source = golden.floats("blocks.source").to_vec();
        assert_eq!(base.quantise(&source).expect("room"), view.bytes, "{base:?}");
        source[40] = 9.0;
        assert_ne!(base.quantise(&source).expect("room"), view.bytes, "{base:?}");
    }
}

/// `t` under its own name or with the prefix of stable-diffusion.cpp.
fn stored<'a>(weights: &'a Weights, t: &str) -> pentimento_runtime::weights::TensorView<'a> {
    weights.get(t).or_else(|_| weights.get(&format!("model.diffusion_model.{t}"))).expect("a tensor")
}

/// The configuration of a set of files.
fn config(golden: &Golden, set: &str) -> mmdit::MmditConfig {
    let text = std::fs::read_to_string(golden.path.join(format!("config_{set}.json"))).expect("a config");
    let json = serde_json::from_str(&text).expect("JSON");
    mmdit::MmditConfig::from_value(&json, "config.json").expect("a config")
}

#[test]
fn transformers_run_from_quantised_files() {
    let Some(golden) = Golden::find("gguf") else { return };
    let samples: Vec<String> = golden.names().filter(|n| n.ends_with(".sample")).map(String::from).collect();
    assert!(!samples.is_empty(), "the golden file holds samples");
    for expectation in samples {
        let (set, kind) =
            expectation.trim_end_matches(".sample").split_once('.').expect("<set>.<kind>.sample");
        let Some(path) = file(&golden, set, kind) else { continue };
        let raw = open_tensors(&path).expect("a GGUF file");
        let sums = &golden.json["checksums"][path.file_name().and_then(|n| n.to_str()).expect("a name")];
        let mut check = Check::new(&golden, "host");
        for name in golden.names().filter(|n| n.starts_with(&format!("{set}.{kind}.dequant."))) {
            let t = stored(&raw, &name[format!("{set}.{kind}.dequant.").len()..]);
            assert_eq!(t.shape, golden.shape(name), "{name}");
            check.exact(name, &bits(&t.to_f32().expect("room")), &bits(golden.floats(name)));
        }
        check.finish();
        for (name, want) in sums.as_object().into_iter().flatten() {
            let values = stored(&raw, name).to_f32().expect("room");
            let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
            let abs: f64 = values.iter().map(|&v| f64::from(v).abs()).sum();
            let (s, a) = (want[0].as_f64().expect("a sum"), want[1].as_f64().expect("a sum"));
            assert!(
                (sum - s).abs() <= 1e-6 * a && (abs - a).abs() <= 1e-6 * a,
                "{name}: {sum} {abs}, {want}"
            );
        }

        let cfg = config(&golden, set);
        let folder = ModelFolder::open(&path).expect("a model");
        // The norms of queries tell the width of a head.
        if cfg.qk_norm {
            let inferred = folder.component_config("transformer").expect("a config");
            assert_eq!(mmdit::MmditConfig::from_value(&inferred, "shapes").expect("a config"), cfg);
        }
        let weights = folder.single_file().and_then(|s| s.component("transformer")).expect("weights");
        let inputs = Inputs::with_prefix(&golden, &format!("{set}."));
        for (name, mut exec) in executors("GGUF") {
            let mut check = Check::new(&golden, &name);
            check.tensor(&expectation, &sample(exec.as_mut(), &cfg, None, weights, &inputs));
            check.finish();
        }
    }
}

/// A quantised file against the expectation of another quantisation must fail.
#[test]
fn another_files_weights_fail() {
    let Some(golden) = Golden::find("gguf") else { return };
    let samples: Vec<&str> = golden.names().filter(|n| n.ends_with(".sample")).collect();
    let pair = samples.iter().flat_map(|a| samples.iter().map(move |b| (*a, *b)));
    let same_set = |(a, b): &(&str, &str)| a != b && a.split('.').next() == b.split('.').next();
    let Some((a, b)) = pair.into_iter().find(same_set) else { return };
    let (set, kind) = a.trim_end_matches(".sample").split_once('.').expect("<set>.<kind>.sample");
    let Some(path) = file(&golden, set, kind) else { return };
    let folder = ModelFolder::open(&path).expect("a model");
    let cfg = config(&golden, set);
    let weights = folder.single_file().and_then(|s| s.component("transformer")).expect("weights");
    let inputs = Inputs::with_prefix(&golden, &format!("{set}."));
    let got = sample(&mut pentimento_runtime::exec::cpu::Cpu::new(), &cfg, None, weights, &inputs);
    assert!(tests::fixture::within(&got, golden.floats(b), golden.tolerance(b)).is_err(), "{a} is not {b}");
}
