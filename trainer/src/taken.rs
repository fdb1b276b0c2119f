//! Stochastic steps as they were taken, and how they come back as the inputs of [`crate::objective::grpo`].
use crate::Result;
use crate::config::Config;
use crate::objective;
use pentimento::exec::PlanId;
use pentimento::model::mmdit::time_projection;
use pentimento::pipeline::{Pipeline, Text};
use pentimento::sampler::CpsCoefficients;

/// One stochastic step of some images.
pub struct Taken {
    /// Noise level before the step.
    pub sigma: f32,
    /// Of the step.
    pub coefficients: CpsCoefficients,
    /// Numbers in the latents of one image.
    pub per: usize,
    /// Latents before, image after image.
    pub x: Vec<f32>,
    /// Latents after.
    pub next: Vec<f32>,
    /// `-logp` of each place, image after image.
    pub old: Vec<f32>,
}

/// The images of one training run and what they count.
pub struct Rows<'a> {
    /// Index of each sample's image.
    pub images: &'a [usize],
    /// Text of each sample.
    pub texts: &'a [&'a Text],
    /// Advantages of all images, `[images, places]`.
    pub advantages: &'a [f32],
    /// Weight of each place's loss in that of the optimiser step, `[samples, places]`; 0 leaves a sample out.
    pub seed: &'a [f32],
}

impl Taken {
    /// The step to `next_sigma` with noise `z`, from guided velocities `v` of images of `per` numbers in `channels`.
    ///
    /// # Errors
    /// Sigmas or lengths that do not fit.
    pub fn step(
        config: &Config,
        [sigma, next_sigma]: [f32; 2],
        x: &[f32],
        v: &[f32],
        z: &[f32],
        [per, channels]: [usize; 2],
    ) -> Result<Taken> {
        let coefficients = CpsCoefficients::new(sigma, next_sigma, config.eta)?;
        let mean = coefficients.mean(x, v)?;
        let next = coefficients.next(&mean, z)?;
        let images = next.chunks_exact(per.max(1)).zip(mean.chunks_exact(per.max(1)));
        let old = images.map(|(n, m)| objective::distances(config, n, m, channels));
        let old = old.collect::<Result<Vec<_>>>()?.concat();
        Ok(Taken { sigma, coefficients, per, x: x.to_vec(), next, old })
    }

    /// Writes the inputs of a training run.
    ///
    /// # Errors
    /// Images that do not exist and lengths that do not fit the plan.
    pub fn write(
        &self,
        pipeline: &mut Pipeline,
        plan: PlanId,
        config: &Config,
        rows: &Rows<'_>,
        null: &Text,
    ) -> Result<()> {
        let n = rows.images.len();
        let time = time_projection(pipeline.schedule.timestep(self.sigma)).repeat(n);
        // Each list below holds as many numbers for every image.
        let all = (self.x.len() / self.per.max(1)).max(1);
        let pick = |data: &[f32]| -> Vec<f32> {
            let width = data.len() / all;
            rows.images.iter().flat_map(|&i| data.iter().skip(i * width).take(width).copied()).collect()
        };
        let text = |f: fn(&Text) -> &[f32]| rows.texts.iter().flat_map(|t| f(t)).copied().collect();
        let inputs: [(&str, Vec<f32>); 10] = [
            ("latents", pick(&self.x)),
            ("next", pick(&self.next)),
            ("old", pick(&self.old)),
            ("advantage", pick(rows.advantages)),
            ("seed", rows.seed.to_vec()),
            ("mean_x", vec![self.coefficients.mean_x; n]),
            ("mean_v", vec![self.coefficients.mean_v; n]),
            ("time", time.clone()),
            ("context", text(|t| &t.context)),
            ("pooled", text(|t| &t.pooled)),
        ];
        for (name, data) in inputs {
            pipeline.exec.write(plan, name, &data)?;
        }
        if config.guidance != 1.0 {
            pipeline.exec.write(plan, "u.time", &time)?;
            pipeline.exec.write(plan, "u.context", &null.context.repeat(n))?;
            pipeline.exec.write(plan, "u.pooled", &null.pooled.repeat(n))?;
        }
        Ok(())
    }
}
