//! The layout anchor: where noise is high, a sampling step decides the layout, so there the velocity is held to that of the
//! frozen warm start. Style, decided later, stays free.
use super::flow::{Rows, supervised_plan};
use super::{At, Gradients, Objective};
use crate::machine::{Machine, State};
use crate::{Error, Result};
use pentimento::exec::PlanId;

/// Settings of the anchor.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Weight of `mean((v - v_warm)^2)`, conditional velocities, beside the objective's loss; 0 leaves it out.
    pub weight: f32,
    /// Lowest noise level that is held, up to 1.
    pub lowest: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { weight: 10.0, lowest: 0.8 }
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        let fits = self.weight.is_finite() && self.weight >= 0.0 && (0.0..=1.0).contains(&self.lowest);
        if fits {
            return Ok(());
        }
        let found = format!("{} from {}", self.weight, self.lowest);
        Err(Error::bad("anchor", "a weight of 0 or more, from a noise level of 0 to 1", found))
    }
}

/// The anchor on images of the iteration: one run with the frozen adapter for its velocities, one for the gradients.
#[derive(Default)]
pub(crate) struct Anchor {
    rows: Rows,
    target: Vec<f32>,
}

impl Objective for Anchor {
    fn runs(&self, _: &Machine) -> usize {
        2
    }
    fn launch(&mut self, m: &mut Machine, s: &mut State, at: At) -> Result<PlanId> {
        let batch = m.config.warm.batch;
        if at.run > 0 {
            let plan = supervised_plan(m)?;
            self.rows.write(m, plan)?;
            let exec = &mut m.pipeline.exec;
            exec.write(plan, "target", &self.target)?;
            exec.write(plan, "seed", &vec![m.config.anchor.weight / batch as f32; batch])?;
            return Ok(plan);
        }
        self.rows = Rows::default();
        let group = m.config.rollout.group;
        for _ in 0..batch {
            let i = s.rng.below(s.batch.images.len() as u32) as usize;
            let lowest = m.config.anchor.lowest;
            let sigma = lowest + (1.0 - lowest) * s.rng.uniform();
            self.rows.noised(
                m,
                &s.batch.images[i],
                sigma,
                &m.known.prompts[s.batch.prompts[i / group]],
                &mut s.rng,
            );
        }
        m.set_adapter(&s.warm)?;
        let velocity = m.pipeline.velocity(batch, m.size)?;
        self.rows.write(m, velocity.plan)?;
        Ok(velocity.plan)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State, at: At, sum: &mut Gradients) -> Result<()> {
        if at.run > 0 {
            let plan = supervised_plan(m)?;
            let loss = m.pipeline.exec.read(plan, "loss")?;
            s.metrics.anchor_loss = loss.iter().sum::<f32>() / loss.len() as f32;
            return sum.add(m, plan);
        }
        let velocity = m.pipeline.velocity(m.config.warm.batch, m.size)?;
        self.target = m.pipeline.exec.read(velocity.plan, "velocity")?;
        m.set_adapter(&s.values)
    }
}
