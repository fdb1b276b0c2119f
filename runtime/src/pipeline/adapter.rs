//! Which layers of a model folder an adapter can correct, and whose corrections are whose.
use super::Pipeline;
use crate::folder::ModelFolder;
use crate::model::lora::{self, Layers, Lora, Pairs};
use crate::model::{clip, contents, mmdit, t5};
use crate::{Error, Result};
use alloc::{format, string::String, sync::Arc};
use serde_json::Value;

/// The linear layers of transformer and text encoders by target, see [`lora`]. Text encoders that are not there have none.
///
/// # Errors
/// A folder without transformer; a configuration this runtime does not compute.
pub fn layers(folder: &ModelFolder) -> Result<Layers> {
    let cfg = config(folder, mmdit::COMPONENT, mmdit::MmditConfig::from_value)?;
    let mut all = lora::layers(&contents::transformer_graph(&cfg), mmdit::COMPONENT, cfg.patch_size);
    let has = |encoder: &str| folder.has(encoder).unwrap_or(false);
    for encoder in ["text_encoder", "text_encoder_2"] {
        if has(encoder) {
            let cfg = config(folder, encoder, clip::ClipConfig::from_value)?;
            all.extend(lora::layers(&contents::clip_graph(&cfg, encoder), encoder, 1));
        }
    }
    let encoder = "text_encoder_3";
    if has(encoder) {
        let cfg = config(folder, encoder, t5::T5Config::from_value)?;
        all.extend(lora::layers(&contents::t5_graph(&cfg, encoder), encoder, 1));
    }
    Ok(all)
}

/// A component's configuration.
pub(super) fn config<T>(
    folder: &ModelFolder,
    component: &str,
    read: fn(&Value, &str) -> Result<T>,
) -> Result<T> {
    read(&folder.component_config(component)?, &folder.config_label(component))
}

/// Whether every pair corrects a layer of the folder's model.
pub(super) fn check(folder: &ModelFolder, adapter: &Pairs) -> Result<()> {
    if adapter.is_empty() {
        return Ok(());
    }
    let layers = layers(folder)?;
    for (target, pair) in adapter {
        let place = format!("adapter: `{target}`");
        pair.check(&place)?;
        let found = format!("{} to {}", pair.inputs(), pair.outputs());
        match layers.get(target) {
            None => {
                return Err(Error::bad(
                    place,
                    format!("a linear layer of {}", folder.path().display()),
                    "none",
                ));
            }
            Some(layer) if (layer.inputs, layer.outputs) != (pair.inputs(), pair.outputs()) => {
                let expected = format!("a correction from {} to {} numbers", layer.inputs, layer.outputs);
                return Err(Error::bad(place, expected, found));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Takes the pairs of a text encoder's layers out.
pub(super) fn take(adapter: &mut Pairs, encoder: &str) -> Arc<Pairs> {
    let prefix: String = format!("{encoder}.");
    Arc::new(adapter.extract_if(.., |target, _| target.starts_with(&prefix)).collect())
}

impl Pipeline {
    /// Draws with another adapter of the same folder's layers from now on, or with none. Where only its numbers change, not its layers and
    /// ranks, plans stay. True where a text encoder's corrections change: what was encoded before belongs to the old adapter. Not for a
    /// pipeline that trains.
    ///
    /// # Errors
    /// An adapter of other layers, before anything changes; the device failed.
    pub fn set_adapter(&mut self, folder: &ModelFolder, mut adapter: Pairs) -> Result<bool> {
        check(folder, &adapter)?;
        let exec = &mut *self.exec;
        let texts = match &mut self.encoders {
            Some(encoders) => encoders.adapt(exec, &mut |encoder| take(&mut adapter, encoder))?,
            None => false,
        };
        let lora = (!adapter.is_empty()).then(|| Lora::of(&adapter));
        if lora != self.lora {
            self.forget_plans(&|_, _| false)?;
            self.exec.forget_leaves("lora/")?;
            self.lora = lora;
        }
        lora::upload(&mut *self.exec, &adapter)?;
        Ok(texts)
    }
}
