//! The pathwise adversarial objective: the gradient of the head's reward through backbone, resize, decoder and one sampling
//! step into the adapter (as DRaFT, arXiv 2309.17400, with one step). It needs no log-probabilities and no groups, and its
//! gradients of independent batches agree much better than those of the clipped objective.
use super::{At, Gives, Gradients, Objective, Outputs, Params, compile, with_gradients};
use crate::machine::Machine;
use crate::reward::Critic;
use crate::settings::Source;
use crate::settings::field::{ANY, COUNT, positive};
use crate::settings::part::settings;
use crate::stage::rollout;
use crate::train::state::State;
use crate::{Error, Result, config};
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::mmdit::time_projection;
use pentimento_runtime::pipeline::{Pipeline, Text};

/// Where the sampling step begins that gradients go through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    /// At the states that the rollout's last step began with.
    LastStep,
    /// At finished images, noised anew to a level drawn evenly from this range; the step ends where sampling does
    /// (as DRaFT-LV does it).
    Noised(f32, f32),
}

settings! {
    /// Settings of the pathwise objective.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "pathwise." {
        /// Where the sampling step begins that gradients go through: at the states that the rollout's last step began with (`last-step`), or
        /// at finished images, noised anew to a level drawn evenly from a range (`noised:LOW..HIGH`).
        from: From = From::Noised(0.1, 0.8), positive(1.0), from Source::Paper("2309.17400");
        /// Whether gradients stop at the unconditioned half of guidance. With them, what the caption says of colour, which
        /// guidance multiplies, is unlearnt too, and long runs keep getting better.
        detach_unconditional: bool = false, ANY;
        /// Images of an iteration that gradients go through.
        images: usize = 16, COUNT, unit "images";
        /// Images in one training run.
        batch: usize = 8, COUNT, unit "images";
    }
}

impl Settings {
    pub(crate) fn check(&self) -> Result<()> {
        match self.from {
            From::Noised(low, high) if low > high => {
                let found = format!("{low} to {high}");
                Err(Error::bad("pathwise.from", "noise levels that rise", found))
            }
            _ => Ok(()),
        }
    }
}

/// Reward of images after one guided step: `reward(decode(x + span v))`, `v = u + guidance (c - u)`; gradients through c
/// and, without `detach_unconditional`, through u.
/// Inputs: the velocity's twice (`u.` and plain), `span` `[B, 1, 1, 1]`: noise level after the step minus the one before,
/// `seed` `[B]`, with `head.alignment` also `text`, the prompts' unit vectors. Outputs: `reward` `[B]` and the gradients.
///
/// # Errors
/// The device refuses the plan.
pub(crate) fn pathwise(
    pipeline: &mut Pipeline,
    critic: &mut Critic,
    params: &Params,
    c: &config::Config,
    size: [usize; 2],
) -> Result<PlanId> {
    let n = rows(c);
    let mut g = Graph::new();
    let (x, v) =
        super::guided(pipeline, &mut g, c.rollout.guidance, c.pathwise.detach_unconditional, n, size, None);
    let span = g.input("span", &[n, 1, 1, 1]);
    let move_by = g.mul(v, span);
    let x0 = g.add(x, move_by);
    let (image, level) = pipeline.decode_graph(&mut g, x0);
    let image = g.balance(image);
    let tokens = critic.backbone.tokens(&mut g, image);
    let tokens = g.balance(tokens);
    let scores = critic.head.graph(&mut g, tokens);
    let mut reward = reward(&mut g, scores, n, c.head.class_weight);
    if let (true, Some(width)) = (c.head.alignment > 0.0, critic.backbone.aligned()) {
        let text = g.input("text", &[n, width]);
        let aligned = critic.backbone.alignment(&mut g, tokens, text);
        let head = g.affine(reward, 1.0 - c.head.alignment, 0.0);
        let aligned = g.affine(aligned, c.head.alignment, 0.0);
        reward = g.add(head, aligned);
    }
    let seed = g.input("seed", &[n]);
    let outputs = vec![("reward".into(), reward), ("finite/reward".into(), level)];
    let outputs = with_gradients(&mut g, reward, seed, params, c.recomputes(size), outputs)?;
    critic.backbone.upload(&mut *pipeline.exec, &g)?;
    compile(pipeline, g, &outputs, size)
}

/// `w h(class) + (1 - w) mean h(patches)` of `[B, 1 + N, 1]`: `[B]`, as [`crate::reward::head::rewards`].
fn reward(g: &mut Graph, scores: Id, n: usize, class_weight: f32) -> Id {
    let tokens = g.shape(scores)[1];
    let h = g.reshape(scores, &[n, tokens]);
    let class = g.slice(h, 1, 0, 1);
    let class = g.mean(class, 1);
    let patches = g.slice(h, 1, 1, tokens - 1);
    let patches = g.mean(patches, 1);
    let (class, patches) = (g.affine(class, class_weight, 0.0), g.affine(patches, 1.0 - class_weight, 0.0));
    g.add(class, patches)
}

/// Images of an iteration that gradients go through.
fn chosen(c: &config::Config) -> usize {
    c.pathwise.images.min(c.images())
}
/// Images in a run.
fn rows(c: &config::Config) -> usize {
    c.pathwise.batch.min(chosen(c))
}

