//! `pentimento inspect` on every layout: what it prints, and that it fails with a reason where a file is unusable.
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::folder::open_component;
use pentimento_trainer::adapted::{self, Source};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
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

/// What opening a model with an adapter says, which is what `generate` does, is what `inspect --model` says.
#[test]
fn adapters_are_judged_as_generate_judges_them() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/models/icons");
    let scratch = std::env::temp_dir().join(format!("pentimento-judged-{}", std::process::id()));
    fs::create_dir_all(&scratch).expect("a folder");
    let attention = |n: usize, wide: usize| {
        let module = format!("transformer.transformer_blocks.{n}.attn2.to_q");
        vec![
            (format!("{module}.lora_A.weight"), vec![2, wide]),
            (format!("{module}.lora_B.weight"), vec![192, 2]),
        ]
    };
    let clip = "text_encoder.text_model.encoder.layers.0.mlp.fc1";
    let write = |name: &str, tensors: Vec<(String, Vec<usize>)>, value: f32| {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(n, s)| (n, s.clone(), value.to_le_bytes().repeat(s.iter().product())))
            .collect();
        let views =
            data.iter().map(|(n, s, b)| (n, TensorView::new(Dtype::F32, s.clone(), b).expect("a view")));
        let file = scratch.join(name);
        fs::write(&file, safetensors::serialize(views, None).expect("a file")).expect("written");
        file
    };
    let encoder = |wide: usize| {
        vec![
            (format!("{clip}.lora_A.weight"), vec![2, wide]),
            (format!("{clip}.lora_B.weight"), vec![256, 2]),
        ]
    };
    let whole = vec![("transformer.proj_out.weight".to_string(), vec![2, 2])];
    let mut verdicts = Vec::new();
    for file in [
        write("good.safetensors", attention(0, 192), 0.5),
        write("encoder.safetensors", encoder(64), 0.5),
        write("no-second-attention.safetensors", attention(3, 192), 0.5),
        write("narrow.safetensors", attention(0, 191), 0.5),
        write("narrow-encoder.safetensors", encoder(63), 0.5),
        write("nan.safetensors", attention(0, 192), f32::NAN),
        write("weights.safetensors", whole, 0.5),
        scratch.join("absent.safetensors"),
        model.join("vae"),
    ] {
        for strength in ["", ":0.5", ":1e39", ":-3e38"] {
            let text = format!("{}{strength}", file.display());
            let opened = Source::parse(OsStr::new(&text))
                .and_then(|source| adapted::open(&model, &[source], Box::new(Cpu::new())).map(drop));
            let out = Command::new(env!("CARGO_BIN_EXE_pentimento"))
                .args(["inspect", &text, "--model"])
                .arg(&model)
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.success(), opened.is_ok(), "{text}: {said}");
            let wanted = opened.err().map(|e| format!("error: {e}\n")).unwrap_or_default();
            assert_eq!(said, wanted, "{text}");
            verdicts.push(out.status.success());
        }
    }
    assert_eq!(verdicts[..8], [true, true, false, true, true, true, false, true]);
    assert!(verdicts[8..].iter().all(|ok| !ok), "{verdicts:?}");
    fs::remove_dir_all(&scratch).expect("removed");
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
