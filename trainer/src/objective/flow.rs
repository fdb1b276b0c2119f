//! Supervised flow matching on the references.
use super::{At, Gives, Gradients, Objective, Outputs, Params, compile, with_gradients};
use crate::Result;
use crate::machine::Machine;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::grad::Recompute;
use pentimento_runtime::graph::Graph;
use pentimento_runtime::model::mmdit::time_projection;
use pentimento_runtime::pipeline::{Pipeline, Text};
use pentimento_runtime::rng::Philox;
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
    recompute: Recompute,
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
    /// The rows of one run of several; places that are left over repeat the last row.
    pub fn part(&self, part: Part) -> Rows {
        let each = |list: &[f32]| part.of(list, self.texts.len());
        Rows {
            noisy: each(&self.noisy),
            straight: each(&self.straight),
            time: each(&self.time),
            texts: part.places(self.texts.len()).map(|i| self.texts[i].clone()).collect(),
        }
    }
}

/// One of the runs that rows are spread over.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub run: usize,
    /// Rows in a run.
    pub rows: usize,
}

impl Part {
    /// Which of `all` rows stand in its places.
    fn places(self, all: usize) -> impl Iterator<Item = usize> {
        let first = self.run * self.rows;
        (first..first + self.rows).map(move |i| i.min(all - 1))
    }
    /// Of numbers that belong to `all` rows, those of its places.
    pub fn of(self, list: &[f32], all: usize) -> Vec<f32> {
        let each = list.len() / all;
        self.places(all).flat_map(|i| &list[i * each..][..each]).copied().collect()
    }
    /// Rows that are not repeated.
    pub fn real(self, all: usize) -> usize {
        self.rows.min(all - self.run * self.rows)
    }
}

/// Runs that a batch of the warm start's takes.
pub(crate) fn runs(m: &Machine) -> usize {
    m.config.warm.batch.div_ceil(m.config.warm_rows())
}

/// Training runs of [`supervised_plan`] on a batch of the warm start's.
#[derive(Default)]
struct Steps {
    /// Sum of the losses so far.
    loss: f32,
}

impl Steps {
    /// Launches the gradients of `weight mean((v - target)^2)` of one part; `target` has all rows.
    fn launch(
        &mut self,
        m: &mut Machine,
        rows: &Rows,
        target: &[f32],
        run: usize,
        weight: f32,
    ) -> Result<PlanId> {
        let plan = supervised_plan(m)?;
        let (batch, part) = (m.config.warm.batch, Part { run, rows: m.config.warm_rows() });
        let real = part.real(batch);
        rows.part(part).write(m, plan)?;
        let seed = (0..part.rows).map(|i| if i < real { weight / batch as f32 } else { 0.0 });
        let exec = &mut m.pipeline.exec;
        exec.write(plan, "target", &part.of(target, batch))?;
        exec.write(plan, "seed", &seed.collect::<Vec<f32>>())?;
        Ok(plan)
    }
    fn gives(m: &Machine) -> Gives {
        Gives::gradients(vec![("loss", m.config.warm_rows())])
    }
    /// Adds the gradients of a finished run; the mean of the losses, without their weight, when it was the last.
    fn collect(
        &mut self,
        m: &Machine,
        run: usize,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<Option<f32>> {
        let batch = m.config.warm.batch;
        let real = Part { run, rows: m.config.warm_rows() }.real(batch);
        self.loss += gave.of("loss")?.iter().take(real).sum::<f32>();
        sum.add(gave.gradients);
        if run + 1 < runs(m) {
            return Ok(None);
        }
        Ok(Some(core::mem::take(&mut self.loss) / batch as f32))
    }
}

/// [`supervised`] on references drawn anew for each step, with settings of [`crate::stage::warm`].
#[derive(Default)]
pub(crate) struct Supervised {
    rows: Rows,
    steps: Steps,
}

impl Supervised {
    fn draw(&mut self, m: &Machine, s: &mut State) {
        let (known, caption_drop) = (&m.known, m.config.warm.caption_drop);
        self.rows = Rows::default();
        for _ in 0..m.config.warm.batch {
            let i = s.rng.below(known.latents.len() as u32) as usize;
            let drop = s.rng.uniform() < caption_drop;
            let sigma = s.rng.uniform();
            let text = if drop { &known.null } else { &known.captions[i % known.captions.len()] };
            self.rows.noised(m, &known.latents[i], sigma, text, &mut s.rng);
        }
    }
}

impl Objective for Supervised {
    fn runs(&self, m: &Machine) -> usize {
        runs(m)
    }
    fn deal(&mut self, m: &Machine, s: &mut State, at: At) -> Result<()> {
        if at.run == 0 {
            self.draw(m, s);
        }
        Ok(())
    }
    fn launch(&mut self, m: &mut Machine, _: &State, at: At) -> Result<PlanId> {
        self.steps.launch(m, &self.rows, &self.rows.straight, at.run, 1.0)
    }
    fn gives(&self, m: &Machine, _: usize) -> Gives {
        Steps::gives(m)
    }
    fn collect(
        &mut self,
        m: &mut Machine,
        s: &mut State,
        at: At,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<()> {
        let loss = self.steps.collect(m, at.run, gave, sum)?;
        s.metrics.supervised_loss = loss.unwrap_or(s.metrics.supervised_loss);
        Ok(())
    }
}

/// Rows on which the velocity is pulled to the one with other values of the adapter, in batches of the warm start's: runs for that
/// velocity, then as many for the gradients.
#[derive(Default)]
pub(crate) struct Pull {
    pub rows: Rows,
    target: Vec<f32>,
    steps: Steps,
}

impl Pull {
    pub fn runs(m: &Machine) -> usize {
        2 * runs(m)
    }
    pub fn gives(m: &Machine, run: usize) -> Gives {
        if run < runs(m) {
            return Gives::only(vec![("velocity", m.config.warm_rows() * m.per_image())]);
        }
        Steps::gives(m)
    }
    /// Launches a run: the velocity with `values` for the adapter, or the gradients of `weight mean((v - target)^2)`.
    pub fn launch(
        &mut self,
        m: &mut Machine,
        run: usize,
        values: &[Vec<f32>],
        weight: f32,
    ) -> Result<PlanId> {
        if let Some(run) = run.checked_sub(runs(m)) {
            return self.steps.launch(m, &self.rows, &self.target, run, weight);
        }
        m.set_adapter(values)?;
        let rows = m.config.warm_rows();
        let velocity = m.pipeline.velocity(rows, m.size)?;
        self.rows.part(Part { run, rows }).write(m, velocity.plan)?;
        Ok(velocity.plan)
    }
    /// Reads a run: gives the model its `current` adapter back, or adds the gradients. The mean loss at the end.
    pub fn collect(
        &mut self,
        m: &mut Machine,
        run: usize,
        current: &[Vec<f32>],
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<Option<f32>> {
        if let Some(run) = run.checked_sub(runs(m)) {
            return self.steps.collect(m, run, gave, sum);
        }
        let part = Part { run, rows: m.config.warm_rows() };
        let v = gave.of("velocity")?;
        if run == 0 {
            self.target.clear();
        }
        self.target.extend(&v[..part.real(m.config.warm.batch) * m.per_image()]);
        m.set_adapter(current)?;
        Ok(None)
    }
}

/// [`supervised`] in runs of a batch of the warm start's.
pub(crate) fn supervised_plan(m: &mut Machine) -> Result<PlanId> {
    m.plan("supervised", |pipeline, params, config, size| {
        supervised(pipeline, params, config.warm_rows(), size, config.recomputes(size))
    })
}
