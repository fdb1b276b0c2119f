//! Adapter files to pairs: whose factors are whose, in what shapes, times which scale.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::keys::{self, Half};
use super::scale::Scales;
use super::{Adapter, FILES, Layer, Layers, Pair, encoder, finite};
use pentimento_runtime::folder::{MAX_CONFIG, open_tensors};
use pentimento_runtime::layout::{Rename, numbered};
use pentimento_runtime::weights::{TensorView, Weights};
use pentimento_runtime::{Error, Result};

/// The adapter's file: `path`, or one of the known names in that folder.
///
/// # Errors
/// A folder without an adapter.
pub fn file(path: &Path) -> Result<PathBuf> {
    match FILES.iter().map(|name| path.join(name)).find(|file| pentimento_runtime::file::is_file(file)) {
        Some(file) => Ok(file),
        None if pentimento_runtime::file::is_dir(path) => {
            let what = format!("`{}` or `{}`", FILES[0], FILES[1]);
            Err(Error::missing(path.display().to_string(), what))
        }
        None => Ok(path.to_path_buf()),
    }
}

/// Whether a file is meant as an adapter of some kind, though perhaps not one that is read.
pub fn is_adapter(weights: &Weights) -> bool {
    let marks = ["lora_", ".lora", "_lora.", ".lokr_", ".hada_", ".oft_", ".ia3_", ".dora_scale", "lycoris_"];
    weights.names().any(|name| marks.iter().any(|mark| name.contains(mark)))
}

impl Adapter {
    /// Reads an adapter file, or the adapter in a folder; PEFT's `adapter_config.json` is taken from beside it.
    ///
    /// # Errors
    /// A path that is missing or unreadable, and as [`Adapter::parse`].
    pub fn load(path: &Path, layers: &Layers) -> Result<Self> {
        let file = file(path)?;
        let label = file.display().to_string();
        let weights = open_tensors(&file)?;
        let beside = file.with_file_name("adapter_config.json");
        let is_peft = file.file_name().is_some_and(|name| name == FILES[1]);
        let config = match pentimento_runtime::file::text_if_there(&beside, MAX_CONFIG)? {
            None if is_peft => return Err(Error::missing(label, "`adapter_config.json` beside it")),
            config => config,
        };
        Self::from_weights(&weights, config.as_deref(), layers)
    }

    /// Reads an adapter from the bytes of a safetensors file. `label` names it in errors; `config` is the text of PEFT's
    /// `adapter_config.json`, where there is one; `layers` are those of the model.
    ///
    /// The scale of a pair is, in this order: its `.alpha` tensor / r; alpha / r of the `lora_adapter_metadata` that
    /// diffusers writes; alpha / r of `config`; 1.
    ///
    /// # Errors
    /// A key that is not understood or names a layer the model does not have, a wrong shape, half a pair, values that
    /// are not finite or are not when scaled: each error names the key.
    pub fn parse(label: &str, bytes: Vec<u8>, config: Option<&str>, layers: &Layers) -> Result<Self> {
        Self::from_weights(&Weights::from_bytes(label, bytes)?, config, layers)
    }

    /// As [`Adapter::parse`], from opened weights.
    ///
    /// # Errors
    /// As [`Adapter::parse`].
    pub fn from_weights(weights: &Weights, config: Option<&str>, layers: &Layers) -> Result<Self> {
        let label = weights.label();
        let scales = Scales::read(&label, weights.metadata("lora_adapter_metadata"), config)?;
        let last = layers.keys().filter_map(|t| Some(numbered(t, "transformer_blocks")?.0)).max();
        let mut adapter = Adapter::default();
        for (targets, halves) in collect(weights, last)? {
            for (target, pair) in halves.read(weights, &targets, &scales, layers)? {
                if adapter.pairs.insert(target.clone(), pair).is_some() {
                    let twice = "the same layer under another name too";
                    return Err(Error::bad(format!("{label}: `{target}`"), "a layer adapted once", twice));
                }
            }
        }
        Ok(adapter)
    }
}

/// The layers an adapter file adapts, with their widths as the file has them.
///
/// # Errors
/// As [`Adapter::from_weights`], as far as it can be told without a model.
pub fn layers(weights: &Weights) -> Result<Layers> {
    let mut layers = Layers::new();
    for (targets, halves) in collect(weights, None)? {
        let (Some(a), Some(b)) = (halves.a, halves.b) else { continue };
        let shape = |key: &str| weights.shape(key).unwrap_or_default();
        let patch = shape(a).get(2).copied().unwrap_or(1);
        let inputs = shape(a).iter().skip(1).fold(1, |n: usize, &side| n.saturating_mul(side));
        let names = names(&targets);
        let outputs = shape(b).first().copied().unwrap_or(0) / names.len();
        layers.extend(names.iter().map(|t| (t.to_string(), Layer { inputs, outputs, patch })));
    }
    Ok(layers)
}

/// The layers that one pair of factors corrects: one, or the parts of a fused one from the top row.
fn names(targets: &Rename) -> Vec<&str> {
    match targets {
        Rename::To(name) | Rename::Swap(name) => vec![name],
        Rename::Split(parts) => parts.iter().map(String::as_str).collect(),
    }
}

