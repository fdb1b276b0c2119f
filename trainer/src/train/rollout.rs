//! Sampling a batch of groups, and describing the images for the reward.
use super::{Event, Phase, Trainer};
use crate::Result;
use crate::objective::grpo::Taken;
use pentimento::exec::PlanId;
use pentimento::pipeline::Text;
use pentimento::sampler;

/// A batch on its way from noise to images.
#[derive(Default)]
pub(super) struct Rollout {
    /// Index of each group's prompt.
    pub prompts: Vec<usize>,
    sigmas: Vec<f32>,
    step: usize,
    window: usize,
    /// One row per image, or per group before they part.
    x: Vec<f32>,
    apart: bool,
    velocity: Option<pentimento::pipeline::Velocity>,
    pub taken: Vec<Taken>,
    /// Finished latents.
    pub images: Vec<Vec<f32>>,
}

impl Trainer {
    /// Numbers in the latents of one image.
    pub(super) fn rollout_numbers(&self) -> usize {
        self.size[0] * self.size[1] * self.pipeline.mmdit.in_channels
    }

    /// Draws prompts, window and initial noise.
    pub(super) fn begin_rollout(&mut self) -> Result<()> {
        let c = &self.config;
        while self.order.len() < c.prompts {
            let mut more: Vec<usize> = (0..self.prompts.len()).collect();
            self.rng.shuffle(&mut more);
            self.order.extend(more);
        }
        let prompts: Vec<usize> = self.order.drain(..c.prompts).collect();
        let mu =
            self.pipeline.schedule.mu(self.pipeline.mmdit.image_tokens(self.size[0], self.size[1]) as u32);
        // The scheduler's spacing with its last, almost noiseless evaluation left out: its end point is the image.
        let mut sigmas = self.pipeline.schedule.sigmas(c.steps + 1, mu)?;
        sigmas.pop();
        let last = (c.steps - c.window) as u32;
        let window = c.window_start.unwrap_or_else(|| self.rng.below(last + 1) as usize);
        let rows = if c.share_noise { c.prompts } else { c.prompts * c.group };
        let mut x = vec![0.0; rows * self.rollout_numbers()];
        self.rng.normals(&mut x);
        let apart = !c.share_noise;
        self.rollout = super::Rollout { prompts, sigmas, window, x, apart, ..Default::default() };
        Ok(())
    }

    /// The prompt of each row of the current batch.
    pub(super) fn row_texts(&self, apart: bool) -> Vec<&Text> {
        let repeat = if apart { self.config.group } else { 1 };
        let texts = self.rollout.prompts.iter().map(|&p| &self.prompts[p]);
        texts.flat_map(|t| core::iter::repeat_n(t, repeat)).collect()
    }

    pub(super) fn launch_sample(&mut self) -> Result<PlanId> {
        if !self.rollout.apart && self.rollout.step == self.rollout.window {
            let per = self.rollout_numbers();
            let group = self.config.group;
            self.rollout.x = self.rollout.x.chunks_exact(per).flat_map(|row| row.repeat(group)).collect();
            self.rollout.apart = true;
        }
        let guided = self.config.guidance != 1.0;
        let rows = self.rollout.prompts.len() * if self.rollout.apart { self.config.group } else { 1 };
        let velocity = self.pipeline.velocity(if guided { 2 * rows } else { rows }, self.size)?;
        self.rollout.velocity = Some(velocity);
        let texts: Vec<Text> = self.row_texts(self.rollout.apart).into_iter().cloned().collect();
        let texts: Vec<&Text> = texts.iter().collect();
        let sigma = self.rollout.sigmas[self.rollout.step];
        let null = guided.then_some(&self.null);
        self.pipeline.write_velocity(velocity, &self.rollout.x, sigma, &texts, null)?;
        Ok(velocity.plan)
    }

    pub(super) fn collect_sample(&mut self) -> Result<Event> {
        let guidance = (self.config.guidance != 1.0).then_some(self.config.guidance);
        let Some(velocity) = self.rollout.velocity else { return Ok(Event::Working) };
        let v = self.pipeline.read_velocity(velocity, guidance)?;
        let step = self.rollout.step;
        let (sigma, next_sigma) = (self.rollout.sigmas[step], self.rollout.sigmas[step + 1]);
        let stochastic = step >= self.rollout.window && step < self.rollout.window + self.config.window;
        let next = if stochastic {
            let taken = self.stochastic_step(&v, sigma, next_sigma)?;
            let next = taken.next.clone();
            self.rollout.taken.push(taken);
            next
        } else {
            sampler::euler(&self.rollout.x, &v, sigma, next_sigma)?
        };
        self.rollout.x = next;
        self.rollout.step += 1;
        if self.rollout.step + 1 == self.rollout.sigmas.len() {
            let per = self.rollout_numbers();
            self.rollout.images = self.rollout.x.chunks_exact(per).map(<[f32]>::to_vec).collect();
            self.tokens.clear();
            self.phase = Phase::Describe(0);
        }
        Ok(Event::Part(self.rollout.step, self.parts()))
    }

    /// Model runs in an iteration, for progress.
    pub(super) fn parts(&self) -> usize {
        let c = &self.config;
        let images = c.prompts * c.group;
        c.steps + images.div_ceil(self.describe.1) + c.window * images.div_ceil(c.micro_batch)
    }

    /// Flow-CPS: `x' = mean + std z`.
    fn stochastic_step(&mut self, v: &[f32], sigma: f32, next_sigma: f32) -> Result<Taken> {
        let mut z = vec![0.0; v.len()];
        let per = self.rollout_numbers();
        if self.config.antithetic {
            for pair in z.chunks_exact_mut(2 * per) {
                let (a, b) = pair.split_at_mut(per);
                self.rng.normals(a);
                b.iter_mut().zip(a).for_each(|(b, a)| *b = -*a);
            }
        } else {
            self.rng.normals(&mut z);
        }
        let shape = [per, self.pipeline.mmdit.in_channels];
        Taken::step(&self.config, [sigma, next_sigma], &self.rollout.x, v, &z, shape)
    }

    pub(super) fn collect_describe(&mut self, first: usize) -> Result<Event> {
        let all = self.rollout.images.len();
        let tokens = self.read_tokens(all - first)?;
        self.tokens.extend(tokens);
        let done = (first + self.describe.1).min(all);
        self.phase = if done < all { Phase::Describe(done) } else { Phase::Head(0) };
        Ok(Event::Part(self.config.steps + done.div_ceil(self.describe.1), self.parts()))
    }
}
