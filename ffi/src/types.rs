//! What crosses the boundary by value: statuses, settings, progress.
use crate::guard::{self, Failure, Fields, bytes, check_size};
use pentimento_trainer::config::Config;

/// The outcome of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_status {
    /// It worked.
    Ok = 0,
    /// A NULL, size, setting or order of calls that cannot be.
    BadArgument = 1,
    /// A model, adapter or other file cannot be used as it is.
    BadFile = 2,
    /// A file, tensor, adapter or device that must be there is not.
    Missing = 3,
    /// The operating system refused to read or write.
    Io = 4,
    /// The GPU cannot run this, or failed while running it.
    Device = 5,
    /// Stopped by one of the `_cancel` functions.
    Cancelled = 6,
    /// A bug in the library. The handle is of no more use: free it.
    Internal = 7,
    /// A NaN or infinity in a file, or made by a training that diverged or by settings; the message names the first. The
    /// adapter from before stays readable.
    NotFinite = 8,
}

/// The number names no recipe.
pub fn no_recipe(number: u32) -> Failure {
    Failure::argument("recipe", "one of pmt_recipe", number.to_string())
}

/// Where a training is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum pmt_phase {
    /// Encoding prompts and references; `done` of `total` pieces.
    #[default]
    Encode = 0,
    /// Supervised steps on the references; `done` of `total`.
    Warm = 1,
    /// Iterations; `done` of `total` model runs within the one that follows `iteration`.
    Adversarial = 2,
    /// Finished.
    Done = 3,
}

/// Recipes. All but the released one begin with supervised steps on the references. Take the settings of another than the
/// default from `pmt_config_recipe`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_recipe {
    /// What suits the device: `Pathwise`.
    Default = 0,
    /// The released schedule, epoch by epoch: `iterations` counts epochs of `prompts` batches (at least 2), of which every
    /// tenth trains the adapter. With PickScore as reward model, the adapter trains while the references score higher.
    /// The `warm` and `head` fields are not used.
    Released = 1,
    /// The adversarial reward's own gradient, through backbone, decoder and a sampling step.
    Pathwise = 2,
    /// Adv-GRPO that uses every batch for reward head and adapter.
    Grpo = 3,
    /// Flow-GRPO, the baseline: a reward that is fixed after its first steps, and a policy held to the base model.
    FlowGrpo = 4,
    /// The forward-process objective on every batch (DiffusionNFT).
    Nft = 5,
    /// Supervised fine-tuning with prior preservation and without a reward: an iteration is ten optimiser steps. `prompts`,
    /// `group` and the `head` fields are not used.
    Supervised = 6,
}

impl pmt_recipe {
    /// Its settings in the library, for GPUs; `None` for a number that is no recipe.
    pub fn settings(number: u32) -> Option<Config> {
        use pmt_recipe::*;
        let all = [Default, Released, Pathwise, Grpo, FlowGrpo, Nft, Supervised];
        Some(match all.into_iter().find(|r| *r as u32 == number)? {
            Default | Pathwise => Config::pathwise(false),
            Released => Config::released(),
            Grpo => Config::grpo(false),
            FlowGrpo => Config::flow_grpo(false),
            Nft => Config::nft(false),
            Supervised => Config::supervised(false),
        })
    }
}

/// Settings of a training. Start from `pmt_config_default` or `pmt_config_recipe`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct pmt_config {
    /// Bytes of this structure in the program, set by the functions that fill it in.
    pub size: u64,
    /// Everything random follows from it.
    pub seed: u64,
    /// End after about this many seconds in `pmt_trainer_step`, the first call left out, instead of after `iterations`; 0: no
    /// such limit.
    pub max_seconds: f64,
    /// Training resolution, pixels; 0: the model's own.
    pub width: u32,
    /// Training resolution, pixels; 0: the model's own.
    pub height: u32,
    /// LoRA rank, 1 to 4096.
    pub rank: u32,
    /// Supervised steps before the first iteration; may be 0.
    pub warm_steps: u32,
    /// References in one of those steps.
    pub warm_batch: u32,
    /// Learning rate of those steps.
    pub warm_rate: f32,
    /// Iterations after those steps.
    pub iterations: u32,
    /// Prompts in an iteration.
    pub prompts: u32,
    /// Images drawn for each prompt; even where `window` is not 0.
    pub group: u32,
    /// Sampling steps of those images.
    pub steps: u32,
    /// How many of these are stochastic, the ones that the GRPO recipes train; at most `steps`.
    pub window: u32,
    /// Samples in one training run: less of them, less memory.
    pub micro_batch: u32,
    /// Steps of the reward head before the first update.
    pub head_warm: u32,
    /// References, and as many drawn images, in a step of the reward head.
    pub head_batch: u32,
    /// Classifier-free guidance; 1 turns it off.
    pub guidance: f32,
    /// Learning rate.
    pub rate: f32,
    /// What happens to references of another shape than the training's: 0 the centre is cropped, 1 the background is
    /// added around them, 2 they are squashed.
    pub fit: u32,
    /// Colour of that background, 0xRRGGBB.
    pub background: u32,
    /// What is done, and in which order: one of `pmt_recipe`.
    pub recipe: u32,
    /// Iterations from one look at fixed pictures to the next; looks end a training that gets clearly worse, and the adapter is
    /// then the best one seen. 0: none. Not in the released schedule.
    pub watch_every: u32,
    /// Bits that the model's matrices are quantised to while loading, 8 or 4: half or a quarter of the memory, and an approximation
    /// of the model; 0: as they are in the file.
    pub base_bits: u32,
    /// T5 tokens of a prompt.
    pub text_tokens: u32,
    /// Megabytes (10^6 bytes) of the device's memory to stay within: values are computed again on the way back, then fewer images go through
    /// the device at a time. The first step refuses what cannot be, and says how much would do. 0: no limit.
    pub memory_mb: u32,
    /// Values that are computed again on the way back instead of kept: 1 none, 2 most (not attentions), 3 all: less memory, up to a third more
    /// work. 0: all above 256 x 256 pixels, none below; with `memory_mb` as few as it allows.
    pub recompute: u32,
}

