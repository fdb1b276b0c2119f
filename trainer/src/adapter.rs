//! LoRA adapters: for each adapted linear layer `W`, a low-rank correction `W + B A`.
//!
//! Written in the one form that diffusers, ComfyUI and stable-diffusion.cpp all read: keys
//! `transformer.transformer_blocks.N.attn.X.lora_A.weight` ([r, in]) and `.lora_B.weight` ([out, r]), no alpha, the scale
//! folded into B; or as a PEFT folder. Read in that form, with alpha given as tensors or as diffusers metadata, in PEFT's,
//! and in Kohya's and the original layout, whose fused q, k, v is split.
use std::collections::BTreeMap;
use std::path::Path;

use pentimento::folder::{MAX_CONFIG, open_tensors};
use pentimento::weights::Weights;
use pentimento::{Error, Result, file};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::files::write_atomically;

mod keys;
mod scale;

use keys::{Half, Targets};
use scale::Scales;

/// Names an adapter may have inside a folder.
const FILES: [&str; 2] = ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"];
/// Projections that must be adapted together or not at all: stable-diffusion.cpp joins them into one matrix.
const TOGETHER: [[&str; 3]; 2] = [["to_q", "to_k", "to_v"], ["add_q_proj", "add_k_proj", "add_v_proj"]];

/// Width in and out of the linear layer a target names, or `None` when the model has no such layer.
pub type Sizes<'a> = &'a dyn Fn(&str) -> Option<(usize, usize)>;

/// The two factors of one layer's correction `B A`; any scale is already in `b`.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Rank r.
    pub rank: usize,
    /// Down projection A, [r, in], row-major.
    pub a: Vec<f32>,
    /// Up projection B, [out, r], row-major, times alpha / r.
    pub b: Vec<f32>,
}

impl Pair {
    /// Factors of rank `rank`, with `scale` (alpha / r) folded into `b`.
    ///
    /// # Errors
    /// A rank of 0, or lengths that are not multiples of it.
    pub fn new(rank: usize, a: Vec<f32>, mut b: Vec<f32>, scale: f32) -> Result<Self> {
        if !fits(rank, a.len()) || !fits(rank, b.len()) {
            let found = format!("{} and {}", a.len(), b.len());
            return Err(Error::bad(
                "LoRA factors",
                format!("lengths that are multiples of rank {rank}"),
                found,
            ));
        }
        if scale != 1.0 {
            b.iter_mut().for_each(|v| *v *= scale);
        }
        Ok(Pair { rank, a, b })
    }

    /// Width of the layer's input.
    pub fn inputs(&self) -> usize {
        self.a.len() / self.rank.max(1)
    }

    /// Width of the layer's output.
    pub fn outputs(&self) -> usize {
        self.b.len() / self.rank.max(1)
    }
}

/// A LoRA adapter: pairs by target, a module name such as `transformer_blocks.0.attn.to_q`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter {
    /// The corrections, in order of module name.
    pub pairs: BTreeMap<String, Pair>,
}

impl Adapter {
    /// The adapter as the bytes of a safetensors file, the same for the same adapter.
    ///
    /// # Errors
    /// No pairs; lengths that do not fit a rank; values that are not finite; a block in which only some of q, k and v
    /// are adapted.
    pub fn write_bytes(&self) -> Result<Vec<u8>> {
        self.bytes_under("transformer.")
    }

    /// The adapter in PEFT's form: the bytes of `adapter_model.safetensors` and the text of `adapter_config.json`, whose
    /// alpha equals the rank, so that the scale is 1.
    ///
    /// # Errors
    /// As [`Adapter::write_bytes`].
    pub fn write_peft(&self) -> Result<(Vec<u8>, String)> {
        let bytes = self.bytes_under("base_model.model.")?;
        let ranks: BTreeMap<&str, usize> = self.pairs.iter().map(|(t, p)| (t.as_str(), p.rank)).collect();
        let rank = ranks.values().copied().max().unwrap_or(0);
        let others: BTreeMap<&str, usize> =
            ranks.iter().filter(|(_, r)| **r != rank).map(|(t, r)| (*t, *r)).collect();
        let config = serde_json::json!({
            "peft_type": "LORA",
            "base_model_name_or_path": null,
            "bias": "none",
            "inference_mode": true,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "r": rank,
            "alpha_pattern": others,
            "rank_pattern": others,
            "target_modules": ranks.keys().collect::<Vec<_>>(),
            "use_dora": false,
            "use_rslora": false,
        });
        Ok((bytes, format!("{config:#}\n")))
    }

    /// Writes `adapter_model.safetensors` and `adapter_config.json` into an existing folder, each atomically.
    ///
    /// # Errors
    /// As [`Adapter::write_peft`] and [`write_atomically`].
    pub fn save_peft(&self, folder: &Path) -> Result<()> {
        let (bytes, config) = self.write_peft()?;
        write_atomically(&folder.join("adapter_config.json"), config.as_bytes())?;
        write_atomically(&folder.join(FILES[1]), &bytes)
    }

