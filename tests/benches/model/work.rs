//! The workloads: graphs of the networks as trainings run them, and random numbers for what they read.
use pentimento_runtime::exec::{Executor, LeafData, kept};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::model::lora::{Lora, device_rank, leaves};
use pentimento_runtime::model::mmdit::{self, TIME_CHANNELS, lora_targets, velocity};
use pentimento_runtime::model::{Constants, clip_vision, dino, vae};
use pentimento_runtime::plan::Plan;
use pentimento_runtime::rng::Philox;
use pentimento_runtime::weights::Base;
use pentimento_trainer::config::Config;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::Unary;
use serde_json::Value;
use std::path::Path;

/// What a workload may be cut to.
#[derive(Clone, Copy)]
pub struct Size {
    /// Images; `None`: the workload's own.
    pub batch: Option<usize>,
    /// Transformer blocks or encoder layers.
    pub layers: Option<usize>,
    /// Of the adapter; `None`: 32, the default training's for the default model.
    pub rank: Option<usize>,
    /// Narrow networks and an eighth of each side, for CPU drivers.
    pub tiny: bool,
}

/// A graph, what is read of it, and the constants that it needs.
pub struct Work {
    pub graph: Graph,
    pub outputs: Vec<(String, Id)>,
    pub constants: Constants,
    /// Images at once.
    pub batch: usize,
}

/// Names, in the order they are run.
pub const NAMES: [&str; 11] = [
    "sd35-forward-512",
    "sd35-forward-1024",
    "sd35-lora-512",
    "sd35-lora-1024",
    "dino-518",
    "vae-decode-512",
    "vae-decode-1024",
    "clip-h",
    "icons-warm",
    "icons-rollout",
    "icons-update",
];

/// Context tokens of the published pipeline: 77 of CLIP, 256 of T5. Rank of its adapters in the released code.
const TOKENS: usize = 77 + 256;
const RANK: usize = 32;
/// Context tokens of the default model: 24 of CLIP, one for the absent T5.
const ICON_TOKENS: usize = 25;
/// Latent pixels along a side of its images.
const ICON: usize = 8;

/// The graph of one of [`NAMES`]. Pictures whose tensors have more than `most` numbers are decoded in bands.
pub fn build(name: &str, size: Size, most: usize) -> Work {
    let pixels = |full: usize| if size.tiny { full / 8 } else { full };
    match name {
        "sd35-forward-512" => sd35(size, pixels(512) / 8, false),
        "sd35-forward-1024" => sd35(size, pixels(1024) / 8, false),
        "sd35-lora-512" => sd35(size, pixels(512) / 8, true),
        "sd35-lora-1024" => sd35(size, pixels(1024) / 8, true),
        "dino-518" => dinov2(size, if size.tiny { 70 } else { 518 }),
        "vae-decode-512" => decode(size, pixels(512) / 8, most),
        "vae-decode-1024" => decode(size, pixels(1024) / 8, most),
        "clip-h" => clip_h(size),
        "icons-warm" => warm(size),
        "icons-rollout" => rollout(size),
        _ => update(size),
    }
}

impl Size {
    fn layers(&self, all: usize) -> usize {
        self.layers.or(self.tiny.then_some(2)).unwrap_or(all).min(all)
    }
    fn batch(&self, usual: usize) -> usize {
        self.batch.unwrap_or(if self.tiny { 1 } else { usual })
    }
    fn transformer(&self, mut cfg: mmdit::MmditConfig) -> mmdit::MmditConfig {
        cfg.num_layers = self.layers(cfg.num_layers);
        cfg.dual_attention_layers.retain(|&l| l < cfg.num_layers);
        cfg
    }
}

