//! What rewards images in the released schedules, and learns from the references in turn with the generator.
mod dino;
mod pick;

use super::HeadStep;
use crate::config::Config;
use crate::recipe::released::{Schedule, Script};
use crate::references::Reference;
use crate::{Error, Result};
use dino::DinoHead;
use pentimento::exec::Executor;
use pentimento::folder::open_component;
use pentimento::pipeline::Pipeline;
use pick::Pick;
use std::path::Path;

/// A batch as the judge sees it.
pub(crate) struct Pairs<'a> {
    /// The prompt of all of them.
    pub prompt: &'a str,
    /// All references of the prompt.
    pub references: &'a [Reference],
    /// Generated images in 0 to 1, `[H, W, 3]` each.
    pub images: &'a [Vec<f32>],
}

/// A reward that learns.
pub(crate) trait Judge {
    /// Rewards of images of one prompt; `name` is what the script calls the random choices in it.
    fn rewards(
        &mut self,
        exec: &mut dyn Executor,
        prompt: &str,
        images: &[&[f32]],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<Vec<f32>>;
    /// Whether the judge learns in this epoch, instead of the generator, given the mean rewards of the epoch.
    fn learns(&self, epoch: usize, generated: f32, reference: f32) -> bool;
    /// One step over everything an epoch brought.
    fn learn(
        &mut self,
        exec: &mut dyn Executor,
        all: &[Pairs<'_>],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<HeadStep>;
    /// Replaces what it has learned.
    fn start_from(&mut self, exec: &mut dyn Executor, params: Vec<Vec<f32>>) -> Result<()>;
}

/// The judge that a folder holds: PickScore in a `CLIPModel`'s, else a fresh head on DINOv2. `pixels`: width and height
/// of all images; `most`: images or references in a batch.
pub(crate) fn open(
    pipeline: &mut Pipeline,
    folder: &Path,
    config: &Config,
    schedule: &Schedule,
    pixels: (usize, usize),
    most: usize,
) -> Result<Box<dyn Judge>> {
    let json = open_component(folder)?.config()?;
    let kind = json.get("model_type").and_then(serde_json::Value::as_str);
    match kind {
        Some("clip") => Ok(Box::new(Pick::open(pipeline, folder, config, schedule, pixels)?)),
        Some("clip_vision_model" | "clip_text_model") => {
            let label = folder.join("config.json").display().to_string();
            Err(Error::bad(
                label,
                "a whole `clip` model, text and image",
                kind.unwrap_or_default().to_string(),
            ))
        }
        _ => Ok(Box::new(DinoHead::open(pipeline, folder, config, schedule, pixels, most)?)),
    }
}
