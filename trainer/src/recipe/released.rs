//! The released schedules, step by step: `scripts/train_sd3_fast_dino_patch.py` and `train_sd3_fast_pickscore.py` of the
//! Adv-GRPO code at 8287f90, with what is odd in them kept and named. The slow, exact course beside `recipe/adversarial.rs`.
//!
//! ```text
//! epoch: batches of one prompt each -> rollout -> images -> reward of generated and reference images
//!        the judge's turn ((epoch + 1) mod d_times != 0): one step of it over all of them, nothing else
//!        else: two generator steps, each over half of the batches and all trained steps of the rollout
//! ```
//!
//! Kept on purpose:
//! - Nine of ten epochs train the head only; their rewards and advantages are computed and thrown away. PickScore learns
//!   instead of the generator whenever the references' mean reward is below the generated images'.
//! - Rewards of an epoch come from the head as it was before the epoch's own step.
//! - Every image has its own initial noise; steps outside the window are the same step with noise level 0.
//! - The reward normalises tokens and resizes floats; the head trains on raw tokens of 8-bit images. PickScore's reward
//!   rounds images to 8 bits, its training cuts them off.
//! - References of the batch's prompt: all of them, whatever their number; lists of unequal length are cut to the shorter.
//! - Prompts that are equal without regard to case and spacing are one group.
//! - `global_step` counts head epochs too; the average ([`crate::optim::Ema::step`]) follows it and is asked once per batch.
mod generator;
mod learn;
mod replay;
mod rollout;
mod score;
mod script;

pub use script::{Script, Seeded};

use super::Course;
use crate::config::MOST_STEPS;
use crate::machine::Machine;
use crate::references::Reference;
use crate::reward::judge::{self, Judge};
use crate::settings::Source;
use crate::settings::field::{COUNT, between};
use crate::settings::part::settings;
use crate::stage::Stage;
use crate::stage::prepare::{Known, Texts};
use crate::train::state::{Finds, State};
use crate::train::{Event, Metrics, Setup};
use crate::{Error, Result};
use generator::Generate;
use learn::Learn;
use rollout::{Made, Sample};
use score::Score;

settings! {
    /// What the released script has besides what all recipes have.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ReleasedSchedule in "released." {
        /// The head trains in every epoch but each `d_times`-th (released: 10).
        d_times: usize = 10, between(1.0, MOST_STEPS as f64), unit "epochs", from Source::Released;
        /// The average takes the adapter in at every `ema_interval`-th global step (released: 8).
        ema_interval: usize = 8, between(1.0, MOST_STEPS as f64), unit "steps", from Source::Released;
        /// Hidden units of the head (released: 512).
        hidden: usize = crate::reward::head::HIDDEN, COUNT, from Source::Released;
        /// PickScore's image layers `layers[tune_layer:]` learn (released: -1; paper: -2).
        tune_layer: i64 = -1, between(-1000.0, 1000.0), from Source::Released;
        /// Learning rate of those layers (released: 5e-6).
        tune_rate: f32 = 5e-6, between(0.0, 1.0), from Source::Released;
    }
}

/// A prompt with its references.
pub(crate) struct Prompt {
    name: String,
    /// Prompts of one key are one group.
    key: String,
    references: Vec<Reference>,
}

/// What the stages of an epoch work with.
pub(crate) struct Bench {
    schedule: ReleasedSchedule,
    prompts: Vec<Prompt>,
    pub judge: Box<dyn Judge>,
    pub script: Box<dyn Script>,
    /// Prompts of the epoch's batches, and those sampled so far.
    order: Vec<usize>,
    batches: Vec<Made>,
    /// One for each image of the epoch.
    advantages: Vec<f32>,
}

impl Bench {
    fn of(m: &mut Machine) -> Result<&mut Bench> {
        m.bench.as_mut().ok_or_else(|| Error::missing("recipe", "the released schedule"))
    }
}

/// Prompts and captions to encode.
pub(crate) fn known(setup: &Setup<'_>) -> Result<Known> {
    Ok(Known::texts(setup, names(setup)?, Vec::new()))
}

/// What a saved state calls the one phase that it can be in.
const EPOCH: &str = "epoch";

/// What comes next.
enum Next {
    Texts,
    Epoch,
    Sample(usize),
    Score,
    Turn,
}

/// The course of the released schedule. In [`Config`], `rollout.prompts` is the number of batches of an epoch and
/// `rollout.group` the images in one; `iterations` counts epochs.
pub(crate) struct Released {
    next: Next,
}