/// Inputs of a velocity but the latents, named with a prefix; and the velocity.
fn transformer(
    g: &mut Graph,
    cfg: &mmdit::MmditConfig,
    rank: usize,
    prefix: &str,
    x: Id,
    tokens: usize,
    bias: Option<Id>,
) -> Id {
    let batch = g.shape(x)[0];
    let time = g.input(format!("{prefix}time"), &[batch, TIME_CHANNELS]);
    let pooled = g.input(format!("{prefix}pooled"), &[batch, cfg.pooled_projection_dim]);
    let context = g.input(format!("{prefix}context"), &[batch, tokens, cfg.joint_attention_dim]);
    let lora = Lora::joint(cfg, rank, 1.0);
    velocity(g, cfg, Some(&lora), x, time, pooled, context, bias)
}

/// Gradients of `y` by every matrix of the adapter, as outputs.
fn by_adapter(
    g: &mut Graph,
    cfg: &mmdit::MmditConfig,
    rank: usize,
    y: Id,
    recompute: bool,
) -> Vec<(String, Id)> {
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    let matrices = lora_targets(cfg).into_iter().flat_map(|(target, i, o)| {
        let [a, b] = leaves(&target);
        [(a, [rank, i]), (b, [o, rank])]
    });
    let (names, wrt): (Vec<_>, Vec<_>) = matrices.map(|(n, s)| (format!("d {n}"), g.param(n, &s))).unzip();
    names.into_iter().zip(gradients(g, y, dy, &wrt, recompute).expect("gradients")).collect()
}

fn sd35(size: Size, side: usize, train: bool) -> Work {
    let (full, batch) = (mmdit::MmditConfig::sd35_medium(), size.batch(2));
    let cfg = size.transformer(if size.tiny {
        mmdit::MmditConfig { num_attention_heads: 8, ..full }
    } else {
        full
    });
    let (rank, tokens) = (device_rank(size.rank.unwrap_or(RANK)), if size.tiny { 77 } else { TOKENS });
    let mut g = Graph::new();
    let x = g.input("latents", &[batch, side, side, cfg.in_channels]);
    let v = transformer(&mut g, &cfg, rank, "", x, tokens, None);
    let mut outputs = vec![("velocity".into(), v)];
    if train {
        outputs.extend(by_adapter(&mut g, &cfg, rank, v, true));
    }
    Work { graph: g, outputs, constants: Constants::new(), batch }
}

fn dinov2(size: Size, side: usize) -> Work {
    let (mut g, mut constants, batch) = (Graph::new(), Constants::new(), size.batch(2));
    let full = dino::DinoConfig::base();
    let cfg = dino::DinoConfig { num_hidden_layers: size.layers(full.num_hidden_layers), ..full };
    let pixels = g.input("pixels", &[batch, side, side, 3]);
    let y = dino::encode(&mut g, &mut constants, &cfg, "reward", pixels);
    Work { graph: g, outputs: vec![("tokens".into(), y)], constants, batch }
}

fn decode(size: Size, side: usize, most: usize) -> Work {
    let (mut g, batch, full) = (Graph::new(), size.batch(1), vae::VaeConfig::sd3());
    let narrow = vae::VaeConfig { block_out_channels: vec![32, 64, 128, 128], ..full.clone() };
    let cfg = if size.tiny { narrow } else { full };
    let z = g.input("latents", &[batch, side, side, cfg.latent_channels]);
    let image = vae::decode_within(&mut g, &cfg, z, most);
    Work { graph: g, outputs: vec![("image".into(), image)], constants: Constants::new(), batch }
}

fn clip_h(size: Size) -> Work {
    let (mut g, batch, full) = (Graph::new(), size.batch(8), clip_vision::ClipVisionConfig::clip_h());
    let image_size = if size.tiny { 70 } else { full.image_size };
    let cfg = clip_vision::ClipVisionConfig {
        num_hidden_layers: size.layers(full.num_hidden_layers),
        image_size,
        ..full
    };
    let pixels = g.input("pixels", &[batch, image_size, image_size, 3]);
    let tokens = clip_vision::tokens(&mut g, &cfg, "reward", pixels);
    let y = clip_vision::project(&mut g, &cfg, "reward", tokens);
    Work { graph: g, outputs: vec![("embedding".into(), y)], constants: Constants::new(), batch }
}

