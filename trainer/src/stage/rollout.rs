//! Sampling a batch of groups.
use super::Stage;
use crate::machine::Machine;
use crate::objective::grpo::Taken;
use crate::settings::Source;
use crate::settings::field::{ANY, COUNT, between};
use crate::settings::part::settings;
use crate::spread::{Away, Made};
use crate::train::Event;
use crate::train::state::{Batch, State};
use crate::{Error, Result};
use core::ops::Range;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::{Text, Velocity};
use pentimento_runtime::sampler;

settings! {
    /// Settings of rollouts.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "rollout." {
        /// Prompts in an iteration.
        prompts: usize = 4, COUNT, unit "prompts";
        /// Images a prompt: the group (released: 16).
        group: usize = 8, COUNT, unit "images", from Source::Released;
        /// Sampling steps (released: 10).
        steps: usize = 6, COUNT, unit "steps", from Source::Released;
        /// Classifier-free guidance, of rollouts and of training, up to 100; 1 and less turn it off (released: 4.5).
        guidance: f32 = 4.5, between(0.0, 100.0), from Source::Released;
        /// Noise level eta of the stochastic steps (released: 0.8). Flow-CPS, arXiv 2509.05952.
        eta: f32 = 0.8, between(0.0, 1.0), from Source::Released;
        /// Stochastic steps, the ones that the clipped objective trains (released: 2); 0 samples without noise.
        window: usize = 2, between(0.0, 4096.0), unit "steps", from Source::Released;
        /// First stochastic step; `none` draws it anew each iteration (MixGRPO), released: 0.
        window_start: Option<usize> = None, between(0.0, 4096.0), from Source::Released;
        /// A group shares its initial noise and the steps before the window; its images part at the window.
        share_noise: bool = true, ANY;
        /// The noises of a group's stochastic steps come in pairs z, -z.
        antithetic: bool = true, ANY;
    }
}

impl Settings {
    /// Images of as many prompts, without groups and without noise in their steps.
    pub fn plain(images: usize) -> Self {
        Settings { prompts: images, group: 1, window: 0, ..Settings::default() }
    }
    /// The released ones.
    pub fn released() -> Self {
        let own = Settings { share_noise: false, antithetic: false, ..Settings::default() };
        Settings { group: 16, steps: 10, window_start: Some(0), ..own }
    }
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |field: &str, expected: &str, found: usize| {
            Err(Error::bad(format!("rollout.{field}"), expected, found.to_string()))
        };
        if self.window > 0 && (self.group < 2 || self.antithetic && !self.group.is_multiple_of(2)) {
            return bad("group", "at least 2, and even when noises come in pairs", self.group);
        }
        let room = self.steps.checked_sub(self.window);
        if room.is_none_or(|room| self.window_start.is_some_and(|w| w > room)) {
            return bad("window", "stochastic steps within the sampling steps", self.window);
        }
        Ok(())
    }
    /// Whether a run computes the unconditioned half, too.
    pub fn guided(&self) -> bool {
        sampler::guides(self.guidance)
    }
}

/// Noise levels of a rollout: the scheduler's spacing with its last, almost noiseless evaluation left out; its end point is
/// the image.
pub(crate) fn sigmas(m: &Machine) -> Result<Vec<f32>> {
    let mu = m.pipeline.schedule.mu(m.pipeline.mmdit.image_tokens(m.size[0], m.size[1]) as u32);
    let mut sigmas = m.pipeline.schedule.sigmas(m.config.rollout.steps + 1, mu)?;
    sigmas.pop();
    Ok(sigmas)
}

/// A batch on its way from noise to images.
pub(crate) struct Rollout {
    sigmas: Vec<f32>,
    step: usize,
    window: usize,
    /// One row per image, or per group before they part.
    x: Vec<f32>,
    /// Guided velocities of the step so far: a step takes several runs where there are more rows than go through at once.
    v: Vec<f32>,
    apart: bool,
    /// Which groups; all of them, but for a piece.
    groups: Range<usize>,
    velocity: Option<Velocity>,
}