    /// Keys `<prefix><target>.lora_{A,B}.weight`.
    fn bytes_under(&self, prefix: &str) -> Result<Vec<u8>> {
        self.check()?;
        let bytes = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let mut tensors = Vec::with_capacity(2 * self.pairs.len());
        for (target, pair) in &self.pairs {
            let name = |half: &str| format!("{prefix}{target}.lora_{half}.weight");
            tensors.push((name("A"), vec![pair.rank, pair.inputs()], bytes(&pair.a)));
            tensors.push((name("B"), vec![pair.outputs(), pair.rank], bytes(&pair.b)));
        }
        let failed = |e| Error::bad("adapter", "tensors that fit the safetensors format", format!("{e}"));
        let view = |(name, shape, bytes)| TensorView::new(Dtype::F32, shape, bytes).map(|view| (name, view));
        let views =
            tensors.iter().map(|(name, shape, bytes)| view((name.as_str(), shape.clone(), bytes.as_slice())));
        let views = views.collect::<core::result::Result<Vec<_>, _>>().map_err(failed)?;
        let metadata = [("format".to_string(), "pt".to_string())].into_iter().collect();
        safetensors::serialize(views, Some(metadata)).map_err(failed)
    }

    /// Writes the adapter to `path`, atomically.
    ///
    /// # Errors
    /// As [`Adapter::write_bytes`] and [`write_atomically`].
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomically(path, &self.write_bytes()?)
    }

    fn check(&self) -> Result<()> {
        if self.pairs.is_empty() {
            return Err(Error::missing("adapter", "any adapted layer"));
        }
        for (target, pair) in &self.pairs {
            let Pair { rank, a, b } = pair;
            if !fits(*rank, a.len()) || !fits(*rank, b.len()) {
                let expected = format!("factor lengths that are multiples of rank {rank}");
                return Err(Error::bad(target, expected, format!("{} and {}", a.len(), b.len())));
            }
            finite(target, a.iter().chain(b))?;
            for group in TOGETHER {
                let Some(attention) = group.iter().find_map(|x| target.strip_suffix(x)) else { continue };
                let absent = group.iter().find(|x| !self.pairs.contains_key(&format!("{attention}{x}")));
                if let Some(absent) = absent {
                    return Err(Error::missing(
                        "adapter",
                        format!("`{attention}{absent}` beside `{target}`"),
                    )
                    .with_hint("Adapt q, k and v of a block together or not at all."));
                }
            }
        }
        Ok(())
    }

    /// Reads an adapter file, or the adapter in a folder; PEFT's `adapter_config.json` is taken from beside it.
    ///
    /// # Errors
    /// A path that is missing or unreadable, and as [`Adapter::parse`].
    pub fn load(path: &Path, sizes: Sizes<'_>) -> Result<Self> {
        let file = match FILES.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
            Some(file) => file,
            None if path.is_dir() => {
                let what = format!("`{}` or `{}`", FILES[0], FILES[1]);
                return Err(Error::missing(path.display().to_string(), what));
            }
            None => path.to_path_buf(),
        };
        let label = file.display().to_string();
        let weights = open_tensors(&file)?;
        let beside = file.with_file_name("adapter_config.json");
        let is_peft = file.file_name().is_some_and(|name| name == FILES[1]);
        let config = match file::text_if_there(&beside, MAX_CONFIG)? {
            None if is_peft => return Err(Error::missing(label, "`adapter_config.json` beside it")),
            config => config,
        };
        Self::from_weights(&weights, config.as_deref(), sizes)
    }

    /// Reads an adapter from the bytes of a safetensors file. `label` names it in errors; `config` is the text of PEFT's
    /// `adapter_config.json`, where there is one; `sizes` says which layers the model has.
    ///
    /// The scale of a pair is, in this order: its `.alpha` tensor / r; alpha / r of the `lora_adapter_metadata` that
    /// diffusers writes; alpha / r of `config`; 1.
    ///
    /// # Errors
    /// A key that is not understood or names a layer the model does not have, a wrong shape, half a pair, values that
    /// are not finite: each error names the key.
    pub fn parse(label: &str, bytes: Vec<u8>, config: Option<&str>, sizes: Sizes<'_>) -> Result<Self> {
        Self::from_weights(&Weights::from_bytes(label, bytes)?, config, sizes)
    }

    /// As [`Adapter::parse`], from opened weights.
    ///
    /// # Errors
    /// As [`Adapter::parse`].
    pub fn from_weights(weights: &Weights, config: Option<&str>, sizes: Sizes<'_>) -> Result<Self> {
        let label = weights.label();
        let scales = Scales::read(&label, weights.metadata("lora_adapter_metadata"), config)?;
        let mut adapter = Adapter::default();
        for (targets, halves) in collect(weights)? {
            for (target, pair) in halves.read(weights, &targets, &scales, sizes)? {
                if adapter.pairs.insert(target.clone(), pair).is_some() {
                    let twice = "the same layer under another name too";
                    return Err(Error::bad(format!("{label}: `{target}`"), "a layer adapted once", twice));
                }
            }
        }
        Ok(adapter)
    }
}

