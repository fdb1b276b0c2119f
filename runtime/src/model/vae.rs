//! The image autoencoder of SD3: latents to images and back, eight pixels per latent.
//! Paper: Rombach et al. 2022 (arXiv 2112.10752). Follows diffusers 0.42 `AutoencoderKL`. Frozen: gradients go to
//! latents and images only. Each residual block is a recomputation block.
//!
//! B batch, H x W pixels, h x w latent pixels, C channels. Everything is channels last.
mod bands;

use super::{Fields, Names, columns, image_shape};
use crate::Result;
use crate::graph::{Graph, Id, Layout};
use crate::op::attention::MAX_HEAD;
use alloc::{format, vec, vec::Vec};
use bands::Bands;
use pentimento_wgsl::kernel::Act;
use serde_json::Value;

/// Folder of the model in a pipeline, and prefix of its leaves.
pub const COMPONENT: &str = "vae";
/// Modules whose weights only [`encode`] reads.
pub const ENCODER: [&str; 2] = ["encoder", "quant_conv"];
/// Channels of an image given to [`encode`]: red, green, blue, zero.
pub const IMAGE_CHANNELS: usize = 4;
const EPS: f32 = 1e-6;
/// Most numbers in one block of attention weights of a wide head.
const SCORES: usize = 1 << 24;

/// `vae/config.json`, with its field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct VaeConfig {
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    pub mid_block_add_attention: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    /// Model-space latents are `(encoded - shift_factor) * scaling_factor`.
    pub scaling_factor: f32,
    pub shift_factor: f32,
}

impl VaeConfig {
    /// The autoencoder of SD3 and SD3.5.
    pub fn sd3() -> Self {
        VaeConfig {
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 16,
            norm_num_groups: 32,
            mid_block_add_attention: true,
            use_quant_conv: false,
            use_post_quant_conv: false,
            scaling_factor: 1.5305,
            shift_factor: 0.0609,
        }
    }

    /// Reads `config.json`. `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        f.only("_class_name", "AutoencoderKL".into())?;
        f.only("act_fn", "silu".into())?;
        f.only("in_channels", 3.into())?;
        f.only("out_channels", 3.into())?;
        for name in ["latents_mean", "latents_std"] {
            if let Some(value) = f.get(name) {
                return Err(f.bad(name, "null", value));
            }
        }
        let block_out_channels = f.sizes("block_out_channels")?;
        let block = |name: &str| vec![Value::from(name); block_out_channels.len()];
        f.only("down_block_types", block("DownEncoderBlock2D").into())?;
        f.only("up_block_types", block("UpDecoderBlock2D").into())?;
        let cfg = VaeConfig {
            layers_per_block: f.size("layers_per_block")?,
            latent_channels: f.size("latent_channels")?,
            norm_num_groups: f.size("norm_num_groups")?,
            mid_block_add_attention: f.flag("mid_block_add_attention", true)?,
            use_quant_conv: f.flag("use_quant_conv", true)?,
            use_post_quant_conv: f.flag("use_post_quant_conv", true)?,
            scaling_factor: f.number("scaling_factor", None)? as f32,
            shift_factor: f.number("shift_factor", Some(0.0))? as f32,
            block_out_channels,
        };
        let fits = |c: usize| c.is_multiple_of(4) && c.is_multiple_of(cfg.norm_num_groups);
        if let Some(c) = cfg.block_out_channels.iter().find(|&&c| !fits(c)) {
            let expected = format!("multiples of 4 and of {} groups", cfg.norm_num_groups);
            return Err(f.bad("block_out_channels", expected, c));
        }
        if !cfg.latent_channels.is_multiple_of(4) {
            return Err(f.bad("latent_channels", "a multiple of 4", cfg.latent_channels));
        }
        if cfg.scaling_factor == 0.0 {
            return Err(f.bad("scaling_factor", "a number other than 0", cfg.scaling_factor));
        }
        if cfg.layers_per_block > 64 {
            return Err(f.bad("layers_per_block", "at most 64", cfg.layers_per_block));
        }
        if cfg.block_out_channels.len() > 16 {
            return Err(f.bad("block_out_channels", "at most 16 blocks", cfg.block_out_channels.len()));
        }
        Ok(cfg)
    }

    /// Numbers in the largest tensor on the way of one image of that size, height and width in pixels.
    pub fn widest(&self, size: [usize; 2]) -> usize {
        let pixels = size[0].saturating_mul(size[1]);
        let blocks = self.block_out_channels.iter().enumerate();
        // A block also meets its neighbours' channels at its own size: the upsampled and the downsampled tensor.
        let numbers = blocks.map(|(n, _)| {
            let near =
                &self.block_out_channels[n.saturating_sub(1)..(n + 2).min(self.block_out_channels.len())];
            (pixels >> (2 * n)).saturating_mul(near.iter().copied().max().unwrap_or(0))
        });
        numbers.max().unwrap_or(0)
    }
    /// Pixels per latent pixel along a side.
    pub fn downscale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}

