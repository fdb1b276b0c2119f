//! Configurations inferred from shapes, in the form of diffusers' and transformers' `config.json`.
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::names::number_after;
use crate::weights::Weights;
use crate::{Error, Result};

/// Channels of an attention head in every published model of the family.
const HEAD: usize = 64;
/// Groups of a norm in their autoencoder.
const GROUPS: usize = 32;

pub(super) fn config(component: &str, w: &Weights) -> Result<Value> {
    let shapes = Shapes(w);
    match component {
        "transformer" => transformer(&shapes),
        "vae" => vae(&shapes),
        "text_encoder" => clip(&shapes, "quick_gelu"),
        "text_encoder_2" => clip(&shapes, "gelu"),
        "text_encoder_3" => t5(&shapes),
        other => Err(Error::missing(w.label(), format!("component `{other}`"))),
    }
}

/// Sides of tensors, with errors that name them.
struct Shapes<'a>(&'a Weights);

impl Shapes<'_> {
    fn get<const N: usize>(&self, name: &str) -> Result<[usize; N]> {
        let Some(shape) = self.0.shape(name) else {
            return Err(Error::missing(self.0.label(), format!("tensor `{name}`"))
                .with_hint("Is the file complete, and an SD3 or SD3.5 checkpoint?"));
        };
        let place = || format!("{}: `{name}`", self.0.label());
        <[usize; N]>::try_from(shape)
            .map_err(|_| Error::bad(place(), format!("{N} axes"), format!("{shape:?}")))
            .and_then(|s| {
                if s.contains(&0) {
                    Err(Error::bad(place(), "sides of at least 1", format!("{s:?}")))
                } else {
                    Ok(s)
                }
            })
    }
    /// One more than the largest number after a prefix; 0 without any.
    fn count(&self, prefix: &str) -> usize {
        self.0.names().filter_map(|n| number_after(n, prefix)).map(|(n, _)| n + 1).max().unwrap_or(0)
    }
    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

fn transformer(s: &Shapes<'_>) -> Result<Value> {
    let [width, in_channels, patch, _] = s.get("pos_embed.proj.weight")?;
    let [_, positions, _] = s.get("pos_embed.pos_embed")?;
    let [_, joint] = s.get("context_embedder.weight")?;
    let [_, pooled] = s.get("time_text_embed.text_embedder.linear_1.weight")?;
    let [out, _] = s.get("proj_out.weight")?;
    let layers = s.count("transformer_blocks.");
    let norm = "transformer_blocks.0.attn.norm_q.weight";
    let head = if s.has(norm) { s.get::<1>(norm)?[0] } else { HEAD };
    let side = (1..=4096).find(|n| n * n >= positions).unwrap_or(0);
    let dual = (0..layers).filter(|n| s.has(&format!("transformer_blocks.{n}.attn2.to_q.weight")));
    let bad = |what: &str, found: usize| Err(Error::bad(s.0.label(), what, found.to_string()));
    if side * side != positions {
        return bad("a square table of positions", positions);
    }
    if !width.is_multiple_of(head) {
        return bad(&format!("a width that is a multiple of {head}, the width of a head"), width);
    }
    Ok(json!({
        "_class_name": "SD3Transformer2DModel",
        "in_channels": in_channels,
        "out_channels": out / patch.saturating_mul(patch).max(1),
        "patch_size": patch,
        "num_layers": layers,
        "num_attention_heads": width / head,
        "attention_head_dim": head,
        "joint_attention_dim": joint,
        "caption_projection_dim": width,
        "pooled_projection_dim": pooled,
        "pos_embed_max_size": side,
        "qk_norm": if s.has(norm) { Value::from("rms_norm") } else { Value::Null },
        "dual_attention_layers": dual.collect::<Vec<_>>(),
        "sample_size": 128,
    }))
}

fn vae(s: &Shapes<'_>) -> Result<Value> {
    let levels = s.count("encoder.down_blocks.");
    let width = |n: usize| -> Result<usize> {
        Ok(s.get::<4>(&format!("encoder.down_blocks.{n}.resnets.0.conv1.weight"))?[0])
    };
    let widths = (0..levels).map(width).collect::<Result<Vec<_>>>()?;
    let [_, latent, _, _] = s.get("decoder.conv_in.weight")?;
    if let Some(width) = widths.iter().find(|w| !w.is_multiple_of(GROUPS)) {
        let expected = format!("multiples of {GROUPS} channels, the groups of a norm");
        return Err(Error::bad(format!("{}: autoencoder", s.0.label()), expected, width.to_string())
            .with_hint("Give --config DIR with the autoencoder's vae/config.json."));
    }
    Ok(json!({
        "_class_name": "AutoencoderKL",
        "block_out_channels": widths,
        "layers_per_block": s.count("encoder.down_blocks.0.resnets."),
        "latent_channels": latent,
        "norm_num_groups": GROUPS,
        "mid_block_add_attention": s.has("decoder.mid_block.attentions.0.to_q.weight"),
        "use_quant_conv": s.has("quant_conv.weight"),
        "use_post_quant_conv": s.has("post_quant_conv.weight"),
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
    }))
}

fn clip(s: &Shapes<'_>, act: &str) -> Result<Value> {
    let [vocabulary, width] = s.get("text_model.embeddings.token_embedding.weight")?;
    let [positions, _] = s.get("text_model.embeddings.position_embedding.weight")?;
    let [mlp, _] = s.get("text_model.encoder.layers.0.mlp.fc1.weight")?;
    let [projection, _] = s.get("text_projection.weight")?;
    if !width.is_multiple_of(HEAD) {
        let expected = format!("a multiple of {HEAD} channels, the width of a head");
        return Err(Error::bad(format!("{}: text encoder", s.0.label()), expected, width.to_string())
            .with_hint("Give --config DIR with this text encoder's config.json."));
    }
    Ok(json!({
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": mlp,
        "projection_dim": projection,
        "num_hidden_layers": s.count("text_model.encoder.layers."),
        "num_attention_heads": width / HEAD,
        "max_position_embeddings": positions,
        "hidden_act": act,
        "layer_norm_eps": 1e-5,
        "eos_token_id": 2,
    }))
}

fn t5(s: &Shapes<'_>) -> Result<Value> {
    let [vocabulary, width] = s.get("shared.weight")?;
    let [inner, _] = s.get("encoder.block.0.layer.0.SelfAttention.q.weight")?;
    let [buckets, heads] = s.get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")?;
    let [mlp, _] = s.get("encoder.block.0.layer.1.DenseReluDense.wi_0.weight")?;
    Ok(json!({
        "model_type": "t5",
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner / heads,
        "d_ff": mlp,
        "num_heads": heads,
        "num_layers": s.count("encoder.block."),
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": true,
    }))
}
