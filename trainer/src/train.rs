//! References in, adapter out, as a state machine. Every [`Trainer::step`] makes at most one GPU submit, or reads what has
//! been submitted, so a host may pause between any two calls, for as long as it likes. The work is in [`crate::stage`]s,
//! their order in a [`crate::recipe`].
mod draw;
pub(crate) mod identity;
mod resume;
mod spread;
pub(crate) mod state;

use crate::adapter::Adapter;
use crate::archive::kept;
use crate::config::Config;
use crate::machine::Machine;
use crate::recipe::adversarial::Adversarial;
use crate::recipe::released::{self, Released};
use crate::recipe::supervised::Supervised;
use crate::recipe::{Course, Recipe};
use crate::references::Reference;
use crate::reward::host::HostReward;
use crate::spread::errand::Errand;
use crate::stage::Stage;
use crate::stage::prepare::Known;
use crate::stage::watch::{Look, Looked};
use crate::{Error, Result};
pub use draw::Glimpse;
use identity::Identity;
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::pipeline::{Pipeline, Text};
pub use resume::Progress;
pub use spread::Wanted;
use state::{Saved, State};
use std::collections::BTreeMap;
use std::path::Path;

/// Seconds between two moments that are kept within a stage: what they share is copied when it changes next.
const REST: f64 = 2.0;

/// What one iteration did.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Counted from 1.
    pub iteration: usize,
    /// Mean reward of the generated images.
    pub reward_generated: f32,
    /// Mean reward of the references; 0 with a reward of the host.
    pub reward_reference: f32,
    /// Hinge loss of the last head step.
    pub head_loss: f32,
    /// Part of class logits on the right side before the last head step.
    pub head_accuracy: f32,
    /// Standard deviation of rewards within groups.
    pub reward_spread: f32,
    /// Root mean square of the advantages.
    pub advantage_spread: f32,
    /// Part of ratios outside the clip range.
    pub clip_fraction: f32,
    /// Mean squared distance from the base model's steps, with `grpo.beta` above 0 (not kept in a saved state: one update measures it).
    pub kl: Option<f32>,
    /// Steps the reward made.
    pub head_steps: usize,
    /// Optimiser steps the generator made.
    pub updates: usize,
    /// How well the gradients of two halves of the images agree, a cosine, in the last optimiser step; `None` where all went
    /// through in one run.
    pub agreement: Option<f32>,
    /// Learning rate of the last optimiser step.
    pub rate: f32,
    /// Gradient norm before clipping, of the last optimiser step.
    pub gradient_norm: f32,
    /// Mean reward of the images that the pathwise gradient went through.
    pub reward_pathwise: f32,
    /// Mean squared distance from the warm start's velocities where noise is high.
    pub anchor_loss: f32,
    /// Loss of the last supervised step.
    pub supervised_loss: f32,
    /// Mean squared distance from the base model's velocities on its own images.
    pub prior_loss: f32,
    /// Seconds spent in the steps of the whole iteration.
    pub seconds: f64,
}
kept!(Metrics {
    iteration,
    reward_generated,
    reward_reference,
    head_loss,
    head_accuracy,
    reward_spread,
    advantage_spread,
    clip_fraction,
    head_steps,
    updates,
    agreement,
    rate,
    gradient_norm,
    reward_pathwise,
    anchor_loss,
    supervised_loss,
    prior_loss,
    seconds,
});

/// What a step brought.
#[derive(Clone, Debug)]
pub enum Event {
    /// Work was submitted; nothing to tell.
    Working,
    /// Preparation, done and all: prompts encoded, references encoded and described.
    Encoded(usize, usize),
    /// A warm-start step: its number from 1, how many there are, its loss.
    Warm(usize, usize, f32),
    /// A part of an iteration: done and all, in model runs.
    Part(usize, usize),
    /// An iteration is complete.
    Iteration(Metrics),
    /// A part of a look: done and all, in runs.
    Looking(usize, usize),
    /// A look at fixed pictures, see [`crate::stage::watch`].
    Watch(Look),
    /// [`Trainer::wanted`] is to be made elsewhere and given; nothing goes on here until then.
    Wanted,
    /// All iterations are complete, or the piece for another trainer is.
    Done,
}

