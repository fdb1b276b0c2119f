//! What a checkpoint of each network must hold, read off its graph, and how a file compares with that.
use super::{Constants, clip, clip_vision, dino, mmdit, t5, vae};
use crate::exec::{Need, needs};
use crate::graph::{Graph, Layout};
use crate::weights::Weights;
use crate::{Error, Result, shown};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use serde_json::Value;

/// The tensors a network reads, by name in the checkpoint.
pub type Needs = BTreeMap<String, Need>;

/// Kinds of model that [`of`] knows.
pub const KINDS: [&str; 8] = [
    "SD3Transformer2DModel",
    "AutoencoderKL",
    "clip_text_model",
    "clip",
    "t5",
    "dinov2",
    "dinov2_with_registers",
    TIMM,
];
/// What timm's configurations, which name an architecture instead, are called here.
const TIMM: &str = "timm";

/// What a `config.json` calls its model: `_class_name` of diffusers or `model_type` of transformers.
pub fn kind(config: &Value) -> &str {
    let named = config.get("_class_name").or(config.get("model_type")).and_then(Value::as_str);
    named.unwrap_or(if config.get("architecture").is_some() { TIMM } else { "unknown" })
}

/// Tensors of the model that a configuration describes. `label` names it in errors.
///
/// # Errors
/// A kind that is not one of [`KINDS`]; a configuration this runtime does not compute.
pub fn of(config: &Value, label: &str) -> Result<Needs> {
    match kind(config) {
        "SD3Transformer2DModel" => transformer(&mmdit::MmditConfig::from_value(config, label)?),
        "AutoencoderKL" => autoencoder(&vae::VaeConfig::from_value(config, label)?),
        "clip_text_model" => text_encoder(&clip::ClipConfig::from_value(config, label)?),
        "clip" => clip_model(config, label),
        "t5" => t5_encoder(&t5::T5Config::from_value(config, label)?),
        "dinov2" | "dinov2_with_registers" | TIMM => backbone(&dino::DinoConfig::from_value(config, label)?),
        other => Err(Error::bad(label, format!("one of {KINDS:?}"), other)),
    }
}

/// A checkpoint under the names that [`of`] uses: timm's are those of transformers then.
///
/// # Errors
/// As [`of`]; fused tensors that cannot be split.
pub fn named(config: &Value, label: &str, weights: &Weights) -> Result<Weights> {
    match kind(config) {
        TIMM => dino::transformers_names(&dino::DinoConfig::from_value(config, label)?, weights),
        _ => Ok(weights.clone()),
    }
}

/// Tensors of a transformer.
///
/// # Errors
/// A configuration whose shapes do not fit together.
pub fn transformer(cfg: &mmdit::MmditConfig) -> Result<Needs> {
    finish(&transformer_graph(cfg), mmdit::COMPONENT)
}

/// The transformer as small as it can be, with all its weights.
pub(crate) fn transformer_graph(cfg: &mmdit::MmditConfig) -> Graph {
    let (mut g, p) = (Graph::new(), cfg.patch_size);
    let latents = g.input("latents", &[1, p, p, cfg.in_channels]);
    let time = g.input("time", &[1, mmdit::TIME_CHANNELS]);
    let pooled = g.input("pooled", &[1, cfg.pooled_projection_dim]);
    let context = g.input("context", &[1, 1, cfg.joint_attention_dim]);
    mmdit::velocity(&mut g, cfg, None, latents, time, pooled, context, None);
    g
}

/// Tensors of an autoencoder, both ways.
///
/// # Errors
/// As [`transformer`].
pub fn autoencoder(cfg: &vae::VaeConfig) -> Result<Needs> {
    let (mut g, d) = (Graph::new(), cfg.downscale());
    let z = g.input("z", &[1, 1, 1, cfg.latent_channels]);
    vae::decode(&mut g, cfg, z);
    let image = g.input("image", &[1, d, d, vae::IMAGE_CHANNELS]);
    vae::encode(&mut g, cfg, image);
    finish(&g, vae::COMPONENT)
}

