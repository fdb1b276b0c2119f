//! The CLIP text encoders of SD3: CLIP-L and OpenCLIP bigG in transformers' layout.
//! Paper: Radford et al. 2021 (arXiv 2103.00020). Follows transformers 5.23 `CLIPTextModelWithProjection`. Forward only.
//!
//! B batch, T tokens, C width, P width of the projection.
use super::lora::Lora;
use super::{Fields, Names, columns, embedding};
use crate::graph::{Graph, Id};
use crate::weights::Weights;
use crate::{Error, Result};
use alloc::{format, vec::Vec};
use pentimento_wgsl::kernel::Act;
use serde_json::Value;

/// `text_encoder/config.json`, with its field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct ClipConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    /// Activation of the MLP.
    pub hidden_act: Act,
    pub layer_norm_eps: f32,
    /// 2 in published configurations, which means: pool at the largest token id.
    pub eos_token_id: u32,
}

impl ClipConfig {
    /// openai/clip-vit-large-patch14, `text_encoder` of SD3.
    pub fn clip_l() -> Self {
        ClipConfig {
            vocab_size: 49408,
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: Act::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 2,
        }
    }
    /// laion/CLIP-ViT-bigG-14, `text_encoder_2` of SD3.
    pub fn clip_g() -> Self {
        ClipConfig {
            hidden_size: 1280,
            intermediate_size: 5120,
            projection_dim: 1280,
            num_hidden_layers: 32,
            num_attention_heads: 20,
            hidden_act: Act::Gelu,
            ..Self::clip_l()
        }
    }

    /// Reads `config.json`. `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        f.only("model_type", "clip_text_model".into())?;
        let eos = f.number("eos_token_id", Some(49407.0))?;
        if libm::trunc(eos) != eos || !(0.0..=f64::from(u32::MAX)).contains(&eos) {
            return Err(f.bad("eos_token_id", "a token id", eos));
        }
        let cfg = ClipConfig {
            vocab_size: f.size("vocab_size")?,
            hidden_size: f.size("hidden_size")?,
            intermediate_size: f.size("intermediate_size")?,
            projection_dim: f.size("projection_dim")?,
            num_hidden_layers: f.size("num_hidden_layers")?,
            num_attention_heads: f.size("num_attention_heads")?,
            max_position_embeddings: f.size("max_position_embeddings")?,
            hidden_act: match f.word("hidden_act", &["quick_gelu", "gelu"])? {
                Some("gelu") => Act::Gelu,
                _ => Act::QuickGelu,
            },
            layer_norm_eps: f.number("layer_norm_eps", Some(1e-5))? as f32,
            eos_token_id: eos as u32,
        };
        f.heads(cfg.hidden_size, cfg.num_attention_heads)?;
        if cfg.num_hidden_layers > 1024 {
            return Err(f.bad("num_hidden_layers", "at most 1024", cfg.num_hidden_layers));
        }
        Ok(cfg)
    }

    fn layers(&self) -> Layers {
        Layers {
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            act: self.hidden_act,
            eps: self.layer_norm_eps,
            causal: true,
        }
    }

    /// The token whose final state is the pooled one: the first end-of-text token, or the first largest id where the
    /// configuration says `eos_token_id: 2`; 0 when there is none.
    pub fn pooled_token(&self, ids: &[u32]) -> usize {
        let wanted = if self.eos_token_id == 2 { ids.iter().max() } else { Some(&self.eos_token_id) };
        ids.iter().position(|id| Some(id) == wanted).unwrap_or(0)
    }
    /// Selection of the pooled token for [`encode`]: a one where it is, zeros elsewhere. `[T]`.
    pub fn pick(&self, ids: &[u32]) -> Vec<f32> {
        let token = self.pooled_token(ids);
        (0..ids.len()).map(|i| if i == token { 1.0 } else { 0.0 }).collect()
    }
    /// Names and shapes of the tables of tokens and positions, which stay on the host.
    pub(crate) fn tables(&self) -> [(&'static str, [usize; 2]); 2] {
        [
            ("text_model.embeddings.token_embedding.weight", [self.vocab_size, self.hidden_size]),
            (
                "text_model.embeddings.position_embedding.weight",
                [self.max_position_embeddings, self.hidden_size],
            ),
        ]
    }
    /// Token plus position embeddings, gathered on the host: `[T, C]` of one sequence.
    ///
    /// # Errors
    /// Missing or mis-shaped tensors, an id outside the vocabulary, too many tokens.
    pub fn embed(&self, weights: &Weights, ids: &[u32]) -> Result<Vec<f32>> {
        let c = self.hidden_size;
        let [tokens, positions] = self.tables();
        let tokens = weights.expect(tokens.0, &tokens.1)?;
        let positions = weights.expect(positions.0, &positions.1)?;
        if ids.len() > self.max_position_embeddings {
            let expected = format!("at most {} tokens", self.max_position_embeddings);
            return Err(Error::bad("text encoder", expected, format!("{}", ids.len())));
        }
        let mut out = Vec::with_capacity(ids.len() * c);
        for (at, &id) in ids.iter().enumerate() {
            let rows = embedding(&tokens, id)?.into_iter().zip(embedding(&positions, at as u32)?);
            out.extend(rows.map(|(t, p)| t + p));
        }
        Ok(out)
    }
}

