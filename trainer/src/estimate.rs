//! What a training will take, before it takes anything: the training itself on an executor that counts and computes nothing.
//!
//! ```text
//! settings, files, limits of a device -> [a picture sheet, preparation, a warm step, an iteration, a look] on `Null` -> bytes, operations
//!                                            ^ again with less at once while that is more than the cap
//! ```
mod speed;

pub use speed::speed;

use crate::config::{AtOnce, Config};
use crate::recipe::Recipe;
use crate::train::{Event, Setup, Trainer};
use crate::{Error, Result};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::null::Null;
use pentimento_runtime::exec::{Kinds, Memory};
use pentimento_runtime::grad::Recompute;
use pentimento_runtime::pipeline::{Sampling, Text};
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
    /// Bytes of weights that cross the bus because they stay on the host ([`Config::stream`]), by the same parts.
    pub streamed: Work,
}

/// Bytes a second at which streamed weights are taken to come: what one core copies out of its page cache, which is less than PCIe 3 x16
/// carries (some 12 GB/s). An assumption, not measured on any card: a file that is not in memory comes as slowly as its disk.
pub const BUS: f64 = 8e9;

/// Something counted, by what is done: floating-point operations, or bytes.
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
    Run::new(caps, setup, config, Pace::Whole)?.all(u64::MAX).map(|run| run.estimate)
}

/// Settings with which a training stays within `cap` bytes, and what it takes then. Given up are, in this order and only where a phase
/// does not fit: values kept for the way back, images trained on at once, images sampled at once, images described at once. What all phases
/// hold together (inputs, adapters) can make one give up what another takes. Where all that is not enough, weights are streamed and
/// everything else begins anew: what crosses the bus does so once a pass, however many images the pass is for.
///
/// # Errors
/// As [`estimate`]; no way to stay within the cap: a sentence names the least that would do.
pub fn fit(caps: &Caps, setup: &Setup<'_>, config: &Config, cap: u64) -> Result<(Config, Estimate)> {
    let mut asked = config.clone();
    asked.recompute.get_or_insert(Recompute::Nothing);
    let (mut config, mut pace) = (asked.clone(), Pace::Once);
    loop {
        let run = Run::new(caps, setup, &config, pace)?.all(cap)?;
        let Some(over) = run.over else {
            match pace {
                Pace::Whole => return Ok((config, run.estimate)),
                Pace::Once => pace = Pace::Whole,
            }
            continue;
        };
        let times = halvings(&over.held, cap);
        // Weights on the device are there whatever else is given up.
        if over.held.leaves > cap || !Knobs::of(&config).give(&mut config, &over.phase, times) {
            if !config.stream {
                config = Config { stream: true, ..asked.clone() };
                continue;
            }
            let least = least(caps, setup, &config)?;
            return Err(Error::call("memory", format!("at least {}", megabytes(least)), megabytes(cap))
                .with_hint("Smaller images, or a quantised base, need less."));
        }
    }
}

/// Most bytes with everything given up. Where weights are smaller than a window, streaming them takes more.
fn least(caps: &Caps, setup: &Setup<'_>, config: &Config) -> Result<u64> {
    let most = |stream: bool| {
        let sparing = Config { stream, ..config.clone().sparing() };
        Ok(Run::new(caps, setup, &sparing, Pace::Once)?.all(u64::MAX)?.estimate.most())
    };
    Ok(most(true)?.min(most(false)?))
}

/// Whole megabytes, upwards.
pub fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// Gives up something that a phase takes, where a device ran out of memory in it; false where there is nothing left.
pub fn less(config: &mut Config, phase: &str) -> bool {
    Knobs::of(config).give(config, phase, 1) || !core::mem::replace(&mut config.stream, true)
}

/// What can be given up.
struct Knobs {
    /// Most images that a run has, whatever the settings allow: in training, of samples, of descriptions.
    most: [usize; 3],
}