/// A configuration of the default model.
fn icon_config(part: &str) -> (Value, String) {
    let path = tests::icons::model().join(part).join("config.json");
    (read(&path), path.display().to_string())
}
fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a configuration of the default model");
    serde_json::from_str(&text).expect("JSON")
}
fn icon_transformer(size: Size) -> mmdit::MmditConfig {
    let (json, label) = icon_config("transformer");
    size.transformer(mmdit::MmditConfig::from_value(&json, &label).expect("a transformer"))
}
fn icon_rank(size: Size) -> usize {
    device_rank(size.rank.unwrap_or(Config::default().rank))
}
/// Latents and their velocity; `guided` also the unconditional one, and what guidance makes of both.
fn icon_velocity(g: &mut Graph, size: Size, batch: usize, guided: bool) -> (Id, Id) {
    let (cfg, rank) = (icon_transformer(size), icon_rank(size));
    let x = g.input("latents", &[batch, ICON, ICON, cfg.in_channels]);
    let keys = cfg.image_tokens(ICON, ICON) + ICON_TOKENS;
    let bias = Some(g.input("key_bias", &[keys]));
    let v = transformer(g, &cfg, rank, "", x, ICON_TOKENS, bias);
    if !guided {
        return (x, v);
    }
    let u = transformer(g, &cfg, rank, "u.", x, ICON_TOKENS, bias);
    let d = g.sub(v, u);
    let d = g.affine(d, Config::default().rollout.guidance, 0.0);
    (x, g.add(u, d))
}

/// A step of the warm start: flow matching and its gradients.
fn warm(size: Size) -> Work {
    let (mut g, batch) = (Graph::new(), size.batch(Config::default().warm.batch));
    let (x, v) = icon_velocity(&mut g, size, batch, false);
    let shape = g.shape(x).to_vec();
    let target = g.input("target", &shape);
    let d = g.sub(v, target);
    let square = g.unary(Unary::Square, d);
    let loss = g.mean(square, 1);
    let mut outputs = vec![("loss".into(), loss)];
    outputs.extend(by_adapter(&mut g, &icon_transformer(size), icon_rank(size), loss, false));
    Work { graph: g, outputs, constants: Constants::new(), batch }
}

/// A sampling step of an iteration's images with their unconditional partners.
fn rollout(size: Size) -> Work {
    let (mut g, batch) = (Graph::new(), size.batch(2 * Config::default().images()));
    let (_, v) = icon_velocity(&mut g, size, batch, false);
    Work { graph: g, outputs: vec![("velocity".into(), v)], constants: Constants::new(), batch }
}

/// A run of the pathwise objective: a guided step, the decoder, DINOv2's tokens and back. The head is left out: its gradient is
/// an input.
fn update(size: Size) -> Work {
    let (mut g, mut constants) = (Graph::new(), Constants::new());
    let batch = size.batch(Config::default().pathwise.batch);
    let (x, v) = icon_velocity(&mut g, size, batch, true);
    let span = g.input("span", &[batch, 1, 1, 1]);
    let step = g.mul(v, span);
    let x0 = g.add(x, step);
    let (json, label) = icon_config("vae");
    let vae = vae::VaeConfig::from_value(&json, &label).expect("an autoencoder");
    let z = g.affine(x0, 1.0 / vae.scaling_factor, vae.shift_factor);
    let image = vae::decode(&mut g, &vae, z);
    let image = g.affine(image, 0.5, 0.5);
    let image = g.unary(Unary::Clamp(0.0, 1.0), image);
    let (json, label) = icon_config("reward");
    let dino = dino::DinoConfig::from_value(&json, &label).expect("a backbone");
    let sides = [dino.image_size; 2];
    let pixels = dino::preprocess(&mut g, &mut constants, image, sides, &dino::Pixels::imagenet());
    let tokens = dino::encode(&mut g, &mut constants, &dino, "reward", pixels);
    let mut outputs = vec![("tokens".into(), tokens)];
    outputs.extend(by_adapter(&mut g, &icon_transformer(size), icon_rank(size), tokens, false));
    Work { graph: g, outputs, constants, batch }
}

