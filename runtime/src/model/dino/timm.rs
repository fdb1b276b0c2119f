//! DINOv2 as timm stores it: the architecture by name, and other names for the same tensors.
use super::super::{Cubic, Fields};
use super::DinoConfig;
use crate::Result;
use crate::weights::{Part, Weights};
use alloc::string::{String, ToString};
use alloc::{format, vec, vec::Vec};
use serde_json::Value;

/// Widths of timm's architectures: name, `embed_dim`, `depth`, `num_heads`, `mlp_ratio`, gated MLP.
const SIZES: [(&str, usize, usize, usize, f64, bool); 4] = [
    ("small", 384, 12, 6, 4.0, false),
    ("base", 768, 12, 12, 4.0, false),
    ("large", 1024, 24, 16, 4.0, false),
    ("giant", 1536, 40, 24, 2.66667 * 2.0, true),
];

/// Reads `architecture`, and what `model_args` and `pretrained_cfg` change about it.
pub(super) fn config(f: &Fields) -> Result<DinoConfig> {
    let architecture = f.get("architecture").and_then(Value::as_str).unwrap_or_default();
    let Some((size, patch_size, registers)) = parse(architecture) else {
        let expected = "vit_{small,base,large,giant}_patch{size}[_reg{count}]_dinov2";
        return Err(f.bad("architecture", expected, architecture));
    };
    let none = Value::Object(Default::default());
    let args = Fields::new(f.get("model_args").unwrap_or(&none), f.label)?;
    let or = |name: &str, default: usize| match args.get(name) {
        Some(_) => args.size(name),
        None => Ok(default),
    };
    let (_, width, depth, heads, ratio, gated) = SIZES[size];
    let hidden_size = or("embed_dim", width)?;
    let ratio = args.number("mlp_ratio", Some(ratio))?;
    let inside = libm::trunc(hidden_size as f64 * ratio) as usize;
    let registers = or("reg_tokens", registers)?;
    Ok(DinoConfig {
        hidden_size,
        num_hidden_layers: or("depth", depth)?,
        num_attention_heads: or("num_heads", heads)?,
        intermediate_size: if gated { inside / 2 } else { inside },
        image_size: or("img_size", native_size(f)?)?,
        patch_size: or("patch_size", patch_size)?,
        layer_norm_eps: 1e-6,
        qkv_bias: args.flag("qkv_bias", true)?,
        use_swiglu_ffn: gated,
        num_register_tokens: registers,
        // Where there are registers, the class token's position is folded into the token (`no_embed_class`).
        class_position: !args.flag("no_embed_class", registers > 0)?,
        position_resampling: Cubic::Antialiased,
    })
}

/// Side of `pretrained_cfg.input_size` `[3, H, W]`; 518 without one.
fn native_size(f: &Fields) -> Result<usize> {
    let Some(size) = f.get("pretrained_cfg").and_then(|c| c.get("input_size")) else { return Ok(518) };
    match size.as_array().map(Vec::as_slice) {
        Some([channels, height, width]) if channels.as_u64() == Some(3) && height == width => {
            f.as_size("pretrained_cfg.input_size", height)
        }
        _ => Err(f.bad("pretrained_cfg.input_size", "3 channels and two equal sides", size)),
    }
}

/// (entry of [`SIZES`], patch side, registers) of an architecture's name.
fn parse(architecture: &str) -> Option<(usize, usize, usize)> {
    let name = architecture.split('.').next()?; // ".lvd142m" names the training data
    let parts: Vec<&str> = name.strip_prefix("vit_")?.strip_suffix("_dinov2")?.split('_').collect();
    let (size, patch, registers) = match *parts.as_slice() {
        [size, patch] => (size, patch, None),
        [size, patch, registers] => (size, patch, Some(registers)),
        _ => return None,
    };
    let size = SIZES.iter().position(|s| s.0 == size)?;
    let count = |text: &str, prefix: &str| {
        text.strip_prefix(prefix)?.parse::<usize>().ok().filter(|n| (1..=1024).contains(n))
    };
    let registers = match registers {
        Some(text) => count(text, "reg")?,
        None => 0,
    };
    Some((size, count(patch, "patch")?, registers))
}

/// The weights under transformers' names, whichever library's they have.
///
/// # Errors
/// Names of both libraries at once; a fused projection that cannot be parted in three.
pub fn transformers_names(cfg: &DinoConfig, weights: &Weights) -> Result<Weights> {
    if weights.contains("patch_embed.proj.weight") {
        weights.renamed(|name| rename(cfg, name))
    } else {
        Ok(weights.clone())
    }
}