/// Images that go through at once, by place in [`Knobs::most`].
const TRAIN: usize = 0;
const SAMPLE: usize = 1;
const DESCRIBE: usize = 2;

/// What a cap was exceeded with.
struct Over {
    /// The phase that needs the most room, which may have been an earlier one: all share one arena.
    phase: String,
    held: Kinds,
}

impl Knobs {
    fn of(config: &Config) -> Self {
        let images = config.images();
        let trains = config.warm.batch.max(config.pathwise.batch).max(config.optim.micro_batch);
        let trains = trains.min(images.max(config.warm.batch));
        Knobs { most: [trains, images.max(SHEET), images.max(SHEET)] }
    }

    /// Gives up something: what the phase takes, images halved so often, else what others hold beside it; false where there is nothing
    /// left.
    fn give(&self, config: &mut Config, phase: &str, times: u32) -> bool {
        let own = match phase {
            "warm start" | "update" => Some(TRAIN),
            "iteration" | "look" | "look at the base model" | "look at the start" | "epoch" | DRAWING => {
                Some(SAMPLE)
            }
            OPENING | PREPARING | "describe" | "ask" => Some(DESCRIBE),
            _ => None,
        };
        if own == Some(TRAIN) && again(config) {
            return true;
        }
        if own.is_some_and(|knob| self.halve(config, knob, times)) || again(config) {
            return true;
        }
        [TRAIN, SAMPLE, DESCRIBE].into_iter().any(|knob| self.halve(config, knob, 1))
    }

    /// Halves a number of images so often; false where it is 1.
    fn halve(&self, config: &mut Config, knob: usize, times: u32) -> bool {
        let AtOnce { train, sample, describe } = &mut config.at_once;
        let now = match knob {
            TRAIN => train,
            SAMPLE => sample,
            _ => describe,
        };
        let before = (*now).min(self.most[knob]);
        *now = (0..times).fold(before, |n, _| n.div_ceil(2));
        before > 1
    }
}

/// Computes more again on the way back; false where all is.
fn again(config: &mut Config) -> bool {
    let more = match config.recompute {
        Some(Recompute::Nothing) => Recompute::Most,
        // Without a word it may be all by the pictures' size.
        None | Some(Recompute::Most) => Recompute::All,
        Some(Recompute::All) => return false,
    };
    config.recompute = Some(more);
    true
}

/// How often a number of images has to be halved at least. Half as many take half of what is not weights or more, so no run in between
/// could have fitted.
fn halvings(held: &Kinds, cap: u64) -> u32 {
    let fixed = held.leaves;
    let most = usize::BITS;
    (1..most).find(|&times| fixed + ((held.total() - fixed) >> times) <= cap).unwrap_or(most)
}

/// How much of a training is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// A warm step, an iteration, a look: their operations can be counted.
    Whole,
    /// Of what these repeat only the first, where settings say how often: it holds as much as the others.
    Once,
}

/// Parts of a run before the training's own phases.
const OPENING: &str = "opening";
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
    /// Where a cap was first exceeded.
    over: Option<Over>,
    /// The largest arena so far, and the phase that it came with.
    arena: (u64, String),
    /// Operations and streamed bytes before the phase in progress.
    before: [f64; 2],
}