/// Tensors of a CLIP text encoder, with the tables that the host reads.
///
/// # Errors
/// As [`transformer`].
pub fn text_encoder(cfg: &clip::ClipConfig) -> Result<Needs> {
    let mut needs = finish(&clip_graph(cfg, "text_encoder"), "text_encoder")?;
    for (name, shape) in cfg.tables() {
        needs.insert(name.into(), Need { name: name.into(), shape: shape.to_vec(), layout: Layout::Plain });
    }
    Ok(needs)
}

/// A CLIP text encoder as small as it can be, with all its weights but the tables.
pub(crate) fn clip_graph(cfg: &clip::ClipConfig, component: &str) -> Graph {
    let mut g = Graph::new();
    let embeds = g.input("embeds", &[1, 1, cfg.hidden_size]);
    let pick = g.input("pick", &[1, 1]);
    clip::encode(&mut g, cfg, component, None, embeds, pick);
    g
}

/// Tensors of a whole CLIP, both towers.
fn clip_model(config: &Value, label: &str) -> Result<Needs> {
    let (vision, text) = clip_vision::ClipVisionConfig::from_value(config, label)?;
    let mut g = Graph::new();
    let pixels = g.input("pixels", &[1, vision.image_size, vision.image_size, 3]);
    let x = clip_vision::hidden(&mut g, &vision, "clip", pixels, vision.num_hidden_layers);
    clip_vision::embed(&mut g, &vision, "clip", x, vision.num_hidden_layers, false);
    let mut needs = finish(&g, "clip")?;
    needs.extend(text_encoder(&text)?);
    let name = String::from("logit_scale");
    needs.insert(name.clone(), Need { name, shape: Vec::new(), layout: Layout::Plain });
    Ok(needs)
}

/// Tensors of a T5 encoder, with the tables that the host reads.
///
/// # Errors
/// As [`transformer`].
pub fn t5_encoder(cfg: &t5::T5Config) -> Result<Needs> {
    let mut needs = finish(&t5_graph(cfg, "t5"), "t5")?;
    for (name, shape) in cfg.tables() {
        needs.insert(name.into(), Need { name: name.into(), shape: shape.to_vec(), layout: Layout::Plain });
    }
    Ok(needs)
}

/// A T5 encoder as small as it can be, with all its weights but the tables.
pub(crate) fn t5_graph(cfg: &t5::T5Config, component: &str) -> Graph {
    let mut g = Graph::new();
    let x = g.input("x", &[1, 1, cfg.d_model]);
    let bias = g.input("bias", &[cfg.num_heads, 1, 1]);
    t5::whole(&mut g, cfg, component, x, bias);
    g
}

/// Tensors of a DINOv2 backbone.
///
/// # Errors
/// As [`transformer`].
pub fn backbone(cfg: &dino::DinoConfig) -> Result<Needs> {
    let mut g = Graph::new();
    let pixels = g.input("pixels", &[1, cfg.patch_size, cfg.patch_size, 3]);
    dino::encode(&mut g, &mut Constants::new(), cfg, "dino", pixels);
    finish(&g, "dino")
}

fn finish(g: &Graph, component: &str) -> Result<Needs> {
    g.check()?;
    Ok(needs(g, &format!("{component}/")))
}

/// Tensors that checkpoints carry and no forward pass reads.
const UNUSED: [&str; 3] = ["position_ids", "mask_token", "encoder.embed_tokens.weight"];
/// Modules that change a network's result where a file has them, though its configuration has none.
const OPTIONAL: [&str; 2] = ["quant_conv", "post_quant_conv"];

/// The outermost module of a tensor.
fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

