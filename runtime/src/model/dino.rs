//! DINOv2, the frozen image encoder behind the reward: an image to one token for all of it and one per patch.
//! Papers: Oquab et al. 2023 (arXiv 2304.07193), registers: Darcet et al. 2023 (arXiv 2309.16588). Follows transformers
//! 5.23 `Dinov2Model` and `Dinov2WithRegistersModel`, and timm 1.0 `vit_*_dinov2`. Frozen: gradients go to pixels
//! only. Each layer is a recomputation block.
//!
//! B batch, H x W pixels, R register tokens, N patches, C width.
mod timm;

use super::{Constants, Cubic, Fields, Names, bicubic, columns, image_shape};
use crate::Result;
use crate::graph::{Graph, Id};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::kernel::Act;
use serde_json::Value;
pub use timm::transformers_names;

/// `config.json` of either library, with transformers' field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct DinoConfig {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Width inside the MLP; of one of the two halves where it is gated.
    pub intermediate_size: usize,
    /// Side of the images the position embeddings are made for, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    pub layer_norm_eps: f32,
    pub qkv_bias: bool,
    /// Gated MLP (the giant model).
    pub use_swiglu_ffn: bool,
    /// Tokens between the class token and the patches, which stand for no place in the image.
    pub num_register_tokens: usize,
    /// Whether the position table begins with an entry for the class token.
    pub class_position: bool,
    /// How the position table is brought to another size; the libraries differ.
    pub position_resampling: Cubic,
}

impl DinoConfig {
    /// facebook/dinov2-base: ViT-B/14, native at 518 pixels.
    pub fn base() -> Self {
        DinoConfig {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            image_size: 518,
            patch_size: 14,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            use_swiglu_ffn: false,
            num_register_tokens: 0,
            class_position: true,
            position_resampling: Cubic::Plain,
        }
    }
    /// facebook/dinov2-small: ViT-S/14.
    pub fn small() -> Self {
        DinoConfig { hidden_size: 384, num_attention_heads: 6, intermediate_size: 1536, ..Self::base() }
    }

    /// Reads `config.json` of transformers (`model_type`) or timm (`architecture`). `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        let cfg = if f.get("model_type").is_none() && f.get("architecture").is_some() {
            timm::config(&f)?
        } else {
            transformers_config(&f)?
        };
        f.heads(cfg.hidden_size, cfg.num_attention_heads)?;
        f.patches(cfg.image_size, cfg.patch_size)?;
        f.at_most("num_hidden_layers", cfg.num_hidden_layers, 1024)?;
        f.at_most("num_register_tokens", cfg.num_register_tokens, 1024)?;
        if cfg.intermediate_size == 0 || cfg.intermediate_size > 1 << 22 {
            return Err(f.bad("mlp_ratio", "an MLP of 1 to 4194304 channels", cfg.intermediate_size));
        }
        Ok(cfg)
    }

    /// Patches along a side of the native image.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
    /// Tokens before the patches: the class token and the registers.
    pub fn prefix_tokens(&self) -> usize {
        1 + self.num_register_tokens
    }
}

fn transformers_config(f: &Fields) -> Result<DinoConfig> {
    let kind = f.word("model_type", &["dinov2", "dinov2_with_registers"])?;
    let registers = kind == Some("dinov2_with_registers");
    f.only("hidden_act", "gelu".into())?;
    f.only("num_channels", 3.into())?;
    let hidden_size = f.size("hidden_size")?;
    let use_swiglu_ffn = f.flag("use_swiglu_ffn", false)?;
    let inside = libm::trunc(hidden_size as f64 * f.number("mlp_ratio", Some(4.0))?) as usize;
    Ok(DinoConfig {
        hidden_size,
        num_hidden_layers: f.size("num_hidden_layers")?,
        num_attention_heads: f.size("num_attention_heads")?,
        // Two thirds of the width, rounded up to a multiple of 8 (Shazeer 2020 keeps the parameter count).
        intermediate_size: if use_swiglu_ffn {
            (inside.saturating_mul(2) / 3).saturating_add(7) / 8 * 8
        } else {
            inside
        },
        image_size: f.size("image_size")?,
        patch_size: f.size("patch_size")?,
        layer_norm_eps: f.number("layer_norm_eps", Some(1e-6))? as f32,
        qkv_bias: f.flag("qkv_bias", true)?,
        use_swiglu_ffn,
        num_register_tokens: match registers {
            true if f.get("num_register_tokens").is_some() => f.size("num_register_tokens")?,
            true => 4,
            false => 0,
        },
        class_position: true,
        position_resampling: if registers { Cubic::Antialiased } else { Cubic::Plain },
    })
}