/// [`decode_within`] without a limit.
pub fn decode(g: &mut Graph, cfg: &VaeConfig, z: Id) -> Id {
    decode_within(g, cfg, z, usize::MAX)
}

/// Latents to an image. z: `[B, h, w, latent_channels]`, already `latents / scaling_factor + shift_factor`;
/// result: `[B, H, W, 3]`, about -1 to 1. Tensors of more than `most` numbers are computed as bands of rows, images of
/// a batch one by one; the result is the same up to the rounding of sums. What the attention in the middle reads, the
/// latents and the image itself stay whole.
pub fn decode_within(g: &mut Graph, cfg: &VaeConfig, z: Id, most: usize) -> Id {
    let [_, h, w, channels] = image_shape(g, z, "latents");
    if channels != cfg.latent_channels {
        return g.fail(format!("latents {:?}: {} channels wanted", g.shape(z), cfg.latent_channels));
    }
    let d = cfg.downscale();
    by_image(g, z, cfg.widest([h.saturating_mul(d), w.saturating_mul(d)]), most, |g, z| {
        decode_bands(g, cfg, z, most)
    })
}

fn decode_bands(g: &mut Graph, cfg: &VaeConfig, z: Id, most: usize) -> Id {
    let names = Names::new(COMPONENT);
    let z = if cfg.use_post_quant_conv {
        conv(g, &names.at("post_quant_conv"), z, cfg.latent_channels, 1)
    } else {
        z
    };
    let w = names.at("decoder");
    let widest = cfg.block_out_channels.last().copied().unwrap_or(0);
    let x = Bands::whole(z, most, 1).fit(g, widest, 1);
    let x = x.convolve(g, |_, x| x, |g, x| conv(g, &w.at("conv_in"), x, widest, 3), None);
    x.tap(g, &w.at("conv_in"));
    let mut x = mid_block(g, &w.at("mid_block"), cfg, x);
    x.tap(g, &w.at("mid_block"));
    for (n, &c) in cfg.block_out_channels.iter().rev().enumerate() {
        let w = w.at("up_blocks").at(n);
        for i in 0..cfg.layers_per_block + 1 {
            x = resnet(g, &w.at("resnets").at(i), cfg, x, c);
        }
        if n + 1 < cfg.block_out_channels.len() {
            let up = w.at("upsamplers.0.conv");
            x = x.fit(g, c, 2).convolve(g, |g, x| g.upsample(x), |g, x| conv(g, &up, x, c, 3), None);
        }
        x.tap(g, &w);
    }
    let norm = norm_silu(g, &w.at("conv_norm_out"), cfg, &x);
    x.convolve(g, norm, |g, x| conv(g, &w.at("conv_out"), x, 3, 3), None).join(g)
}

/// [`encode_within`] without a limit.
pub fn encode(g: &mut Graph, cfg: &VaeConfig, image: Id) -> Id {
    encode_within(g, cfg, image, usize::MAX)
}

/// An image to the mean and log-variance of its latents. image: `[B, H, W, 4]`, -1 to 1, fourth channel zero, sides
/// multiples of [`VaeConfig::downscale`]; result: `[B, h, w, 2 * latent_channels]`, means first. `most` as in
/// [`decode_within`].
pub fn encode_within(g: &mut Graph, cfg: &VaeConfig, image: Id, most: usize) -> Id {
    let [_, height, width, channels] = image_shape(g, image, "image");
    let d = cfg.downscale();
    if !height.is_multiple_of(d) || !width.is_multiple_of(d) || channels != IMAGE_CHANNELS {
        return g.fail(format!(
            "image of {height} x {width} pixels and {channels} channels: sides must be multiples of {d}, channels 4"
        ));
    }
    by_image(g, image, cfg.widest([height, width]), most, |g, image| encode_bands(g, cfg, image, most))
}

