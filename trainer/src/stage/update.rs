//! The generator's optimiser steps of an iteration, and its end.
use super::Stage;
use crate::Result;
use crate::machine::{Machine, State};
use crate::objective::{Learn, Objective};
use crate::train::Event;
use pentimento::exec::PlanId;

/// `grpo.updates` optimiser steps of an objective and its extra terms, then the average.
pub(crate) struct Update {
    learn: Learn,
    updates: usize,
}

impl Update {
    /// `objectives`: the objective, then terms whose gradients are added to its own before each optimiser step.
    pub fn begin(
        m: &mut Machine,
        s: &mut State,
        updates: usize,
        objectives: Vec<Box<dyn Objective>>,
    ) -> Result<Self> {
        let mut learn = Learn::new(objectives);
        learn.begin(m, s)?;
        Ok(Update { learn, updates })
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
        if self.learn.collect(m, s)? {
            s.metrics.gradient_norm = self.learn.apply(m, s, m.config.optim.rate)?;
            s.metrics.updates += 1;
        }
        if self.learn.updates() < self.updates {
            return Ok(s.part());
        }
        if let Some(ema) = &mut s.ema {
            ema.update(&s.values);
        }
        s.iteration += 1;
        s.metrics.seconds = m.clock.iteration();
        Ok(Event::Iteration(s.metrics.clone()))
    }
}
