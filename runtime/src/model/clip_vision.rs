//! The image encoder of CLIP, and the similarity of an image and a text: PickScore is a CLIP-H tuned on choices.
//! Papers: Radford et al. 2021 (arXiv 2103.00020), Kirstain et al. 2023 (arXiv 2305.01569). Follows transformers 5.23
//! `CLIPModel`. The last layers can be trained. Each layer is a recomputation block.
//!
//! B batch, N patches, C width, P width of the projection.
use super::clip::{self, Layers, layer};
use super::{Constants, Fields, Names, columns, image_shape};
use crate::graph::{Graph, Id};
use crate::{Error, Result};
use alloc::{format, vec};
use pentimento_wgsl::kernel::Act;
use serde_json::Value;

/// `vision_config` of a `CLIPModel`, with its field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct ClipVisionConfig {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    /// Of the whole model, not of `vision_config`.
    pub projection_dim: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Side of an image, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    pub hidden_act: Act,
    pub layer_norm_eps: f32,
}

impl ClipVisionConfig {
    /// laion/CLIP-ViT-H-14, on which PickScore builds.
    pub fn clip_h() -> Self {
        ClipVisionConfig {
            hidden_size: 1280,
            intermediate_size: 5120,
            projection_dim: 1024,
            num_hidden_layers: 32,
            num_attention_heads: 16,
            image_size: 224,
            patch_size: 14,
            hidden_act: Act::Gelu,
            layer_norm_eps: 1e-5,
        }
    }

    /// Reads a `CLIPModel`'s `config.json`: the image encoder and the text encoder. `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute.
    pub fn from_value(json: &Value, label: &str) -> Result<(Self, clip::ClipConfig)> {
        let whole = Fields::new(json, label)?;
        whole.only("model_type", "clip".into())?;
        let projection_dim = whole.size("projection_dim")?;
        let part = |name: &str| whole.get(name).ok_or_else(|| whole.missing(name));
        let mut text = part("text_config")?.clone();
        // The parts of published files repeat a default here that the model does not use.
        if let Some(fields) = text.as_object_mut() {
            fields.insert("projection_dim".into(), projection_dim.into());
        }
        let text = clip::ClipConfig::from_value(&text, &format!("{label}: text_config"))?;
        let place = format!("{label}: vision_config");
        let f = Fields::new(part("vision_config")?, &place)?;
        f.only("model_type", "clip_vision_model".into())?;
        f.only("num_channels", 3.into())?;
        let cfg = ClipVisionConfig {
            hidden_size: f.size("hidden_size")?,
            intermediate_size: f.size("intermediate_size")?,
            projection_dim,
            num_hidden_layers: f.size("num_hidden_layers")?,
            num_attention_heads: f.size("num_attention_heads")?,
            image_size: f.size("image_size")?,
            patch_size: f.size("patch_size")?,
            hidden_act: match f.word("hidden_act", &["quick_gelu", "gelu"])? {
                Some("gelu") => Act::Gelu,
                _ => Act::QuickGelu,
            },
            layer_norm_eps: f.number("layer_norm_eps", Some(1e-5))? as f32,
        };
        f.heads(cfg.hidden_size, cfg.num_attention_heads)?;
        f.patches(cfg.image_size, cfg.patch_size)?;
        f.at_most("num_hidden_layers", cfg.num_hidden_layers, 1024)?;
        Ok((cfg, text))
    }

    /// Tokens of an image: the class token and its patches.
    pub fn tokens(&self) -> usize {
        let side = self.image_size / self.patch_size;
        1 + side * side
    }
    /// First layer of Python's `layers[tune_layer:]`: a negative number counts from the end.
    ///
    /// # Errors
    /// A number beyond the layers.
    pub fn first_of(&self, tune_layer: i64) -> Result<usize> {
        let layers = self.num_hidden_layers as i64;
        let first = if tune_layer < 0 { layers.saturating_add(tune_layer) } else { tune_layer };
        usize::try_from(first).ok().filter(|f| *f < self.num_hidden_layers).ok_or_else(|| {
            Error::bad("tune_layer", format!("-{layers} to {}", layers - 1), format!("{tune_layer}"))
        })
    }
    fn layers(&self) -> Layers {
        Layers {
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            act: self.hidden_act,
            eps: self.layer_norm_eps,
            causal: false,
        }
    }
}

