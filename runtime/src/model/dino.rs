//! DINOv2, the frozen image encoder behind the reward: an image to one token for all of it and one per patch.
//! Paper: Oquab et al. 2023 (arXiv 2304.07193). Follows transformers 5.23 `Dinov2Model`. Forward only.
//!
//! B batch, H x W pixels, N patches, C width.
use super::{Constants, Fields, Names, bicubic, columns, image_shape};
use crate::Result;
use crate::graph::{Graph, Id};
use crate::op::attention::MAX_HEAD;
use alloc::format;
use pentimento_wgsl::kernel::Act;
use serde_json::Value;

/// `config.json`, with its field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Width of the MLP over `hidden_size`.
    pub mlp_ratio: usize,
    /// Side of the images the position embeddings are made for, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    pub layer_norm_eps: f32,
    pub qkv_bias: bool,
    /// Gated MLP (the giant model).
    pub use_swiglu_ffn: bool,
}

impl Config {
    /// facebook/dinov2-base: ViT-B/14, native at 518 pixels.
    pub fn base() -> Self {
        Config {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4,
            image_size: 518,
            patch_size: 14,
            layer_norm_eps: 1e-6,
            qkv_bias: true,
            use_swiglu_ffn: false,
        }
    }
    /// facebook/dinov2-small: ViT-S/14.
    pub fn small() -> Self {
        Config { hidden_size: 384, num_attention_heads: 6, ..Self::base() }
    }

    /// Reads `config.json`. `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute (register tokens).
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        f.only("model_type", "dinov2".into())?;
        f.only("hidden_act", "gelu".into())?;
        f.only("num_channels", 3.into())?;
        let cfg = Config {
            hidden_size: f.size("hidden_size")?,
            num_hidden_layers: f.size("num_hidden_layers")?,
            num_attention_heads: f.size("num_attention_heads")?,
            mlp_ratio: f.size("mlp_ratio")?,
            image_size: f.size("image_size")?,
            patch_size: f.size("patch_size")?,
            layer_norm_eps: f.number("layer_norm_eps", Some(1e-6))? as f32,
            qkv_bias: f.flag("qkv_bias", true)?,
            use_swiglu_ffn: f.flag("use_swiglu_ffn", false)?,
        };
        let head = cfg.hidden_size / cfg.num_attention_heads;
        if head * cfg.num_attention_heads != cfg.hidden_size || !head.is_multiple_of(4) || head > MAX_HEAD {
            let expected = format!("heads whose width is a multiple of 4 up to {MAX_HEAD}");
            let found = format!("{} heads over {} channels", cfg.num_attention_heads, cfg.hidden_size);
            return Err(f.bad("num_attention_heads", expected, found));
        }
        if !cfg.image_size.is_multiple_of(cfg.patch_size) {
            return Err(f.bad("image_size", format!("a multiple of {}", cfg.patch_size), cfg.image_size));
        }
        if cfg.num_hidden_layers > 1024 {
            return Err(f.bad("num_hidden_layers", "at most 1024", cfg.num_hidden_layers));
        }
        Ok(cfg)
    }

    /// Patches along a side of the native image.
    fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
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
    /// Reads `image_mean` and `image_std` of a `preprocessor_config.json`.
    ///
    /// # Errors
    /// Missing fields; anything but three numbers; a deviation that is not positive.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        let three = |name: &str| {
            let value = f.get(name).ok_or_else(|| f.missing(name))?;
            let number = |i: usize| value.get(i).and_then(Value::as_f64).map(|v| v as f32);
            match (number(0), number(1), number(2), value.get(3)) {
                (Some(a), Some(b), Some(c), None) => Ok([a, b, c]),
                _ => Err(f.bad(name, "three numbers", value)),
            }
        };
        let (mean, std) = (three("image_mean")?, three("image_std")?);
        if std.iter().any(|s| s.is_nan() || *s <= 0.0) {
            return Err(f.bad("image_std", "positive numbers", format!("{std:?}")));
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
    let x = bicubic(g, constants, image01, size[0], size[1]);
    let scale = constants.vector(g, &pixels.std.map(|s| 1.0 / s));
    let shift = constants.vector(g, &core::array::from_fn::<f32, 3, _>(|i| -pixels.mean[i] / pixels.std[i]));
    let x = g.mul(x, scale);
    g.add(x, shift)
}

