//! The flow transformer of Stable Diffusion 3 and 3.5: predicts velocity from noisy latents, text and time.
//! Paper: Esser et al. 2024 (arXiv 2403.03206), figure 2. Follows diffusers 0.42 `SD3Transformer2DModel`.
//!
//! B batch, H x W latent pixels, S image tokens, T text tokens, C width, J width of text features, P width of pooled ones.
use super::lora::Lora;
use super::{Fields, Names, image_shape, unpatch};
use crate::Result;
use crate::graph::{Graph, Id, Layout};
use crate::op::attention::MAX_HEAD;
use alloc::{format, string::String, vec, vec::Vec};
use pentimento_wgsl::kernel::{Act, Binary};
use serde_json::Value;

/// Folder of the model in a pipeline, and prefix of its leaves.
pub const COMPONENT: &str = "transformer";
/// Whether a leaf may be quantised without having been trained so, and streamed from the host: the blocks', nearly all there are. What comes
/// before and after them is small and is felt everywhere.
pub fn quantised(leaf: &str) -> bool {
    leaf.strip_prefix(COMPONENT).is_some_and(|name| name.starts_with("/transformer_blocks."))
}

/// Length of the sinusoidal time embedding.
pub const TIME_CHANNELS: usize = 256;
const EPS: f32 = 1e-6;

/// `transformer/config.json`, with its field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct MmditConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    /// Latent pixels per side of a token: 1 or 2.
    pub patch_size: usize,
    pub num_layers: usize,
    pub num_attention_heads: usize,
    pub attention_head_dim: usize,
    pub joint_attention_dim: usize,
    pub pooled_projection_dim: usize,
    /// Side of the table of position embeddings, tokens.
    pub pos_embed_max_size: usize,
    /// RMS norm of queries and keys (SD3.5).
    pub qk_norm: bool,
    /// Blocks with a second attention over image tokens only (SD3.5-medium).
    pub dual_attention_layers: Vec<usize>,
}

impl MmditConfig {
    /// stabilityai/stable-diffusion-3-medium.
    pub fn sd3_medium() -> Self {
        MmditConfig {
            in_channels: 16,
            out_channels: 16,
            patch_size: 2,
            num_layers: 24,
            num_attention_heads: 24,
            attention_head_dim: 64,
            joint_attention_dim: 4096,
            pooled_projection_dim: 2048,
            pos_embed_max_size: 192,
            qk_norm: false,
            dual_attention_layers: Vec::new(),
        }
    }
    /// stabilityai/stable-diffusion-3.5-medium.
    pub fn sd35_medium() -> Self {
        let dual_attention_layers = (0..13).collect();
        MmditConfig { qk_norm: true, pos_embed_max_size: 384, dual_attention_layers, ..Self::sd3_medium() }
    }
    /// stabilityai/stable-diffusion-3.5-large.
    pub fn sd35_large() -> Self {
        MmditConfig { qk_norm: true, num_layers: 38, num_attention_heads: 38, ..Self::sd3_medium() }
    }

    /// Reads `config.json`. `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        f.only("_class_name", "SD3Transformer2DModel".into())?;
        let in_channels = f.size("in_channels")?;
        let out_channels =
            if f.get("out_channels").is_some() { f.size("out_channels")? } else { in_channels };
        let cfg = MmditConfig {
            in_channels,
            out_channels,
            patch_size: f.size("patch_size")?,
            num_layers: f.size("num_layers")?,
            num_attention_heads: f.size("num_attention_heads")?,
            attention_head_dim: f.size("attention_head_dim")?,
            joint_attention_dim: f.size("joint_attention_dim")?,
            pooled_projection_dim: f.size("pooled_projection_dim")?,
            pos_embed_max_size: f.size("pos_embed_max_size")?,
            qk_norm: f.word("qk_norm", &["rms_norm"])?.is_some(),
            dual_attention_layers: dual_layers(&f)?,
        };
        if cfg.patch_size > 2 {
            return Err(f.bad("patch_size", "1 or 2", cfg.patch_size));
        }
        if !cfg.attention_head_dim.is_multiple_of(4) || cfg.attention_head_dim > MAX_HEAD {
            let expected = format!("a multiple of 4 up to {MAX_HEAD}");
            return Err(f.bad("attention_head_dim", expected, cfg.attention_head_dim));
        }
        if cfg.num_layers > MAX_LAYERS {
            return Err(f.bad("num_layers", format!("at most {MAX_LAYERS}"), cfg.num_layers));
        }
        if let Some(layer) = cfg.dual_attention_layers.iter().find(|&&l| l >= cfg.num_layers) {
            return Err(f.bad("dual_attention_layers", format!("layers below {}", cfg.num_layers), layer));
        }
        // Text tokens go through the same blocks as image tokens, so both are as wide.
        f.only("caption_projection_dim", Value::from(cfg.width()))?;
        Ok(cfg)
    }

    /// C: width of a token.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
    /// S: tokens of an image of `h x w` latent pixels.
    pub fn image_tokens(&self, h: usize, w: usize) -> usize {
        (h / self.patch_size) * (w / self.patch_size)
    }
    /// Whether block `layer` drops its text tokens after attention.
    fn context_pre_only(&self, layer: usize) -> bool {
        layer + 1 == self.num_layers
    }
}

