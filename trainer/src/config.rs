//! Settings of a training. Each part lives with the code that obeys it, with unit, default and source.
use crate::objective::{anchor, grpo, nft, pathwise, prior};
use crate::recipe::Recipe;
use crate::reward::head;
use crate::stage::{rollout, warm, watch};
use crate::{Error, Result, optim};

/// Settings of a personalisation; see [`Config::recipe`] for those of the recipes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Everything random follows from it.
    pub seed: u64,
    /// Training resolution, pixels; 0 takes the model's own.
    pub width: usize,
    /// Training resolution, pixels; 0 takes the model's own.
    pub height: usize,
    /// T5 tokens of a prompt (released: 128).
    pub text_tokens: usize,
    /// LoRA rank r, any (released: 32).
    pub rank: usize,
    /// LoRA scale alpha / r (released: 2).
    pub lora_scale: f32,
    /// Iterations after the warm start.
    pub iterations: usize,
    /// What is done, and in which order.
    pub recipe: Recipe,
    /// Supervised steps before the first iteration.
    pub warm: warm::Settings,
    /// Sampling of training images.
    pub rollout: rollout::Settings,
    /// The clipped objective.
    pub grpo: grpo::Settings,
    /// The pathwise objective.
    pub pathwise: pathwise::Settings,
    /// The forward-process objective; its advantages are those of `grpo`.
    pub nft: nft::Settings,
    /// What holds a supervised training to the base model.
    pub prior: prior::Settings,
    /// What holds the layout.
    pub anchor: anchor::Settings,
    /// The reward head.
    pub head: head::Settings,
    /// The adapter's optimiser.
    pub optim: optim::Settings,
    /// How a training watches itself.
    pub watch: watch::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            seed: 0,
            width: 0,
            height: 0,
            text_tokens: pentimento::text::T5_TOKENS,
            rank: 16,
            lora_scale: 2.0,
            iterations: 5,
            recipe: Recipe::Pathwise,
            warm: warm::Settings::default(),
            rollout: rollout::Settings::default(),
            grpo: grpo::Settings::default(),
            pathwise: pathwise::Settings::default(),
            nft: nft::Settings::default(),
            prior: prior::Settings::default(),
            anchor: anchor::Settings::default(),
            head: head::Settings::default(),
            optim: optim::Settings::default(),
            watch: watch::Settings::default(),
        }
    }
}

impl Config {
    /// Rejects settings that cannot run.
    ///
    /// # Errors
    /// A sentence naming the field and what it may be.
    pub fn check(&self) -> Result<()> {
        let (window, updates) = (self.rollout.window, self.grpo.updates);
        counts(&[
            ("rank", self.rank),
            ("warm.batch", self.warm.batch),
            ("grpo.updates", updates),
            ("optim.micro_batch", self.optim.micro_batch),
            ("head.batch", self.head.batch),
        ])?;
        self.rollout.check()?;
        self.pathwise.check()?;
        self.nft.check()?;
        self.prior.check()?;
        self.anchor.check()?;
        self.watch.check()?;
        let grpo = matches!(self.recipe, Recipe::Grpo | Recipe::FlowGrpo | Recipe::Released(_));
        if matches!(self.recipe, Recipe::Nft) && self.rollout.group < 2 {
            return Err(Error::bad("rollout.group", "at least 2 images to compare", "1"));
        }
        if grpo && window == 0 {
            return Err(Error::bad("rollout.window", "at least one stochastic step", "none"));
        }
        let (aligned, learns) =
            (self.head.alignment, !matches!(self.recipe, Recipe::Released(_) | Recipe::Supervised));
        if !(0.0..=1.0).contains(&aligned) || aligned > 0.0 && !learns {
            let expected = "0 to 1, and 0 with recipes that do not ask for it: released, sft";
            return Err(Error::bad("head.alignment", expected, aligned.to_string()));
        }
        if let Recipe::Released(schedule) = &self.recipe {
            schedule.check(self)?;
        }
        if grpo && updates > window {
            return Err(Error::bad("grpo.updates", "at most one per stochastic step", updates.to_string()));
        }
        Ok(())
    }

    /// Images that the base model draws before training.
    pub(crate) fn base_images(&self) -> usize {
        let held = matches!(self.recipe, Recipe::Supervised) && self.prior.weight > 0.0;
        if held { self.prior.images } else { 0 }
    }

    /// Images in an iteration.
    pub fn images(&self) -> usize {
        self.rollout.prompts * self.rollout.group
    }
}

/// Rejects numbers that are zero or absurd.
pub(crate) fn counts(fields: &[(&str, usize)]) -> Result<()> {
    match fields.iter().find(|(_, value)| !(1..=4096).contains(value)) {
        Some((field, value)) => Err(Error::bad(*field, "1 to 4096", value.to_string())),
        None => Ok(()),
    }
}
