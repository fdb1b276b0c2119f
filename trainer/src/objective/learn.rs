//! From objectives to an optimiser step.
use super::{Gives, Outputs};
use crate::archive::{Kept, Read, Written};
use crate::machine::Machine;
use crate::optim::clip_norm;
use crate::train::state::State;
use crate::{Error, Result};
use pentimento_runtime::exec::{PlanId, finite};
use std::sync::Arc;

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
    /// Whether a run belongs to the first half of the images, for [`Learn::agreement`]. Both halves have some of every step.
    fn first_half(&self, m: &Machine, at: At) -> bool {
        let _ = m;
        at.run.is_multiple_of(2)
    }
    /// Runs of one number need each other's results, so one machine makes them all; numbers rise with the runs.
    fn unit(&self, m: &Machine, run: usize) -> usize {
        let _ = m;
        run
    }
    /// Draws all that a run needs of chance. For every run, in order, wherever it is made.
    fn deal(&mut self, m: &Machine, s: &mut State, at: At) -> Result<()> {
        let _ = (m, s, at);
        Ok(())
    }
    /// Writes the inputs of a run that was dealt and returns its plan.
    fn launch(&mut self, m: &mut Machine, s: &State, at: At) -> Result<PlanId>;
    /// What a run gives.
    fn gives(&self, m: &Machine, run: usize) -> Gives;
    /// Takes in a run, and adds its gradients.
    fn collect(
        &mut self,
        m: &mut Machine,
        s: &mut State,
        at: At,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<()>;
}

const DIVERGED: &str = "Training diverged: use a smaller learning rate.";

/// Gradients of the adapter's parameters, summed over runs.
#[derive(Clone, Default)]
pub(crate) struct Gradients(pub Vec<Vec<f32>>);

impl Kept for Gradients {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        self.0.put(at, file);
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        self.0.fill(at, file)
    }
}

impl Gradients {
    /// Adds a run's.
    pub fn add(&mut self, run: Vec<Vec<f32>>) {
        for (i, grad) in run.into_iter().enumerate() {
            match self.0.get_mut(i) {
                Some(sum) => sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g),
                None => self.0.push(grad),
            }
        }
    }
    /// Scalar product, 0 with none.
    fn dot(&self, other: &Gradients) -> f64 {
        let pairs = self.0.iter().flatten().zip(other.0.iter().flatten());
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }
    /// Cosine with another; `None` where one of them is zero or missing.
    fn cosine(&self, other: &Gradients) -> Option<f32> {
        let norms = (self.dot(self) * other.dot(other)).sqrt();
        (norms > 0.0).then(|| (self.dot(other) / norms) as f32)
    }
    /// Adds another's.
    fn join(&mut self, other: Gradients) {
        if self.0.is_empty() {
            self.0 = other.0;
            return;
        }
        let pairs = self.0.iter_mut().flatten().zip(other.0.iter().flatten());
        pairs.for_each(|(a, b)| *a += b);
    }
    /// Scales to this norm; a gradient of zero stays.
    fn scale_to(&mut self, norm: f32) {
        let own = self.dot(self).sqrt();
        if own > 0.0 {
            let by = (f64::from(norm) / own) as f32;
            self.0.iter_mut().flatten().for_each(|g| *g *= by);
        }
    }
    /// Clips, moves the adapter and forgets; an adapter that would hold other than finite numbers stays as it was. Returns the
    /// norm before clipping.
    pub fn apply(&mut self, m: &mut Machine, s: &mut State, rate: f32) -> Result<f32> {
        let mut grads = core::mem::take(&mut self.0);
        let norm = clip_norm(&mut grads, m.config.optim.max_norm);
        finite("the gradient's norm", &[norm]).map_err(|e| e.with_hint(DIVERGED))?;
        let mut values = s.values.clone();
        s.adam.update(Arc::<Vec<_>>::make_mut(&mut values), &grads, rate);
        for ((name, _), tensor) in m.params.leaves().iter().zip(values.iter()) {
            finite(&format!("`{name}` after an optimiser step"), tensor)
                .map_err(|e| e.with_hint(DIVERGED))?;
        }
        s.values = values;
        m.set_adapter(&s.values)?;
        Ok(norm)
    }
}

/// Optimiser steps in progress: run by run, the objective's, then those of each extra term.
#[derive(Default)]
pub(crate) struct Learn {
    objectives: Vec<Box<dyn Objective>>,
    /// Whose run is next.
    who: usize,
    at: At,
    running: Option<PlanId>,
    sum: Gradients,
    /// The objective's gradients from the other half of the images.
    other: Gradients,
    /// Cosine of the two halves of the last optimiser step.
    agreement: Option<f32>,
}

