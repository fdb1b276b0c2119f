//! The generator's optimiser steps of an iteration, and its end.
use super::Stage;
use crate::machine::Machine;
use crate::objective::{Learn, Objective, Outputs};
use crate::spread::{Away, Before, Made};
use crate::train::Event;
use crate::train::state::State;
use crate::{Error, Result};
use pentimento_runtime::exec::PlanId;
use std::collections::BTreeMap;

/// `grpo.updates` optimiser steps of an objective and its extra terms, then the average.
pub(crate) struct Update {
    learn: Learn,
    updates: usize,
    before: Before,
}

/// Decay of the running mean of agreement.
const MEMORY: f32 = 0.9;
/// Least part of the wanted agreement that is believed: chance makes it negative, too.
const LEAST: f32 = 0.04;

impl Update {
    /// `objectives`: the objective, then terms whose gradients are added to its own before each optimiser step.
    pub fn begin(
        m: &mut Machine,
        s: &mut State,
        updates: usize,
        objectives: Vec<Box<dyn Objective>>,
    ) -> Result<Self> {
        let (mut learn, before) = (Learn::new(objectives), Before::new(s));
        learn.begin(m, s)?;
        let update = Update { learn, updates, before };
        update.ask(m, s)?;
        Ok(update)
    }
    /// Asks others for the next optimiser step's gradients, where they make them.
    fn ask(&self, m: &mut Machine, s: &State) -> Result<()> {
        if m.spread > 0 && self.learn.updates() < self.updates {
            let plan = self.learn.plan(m);
            m.away = Some(Away::gradients(m, s, self.learn.updates(), &self.before, plan)?);
        }
        Ok(())
    }
    /// Gradients are complete: makes the optimiser step, and after the last one ends the iteration.
    fn step(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let rate = self.rate(m, s);
        s.metrics.gradient_norm = self.learn.apply(m, s, rate)?;
        s.metrics.updates += 1;
        if self.learn.updates() < self.updates {
            self.ask(m, s)?;
            return Ok(s.part());
        }
        if let Some(ema) = &mut s.ema {
            ema.update(&s.values);
        }
        s.iteration += 1;
        s.metrics.seconds = m.clock.iteration();
        Ok(Event::Iteration(s.metrics.clone()))
    }

    /// The learning rate that the gradients are worth, see [`crate::optim::Settings::agreement`].
    fn rate(&self, m: &Machine, s: &mut State) -> f32 {
        s.metrics.agreement = self.learn.agreement();
        if let Some(now) = s.metrics.agreement {
            let mean = s.agreement.get_or_insert(now);
            *mean += (now - *mean) * (1.0 - MEMORY);
        }
        let wanted = m.config.optim.agreement;
        let share =
            s.agreement.filter(|_| wanted > 0.0).map_or(1.0, |mean| (mean / wanted).clamp(LEAST, 1.0));
        s.metrics.rate = m.config.optim.rate * share.sqrt();
        s.metrics.rate
    }
}

impl Stage for Update {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if self.learn.updates() == self.updates {
            return Ok(None);
        }
        self.learn.launch(m, s).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        if self.learn.collect(m, s)? { self.step(m, s) } else { Ok(s.part()) }
    }
    fn join(&mut self, m: &mut Machine, s: &mut State, made: Vec<Made>) -> Result<Event> {
        let all = made.into_iter().flat_map(|made| made.which.into_iter().zip(made.runs));
        let mut all: BTreeMap<usize, Outputs> = all.collect();
        while let Some((run, _)) = self.learn.turn(m) {
            self.learn.deal(m, s)?;
            let gave = all.remove(&run);
            let gave = gave.ok_or_else(|| Error::missing("pieces", format!("training run {run}")))?;
            if self.learn.take(m, s, gave)? {
                break;
            }
            s.part();
        }
        self.step(m, s)
    }
}
