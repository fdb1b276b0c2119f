//! One batch: images of one prompt, each from its own noise.
use super::{Official, Script};
use crate::objective::grpo::Taken;
use crate::{Error, Result};
use pentimento::pipeline::Text;
use pentimento::sampler::CpsCoefficients;

/// A batch on its way to the update.
pub(super) struct Batch {
    /// Index of its prompt.
    pub prompt: usize,
    /// Finished images in 0 to 1, `[H, W, 3]` each.
    pub images: Vec<Vec<f32>>,
    /// Its stochastic steps.
    pub taken: Vec<Taken>,
}

impl Official {
    /// Numbers in the latents of one image.
    pub(super) fn per_image(&self) -> usize {
        self.size[0] * self.size[1] * self.pipeline.mmdit.in_channels
    }

    /// Samples a batch; `progress` hears of every step.
    pub(super) fn rollout(
        &mut self,
        prompt: usize,
        name: &str,
        script: &mut dyn Script,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Batch> {
        let (per, group) = (self.per_image(), self.config.rollout.group);
        let mut x = vec![0.0; group * per];
        script.noise(&format!("{name}.latents_init"), &mut x);
        let sigmas = self.sigmas(self.config.rollout.steps)?;
        let start = self.config.rollout.window_start.unwrap_or(0);
        let mut taken = Vec::with_capacity(self.config.rollout.window);
        for (s, pair) in sigmas.windows(2).enumerate() {
            let v = self.guided(&x, pair[0], prompt)?;
            script.note(&format!("{name}.s{s}.velocity_cfg"), &v);
            if (start..start + self.config.rollout.window).contains(&s) {
                let mut z = vec![0.0; x.len()];
                script.noise(&format!("{name}.s{s}.noise"), &mut z);
                let shape = [per, self.pipeline.mmdit.in_channels];
                let step = Taken::step(&self.config, [pair[0], pair[1]], &x, &v, &z, shape)?;
                let log: Vec<f32> = step.old.iter().map(|d| -d).collect();
                script.note(&format!("{name}.s{s}.log_prob"), &log);
                x.clone_from(&step.next);
                taken.push(step);
            } else {
                x = CpsCoefficients::new(pair[0], pair[1], 0.0)?.mean(&x, &v)?;
            }
            script.note(&format!("{name}.s{s}.latents_after"), &x);
            if !progress(s + 1) {
                return Err(Error::Cancelled);
            }
        }
        let images = self.decode(&x)?;
        script.note(&format!("{name}.images01"), &images.concat());
        Ok(Batch { prompt, images, taken })
    }

    /// Noise levels of a run, the final 0 included.
    fn sigmas(&self, steps: usize) -> Result<Vec<f32>> {
        let tokens = self.pipeline.mmdit.image_tokens(self.size[0], self.size[1]);
        self.pipeline.schedule.sigmas(steps, self.pipeline.schedule.mu(tokens as u32))
    }
    /// Guided velocity of images that share a prompt; `x` is a whole number of images.
    fn guided(&mut self, x: &[f32], sigma: f32, prompt: usize) -> Result<Vec<f32>> {
        let most = self.config.optim.micro_batch.max(1) * self.per_image();
        let guided = self.config.rollout.guidance != 1.0;
        let mut out = Vec::with_capacity(x.len());
        for part in x.chunks(most) {
            let n = part.len() / self.per_image();
            let velocity = self.pipeline.velocity(if guided { 2 * n } else { n }, self.size)?;
            let texts: Vec<&Text> = vec![&self.prompts[prompt].text; n];
            let null = guided.then_some(&self.null);
            self.pipeline.write_velocity(velocity, part, sigma, &texts, null)?;
            self.pipeline.exec.run(velocity.plan)?;
            out.extend(
                self.pipeline.read_velocity(velocity, guided.then_some(self.config.rollout.guidance))?,
            );
        }
        Ok(out)
    }
    /// Latents to images in 0 to 1.
    fn decode(&mut self, x: &[f32]) -> Result<Vec<Vec<f32>>> {
        let decoder = self.pipeline.decoder(1, self.size)?;
        let mut images = Vec::new();
        for x in x.chunks_exact(self.per_image()) {
            self.pipeline.exec.write(decoder, "latents", x)?;
            self.pipeline.exec.run(decoder)?;
            images.push(self.pipeline.exec.read(decoder, "image")?);
        }
        Ok(images)
    }

    /// Draws with the averaged adapter and no noise, as the released evaluation does; one image per row of `x`, which
    /// holds the initial latents. The adapter in training comes back afterwards.
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
        let sigmas = self.sigmas(steps)?;
        let per = self.per_image();
        for (s, pair) in sigmas.windows(2).enumerate() {
            let rows: Vec<Vec<f32>> = x
                .chunks_exact(per)
                .zip(prompts)
                .map(|(row, &prompt)| {
                    let v = self.guided(row, pair[0], prompt)?;
                    CpsCoefficients::new(pair[0], pair[1], 0.0)?.mean(row, &v)
                })
                .collect::<Result<_>>()?;
            x = rows.concat();
            script.note(&format!("eval.b0.s{s}.latents_after"), &x);
        }
        let images = self.decode(&x)?;
        script.note("eval.images01", &images.concat());
        self.show_average(false)?;
        Ok(images)
    }
}