/// The objective on some of an iteration's images.
#[derive(Default)]
pub(crate) struct Pathwise {
    /// Which images.
    chosen: Vec<usize>,
    /// Of the next run.
    dealt: Dealt,
    /// Sum of their rewards so far.
    reward: f64,
}

/// Images of a run, the states that their step begins with, their noise levels and spans.
#[derive(Default)]
struct Dealt {
    images: Vec<usize>,
    latents: Vec<f32>,
    sigmas: Vec<f32>,
    spans: Vec<f32>,
}

impl Pathwise {
    /// Latents, noise level and span of a row.
    fn row(&self, m: &Machine, s: &mut State, image: usize) -> Result<(Vec<f32>, f32, f32)> {
        let sigmas = rollout::sigmas(m)?;
        let (end, last) = (sigmas[sigmas.len() - 1], sigmas[sigmas.len() - 2]);
        let per = m.per_image();
        match m.config.pathwise.from {
            From::LastStep => Ok((s.batch.before_last[image * per..][..per].to_vec(), last, end - last)),
            From::Noised(low, high) => {
                let sigma = low + (high - low) * s.rng.uniform();
                let noised =
                    s.batch.images[image].iter().map(|x0| (1.0 - sigma) * x0 + sigma * s.rng.normal());
                Ok((noised.collect(), sigma, end - sigma))
            }
        }
    }
}

impl Objective for Pathwise {
    fn begin(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        let mut all: Vec<usize> = (0..s.batch.images.len()).collect();
        s.rng.shuffle(&mut all);
        all.truncate(m.config.pathwise.images);
        *self = Pathwise { chosen: all, ..Pathwise::default() };
        Ok(())
    }
    fn runs(&self, m: &Machine) -> usize {
        chosen(&m.config).div_ceil(rows(&m.config))
    }
    fn deal(&mut self, m: &Machine, s: &mut State, at: At) -> Result<()> {
        let n = rows(&m.config);
        let own = self.chosen.iter().skip(at.run * n).take(n).copied();
        // Places that are left over repeat the last image.
        let last = self.chosen.last().copied().ok_or_else(|| Error::bad("pathwise", "images", "none"))?;
        let mut dealt = Dealt::default();
        for image in own.chain(core::iter::repeat(last)).take(n) {
            let (latents, sigma, span) = self.row(m, s, image)?;
            dealt.images.push(image);
            dealt.latents.extend(latents);
            dealt.sigmas.push(sigma);
            dealt.spans.push(span);
        }
        self.dealt = dealt;
        Ok(())
    }
    fn launch(&mut self, m: &mut Machine, s: &State, at: At) -> Result<PlanId> {
        let plan = plan(m)?;
        let n = rows(&m.config);
        let Dealt { images: rows, latents: x, sigmas, spans: span } = &self.dealt;
        // The loss is the mean of minus the rewards; places that are left over weigh nothing.
        let real = self.chosen.len().saturating_sub(at.run * n).min(n);
        let mut seed = vec![-1.0 / self.chosen.len() as f32; real];
        seed.resize(n, 0.0);
        let time = |&sigma: &f32| time_projection(m.pipeline.schedule.timestep(sigma));
        let time: Vec<f32> = sigmas.iter().flat_map(time).collect();
        let texts = s.batch.texts(&m.known, m.config.rollout.group);
        let texts: Vec<&Text> = rows.iter().map(|&i| texts[i]).collect();
        super::write_condition(&mut m.pipeline, plan, "", &time, &texts)?;
        if m.config.rollout.guided() {
            super::write_condition(&mut m.pipeline, plan, "u.", &time, &vec![&m.known.null; n])?;
        }
        let prompt = |&i: &usize| s.batch.prompts[i / m.config.rollout.group];
        let aligned = rows.iter().filter_map(|i| m.known.aligned.get(prompt(i))).flatten().copied();
        let aligned: Vec<f32> = aligned.collect();
        let exec = &mut m.pipeline.exec;
        if !aligned.is_empty() {
            exec.write(plan, "text", &aligned)?;
        }
        exec.write(plan, "latents", x)?;
        exec.write(plan, "span", span)?;
        exec.write(plan, "seed", &seed)?;
        Ok(plan)
    }
    fn gives(&self, m: &Machine, _: usize) -> Gives {
        Gives::gradients(vec![("reward", rows(&m.config))])
    }
    fn collect(
        &mut self,
        _: &mut Machine,
        s: &mut State,
        at: At,
        gave: Outputs,
        sum: &mut Gradients,
    ) -> Result<()> {
        let rewards = gave.of("reward")?;
        let real = self.chosen.len().saturating_sub(at.run * rewards.len());
        self.reward += rewards.iter().take(real).map(|&r| f64::from(r)).sum::<f64>();
        s.metrics.reward_pathwise = (self.reward / self.chosen.len() as f64) as f32;
        sum.add(gave.gradients);
        Ok(())
    }
}

fn plan(m: &mut Machine) -> Result<PlanId> {
    let mut critic = m.critic.take().ok_or_else(crate::reward::none)?;
    let plan = m.plan("pathwise", |pipeline, params, config, size| {
        pathwise(pipeline, &mut critic, params, config, size)
    });
    m.critic = Some(critic);
    plan
}
