//! A training that outlives its process.
use super::Trainer;
use super::state::Saved;
use crate::{Error, Result};
use pentimento_runtime::exec::Memory;

/// How far a saved training is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Steps of the warm start.
    pub warm: usize,
    /// Complete iterations.
    pub iteration: usize,
    /// Iteration of the last look at fixed pictures; `None` before the first.
    pub looked: Option<usize>,
    /// Seconds spent in [`Trainer::step`].
    pub seconds: f64,
}

impl Saved {
    fn progress(&self) -> Progress {
        let (s, (seconds, _)) = (&self.state, self.clock);
        let looked = s.watch.verdict.looked();
        Progress { warm: s.warmed.done, iteration: s.iteration, looked, seconds }
    }
}

impl Trainer {
    /// What the device holds, and held when it was most.
    pub fn memory(&self) -> Memory {
        self.machine.pipeline.exec.memory()
    }
    /// What is being done, by the recipe's names; `None` while prompts and references are prepared.
    pub fn phase(&self) -> Option<&'static str> {
        Some(self.phase).filter(|phase| !phase.is_empty())
    }
    /// How far [`Trainer::save`] would be; `None` while prompts and references are prepared.
    pub fn saved(&self) -> Option<Progress> {
        self.kept.as_ref().map(Saved::progress)
    }

    /// The training as the bytes of a safetensors file, from which [`Trainer::resume`] goes on to the same bits on the same adapter and
    /// driver: adapter, averages, optimisers, reward head, earlier images, random streams, and names of the files and settings it
    /// belongs to. It is that of the last moment between two stages, or two steps of the warm start, at any time, after an error, too.
    ///
    /// # Errors
    /// Nothing to save yet (see [`Trainer::saved`]); a released schedule with a script that is not its own.
    pub fn save(&self) -> Result<Vec<u8>> {
        let saved = self.kept.as_ref().ok_or_else(|| Error::missing("training", "anything to save yet"))?;
        if self.machine.bench.is_some() && saved.script.is_none() {
            return Err(Error::call("script", "the schedule's own randomness", "a script of the host's"));
        }
        saved.write(&self.machine.identity)
    }

    /// Goes on with a training that [`Trainer::save`] wrote, once prompts and references are prepared anew. `label` names the bytes in
    /// errors.
    ///
    /// # Errors
    /// A training that has begun; bytes that are damaged, or of a training with other files or settings than this one: a sentence names
    /// the difference. More iterations are no difference, nor is recomputation.
    pub fn resume(&mut self, label: &str, bytes: &[u8]) -> Result<Progress> {
        if self.machine.clock.now() > 0.0 {
            return Err(Error::call("training", "one that has not begun", "one that has"));
        }
        let empty = self.moment(String::new());
        let saved = Saved::read(label, bytes, &self.machine.identity, empty)?;
        let made = self
            .course
            .finds(&saved.phase)
            .ok_or_else(|| Error::bad(label, "a phase of this recipe", format!("`{}`", saved.phase)))?;
        saved.check(label, &self.machine, made)?;
        Ok(self.resumed.insert(saved).progress())
    }

    /// Moments between two steps of the warm start are kept for [`Trainer::save`] at least so many seconds apart, 2 if nothing is said:
    /// each costs a copy of adapter and optimiser.
    pub fn keep_every(&mut self, seconds: f64) {
        self.rest = seconds;
    }

    /// This moment.
    fn moment(&mut self, phase: String) -> Saved {
        let m = &mut self.machine;
        let reward = m.learned().cloned();
        let script = m.bench.as_mut().and_then(|bench| bench.script.seeded().cloned());
        let clock = (m.clock.now(), m.clock.started);
        Saved { state: self.state.clone(), reward, script, phase, clock }
    }
    /// Remembers this moment, to be saved.
    pub(super) fn keep(&mut self) {
        self.kept = Some(self.moment(self.phase.into()));
        self.kept_at = self.machine.clock.now();
    }
    /// Everything is prepared: takes up the run to go on with, if there is one.
    pub(super) fn go_on(&mut self) -> Result<()> {
        let Some(saved) = self.resumed.take() else { return Ok(()) };
        let m = &mut self.machine;
        saved.reward.map_or(Ok(()), |learned| m.learn_from(learned))?;
        if let (Some(bench), Some(script)) = (&mut m.bench, saved.script) {
            bench.script = Box::new(script);
        }
        self.state = saved.state;
        self.state.warmed.began += m.clock.go_on(saved.clock);
        self.course.go(&saved.phase);
        m.set_adapter(&self.state.values)
    }
}