impl Work {
    /// The plan for an executor that knows its leaves.
    pub fn plan(
        &self,
        caps: &pentimento_runtime::caps::Caps,
        weights: &dyn Fn(&str) -> Stored,
    ) -> pentimento_runtime::Result<Plan> {
        let outputs: Vec<(&str, Id)> = self.outputs.iter().map(|(n, i)| (n.as_str(), *i)).collect();
        Plan::new(self.graph.clone(), &outputs, caps, weights)
    }
    /// Weights and parameters: name, elements, how an adapter of these `caps` keeps them.
    pub fn leaves(
        &self,
        caps: &pentimento_runtime::caps::Caps,
        base: Option<Base>,
    ) -> Vec<(String, usize, Stored)> {
        let stored = |name: &str| base.filter(|_| mmdit::quantised(name)).map_or(Stored::F16, Base::stored);
        let leaf = |(node, stored): (&pentimento_runtime::graph::Node, Stored)| match &node.op {
            Op::Leaf { kind: Leaf::Weight(_) | Leaf::Param, name } => {
                Some((name.clone(), node.shape.iter().product(), stored))
            }
            _ => None,
        };
        self.graph.nodes().iter().zip(kept(caps, &self.graph, &stored)).filter_map(leaf).collect()
    }
    /// Sets every leaf to small normal numbers, stored as [`Work::leaves`] tells; returns their bytes.
    pub fn load(
        &self,
        exec: &mut dyn Executor,
        normal: &Pattern,
        base: Option<Base>,
    ) -> pentimento_runtime::Result<u64> {
        self.constants.upload(exec)?;
        let (mut bytes, mut seed) = (0, 0);
        for (name, len, stored) in self.leaves(&exec.caps().clone(), base) {
            bytes += stored.bytes(len) as u64;
            if exec.has_leaf(&name) {
                continue;
            }
            seed += 1;
            let quantised = [Base::Q8, Base::Q4].into_iter().find(|b| b.stored() == stored);
            match quantised {
                Some(base) => {
                    let blocks = base.quantise(&repeat(&normal.singles, 1, seed, len)).expect("room");
                    exec.set_leaf(&name, LeafData::Packed(stored, &blocks))?;
                }
                None if stored == Stored::F16 => {
                    let words = repeat(&normal.halves, 2, seed, len);
                    exec.set_leaf(&name, LeafData::Packed(stored, &words))?;
                }
                None => exec.set_leaf(&name, LeafData::F32(&repeat(&normal.singles, 1, seed, len)))?,
            }
        }
        Ok(bytes)
    }
}

/// Normal numbers of deviation 0.02, as transformers are initialised, that repeat; activations stay near 1.
pub struct Pattern {
    singles: Vec<f32>,
    halves: Vec<u8>,
}

impl Pattern {
    pub fn new() -> Self {
        let mut singles = vec![0.0; 1_000_003]; // a prime, so that no two rows are equal
        Philox::new(7, 0).normals(&mut singles);
        singles.iter_mut().for_each(|v| *v *= 0.02);
        let halves = singles.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
        Pattern { singles, halves }
    }
}

/// `len` numbers of `width` items each, from another place of the pattern for each seed.
fn repeat<T: Copy>(pattern: &[T], width: usize, seed: usize, len: usize) -> Vec<T> {
    let start = width * (seed * 7919 % (pattern.len() / width));
    let mut all = Vec::with_capacity(len * width);
    let mut part = &pattern[start..];
    while all.len() < len * width {
        all.extend_from_slice(&part[..part.len().min(len * width - all.len())]);
        part = pattern;
    }
    all
}
