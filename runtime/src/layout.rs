//! Single-file checkpoints: the original layout of Stable Diffusion 3, presented as diffusers' components.
//!
//! Follows the key names of Stability's `mmditx.py` and of the files that hold it: `model.diffusion_model.` (or no
//! prefix) for the transformer, `first_stage_model.` for the autoencoder, `text_encoders.{clip_l,clip_g,t5xxl}.
//! transformer.` for the text encoders. Tensors become views with other names; a fused q, k, v is three ranges of rows.
//! Only the few modulations whose halves are exchanged are copied.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::weights::Weights;
use crate::{Error, Result, shown};

mod infer;
mod names;

pub use names::{Rename, any_module, module, numbered, same};

/// Prefixes of a file's parts, with the component that each is.
const PREFIXES: [(&str, &str); 5] = [
    ("model.diffusion_model.", "transformer"),
    ("first_stage_model.", "vae"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3"),
];
const PROJECTION: &str = "text_projection.weight";
/// Widest identity that is filled in; CLIP-L has 768 channels.
const MAX_IDENTITY: usize = 2048;

/// One file taken apart: each component under diffusers' names.
#[derive(Clone, Debug)]
pub struct SingleFile {
    label: String,
    components: BTreeMap<&'static str, Weights>,
    unknown: Vec<String>,
}

impl SingleFile {
    /// Sorts a file's tensors into components.
    ///
    /// # Errors
    /// No tensor that belongs to SD3; a fused tensor that cannot be split; two tensors that mean the same; a tensor that is
    /// none of the transformer's, but changes one of its modules.
    pub fn split(file: &Weights) -> Result<Self> {
        let last = file.names().filter_map(|n| names::block(strip(n).1)).max();
        let mut components: BTreeMap<&'static str, Weights> = BTreeMap::new();
        let mut unknown = Vec::new();
        for name in file.names() {
            match target(name, last) {
                Some((component, rename)) => {
                    let view = components.entry(component).or_insert_with(|| file.view());
                    present(view, file, name, rename)?;
                }
                None if names::in_transformer(strip(name).1) => {
                    let place = format!("{}: `{}`", file.label(), shown(name));
                    return Err(Error::bad(place, "a tensor of SD3's transformer", "one that is not read")
                        .with_hint(
                            "What it means for its module is not known; convert the checkpoint without it.",
                        ));
                }
                None => unknown.push(name.to_string()),
            }
        }
        if components.is_empty() {
            let first =
                file.names().next().map_or("no tensors".to_string(), |n| format!("`{n}` and the like"));
            let expected = "an SD3 checkpoint (tensors such as `joint_blocks.0.x_block.attn.qkv.weight`)";
            return Err(Error::bad(file.label(), expected, first));
        }
        let mut single = SingleFile { label: file.label(), components, unknown };
        single.number_up_blocks()?;
        single.imply_projection()?;
        Ok(single)
    }

    /// The file's label.
    pub fn label(&self) -> &str {
        &self.label
    }
    /// A component's tensors under diffusers' names, if the file has it.
    pub fn component(&self, name: &str) -> Option<&Weights> {
        self.components.get(name)
    }
    /// Names of the components it has.
    pub fn components(&self) -> impl Iterator<Item = &'static str> {
        self.components.keys().copied()
    }
    /// Tensors that belong to no component.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The configuration of a component, inferred from its shapes: what its `config.json` would say. What shapes do not
    /// tell is that of the published SD3 models: 64 channels a head, 32 groups a norm, the activations of CLIP.
    ///
    /// # Errors
    /// A component the file lacks; shapes that fit no such model.
    pub fn config(&self, component: &str) -> Result<serde_json::Value> {
        let weights = self.component(component);
        let weights =
            weights.ok_or_else(|| Error::missing(&self.label, format!("component `{component}`")))?;
        infer::config(component, weights)
    }

    /// The original decoder counts its levels from the image, diffusers from the latents.
    fn number_up_blocks(&mut self) -> Result<()> {
        let Some(vae) = self.components.get("vae") else { return Ok(()) };
        fn level(name: &str) -> Option<(usize, &str)> {
            names::number_after(name, "decoder.up_blocks.")
        }
        let Some((last, _)) = vae.names().filter_map(level).max_by_key(|(n, _)| *n) else { return Ok(()) };
        // A file that is in diffusers' layout already has no `up.N.block.M`, so nothing was renamed.
        if !vae.names().any(|n| vae.source(n).is_some_and(|s| s.contains("decoder.up."))) {
            return Ok(());
        }
        let mut numbered = vae.view();
        for name in vae.names() {
            let new = match level(name) {
                Some((n, rest)) => format!("decoder.up_blocks.{}{rest}", last - n),
                None => name.to_string(),
            };
            numbered.present(new, vae, name, None)?;
        }
        self.components.insert("vae", numbered);
        Ok(())
    }

    /// CLIP-L is stored without projection where it is the identity, which diffusers then fills in.
    fn imply_projection(&mut self) -> Result<()> {
        let Some(clip) = self.components.get_mut("text_encoder").filter(|c| !c.contains(PROJECTION)) else {
            return Ok(());
        };
        let width = clip.shape("text_model.final_layer_norm.weight").and_then(|s| s.first()).copied();
        let Some(width) = width.filter(|&w| (1..=MAX_IDENTITY).contains(&w)) else { return Ok(()) };
        let identity: Vec<f32> =
            (0..width * width).map(|i| f32::from(u8::from(i % (width + 1) == 0))).collect();
        clip.add(&self.label, PROJECTION, &[width, width], &identity)
    }
}

/// Cuts a part's prefix off.
fn strip(name: &str) -> (Option<&'static str>, &str) {
    let found = PREFIXES.iter().find_map(|(prefix, part)| Some((*part, name.strip_prefix(prefix)?)));
    found.map_or((None, name), |(part, rest)| (Some(part), rest))
}

/// Component and diffusers name of a file's tensor; `last`: the last joint block.
fn target(name: &str, last: Option<usize>) -> Option<(&'static str, Rename)> {
    let (part, rest) = strip(name);
    let transformer = || names::transformer(rest, last).map(|r| ("transformer", r));
    let vae = || names::vae(rest).map(|r| ("vae", r));
    match part {
        Some("transformer") => transformer(),
        Some("vae") => vae(),
        Some(encoder) => Some((encoder, Rename::To(rest.to_string()))),
        None => transformer().or_else(vae),
    }
}

/// Puts one tensor of the file under its diffusers names.
fn present(view: &mut Weights, file: &Weights, source: &str, rename: Rename) -> Result<()> {
    match rename {
        Rename::To(name) => {
            let rank = names::rank(&name);
            view.present(name, file, source, rank)
        }
        Rename::Split(parts) => {
            let [q, k, v] = parts;
            view.present_part(q, file, source, [0, 3])?;
            view.present_part(k, file, source, [1, 3])?;
            view.present_part(v, file, source, [2, 3])
        }
        Rename::Swap(name) => view.present_swapped(name, file, source),
    }
}

#[cfg(test)]
mod tests;
