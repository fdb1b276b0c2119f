//! Rewards: frozen networks, what learns on top of them, and who judges whom.
pub mod backbone;
pub mod head;
pub mod host;
pub mod judge;
pub mod pickscore;

use crate::archive::kept;
use crate::config::Config;
use crate::optim::{AdamW, Tensors};
use crate::stage::describe;
use crate::{Error, Result};
use backbone::Backbone;
use head::{Head, Shape};
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::Pipeline;
use pentimento_runtime::rng::Philox;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a step of a reward that learns reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadStep {
    /// Hinge loss: class token plus weighted patches.
    pub loss: f32,
    /// Part of class logits on the right side of zero, before the step.
    pub accuracy: f32,
}

/// What a reward has learnt: plain data.
#[derive(Clone)]
pub(crate) struct Learned {
    pub params: Tensors,
    pub adam: AdamW,
    /// Signs of the noise that holds a head steady.
    pub signs: Philox,
}
kept!(Learned { params, adam, signs });

impl Learned {
    /// Nothing yet. Adam with the released betas.
    pub fn new(params: Vec<Vec<f32>>, seed: u64) -> Self {
        let adam = AdamW::new((0.5, 0.999), 0.0, params.iter().map(Vec::len));
        Learned { params: Arc::new(params), adam, signs: Philox::new(seed, 0x516) }
    }
    /// One step along gradients.
    pub fn step(&mut self, gradients: &[Vec<f32>], rate: f32) {
        self.adam.update(Arc::<Vec<_>>::make_mut(&mut self.params), gradients, rate);
    }
    /// Takes the numbers of another in the place of these.
    pub fn go_on(&mut self, from: Learned) -> Result<()> {
        if !self.fits(&from) {
            return Err(Error::bad("reward", "tensors of its own lengths", "others"));
        }
        *self = from;
        Ok(())
    }
    /// Whether another's numbers could take the place of these.
    pub fn fits(&self, other: &Learned) -> bool {
        let lengths = |l: &Learned| l.params.iter().map(Vec::len).collect::<Vec<_>>();
        lengths(self) == lengths(other) && other.adam.fits(&other.params)
    }
}
/// One that a file's fills.
impl Default for Learned {
    fn default() -> Self {
        Learned::new(Vec::new(), 0)
    }
}

/// The reward on latents: decoded and described on the device, judged by a head that learns.
pub(crate) struct Critic {
    pub backbone: Backbone,
    pub head: Head,
    /// From latents to tokens, see [`describe`].
    pub describe: PlanId,
    /// Encodes a prompt, where the reward asks for it.
    pub prompt: Option<PlanId>,
}

impl Critic {
    /// Opens a DINOv2 or CLIP folder and draws a head from the seed. `size`: latent height and width.
    pub fn open(pipeline: &mut Pipeline, folder: &Path, config: &Config, size: [usize; 2]) -> Result<Self> {
        let mut backbone = Backbone::open(folder)?;
        backbone.stream = config.stream;
        let (shape, images) = (Shape::of(&backbone), config.images());
        let head = Head::new(&mut *pipeline.exec, shape, &config.head, config.seed, images)?;
        let aligned = config.head.alignment > 0.0;
        let prompt = if aligned { Some(backbone.prompt_plan(&mut *pipeline.exec)?) } else { None };
        let describe = describe::plan(pipeline, &mut backbone, aligned, config.at_once.describe, size)?;
        Ok(Critic { backbone, head, describe, prompt })
    }
}

/// Where a model's reward network is: where it is said to be, else in `reward` beside the model's other parts.
pub fn folder(model: &ModelFolder, given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| model.beside().join("reward"), Path::to_path_buf)
}

/// A stage asks for a reward that its recipe has not opened.
pub(crate) fn none() -> Error {
    Error::missing("recipe", "a reward")
}
