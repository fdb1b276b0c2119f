//! `pentimento inspect` on every layout: what it prints, and that it fails with a reason where a file is unusable.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pentimento::folder::open_component;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// Whether it succeeded, and all that it printed.
fn inspect(path: &Path) -> (bool, String) {
    let out =
        Command::new(env!("CARGO_BIN_EXE_pentimento")).arg("inspect").arg(path).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.success(), text(&out.stdout) + &text(&out.stderr))
}

#[test]
fn every_layout_is_described() {
    for (name, parts) in [
        ("transformer/sd35_medium", &["SD3Transformer2DModel", "parameters in", "f32"][..]),
        ("vae", &["AutoencoderKL", "parameters in"]),
        ("text/clip_l", &["clip_text_model"]),
        (
            "gguf/sd35m_S_q4_0_sdcpp.gguf",
            &["transformer: SD3Transformer2DModel", " q4_0: ", "vae: not in this file"],
        ),
        ("lora/peft", &["LoRA adapter", "rank 4", "transformer_blocks.0.attn.to_q"]),
        ("lora/diffusers", &["LoRA adapter"]),
        ("lora/diffusers_nometa/pytorch_lora_weights.safetensors", &["LoRA adapter"]),
    ] {
        let (ok, text) = inspect(&fixture(name));
        assert!(ok && parts.iter().all(|p| text.contains(p)), "{name}: {text}");
        assert!(!text.contains("missing:") && !text.contains("unknown:"), "{name}: {text}");
    }
}

#[test]
fn what_is_unusable_fails_with_a_reason() {
    let scratch = std::env::temp_dir().join(format!("pentimento-inspect-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a folder");
    let from = fixture("transformer/sd35_medium");
    fs::copy(from.join("config.json"), scratch.join("config.json")).expect("a copy");
    let weights = open_component(&from).expect("a model").weights().expect("weights");
    let file = scratch.join("diffusion_pytorch_model.safetensors");
    let gone = "transformer_blocks.0.attn.to_k.bias";
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .names()
        .map(|n| (n, weights.get(n).expect("a tensor")))
        .map(|(n, t)| (if n == gone { "extra" } else { n }.to_string(), t.shape.to_vec(), t.bytes.to_vec()))
        .collect();
    let views = data.iter().map(|(n, s, b)| (n, TensorView::new(Dtype::F32, s.clone(), b).expect("a view")));
    let bytes = safetensors::serialize(views, None).expect("a file");
    fs::write(&file, &bytes).expect("written");
    let (ok, text) = inspect(&scratch);
    assert!(
        !ok && text.contains("missing: 1") && text.contains("unknown: 1") && text.contains("    extra"),
        "{text}"
    );
    assert!(text.contains(&format!("missing tensor `{gone}`")), "{text}");

    fs::write(&file, &bytes[..bytes.len() / 2]).expect("written");
    let (ok, text) = inspect(&scratch);
    assert!(!ok && text.contains("Is the file complete?"), "{text}");
    fs::write(&file, [&300u64.to_le_bytes()[..], &[b'x'; 400]].concat()).expect("written");
    assert!(!inspect(&file).0);
    let (ok, text) = inspect(&scratch.join("absent"));
    assert!(!ok && text.contains("no such file or folder"), "{text}");
    fs::remove_dir_all(&scratch).expect("removed");
}