/// The layers an adapter file adapts, under diffusers' names, with their widths in and out as the file has them.
///
/// # Errors
/// As [`Adapter::from_weights`], as far as it can be told without a model.
pub fn layers(weights: &Weights) -> Result<BTreeMap<String, (usize, usize)>> {
    let mut layers = BTreeMap::new();
    for (targets, halves) in collect(weights)? {
        let side = |key: Option<&str>, axis: usize| weights.shape(key?)?.get(axis).copied();
        let (Some(inputs), Some(outputs)) = (side(halves.a, 1), side(halves.b, 0)) else { continue };
        layers.extend(targets.iter().map(|t| (t.clone(), (inputs, outputs / targets.len().max(1)))));
    }
    Ok(layers)
}

/// The keys of a file, by the layers they name.
fn collect(weights: &Weights) -> Result<BTreeMap<Targets, Halves<'_>>> {
    let label = weights.label();
    let mut found: BTreeMap<Targets, Halves<'_>> = BTreeMap::new();
    for key in weights.names() {
        let (targets, half) = keys::split(&label, key)?;
        let halves = found.entry(targets).or_default();
        let slot = match half {
            Half::A => &mut halves.a,
            Half::B => &mut halves.b,
            Half::Alpha => &mut halves.alpha,
        };
        if let Some(first) = slot.replace(key) {
            let twice = format!("`{first}` too");
            return Err(Error::bad(format!("{label}: `{key}`"), "one tensor of this kind", twice));
        }
    }
    if found.is_empty() { Err(Error::missing(label, "any adapted layer")) } else { Ok(found) }
}

/// Keys of one pair of factors.
#[derive(Default)]
struct Halves<'a> {
    a: Option<&'a str>,
    b: Option<&'a str>,
    alpha: Option<&'a str>,
}

impl Halves<'_> {
    /// The pairs of the layers that these factors correct: parts of a fused layer share A and have rows of B each.
    fn read(
        &self,
        weights: &Weights,
        targets: &[String],
        scales: &Scales,
        sizes: Sizes<'_>,
    ) -> Result<Vec<(String, Pair)>> {
        let label = weights.label();
        let any = self.a.or(self.b).or(self.alpha).unwrap_or_default();
        let size = |target: &String| {
            sizes(target).ok_or_else(|| {
                Error::bad(
                    format!("{label}: `{any}`"),
                    "an adapted layer of this model",
                    format!("`{target}`"),
                )
                .with_hint("Was the adapter made for another model, or for layers that are not adapted here?")
            })
        };
        let layers = targets.iter().map(size).collect::<Result<Vec<_>>>()?;
        let (inputs, outputs) = (layers.first().map_or(0, |l| l.0), layers.iter().map(|l| l.1).sum());
        let (Some(a), Some(b)) = (self.a, self.b) else {
            let what = if self.a.is_none() { "lora_A" } else { "lora_B" };
            return Err(Error::missing(format!("{label}: `{any}`"), format!("its other half, {what}")));
        };
        let rank = weights.shape(a).and_then(|s| s.first()).copied().unwrap_or(0);
        if rank == 0 {
            let found = format!("{:?}", weights.shape(a).unwrap_or_default());
            return Err(Error::bad(format!("{label}: `{a}`"), format!("shape [rank, {inputs}]"), found));
        }
        let values = |key: &str, shape: &[usize]| -> Result<Vec<f32>> {
            let values = weights.expect(key, shape)?.to_f32();
            finite(&format!("{label}: `{key}`"), &values)?;
            Ok(values)
        };
        let (a, b) = (values(a, &[rank, inputs])?, values(b, &[outputs, rank])?);
        let scale = match self.alpha {
            Some(key) => Self::alpha_tensor(weights, key)? / rank as f32,
            None => scales.scale(targets.first().map_or("", String::as_str), rank)?,
        };
        let mut rows = b.as_slice();
        let pairs = targets.iter().zip(&layers).map(|(target, (_, outputs))| {
            let (part, rest) = rows.split_at_checked(outputs * rank).unwrap_or((rows, &[]));
            rows = rest;
            Ok((target.clone(), Pair::new(rank, a.clone(), part.to_vec(), scale)?))
        });
        pairs.collect()
    }

    fn alpha_tensor(weights: &Weights, key: &str) -> Result<f32> {
        match weights.get(key)?.to_f32()[..] {
            [alpha] if alpha.is_finite() => Ok(alpha),
            ref other => {
                let place = format!("{}: `{key}`", weights.label());
                Err(Error::bad(place, "one finite number", format!("{other:?}")))
            }
        }
    }
}

/// Whether `length` values can be a factor of rank `rank`.
fn fits(rank: usize, length: usize) -> bool {
    rank > 0 && length > 0 && length.is_multiple_of(rank)
}

/// Errors on the first value that is not finite.
fn finite<'a>(place: &str, values: impl IntoIterator<Item = &'a f32>) -> Result<()> {
    match values.into_iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(v) => {
            Err(Error::bad(place, "finite values", v.to_string()).with_hint("The training has diverged."))
        }
    }
}

#[cfg(test)]
mod tests;
