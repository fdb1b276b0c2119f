//! The warm start: supervised steps on the references before anything is sampled.
use super::Stage;
use crate::machine::{Machine, State};
use crate::objective::{Learn, Objective};
use crate::train::Event;
use crate::{Result, config};
use pentimento::exec::PlanId;

/// Settings of the warm start.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Supervised flow-matching steps on the references before the first rollout (released: 0).
    pub steps: usize,
    /// References in one of those steps.
    pub batch: usize,
    /// Their learning rate, with 10 steps of linear warm-up and a cosine down to a tenth.
    pub rate: f32,
    /// Part of their captions replaced by the empty prompt, so that guidance keeps working.
    pub caption_drop: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { steps: 100, batch: 8, rate: 1e-3, caption_drop: 0.1 }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        config::counts(&[("warm.batch", self.batch)])?;
        config::most(&[("warm.steps", self.steps, config::MOST_STEPS)])?;
        config::within(&[("warm.rate", self.rate, 1.0), ("warm.caption_drop", self.caption_drop, 1.0)])
    }
}

/// Part of a deadline's time that the warm start may take.
const SHARE: f64 = 0.4;

/// `steps` optimiser steps of one objective; with a deadline perhaps fewer.
pub(crate) struct Warm {
    learn: Learn,
    done: usize,
    steps: usize,
    /// When it began, by the training's clock.
    began: f64,
}

impl Warm {
    pub fn new(m: &Machine, objectives: Vec<Box<dyn Objective>>) -> Self {
        Warm { learn: Learn::new(objectives), done: 0, steps: m.config.warm.steps, began: m.clock.now() }
    }
    /// Under a deadline: as many steps as fit, by the speed of those so far.
    fn refit(&mut self, m: &Machine) {
        if let (Some(left), 6) = (m.clock.left(SHARE), self.done) {
            let each = (m.clock.now() - self.began) / self.done as f64;
            self.steps = (self.done + (left / each).max(0.0) as usize).min(self.steps);
        }
    }
    /// Ramp and cosine; `k` counts from 0.
    fn rate(&self, highest: f32, k: usize) -> f32 {
        let ramp = ((k + 1) as f32 / 10.0).min(1.0);
        let cosine = 0.5 * (1.0 + (core::f32::consts::PI * k as f32 / self.steps as f32).cos());
        highest * ramp * (0.1 + 0.9 * cosine)
    }
}

impl Stage for Warm {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if self.done >= self.steps {
            return Ok(None);
        }
        self.learn.launch(m, s).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        if !self.learn.collect(m, s)? {
            return Ok(Event::Working);
        }
        let k = self.done;
        self.done += 1;
        self.refit(m);
        let (steps, rate) = (self.steps, self.rate(m.config.warm.rate, k));
        self.learn.apply(m, s, rate)?;
        if m.clock.left(SHARE).is_some_and(|left| left <= 0.0) {
            self.steps = self.done;
        }
        Ok(Event::Warm(self.done, steps, s.metrics.supervised_loss))
    }
}
