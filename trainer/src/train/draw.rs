//! Drawing in the middle of training.
use super::Trainer;
use crate::stage::prepare;
use crate::{Error, Result};
use pentimento_runtime::pipeline::{Sampling, Text};

/// Encoded prompts of drawings that are kept; those of SD3.5 take 5 MB each.
const MOST_TEXTS: usize = 16;

impl Trainer {
    /// Encodes the training's texts and `others`, which are returned, in a device that holds nothing else yet, and lets the encoders leave it
    /// again. Otherwise the first steps do so, beside what was drawn before. `more` may stop it by returning false. Blocks.
    ///
    /// # Errors
    /// A training that has begun; as [`pentimento_runtime::pipeline::Pipeline::encode_while`].
    pub fn encode(&mut self, others: &[&str], more: &mut dyn FnMut() -> bool) -> Result<Vec<Text>> {
        if self.machine.clock.now() > 0.0 {
            return Err(Error::call("training", "one that has not begun", "one that has"));
        }
        let m = &mut self.machine;
        let own = m.known.list().len();
        let all: Vec<&str> =
            m.known.list().iter().map(String::as_str).chain(others.iter().copied()).collect();
        let mut texts = m.pipeline.encode_while(&all, more)?;
        let others = texts.split_off(own.min(texts.len()));
        prepare::read(m, texts)?;
        Ok(others)
    }

    /// Draws one image with the adapter that would be saved, `[H, W, 3]` in 0 to 1, and leaves the training as it was. `progress`
    /// is called with (done, all) sampling steps, often, and may stop the drawing by returning false.
    ///
    /// # Errors
    /// As [`pentimento_runtime::pipeline::Pipeline::generate`].
    pub fn draw(
        &mut self,
        prompt: &str,
        seed: u64,
        how: &Sampling,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Vec<f32>> {
        // A half-done run may be one of the plans needed here: finish it, and keep its news for the next step.
        while self.running.is_some() {
            if !progress(0, how.steps) {
                return Err(Error::Cancelled);
            }
            let event = self.step()?;
            if self.running.is_none() {
                self.held = Some(event);
            }
        }
        self.show_average(true)?;
        let mut more = || progress(0, how.steps);
        let texts = self.text(prompt, &mut more).and_then(|text| Ok([text, self.text("", &mut more)?]));
        let image = texts.and_then(|t| self.pipeline().generate(&[(&t[0], seed)], &t[1], how, progress));
        let own = self.machine.size;
        self.pipeline().forget_plans(&|_, size| size == own)?;
        self.show_average(false)?;
        Ok(image?.swap_remove(0))
    }

    /// A prompt for drawing, from those of the training or earlier drawings. The encoders leave the device again.
    fn text(&mut self, prompt: &str, more: &mut dyn FnMut() -> bool) -> Result<Text> {
        if let Some(text) = self.machine.known.find(prompt).or_else(|| self.texts.get(prompt)) {
            return Ok(text.clone());
        }
        let encoded = self.pipeline().encode_while(&[prompt], more)?.swap_remove(0);
        self.pipeline().forget_texts()?;
        if self.texts.len() >= MOST_TEXTS {
            self.texts.clear();
        }
        Ok(self.texts.entry(prompt.into()).or_insert(encoded).clone())
    }
}