fn encode_bands(g: &mut Graph, cfg: &VaeConfig, image: Id, most: usize) -> Id {
    let names = Names::new(COMPONENT);
    let w = names.at("encoder");
    let first = cfg.block_out_channels.first().copied().unwrap_or(0);
    let x = Bands::whole(image, most, cfg.downscale()).fit(g, first, 1);
    let mut x = x.convolve(g, |_, x| x, |g, x| conv(g, &w.at("conv_in"), x, first, 3), None);
    for (n, &c) in cfg.block_out_channels.iter().enumerate() {
        let w = w.at("down_blocks").at(n);
        for i in 0..cfg.layers_per_block {
            x = resnet(g, &w.at("resnets").at(i), cfg, x, c);
        }
        if n + 1 < cfg.block_out_channels.len() {
            let down = w.at("downsamplers.0.conv");
            x = x.halve(g, |g, x| downsample(g, &down, x, c));
        }
        x.tap(g, &w);
    }
    let x = mid_block(g, &w.at("mid_block"), cfg, x);
    x.tap(g, &w.at("mid_block"));
    let norm = norm_silu(g, &w.at("conv_norm_out"), cfg, &x);
    let out = 2 * cfg.latent_channels;
    let moments = x.convolve(g, norm, |g, x| conv(g, &w.at("conv_out"), x, out, 3), None).join(g);
    if cfg.use_quant_conv { conv(g, &names.at("quant_conv"), moments, out, 1) } else { moments }
}

/// `f` of a batch, or of its images one after another where tensors of `each` numbers per image would not fit.
fn by_image(g: &mut Graph, x: Id, each: usize, most: usize, mut f: impl FnMut(&mut Graph, Id) -> Id) -> Id {
    let batch = g.shape(x).first().copied().unwrap_or(0);
    if batch <= 1 || each.saturating_mul(batch) <= most {
        return f(g, x);
    }
    let mut all: Option<Id> = None;
    for image in 0..batch {
        let image = g.slice(x, 0, image, 1);
        let y = f(g, image);
        all = Some(all.map_or(y, |before| g.concat(before, y, 0)));
    }
    all.unwrap_or(x)
}

/// resnet, attention, resnet at the narrowest place.
fn mid_block(g: &mut Graph, w: &Names, cfg: &VaeConfig, x: Bands) -> Bands {
    let c = x.columns(g);
    let mut x = resnet(g, &w.at("resnets.0"), cfg, x, c);
    if cfg.mid_block_add_attention {
        let whole = x.join(g);
        let w = w.at("attentions.0");
        x = x.replaced(attention(g, &w, cfg, whole));
        x.tap(g, &w);
    }
    resnet(g, &w.at("resnets.1"), cfg, x, c)
}

/// x + conv(silu(norm(conv(silu(norm(x)))))), x through a 1 x 1 convolution where the width changes.
fn resnet(g: &mut Graph, w: &Names, cfg: &VaeConfig, x: Bands, out: usize) -> Bands {
    let x = x.fit(g, out, 1);
    g.begin_block();
    let norm = norm_silu(g, &w.at("norm1"), cfg, &x);
    let h = x.convolve(g, norm, |g, x| conv(g, &w.at("conv1"), x, out, 3), None);
    let norm = norm_silu(g, &w.at("norm2"), cfg, &h);
    let shortcut = w.at("conv_shortcut");
    let x = if x.columns(g) == out { x } else { x.map(g, |g, x| conv(g, &shortcut, x, out, 1)) };
    let y = h.convolve(g, norm, |g, x| conv(g, &w.at("conv2"), x, out, 3), Some(&x));
    g.end_block();
    y
}

/// Attention of all pixels of an image, one head as wide as the block. In f32: SD3's VAE asks for it (`force_upcast`).
fn attention(g: &mut Graph, w: &Names, cfg: &VaeConfig, x: Id) -> Id {
    let [b, height, width, c] = image_shape(g, x, "attention");
    let was = g.exact(true);
    g.begin_block();
    let h = group_norm(g, &w.at("group_norm"), cfg, x);
    let h = g.reshape(h, &[b, height * width, c]);
    let [q, k, v] = ["to_q", "to_k", "to_v"].map(|name| w.at(name).linear(g, h, c));
    let y =
        if c <= MAX_HEAD { g.attention(q, k, v, 1, None, false) } else { wide_attention(g, q, k, v, SCORES) };
    let y = w.at("to_out.0").linear(g, y, c);
    let y = g.reshape(y, &[b, height, width, c]);
    let y = g.add(x, y);
    g.end_block();
    g.exact(was);
    y
}

/// softmax(q k^T / sqrt(C)) v of one head too wide for the fused kernel, image by image and some queries at a time.
/// q, k, v: `[B, S, C]`; most: numbers in a block of scores.
fn wide_attention(g: &mut Graph, q: Id, k: Id, v: Id, most: usize) -> Id {
    let &[b, s, c] = g.shape(q) else { return g.fail("attention: expected [B, S, C]") };
    let rows = (most / s.max(1)).clamp(1, s.max(1));
    let mut all: Option<Id> = None;
    for image in 0..b {
        let [q, k, v] = [q, k, v].map(|x| {
            let x = g.slice(x, 0, image, 1);
            g.reshape(x, &[s, c])
        });
        for start in (0..s).step_by(rows) {
            let q = g.slice(q, 0, start, rows.min(s - start));
            let scores = g.matmul(q, k, false, true);
            let p = g.softmax(scores, 1.0 / libm::sqrtf(c as f32));
            let y = g.matmul(p, v, false, false);
            all = Some(all.map_or(y, |before| g.concat(before, y, 0)));
        }
    }
    let all = all.unwrap_or(q);
    g.reshape(all, &[b, s, c])
}

