//! Keys of adapter files: which layers of the model each names, in any of the forms that are read.
//!
//! diffusers and PEFT name the layers of the diffusers model. Kohya's `lora_unet_…` and the original layout's
//! `diffusion_model.joint_blocks.…` name the original model's, where q, k and v are one layer.
use pentimento::layout::{self, Rename};
use pentimento::{Error, Result};

/// What a key holds.
#[derive(Clone, Copy)]
pub(super) enum Half {
    A,
    B,
    Alpha,
}

/// The layers that one pair of factors corrects: one, or the parts of a fused one from the top row.
pub(super) type Targets = Vec<String>;

const SUFFIXES: [(&str, Half); 5] = [
    (".lora_A.weight", Half::A),
    (".lora_B.weight", Half::B),
    (".lora_down.weight", Half::A),
    (".lora_up.weight", Half::B),
    (".alpha", Half::Alpha),
];

/// Splits a key into the layers it adapts and what it holds.
pub(super) fn split(label: &str, key: &str) -> Result<(Targets, Half)> {
    let unknown = |hint: &str| {
        let expected = "a LoRA key such as `transformer.transformer_blocks.0.attn.to_q.lora_A.weight`";
        Err(Error::bad(label, expected, format!("`{key}`")).with_hint(hint))
    };
    if key.starts_with("lora_te") || key.starts_with("text_encoder") {
        return unknown("Adapters of text encoders are not supported; remove these tensors.");
    }
    let found = SUFFIXES.iter().find_map(|(suffix, half)| Some((key.strip_suffix(suffix)?, *half)));
    let Some((module, half)) = found.filter(|(module, _)| !module.is_empty()) else {
        return unknown(
            "This key is not part of a plain LoRA; DoRA, LoHa, LoKr and full weights are not supported.",
        );
    };
    if let Some(name) = module.strip_prefix("lora_unet_") {
        return match kohya(name) {
            Some(targets) => Ok((targets, half)),
            None => unknown("No layer of an SD3 transformer has this name in Kohya's layout."),
        };
    }
    let prefixes = ["base_model.model.", "transformer.", "model.diffusion_model.", "diffusion_model."];
    let name = prefixes.iter().fold(module, |name, prefix| name.strip_prefix(prefix).unwrap_or(name));
    if name.starts_with("joint_blocks.") {
        return match layout::module(name, None) {
            Some(rename) => Ok((targets(rename), half)),
            None => unknown("No layer of an SD3 transformer has this name in the original layout."),
        };
    }
    if name.is_empty() {
        return unknown("It names no layer.");
    }
    Ok((vec![name.to_string()], half))
}

fn targets(rename: Rename) -> Targets {
    match rename {
        Rename::To(name) | Rename::Swap(name) => vec![name],
        Rename::Split(parts) => parts.into(),
    }
}

/// `joint_blocks_3_x_block_attn_qkv`: the original name with underscores for dots, found by trying every module.
fn kohya(name: &str) -> Option<Targets> {
    let (number, rest) = name.strip_prefix("joint_blocks_")?.split_once('_')?;
    let module = layout::block_modules().find(|m| m.replace('.', "_") == rest)?;
    layout::module(&format!("joint_blocks.{number}.{module}"), None).map(targets)
}
