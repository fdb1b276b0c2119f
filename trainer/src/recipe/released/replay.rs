//! What a replay of a recorded run sets and asks.
use super::rollout::{sigmas, write};
use super::{Bench, Script};
use crate::adapter::Adapter;
use crate::train::Trainer;
use crate::{Error, Result};
use pentimento_runtime::pipeline::Text;
use pentimento_runtime::sampler::CpsCoefficients;
use std::sync::Arc;

impl Trainer {
    /// Takes the released schedule's randomness from elsewhere than the seed.
    ///
    /// # Errors
    /// Another recipe.
    pub fn set_script(&mut self, script: Box<dyn Script>) -> Result<()> {
        Bench::of(&mut self.machine)?.script = script;
        Ok(())
    }
    /// Replaces the adapter, in training and averaged; the optimiser starts anew.
    ///
    /// # Errors
    /// An adapter of another rank or with other targets.
    pub fn start_from(&mut self, adapter: &Adapter) -> Result<()> {
        let (m, s) = (&mut self.machine, &mut self.state);
        let (rank, scale) = (m.config.rank, m.config.lora_scale);
        let mut values = Vec::with_capacity(s.values.len());
        for (target, i, o) in &m.params.targets {
            let pair =
                adapter.pairs.get(target).filter(|p| (p.rank, p.inputs(), p.outputs()) == (rank, *i, *o));
            let Some(pair) = pair else {
                let expected = format!("factors of rank {rank} from {i} to {o} numbers");
                return Err(Error::bad(target.as_str(), expected, "none or others"));
            };
            values.push(pair.a.clone());
            values.push(pair.b.iter().map(|b| b / scale).collect());
        }
        s.values = Arc::new(values);
        s.restart(&m.config);
        m.set_adapter(&s.values)
    }
    /// Replaces what the released schedule's judge learns: the head's four tensors ([`crate::reward::head::NAMES`]).
    ///
    /// # Errors
    /// Other lengths, a PickScore, which starts from its checkpoint, or another recipe; the device failed.
    pub fn start_head_from(&mut self, params: Vec<Vec<f32>>) -> Result<()> {
        let bench = self.machine.bench.as_mut();
        let bench = bench.ok_or_else(|| Error::missing("recipe", "the released schedule"))?;
        bench.judge.start_from(&mut *self.machine.pipeline.exec, params)
    }
    /// The released schedule's steps so far: epochs that trained the judge, and the generator's optimiser steps.
    pub fn global_step(&self) -> u32 {
        self.state.global_step
    }
    /// The encoded prompts, the empty one first; not before the preparation is complete.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        core::iter::once(&self.machine.known.null).chain(&self.machine.known.prompts)
    }
    /// The adapter in training, as the last optimiser step left it.
    ///
    /// # Errors
    /// As [`Trainer::adapter`].
    pub fn trained(&self) -> Result<Adapter> {
        self.machine.adapter(&self.state.values)
    }

    /// Draws with the averaged adapter and no noise, as the released evaluation does; one image per row of `x`, which
    /// holds the initial latents. The adapter in training comes back afterwards. Blocks.
    ///
    /// # Errors
    /// The device failed.
    pub fn evaluate(
        &mut self,
        prompts: &[usize],
        steps: usize,
        mut x: Vec<f32>,
        script: &mut dyn Script,
    ) -> Result<Vec<Vec<f32>>> {
        self.show_average(true)?;
        let m = &mut self.machine;
        let (sigmas, per) = (sigmas(m, steps)?, m.per_image());
        let guidance = m.config.rollout.guided().then_some(m.config.rollout.guidance);
        for (s, pair) in sigmas.windows(2).enumerate() {
            for (row, &prompt) in x.chunks_exact_mut(per).zip(prompts) {
                let velocity = write(m, row, pair[0], prompt)?;
                m.pipeline.exec.run(velocity.plan)?;
                let v = m.pipeline.read_velocity(velocity, guidance)?;
                row.copy_from_slice(&CpsCoefficients::new(pair[0], pair[1], 0.0)?.mean(row, &v)?);
            }
            script.note(&format!("eval.b0.s{s}.latents_after"), &x);
        }
        let decoder = m.pipeline.decoder(1, m.size)?;
        let mut images = Vec::new();
        for x in x.chunks_exact(per) {
            m.pipeline.exec.write(decoder, "latents", x)?;
            m.pipeline.exec.run(decoder)?;
            images.push(m.pipeline.exec.read(decoder, "image")?);
        }
        script.note("eval.images01", &images.concat());
        self.show_average(false)?;
        Ok(images)
    }
}
