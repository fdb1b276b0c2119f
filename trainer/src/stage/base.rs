//! The base model's own images of the training prompts, for prior preservation.
use super::{Stage, prepare, rollout};
use crate::Result;
use crate::machine::Machine;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::{Text, Velocity};
use pentimento_runtime::rng::Philox;
use pentimento_runtime::sampler;

/// Samples `prior.images`, a warm start's batch at a time, with Euler steps and the rollouts' steps and guidance. B is zero
/// before training, so the adapter must not be kept away.
pub(crate) struct Base {
    rng: Philox,
    sigmas: Vec<f32>,
    step: usize,
    /// Latents of the batch in progress.
    x: Vec<f32>,
    velocity: Option<Velocity>,
}

impl Base {
    /// With noise of its own from the seed.
    pub fn begin(m: &Machine) -> Result<Self> {
        let rng = Philox::new(m.config.seed, 0xba5e);
        Ok(Base { rng, sigmas: rollout::sigmas(m)?, step: 0, x: Vec::new(), velocity: None })
    }
}

impl Stage for Base {
    fn launch(&mut self, m: &mut Machine, _: &mut State) -> Result<Option<PlanId>> {
        let (first, prompts) = (m.known.base.len(), m.known.prompts.len());
        let rows = m.config.warm.batch.min(m.config.at_once.sample).min(m.config.base_images() - first);
        if rows == 0 {
            return Ok(None);
        }
        if self.step == 0 {
            self.x = vec![0.0; rows * m.per_image()];
            self.rng.normals(&mut self.x);
        }
        let guided = m.config.rollout.guided();
        let velocity = m.pipeline.velocity(if guided { 2 * rows } else { rows }, m.size)?;
        self.velocity = Some(velocity);
        let texts: Vec<&Text> = (first..first + rows).map(|i| &m.known.prompts[i % prompts]).collect();
        let null = guided.then_some(&m.known.null);
        m.pipeline.write_velocity(velocity, &self.x, self.sigmas[self.step], &texts, null)?;
        Ok(Some(velocity.plan))
    }

    fn collect(&mut self, m: &mut Machine, _: &mut State) -> Result<Event> {
        let Some(velocity) = self.velocity else { return Ok(Event::Working) };
        let c = &m.config.rollout;
        let v = m.pipeline.read_velocity(velocity, c.guided().then_some(c.guidance))?;
        self.x = sampler::euler(&self.x, &v, self.sigmas[self.step], self.sigmas[self.step + 1])?;
        self.step += 1;
        if self.step + 1 < self.sigmas.len() {
            return Ok(Event::Working);
        }
        self.step = 0;
        for x in self.x.chunks_exact(m.per_image()) {
            let prompt = m.known.base.len() % m.known.prompts.len();
            m.known.base.push((prompt, x.to_vec()));
        }
        Ok(prepare::encoded(m, None))
    }
}
