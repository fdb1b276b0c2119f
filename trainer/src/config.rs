//! Settings of a training. Each part lives with the code that obeys it, with unit, default, range and source.
use crate::objective::{anchor, grpo, nft, pathwise, prior};
use crate::recipe::{Recipe, released};
use crate::reward::head;
use crate::settings::Source;
use crate::settings::field::{ANY, COUNT, most, positive};
use crate::settings::part::{self, settings};
use crate::stage::{rollout, warm, watch};
use crate::{Error, Result, optim};
use pentimento_runtime::grad::Recompute;
use pentimento_runtime::weights::Base;

settings! {
    /// Settings of a personalisation; see [`Config::recipe`] for those of the recipes.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Config in "" {
        /// Everything random follows from it.
        seed: u64 = 0, ANY;
        /// Training resolution; 0 takes the model's own.
        width: usize = 0, most(MOST_SIDE), unit "pixels";
        /// Training resolution; 0 takes the model's own.
        height: usize = 0, most(MOST_SIDE), unit "pixels";
        /// What the frozen matrices of the transformer's blocks are quantised to on the device, to save its memory; `none` leaves them as
        /// the file has them.
        base: Option<Base> = None, ANY;
        /// Which values of transformer blocks, decoder and backbone are computed again on the way back instead of kept: less memory, up to a
        /// third more work. `most` leaves attentions out; `auto`: none of them up to 256 x 256 pixels, all of them above, or where memory is
        /// known, as few as it allows.
        recompute: Option<Recompute> = None, ANY;
        /// Whether the networks' matrices stay in the host's memory and come to the device whenever they are read: the same bits from much
        /// less of the device's memory, and later, since all of them cross the bus for each pass. Done by itself where memory leaves nothing
        /// else to give up.
        stream: bool = false, ANY;
        /// T5 tokens of a prompt (released: 128).
        text_tokens: usize = pentimento_runtime::text::T5_TOKENS, COUNT, unit "tokens", from Source::Released;
        /// LoRA rank r, any (released: 32).
        rank: usize = 16, COUNT, from Source::Released;
        /// LoRA scale alpha / r (released: 2).
        lora_scale: f32 = 2.0, positive(1000.0), from Source::Released;
        /// Iterations after the warm start; with the released schedule epochs, with `sft` tens of steps.
        iterations: usize = 5, most(MOST_STEPS), unit "iterations";
        /// What is done, and in which order.
        recipe: Recipe = Recipe::Pathwise, ANY;
        parts {
            /// How many images the device works on at a time.
            at_once: AtOnce;
            /// Supervised steps before the first iteration.
            warm: warm::Settings;
            /// Sampling of training images.
            rollout: rollout::Settings;
            /// The clipped objective.
            grpo: grpo::Settings;
            /// The pathwise objective.
            pathwise: pathwise::Settings;
            /// The forward-process objective; its advantages are those of `grpo`.
            nft: nft::Settings;
            /// What holds a supervised training to the base model.
            prior: prior::Settings;
            /// What holds the layout.
            anchor: anchor::Settings;
            /// The reward head.
            head: head::Settings;
            /// The adapter's optimiser.
            optim: optim::Settings;
            /// How a training watches itself.
            watch: watch::Settings;
            /// The released schedule, of [`Recipe::Released`] only.
            released: released::ReleasedSchedule;
        }
    }
}

settings! {
    /// How many images go through the device in one run, at most: fewer take less memory and a little more time. Sums are made of other
    /// parts then, so their last bits differ, and agreement (see [`optim::Settings`]) is that of other halves; what is learnt is the same.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AtOnce in "at_once." {
        /// Most images that go through at once in training runs, whatever the settings of warm start and objectives say.
        train: usize = 4096, COUNT, unit "images";
        /// Most images that go through at once while images are sampled, where guidance counts twice.
        sample: usize = 4096, COUNT, unit "images";
        /// Most images that go through at once while images are decoded and described for the reward. The released schedule describes a group at a time.
        describe: usize = 8, COUNT, unit "images";
    }
}

