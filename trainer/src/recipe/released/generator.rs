//! A generator epoch: every batch and trained step is one training run; gradients are summed over half of the batches.
use super::{Bench, finish};
use crate::Result;
use crate::config::Config;
use crate::machine::Machine;
use crate::objective::grpo::{self, Rows};
use crate::stage::Stage;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::Text;

/// The epoch in progress: batch by batch, trained step by trained step, micro-batch by micro-batch.
#[derive(Default)]
pub(super) struct Generate {
    batch: usize,
    step: usize,
    /// First image of the next run.
    first: usize,
    /// Outputs of this trained step so far.
    ratio: Vec<f32>,
    loss: Vec<f32>,
    kl: Vec<f32>,
    distance: Vec<f32>,
    clipped: usize,
    ratios: usize,
}

/// Samples in a run.
fn samples(c: &Config) -> usize {
    c.optim.micro_batch.min(c.rollout.group)
}

/// accelerate divides each loss by the number of runs that make a step.
fn runs(c: &Config) -> usize {
    c.rollout.prompts / 2 * c.rollout.window
}

fn plan(m: &mut Machine) -> Result<PlanId> {
    m.plan("grpo", |pipeline, params, config, size| {
        let mut config = config.clone();
        config.optim.micro_batch = samples(&config);
        grpo::grpo(pipeline, params, &config, size)
    })
}

impl Stage for Generate {
    fn launch(&mut self, m: &mut Machine, _: &mut State) -> Result<Option<PlanId>> {
        let plan = plan(m)?;
        let Machine { pipeline, config: c, known, bench: Some(bench), .. } = m else { return Ok(None) };
        let Some(batch) = bench.batches.get(self.batch) else { return Ok(None) };
        let (group, n, first) = (c.rollout.group, samples(c), self.first);
        let images: Vec<usize> = (first..first + n).map(|i| i.min(group - 1)).collect();
        let real = n.min(group - first);
        let each = 1.0 / (group * runs(c)) as f32;
        let seed: Vec<f32> = (0..n).map(|i| if i < real { each } else { 0.0 }).collect();
        let texts: Vec<&Text> = vec![&known.prompts[batch.prompt]; n];
        let advantages = &bench.advantages[self.batch * group..][..group];
        let rows = Rows { images: &images, texts: &texts, advantages, seed: &seed };
        batch.taken[self.step].write(pipeline, plan, c, &rows, &known.null)?;
        Ok(Some(plan))
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let plan = plan(m)?;
        let (group, n) = (m.config.rollout.group, samples(&m.config));
        let real = n.min(group - self.first);
        let exec = &mut m.pipeline.exec;
        self.ratio.extend(exec.read(plan, "ratio")?.drain(..real));
        self.loss.extend(exec.read(plan, "loss")?.drain(..real));
        self.distance.extend(exec.read(plan, "distance")?.drain(..real));
        if m.config.grpo.beta > 0.0 {
            self.kl.extend(exec.read(plan, "kl")?.drain(..real));
        }
        s.carried.add(m.params.gradients(&mut *m.pipeline.exec, plan)?);
        self.first += n;
        if self.first < group {
            return Ok(Event::Working);
        }
        self.finish_step(m, s)?;
        let bench = Bench::of(m)?;
        if self.step < bench.batches[self.batch].taken.len() {
            return Ok(Event::Working);
        }
        average(m, s)?;
        (self.batch, self.step) = (self.batch + 1, 0);
        if self.batch < Bench::of(m)?.batches.len() {
            return Ok(Event::Working);
        }
        s.metrics.clip_fraction = self.clipped as f32 / self.ratios.max(1) as f32;
        Ok(finish(m, s))
    }
}