/// A file against what a network reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Numbers in all tensors.
    pub parameters: u64,
    /// Tensors and numbers by element type.
    pub types: BTreeMap<String, (usize, u64)>,
    /// Needed and not there.
    pub missing: Vec<String>,
    /// There with another shape or an element type that is not read: a sentence each.
    pub wrong: Vec<String>,
    /// There and not needed, nor a part of what is.
    pub unknown: Vec<String>,
    /// There and not needed, inside the modules that are: they would change the result if they were read.
    pub ignored: Vec<String>,
    /// There, not needed, and known to be so in every checkpoint of the kind.
    pub unused: Vec<String>,
}

impl Contents {
    /// Compares a file with needs; without any it only counts.
    pub fn of(weights: &Weights, needs: Option<&Needs>) -> Contents {
        let mut c = Contents::default();
        let roots: BTreeSet<&str> =
            needs.iter().flat_map(|n| n.keys()).map(|n| root(n)).chain(OPTIONAL).collect();
        for name in weights.names() {
            let numbers = weights.shape(name).unwrap_or_default().iter().product::<usize>() as u64;
            c.parameters += numbers;
            let kind = c.types.entry(weights.type_name(name).unwrap_or_default()).or_default();
            *kind = (kind.0 + 1, kind.1 + numbers);
            match needs.map(|n| n.get(name)) {
                None => {}
                Some(None) if UNUSED.iter().any(|u| name.ends_with(u)) => c.unused.push(name.into()),
                Some(None) if roots.contains(root(name)) => c.ignored.push(name.into()),
                Some(None) => c.unknown.push(name.into()),
                Some(Some(need)) => c.wrong.extend(wrong(weights, need)),
            }
        }
        let needed = needs.iter().flat_map(|n| n.keys());
        c.missing = needed.filter(|n| !weights.contains(n)).cloned().collect();
        c
    }

    /// Whether a network can be made from it.
    ///
    /// # Errors
    /// What is missing, wrong or would be ignored, in one sentence.
    pub fn usable(&self, label: &str) -> Result<()> {
        self.all_read(label)?;
        if let Some(first) = self.wrong.first() {
            let more = self.wrong.len() - 1;
            let found =
                format!("{first}{}", if more > 0 { format!(" and {more} more") } else { String::new() });
            return Err(Error::bad(label, "tensors that fit the configuration", found));
        }
        match self.missing.as_slice() {
            [] => Ok(()),
            [one] => Err(Error::missing(label, format!("tensor `{one}`"))),
            [first, rest @ ..] => {
                Err(Error::missing(label, format!("tensor `{first}` and {} more", rest.len())))
            }
        }
    }
}

impl Contents {
    /// Whether the network reads all tensors that are in its modules.
    ///
    /// # Errors
    /// The first that it does not.
    pub fn all_read(&self, label: &str) -> Result<()> {
        let Some(first) = self.ignored.first() else { return Ok(()) };
        let more = self.ignored.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::bad(label, "tensors that its configuration names", format!("`{}`{more}", shown(first)))
            .with_hint(
                "Ignoring them would change the result. Does the configuration belong to this checkpoint?",
            ))
    }
}

fn wrong(weights: &Weights, need: &Need) -> Option<String> {
    match weights.get(&need.name) {
        Err(e) => Some(format!("{e}")),
        Ok(t) if need.fits(t.shape) => None,
        Ok(t) => {
            let from = weights.source(t.name).map(|s| format!(" (`{}`)", shown(s))).unwrap_or_default();
            Some(format!(
                "`{}`{from} with shape {:?} instead of {:?}",
                shown(t.name),
                t.shape,
                need.stored_shape()
            ))
        }
    }
}

/// Numbers in all tensors of [`Needs`], as on the device but for tables that are cut to a window: a convolution of three
/// channels counts four.
pub fn parameters(needs: &Needs) -> u64 {
    needs.values().map(|n| n.stored_shape().iter().map(|&s| s as u64).product::<u64>()).sum()
}
