//! Drawing in the middle of training.
use super::Trainer;
use crate::{Error, Result};
use pentimento::pipeline::Sampling;

impl Trainer {
    /// Draws one image with the adapter that would be saved, `[H, W, 3]` in 0 to 1, and leaves the training as it was. `progress`
    /// is called with (done, all) sampling steps, often, and may stop the drawing by returning false.
    ///
    /// # Errors
    /// As [`pentimento::pipeline::Pipeline::generate`].
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
        // Not the run's own empty prompt: that may still be waiting for its encoder.
        let texts = self.pipeline().encode_while(&[prompt, ""], &mut || progress(0, how.steps));
        let image = texts.and_then(|t| self.pipeline().generate(&[(&t[0], seed)], &t[1], how, progress));
        self.show_average(false)?;
        Ok(image?.swap_remove(0))
    }
}