/// What a trainer is made from.
pub struct Setup<'a> {
    /// A diffusers folder or a single file.
    pub model: &'a Path,
    /// What a single file lacks, see `ModelFolder::open_with`.
    pub config: Option<&'a Path>,
    /// A `Dinov2Model` folder; by default `reward` inside the model folder.
    pub reward: Option<&'a Path>,
    /// References at the training resolution.
    pub references: &'a [Reference],
    /// Prompts of the rollouts; empty: the references' captions.
    pub prompts: &'a [String],
    /// Where encoded prompts are kept between runs, if anywhere; see [`crate::texts`].
    pub text_cache: Option<&'a Path>,
}

/// A personalisation in progress.
pub struct Trainer {
    pub(crate) machine: Machine,
    pub(crate) state: State,
    course: Box<dyn Course>,
    /// In progress; none at the beginning and at the end.
    stage: Option<Box<dyn Stage>>,
    running: Option<PlanId>,
    /// Prompts of drawings, encoded.
    texts: BTreeMap<String, Text>,
    /// News of a run that a drawing had to finish.
    held: Option<Event>,
    /// Whether the device holds the adapter of a drawing.
    glimpsing: bool,
    /// Why training cannot go on.
    failed: Option<Error>,
    /// A piece for another trainer, in progress or to come; whether this one works for another; what it made.
    errand: Option<Errand>,
    serves: bool,
    made: Option<Vec<u8>>,
    /// The stage in progress, by its recipe's names.
    phase: &'static str,
    /// The last moment that another process could go on from.
    kept: Option<Saved>,
    /// When that was, by the clock of this run, and the least time to the next one within a stage.
    kept_at: f64,
    rest: f64,
    /// The run to go on with, once everything is prepared.
    resumed: Option<Saved>,
}

impl Trainer {
    /// Opens the model and makes the first plans. Prompts and references are encoded by the first steps.
    ///
    /// # Errors
    /// Settings, files or a device that cannot be used; references without captions where no prompts are given.
    pub fn new(exec: Box<dyn Executor>, setup: &Setup<'_>, config: Config) -> Result<Self> {
        Trainer::open(exec, setup, config, None)
    }
    /// With a reward of the host's own in place of the head, for recipes that need no gradient of it. No reward network is
    /// opened; without a warm start, references may be missing, too.
    ///
    /// # Errors
    /// As [`Trainer::new`]; a recipe that follows the head's gradient or trains its own judge.
    pub fn with_reward(
        exec: Box<dyn Executor>,
        setup: &Setup<'_>,
        config: Config,
        reward: HostReward,
    ) -> Result<Self> {
        if !matches!(config.recipe, Recipe::Grpo | Recipe::FlowGrpo) {
            let expected = "grpo or flow-grpo, which need only a reward's value";
            return Err(Error::call(
                "recipe with the host's reward",
                expected,
                format!("{:?}", config.recipe),
            ));
        }
        if config.head.alignment > 0.0 {
            let found = config.head.alignment.to_string();
            return Err(Error::call("head.alignment with the host's reward", "0", found));
        }
        Trainer::open(exec, setup, config, Some(reward))
    }
    fn open(
        exec: Box<dyn Executor>,
        setup: &Setup<'_>,
        config: Config,
        reward: Option<HostReward>,
    ) -> Result<Self> {
        let recipe = config.recipe;
        let free = reward.is_some() && config.warm.steps == 0 && !setup.prompts.is_empty();
        let known = |(width, _): (usize, usize)| match recipe {
            Recipe::Released => released::known(setup),
            _ if free && setup.references.is_empty() => {
                Ok(Known::texts(setup, setup.prompts.to_vec(), Vec::new()))
            }
            _ => Known::new(setup, width),
        };
        let (mut machine, mut state) = Machine::open(exec, setup, config.clone(), known)?;
        machine.host = reward;
        let course: Box<dyn Course> = match recipe {
            Recipe::Released => Box::new(Released::open(&mut machine, &mut state, setup)?),
            Recipe::Supervised => Box::new(Supervised::default()),
            _ => Box::new(Adversarial::open(&mut machine)?),
        };
        machine.identity = Identity::new(&machine, setup, &config)?;
        Ok(Trainer {
            machine,
            state,
            course,
            stage: None,
            running: None,
            texts: BTreeMap::new(),
            held: None,
            glimpsing: false,
            failed: None,
            errand: None,
            serves: false,
            made: None,
            phase: "",
            kept: None,
            kept_at: 0.0,
            rest: REST,
            resumed: None,
        })
    }