impl Learn {
    /// The objective first, then extra terms; each weighs its own gradients.
    pub fn new(objectives: Vec<Box<dyn Objective>>) -> Self {
        Learn { objectives, ..Learn::default() }
    }
    pub fn begin(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        self.objectives.iter_mut().try_for_each(|o| o.begin(m, s))
    }
    /// Optimiser steps made so far.
    pub fn updates(&self) -> usize {
        self.at.update
    }
    /// Deals and launches the next run.
    pub fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<PlanId> {
        let at = self.at;
        self.deal(m, s)?;
        let plan = self.next()?.launch(m, s, at)?;
        self.running = Some(plan);
        Ok(plan)
    }
    fn next(&mut self) -> Result<&mut Box<dyn Objective>> {
        let none = || Error::bad("objective", "at least one", "none");
        self.objectives.get_mut(self.who).ok_or_else(none)
    }
    /// Draws for the next run.
    pub fn deal(&mut self, m: &Machine, s: &mut State) -> Result<()> {
        let at = self.at;
        self.next()?.deal(m, s, at)
    }
    /// Which run is next in this optimiser step, over all objectives, and its unit; `None` when all are done.
    pub fn turn(&self, m: &Machine) -> Option<(usize, usize)> {
        let own = self.objectives.get(self.who)?;
        let before = self.objectives[..self.who].iter().map(|o| (o.runs(m), units(&**o, m)));
        let (runs, units) = before.fold((0, 0), |(a, b), (runs, units)| (a + runs, b + units));
        Some((runs + self.at.run, units + own.unit(m, self.at.run)))
    }
    /// Units of an optimiser step, and for each run its unit and what it gives.
    pub fn plan(&self, m: &Machine) -> (usize, Vec<(usize, Gives)>) {
        let (mut first, mut runs) = (0, Vec::new());
        for objective in &self.objectives {
            let each = |run| (first + objective.unit(m, run), objective.gives(m, run));
            runs.extend((0..objective.runs(m)).map(each));
            first += units(&**objective, m);
        }
        (first, runs)
    }
    /// Reads the run that is finished.
    pub fn read(&mut self, m: &mut Machine) -> Result<Outputs> {
        let run = self.at.run;
        let gives = self.next()?.gives(m, run);
        let plan = self.running.take().ok_or_else(|| Error::missing("a training run", "its plan"))?;
        Outputs::read(m, plan, &gives)
    }
    /// Whether no run of an optimiser step is done yet.
    pub fn rests(&self) -> bool {
        (self.who, self.at.run) == (0, 0)
    }
    /// True when the gradients of the step are complete: [`Learn::apply`] is next.
    pub fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<bool> {
        let gave = self.read(m)?;
        self.take(m, s, gave)
    }
    /// As [`Learn::collect`], of what a run gave, wherever it was made.
    pub fn take(&mut self, m: &mut Machine, s: &mut State, gave: Outputs) -> Result<bool> {
        let Some(objective) = self.objectives.get_mut(self.who) else { return Ok(true) };
        let first = self.who > 0 || objective.first_half(m, self.at);
        let sum = if first { &mut self.sum } else { &mut self.other };
        objective.collect(m, s, self.at, gave, sum)?;
        Ok(self.pass(m))
    }
    /// Goes on to the next run; true when there is none.
    pub fn pass(&mut self, m: &Machine) -> bool {
        let Some(objective) = self.objectives.get(self.who) else { return true };
        self.at.run += 1;
        if self.at.run >= objective.runs(m) {
            if self.who == 0 {
                self.agreement = self.sum.cosine(&self.other);
                self.sum.join(core::mem::take(&mut self.other));
                let norm = objective.norm(m);
                if norm > 0.0 {
                    self.sum.scale_to(norm);
                }
            }
            self.at.run = 0;
            self.who += 1;
        }
        self.who >= self.objectives.len()
    }
    /// How well the objective's gradients from two halves of an iteration's images agree: the cosine. With n images a half and
    /// a signal that is the part p of one image's gradient it is n p / (n p + 1 - p), about: near 0 a step is a random walk.
    /// `None` where there is but one run.
    pub fn agreement(&self) -> Option<f32> {
        self.agreement
    }
    /// Moves the adapter; returns the gradients' norm before clipping.
    pub fn apply(&mut self, m: &mut Machine, s: &mut State, rate: f32) -> Result<f32> {
        self.again();
        self.sum.apply(m, s, rate)
    }
    /// Goes on to the next optimiser step.
    pub fn again(&mut self) {
        self.who = 0;
        self.at = At { update: self.at.update + 1, run: 0 };
    }
}

/// Units of an objective's optimiser step.
fn units(objective: &dyn Objective, m: &Machine) -> usize {
    objective.runs(m).checked_sub(1).map_or(0, |last| objective.unit(m, last) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_agree_by_their_cosine() {
        let of = |x: [f32; 3]| Gradients(vec![x[..1].to_vec(), x[1..].to_vec()]);
        let (a, b) = (of([3.0, 0.0, 4.0]), of([0.0, 5.0, 0.0]));
        let near = |x: Option<f32>, y: f32| x.is_some_and(|x| (x - y).abs() <= 1e-6);
        assert!(near(a.cosine(&a), 1.0) && near(a.cosine(&b), 0.0));
        assert!(near(a.cosine(&of([-6.0, 0.0, -8.0])), -1.0));
        assert!(near(of([3.0, 5.0, 4.0]).cosine(&a), 0.5f32.sqrt()));
        // One run, or gradients of zero, say nothing.
        assert_eq!((a.cosine(&Gradients::default()), of([0.0; 3]).cosine(&a)), (None, None));
        let mut sum = a;
        sum.join(b);
        assert_eq!(sum.0, of([3.0, 5.0, 4.0]).0);
        let mut one = Gradients::default();
        one.join(of([1.0; 3]));
        assert_eq!(one.0.len(), 2);
    }
}
