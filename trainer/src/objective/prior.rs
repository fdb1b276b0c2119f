//! Prior preservation (after DreamBooth, arXiv 2208.12242): on images that the base model drew itself, the velocity is held
//! to the base model's. What the references' captions share with other prompts is held, too: at weight 1 supervised training
//! hardly takes on a style that its captions do not name.
use super::flow::{Pull, Rows};
use super::{At, Gives, Gradients, Objective, Outputs};
use crate::Result;
use crate::machine::Machine;
use crate::settings::Source;
use crate::settings::field::{COUNT, between};
use crate::settings::part::settings;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

settings! {
    /// Settings of prior preservation.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "prior." {
        /// Weight of `mean((v - v_base)^2)`, conditional velocities, beside the supervised loss; 0 leaves it out.
        weight: f32 = 0.0, between(0.0, 1e6), from Source::Paper("2208.12242");
        /// Images that the base model draws of the training prompts before training.
        images: usize = 32, COUNT, unit "images", from Source::Paper("2208.12242");
    }
}

/// The term on images drawn anew for each step, with the batch and the dropped captions of [`crate::stage::warm`]:
/// without the adapter, then for the gradients.
#[derive(Default)]
pub(crate) struct Prior(Pull);

impl Prior {
    fn draw(&mut self, m: &Machine, s: &mut State) {
        let (known, caption_drop) = (&m.known, m.config.warm.caption_drop);
        let mut rows = Rows::default();
        for _ in 0..m.config.warm.batch {
            let (prompt, x0) = &known.base[s.rng.below(known.base.len() as u32) as usize];
            let drop = s.rng.uniform() < caption_drop;
            let sigma = s.rng.uniform();
            let text = if drop { &known.null } else { &known.prompts[*prompt] };
            rows.noised(m, x0, sigma, text, &mut s.rng);
        }
        self.0.rows = rows;
    }
}

impl Objective for Prior {
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
        self.0.launch(m, at.run, &without_b(&s.values), m.config.prior.weight)
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
        s.metrics.prior_loss = loss.unwrap_or(s.metrics.prior_loss);
        Ok(())
    }
}

/// The base model's adapter: A does not matter where B is zero.
fn without_b(values: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let of = |(i, v): (usize, &Vec<f32>)| if i % 2 == 1 { vec![0.0; v.len()] } else { v.clone() };
    values.iter().enumerate().map(of).collect()
}
