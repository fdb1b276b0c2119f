//! A generator epoch: every batch and trained step is one training run; gradients are summed over half of the batches.
use super::rollout::Batch;
use super::{Official, Report, Script};
use crate::objective::grpo::{self, Rows};
use crate::optim::clip_norm;
use crate::{Error, Result};
use pentimento::exec::PlanId;
use pentimento::pipeline::Text;

impl Official {
    pub(super) fn train_generator(
        &mut self,
        all: &[Batch],
        advantages: &[f32],
        script: &mut dyn Script,
        report: &mut Report,
    ) -> Result<()> {
        let (group, e) = (self.config.rollout.group, self.epoch);
        // accelerate divides each loss by the number of runs that make a step.
        let runs = self.config.rollout.prompts / 2 * self.config.rollout.window;
        let (mut clipped, mut ratios) = (0, 0);
        for (batch, advantages) in all.iter().zip(advantages.chunks_exact(group)) {
            for j in 0..batch.taken.len() {
                let name = format!("e{e}.m{}", self.micro_steps);
                let ratio = self.micro_step(batch, j, advantages, runs, &name, script)?;
                clipped += ratio.iter().filter(|r| (**r - 1.0).abs() > self.config.grpo.clip).count();
                ratios += ratio.len();
                self.micro_steps += 1;
                if self.micro_steps.is_multiple_of(runs) {
                    report.gradient_norms.push(self.optimiser_step(script)?);
                }
            }
            self.average(script);
        }
        report.clip_fraction = clipped as f32 / ratios.max(1) as f32;
        Ok(())
    }

    /// The average is asked once per batch, with the global step; it may act never or more than once per step.
    fn average(&mut self, script: &mut dyn Script) {
        // Before the first optimiser step the average acts, and stays what it was.
        let moved = self.ema.average != self.values;
        let due = self.ema.step(&self.values, self.global_step, self.schedule.ema_interval as u32);
        let changed = due && moved;
        script.note("ema.call", &[self.epoch as f32, self.global_step as f32, f32::from(u8::from(changed))]);
        if changed {
            for ((name, _), data) in self.params.leaves().iter().zip(&self.ema.average) {
                script.note(&format!("ema.{}", name.replacen('/', ".", 1)), data);
            }
        }
    }

    /// Loss and gradients of one trained step of a batch; gradients are added up. Returns the ratios.
    fn micro_step(
        &mut self,
        batch: &Batch,
        j: usize,
        advantages: &[f32],
        runs: usize,
        name: &str,
        script: &mut dyn Script,
    ) -> Result<Vec<f32>> {
        let (group, n) =
            (self.config.rollout.group, self.config.optim.micro_batch.min(self.config.rollout.group));
        let plan = self.grpo_plan(n)?;
        let (mut ratio, mut loss, mut kl, mut distance) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for first in (0..group).step_by(n) {
            let images: Vec<usize> = (first..first + n).map(|i| i.min(group - 1)).collect();
            let real = n.min(group - first);
            let each = 1.0 / (group * runs) as f32;
            let seed: Vec<f32> = (0..n).map(|i| if i < real { each } else { 0.0 }).collect();
            let texts: Vec<&Text> = vec![&self.prompts[batch.prompt].text; n];
            let rows = Rows { images: &images, texts: &texts, advantages, seed: &seed };
            batch.taken[j].write(&mut self.pipeline, plan, &self.config, &rows, &self.null)?;
            self.pipeline.exec.run(plan)?;
            let exec = &mut *self.pipeline.exec;
            ratio.extend(exec.read(plan, "ratio")?.drain(..real));
            loss.extend(exec.read(plan, "loss")?.drain(..real));
            distance.extend(exec.read(plan, "distance")?.drain(..real));
            if self.config.grpo.beta > 0.0 {
                kl.extend(exec.read(plan, "kl")?.drain(..real));
            }
            self.add_gradients(plan)?;
        }
        self.note_micro(name, [&ratio, &loss, &kl, &distance], advantages, script);
        Ok(ratio)
    }
    fn note_micro(
        &self,
        name: &str,
        [ratio, loss, kl, distance]: [&[f32]; 4],
        advantages: &[f32],
        script: &mut dyn Script,
    ) {
        let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len().max(1) as f64;
        let log: Vec<f32> = distance.iter().map(|d| -d).collect();
        let limit = |r: f32| r.clamp(1.0 - self.config.grpo.clip, 1.0 + self.config.grpo.clip);
        let clipped = ratio.iter().zip(advantages).map(|(&r, a)| f32::from(u8::from(-a * limit(r) > -a * r)));
        let clipped: Vec<f32> = clipped.collect();
        script.note(&format!("{name}.ratio"), ratio);
        script.note(&format!("{name}.log_prob"), &log);
        script.note(&format!("{name}.advantages"), advantages);
        script.note(&format!("{name}.clipped"), &clipped);
        let (loss, kl) = (mean(loss), mean(kl));
        let policy = loss - f64::from(self.config.grpo.beta) * kl;
        script.note(&format!("{name}.policy_loss"), &[policy as f32]);
        script.note(&format!("{name}.kl"), &[kl as f32]);
        script.note(&format!("{name}.loss"), &[loss as f32]);
    }
    fn grpo_plan(&mut self, n: usize) -> Result<PlanId> {
        if let Some(plan) = self.grpo {
            return Ok(plan);
        }
        let config = {
            let mut config = self.config.clone();
            config.optim.micro_batch = n;
            config
        };
        let plan = grpo::grpo(&mut self.pipeline, &self.params, &config, self.size, false)?;
        self.grpo = Some(plan);
        Ok(plan)
    }
    fn add_gradients(&mut self, plan: PlanId) -> Result<()> {
        for (i, (name, _)) in self.params.leaves().iter().enumerate() {
            let grad = self.pipeline.exec.read(plan, name)?;
            match self.sums.get_mut(i) {
                Some(sum) => sum.iter_mut().zip(grad).for_each(|(s, g)| *s += g),
                None => self.sums.push(grad),
            }
        }
        Ok(())
    }

    /// Clips, moves the adapter, forgets the gradients. Returns the norm before clipping.
    fn optimiser_step(&mut self, script: &mut dyn Script) -> Result<f32> {
        let name = format!("e{}.opt{}", self.epoch, self.optimiser_steps);
        let leaves = self.params.leaves();
        let mut grads = core::mem::take(&mut self.sums);
        for ((leaf, _), grad) in leaves.iter().zip(&grads) {
            script.note(&format!("{name}.grad{}", leaf.trim_start_matches("lora")), grad);
        }
        let norm = clip_norm(&mut grads, self.config.optim.max_norm);
        if !norm.is_finite() {
            return Err(Error::bad("gradient norm", "a finite number", norm.to_string())
                .with_hint("Training diverged: use a smaller learning rate."));
        }
        script.note(&format!("{name}.grad_norm"), &[norm]);
        self.adam.update(&mut self.values, &grads, self.config.optim.rate);
        self.write_params(false)?;
        for ((leaf, _), data) in leaves.iter().zip(&self.values) {
            script.note(&format!("{name}.{leaf}"), data);
        }
        self.optimiser_steps += 1;
        self.global_step += 1;
        Ok(norm)
    }
}
