//! The smallest networks that have every part of those they stand for.
use crate::scratch::copy;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::lora::Lora;
use pentimento_runtime::model::mmdit::{TIME_CHANNELS, lora_targets, velocity};
use pentimento_runtime::model::{Cubic, clip_vision, dino, mmdit, vae};
use pentimento_wgsl::kernel::Act;
use std::fs;
use std::path::{Path, PathBuf};

/// Two heads of 64, one dual-attention block, patches of one latent position.
pub fn transformer(num_layers: usize) -> mmdit::MmditConfig {
    mmdit::MmditConfig {
        patch_size: 1,
        num_layers,
        num_attention_heads: 2,
        joint_attention_dim: 32,
        pooled_projection_dim: 16,
        pos_embed_max_size: 8,
        dual_attention_layers: vec![0],
        ..mmdit::MmditConfig::sd35_medium()
    }
}

/// Velocity of a rank 4 adapter and, with `train`, the gradient of every one of its matrices.
pub fn velocity_graph(
    cfg: &mmdit::MmditConfig,
    batch: usize,
    side: usize,
    tokens: usize,
    train: bool,
    recompute: bool,
) -> (Graph, Vec<(String, Id)>) {
    let mut g = Graph::new();
    let lora = Lora::joint(cfg, 4, 2.0);
    let x = g.input("latents", &[batch, side, side, cfg.in_channels]);
    let time = g.input("time", &[batch, TIME_CHANNELS]);
    let pooled = g.input("pooled", &[batch, cfg.pooled_projection_dim]);
    let context = g.input("context", &[batch, tokens, cfg.joint_attention_dim]);
    let v = velocity(&mut g, cfg, Some(&lora), x, time, pooled, context, None);
    let mut out = vec![("velocity".to_string(), v)];
    if train {
        let dy = g.input("dy", &[batch, side, side, cfg.in_channels]);
        let names = lora_targets(cfg).into_iter().flat_map(|(t, i, o)| {
            [(format!("lora/{t}.lora_A.weight"), [4, i]), (format!("lora/{t}.lora_B.weight"), [o, 4])]
        });
        let names: Vec<_> = names.collect();
        let wrt: Vec<Id> = names.iter().map(|(n, s)| g.param(n.clone(), s)).collect();
        let grads = gradients(&mut g, v, dy, &wrt, recompute).expect("gradients");
        out.extend(names.into_iter().map(|n| n.0).zip(grads));
    }
    (g, out)
}

/// Two blocks, the inner one `widest` channels wide: two pixels per latent along a side.
pub fn vae(widest: usize) -> vae::VaeConfig {
    vae::VaeConfig {
        block_out_channels: vec![8, widest],
        layers_per_block: 1,
        latent_channels: 4,
        norm_num_groups: 4,
        use_quant_conv: true,
        use_post_quant_conv: true,
        ..vae::VaeConfig::sd3()
    }
}

/// Two layers of two heads, patches of two pixels; with `registers`, those and the gated MLP as well.
pub fn dino(registers: bool) -> dino::DinoConfig {
    dino::DinoConfig {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        image_size: 6,
        patch_size: 2,
        use_swiglu_ffn: registers,
        num_register_tokens: if registers { 3 } else { 0 },
        position_resampling: if registers { Cubic::Antialiased } else { Cubic::Plain },
        ..dino::DinoConfig::base()
    }
}

/// Two layers of two heads, four patches of two pixels.
pub fn clip_vision() -> clip_vision::ClipVisionConfig {
    clip_vision::ClipVisionConfig {
        hidden_size: 8,
        intermediate_size: 12,
        projection_dim: 6,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 4,
        patch_size: 2,
        hidden_act: Act::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A whole model in a folder, of fixtures: a single GGUF file with all that it lacks beside it, a reward too. It draws 16 x 16
/// pixels, an image token. Returns the file.
pub fn model(folder: &Path) -> PathBuf {
    for (name, from) in [
        ("vae", "vae"),
        ("text_encoder", "text/clip_l"),
        ("text_encoder_2", "text/clip_l"),
        ("tokenizer", "text/tiny_tokenizers/clip_l"),
        ("tokenizer_2", "text/tiny_tokenizers/clip_l"),
        ("reward", "dino/hf_base"),
    ] {
        copy(&fixture(from), &folder.join(name));
    }
    let config = fs::read_to_string(fixture("gguf/config_S.json")).expect("a configuration");
    let mut config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    config["sample_size"] = 2.into();
    fs::create_dir(folder.join("transformer")).expect("a folder");
    fs::write(folder.join("transformer/config.json"), config.to_string()).expect("a file");
    let file = folder.join("model.gguf");
    fs::copy(fixture("gguf/sd35m_S_q4_0_sdcpp.gguf"), &file).expect("a copy");
    file
}
