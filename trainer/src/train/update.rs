//! Rewards, advantages and the generator's optimiser steps.
use super::{Event, Metrics, Phase, Trainer, pick_patches};
use crate::Result;
use crate::advantage::{advantages, moments, resample};
use crate::config::Credit;
use crate::objective::grpo::{self, Rows};
use crate::optim::clip_norm;
use crate::reward::head::{Patches, rewards};
use pentimento::exec::PlanId;
use pentimento::pipeline::Text;

/// An update in progress: trained step by trained step, micro-batch by micro-batch.
#[derive(Default)]
pub(super) struct Update {
    /// `[images, places]`.
    advantages: Vec<f32>,
    /// Trained step and first image of the running micro-batch.
    step: usize,
    first: usize,
    grads: Vec<Vec<f32>>,
    clipped: usize,
    ratios: usize,
}

impl Trainer {
    /// Writes the tokens of the images from `first` on to the head: the generated ones, then as many references.
    pub(super) fn launch_score(&mut self, first: usize) -> Result<PlanId> {
        if first == 0 {
            self.scores.clear();
        }
        let known = self.reference_tokens.iter().take(self.tokens.len());
        let all = self.tokens.iter().chain(known).map(Vec::as_slice);
        let tokens: Vec<&[f32]> = all.skip(first).take(self.head.score_batch()).collect();
        self.head.begin_score(&mut *self.pipeline.exec, &tokens, self.config.normalise_reward)
    }
    pub(super) fn collect_score(&mut self, first: usize) -> Result<Event> {
        let all = self.tokens.len() + self.reference_tokens.len().min(self.tokens.len());
        let left = (all - first).min(self.head.score_batch());
        self.scores.extend(self.head.end_score(&mut *self.pipeline.exec, left)?);
        self.phase = Phase::Score(first + left);
        if first + left == all {
            self.begin_update()?;
            self.phase = Phase::Generator;
        }
        Ok(Event::Working)
    }

    /// Turns scores into rewards and rewards into advantages.
    fn begin_update(&mut self) -> Result<()> {
        let mut scores = core::mem::take(&mut self.scores);
        let reference = scores.split_off(self.tokens.len().min(scores.len()));
        let rewards = self.rewards(&scores)?;
        let group = self.config.group;
        let (spread, limit) = (self.config.spread, self.config.advantage_limit);
        let image = advantages(&rewards, group, 1, spread, limit);
        self.update = Update { advantages: image.clone(), ..Update::default() };
        if let Credit::Patch(part) = self.config.credit {
            let patches: Vec<f32> = scores.iter().flat_map(|h| h[1..].iter().copied()).collect();
            let grid = self.backbone.grid();
            let local = advantages(&patches, group, grid * grid, spread, limit);
            let mixed = local.chunks_exact(grid * grid).zip(&image).flat_map(|(map, a)| {
                let map = resample(map, [grid, grid], self.token_grid());
                map.into_iter().map(move |l| part * l + (1.0 - part) * a)
            });
            self.update.advantages = mixed.collect();
        }
        let reference = self.rewards(&reference)?;
        let within =
            rewards.chunks_exact(group).map(|g| moments(g).1).sum::<f32>() / self.config.prompts as f32;
        self.metrics.reward_generated = moments(&rewards).0;
        self.metrics.reward_reference = moments(&reference).0;
        self.metrics.reward_spread = within;
        self.metrics.advantage_spread = (self.update.advantages.iter().map(|a| a * a).sum::<f32>()
            / self.update.advantages.len() as f32)
            .sqrt();
        let kept = self.config.replay;
        self.replay.extend(self.tokens.iter().cloned());
        while self.replay.len() > kept {
            self.replay.pop_front();
        }
        Ok(())
    }
    /// Rewards of images from the head's scores, over all patches or some drawn anew.
    fn rewards(&mut self, scores: &[Vec<f32>]) -> Result<Vec<f32>> {
        let picked = pick_patches(&mut self.rng, &self.config, &self.backbone, scores.len());
        rewards(scores, self.config.class_weight, picked.as_deref().map_or(Patches::All, Patches::Picked))
    }
    /// Latent positions, rows and columns.
    fn token_grid(&self) -> [usize; 2] {
        self.size
    }

