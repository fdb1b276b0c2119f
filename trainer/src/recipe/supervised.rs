//! Supervised fine-tuning, the plain alternative to the adversarial recipes: the warm start's loss throughout, and no reward.
//!
//! ```text
//! references -> latents -> warm start -> iterations of ten steps: flow matching + prior preservation -> AdamW
//!                           ^ the base model's own images, drawn once
//! ```
use super::Course;
use crate::Result;
use crate::machine::Machine;
use crate::objective::{Objective, flow, prior::Prior};
use crate::stage::Stage;
use crate::stage::base::Base;
use crate::stage::prepare::{Latents, Texts};
use crate::stage::update::Update;
use crate::stage::warm::Warm;
use crate::train::state::{Finds, State};

/// Optimiser steps in an iteration.
const STEPS: usize = 10;

/// What comes next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Texts,
    Latents,
    Base,
    Warm,
    Restart,
    Iteration,
}

/// What a saved state calls them.
const PHASES: [(Next, &str); 3] =
    [(Next::Warm, "warm start"), (Next::Restart, "restart"), (Next::Iteration, "iteration")];

/// The course of supervised fine-tuning.
#[derive(Default)]
pub(crate) struct Supervised {
    next: Next,
}

impl Supervised {
    fn objectives(m: &Machine) -> Vec<Box<dyn Objective>> {
        let mut all: Vec<Box<dyn Objective>> = vec![Box::<flow::Supervised>::default()];
        if m.config.prior.weight > 0.0 {
            all.push(Box::new(Prior::default()));
        }
        all
    }
}

impl Course for Supervised {
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>> {
        let (stage, next): (Box<dyn Stage>, Next) = match self.next {
            Next::Texts => (Box::new(Texts::default()), Next::Latents),
            Next::Latents => (Box::new(Latents), Next::Base),
            Next::Base => (Box::new(Base::begin(m)?), Next::Warm),
            Next::Warm => (Box::new(Warm::new(m, s, Self::objectives(m))), Next::Restart),
            Next::Restart => {
                s.restart(&m.config);
                self.next = Next::Iteration;
                return self.next(m, s);
            }
            Next::Iteration => {
                if !super::begins(m, s) {
                    return Ok(None);
                }
                let objectives = Self::objectives(m);
                let runs: usize = objectives.iter().map(|o| o.runs(m)).sum();
                s.parts = (0, STEPS * runs);
                (Box::new(Update::begin(m, s, STEPS, objectives)?), Next::Iteration)
            }
        };
        self.next = next;
        Ok(Some(stage))
    }
    fn phase(&self) -> Option<&'static str> {
        PHASES.iter().find(|p| p.0 == self.next).map(|p| p.1)
    }
    fn finds(&self, phase: &str) -> Option<Finds> {
        PHASES.iter().any(|p| p.1 == phase).then_some(Finds::Nothing)
    }
    fn go(&mut self, phase: &str) {
        PHASES.iter().filter(|p| p.1 == phase).for_each(|p| self.next = p.0);
    }
}