fn rename(cfg: &DinoConfig, name: &str) -> Vec<Part> {
    let whole = |name: &str| vec![Part::whole(name)];
    match name {
        "cls_token" => return whole("embeddings.cls_token"),
        "reg_token" => return whole("embeddings.register_tokens"),
        "pos_embed" => return whole("embeddings.position_embeddings"),
        _ => {}
    }
    if let Some(end) = name.strip_prefix("patch_embed.proj.") {
        return vec![Part::whole(format!("embeddings.patch_embeddings.projection.{end}"))];
    }
    if let Some(end) = name.strip_prefix("norm.") {
        return vec![Part::whole(format!("layernorm.{end}"))];
    }
    let Some((n, rest)) = name.strip_prefix("blocks.").and_then(|r| r.split_once('.')) else {
        return whole(name);
    };
    let layer = format!("encoder.layer.{n}");
    if let Some(end) = rest.strip_prefix("attn.qkv.") {
        return Part::split(
            ["query", "key", "value"].map(|part| format!("{layer}.attention.attention.{part}.{end}")),
        );
    }
    vec![Part::whole(format!("{layer}.{}", inside_layer(cfg, rest)))]
}

/// A tensor of one layer; norms and plain MLPs have the same names in both libraries.
fn inside_layer(cfg: &DinoConfig, rest: &str) -> String {
    let mlp = |name: &str| if cfg.use_swiglu_ffn { name.to_string() } else { String::new() };
    for (timm, transformers) in [
        ("attn.proj.", "attention.output.dense.".to_string()),
        ("ls1.gamma", "layer_scale1.lambda1".to_string()),
        ("ls2.gamma", "layer_scale2.lambda1".to_string()),
        ("mlp.fc1.", mlp("mlp.weights_in.")),
        ("mlp.fc2.", mlp("mlp.weights_out.")),
    ] {
        if let Some(end) = rest.strip_prefix(timm).filter(|_| !transformers.is_empty()) {
            return transformers + end;
        }
    }
    rest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<DinoConfig> {
        DinoConfig::from_value(&serde_json::from_str(json).unwrap(), "reward/config.json")
    }

    #[test]
    fn architectures_are_read_by_name() {
        let base = read(r#"{"architecture":"vit_base_patch14_dinov2.lvd142m"}"#).unwrap();
        assert_eq!(base, DinoConfig { position_resampling: Cubic::Antialiased, ..DinoConfig::base() });
        let giant = read(r#"{"architecture":"vit_giant_patch14_reg4_dinov2"}"#).unwrap();
        assert_eq!((giant.intermediate_size, giant.num_register_tokens), (4096, 4));
        assert!(giant.use_swiglu_ffn && !giant.class_position);
        let small =
            r#"{"architecture":"vit_small_patch14_dinov2","pretrained_cfg":{"input_size":[3,28,28]}}"#;
        assert_eq!(read(small).unwrap().grid(), 2);
    }

    #[test]
    fn other_architectures_are_refused() {
        for name in ["vit_base_patch14", "vit_huge_patch14_dinov2", "vit_base_patch0_dinov2", "resnet50", ""]
        {
            let text = read(&format!(r#"{{"architecture":"{name}"}}"#)).unwrap_err();
            assert!(format!("{text}").starts_with("reward/config.json: `architecture`"), "{text}");
        }
        assert!(
            read(r#"{"architecture":"vit_base_patch14_dinov2","pretrained_cfg":{"input_size":[3,28,42]}}"#)
                .is_err()
        );
    }

    #[test]
    fn names_are_translated() {
        let name =
            |cfg: &DinoConfig, name: &str| rename(cfg, name).into_iter().map(|p| p.name).collect::<Vec<_>>();
        let (plain, gated) = (DinoConfig::base(), DinoConfig { use_swiglu_ffn: true, ..DinoConfig::base() });
        assert_eq!(name(&plain, "blocks.3.mlp.fc1.bias"), ["encoder.layer.3.mlp.fc1.bias"]);
        assert_eq!(name(&gated, "blocks.3.mlp.fc1.bias"), ["encoder.layer.3.mlp.weights_in.bias"]);
        assert_eq!(name(&plain, "blocks.0.norm2.weight"), ["encoder.layer.0.norm2.weight"]);
        assert_eq!(name(&plain, "blocks.0.attn.qkv.bias")[1], "encoder.layer.0.attention.attention.key.bias");
        assert_eq!(name(&plain, "head.weight"), ["head.weight"]);
    }
}
