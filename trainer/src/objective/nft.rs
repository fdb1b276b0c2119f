//! The forward-process objective (DiffusionNFT, arXiv 2509.16117): finished images are noised anew, and the
//! velocity is pulled towards the good ones and pushed from the bad ones. It needs no log-probabilities, no guidance and no
//! noise in the sampling steps. Rollouts are drawn by the current adapter, where the paper draws them by the averaged one.
use super::flow::{Part, Rows};
use super::{At, Gives, Gradients, Objective, Outputs, Params, compile, grpo, with_gradients};
use crate::Result;
use crate::config::Config;
use crate::machine::Machine;
use crate::settings::Source;
use crate::settings::field::{COUNT, positive};
use crate::settings::part::settings;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::pipeline::Pipeline;
use pentimento_wgsl::kernel::Unary;

settings! {
    /// Settings of the forward-process objective. Credit, spread and limit of its advantages, and the norm its gradient is
    /// brought to, are those of [`grpo::Settings`].
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "nft." {
        /// How far v+ and v- stand from the averaged adapter's velocity; at 1, v+ is the velocity itself.
        beta: f32 = 1.0, positive(1000.0), from Source::Paper("2509.16117");
        /// Noise levels, and noises, for each image in an optimiser step.
        noisings: usize = 2, COUNT;
    }
}

/// `mean(r e+^2 / w+ + (1 - r) e-^2 / w-)` of each image, where `e+` and `e-` are the errors of the clean latents that
/// `v+ = (1 - b) v_old + b v` and `v- = (1 + b) v_old - b v` predict: `x - sigma v - x0 = sigma (straight - v)`, up to the
/// sign. w is the error's mean absolute value over the image, at least 1e-3, without gradient.
///
/// v, old, straight: `[B, H, W, C]`; sigma `[B, 1, 1, 1]`; good r: `[B, H, W, 1]` or `[B, 1, 1, 1]`. `[B]`.
pub(crate) fn contrast(g: &mut Graph, [v, old, straight]: [Id; 3], sigma: Id, good: Id, beta: f32) -> Id {
    let bad = g.affine(good, -1.0, 1.0);
    let mut side = |beta: f32, share: Id| {
        let (kept, moved) = (g.affine(old, 1.0 - beta, 0.0), g.affine(v, beta, 0.0));
        let mixed = g.add(kept, moved);
        let off = g.sub(mixed, straight);
        let error = g.mul(off, sigma);
        let width = g.unary(Unary::Abs, error);
        let width = g.mean(width, 1);
        let width = g.unary(Unary::Clamp(1e-3, f32::MAX), width);
        let weight = g.unary(Unary::Reciprocal, width);
        let weight = g.detach(weight);
        let batch = g.len(weight);
        let weight = g.reshape(weight, &[batch, 1, 1, 1]);
        let square = g.unary(Unary::Square, error);
        let square = g.mul(square, weight);
        g.mul(square, share)
    };
    let (pull, push) = (side(beta, good), side(-beta, bad));
    let both = g.add(pull, push);
    g.mean(both, 1)
}

/// `contrast` of the conditional velocity. Inputs: the velocity's, `old`, `straight` as the latents, `sigma`
/// `[B, 1, 1, 1]`, `good` `[B, P]`, `seed` `[B]`. Outputs: `loss` `[B]` and the gradients. P is 1 or the number of latent
/// positions.
///
/// # Errors
/// The device refuses the plan.
pub fn nft(pipeline: &mut Pipeline, params: &Params, c: &Config, size: [usize; 2]) -> Result<PlanId> {
    let n = c.optim.micro_batch;
    let mut g = Graph::new();
    let (x, v) = pipeline.velocity_graph(&mut g, "", n, size, None);
    let v = g.balance(v);
    let shape = g.shape(x).to_vec();
    let (old, straight) = (g.input("old", &shape), g.input("straight", &shape));
    let sigma = g.input("sigma", &[n, 1, 1, 1]);
    let places = grpo::places(c, size);
    let good = g.input("good", &[n, places]);
    let good = g.reshape(good, &if places == 1 { [n, 1, 1, 1] } else { [n, size[0], size[1], 1] });
    let loss = contrast(&mut g, [v, old, straight], sigma, good, c.nft.beta);
    let seed = g.input("seed", &[n]);
    let outputs =
        with_gradients(&mut g, loss, seed, params, c.recomputes(size), vec![("loss".into(), loss)])?;
    compile(pipeline, g, &outputs, size)
}

/// The objective on all of an iteration's images, some noisings of each: for a micro-batch one run with the averaged
/// adapter, one for the gradients.
#[derive(Default)]
pub(crate) struct Nft {
    /// r, `[images, places]`.
    good: Vec<f32>,
    /// As for [`grpo`].
    worth: f32,
    /// All images noised, and their noise levels.
    rows: Rows,
    sigmas: Vec<f32>,
    /// The averaged adapter's velocities of the micro-batch in progress.
    old: Vec<f32>,
}