/// Most layers of a transformer.
const MAX_LAYERS: usize = 1024;

fn dual_layers(f: &Fields<'_>) -> Result<Vec<usize>> {
    let Some(value) = f.get("dual_attention_layers") else { return Ok(Vec::new()) };
    let wrong = || f.bad("dual_attention_layers", "a list of layer numbers", value);
    let list = value.as_array().filter(|list| list.len() <= MAX_LAYERS).ok_or_else(wrong)?;
    list.iter().map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)).collect()
}

/// The projections of a joint attention that training adapts, in the order of [`lora_targets`].
const TARGETS: [&str; 8] =
    ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"];

/// Every layer that training adapts as (`transformer_blocks.N.attn.X`, inputs, outputs), block by block.
/// The last block has no `to_add_out`; second attentions (`attn2`) are left out.
pub fn lora_targets(cfg: &MmditConfig) -> Vec<(String, usize, usize)> {
    let c = cfg.width();
    let all = (0..cfg.num_layers).flat_map(|n| TARGETS.map(|x| (n, x)));
    all.filter(|&(n, x)| x != "to_add_out" || !cfg.context_pre_only(n))
        .map(|(n, x)| (format!("transformer_blocks.{n}.attn.{x}"), c, c))
        .collect()
}

/// Sinusoidal embedding of a time (1000 sigma): cosines, then sines. `TIME_CHANNELS` numbers.
/// Sine and cosine are exact; the frequencies and their products with t are rounded to f32 as in diffusers.
pub fn time_projection(t: f32) -> Vec<f32> {
    let angle = |i: usize| f64::from(t * frequency(i));
    let half = TIME_CHANNELS / 2;
    let cos = (0..half).map(|i| libm::cos(angle(i)) as f32);
    cos.chain((0..half).map(|i| libm::sin(angle(i)) as f32)).collect()
}

/// `exp(-ln(10000) i / 128)` as torch computes it in f32. At t = 1000 one ulp turns the angle by 3e-5, so it matters.
fn frequency(i: usize) -> f32 {
    let exponent = -(libm::log(10_000.0) as f32) * i as f32 / (TIME_CHANNELS / 2) as f32;
    let nearest = libm::exp(f64::from(exponent)) as f32;
    // The true value lies 0.479 ulp above the nearest f32; torch's exp gives the neighbour above, here and only here.
    if i == 12 { f32::from_bits(nearest.to_bits() + 1) } else { nearest }
}

/// Key bias of the joint attention when the last context token stands for `repeat` equal ones: zeros and `ln repeat`.
/// `[image_tokens + context_tokens]`.
pub fn key_bias(image_tokens: usize, context_tokens: usize, repeat: usize) -> Vec<f32> {
    let mut bias = vec![0.0; image_tokens + context_tokens];
    if let Some(last) = bias.last_mut().filter(|_| repeat > 0) {
        *last = libm::log(repeat as f64) as f32;
    }
    bias
}