/// Statistics that pixels are normalised with, per channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pixels {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

impl Pixels {
    /// ImageNet statistics, which DINOv2 was trained with.
    pub fn imagenet() -> Self {
        Pixels { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
    }
    /// CLIP's statistics, of OpenAI's and OpenCLIP's models alike.
    pub fn clip() -> Self {
        Pixels {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
    /// Reads `image_mean` and `image_std` of a `preprocessor_config.json`.
    ///
    /// # Errors
    /// Missing fields; anything but three numbers; a deviation that is not positive.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        Self::read(json, label, ["image_mean", "image_std"])
    }
    /// Reads `mean` and `std` of the `pretrained_cfg` in timm's `config.json`, if it has one.
    ///
    /// # Errors
    /// As [`Pixels::from_value`].
    pub fn from_timm(json: &Value, label: &str) -> Result<Option<Self>> {
        let inside = json.get("pretrained_cfg").filter(|v| v.get("mean").is_some());
        inside.map(|v| Self::read(v, label, ["mean", "std"])).transpose()
    }
    fn read(json: &Value, label: &str, names: [&str; 2]) -> Result<Self> {
        let f = Fields::new(json, label)?;
        let three = |name: &str| {
            let value = f.get(name).ok_or_else(|| f.missing(name))?;
            let number = |i: usize| value.get(i).and_then(Value::as_f64).map(|v| v as f32);
            match (number(0), number(1), number(2), value.get(3)) {
                (Some(a), Some(b), Some(c), None) => Ok([a, b, c]),
                _ => Err(f.bad(name, "three numbers", value)),
            }
        };
        let (mean, std) = (three(names[0])?, three(names[1])?);
        if std.iter().any(|s| s.is_nan() || *s <= 0.0) {
            return Err(f.bad(names[1], "positive numbers", format!("{std:?}")));
        }
        Ok(Pixels { mean, std })
    }
}

/// Images to encoder input: bicubic resize to `size` (height, width) as the released reward does it (floats, not
/// antialiased, not clamped), then `(x - mean) / std`. image01: `[B, H, W, 3]`, 0 to 1.
pub fn preprocess(
    g: &mut Graph,
    constants: &mut Constants,
    image01: Id,
    size: [usize; 2],
    pixels: &Pixels,
) -> Id {
    let [_, _, _, c] = image_shape(g, image01, "image");
    if c != 3 || size.contains(&0) {
        return g.fail(format!(
            "image {:?} to {size:?}: three channels and sides of at least 1 wanted",
            g.shape(image01)
        ));
    }
    let x = bicubic(g, constants, image01, size[0], size[1], Cubic::Plain);
    let scale = constants.vector(g, &pixels.std.map(|s| 1.0 / s));
    let shift = constants.vector(g, &core::array::from_fn::<f32, 3, _>(|i| -pixels.mean[i] / pixels.std[i]));
    let x = g.mul(x, scale);
    g.add(x, shift)
}

/// Tokens of images. `component` prefixes the leaves, which have transformers' names ([`transformers_names`]); pixels:
/// `[B, H, W, 3]` from [`preprocess`], sides multiples of `patch_size`; result: `[B, 1 + R + N, C]`, the class token
/// first, then registers, then patches row by row.
/// Position embeddings are resampled where the image is not `image_size` square.
pub fn encode(g: &mut Graph, constants: &mut Constants, cfg: &DinoConfig, component: &str, pixels: Id) -> Id {
    let states = hidden_states(g, constants, cfg, component, pixels);
    states.last().copied().unwrap_or(pixels)
}

/// What [`encode`] goes through: the embeddings, the result of each layer, and the normalised last one.
pub fn hidden_states(
    g: &mut Graph,
    constants: &mut Constants,
    cfg: &DinoConfig,
    component: &str,
    pixels: Id,
) -> Vec<Id> {
    let [_, height, width, c] = image_shape(g, pixels, "pixels");
    let p = cfg.patch_size;
    if c != 3 || height < p || width < p || !height.is_multiple_of(p) || !width.is_multiple_of(p) {
        return vec![g.fail(format!(
            "pixels {:?}: three channels and sides that are multiples of {p} wanted",
            g.shape(pixels)
        ))];
    }
    let w = Names::new(component);
    let mut x = embed(g, constants, &w.at("embeddings"), cfg, pixels);
    let mut states = vec![x];
    for n in 0..cfg.num_hidden_layers {
        g.begin_block();
        x = layer(g, &w.at("encoder.layer").at(n), cfg, x);
        g.end_block();
        states.push(x);
    }
    states.push(w.at("layernorm").layer_norm(g, x, cfg.layer_norm_eps));
    states
}

/// Tokens without the registers: `[B, 1 + R + N, C]` to `[B, 1 + N, C]`.
pub fn without_registers(g: &mut Graph, cfg: &DinoConfig, tokens: Id) -> Id {
    let (prefix, all) = (cfg.prefix_tokens(), g.shape(tokens).get(1).copied().unwrap_or(0));
    if cfg.num_register_tokens == 0 || all < prefix {
        return tokens;
    }
    let class = g.slice(tokens, 1, 0, 1);
    let patches = g.slice(tokens, 1, prefix, all - prefix);
    g.concat(class, patches, 1)
}

/// Class token, registers and patches; positions for all but the registers.
fn embed(g: &mut Graph, constants: &mut Constants, w: &Names, cfg: &DinoConfig, pixels: Id) -> Id {
    let [_, height, width, _] = image_shape(g, pixels, "pixels");
    let (c, grid, p) = (cfg.hidden_size, cfg.grid(), cfg.patch_size);
    let (h, v) = (height / p, width / p);
    let x = w.at("patch_embeddings.projection").patch_embedding(g, pixels, p, c);
    let mut prefix = w.tensor(g, "cls_token", &[1, 1, c]);
    let own = usize::from(cfg.class_position);
    let table = w.tensor(g, "position_embeddings", &[1, own + grid * grid, c]);
    if cfg.class_position {
        let first = g.slice(table, 1, 0, 1);
        prefix = g.add(first, prefix);
    }
    if cfg.num_register_tokens > 0 {
        let registers = w.tensor(g, "register_tokens", &[1, cfg.num_register_tokens, c]);
        prefix = g.concat(prefix, registers, 1);
    }
    let patches = if own == 0 { table } else { g.slice(table, 1, own, grid * grid) };
    let patches = g.reshape(patches, &[1, grid, grid, c]);
    let patches = bicubic(g, constants, patches, h, v, cfg.position_resampling);
    let patches = g.reshape(patches, &[1, h * v, c]);
    // Room for the tokens in front; they are the same for every image, so they come with the positions.
    let before = cfg.prefix_tokens();
    let x = g.pad(x, 1, before, before + h * v);
    let position = g.concat(prefix, patches, 1);
    g.add(x, position)
}

/// One layer with scaled residuals. x: `[B, 1 + R + N, C]`.
fn layer(g: &mut Graph, w: &Names, cfg: &DinoConfig, x: Id) -> Id {
    let h = w.at("norm1").layer_norm(g, x, cfg.layer_norm_eps);
    let h = attention(g, &w.at("attention"), cfg, h);
    let x = scaled_add(g, w, "layer_scale1.lambda1", x, h);
    let h = w.at("norm2").layer_norm(g, x, cfg.layer_norm_eps);
    let h = mlp(g, &w.at("mlp"), cfg, h);
    scaled_add(g, w, "layer_scale2.lambda1", x, h)
}

fn attention(g: &mut Graph, w: &Names, cfg: &DinoConfig, x: Id) -> Id {
    let c = columns(g, x);
    let [q, k, v] = ["query", "key", "value"].map(|name| {
        let w = w.at("attention").at(name);
        if cfg.qkv_bias { w.linear(g, x, c) } else { w.matmul(g, x, c) }
    });
    let y = g.attention(q, k, v, cfg.num_attention_heads, None, false);
    w.at("output.dense").linear(g, y, c)
}

fn mlp(g: &mut Graph, w: &Names, cfg: &DinoConfig, x: Id) -> Id {
    let (c, inside) = (cfg.hidden_size, cfg.intermediate_size);
    if cfg.use_swiglu_ffn {
        let h = w.at("weights_in").linear(g, x, 2 * inside);
        let axis = g.shape(h).len() - 1;
        let (gate, value) = (g.slice(h, axis, 0, inside), g.slice(h, axis, inside, inside));
        let gate = g.act(Act::Silu, gate);
        let h = g.mul(gate, value);
        return w.at("weights_out").linear(g, h, c);
    }
    let h = w.at("fc1").linear(g, x, inside);
    let h = g.act(Act::Gelu, h);
    w.at("fc2").linear(g, h, c)
}

/// x + lambda * h; lambda: `[C]`.
fn scaled_add(g: &mut Graph, w: &Names, name: &str, x: Id, h: Id) -> Id {
    let lambda = [columns(g, x)];
    let lambda = w.tensor(g, name, &lambda);
    let h = g.mul(h, lambda);
    g.add(x, h)
}
