//! What a training will take, before it takes anything: the training itself on an executor that counts and computes nothing.
//!
//! ```text
//! settings, files, limits of a device -> [a picture sheet, preparation, a warm step, an iteration, a look] on `Null` -> bytes, operations
//!                                            ^ again with less at once while that is more than the cap
//! ```
mod speed;

pub use speed::speed;

use crate::config::Config;
use crate::recipe::Recipe;
use crate::train::{Event, Setup, Trainer};
use crate::{Error, Result};
use pentimento::caps::Caps;
use pentimento::exec::null::Null;
use pentimento::exec::{Kinds, Memory};
use pentimento::grad::Recompute;
use pentimento::pipeline::Sampling;
use pentimento_wgsl::Class;
use std::collections::BTreeMap;

/// What a training takes on a device, as its own allocations add up; a driver adds what it needs for itself.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    /// Most bytes held so far when a phase ended, in the order of their first beginning.
    pub phases: Vec<(String, u64)>,
    /// Bytes of the weights of each component when they were most.
    pub components: BTreeMap<String, u64>,
    /// What was held when it was most.
    pub peak: Kinds,
    /// The phase of that moment.
    pub when: String,
    /// Bytes on the host: adapter, averages, optimiser, reward head, earlier images; the size of a saved state.
    pub state: u64,
    /// Floating-point operations of preparation, of the whole warm start, of an iteration and of a look.
    pub work: Work,
}

/// Floating-point operations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Prompts and references.
    pub prepare: f64,
    /// All steps of the warm start.
    pub warm: f64,
    /// One iteration.
    pub iteration: f64,
    /// One look at fixed pictures; 0 without looks.
    pub look: f64,
}

impl Estimate {
    /// Most bytes on the device.
    pub fn most(&self) -> u64 {
        self.peak.total()
    }
}

/// What a training with these settings takes on a device of these limits. Nothing is allocated on any, and no weights are read.
///
/// # Errors
/// Settings or files that cannot be used.
pub fn estimate(caps: &Caps, setup: &Setup<'_>, config: &Config) -> Result<Estimate> {
    Run::new(caps, setup, config)?.all(u64::MAX).map(|run| run.estimate)
}

/// Settings with which a training stays within `cap` bytes, and what it takes then. Given up are, in this order and only where a phase
/// does not fit: values kept for the way back, images trained on at once, images sampled at once, images described at once.
///
/// # Errors
/// As [`estimate`]; no way to stay within the cap: a sentence names the least that would do.
pub fn fit(caps: &Caps, setup: &Setup<'_>, config: &Config, cap: u64) -> Result<(Config, Estimate)> {
    let mut config = config.clone();
    config.recompute.get_or_insert(Recompute::Nothing);
    loop {
        let run = Run::new(caps, setup, &config)?.all(cap)?;
        let Some(phase) = run.over else { return Ok((config, run.estimate)) };
        if !less(&mut config, &phase) {
            let least = least(caps, setup, &config)?;
            return Err(Error::bad(
                "memory",
                format!("at least {}", megabytes(least.most())),
                megabytes(cap),
            )
            .with_hint("Smaller images, or a quantised base, need less."));
        }
    }
}

/// The estimate with everything given up.
fn least(caps: &Caps, setup: &Setup<'_>, config: &Config) -> Result<Estimate> {
    estimate(caps, setup, &config.clone().sparing())
}

/// Whole megabytes, upwards.
pub fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// Gives up something that a phase takes; false where there is nothing left.
pub fn less(config: &mut Config, phase: &str) -> bool {
    let images = config.images();
    let (warm, pathwise, micro) = (config.warm.batch, config.pathwise.batch, config.optim.micro_batch);
    let at_once = &mut config.at_once;
    let trains = warm.max(pathwise).max(micro).min(images.max(warm));
    let halve = |now: &mut usize, of: usize| {
        let before = (*now).min(of);
        *now = before.div_ceil(2);
        before > 1
    };
    match phase {
        "warm start" | "update" if config.recompute != Some(Recompute::All) => {
            let more = match config.recompute {
                None | Some(Recompute::Nothing) => Recompute::Most,
                Some(Recompute::Most | Recompute::All) => Recompute::All,
            };
            config.recompute = Some(more);
            true
        }
        "warm start" | "update" => halve(&mut at_once.train, trains),
        "iteration" | "look" | "look at the base model" | "look at the start" | "epoch" | DRAWING => {
            halve(&mut at_once.sample, images.max(SHEET))
        }
        PREPARING | "describe" | "ask" => halve(&mut at_once.describe, images.max(SHEET)),
        _ => false,
    }
}

