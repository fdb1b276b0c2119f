//! Supervised flow matching on the references.
use super::{At, Gradients, Objective, Params, compile, with_gradients};
use crate::Result;
use crate::machine::Machine;
use crate::train::state::State;
use pentimento::exec::PlanId;
use pentimento::graph::Graph;
use pentimento::model::mmdit::time_projection;
use pentimento::pipeline::{Pipeline, Text};
use pentimento::rng::Philox;
use pentimento_wgsl::kernel::Unary;

/// Flow matching on clean latents: `mean((v(x_sigma) - (eps - x0))^2)` (Lipman et al. 2023, eq. 14 for straight paths).
/// Inputs: the velocity's, and `target` = eps - x0. Outputs: `loss` `[B]` and the gradients.
///
/// # Errors
/// The device refuses the plan.
pub fn supervised(
    pipeline: &mut Pipeline,
    params: &Params,
    batch: usize,
    size: [usize; 2],
    recompute: bool,
) -> Result<PlanId> {
    let mut g = Graph::new();
    let (x, v) = pipeline.velocity_graph(&mut g, "", batch, size, None);
    let v = g.balance(v);
    let shape = g.shape(x).to_vec();
    let target = g.input("target", &shape);
    let d = g.sub(v, target);
    let square = g.unary(Unary::Square, d);
    let loss = g.mean(square, 1);
    let dy = g.input("seed", &[batch]);
    let outputs = with_gradients(&mut g, loss, dy, params, recompute, vec![("loss".into(), loss)])?;
    let plan = compile(pipeline, g, &outputs, size)?;
    pipeline.exec.write(plan, "seed", &vec![1.0 / batch as f32; batch])?;
    Ok(plan)
}

/// Noised latents on their way into a velocity plan, and their conditions.
#[derive(Default)]
pub(crate) struct Rows {
    noisy: Vec<f32>,
    /// The noise minus the clean latents: the velocity of the straight path.
    pub straight: Vec<f32>,
    time: Vec<f32>,
    texts: Vec<Text>,
}

impl Rows {
    /// Adds `(1 - sigma) x0 + sigma eps` with new noise eps.
    pub fn noised(&mut self, m: &Machine, x0: &[f32], sigma: f32, text: &Text, rng: &mut Philox) {
        self.texts.push(text.clone());
        self.time.extend(time_projection(m.pipeline.schedule.timestep(sigma)));
        for &x0 in x0 {
            let eps = rng.normal();
            self.noisy.push((1.0 - sigma) * x0 + sigma * eps);
            self.straight.push(eps - x0);
        }
    }
    /// Writes the inputs of a velocity: all but a target.
    pub fn write(&self, m: &mut Machine, plan: PlanId) -> Result<()> {
        let texts: Vec<&Text> = self.texts.iter().collect();
        super::write_condition(&mut m.pipeline, plan, "", &self.time, &texts)?;
        m.pipeline.exec.write(plan, "latents", &self.noisy)
    }
}

/// [`supervised`] on references drawn anew for each step, with settings of [`crate::stage::warm`].
pub(crate) struct Supervised;

impl Objective for Supervised {
    fn runs(&self, _: &Machine) -> usize {
        1
    }
    fn launch(&mut self, m: &mut Machine, s: &mut State, _: At) -> Result<PlanId> {
        let plan = supervised_plan(m)?;
        let (batch, caption_drop) = (m.config.warm.batch, m.config.warm.caption_drop);
        let known = &m.known;
        let mut rows = Rows::default();
        for _ in 0..batch {
            let i = s.rng.below(known.latents.len() as u32) as usize;
            let drop = s.rng.uniform() < caption_drop;
            let sigma = s.rng.uniform();
            let text = if drop { &known.null } else { &known.captions[i % known.captions.len()] };
            rows.noised(m, &known.latents[i], sigma, text, &mut s.rng);
        }
        rows.write(m, plan)?;
        let exec = &mut m.pipeline.exec;
        exec.write(plan, "target", &rows.straight)?;
        exec.write(plan, "seed", &vec![1.0 / batch as f32; batch])?;
        Ok(plan)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State, _: At, sum: &mut Gradients) -> Result<()> {
        s.metrics.supervised_loss = add_supervised(m, sum)?;
        Ok(())
    }
}

/// Rows on which the velocity is pulled to the one with other values of the adapter, in batches of the warm start's: a run
/// for that velocity, then one for the gradients.
#[derive(Default)]
pub(crate) struct Pull {
    rows: Rows,
    target: Vec<f32>,
}

impl Pull {
    /// Launches the velocity with `values` for the adapter.
    pub fn aim(&mut self, m: &mut Machine, rows: Rows, values: &[Vec<f32>]) -> Result<PlanId> {
        self.rows = rows;
        m.set_adapter(values)?;
        let velocity = m.pipeline.velocity(m.config.warm.batch, m.size)?;
        self.rows.write(m, velocity.plan)?;
        Ok(velocity.plan)
    }
    /// Reads it, and gives the model its `current` adapter back.
    pub fn aimed(&mut self, m: &mut Machine, current: &[Vec<f32>]) -> Result<()> {
        let velocity = m.pipeline.velocity(m.config.warm.batch, m.size)?;
        self.target = m.pipeline.exec.read(velocity.plan, "velocity")?;
        m.set_adapter(current)
    }
    /// Launches `weight mean((v - target)^2)` and its gradients.
    pub fn follow(&self, m: &mut Machine, weight: f32) -> Result<PlanId> {
        let plan = supervised_plan(m)?;
        self.rows.write(m, plan)?;
        let batch = m.config.warm.batch;
        m.pipeline.exec.write(plan, "target", &self.target)?;
        m.pipeline.exec.write(plan, "seed", &vec![weight / batch as f32; batch])?;
        Ok(plan)
    }
}

/// Reads a run of [`supervised_plan`]: adds its gradients, returns the mean of its losses without their weight.
pub(crate) fn add_supervised(m: &mut Machine, sum: &mut Gradients) -> Result<f32> {
    let plan = supervised_plan(m)?;
    let loss = m.pipeline.exec.read(plan, "loss")?;
    sum.add(m, plan)?;
    Ok(loss.iter().sum::<f32>() / loss.len() as f32)
}

/// [`supervised`] in batches of the warm start's.
pub(crate) fn supervised_plan(m: &mut Machine) -> Result<PlanId> {
    m.plan("supervised", |pipeline, params, config, size| {
        supervised(pipeline, params, config.warm.batch, size, config.recomputes(size))
    })
}