impl Released {
    /// Opens the judge. A prompt that is the caption of no reference has all of them (the released loader would stop
    /// there).
    pub fn open(m: &mut Machine, s: &mut State, setup: &Setup<'_>) -> Result<Self> {
        let schedule = m.config.released.clone();
        let prompts = prompts(setup)?;
        let most = prompts.iter().map(|p| p.references.len()).max().unwrap_or(0);
        let most = most.max(m.config.rollout.group);
        let judge = judge::open(&mut m.pipeline, &m.reward, &m.config, &schedule, m.pixels, most)?;
        let script = Box::new(Seeded::new(m.config.seed));
        let (order, batches, advantages) = (Vec::new(), Vec::new(), Vec::new());
        m.bench = Some(Bench { schedule, prompts, judge, script, order, batches, advantages });
        s.restart(&m.config);
        Ok(Released { next: Next::Texts })
    }

    /// Begins an epoch, if there is to be one.
    fn epoch(&mut self, m: &mut Machine, s: &mut State) -> Result<bool> {
        let over = match m.clock.left(1.0) {
            Some(left) => left <= 0.0,
            None => s.iteration >= m.config.iterations,
        };
        if over {
            return Ok(false);
        }
        let (e, batches, steps) = (s.iteration, m.config.rollout.prompts, m.config.rollout.steps);
        let bench = Bench::of(m)?;
        let order = bench.script.order(e, batches, bench.prompts.len());
        if order.len() != batches || order.iter().any(|&p| p >= bench.prompts.len()) {
            let expected = format!("{batches} of {} prompts", bench.prompts.len());
            return Err(Error::bad("order of prompts", expected, format!("{order:?}")));
        }
        (bench.order, bench.batches) = (order, Vec::new());
        m.clock.started = m.clock.now();
        s.metrics = Metrics { iteration: e + 1, ..Metrics::default() };
        s.parts = (0, batches * steps);
        Ok(true)
    }
}

impl Course for Released {
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>> {
        let (stage, next): (Box<dyn Stage>, Next) = match self.next {
            Next::Texts => (Box::new(Texts::default()), Next::Epoch),
            Next::Epoch => {
                if !self.epoch(m, s)? {
                    return Ok(None);
                }
                self.next = Next::Sample(0);
                return self.next(m, s);
            }
            Next::Sample(b) => {
                let last = b + 1 == m.config.rollout.prompts;
                let next = if last { Next::Score } else { Next::Sample(b + 1) };
                (Box::new(Sample::begin(m, s, b)?), next)
            }
            Next::Score => (Box::new(Score::default()), Next::Turn),
            Next::Turn => {
                let (generated, reference) = (s.metrics.reward_generated, s.metrics.reward_reference);
                let learns = Bench::of(m)?.judge.learns(s.iteration, generated, reference);
                let stage: Box<dyn Stage> =
                    if learns { Box::new(Learn::default()) } else { Box::new(Generate::default()) };
                (stage, Next::Epoch)
            }
        };
        self.next = next;
        Ok(Some(stage))
    }
    // Images of an epoch's batches are large and few epochs are long: what is kept is kept between them.
    fn phase(&self) -> Option<&'static str> {
        matches!(self.next, Next::Epoch).then_some(EPOCH)
    }
    fn finds(&self, phase: &str) -> Option<Finds> {
        (phase == EPOCH).then_some(Finds::Nothing)
    }
    fn go(&mut self, phase: &str) {
        if phase == EPOCH {
            self.next = Next::Epoch;
        }
    }
}

/// Ends an epoch.
fn finish(m: &mut Machine, s: &mut State) -> Event {
    s.iteration += 1;
    s.metrics.seconds = m.clock.iteration();
    Event::Iteration(s.metrics.clone())
}

/// Prompts, or different captions where none are given.
fn names(setup: &Setup<'_>) -> Result<Vec<String>> {
    let mut names = setup.prompts.to_vec();
    if names.is_empty() {
        for caption in setup.references.iter().filter_map(|r| r.caption.as_ref()) {
            if !caption.is_empty() && !names.contains(caption) {
                names.push(caption.clone());
            }
        }
    }
    if names.is_empty() || setup.references.is_empty() {
        return Err(Error::missing("references", "images and prompts or captions")
            .with_hint("Give prompts, or a NAME.txt beside each image, or a metadata.jsonl."));
    }
    Ok(names)
}

/// Prompts with their references.
fn prompts(setup: &Setup<'_>) -> Result<Vec<Prompt>> {
    let prompt = |name: String| {
        let own = |r: &&Reference| r.caption.as_deref().is_some_and(|c| key(c) == key(&name));
        let mut references: Vec<Reference> = setup.references.iter().filter(own).cloned().collect();
        if references.is_empty() {
            references = setup.references.to_vec();
        }
        Prompt { key: key(&name), name, references }
    };
    Ok(names(setup)?.into_iter().map(prompt).collect())
}

/// What the released grouping compares: CLIP's decoded tokens, so lower case and single spaces.
fn key(prompt: &str) -> String {
    prompt.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}
