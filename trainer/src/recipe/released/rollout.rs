//! One batch: images of one prompt, each from its own noise.
use super::Bench;
use crate::Result;
use crate::machine::Machine;
use crate::objective::grpo::Taken;
use crate::stage::Stage;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::{Text, Velocity};
use pentimento_runtime::sampler::CpsCoefficients;

/// A batch on its way to the update.
pub(super) struct Made {
    /// Index of its prompt.
    pub prompt: usize,
    /// Finished images in 0 to 1, `[H, W, 3]` each.
    pub images: Vec<Vec<f32>>,
    /// Its stochastic steps.
    pub taken: Vec<Taken>,
}

/// Samples a batch, step by step, at most a micro-batch a run; then decodes it, image by image.
pub(super) struct Sample {
    prompt: usize,
    /// What the script calls it.
    name: String,
    sigmas: Vec<f32>,
    step: usize,
    x: Vec<f32>,
    /// Guided velocities of the step so far.
    v: Vec<f32>,
    velocity: Option<Velocity>,
    taken: Vec<Taken>,
    images: Vec<Vec<f32>>,
}

impl Sample {
    /// Draws the noise of the epoch's batch `b`.
    pub fn begin(m: &mut Machine, s: &State, b: usize) -> Result<Self> {
        let name = format!("e{}.b{b}", s.iteration);
        let mut x = vec![0.0; m.config.rollout.group * m.per_image()];
        let sigmas = sigmas(m, m.config.rollout.steps)?;
        let bench = Bench::of(m)?;
        bench.script.noise(&format!("{name}.latents_init"), &mut x);
        let (v, taken, images) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Sample { prompt: bench.order[b], name, sigmas, step: 0, x, v, velocity: None, taken, images })
    }

    fn sampled(&self) -> bool {
        self.step + 1 >= self.sigmas.len()
    }

    /// From velocities to the next latents.
    fn finish_step(&mut self, m: &mut Machine) -> Result<()> {
        let (n, step, per) = (&self.name, self.step, m.per_image());
        let v = core::mem::take(&mut self.v);
        let pair = [self.sigmas[step], self.sigmas[step + 1]];
        let start = m.config.rollout.window_start.unwrap_or(0);
        let Machine { bench, config, pipeline, .. } = m;
        let Some(Bench { script, .. }) = bench else { return Ok(()) };
        script.note(&format!("{n}.s{step}.velocity_cfg"), &v);
        if (start..start + config.rollout.window).contains(&step) {
            let mut z = vec![0.0; self.x.len()];
            script.noise(&format!("{n}.s{step}.noise"), &mut z);
            let shape = [per, pipeline.mmdit.in_channels];
            let taken = Taken::step(config, pair, &self.x, &v, &z, shape)?;
            let log: Vec<f32> = taken.old.iter().map(|d| -d).collect();
            script.note(&format!("{n}.s{step}.log_prob"), &log);
            self.x.clone_from(&taken.next);
            self.taken.push(taken);
        } else {
            self.x = CpsCoefficients::new(pair[0], pair[1], 0.0)?.mean(&self.x, &v)?;
        }
        script.note(&format!("{n}.s{step}.latents_after"), &self.x);
        self.step += 1;
        Ok(())
    }
}

impl Stage for Sample {
    fn launch(&mut self, m: &mut Machine, _: &mut State) -> Result<Option<PlanId>> {
        let per = m.per_image();
        if !self.sampled() {
            let rest = &self.x[self.v.len()..];
            let part = &rest[..rest.len().min(m.config.optim.micro_batch.max(1) * per)];
            let velocity = write(m, part, self.sigmas[self.step], self.prompt)?;
            self.velocity = Some(velocity);
            return Ok(Some(velocity.plan));
        }
        let Some(x) = self.x.chunks_exact(per).nth(self.images.len()) else { return Ok(None) };
        let decoder = m.pipeline.decoder(1, m.size)?;
        m.pipeline.exec.write(decoder, "latents", x)?;
        Ok(Some(decoder))
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        if let (false, Some(velocity)) = (self.sampled(), self.velocity) {
            let c = &m.config.rollout;
            self.v.extend(m.pipeline.read_velocity(velocity, c.guided().then_some(c.guidance))?);
            if self.v.len() < self.x.len() {
                return Ok(Event::Working);
            }
            self.finish_step(m)?;
            return Ok(s.part());
        }
        let decoder = m.pipeline.decoder(1, m.size)?;
        self.images.push(m.pipeline.exec.read(decoder, "image")?);
        if self.images.len() == m.config.rollout.group {
            let (images, taken) = (self.images.clone(), core::mem::take(&mut self.taken));
            let bench = Bench::of(m)?;
            bench.script.note(&format!("{}.images01", self.name), &images.concat());
            bench.batches.push(Made { prompt: self.prompt, images, taken });
        }
        Ok(Event::Working)
    }
}

/// Noise levels of a run, the final 0 included.
pub(super) fn sigmas(m: &Machine, steps: usize) -> Result<Vec<f32>> {
    let tokens = m.pipeline.mmdit.image_tokens(m.size[0], m.size[1]);
    m.pipeline.schedule.sigmas(steps, m.pipeline.schedule.mu(tokens as u32))
}

/// Writes the inputs of a velocity run of images that share a prompt; `x` is a whole number of images.
pub(super) fn write(m: &mut Machine, x: &[f32], sigma: f32, prompt: usize) -> Result<Velocity> {
    let (n, guided) = (x.len() / m.per_image(), m.config.rollout.guided());
    let velocity = m.pipeline.velocity(if guided { 2 * n } else { n }, m.size)?;
    let texts: Vec<&Text> = vec![&m.known.prompts[prompt]; n];
    let null = guided.then_some(&m.known.null);
    m.pipeline.write_velocity(velocity, x, sigma, &texts, null)?;
    Ok(velocity)
}