/// Velocity of noisy latents.
///
/// latents: `[B, H, W, in_channels]`; time: `[B, 256]`, see [`time_projection`]; pooled: `[B, P]`; context: `[B, T, J]`;
/// bias: `[S + T]`, added to every joint attention's logits by key, see [`key_bias`]. Result: `[B, H, W, out_channels]`.
pub fn velocity(
    g: &mut Graph,
    cfg: &MmditConfig,
    lora: Option<&Lora>,
    latents: Id,
    time: Id,
    pooled: Id,
    context: Id,
    bias: Option<Id>,
) -> Id {
    if let Err(message) = check_shapes(g, cfg, latents, time, pooled, context) {
        return g.fail(message);
    }
    let w = Names::new(COMPONENT).adapted(lora);
    let [_, height, width, _] = image_shape(g, latents, "latents");
    let (h, v) = (height / cfg.patch_size, width / cfg.patch_size);
    let mut x = embed_image(g, &w.at("pos_embed"), cfg, latents, h, v);
    let mut c = w.at("context_embedder").linear(g, context, cfg.width());
    let t = embed_time(g, &w.at("time_text_embed"), cfg, time, pooled);
    g.tap("pos_embed".into(), x);
    g.tap("time_text_embed".into(), t);
    g.tap("context_embedder".into(), c);
    let t = g.act(Act::Silu, t);
    for layer in 0..cfg.num_layers {
        let block = Block { w: w.at("transformer_blocks").at(layer), cfg, layer, bias };
        (x, c) = block.forward(g, x, c, t);
        if !cfg.context_pre_only(layer) {
            block.tap(g, "encoder_hidden_states", c);
        }
        block.tap(g, "hidden_states", x);
    }
    let [scale, shift] = chunks(g, &w.at("norm_out.linear"), t, cfg.width());
    let x = modulated_norm(g, x, shift, scale);
    g.tap("norm_out".into(), x);
    let x = w.at("proj_out").linear(g, x, cfg.patch_size * cfg.patch_size * cfg.out_channels);
    g.tap("proj_out".into(), x);
    unpatch(g, x, cfg.patch_size, h, v)
}

/// Sides that are whole tokens and fit the table of positions; equal batches; the widths of the configuration.
fn check_shapes(
    g: &Graph,
    cfg: &MmditConfig,
    latents: Id,
    time: Id,
    pooled: Id,
    context: Id,
) -> core::result::Result<(), String> {
    let (p, max) = (cfg.patch_size, cfg.patch_size * cfg.pos_embed_max_size);
    let &[b, h, w, c] = g.shape(latents) else {
        return Err(format!(
            "latents: expected [B, H, W, {}], found {:?}",
            cfg.in_channels,
            g.shape(latents)
        ));
    };
    let side = |n: usize| n.is_multiple_of(p) && (1..=max).contains(&n);
    if !side(h) || !side(w) || c != cfg.in_channels {
        return Err(format!(
            "latents {:?}: expected {} channels and sides up to {max} that are multiples of {p}",
            g.shape(latents),
            cfg.in_channels
        ));
    }
    let tokens = g.shape(context).get(1).copied().unwrap_or(0);
    let wanted: [(&str, Id, &[usize]); 3] = [
        ("time", time, &[b, TIME_CHANNELS]),
        ("pooled text", pooled, &[b, cfg.pooled_projection_dim]),
        ("context", context, &[b, tokens, cfg.joint_attention_dim]),
    ];
    match wanted.iter().find(|(_, id, shape)| g.shape(*id) != *shape) {
        Some((what, id, shape)) => Err(format!("{what}: expected {shape:?}, found {:?}", g.shape(*id))),
        None => Ok(()),
    }
}

/// Patches plus the centre of the table of position embeddings. `[B, S, C]`.
fn embed_image(g: &mut Graph, w: &Names, cfg: &MmditConfig, latents: Id, h: usize, v: usize) -> Id {
    let (side, width) = (cfg.pos_embed_max_size, cfg.width());
    let x = w.at("proj").patch_embedding(g, latents, cfg.patch_size, width);
    // Only the window is uploaded: the whole table of SD3.5-medium takes 906 MB in f32.
    let layout = Layout::Centre { side, h, w: v };
    let position = g.weight(format!("{}pos_embed@{h}x{v}", w.0), &[h * v, width], layout);
    g.add(x, position)
}