/// Half the size; pads below and to the right only.
fn downsample(g: &mut Graph, w: &Names, x: Id, out: usize) -> Id {
    let (kernel, bias) = conv_weights(g, w, x, out, 3);
    g.conv2d(x, kernel, Some(bias), 2, 0, 1)
}

/// Convolution that keeps the size.
fn conv(g: &mut Graph, w: &Names, x: Id, out: usize, k: usize) -> Id {
    let (kernel, bias) = conv_weights(g, w, x, out, k);
    g.conv2d(x, kernel, Some(bias), 1, k / 2, 0)
}

fn conv_weights(g: &mut Graph, w: &Names, x: Id, out: usize, k: usize) -> (Id, Id) {
    let shape = [out, k, k, columns(g, x)];
    let kernel = g.weight(format!("{}weight", w.0), &shape, Layout::Conv);
    (kernel, w.tensor(g, "bias", &[out]))
}

/// Norm and activation of each band, by the statistics of all.
fn norm_silu<'a>(
    g: &mut Graph,
    w: &Names<'a>,
    cfg: &'a VaeConfig,
    x: &Bands,
) -> impl FnMut(&mut Graph, Id) -> Id + use<'a> {
    let statistics = x.statistics(g, cfg.norm_num_groups, EPS);
    let w = w.clone();
    move |g, x| {
        let x = match &statistics {
            Some(statistics) => {
                let c = [columns(g, x)];
                let (scale, shift) = (w.tensor(g, "weight", &c), w.tensor(g, "bias", &c));
                statistics.apply(g, x, scale, shift)
            }
            None => group_norm(g, &w, cfg, x),
        };
        g.act(Act::Silu, x)
    }
}

fn group_norm(g: &mut Graph, w: &Names, cfg: &VaeConfig, x: Id) -> Id {
    let c = [columns(g, x)];
    let (scale, shift) = (w.tensor(g, "weight", &c), w.tensor(g, "bias", &c));
    let y = g.group_norm(x, scale, shift, cfg.norm_num_groups, EPS);
    g.tap(w.module(), y);
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cpu::Cpu;
    use crate::exec::{Executor, compile};
    use crate::rng::Philox;

    /// The path for heads too wide for the fused kernel computes the same.
    #[test]
    fn wide_attention_is_attention() {
        let shape = [2, 7, 8];
        for most in [1, 7, 20, SCORES] {
            let mut g = Graph::new();
            let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, &shape));
            let fused = g.attention(q, k, v, 1, None, false);
            let wide = wide_attention(&mut g, q, k, v, most);
            let mut exec = Cpu::new();
            let plan = compile(&mut exec, g, &[("fused", fused), ("wide", wide)]).unwrap();
            for (i, name) in ["q", "k", "v"].into_iter().enumerate() {
                let mut data = vec![0.0; shape.iter().product()];
                Philox::new(1, i as u64).normals(&mut data);
                exec.write(plan, name, &data).unwrap();
            }
            exec.run(plan).unwrap();
            let (fused, wide) = (exec.read(plan, "fused").unwrap(), exec.read(plan, "wide").unwrap());
            assert!(fused.iter().zip(&wide).all(|(a, b)| (a - b).abs() <= 1e-6), "blocks of {most}");
            assert!(fused.iter().any(|v| v.abs() >= 0.1));
        }
    }

    #[test]
    fn unsupported_settings_are_named() {
        let text = |json: &str| {
            let json: Value = serde_json::from_str(json).unwrap();
            VaeConfig::from_value(&json, "vae/config.json").map_or_else(|e| format!("{e}"), |_| "fine".into())
        };
        let with = |more: &str| {
            text(&format!(
                r#"{{"block_out_channels":[8,8],"layers_per_block":1,"latent_channels":4,"norm_num_groups":4,
                    "scaling_factor":1.5{more}}}"#
            ))
        };
        assert_eq!(with(""), "fine");
        assert!(with(r#","act_fn":"relu""#).starts_with("vae/config.json: `act_fn`: expected \"silu\""));
        assert!(with(r#","latents_mean":[0.1]"#).contains("`latents_mean`: expected null"));
        assert!(with(r#","up_block_types":["A","UpDecoderBlock2D"]"#).contains("`up_block_types`"));
        assert!(text("{}").contains("missing field `block_out_channels`"));
    }
}
