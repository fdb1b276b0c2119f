//! From objectives to an optimiser step.
use crate::machine::{Machine, State};
use crate::optim::clip_norm;
use crate::{Error, Result};
use pentimento::exec::PlanId;

/// Which run of which optimiser step of an iteration, both from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub update: usize,
    pub run: usize,
}

/// A source of gradients. Some of its runs may bring none: a rollout of its own, say. What must outlive an iteration
/// belongs into [`State`].
pub(crate) trait Objective {
    /// Before the first optimiser step of an iteration; its images are in `s.batch`.
    fn begin(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        let _ = (m, s);
        Ok(())
    }
    /// Device runs of one optimiser step, at least one.
    fn runs(&self, m: &Machine) -> usize;
    /// Norm that its gradients are brought to before those of extra terms are added; 0 leaves them.
    fn norm(&self, m: &Machine) -> f32 {
        let _ = m;
        0.0
    }
    /// Writes the inputs of a run and returns its plan.
    fn launch(&mut self, m: &mut Machine, s: &mut State, at: At) -> Result<PlanId>;
    /// Reads the finished run and adds its gradients.
    fn collect(&mut self, m: &mut Machine, s: &mut State, at: At, sum: &mut Gradients) -> Result<()>;
}

/// Gradients of the adapter's parameters, summed over runs.
#[derive(Default)]
pub(crate) struct Gradients(pub Vec<Vec<f32>>);

impl Gradients {
    /// Adds a finished run's, outputs named by their leaves.
    pub fn add(&mut self, m: &mut Machine, plan: PlanId) -> Result<()> {
        for (i, grad) in m.params.gradients(&mut *m.pipeline.exec, plan)?.into_iter().enumerate() {
            match self.0.get_mut(i) {
                Some(sum) => sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g),
                None => self.0.push(grad),
            }
        }
        Ok(())
    }
    /// Scales to this norm; a gradient of zero stays.
    fn scale_to(&mut self, norm: f32) {
        let own = self.0.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
        if own > 0.0 {
            let by = (f64::from(norm) / own) as f32;
            self.0.iter_mut().flatten().for_each(|g| *g *= by);
        }
    }
    /// Clips, moves the adapter and forgets. Returns the norm before clipping.
    pub fn apply(&mut self, m: &mut Machine, s: &mut State, rate: f32) -> Result<f32> {
        let mut grads = core::mem::take(&mut self.0);
        let norm = clip_norm(&mut grads, m.config.optim.max_norm);
        if !norm.is_finite() {
            s.watch.verdict.diverge();
            return Err(Error::bad("gradient norm", "a finite number", norm.to_string())
                .with_hint("Training diverged: use a smaller learning rate."));
        }
        s.adam.update(&mut s.values, &grads, rate);
        m.set_adapter(&s.values)?;
        Ok(norm)
    }
}

/// Optimiser steps in progress: run by run, the objective's, then those of each extra term.
pub(crate) struct Learn {
    objectives: Vec<Box<dyn Objective>>,
    /// Whose run is next.
    who: usize,
    at: At,
    sum: Gradients,
}

impl Learn {
    /// The objective first, then extra terms; each weighs its own gradients.
    pub fn new(objectives: Vec<Box<dyn Objective>>) -> Self {
        Learn { objectives, who: 0, at: At::default(), sum: Gradients::default() }
    }
    pub fn begin(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        self.objectives.iter_mut().try_for_each(|o| o.begin(m, s))
    }
    /// Optimiser steps made so far.
    pub fn updates(&self) -> usize {
        self.at.update
    }
    pub fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<PlanId> {
        let Some(objective) = self.objectives.get_mut(self.who) else {
            return Err(Error::bad("objective", "at least one", "none"));
        };
        objective.launch(m, s, self.at)
    }
    /// True when the gradients of the step are complete: [`Learn::apply`] is next.
    pub fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<bool> {
        let Some(objective) = self.objectives.get_mut(self.who) else { return Ok(true) };
        objective.collect(m, s, self.at, &mut self.sum)?;
        self.at.run += 1;
        if self.at.run >= objective.runs(m) {
            let norm = objective.norm(m);
            if self.who == 0 && norm > 0.0 {
                self.sum.scale_to(norm);
            }
            self.at.run = 0;
            self.who += 1;
        }
        Ok(self.who >= self.objectives.len())
    }
    /// Moves the adapter; returns the gradients' norm before clipping.
    pub fn apply(&mut self, m: &mut Machine, s: &mut State, rate: f32) -> Result<f32> {
        self.who = 0;
        self.at = At { update: self.at.update + 1, run: 0 };
        self.sum.apply(m, s, rate)
    }
}
