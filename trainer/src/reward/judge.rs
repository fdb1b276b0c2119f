//! What rewards images in the released schedules, and learns from the references in turn with the generator.
mod dino;
mod pick;

use super::{HeadStep, Learned};
use crate::config::Config;
use crate::recipe::released::{ReleasedSchedule, Script};
use crate::references::Reference;
use crate::{Error, Result};
use dino::DinoHead;
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::folder::open_component;
use pentimento_runtime::pipeline::Pipeline;
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

/// A reward that learns. It works on one thing at a time: begun, then launched and collected run by run, then asked for
/// what came out.
pub(crate) trait Judge {
    /// Begins rewards of images of one prompt; `name` is what the script calls the random choices in it.
    fn begin_rewards(
        &mut self,
        prompt: &str,
        images: &[&[f32]],
        name: &str,
        script: &mut dyn Script,
    ) -> Result<()>;
    /// The rewards begun.
    fn rewards(&mut self) -> Result<Vec<f32>>;
    /// Whether the judge learns in this epoch, instead of the generator, given the mean rewards of the epoch.
    fn learns(&self, epoch: usize, generated: f32, reference: f32) -> bool;
    /// Begins one step over everything an epoch brought.
    fn begin_step(&mut self, all: &[Pairs<'_>], name: &str, script: &mut dyn Script) -> Result<()>;
    /// The step made.
    fn step(&mut self, name: &str, script: &mut dyn Script) -> Result<HeadStep>;
    /// Writes the inputs of the next run and returns its plan.
    fn launch(&mut self, exec: &mut dyn Executor) -> Result<PlanId>;
    /// Reads the finished run; true when it was the last.
    fn collect(&mut self, exec: &mut dyn Executor) -> Result<bool>;
    /// What it has learned.
    fn learned(&self) -> &Learned;
    /// Goes on from that of another one.
    fn learn_from(&mut self, exec: &mut dyn Executor, learned: Learned) -> Result<()>;
    /// Whose network judges.
    fn fingerprint(&self) -> String;
    /// Replaces what it has learned, its optimiser's moments aside.
    fn start_from(&mut self, exec: &mut dyn Executor, params: Vec<Vec<f32>>) -> Result<()>;
}

/// The judge that a folder holds: PickScore in a `CLIPModel`'s, else a fresh head on DINOv2. `pixels`: width and height
/// of all images; `most`: images or references in a batch.
pub(crate) fn open(
    pipeline: &mut Pipeline,
    folder: &Path,
    config: &Config,
    schedule: &ReleasedSchedule,
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
