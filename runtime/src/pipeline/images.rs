//! Texts to images, one plan run at a time.
use super::{Pipeline, Sampling, Text, noise};
use crate::exec::PlanId;
use crate::{Error, Result, sampler};
use alloc::{vec, vec::Vec};

/// Images that are being sampled together, one plan run at a time. Made by [`Pipeline::begin_images`].
#[derive(Debug)]
pub struct Images {
    texts: Vec<Text>,
    null: Text,
    how: Sampling,
    size: [usize; 2],
    /// Numbers in the latents of one image.
    per: usize,
    sigmas: Vec<f32>,
    step: usize,
    latents: Vec<f32>,
    velocity: Vec<f32>,
    /// What the decoder is to show before sampling goes on.
    preview: bool,
    decoded: Vec<Vec<f32>>,
}

impl Images {
    /// Sampling steps that are done, and all.
    pub fn progress(&self) -> (usize, usize) {
        (self.step, self.how.steps)
    }
    fn guidance(&self) -> Option<f32> {
        sampler::guides(self.how.guidance).then_some(self.how.guidance)
    }
    /// Asks for a look at the first image as it would be if the last step's velocity held: the next run decodes it, and
    /// [`Images::take_preview`] gives it. Before the first step and after the last there is nothing to see.
    pub fn ask_preview(&mut self) {
        self.preview = self.step > 0 && self.step < self.how.steps;
    }
    /// The preview that was asked for, once its run was read.
    pub fn take_preview(&mut self) -> Option<Vec<f32>> {
        if self.step < self.how.steps { self.decoded.pop() } else { None }
    }
    /// Latents of the first image without the noise that is left, by the last velocity.
    fn foreseen(&self) -> Vec<f32> {
        let sigma = self.sigmas[self.step];
        self.latents[..self.per].iter().zip(&self.velocity).map(|(x, v)| x - sigma * v).collect()
    }
}

impl Pipeline {
    /// Begins to sample one image per (text, seed), as [`Pipeline::generate`] does.
    ///
    /// # Errors
    /// A size the model cannot draw, no texts, or steps or guidance that cannot be.
    pub fn begin_images(&mut self, texts: &[(&Text, u64)], null: &Text, how: &Sampling) -> Result<Images> {
        let size = self.latent_size(how.width, how.height)?;
        sampler::check_guidance(how.guidance)?;
        if texts.is_empty() {
            return Err(Error::missing("images", "at least one text"));
        }
        let per = size[0] * size[1] * self.mmdit.in_channels;
        let mu = self.schedule.mu(self.mmdit.image_tokens(size[0], size[1]) as u32);
        let sigmas = self.schedule.sigmas(how.steps, mu)?;
        let mut latents = vec![0.0; texts.len() * per];
        for ((_, seed), x) in texts.iter().zip(latents.chunks_exact_mut(per)) {
            noise(*seed, x);
        }
        Ok(Images {
            texts: texts.iter().map(|t| t.0.clone()).collect(),
            null: null.clone(),
            how: how.clone(),
            size,
            per,
            sigmas,
            step: 0,
            latents,
            velocity: Vec::new(),
            preview: false,
            decoded: Vec::new(),
        })
    }

    /// Writes the inputs of the next run and returns its plan; `None` when nothing is left to run.
    ///
    /// # Errors
    /// As [`Pipeline::compile`].
    pub fn launch_images(&mut self, job: &mut Images) -> Result<Option<PlanId>> {
        let (n, guidance) = (job.texts.len(), job.guidance());
        let plan = if job.preview || job.step == job.how.steps {
            let x = if job.preview {
                job.foreseen()
            } else {
                let left = job.latents.chunks_exact(job.per).nth(job.decoded.len());
                let Some(x) = left else { return Ok(None) };
                x.to_vec()
            };
            let plan = self.decoder(1, job.size)?;
            self.exec.write(plan, "latents", &x)?;
            plan
        } else {
            let velocity = self.velocity(if guidance.is_some() { 2 * n } else { n }, job.size)?;
            let texts: Vec<&Text> = job.texts.iter().collect();
            let null = guidance.map(|_| &job.null);
            self.write_velocity(velocity, &job.latents, job.sigmas[job.step], &texts, null)?;
            velocity.plan
        };
        self.exec.rewind(plan);
        Ok(Some(plan))
    }

    /// Reads the finished run.
    ///
    /// # Errors
    /// The device failed.
    pub fn collect_images(&mut self, job: &mut Images) -> Result<()> {
        if job.preview || job.step == job.how.steps {
            let plan = self.decoder(1, job.size)?;
            job.decoded.push(self.exec.read(plan, "image")?);
            job.preview = false;
            return Ok(());
        }
        let (n, guidance) = (job.texts.len(), job.guidance());
        let velocity = self.velocity(if guidance.is_some() { 2 * n } else { n }, job.size)?;
        job.velocity = self.read_velocity(velocity, guidance)?;
        let (from, to) = (job.sigmas[job.step], job.sigmas[job.step + 1]);
        job.latents = sampler::euler(&job.latents, &job.velocity, from, to)?;
        job.step += 1;
        job.decoded.clear(); // a preview that nobody took
        Ok(())
    }

    /// The images of a job that has nothing left to run, `[H, W, 3]` in 0 to 1.
    ///
    /// # Errors
    /// A job that is not done.
    pub fn finish_images(&mut self, job: Images) -> Result<Vec<Vec<f32>>> {
        if job.step < job.how.steps || job.decoded.len() < job.texts.len() {
            return Err(Error::missing("images", "runs that are still to be made"));
        }
        Ok(job.decoded)
    }

    /// Samples one image per (text, seed), `[H, W, 3]` in 0 to 1. `null`: the text that guidance leads away from, that of the empty prompt or
    /// of a negative one. `progress` is called with (done, all) of the steps, before every submit and after every step, and may stop the work
    /// by returning false.
    ///
    /// # Errors
    /// A size the model cannot draw, the device failed, or [`Error::Cancelled`].
    pub fn generate(
        &mut self,
        texts: &[(&Text, u64)],
        null: &Text,
        how: &Sampling,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<Vec<f32>>> {
        let mut job = self.begin_images(texts, null, how)?;
        while let Some(plan) = self.launch_images(&mut job)? {
            let (done, all) = job.progress();
            self.run_while(plan, &mut || progress(done, all))?;
            self.collect_images(&mut job)?;
            if job.step > done && !progress(job.step, all) {
                return Err(Error::Cancelled);
            }
        }
        self.finish_images(job)
    }
}