impl Generate {
    /// Notes a trained step of a batch; moves the adapter when enough of them have been summed.
    fn finish_step(&mut self, m: &mut Machine, s: &mut State) -> Result<()> {
        let c = m.config.clone();
        let bench = Bench::of(m)?;
        let advantages = &bench.advantages[self.batch * c.rollout.group..][..c.rollout.group];
        self.note(&format!("e{}.m{}", s.iteration, s.micro_steps), advantages, &c, &mut *bench.script);
        self.clipped += self.ratio.iter().filter(|r| (**r - 1.0).abs() > c.grpo.clip).count();
        self.ratios += self.ratio.len();
        for list in [&mut self.ratio, &mut self.loss, &mut self.kl, &mut self.distance] {
            list.clear();
        }
        (self.step, self.first) = (self.step + 1, 0);
        s.micro_steps += 1;
        if s.micro_steps.is_multiple_of(runs(&c)) {
            s.metrics.gradient_norm = optimiser_step(m, s)?;
            s.metrics.updates += 1;
        }
        Ok(())
    }
    fn note(&self, name: &str, advantages: &[f32], c: &Config, script: &mut dyn super::Script) {
        let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / x.len().max(1) as f64;
        let log: Vec<f32> = self.distance.iter().map(|d| -d).collect();
        let limit = |r: f32| r.clamp(1.0 - c.grpo.clip, 1.0 + c.grpo.clip);
        let clipped = self.ratio.iter().zip(advantages);
        let clipped: Vec<f32> = clipped.map(|(&r, a)| f32::from(u8::from(-a * limit(r) > -a * r))).collect();
        script.note(&format!("{name}.ratio"), &self.ratio);
        script.note(&format!("{name}.log_prob"), &log);
        script.note(&format!("{name}.advantages"), advantages);
        script.note(&format!("{name}.clipped"), &clipped);
        let (loss, kl) = (mean(&self.loss), mean(&self.kl));
        let policy = loss - f64::from(c.grpo.beta) * kl;
        script.note(&format!("{name}.policy_loss"), &[policy as f32]);
        script.note(&format!("{name}.kl"), &[kl as f32]);
        script.note(&format!("{name}.loss"), &[loss as f32]);
    }
}

/// The average is asked once per batch, with the global step; it may act never or more than once per step.
fn average(m: &mut Machine, s: &mut State) -> Result<()> {
    let leaves = m.params.leaves();
    let bench = Bench::of(m)?;
    let Some(ema) = &mut s.ema else { return Ok(()) };
    // Before the first optimiser step the average acts, and stays what it was.
    let moved = ema.average != s.values;
    let due = ema.step(&s.values, s.global_step, bench.schedule.ema_interval as u32);
    let changed = due && moved;
    let call = [s.iteration as f32, s.global_step as f32, f32::from(u8::from(changed))];
    bench.script.note("ema.call", &call);
    if changed {
        for ((name, _), data) in leaves.iter().zip(ema.average.iter()) {
            bench.script.note(&format!("ema.{}", name.replacen('/', ".", 1)), data);
        }
    }
    Ok(())
}

/// Clips, moves the adapter, forgets the gradients. Returns the norm before clipping.
fn optimiser_step(m: &mut Machine, s: &mut State) -> Result<f32> {
    let name = format!("e{}.opt{}", s.iteration, s.optimiser_steps);
    let leaves = m.params.leaves();
    let mut sum = core::mem::take(&mut s.carried);
    let script = &mut Bench::of(m)?.script;
    for ((leaf, _), grad) in leaves.iter().zip(&sum.0) {
        script.note(&format!("{name}.grad{}", leaf.trim_start_matches("lora")), grad);
    }
    let norm = sum.apply(m, s, m.config.optim.rate)?;
    let script = &mut Bench::of(m)?.script;
    script.note(&format!("{name}.grad_norm"), &[norm]);
    for ((leaf, _), data) in leaves.iter().zip(s.values.iter()) {
        script.note(&format!("{name}.{leaf}"), data);
    }
    s.optimiser_steps += 1;
    s.global_step += 1;
    Ok(norm)
}
