//! LoRA adapters: for each adapted linear layer `W`, a low-rank correction `W + B A`.
//!
//! Written in the one form that diffusers, ComfyUI and stable-diffusion.cpp all read: keys
//! `transformer.transformer_blocks.N.attn.X.lora_A.weight` ([r, in]) and `.lora_B.weight` ([out, r]), no alpha, the scale
//! folded into B; or as a PEFT folder, which stable-diffusion.cpp does not read. Read in that form and all others that trainers write (`keys`), for any linear layer of
//! the transformer and the text encoders, with alpha given as tensors, as diffusers metadata or as PEFT's configuration.
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

pub use pentimento_runtime::model::lora::{Layer, Layers, Pair, Pairs};
use pentimento_runtime::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::files::write_atomically;

mod keys;
mod read;
mod scale;

pub use read::{file, is_adapter, layers};

/// Names an adapter may have inside a folder.
const FILES: [&str; 2] = ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"];
/// Projections that must be adapted together or not at all: stable-diffusion.cpp joins them into one matrix.
const TOGETHER: [[&str; 3]; 2] = [["to_q", "to_k", "to_v"], ["add_q_proj", "add_k_proj", "add_v_proj"]];

/// How targets of text encoders' layers begin.
const OF_ENCODER: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];

/// The text encoder whose layer a target is.
fn encoder(target: &str) -> Option<&str> {
    target.split_once('.').map(|(first, _)| first).filter(|first| OF_ENCODER.contains(first))
}

/// A LoRA adapter: pairs by target, a module name such as `transformer_blocks.0.attn.to_q`, with the encoder's before it
/// where it is one of a text encoder.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter {
    /// The corrections, in order of module name.
    pub pairs: Pairs,
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
    /// As [`Adapter::write_bytes`]; layers of text encoders.
    pub fn write_peft(&self) -> Result<(Vec<u8>, String)> {
        if let Some(target) = self.pairs.keys().find(|t| encoder(t).is_some()) {
            return Err(Error::bad(
                "adapter",
                "layers of one model, as a PEFT folder has",
                format!("`{target}` too"),
            ));
        }
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
            let prefix = if encoder(target).is_some() { "" } else { prefix };
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
            pair.check(target)?;
            for (factor, columns) in [(&pair.a, pair.inputs()), (&pair.b, pair.rank)] {
                finite(target, "finite values", factor, columns)
                    .map_err(|e| e.with_hint("The training has diverged."))?;
            }
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
    /// The adapter at a strength: its corrections times that number. `label` names it in errors.
    ///
    /// # Errors
    /// A strength that is not finite, or that makes numbers so.
    pub fn scaled(mut self, strength: f32, label: &str) -> Result<Self> {
        if !strength.is_finite() {
            return Err(Error::bad(format!("{label}: strength"), "a finite number", strength.to_string()));
        }
        for (target, pair) in &mut self.pairs {
            *pair = std::mem::take(pair).scaled(strength);
            let expected = format!("values that are finite times the strength {strength}");
            finite(&format!("{label}: `{target}`"), &expected, &pair.b, pair.rank)?;
        }
        Ok(self)
    }

    /// Both adapters at once: the sum of their corrections, whatever their ranks.
    ///
    /// # Errors
    /// Adapters of layers with one name and other widths.
    pub fn add(&mut self, other: Adapter) -> Result<()> {
        for (target, pair) in other.pairs {
            match self.pairs.entry(target) {
                Entry::Vacant(place) => drop(place.insert(pair)),
                Entry::Occupied(mut ours) => ours.get_mut().add(&pair)?,
            }
        }
        Ok(())
    }
}

/// Errors on the first value that is not finite, in rows of `columns`.
fn finite(place: &str, expected: &str, values: &[f32], columns: usize) -> Result<()> {
    let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let columns = columns.max(1);
    let found = format!("{} in row {}, column {}", values[at], at / columns, at % columns);
    Err(Error::bad(place, expected, found))
}

#[cfg(test)]
mod tests;
