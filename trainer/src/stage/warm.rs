//! The warm start: supervised steps on the references before anything is sampled.
use super::Stage;
use crate::Result;
use crate::config::MOST_STEPS;
use crate::machine::Machine;
use crate::objective::{Learn, Objective};
use crate::settings::field::{COUNT, between, most};
use crate::settings::part::settings;
use crate::train::Event;
use crate::train::state::{State, Warmed};
use pentimento_runtime::exec::PlanId;

settings! {
    /// Settings of the warm start.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "warm." {
        /// Supervised flow-matching steps on the references before the first rollout (released: 0).
        steps: usize = 100, most(MOST_STEPS), unit "steps";
        /// References in one of those steps.
        batch: usize = 8, COUNT, unit "images";
        /// Their learning rate, with 10 steps of linear warm-up and a cosine down to a tenth.
        rate: f32 = 1e-3, between(0.0, 1.0);
        /// Part of their captions replaced by the empty prompt, so that guidance keeps working.
        caption_drop: f32 = 0.1, between(0.0, 1.0);
    }
}

/// Part of a deadline's time that the warm start may take.
const SHARE: f64 = 0.4;

/// `steps` optimiser steps of one objective; with a deadline perhaps fewer.
pub(crate) struct Warm {
    learn: Learn,
}

impl Warm {
    pub fn new(m: &Machine, s: &mut State, objectives: Vec<Box<dyn Objective>>) -> Self {
        if s.warmed.steps.is_none() {
            s.warmed = Warmed { done: 0, steps: Some(m.config.warm.steps), began: m.clock.now() };
        }
        Warm { learn: Learn::new(objectives) }
    }
    /// Under a deadline: as many steps as fit, by the speed of those so far.
    fn refit(m: &Machine, w: &mut Warmed) {
        if let (Some(left), 6) = (m.clock.left(SHARE), w.done) {
            let each = (m.clock.now() - w.began) / w.done as f64;
            w.steps = w.steps.map(|steps| (w.done + (left / each).max(0.0) as usize).min(steps));
        }
    }
}

/// Ramp and cosine; `k` counts from 0.
fn rate(highest: f32, k: usize, steps: usize) -> f32 {
    let ramp = ((k + 1) as f32 / 10.0).min(1.0);
    let cosine = 0.5 * (1.0 + (core::f32::consts::PI * k as f32 / steps as f32).cos());
    highest * ramp * (0.1 + 0.9 * cosine)
}

impl Stage for Warm {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if s.warmed.left() == 0 {
            return Ok(None);
        }
        self.learn.launch(m, s).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        if !self.learn.collect(m, s)? {
            return Ok(Event::Working);
        }
        let k = s.warmed.done;
        s.warmed.done += 1;
        Self::refit(m, &mut s.warmed);
        let steps = s.warmed.done + s.warmed.left();
        self.learn.apply(m, s, rate(m.config.warm.rate, k, steps))?;
        if m.clock.left(SHARE).is_some_and(|left| left <= 0.0) {
            s.warmed.steps = Some(s.warmed.done);
        }
        Ok(Event::Warm(s.warmed.done, steps, s.metrics.supervised_loss))
    }
    fn rests(&self) -> bool {
        self.learn.rests()
    }
}