/// Time and pooled text, each through a small MLP, summed. `[B, C]`.
fn embed_time(g: &mut Graph, w: &Names, cfg: &MmditConfig, time: Id, pooled: Id) -> Id {
    let mlp = |g: &mut Graph, w: Names, x: Id| {
        let x = w.at("linear_1").linear(g, x, cfg.width());
        let x = g.act(Act::Silu, x);
        w.at("linear_2").linear(g, x, cfg.width())
    };
    let time = mlp(g, w.at("timestep_embedder"), time);
    let text = mlp(g, w.at("text_embedder"), pooled);
    g.add(time, text)
}

/// A joint block and what all its parts need.
struct Block<'a> {
    w: Names<'a>,
    cfg: &'a MmditConfig,
    layer: usize,
    bias: Option<Id>,
}

/// What a stream's adaptive norm says about attention and feed-forward; each `[B, 1, C]`.
struct Modulation {
    shift_msa: Id,
    scale_msa: Id,
    gate_msa: Id,
    shift_mlp: Id,
    scale_mlp: Id,
    gate_mlp: Id,
}

impl Block<'_> {
    /// Names an intermediate value of this block by its module.
    fn tap(&self, g: &mut Graph, module: &str, id: Id) {
        g.tap(self.w.at(module).module(), id);
    }

    /// x: `[B, S, C]` image tokens; c: `[B, T, C]` text tokens; t: `[B, C]`, silu of the time embedding.
    fn forward(&self, g: &mut Graph, x: Id, c: Id, t: Id) -> (Id, Id) {
        // Modulations stay outside of the recomputed block: tiny, but their weights are a third of all.
        let width = self.cfg.width();
        let dual = self.cfg.dual_attention_layers.contains(&self.layer);
        let (m, second) = if dual {
            let [a, b, d, e, f, h, shift, scale, gate] = chunks(g, &self.w.at("norm1.linear"), t, width);
            (Modulation::new([a, b, d, e, f, h]), Some([shift, scale, gate]))
        } else {
            (Modulation::new(chunks(g, &self.w.at("norm1.linear"), t, width)), None)
        };
        if self.cfg.context_pre_only(self.layer) {
            let [scale, shift] = chunks(g, &self.w.at("norm1_context.linear"), t, width);
            g.begin_block();
            let nc = modulated_norm(g, c, shift, scale);
            let nx = modulated_norm(g, x, m.shift_msa, m.scale_msa);
            self.tap(g, "norm1", nx);
            let (ax, _) = self.attention(g, nx, nc);
            let x = self.image_stream(g, x, ax, &m, second);
            g.end_block();
            return (x, c);
        }
        let mc = Modulation::new(chunks(g, &self.w.at("norm1_context.linear"), t, width));
        g.begin_block();
        let nx = modulated_norm(g, x, m.shift_msa, m.scale_msa);
        self.tap(g, "norm1", nx);
        let nc = modulated_norm(g, c, mc.shift_msa, mc.scale_msa);
        let (ax, ac) = self.attention(g, nx, nc);
        let x = self.image_stream(g, x, ax, &m, second);
        let ac = self.project(g, "attn.to_add_out", ac);
        self.tap(g, "attn.to_add_out", ac);
        let c = gated_add(g, c, ac, mc.gate_msa);
        let c = self.feed_forward(g, "ff_context.net", c, &mc);
        g.end_block();
        (x, c)
    }

    /// Everything after joint attention that only image tokens see. `second`: shift, scale and gate of `attn2`.
    fn image_stream(
        &self,
        g: &mut Graph,
        x: Id,
        attended: Id,
        m: &Modulation,
        second: Option<[Id; 3]>,
    ) -> Id {
        let attended = self.project(g, "attn.to_out.0", attended);
        self.tap(g, "attn.to_out.0", attended);
        let mut y = gated_add(g, x, attended, m.gate_msa);
        if let Some([shift, scale, gate]) = second {
            let nx = modulated_norm(g, x, shift, scale);
            let a = self.second_attention(g, nx);
            self.tap(g, "attn2", a);
            y = gated_add(g, y, a, gate);
        }
        self.feed_forward(g, "ff.net", y, m)
    }

    /// Joint attention of image and text tokens, before the output projections.
    fn attention(&self, g: &mut Graph, x: Id, c: Id) -> (Id, Id) {
        let (s, t) = (g.shape(x)[1], g.shape(c)[1]);
        let mut joint = |image: &str, text: &str, norms: Option<[&str; 2]>| {
            let (mut a, mut b) = (self.project(g, image, x), self.project(g, text, c));
            if let Some([image, text]) = norms.filter(|_| self.cfg.qk_norm) {
                (a, b) = (self.head_norm(g, image, a), self.head_norm(g, text, b));
            }
            g.concat(a, b, 1)
        };
        let q = joint("attn.to_q", "attn.add_q_proj", Some(["attn.norm_q", "attn.norm_added_q"]));
        let k = joint("attn.to_k", "attn.add_k_proj", Some(["attn.norm_k", "attn.norm_added_k"]));
        let v = joint("attn.to_v", "attn.add_v_proj", None);
        let y = g.attention(q, k, v, self.cfg.num_attention_heads, self.bias, false);
        (g.slice(y, 1, 0, s), g.slice(y, 1, s, t))
    }

    /// Self-attention of image tokens (`attn2`).
    fn second_attention(&self, g: &mut Graph, x: Id) -> Id {
        let mut q = self.project(g, "attn2.to_q", x);
        let mut k = self.project(g, "attn2.to_k", x);
        let v = self.project(g, "attn2.to_v", x);
        if self.cfg.qk_norm {
            (q, k) = (self.head_norm(g, "attn2.norm_q", q), self.head_norm(g, "attn2.norm_k", k));
        }
        let y = g.attention(q, k, v, self.cfg.num_attention_heads, None, false);
        self.project(g, "attn2.to_out.0", y)
    }

    /// x + gate * MLP(norm(x)).
    fn feed_forward(&self, g: &mut Graph, name: &str, x: Id, m: &Modulation) -> Id {
        let w = self.w.at(name);
        let h = modulated_norm(g, x, m.shift_mlp, m.scale_mlp);
        let h = w.at("0.proj").linear(g, h, 4 * self.cfg.width());
        let h = g.act(Act::GeluTanh, h);
        let h = w.at("2").linear(g, h, self.cfg.width());
        self.tap(g, name.trim_end_matches(".net"), h);
        gated_add(g, x, h, m.gate_mlp)
    }

    /// A linear layer of this block that keeps the width.
    fn project(&self, g: &mut Graph, name: &str, x: Id) -> Id {
        self.w.at(name).linear(g, x, self.cfg.width())
    }

    /// RMS norm of each head.
    fn head_norm(&self, g: &mut Graph, name: &str, x: Id) -> Id {
        let shape = g.shape(x).to_vec();
        let d = self.cfg.attention_head_dim;
        let w = self.w.at(name).tensor(g, "weight", &[d]);
        let x = g.reshape(x, &[shape[0], shape[1], self.cfg.num_attention_heads, d]);
        let x = g.rms_norm(x, w, EPS);
        g.reshape(x, &shape)
    }
}

