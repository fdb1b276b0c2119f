//! Keys of adapter files: which layers of the model each names, in any of the spellings that are read.
//!
//! A key is a prefix that says whose layer it is, the layer's name, and an ending that says which factor. Names are those of
//! the diffusers model or the original one, where q, k and v are one layer, with dots or with underscores.
use super::OF_ENCODER;
use pentimento_runtime::layout::{Rename, any_module, numbered, same};
use pentimento_runtime::{Error, Result};

/// What a key holds.
#[derive(Clone, Copy)]
pub(super) enum Half {
    A,
    B,
    Alpha,
}

/// Endings of keys but `.weight`, which may follow, or PEFT's name of the adapter and `.weight`.
const ENDINGS: [(&str, Half); 10] = [
    (".lora_A", Half::A),
    (".lora_B", Half::B),
    (".lora_down", Half::A),
    (".lora_up", Half::B),
    (".lora.down", Half::A),
    (".lora.up", Half::B),
    (".lora_linear_layer.down", Half::A),
    (".lora_linear_layer.up", Half::B),
    ("_lora.down", Half::A),
    ("_lora.up", Half::B),
];

/// Beginnings of keys that name layers of the transformer (diffusers, ComfyUI, Kohya, OneTrainer, LyCORIS) ...
const TRANSFORMER: [&str; 7] = [
    "transformer.",
    "model.diffusion_model.",
    "diffusion_model.",
    "unet.",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
];
/// ... and of text encoders.
const ENCODERS: [(&str, &str); 10] = [
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder_3.", "text_encoder_3"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("lora_te_", "text_encoder"),
];

/// Layers of a block of CLIP, and of T5.
const CLIP: [&str; 6] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"];
const T5: [&str; 7] = [
    "layer.0.SelfAttention.q",
    "layer.0.SelfAttention.k",
    "layer.0.SelfAttention.v",
    "layer.0.SelfAttention.o",
    "layer.1.DenseReluDense.wi_0",
    "layer.1.DenseReluDense.wi_1",
    "layer.1.DenseReluDense.wo",
];
/// CLIP's projections as diffusers once wrote them.
const OLD_CLIP: [(&str, &str); 4] = [
    ("self_attn.to_q", "self_attn.q_proj"),
    ("self_attn.to_k", "self_attn.k_proj"),
    ("self_attn.to_v", "self_attn.v_proj"),
    ("self_attn.to_out", "self_attn.out_proj"),
];

/// Parts of keys by which other methods are known; a final `_` stands for anything.
const OTHERS: [(&str, &str); 22] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("lora_mid", "LoRA with a core tensor (LoCon)"),
    ("oft_", "OFT"),
    ("boft_", "BOFT"),
    ("ia3_", "IA3"),
    ("on_input", "IA3"),
    ("vera_", "VeRA"),
    ("a1", "GLoRA"),
    ("a2", "GLoRA"),
    ("b1", "GLoRA"),
    ("b2", "GLoRA"),
    ("scalar", "LyCORIS's trained scale"),
    ("diff", "A full difference of a weight"),
    ("diff_b", "A full difference of a bias"),
    ("set_weight", "Replacing a weight"),
    ("reshape_weight", "Reshaping a weight"),
    ("w_norm", "A difference of a norm"),
    ("b_norm", "A difference of a norm"),
    ("lora_embedding_", "LoRA of an embedding table"),
];

/// Splits a key into the layers it adapts and what it holds. `last`: the last joint block, if the model is known.
pub(super) fn split(label: &str, key: &str, last: Option<usize>) -> Result<(Rename, Half)> {
    let unknown = |hint: &str| {
        let expected = "a LoRA key such as `transformer.transformer_blocks.0.attn.to_q.lora_A.weight`";
        Err(Error::bad(label, expected, format!("`{key}`")).with_hint(hint))
    };
    if let Some(method) = other(key) {
        return unknown(&format!("{method} is not supported here, only plain LoRA is."));
    }
    let Some((module, half)) = ending(key) else {
        return unknown(
            "It has none of the endings of a plain LoRA: .lora_A.weight, .lora_down.weight, .lora.down.weight, \
             .lora_linear_layer.down.weight, their other halves, or .alpha.",
        );
    };
    match layers(module, last) {
        Some(layers) => Ok((layers, half)),
        None => unknown("No linear layer of an SD3 transformer or its text encoders has this name."),
    }
}

/// What a key belongs to instead of a plain LoRA.
fn other(key: &str) -> Option<&'static str> {
    let is =
        |part: &str, known: &str| if known.ends_with('_') { part.starts_with(known) } else { part == known };
    let found = |part: &str| OTHERS.iter().find(|(known, _)| is(part, known)).map(|(_, method)| *method);
    if key.starts_with("bundle_emb.") || key.starts_with("emb_params") {
        return Some("An embedding (textual inversion)");
    }
    if let Some(method) = key.split('.').find_map(found) {
        return Some(method);
    }
    // The first part may be Kohya's `lora_unet_...`, whatever follows.
    let factor = key.split('.').skip(1).any(|part| part.contains("lora"));
    match key.rsplit_once('.') {
        Some((_, "bias")) if factor => Some("LoRA with biases"),
        Some((_, "weight" | "bias")) if !factor && ending(key).is_none() => Some("A full weight"),
        _ => None,
    }
}

/// A key's module and what it holds.
fn ending(key: &str) -> Option<(&str, Half)> {
    if let Some(module) = key.strip_suffix(".alpha") {
        return Some((module, Half::Alpha));
    }
    let cut =
        |stem: &str| ENDINGS.iter().find_map(|(end, half)| Some((stem.strip_suffix(end)?.len(), *half)));
    let stem = key.strip_suffix(".weight");
    let named = || cut(stem?.rsplit_once('.')?.0);
    let (length, half) = cut(stem.unwrap_or(key)).or_else(named)?;
    Some((key.get(..length)?, half))
}

/// The layers of a module with its prefixes: one, or the parts of a fused one.
fn layers(module: &str, last: Option<usize>) -> Option<Rename> {
    fn bare(name: &str) -> &str {
        name.strip_prefix("base_model.model.").unwrap_or(name)
    }
    let module = bare(module);
    let of_encoder =
        ENCODERS.iter().find_map(|(prefix, encoder)| Some((module.strip_prefix(prefix)?, encoder)));
    if let Some((name, encoder)) = of_encoder {
        let layer = encoder_layer(bare(name), encoder)?;
        return Some(Rename::To(format!("{encoder}.{layer}")));
    }
    let name = TRANSFORMER.iter().find_map(|prefix| module.strip_prefix(prefix)).unwrap_or(module);
    any_module(bare(name), last)
}

/// A layer of a text encoder as transformers names it.
fn encoder_layer(name: &str, encoder: &str) -> Option<String> {
    if encoder == OF_ENCODER[2] {
        let (n, rest) = numbered(name, "encoder.block")?;
        return Some(format!("encoder.block.{n}.{}", T5.iter().find(|layer| same(rest, layer))?));
    }
    if same(name, "text_projection") {
        return Some("text_projection".into());
    }
    let (n, rest) = numbered(name, "text_model.encoder.layers")?;
    let old = || OLD_CLIP.iter().find(|(old, _)| same(rest, old)).map(|(_, new)| new);
    Some(format!(
        "text_model.encoder.layers.{n}.{}",
        CLIP.iter().find(|layer| same(rest, layer)).or_else(old)?
    ))
}
