//! The layout anchor: where noise is high, a sampling step decides the layout, so there the velocity is held to that of the
//! frozen warm start. Style, decided later, stays free.
use super::flow::{Pull, Rows};
use super::{At, Gives, Gradients, Objective, Outputs};
use crate::Result;
use crate::machine::Machine;
use crate::settings::field::between;
use crate::settings::part::settings;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

settings! {
    /// Settings of the anchor.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "anchor." {
        /// Weight of `mean((v - v_warm)^2)`, conditional velocities, beside the objective's loss; 0 leaves it out.
        weight: f32 = 10.0, between(0.0, 1e6);
        /// Lowest noise level that is held, up to 1.
        lowest: f32 = 0.8, between(0.0, 1.0);
    }
}

/// The anchor on images of the iteration: with the frozen adapter for its velocities, then for the gradients.
#[derive(Default)]
pub(crate) struct Anchor(Pull);

impl Anchor {
    fn draw(&mut self, m: &Machine, s: &mut State) {
        let mut rows = Rows::default();
        let group = m.config.rollout.group;
        for _ in 0..m.config.warm.batch {
            let i = s.rng.below(s.batch.images.len() as u32) as usize;
            let lowest = m.config.anchor.lowest;
            let sigma = lowest + (1.0 - lowest) * s.rng.uniform();
            rows.noised(
                m,
                &s.batch.images[i],
                sigma,
                &m.known.prompts[s.batch.prompts[i / group]],
                &mut s.rng,
            );
        }
        self.0.rows = rows;
    }
}

impl Objective for Anchor {
    fn runs(&self, m: &Machine) -> usize {
        Pull::runs(m)
    }
    fn unit(&self, _: &Machine, _: usize) -> usize {
        0
    }
    fn deal(&mut self, m: &Machine, s: &mut State, at: At) -> Result<()> {
        if at.run == 0 {
            self.draw(m, s);
        }
        Ok(())
    }
    fn launch(&mut self, m: &mut Machine, s: &State, at: At) -> Result<PlanId> {
        self.0.launch(m, at.run, &s.warm, m.config.anchor.weight)
    }
    fn gives(&self, m: &Machine, run: usize) -> Gives {
        Pull::gives(m, run)
    }
    fn collect(
        &mut self,
        m: &mut Machine,
        s: &mut State,
        at: At,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<()> {
        let loss = self.0.collect(m, at.run, &s.values, gave, sum)?;
        s.metrics.anchor_loss = loss.unwrap_or(s.metrics.anchor_loss);
        Ok(())
    }
}