impl Modulation {
    fn new([shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp]: [Id; 6]) -> Self {
        Modulation { shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp }
    }
}

/// A linear layer on t whose outputs are N modulations, each `[B, 1, C]`. They are put one after the other first, so that each
/// is a view and not a copy.
fn chunks<const N: usize>(g: &mut Graph, w: &Names, t: Id, c: usize) -> [Id; N] {
    let y = w.linear(g, t, N * c);
    let b = g.shape(y)[0];
    let y = g.reshape(y, &[b, N, c]);
    let y = if b == 1 { g.reshape(y, &[N, b, c]) } else { g.permute(y, &[1, 0, 2]) };
    core::array::from_fn(|i| {
        let part = g.slice(y, 0, i, 1);
        g.reshape(part, &[b, 1, c])
    })
}

/// layer_norm(x) * (1 + scale) + shift.
fn modulated_norm(g: &mut Graph, x: Id, shift: Id, scale: Id) -> Id {
    let x = g.layer_norm(x, EPS);
    let x = g.binary(Binary::Scale1, x, scale);
    g.add(x, shift)
}

/// x + gate * y.
fn gated_add(g: &mut Graph, x: Id, y: Id, gate: Id) -> Id {
    let y = g.mul(y, gate);
    g.add(x, y)
}

#[cfg(test)]
mod tests;