impl Config {
    /// Rejects settings that cannot run.
    ///
    /// # Errors
    /// A sentence naming the field and what it may be.
    pub fn check(&self) -> Result<()> {
        part::check(self)?;
        let (window, updates) = (self.rollout.window, self.grpo.updates);
        self.rollout.check()?;
        self.pathwise.check()?;
        let grpo = matches!(self.recipe, Recipe::Grpo | Recipe::FlowGrpo | Recipe::Released);
        if matches!(self.recipe, Recipe::Nft) && self.rollout.group < 2 {
            return Err(Error::call("rollout.group", "at least 2 images to compare", "1"));
        }
        if grpo && window == 0 {
            return Err(Error::call("rollout.window", "at least one stochastic step", "none"));
        }
        if self.images() > MOST_IMAGES {
            let found = format!("{} x {}", self.rollout.prompts, self.rollout.group);
            return Err(Error::call(
                "rollout.prompts x rollout.group",
                format!("at most {MOST_IMAGES} images"),
                found,
            ));
        }
        let (aligned, learns) =
            (self.head.alignment, !matches!(self.recipe, Recipe::Released | Recipe::Supervised));
        if aligned > 0.0 && !learns {
            let expected = "0 with recipes that do not ask for it: released, sft";
            return Err(Error::call("head.alignment", expected, aligned.to_string()));
        }
        if self.recipe == Recipe::Released && self.rollout.prompts < 2 {
            return Err(Error::call("rollout.prompts", "at least 2 batches in an epoch", "1"));
        }
        if grpo && updates > window {
            return Err(Error::call("grpo.updates", "at most one per stochastic step", updates.to_string()));
        }
        Ok(())
    }

    /// Images that the base model draws before training.
    pub(crate) fn base_images(&self) -> usize {
        let held = matches!(self.recipe, Recipe::Supervised) && self.prior.weight > 0.0;
        if held { self.prior.images } else { 0 }
    }

    /// With as little on the device at a time as there can be.
    #[must_use]
    pub fn sparing(mut self) -> Self {
        self.stream = true;
        (self.recompute, self.at_once) = (Some(Recompute::All), AtOnce { train: 1, sample: 1, describe: 1 });
        self
    }

    /// Images in a training run of the warm start, and of terms that pull to other velocities.
    pub(crate) fn warm_rows(&self) -> usize {
        self.warm.batch.min(self.at_once.train)
    }

    /// What plans for latents of this height and width compute again.
    pub(crate) fn recomputes(&self, [height, width]: [usize; 2]) -> Recompute {
        self.recompute.unwrap_or((height * width > KEPT).into())
    }

    /// Images in an iteration.
    pub fn images(&self) -> usize {
        self.rollout.prompts * self.rollout.group
    }
}

