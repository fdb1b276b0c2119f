//! Settings of a training. Each part lives with the code that obeys it, with unit, default and source.
use crate::objective::grpo;
use crate::recipe::{Recipe, released};
use crate::reward::head;
use crate::stage::{rollout, warm};
use crate::{Error, Result, optim};

/// Settings of a personalisation. `Default` is the recipe measured in README.md; `released()` is the released one.
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
    /// The reward head.
    pub head: head::Settings,
    /// The adapter's optimiser.
    pub optim: optim::Settings,
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
            recipe: Recipe::Default,
            warm: warm::Settings::default(),
            rollout: rollout::Settings::default(),
            grpo: grpo::Settings::default(),
            head: head::Settings::default(),
            optim: optim::Settings::default(),
        }
    }
}

impl Config {
    /// The released settings (arXiv 2511.20256, `train_sd3_fast_dino_patch.py`), with the released
    /// schedule: no warm start, own noise per image, the first two of ten steps, one advantage per image over the global
    /// deviation. With [`Recipe::Default`] they give the released objective on a loop which uses every rollout for head
    /// and generator.
    pub fn released() -> Self {
        Config {
            text_tokens: 128,
            rank: 32,
            recipe: Recipe::Released(released::Schedule::default()),
            warm: warm::Settings { steps: 0, ..warm::Settings::default() },
            rollout: rollout::Settings::released(),
            grpo: grpo::Settings::released(),
            head: head::Settings::released(),
            optim: optim::Settings::released(),
            ..Config::default()
        }
    }

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
        if let Recipe::Released(schedule) = &self.recipe {
            schedule.check(self)?;
        }
        if updates > window {
            return Err(Error::bad("grpo.updates", "at most one per stochastic step", updates.to_string()));
        }
        Ok(())
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