/// How far a training is. Numbers of the last complete iteration stay until the next one is complete.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct pmt_progress {
    /// Where `done` and `total` belong.
    pub phase: pmt_phase,
    /// Work done in this phase.
    pub done: u32,
    /// All work of this phase; 0 while unknown.
    pub total: u32,
    /// Iterations complete.
    pub iteration: u32,
    /// All iterations; 0 while `max_seconds` decides.
    pub iterations: u32,
    /// Loss of the last supervised step.
    pub warm_loss: f32,
    /// Mean reward of the generated images.
    pub reward_generated: f32,
    /// Mean reward of the references.
    pub reward_reference: f32,
    /// Standard deviation of the rewards within groups.
    pub reward_spread: f32,
    /// Hinge loss of the reward head.
    pub head_loss: f32,
    /// Part of images the reward head told apart, 0 to 1.
    pub head_accuracy: f32,
    /// Part of probability ratios outside the clip range, 0 to 1.
    pub clip_fraction: f32,
    /// Gradient norm before clipping.
    pub gradient_norm: f32,
    /// Seconds the iteration took, in calls of `pmt_trainer_step`.
    pub iteration_seconds: f32,
    /// How far fixed pictures keep the base model's shapes at the last look, 0 to 1; -1 where those have no background.
    pub silhouettes: f32,
    /// How far they are from the references, in units of the references' deviations.
    pub distance: f32,
    /// Iteration of the best look so far; 0: the warm start's. It is the adapter's when the last look is worse.
    pub best_iteration: u32,
}

// Fields may be added at the end only if there is no padding in which old programs have garbage.
const _: () = assert!(size_of::<pmt_config>() == 3 * 8 + 24 * 4 && align_of::<pmt_config>() == 8);
const _: () = assert!(size_of::<pmt_progress>() == 17 * 4 && size_of::<pmt_phase>() == 4);
impl Fields for pmt_config {
    const WIDE: usize = 3;
}
impl Fields for pmt_progress {
    const WIDE: usize = 0;
}
impl Default for pmt_config {
    fn default() -> Self {
        Self::of(&Config::pathwise(false), pmt_recipe::Default as u32)
    }
}

impl pmt_config {
    /// The settings of a recipe by its number.
    pub fn recipe(number: u32) -> guard::Result<Self> {
        pmt_recipe::settings(number).map(|c| Self::of(&c, number)).ok_or_else(|| no_recipe(number))
    }
    fn of(c: &Config, recipe: u32) -> Self {
        pmt_config {
            size: size_of::<Self>() as u64,
            seed: c.seed,
            max_seconds: 0.0,
            width: c.width as u32,
            height: c.height as u32,
            rank: c.rank as u32,
            warm_steps: c.warm.steps as u32,
            warm_batch: c.warm.batch as u32,
            warm_rate: c.warm.rate,
            iterations: c.iterations as u32,
            prompts: c.rollout.prompts as u32,
            group: c.rollout.group as u32,
            steps: c.rollout.steps as u32,
            window: c.rollout.window as u32,
            micro_batch: c.optim.micro_batch as u32,
            head_warm: c.head.warm as u32,
            head_batch: c.head.batch as u32,
            guidance: c.rollout.guidance,
            rate: c.optim.rate,
            // The released schedule squashes.
            fit: if recipe == pmt_recipe::Released as u32 { 2 } else { 0 },
            background: 0xff_ffff,
            recipe,
            watch_every: c.watch.every as u32,
            base_bits: 0,
            text_tokens: c.text_tokens as u32,
            memory_mb: 0,
            recompute: 0,
        }
    }

    /// The host's structure, which may be an older and shorter one.
    ///
    /// # Safety
    /// NULL, or `size` is readable and says how much more is.
    pub unsafe fn read(p: *const pmt_config) -> guard::Result<Self> {
        let mut config = pmt_config::default();
        // SAFETY: the caller's promise.
        let size = unsafe { bytes(p.cast(), size_of::<u64>(), "config").map(|_| p.cast::<u64>().read())? };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        check_size::<Self>(size, "config.size")?;
        // SAFETY: the caller's promise; no more than there is room for.
        unsafe { (&raw mut config).cast::<u8>().copy_from_nonoverlapping(p.cast(), size) };
        Ok(config)
    }
}