/// The phase in which the command line draws its pictures.
pub const DRAWING: &str = "drawing";
/// The phase in which prompts and references are prepared.
pub const PREPARING: &str = "preparing";
/// Pictures that the command line draws before and after, at once.
pub const SHEET: usize = 8;

/// A training on the counting executor.
struct Run {
    trainer: Trainer,
    estimate: Estimate,
    /// Steps of the warm start.
    warm: usize,
    /// The phase in which a cap was exceeded.
    over: Option<String>,
    /// Operations before the phase in progress.
    before: f64,
}

impl Run {
    fn new(caps: &Caps, setup: &Setup<'_>, config: &Config) -> Result<Self> {
        let mut short = config.clone();
        let warm = config.warm.steps;
        short.warm.steps = warm.min(1);
        // Texels of a CPU's driver go when the arena grows, and come back with the next iteration.
        short.iterations = 1 + usize::from(caps.class == Class::Software);
        if let Recipe::Released(schedule) = &mut short.recipe {
            // The judge's turn, and the generator's.
            (schedule.d_times, short.iterations) = (2, 2 * short.iterations);
        }
        // A window that comes late has all runs: groups before they part, and images.
        let rollout = &mut short.rollout;
        rollout.window_start.get_or_insert(rollout.steps - rollout.window.min(rollout.steps));
        short.head.warm = config.head.steps.max(usize::from(config.head.warm > 0));
        let trainer = Trainer::new(Box::new(Null::new(caps.clone())), setup, short)?;
        Ok(Run { trainer, estimate: Estimate::default(), warm, over: None, before: 0.0 })
    }
    /// Runs to the end, or until more than `cap` is held.
    fn all(mut self, cap: u64) -> Result<Self> {
        self.draw()?;
        self.note(DRAWING.into(), cap);
        while self.over.is_none() {
            let event = self.trainer.step()?;
            let phase = self.trainer.phase().unwrap_or(PREPARING).to_string();
            self.note(phase, cap);
            self.count(&event);
            if matches!(event, Event::Done) {
                break;
            }
        }
        self.estimate.state =
            self.trainer.saved().map_or(Ok(0), |_| self.trainer.save().map(|s| s.len() as u64))?;
        Ok(self)
    }
    /// A picture sheet, as the command line draws one.
    fn draw(&mut self) -> Result<()> {
        let rows = self.trainer.config().at_once.sample.min(SHEET);
        let pipeline = self.trainer.pipeline();
        let native = pipeline.native_size();
        let how = Sampling { steps: 1, guidance: 4.5, width: native, height: native };
        let texts = pipeline.encode_while(&["", ""], &mut || true)?;
        let jobs: Vec<_> = (0..rows as u64).map(|seed| (&texts[0], seed)).collect();
        pipeline.generate(&jobs, &texts[1], &how, &mut |_, _| true).map(drop)
    }
    fn note(&mut self, phase: String, cap: u64) {
        let e = &mut self.estimate;
        let exec = &self.trainer.pipeline().exec;
        let Memory { now, peak } = exec.memory();
        for (name, bytes) in exec.components() {
            let most = e.components.entry(name).or_default();
            *most = bytes.max(*most);
        }
        if peak.total() > e.peak.total() {
            (e.peak, e.when) = (peak, phase.clone());
        }
        if peak.total() > cap {
            self.over.get_or_insert(phase.clone());
        }
        match e.phases.iter_mut().find(|p| p.0 == phase) {
            Some((_, most)) => *most = now.total().max(*most),
            None => e.phases.push((phase, now.total())),
        }
    }
    /// Operations, phase by phase.
    fn count(&mut self, event: &Event) {
        let now = self.trainer.flops();
        let work = &mut self.estimate.work;
        let spent = now - self.before;
        match event {
            Event::Encoded(..) => work.prepare += spent,
            Event::Warm(..) => work.warm = spent * self.warm as f64,
            Event::Iteration(_) => work.iteration = spent,
            Event::Watch(_) => work.look = spent,
            Event::Working | Event::Part(..) | Event::Done => return,
        }
        self.before = now;
    }
}