/// The keys of a file, by the layers they name.
fn collect(weights: &Weights, last: Option<usize>) -> Result<BTreeMap<Rename, Halves<'_>>> {
    let label = weights.label();
    let mut found: BTreeMap<Rename, Halves<'_>> = BTreeMap::new();
    for key in weights.names() {
        let (targets, half) = keys::split(&label, key, last)?;
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
        targets: &Rename,
        scales: &Scales,
        model: &Layers,
    ) -> Result<Vec<(String, Pair)>> {
        let label = weights.label();
        let any = self.a.or(self.b).or(self.alpha).unwrap_or_default();
        let names = names(targets);
        let layers = names.iter().map(|target| layer(model, target, &format!("{label}: `{any}`")));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let first = layers.first().copied().unwrap_or(Layer { inputs: 0, outputs: 0, patch: 1 });
        let outputs = layers.iter().map(|l| l.outputs).sum();
        let (Some(a_key), Some(b_key)) = (self.a, self.b) else {
            let what = if self.a.is_none() { "lora_A" } else { "lora_B" };
            return Err(Error::missing(format!("{label}: `{any}`"), format!("its other half, {what}")));
        };
        let rank = weights.shape(a_key).and_then(|s| s.first()).copied().unwrap_or(0);
        let a = matrix(&weights.get(a_key)?, None, first.inputs, first.patch)?;
        let b = matrix(&weights.get(b_key)?, Some(outputs), rank, 1)?;
        let scale = match self.alpha {
            Some(key) => (alpha(weights, key)? / rank as f64) as f32,
            None => scales.scale(names.first().copied().unwrap_or_default(), rank)?,
        };
        let pair = Pair::new(rank, channels_last(a, first), b, scale)?;
        let expected = format!("values that are finite times alpha / rank, {scale}");
        finite(&format!("{label}: `{b_key}`"), &expected, &pair.b, rank)?;
        Ok(parts(pair, targets, &layers))
    }
}

/// A layer of the model, or why there is none.
fn layer(model: &Layers, target: &str, place: &str) -> Result<Layer> {
    let absent = || {
        let hint = match encoder(target) {
            Some(encoder) if !model.keys().any(|t| t.starts_with(&format!("{encoder}."))) => {
                format!("This model has no `{encoder}` to adapt.")
            }
            Some(_) => "Was the adapter made for other text encoders?".into(),
            None => "Was the adapter made for another model?".into(),
        };
        Error::bad(place, "a linear layer of this model", format!("`{target}`")).with_hint(&hint)
    };
    model.get(target).copied().ok_or_else(absent)
}

/// Numbers of a factor of `rows` rows, or of any from 1 on: a matrix, or a convolution's kernels of `patch` x `patch`.
fn matrix(t: &TensorView<'_>, rows: Option<usize>, columns: usize, patch: usize) -> Result<Vec<f32>> {
    let place = format!("{}: `{}`", t.label, t.name);
    let right = |n: usize| n > 0 && rows.is_none_or(|rows| rows == n);
    let fits = match *t.shape {
        [n, c] => right(n) && c == columns,
        [n, c, h, w] => {
            right(n)
                && [h, w] == [patch; 2]
                && h.checked_mul(w).and_then(|p| p.checked_mul(c)) == Some(columns)
        }
        _ => false,
    };
    if !fits {
        let rank = t.shape.first().copied().filter(|&n| n > 0).map_or("rank".to_string(), |n| n.to_string());
        let rows = rows.map_or(rank, |n| n.to_string());
        let found = format!("{:?} {}", t.shape, t.dtype);
        return Err(Error::bad(place, format!("shape [{rows}, {columns}]"), found)
            .with_hint("Was the adapter made for a model, or text encoders, of another size?"));
    }
    let values = t.to_f32()?;
    finite(&place, "finite values", &values, columns)
        .map_err(|e| e.with_hint("The file is damaged, or its training diverged."))?;
    Ok(values)
}

/// Rows of A for patches: channels first in the file, last here.
fn channels_last(a: Vec<f32>, layer: Layer) -> Vec<f32> {
    let Layer { inputs, patch, .. } = layer;
    if patch <= 1 {
        return a;
    }
    let (pixels, channels) = (patch * patch, inputs / (patch * patch));
    let row = |row: &[f32]| -> Vec<f32> {
        (0..pixels * channels).map(|i| row[(i % channels) * pixels + i / channels]).collect()
    };
    a.chunks_exact(inputs).flat_map(row).collect()
}

/// A pair of a whole module as those of its layers: ranges of rows of B, or its halves exchanged.
fn parts(mut pair: Pair, targets: &Rename, layers: &[Layer]) -> Vec<(String, Pair)> {
    if let Rename::Swap(_) = targets {
        let half = pair.b.len() / 2;
        pair.b.rotate_left(half);
    }
    let Pair { rank, a, b } = pair;
    let mut rows = b.as_slice();
    let part = |(target, layer): (&str, &Layer)| {
        let (part, rest) = rows.split_at_checked(layer.outputs * rank).unwrap_or((rows, &[]));
        rows = rest;
        (target.to_string(), Pair { rank, a: a.clone(), b: part.to_vec() })
    };
    names(targets).into_iter().zip(layers).map(part).collect()
}

fn alpha(weights: &Weights, key: &str) -> Result<f64> {
    let alpha = weights.number(key)?;
    if alpha.is_finite() {
        return Ok(alpha);
    }
    Err(Error::bad(format!("{}: `{key}`", weights.label()), "a finite number", alpha.to_string()))
}