/// Latent positions up to which values are kept where nothing is said of memory: 256 x 256 pixels.
pub const KEPT: usize = 32 * 32;
/// Optimiser steps, head steps and iterations are no more than this.
pub(crate) const MOST_STEPS: usize = 1_000_000;
/// Images that an iteration makes, or the head remembers, are no more than this.
pub(crate) const MOST_IMAGES: usize = 65_536;
/// Pixels of a side are no more than this.
const MOST_SIDE: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::grpo::Credit;
    use crate::objective::pathwise::From;
    use crate::recipe::released::ReleasedSchedule;

    type Set<T> = fn(&mut Config, T);

    /// A setting that must refuse a value names itself and what it may be.
    fn refused<T: Copy + std::fmt::Debug>(fields: &[(&str, Set<T>)], values: &[T]) {
        for (name, set) in fields {
            for &value in values {
                let mut config = Config::grpo(true);
                set(&mut config, value);
                let error = config.check().expect_err(name).to_string();
                assert!(error.contains(name) && error.contains("expected"), "{name} {value:?}: {error}");
            }
        }
    }
    fn schedule(c: &mut Config, set: impl FnOnce(&mut ReleasedSchedule)) {
        let mut own = ReleasedSchedule::default();
        set(&mut own);
        *c = Config { released: own, ..Config::released() };
    }

    #[test]
    fn no_float_is_taken_as_it_comes() {
        let fields: &[(&str, Set<f32>)] = &[
            ("lora_scale", |c, v| c.lora_scale = v),
            ("warm.rate", |c, v| c.warm.rate = v),
            ("warm.caption_drop", |c, v| c.warm.caption_drop = v),
            ("rollout.guidance", |c, v| c.rollout.guidance = v),
            ("rollout.eta", |c, v| c.rollout.eta = v),
            ("grpo.credit", |c, v| c.grpo.credit = Credit::Patch(v)),
            ("grpo.floor", |c, v| c.grpo.floor = v),
            ("grpo.advantage_limit", |c, v| c.grpo.advantage_limit = v),
            ("grpo.clip", |c, v| c.grpo.clip = v),
            ("grpo.beta", |c, v| c.grpo.beta = v),
            ("grpo.norm", |c, v| c.grpo.norm = v),
            ("pathwise.from", |c, v| c.pathwise.from = From::Noised(v, 0.5)),
            ("pathwise.from", |c, v| c.pathwise.from = From::Noised(0.5, v)),
            ("nft.beta", |c, v| c.nft.beta = v),
            ("prior.weight", |c, v| c.prior.weight = v),
            ("anchor.weight", |c, v| c.anchor.weight = v),
            ("anchor.lowest", |c, v| c.anchor.lowest = v),
            ("head.class_weight", |c, v| c.head.class_weight = v),
            ("head.alignment", |c, v| c.head.alignment = v),
            ("head.patch_loss", |c, v| c.head.patch_loss = v),
            ("head.rate", |c, v| c.head.rate = v),
            ("head.steady", |c, v| c.head.steady = v),
            ("optim.rate", |c, v| c.optim.rate = v),
            ("optim.agreement", |c, v| c.optim.agreement = v),
            ("optim.weight_decay", |c, v| c.optim.weight_decay = v),
            ("optim.max_norm", |c, v| c.optim.max_norm = v),
            ("optim.ema", |c, v| c.optim.ema = v),
            ("watch.silhouettes", |c, v| c.watch.silhouettes = v),
            ("released.tune_rate", |c, v| schedule(c, |s| s.tune_rate = v)),
        ];
        refused(fields, &[f32::NAN, f32::INFINITY, -1.0, 1e30]);
    }

    #[test]
    fn no_count_is_taken_as_it_comes() {
        let fields: &[(&str, Set<usize>)] = &[
            ("text_tokens", |c, v| c.text_tokens = v),
            ("at_once.train", |c, v| c.at_once.train = v),
            ("at_once.sample", |c, v| c.at_once.sample = v),
            ("at_once.describe", |c, v| c.at_once.describe = v),
            ("rank", |c, v| c.rank = v),
            ("warm.batch", |c, v| c.warm.batch = v),
            ("rollout.prompts", |c, v| c.rollout.prompts = v),
            ("rollout.group", |c, v| c.rollout.group = v),
            ("rollout.steps", |c, v| c.rollout.steps = v),
            ("rollout.window", |c, v| c.rollout.window = v),
            ("grpo.updates", |c, v| c.grpo.updates = v),
            ("pathwise.images", |c, v| c.pathwise.images = v),
            ("pathwise.batch", |c, v| c.pathwise.batch = v),
            ("nft.noisings", |c, v| c.nft.noisings = v),
            ("prior.images", |c, v| c.prior.images = v),
            ("head.batch", |c, v| c.head.batch = v),
            ("optim.micro_batch", |c, v| c.optim.micro_batch = v),
            ("released", |c, v| schedule(c, |s| s.ema_interval = v)),
            ("released.hidden", |c, v| schedule(c, |s| s.hidden = v)),
        ];
        refused(fields, &[0, usize::MAX]);
        let large: &[(&str, Set<usize>)] = &[
            ("iterations", |c, v| c.iterations = v),
            ("warm.steps", |c, v| c.warm.steps = v),
            ("rollout.window", |c, v| c.rollout.window_start = Some(v)),
            ("rollout.prompts x rollout.group", |c, _| (c.rollout.prompts, c.rollout.group) = (4096, 4096)),
            ("head.patches", |c, v| c.head.patches = v),
            ("head.warm", |c, v| c.head.warm = v),
            ("head.steps", |c, v| c.head.steps = v),
            ("head.replay", |c, v| c.head.replay = v),
            ("watch.every", |c, v| c.watch.every = v),
        ];
        refused(large, &[usize::MAX]);
    }

    #[test]
    fn presets_are_accepted() {
        for slow in [true, false] {
            for name in Recipe::NAMES {
                Config::recipe(name, slow).and_then(|c| c.check()).expect(name);
            }
        }
    }
}
