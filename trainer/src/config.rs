//! Every hyper-parameter, with unit, default and source.
use crate::{Error, Result};

/// Which part of an image an advantage is credited to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Credit {
    /// One advantage and one probability ratio per image, as released.
    Image,
    /// One ratio per latent position; its advantage is `w` times that of the reward patch over it (compared with the
    /// same position in the group's other images) plus `1 - w` times the image's.
    Patch(f32),
}

/// What the advantage is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Standard deviation of all rewards of the iteration (released: `global_std`).
    Global,
    /// Root mean square of the advantages themselves, so of the deviations within groups.
    Within,
    /// Standard deviation of the prompt's own rewards (released with `global_std` off).
    Group,
}

/// Settings of a personalisation. `Default` is the recipe measured in README.md; `official()` is the released one.
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
    /// LoRA rank r (released: 32).
    pub rank: usize,
    /// LoRA scale alpha / r (released: 2).
    pub lora_scale: f32,
    /// Supervised flow-matching steps on the references before the first rollout (released: 0).
    pub warm_steps: usize,
    /// References in one of those steps.
    pub warm_batch: usize,
    /// Their learning rate, with 10 steps of linear warm-up and a cosine down to a tenth.
    pub warm_rate: f32,
    /// Part of their captions replaced by the empty prompt, so that guidance keeps working.
    pub caption_drop: f32,
    /// Adv-GRPO iterations.
    pub iterations: usize,
    /// Prompts in an iteration.
    pub prompts: usize,
    /// Images a prompt: the group (released: 16).
    pub group: usize,
    /// Sampling steps of a rollout (released: 10).
    pub steps: usize,
    /// Classifier-free guidance of rollouts and training (released: 4.5).
    pub guidance: f32,
    /// Whether gradients stop at the unconditioned half of guidance (released: no).
    pub detach_unconditional: bool,
    /// Noise level eta of the stochastic steps (released: 0.8). Flow-CPS, arXiv 2509.05952.
    pub eta: f32,
    /// Stochastic steps of a rollout, the ones that are trained (released: 2).
    pub window: usize,
    /// First stochastic step; `None` draws it anew each iteration (MixGRPO), released: 0.
    pub window_start: Option<usize>,
    /// A group shares its initial noise and the steps before the window; its images part at the window.
    pub share_noise: bool,
    /// The noises of a group's stochastic steps come in pairs z, -z.
    pub antithetic: bool,
    /// Credit assignment.
    pub credit: Credit,
    /// Normalisation of advantages.
    pub spread: Spread,
    /// Advantages are clamped to plus or minus this (released: 5).
    pub advantage_limit: f32,
    /// Clip range c of the ratio (released: 1e-5; Flow-CPS log-probabilities are small).
    pub clip: f32,
    /// Optimiser steps per iteration; the trained steps are shared out among them (released: 2).
    pub updates: usize,
    /// Samples in one training run; gradients are accumulated.
    pub micro_batch: usize,
    /// Weight of the squared distance between the means of a step with and without the adapter (released: 0).
    pub beta: f32,
    /// AdamW learning rate (released: 3e-4).
    pub rate: f32,
    /// AdamW weight decay (released: 1e-4).
    pub weight_decay: f32,
    /// Global gradient norm limit (released: 1).
    pub max_norm: f32,
    /// Highest decay of the averaged adapter, which is the one saved (released: 0.9).
    pub ema: f32,
    /// Weight of the class token in the reward, the patches get the rest (released: 0.7).
    pub class_weight: f32,
    /// Weight of the patches in the head's loss (released: 0.3).
    pub patch_loss: f32,
    /// Patches drawn with replacement from each image, for a head step and again for a reward; 0 takes all of them
    /// (released: 64).
    pub head_patches: usize,
    /// Whether the reward divides tokens by their norms, which head training does not (released: yes).
    pub normalise_reward: bool,
    /// Head learning rate (released: 1e-4), Adam betas (0.5, 0.999).
    pub head_rate: f32,
    /// Head steps before the first update.
    pub head_warm: usize,
    /// Head steps per iteration.
    pub head_steps: usize,
    /// References, and as many generated images, in a head step.
    pub head_batch: usize,
    /// Generated images kept for the head; half of its negatives come from there.
    pub replay: usize,
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
            warm_steps: 100,
            warm_batch: 8,
            warm_rate: 1e-3,
            caption_drop: 0.1,
            iterations: 5,
            prompts: 4,
            group: 8,
            steps: 6,
            guidance: 4.5,
            detach_unconditional: true,
            eta: 0.8,
            window: 2,
            window_start: None,
            share_noise: true,
            antithetic: true,
            credit: Credit::Patch(0.7),
            spread: Spread::Within,
            advantage_limit: 5.0,
            clip: 1e-5,
            updates: 1,
            micro_batch: 16,
            beta: 0.0,
            rate: 8e-4,
            weight_decay: 1e-4,
            max_norm: 1.0,
            ema: 0.3,
            class_weight: 0.7,
            patch_loss: 0.3,
            head_patches: 0,
            normalise_reward: false,
            head_rate: 3e-4,
            head_warm: 30,
            head_steps: 2,
            head_batch: 16,
            replay: 256,
        }
    }
}

impl Config {
    /// The released settings (arXiv 2511.20256, `train_sd3_fast_dino_patch.py`), for [`crate::recipe::released::Official`]: no warm
    /// start, own noise per image, the first two of ten steps, one advantage per image over the global deviation. In
    /// [`crate::train::Trainer`] they give the released objective on its own loop, which uses every rollout for head and
    /// generator.
    pub fn official() -> Self {
        Config {
            text_tokens: 128,
            rank: 32,
            warm_steps: 0,
            steps: 10,
            window_start: Some(0),
            detach_unconditional: false,
            share_noise: false,
            antithetic: false,
            credit: Credit::Image,
            spread: Spread::Global,
            updates: 2,
            group: 16,
            rate: 3e-4,
            ema: 0.9,
            head_rate: 1e-4,
            head_steps: 1,
            head_patches: 64,
            normalise_reward: true,
            ..Config::default()
        }
    }

    /// Rejects settings that cannot run.
    ///
    /// # Errors
    /// A sentence naming the field and what it may be.
    pub fn check(&self) -> Result<()> {
        let bad = |field: &str, expected: &str, found: String| Err(Error::bad(field, expected, found));
        let positive = [
            ("rank", self.rank),
            ("warm_batch", self.warm_batch),
            ("prompts", self.prompts),
            ("steps", self.steps),
            ("window", self.window),
            ("updates", self.updates),
            ("micro_batch", self.micro_batch),
            ("head_batch", self.head_batch),
        ];
        for (field, value) in positive {
            if value == 0 || value > 4096 {
                return bad(field, "1 to 4096", value.to_string());
            }
        }
        if !self.rank.is_multiple_of(4) {
            return bad("rank", "a multiple of 4", self.rank.to_string());
        }
        if self.group < 2 || self.group > 4096 || (self.antithetic && !self.group.is_multiple_of(2)) {
            return bad("group", "at least 2, and even when noises come in pairs", self.group.to_string());
        }
        if self.window > self.steps || self.window_start.is_some_and(|w| w + self.window > self.steps) {
            return bad("window", "stochastic steps within the sampling steps", self.window.to_string());
        }
        if self.updates > self.window {
            return bad("updates", "at most one per stochastic step", self.updates.to_string());
        }
        Ok(())
    }
}