    /// Images of the running micro-batch; those past the end repeat the last one with weight zero.
    fn micro(&self) -> (Vec<usize>, usize) {
        let (first, n) = (self.update.first, self.config.micro_batch);
        let all = self.config.prompts * self.config.group;
        ((first..first + n).map(|i| i.min(all - 1)).collect(), n.min(all - first))
    }

    pub(super) fn launch_generator(&mut self) -> Result<PlanId> {
        let plan = match self.plans.get("grpo") {
            Some(&plan) => plan,
            None => grpo::grpo(&mut self.pipeline, &self.params, &self.config, self.size, false)?,
        };
        self.plans.insert("grpo", plan);
        let (rows, real) = self.micro();
        let places = grpo::places(&self.config, self.size);
        // The loss of an optimiser step is the mean over its steps, images and places.
        let steps = self.config.window / self.config.updates;
        let each = 1.0 / (steps * self.config.prompts * self.config.group * places) as f32;
        let seed: Vec<f32> =
            (0..rows.len() * places).map(|i| if i < real * places { each } else { 0.0 }).collect();
        let texts = self.row_texts(true);
        let texts: Vec<Text> = rows.iter().map(|&i| texts[i].clone()).collect();
        let texts: Vec<&Text> = texts.iter().collect();
        let inputs = Rows { images: &rows, texts: &texts, advantages: &self.update.advantages, seed: &seed };
        let taken = &self.rollout.taken[self.update.step];
        taken.write(&mut self.pipeline, plan, &self.config, &inputs, &self.null)?;
        Ok(plan)
    }

    pub(super) fn collect_generator(&mut self) -> Result<Event> {
        let plan = self.plans["grpo"];
        let (_, real) = self.micro();
        let places = grpo::places(&self.config, self.size);
        let ratio = self.pipeline.exec.read(plan, "ratio")?;
        let c = self.config.clip;
        self.update.clipped += ratio[..real * places].iter().filter(|r| (**r - 1.0).abs() > c).count();
        self.update.ratios += real * places;
        let grads = self.read_gradients(plan)?;
        if self.update.grads.is_empty() {
            self.update.grads = grads;
        } else {
            for (sum, g) in self.update.grads.iter_mut().zip(grads) {
                sum.iter_mut().zip(g).for_each(|(s, g)| *s += g);
            }
        }
        self.update.first += self.config.micro_batch;
        let images = self.config.prompts * self.config.group;
        if self.update.first < images {
            return Ok(self.part());
        }
        self.update.first = 0;
        self.update.step += 1;
        let per_update = self.config.window / self.config.updates;
        if self.update.step.is_multiple_of(per_update) {
            let mut grads = core::mem::take(&mut self.update.grads);
            let norm = clip_norm(&mut grads, self.config.max_norm);
            self.metrics.gradient_norm = norm;
            self.apply(&grads, norm, self.config.rate)?;
        }
        if self.update.step < per_update * self.config.updates {
            return Ok(self.part());
        }
        self.end_iteration()
    }
    fn part(&self) -> Event {
        let batches = (self.config.prompts * self.config.group).div_ceil(self.config.micro_batch);
        let before = self.parts() - self.config.window * batches;
        let done = before + self.update.step * batches + self.update.first / self.config.micro_batch;
        Event::Part(done, self.parts())
    }

    fn end_iteration(&mut self) -> Result<Event> {
        if let Some(ema) = &mut self.ema {
            ema.update(&self.values);
        }
        self.iteration += 1;
        self.metrics.clip_fraction = self.update.clipped as f32 / self.update.ratios.max(1) as f32;
        self.metrics.seconds = self.started.elapsed().as_secs_f64();
        let metrics: Metrics = self.metrics.clone();
        self.phase = self.begin_iteration()?;
        Ok(Event::Iteration(metrics))
    }
}