    /// Ends after about `seconds` spent in [`Trainer::step`] from now on instead of after the configured iterations: 40 % for the warm start.
    /// Set before a first step that resumes a run, it counts what that run has spent, too.
    pub fn set_deadline(&mut self, seconds: f64) {
        self.machine.clock.deadline = Some((self.machine.clock.now(), seconds));
    }
    /// The settings in use.
    pub fn config(&self) -> &Config {
        &self.machine.config
    }
    /// What a run that goes on from this one must have in common with it: settings, and names and hashes of the model, the reward's network,
    /// prompts and references, as an object of JSON.
    pub fn identity(&self) -> String {
        self.machine.identity.text()
    }
    /// The model. Between steps it may be used to draw, too; a run in progress begins anew then, which [`Trainer::draw`] avoids.
    pub fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.machine.pipeline
    }

    /// Does the next piece of work: submits it, or reads what has been submitted and decides what follows.
    ///
    /// # Errors
    /// The device failed, or numbers that are none appeared ([`Error::NotFinite`]): from then on every step ends in the same
    /// error. The adapter stays readable: the best one seen, or that of the last complete iteration.
    pub fn step(&mut self) -> Result<Event> {
        self.machine.clock.resume();
        let event = self.proceed();
        self.machine.clock.pause();
        event
    }
    fn proceed(&mut self) -> Result<Event> {
        if let Some(event) = self.held.take() {
            return Ok(event);
        }
        self.put_away()?;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.advance().inspect_err(|error| {
            if matches!(error, Error::NotFinite { .. }) {
                self.state.watch.verdict.diverge();
            }
            (self.failed, self.running) = (Some(error.clone()), None);
        })
    }
    fn advance(&mut self) -> Result<Event> {
        let (m, s) = (&mut self.machine, &mut self.state);
        if let (Some(plan), Some(stage)) = (self.running, &mut self.stage) {
            if !m.pipeline.exec.advance(plan)? {
                return Ok(Event::Working);
            }
            self.running = None;
            let event = stage.collect(m, s)?;
            if stage.rests() && m.clock.now() - self.kept_at >= self.rest {
                self.keep();
            }
            return Ok(event);
        }
        loop {
            let (m, s) = (&mut self.machine, &mut self.state);
            if let (Some(stage), Some(away)) = (&mut self.stage, &mut m.away) {
                let Some(made) = away.complete() else { return Ok(Event::Wanted) };
                m.clock.waited(away.since.elapsed().as_secs_f64());
                m.away = None;
                return stage.join(m, s, made);
            }
            if let Some(stage) = &mut self.stage
                && let Some(plan) = stage.launch(m, s)?
            {
                m.pipeline.exec.rewind(plan);
                self.running = Some(plan);
                return Ok(Event::Working);
            }
            self.stage = None;
            if let Some(phase) = self.course.phase() {
                if let Some(errand) = &mut self.errand {
                    self.stage = errand.next(m, s)?;
                    if self.stage.is_none() {
                        self.made = Some(errand.made(m, s)?);
                        self.errand = None;
                    }
                }
                if self.stage.is_some() {
                    continue;
                }
                if self.serves {
                    return Ok(Event::Done);
                }
                self.go_on()?;
                self.phase = self.course.phase().unwrap_or(phase);
                self.keep();
            }
            self.stage = self.course.next(&mut self.machine, &mut self.state)?;
            if self.stage.is_none() {
                return Ok(Event::Done);
            }
        }
    }

    /// The adapter as it would be saved now: the averaged one, or the best one that was seen if the last look found the
    /// averaged one worse; the current one before the first iteration.
    ///
    /// # Errors
    /// Factors that do not fit (never, for a trainer's own).
    pub fn adapter(&self) -> Result<Adapter> {
        self.machine.adapter(self.state.kept())
    }
    /// The averaged adapter, whatever looks have shown.
    ///
    /// # Errors
    /// As [`Trainer::adapter`].
    pub fn average(&self) -> Result<Adapter> {
        self.machine.adapter(self.state.average())
    }
    /// Which adapter [`Trainer::adapter`] gives and why, a sentence; `None` before a first look.
    pub fn verdict(&self) -> Option<String> {
        self.state.watch.verdict.sentence(self.state.iteration)
    }
    /// The pictures of the last look, or those of the base model it is compared with, once.
    pub fn take_looked(&mut self) -> Option<Looked> {
        self.machine.looked.take()
    }
    /// Makes [`Trainer::pipeline`] draw with the adapter that would be saved (`true`) or with the one in training.
    ///
    /// # Errors
    /// The device failed.
    pub fn show_average(&mut self, average: bool) -> Result<()> {
        self.machine.set_adapter(if average { self.state.kept() } else { &self.state.values })
    }
}