/// Tokens of images. `component` prefixes the leaves; pixels: `[B, H, W, 3]` from [`preprocess`], sides multiples of
/// `patch_size`; result: `[B, 1 + N, C]`, the class token first, then patches row by row.
/// Position embeddings are resampled where the image is not `image_size` square.
pub fn encode(g: &mut Graph, constants: &mut Constants, cfg: &Config, component: &str, pixels: Id) -> Id {
    let [_, height, width, c] = image_shape(g, pixels, "pixels");
    let p = cfg.patch_size;
    if c != 3 || height < p || width < p || !height.is_multiple_of(p) || !width.is_multiple_of(p) {
        return g.fail(format!(
            "pixels {:?}: three channels and sides that are multiples of {p} wanted",
            g.shape(pixels)
        ));
    }
    let w = Names::new(component);
    let mut x = embed(g, constants, &w.at("embeddings"), cfg, pixels);
    for n in 0..cfg.num_hidden_layers {
        x = layer(g, &w.at("encoder.layer").at(n), cfg, x);
    }
    w.at("layernorm").layer_norm(g, x, cfg.layer_norm_eps)
}

/// Class token and patches, plus positions.
fn embed(g: &mut Graph, constants: &mut Constants, w: &Names, cfg: &Config, pixels: Id) -> Id {
    let [_, height, width, _] = image_shape(g, pixels, "pixels");
    let (c, grid, p) = (cfg.hidden_size, cfg.grid(), cfg.patch_size);
    let (h, v) = (height / p, width / p);
    let x = w.at("patch_embeddings.projection").patch_embedding(g, pixels, p, c);
    let class = w.tensor(g, "cls_token", &[1, 1, c]);
    let table = w.tensor(g, "position_embeddings", &[1, 1 + grid * grid, c]);
    let first = g.slice(table, 1, 0, 1);
    let first = g.add(first, class);
    let patches = g.slice(table, 1, 1, grid * grid);
    let patches = g.reshape(patches, &[1, grid, grid, c]);
    let patches = bicubic(g, constants, patches, h, v);
    let patches = g.reshape(patches, &[1, h * v, c]);
    // Room for the class token in front; it is the same for every image, so it comes with the positions.
    let x = g.pad(x, 1, 1, 1 + h * v);
    let position = g.concat(first, patches, 1);
    g.add(x, position)
}

/// One layer with scaled residuals. x: `[B, 1 + N, C]`.
fn layer(g: &mut Graph, w: &Names, cfg: &Config, x: Id) -> Id {
    let h = w.at("norm1").layer_norm(g, x, cfg.layer_norm_eps);
    let h = attention(g, &w.at("attention"), cfg, h);
    let x = scaled_add(g, w, "layer_scale1.lambda1", x, h);
    let h = w.at("norm2").layer_norm(g, x, cfg.layer_norm_eps);
    let h = mlp(g, &w.at("mlp"), cfg, h);
    scaled_add(g, w, "layer_scale2.lambda1", x, h)
}

fn attention(g: &mut Graph, w: &Names, cfg: &Config, x: Id) -> Id {
    let c = columns(g, x);
    let [q, k, v] = ["query", "key", "value"].map(|name| {
        let w = w.at("attention").at(name);
        if cfg.qkv_bias { w.linear(g, x, c) } else { w.matmul(g, x, c) }
    });
    let y = g.attention(q, k, v, cfg.num_attention_heads, None, false);
    w.at("output.dense").linear(g, y, c)
}

fn mlp(g: &mut Graph, w: &Names, cfg: &Config, x: Id) -> Id {
    let (c, hidden) = (cfg.hidden_size, cfg.hidden_size * cfg.mlp_ratio);
    if cfg.use_swiglu_ffn {
        // Two thirds of the width, rounded up to a multiple of 8 (Shazeer 2020 keeps the parameter count).
        let hidden = (hidden * 2 / 3).next_multiple_of(8);
        let h = w.at("weights_in").linear(g, x, 2 * hidden);
        let axis = g.shape(h).len() - 1;
        let (gate, value) = (g.slice(h, axis, 0, hidden), g.slice(h, axis, hidden, hidden));
        let gate = g.act(Act::Silu, gate);
        let h = g.mul(gate, value);
        return w.at("weights_out").linear(g, h, c);
    }
    let h = w.at("fc1").linear(g, x, hidden);
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