impl Run {
    fn new(caps: &Caps, setup: &Setup<'_>, config: &Config, pace: Pace) -> Result<Self> {
        let mut short = config.clone();
        let warm = config.warm.steps;
        short.warm.steps = warm.min(1);
        // Texels of a CPU's driver go when the arena grows, and come back with the next iteration.
        short.iterations = 1 + usize::from(caps.class == Class::Software);
        if short.recipe == Recipe::Released {
            // The judge's turn, and the generator's.
            (short.released.d_times, short.iterations) = (2, 2 * short.iterations);
        }
        // A window that comes late has all runs: groups before they part, and images.
        let rollout = &mut short.rollout;
        if pace == Pace::Once {
            rollout.steps = rollout.steps.min(rollout.window + 1);
            rollout.window_start = None;
            short.warm.batch = short.warm.batch.min(config.at_once.train);
            short.pathwise.images = short.pathwise.images.min(short.pathwise.batch.min(config.at_once.train));
        }
        rollout.window_start.get_or_insert(rollout.steps - rollout.window.min(rollout.steps));
        short.head.warm = config.head.steps.max(usize::from(config.head.warm > 0));
        let trainer = Trainer::new(Box::new(Null::new(caps.clone())), setup, short)?;
        Ok(Run {
            trainer,
            estimate: Estimate::default(),
            warm,
            over: None,
            arena: Default::default(),
            before: [0.0; 2],
        })
    }
    /// Runs to the end, or until more than `cap` is held.
    fn all(mut self, cap: u64) -> Result<Self> {
        self.note(OPENING.into(), cap);
        let texts = self.trainer.encode(&["", ""], &mut || true)?;
        [self.estimate.work.prepare, self.estimate.streamed.prepare] = self.spent();
        if self.over.is_none() {
            self.draw(&texts, cap)?;
        }
        while self.over.is_none() {
            let event = self.trainer.step()?;
            let phase = self.trainer.phase().unwrap_or(PREPARING).to_string();
            self.note(phase, cap);
            self.count(&event);
            if matches!(event, Event::Done) {
                // Beside what the training holds, in the middle of it as well.
                self.draw(&texts, cap)?;
                break;
            }
        }
        self.estimate.state =
            self.trainer.saved().map_or(Ok(0), |_| self.trainer.save().map(|s| s.len() as u64))?;
        Ok(self)
    }
    /// A picture sheet, as the command line draws one, of the training's size.
    fn draw(&mut self, texts: &[Text], cap: u64) -> Result<()> {
        let (width, height) = self.trainer.machine.pixels;
        let rows = self.trainer.config().at_once.sample.min(SHEET);
        let how = Sampling { steps: 1, guidance: 4.5, width, height };
        let pipeline = self.trainer.pipeline();
        let jobs: Vec<_> = (0..rows as u64).map(|seed| (&texts[0], seed)).collect();
        pipeline.generate(&jobs, &texts[1], &how, &mut |_, _| true)?;
        self.spent(); // pictures are no part of the training
        self.note(DRAWING.into(), cap);
        Ok(())
    }
    /// Operations and streamed bytes since the last call.
    fn spent(&mut self) -> [f64; 2] {
        let exec = &self.trainer.pipeline().exec;
        let now = [exec.work() as f64, exec.streamed() as f64];
        let before = core::mem::replace(&mut self.before, now);
        [now[0] - before[0], now[1] - before[1]]
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
        if now.arena > self.arena.0 {
            self.arena = (now.arena, phase.clone());
        }
        if peak.total() > cap {
            self.over.get_or_insert(Over { phase: self.arena.1.clone(), held: peak });
        }
        match e.phases.iter_mut().find(|p| p.0 == phase) {
            Some((_, most)) => *most = now.total().max(*most),
            None => e.phases.push((phase, now.total())),
        }
    }
    /// Operations and streamed bytes, phase by phase.
    fn count(&mut self, event: &Event) {
        if matches!(event, Event::Working | Event::Part(..) | Event::Looking(..) | Event::Done) {
            return;
        }
        let warm = self.warm as f64;
        let spent = self.spent();
        let Estimate { work, streamed, .. } = &mut self.estimate;
        for (of, spent) in [work, streamed].into_iter().zip(spent) {
            match event {
                Event::Encoded(..) => of.prepare += spent,
                Event::Warm(..) => of.warm = spent * warm,
                Event::Iteration(_) => of.iteration = spent,
                Event::Watch(_) => of.look = spent,
                Event::Working | Event::Part(..) | Event::Looking(..) | Event::Wanted | Event::Done => {}
            }
        }
    }
}