impl Rollout {
    /// Draws prompts, window and initial noise.
    pub fn begin(m: &mut Machine, s: &mut State) -> Result<Self> {
        let away = if m.spread > 0 { Some(Away::rollout(m, s)?) } else { None };
        let rollout = Rollout::part(m, s, 0..m.config.rollout.prompts)?;
        m.away = away.map(|away| away.of(&s.batch.prompts));
        Ok(rollout)
    }
    /// Some of its groups. What is drawn by chance is drawn for all.
    pub fn part(m: &Machine, s: &mut State, groups: Range<usize>) -> Result<Self> {
        let c = &m.config.rollout;
        while s.order.len() < c.prompts {
            let mut more: Vec<usize> = (0..m.known.prompts.len()).collect();
            s.rng.shuffle(&mut more);
            s.order.extend(more);
        }
        let prompts: Vec<usize> = s.order.drain(..c.prompts).collect();
        let prompts = prompts[groups.clone()].to_vec();
        let sigmas = sigmas(m)?;
        let last = (c.steps - c.window) as u32;
        let window = c.window_start.unwrap_or_else(|| s.rng.below(last + 1) as usize);
        let apart = !c.share_noise || c.window == 0;
        let rows = if !apart { c.prompts } else { c.prompts * c.group };
        let mut x = vec![0.0; rows * m.per_image()];
        s.rng.normals(&mut x);
        let each = x.len() / c.prompts;
        let x = x[groups.start * each..groups.end * each].to_vec();
        s.batch = Batch { prompts, ..Batch::default() };
        Ok(Rollout { sigmas, step: 0, window, x, v: Vec::new(), apart, groups, velocity: None })
    }
    /// Noise of a stochastic step, of all images.
    fn noise(m: &Machine, s: &mut State) -> Vec<f32> {
        let per = m.per_image();
        let mut z = vec![0.0; m.config.images() * per];
        if m.config.rollout.antithetic {
            for pair in z.chunks_exact_mut(2 * per) {
                let (a, b) = pair.split_at_mut(per);
                s.rng.normals(a);
                b.iter_mut().zip(a).for_each(|(b, a)| *b = -*a);
            }
        } else {
            s.rng.normals(&mut z);
        }
        z
    }

    /// Flow-CPS: `x' = mean + std z`.
    fn stochastic_step(&self, m: &Machine, s: &mut State, v: &[f32], sigmas: [f32; 2]) -> Result<Taken> {
        let (z, per) = (Self::noise(m, s), m.per_image());
        let each = z.len() / m.config.rollout.prompts;
        let z = &z[self.groups.start * each..self.groups.end * each];
        let shape = [per, m.pipeline.mmdit.in_channels];
        Taken::step(&m.config, sigmas, &self.x, v, z, shape)
    }
}

impl Stage for Rollout {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if self.step + 1 == self.sigmas.len() {
            return Ok(None);
        }
        let (c, per) = (&m.config.rollout, m.per_image());
        if !self.apart && self.step == self.window {
            self.x = self.x.chunks_exact(per).flat_map(|row| row.repeat(c.group)).collect();
            self.apart = true;
        }
        let (guided, repeat) = (c.guided(), if self.apart { c.group } else { 1 });
        let first = self.v.len() / per;
        let rows = m.config.at_once.sample.min(self.groups.len() * repeat - first);
        let velocity = m.pipeline.velocity(if guided { 2 * rows } else { rows }, m.size)?;
        self.velocity = Some(velocity);
        let texts: Vec<&Text> = s.batch.texts(&m.known, repeat);
        let null = guided.then_some(&m.known.null);
        let (x, texts) = (&self.x[first * per..][..rows * per], &texts[first..][..rows]);
        m.pipeline.write_velocity(velocity, x, self.sigmas[self.step], texts, null)?;
        Ok(Some(velocity.plan))
    }

    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let c = &m.config.rollout;
        let Some(velocity) = self.velocity else { return Ok(Event::Working) };
        self.v.extend(m.pipeline.read_velocity(velocity, c.guided().then_some(c.guidance))?);
        if self.v.len() < self.x.len() {
            return Ok(Event::Working);
        }
        let v = core::mem::take(&mut self.v);
        let sigmas = [self.sigmas[self.step], self.sigmas[self.step + 1]];
        if self.step + 2 == self.sigmas.len() {
            s.batch.before_last.clone_from(&self.x);
        }
        if (self.window..self.window + c.window).contains(&self.step) {
            let taken = self.stochastic_step(m, s, &v, sigmas)?;
            self.x.clone_from(&taken.next);
            s.batch.taken.push(taken);
        } else {
            self.x = sampler::euler(&self.x, &v, sigmas[0], sigmas[1])?;
        }
        self.step += 1;
        if self.step + 1 == self.sigmas.len() {
            s.batch.images = self.x.chunks_exact(m.per_image()).map(<[f32]>::to_vec).collect();
        }
        Ok(s.part())
    }

    fn join(&mut self, m: &mut Machine, s: &mut State, made: Vec<Made>) -> Result<Event> {
        for piece in made {
            s.batch.join(piece.batch)?;
        }
        for _ in 0..m.config.rollout.window {
            Self::noise(m, s); // which the pieces have used
        }
        self.step = self.sigmas.len() - 1;
        let described = s.batch.tokens.len().div_ceil(m.config.at_once.describe);
        s.parts.0 += m.config.rollout.steps + described - 1;
        Ok(s.part())
    }
}