/// What SD3 uses of a text encoder.
#[derive(Clone, Copy, Debug)]
pub struct Encoded {
    /// State before the last layer, without final norm: `[B, T, C]`.
    pub penultimate: Id,
    /// Projected final state of the picked token: `[B, P]`.
    pub pooled: Id,
}

/// Encodes embedded tokens. embeds: `[B, T, C]`, see [`ClipConfig::embed`]; pick: `[B, T]`, see [`ClipConfig::pick`].
pub fn encode(
    g: &mut Graph,
    cfg: &ClipConfig,
    component: &str,
    lora: Option<&Lora>,
    embeds: Id,
    pick: Id,
) -> Encoded {
    let &[b, t, c] = g.shape(embeds) else {
        let id = g.fail(format!("text encoder: expected embeddings [B, T, C], found {:?}", g.shape(embeds)));
        return Encoded { penultimate: id, pooled: id };
    };
    if c != cfg.hidden_size || g.shape(pick) != [b, t] {
        let id = g.fail(format!(
            "text encoder: embeddings [{b}, {t}, {c}] and pick {:?} do not fit width {}",
            g.shape(pick),
            cfg.hidden_size
        ));
        return Encoded { penultimate: id, pooled: id };
    }
    let names = Names::new(component).adapted(lora);
    let w = names.at("text_model");
    let (mut x, mut penultimate) = (embeds, embeds);
    for n in 0..cfg.num_hidden_layers {
        penultimate = x;
        x = layer(g, &w.at("encoder.layers").at(n), cfg.layers(), x);
    }
    // Norm and projection work on rows, so picking the row first is the same for less.
    let pick = g.reshape(pick, &[b, t, 1]);
    let x = g.mul(x, pick);
    let x = g.sum(x, b, t, c, 1.0, &[b, c]);
    let x = w.at("final_layer_norm").layer_norm(g, x, cfg.layer_norm_eps);
    let pooled = names.at("text_projection").matmul(g, x, cfg.projection_dim);
    Encoded { penultimate, pooled }
}

/// What the layers of the text and the image encoder are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layers {
    pub heads: usize,
    pub intermediate_size: usize,
    pub act: Act,
    pub eps: f32,
    /// Whether tokens see only those before them.
    pub causal: bool,
}

/// One layer: x: `[B, T, C]`.
pub(super) fn layer(g: &mut Graph, w: &Names, of: Layers, x: Id) -> Id {
    let c = columns(g, x);
    let h = w.at("layer_norm1").layer_norm(g, x, of.eps);
    let h = attention(g, &w.at("self_attn"), of, h);
    let x = g.add(x, h);
    let h = w.at("layer_norm2").layer_norm(g, x, of.eps);
    let h = w.at("mlp.fc1").linear(g, h, of.intermediate_size);
    let h = g.act(of.act, h);
    let h = w.at("mlp.fc2").linear(g, h, c);
    g.add(x, h)
}

/// Attention; padding is attended like any token.
fn attention(g: &mut Graph, w: &Names, of: Layers, x: Id) -> Id {
    let c = columns(g, x);
    let q = w.at("q_proj").linear(g, x, c);
    let k = w.at("k_proj").linear(g, x, c);
    let v = w.at("v_proj").linear(g, x, c);
    let y = g.attention(q, k, v, of.heads, None, of.causal);
    w.at("out_proj").linear(g, y, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_follows_both_conventions() {
        let old = ClipConfig::clip_l();
        let new = ClipConfig { eos_token_id: 7, ..ClipConfig::clip_l() };
        assert_eq!(old.pooled_token(&[3, 9, 7, 9]), 1);
        assert_eq!(new.pooled_token(&[3, 9, 7, 7]), 2);
        assert_eq!((new.pooled_token(&[3, 9]), old.pooled_token(&[])), (0, 0));
        assert_eq!(new.pick(&[3, 7, 7]), [0.0, 1.0, 0.0]);
    }
}