impl Nft {
    /// The micro-batch of a run.
    fn part(m: &Machine, run: usize) -> Part {
        let (rows, all) = (m.config.optim.micro_batch, m.config.images());
        Part { run: run / 2 % all.div_ceil(rows), rows }
    }
    /// Noises all images anew.
    fn draw(&mut self, m: &Machine, s: &mut State) {
        (self.rows, self.sigmas) = Default::default();
        for (i, image) in s.batch.images.iter().enumerate() {
            let sigma = s.rng.uniform();
            let prompt = s.batch.prompts[i / m.config.rollout.group];
            self.rows.noised(m, image, sigma, &m.known.prompts[prompt], &mut s.rng);
            self.sigmas.push(sigma);
        }
    }
}

impl Objective for Nft {
    fn first_half(&self, _: &Machine, at: At) -> bool {
        (at.run / 2).is_multiple_of(2)
    }
    fn begin(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        let (advantages, worth) = grpo::credited(m, s)?;
        s.metrics.advantage_spread = grpo::root_mean_square(&advantages);
        let limit = m.config.grpo.advantage_limit;
        let good = advantages.iter().map(|a| (a / (2.0 * limit) + 0.5).clamp(0.0, 1.0));
        *self = Nft { good: good.collect(), worth, ..Nft::default() };
        Ok(())
    }
    fn runs(&self, m: &Machine) -> usize {
        2 * m.config.nft.noisings * m.config.images().div_ceil(m.config.optim.micro_batch)
    }
    fn norm(&self, m: &Machine) -> f32 {
        m.config.grpo.norm * self.worth
    }
    /// A micro-batch's two runs.
    fn unit(&self, _: &Machine, run: usize) -> usize {
        run / 2
    }
    fn deal(&mut self, m: &Machine, s: &mut State, at: At) -> Result<()> {
        if at.run.is_multiple_of(2) && Self::part(m, at.run).run == 0 {
            self.draw(m, s);
        }
        Ok(())
    }
    fn launch(&mut self, m: &mut Machine, s: &State, at: At) -> Result<PlanId> {
        let (part, all) = (Self::part(m, at.run), m.config.images());
        if at.run.is_multiple_of(2) {
            m.set_adapter(s.average())?;
            let velocity = m.pipeline.velocity(part.rows, m.size)?;
            self.rows.part(part).write(m, velocity.plan)?;
            return Ok(velocity.plan);
        }
        let plan = plan(m)?;
        self.rows.part(part).write(m, plan)?;
        // A mean over images and noisings.
        let each = 1.0 / (all * m.config.nft.noisings) as f32;
        let seed: Vec<f32> = (0..part.rows).map(|i| if i < part.real(all) { each } else { 0.0 }).collect();
        let exec = &mut m.pipeline.exec;
        exec.write(plan, "old", &self.old)?;
        exec.write(plan, "straight", &part.of(&self.rows.straight, all))?;
        exec.write(plan, "sigma", &part.of(&self.sigmas, all))?;
        exec.write(plan, "good", &part.of(&self.good, all))?;
        exec.write(plan, "seed", &seed)?;
        Ok(plan)
    }
    fn gives(&self, m: &Machine, run: usize) -> Gives {
        if run.is_multiple_of(2) {
            return Gives::only(vec![("velocity", m.config.optim.micro_batch * m.per_image())]);
        }
        Gives::gradients(Vec::new())
    }
    fn collect(
        &mut self,
        m: &mut Machine,
        s: &mut State,
        at: At,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<()> {
        if at.run.is_multiple_of(2) {
            self.old = gave.of("velocity")?.to_vec();
            return m.set_adapter(&s.values);
        }
        sum.add(gave.gradients);
        Ok(())
    }
}

fn plan(m: &mut Machine) -> Result<PlanId> {
    m.plan("nft", nft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pentimento_runtime::exec::cpu::Cpu;
    use pentimento_runtime::exec::{Executor, LeafData, compile};
    use pentimento_runtime::grad::gradients;
    use pentimento_runtime::rng::Philox;

    const SHAPE: [usize; 4] = [3, 2, 3, 4];
    const PER: usize = SHAPE[1] * SHAPE[2] * SHAPE[3];
    const BETA: f64 = 0.7;

    /// Signed errors of the clean latents, v+ and v-, as the paper writes them.
    fn errors(t: &[Vec<f32>; 3], v: &[f64], sigma: &[f32], side: f64) -> Vec<f64> {
        let [_, old, straight] = t;
        let one = |i: usize| {
            let (old, straight) = (f64::from(old[i]), f64::from(straight[i]));
            let (x0, sigma) = (0.3, f64::from(sigma[i / PER]));
            let noisy = x0 + sigma * straight; // (1 - sigma) x0 + sigma eps, straight = eps - x0
            noisy - sigma * ((1.0 - side * BETA) * old + side * BETA * v[i]) - x0
        };
        (0..v.len()).map(one).collect()
    }
    fn widths(errors: &[f64]) -> Vec<f64> {
        let mean = |e: &[f64]| (e.iter().map(|e| e.abs()).sum::<f64>() / PER as f64).max(1e-3);
        errors.chunks_exact(PER).map(mean).collect()
    }
    /// Losses of the images, with the widths of the velocity `at`.
    fn losses(t: &[Vec<f32>; 3], v: &[f64], at: &[f64], sigma: &[f32], good: &[f32]) -> Vec<f64> {
        let mut loss = vec![0.0; SHAPE[0]];
        for side in [1.0, -1.0] {
            let widths = widths(&errors(t, at, sigma, side));
            for (i, e) in errors(t, v, sigma, side).into_iter().enumerate() {
                let r = f64::from(good[i / SHAPE[3]]);
                let share = if side > 0.0 { r } else { 1.0 - r };
                loss[i / PER] += share * e * e / widths[i / PER] / PER as f64;
            }
        }
        loss
    }

    /// The graph against the formula, and its gradient against central differences of the formula with fixed widths. The
    /// second image is all but noiseless, so that its widths are at their lowest.
    #[test]
    fn loss_and_gradient_are_the_formula_s() {
        let mut rng = Philox::new(7, 0);
        let mut draw = || -> Vec<f32> { (0..SHAPE[0] * PER).map(|_| rng.normal()).collect() };
        let t = [draw(), draw(), draw()];
        let good: Vec<f32> = (0..SHAPE[0] * PER / SHAPE[3]).map(|_| rng.uniform()).collect();
        let (sigma, seed) = ([0.9, 1e-4, 0.4], [1.0, -2.0, 0.5]);
        let mut g = Graph::new();
        let v = g.param("v", &SHAPE);
        let (old, straight) = (g.input("old", &SHAPE), g.input("straight", &SHAPE));
        let s = g.input("sigma", &[SHAPE[0], 1, 1, 1]);
        let r = g.input("good", &[SHAPE[0], SHAPE[1], SHAPE[2], 1]);
        let loss = contrast(&mut g, [v, old, straight], s, r, BETA as f32);
        let dy = g.input("seed", &[SHAPE[0]]);
        let dv = gradients(&mut g, loss, dy, &[v], false).expect("gradients");
        let mut cpu = Cpu::double();
        cpu.set_leaf("v", LeafData::F32(&t[0])).expect("a parameter");
        let plan = compile(&mut cpu, g, &[("loss", loss), ("dv", dv[0])]).expect("a plan");
        let inputs = [("old", &t[1][..]), ("straight", &t[2]), ("sigma", &sigma), ("good", &good)];
        for (name, data) in inputs.into_iter().chain([("seed", &seed[..])]) {
            cpu.write(plan, name, data).expect("an input");
        }
        cpu.run(plan).expect("a run");
        let at: Vec<f64> = t[0].iter().map(|&v| f64::from(v)).collect();
        let close = |got: f32, want: f64, scale: f64| (f64::from(got) - want).abs() <= 1e-6 * scale;
        let right = losses(&t, &at, &at, &sigma, &good);
        for (got, want) in cpu.read(plan, "loss").expect("losses").into_iter().zip(&right) {
            assert!(*want > 0.0 && close(got, *want, *want), "{got} instead of {want}");
        }
        // The loss is quadratic in a velocity, so its difference is exact for any step.
        let step = |i: usize, by: f64| {
            let mut v = at.clone();
            v[i] += by;
            losses(&t, &v, &at, &sigma, &good)[i / PER]
        };
        let want = |i: usize| f64::from(seed[i / PER]) * (step(i, 0.5) - step(i, -0.5));
        let want: Vec<f64> = (0..at.len()).map(want).collect();
        // The two sides all but cancel where r is near a half, so a difference is compared with the image's largest.
        let largest = |image: &[f64]| image.iter().fold(0.0f64, |m, d| m.max(d.abs()));
        let got = cpu.read(plan, "dv").expect("a gradient");
        for (got, want) in got.chunks_exact(PER).zip(want.chunks_exact(PER)) {
            let scale = largest(want);
            let near = got.iter().zip(want).all(|(got, want)| close(*got, *want, scale));
            assert!(scale > 0.0 && near, "{got:?} instead of {want:?}");
        }
    }
}