/// Embedded tokens after the first `layers` layers. `component` prefixes the leaves; pixels:
/// `[B, image_size, image_size, 3]`, normalised; result: `[B, 1 + N, C]`, the class token first.
pub fn hidden(g: &mut Graph, cfg: &ClipVisionConfig, component: &str, pixels: Id, layers: usize) -> Id {
    let [_, h, w, c] = image_shape(g, pixels, "pixels");
    if [h, w, c] != [cfg.image_size, cfg.image_size, 3] {
        let side = cfg.image_size;
        return g.fail(format!("pixels {:?}: [B, {side}, {side}, 3] wanted", g.shape(pixels)));
    }
    let (c, n) = (cfg.hidden_size, cfg.tokens() - 1);
    let w = Names::new(component).at("vision_model");
    let at = w.at("embeddings");
    let x = at.at("patch_embedding").patch_projection(g, pixels, cfg.patch_size, c, None);
    let class = at.tensor(g, "class_embedding", &[c]);
    let table = at.at("position_embedding").tensor(g, "weight", &[1 + n, c]);
    let first = g.slice(table, 0, 0, 1);
    let first = g.add(first, class);
    let patches = g.slice(table, 0, 1, n);
    // Room for the class token in front; it is the same for every image, so it comes with the positions.
    let x = g.pad(x, 1, 1, 1 + n);
    let position = g.concat(first, patches, 0);
    let position = g.reshape(position, &[1, 1 + n, c]);
    let x = g.add(x, position);
    let mut x = w.at("pre_layrnorm").layer_norm(g, x, cfg.layer_norm_eps);
    for n in 0..layers.min(cfg.num_hidden_layers) {
        g.begin_block();
        x = layer(g, &w.at("encoder.layers").at(n), cfg.layers(), x);
        g.end_block();
    }
    x
}

/// The rest of the encoder: layers from number `from`, norm and projection of the class token. x: `[B, 1 + N, C]` from
/// [`hidden`]; result: `[B, P]`. With `trained`, those layers' tensors are parameters; norm and projection never are.
pub fn embed(
    g: &mut Graph,
    cfg: &ClipVisionConfig,
    component: &str,
    mut x: Id,
    from: usize,
    trained: bool,
) -> Id {
    let names = Names::new(component);
    let w = names.at("vision_model");
    for n in from..cfg.num_hidden_layers {
        let at = w.at("encoder.layers").at(n).trained(trained);
        g.begin_block();
        x = layer(g, &at, cfg.layers(), x);
        g.end_block();
    }
    let class = g.slice(x, 1, 0, 1);
    let class = w.at("post_layernorm").layer_norm(g, class, cfg.layer_norm_eps);
    project(g, cfg, component, class)
}

/// All layers and the last norm, of patches too: `[B, 1 + N, C]`; pixels as for [`hidden`].
pub fn tokens(g: &mut Graph, cfg: &ClipVisionConfig, component: &str, pixels: Id) -> Id {
    let x = hidden(g, cfg, component, pixels, cfg.num_hidden_layers);
    Names::new(component).at("vision_model").at("post_layernorm").layer_norm(g, x, cfg.layer_norm_eps)
}

/// Projection of the class token, the first, of [`tokens`]: `[B, P]`.
pub fn project(g: &mut Graph, cfg: &ClipVisionConfig, component: &str, tokens: Id) -> Id {
    let (b, c) = (g.shape(tokens).first().copied().unwrap_or(0), columns(g, tokens));
    let class = g.slice(tokens, 1, 0, 1);
    let class = g.reshape(class, &[b, c]);
    Names::new(component).at("visual_projection").matmul(g, class, cfg.projection_dim)
}

/// Cosine of each image's embedding and a text's. image, text: `[B, P]`, text of length 1; result: `[B]`.
pub fn cosine(g: &mut Graph, constants: &mut Constants, image: Id, text: Id) -> Id {
    let &[b, p] = g.shape(image) else { return g.fail("cosine: expected embeddings [B, P]") };
    // x / |x| is the RMS norm over the square root of the width.
    let unit = 1.0 / libm::sqrtf(p as f32);
    let unit = constants.tensor(g, format!("unit/{p}"), &[p], || vec![unit; p]);
    let image = g.rms_norm(image, unit, 0.0);
    let product = g.mul(image, text);
    g.sum(product, b, p, 1, 1.0, &[b])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_count_from_either_end() {
        let cfg = ClipVisionConfig::clip_h();
        assert_eq!(
            (cfg.first_of(-1).unwrap(), cfg.first_of(30).unwrap(), cfg.first_of(-32).unwrap()),
            (31, 30, 0)
        );
        for wrong in [-33, 32, i64::MIN, i64::MAX] {
            assert!(format!("{}", cfg.first_of(wrong).unwrap_err()).starts_with("tune_layer: expected"));
        }
        assert_eq!(cfg.tokens(), 257);
    }

    #[test]
    fn the_projection_is_the_whole_models() {
        let part = r#""hidden_size":32,"intermediate_size":64,"num_hidden_layers":1,"num_attention_heads":2,
            "projection_dim":512"#;
        let json = format!(
            r#"{{"model_type":"clip","projection_dim":16,
                "text_config":{{{part},"vocab_size":9,"max_position_embeddings":7}},
                "vision_config":{{{part},"image_size":28,"patch_size":14}}}}"#
        );
        let (vision, text) =
            ClipVisionConfig::from_value(&serde_json::from_str(&json).unwrap(), "c.json").unwrap();
        assert_eq!((vision.projection_dim, text.projection_dim), (16, 16));
        let text =
            ClipVisionConfig::from_value(&serde_json::from_str(r#"{"projection_dim":1}"#).unwrap(), "c.json");
        assert!(format!("{}", text.unwrap_err()).contains("missing field `text_config`"));
    }
}
