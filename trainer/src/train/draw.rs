//! Drawing in the middle of training.
use super::Trainer;
use crate::stage::prepare;
use crate::{Error, Result};
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::{Images, Sampling, Text, Texts};

/// Encoded prompts of drawings that are kept; those of SD3.5 take 5 MB each.
const MOST_TEXTS: usize = 16;

impl Trainer {
    /// Whether the training's texts are encoded.
    pub fn has_read(&self) -> bool {
        self.machine.known.read()
    }
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
}

/// A drawing in the middle of training, one piece of work at a time. Made by [`Trainer::begin_drawing`].
pub struct Glimpse {
    prompt: String,
    negative: String,
    seed: u64,
    how: Sampling,
    part: Part,
    running: Option<PlanId>,
}

/// What a drawing is at.
enum Part {
    /// A run of the training may be half done.
    Waiting,
    Texts(Vec<String>, Texts),
    Images(Images),
}

impl Glimpse {
    /// Sampling steps that are done, and all.
    pub fn progress(&self) -> (usize, usize) {
        match &self.part {
            Part::Images(images) => images.progress(),
            Part::Waiting | Part::Texts(..) => (0, self.how.steps),
        }
    }
}

impl Trainer {
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
        let mut glimpse = self.begin_drawing(prompt, "", seed, how);
        loop {
            let (done, all) = glimpse.progress();
            if !progress(done, all) {
                self.put_away()?;
                return Err(Error::Cancelled);
            }
            if let Some(image) = self.draw_on(&mut glimpse)? {
                return Ok(image);
            }
        }
    }

    /// Begins a drawing as [`Trainer::draw`] makes it; guidance leads away from `negative`.
    pub fn begin_drawing(&self, prompt: &str, negative: &str, seed: u64, how: &Sampling) -> Glimpse {
        let (prompt, negative) = (prompt.into(), negative.into());
        Glimpse { prompt, negative, seed, how: how.clone(), part: Part::Waiting, running: None }
    }

    /// Does the next piece of a drawing; gives the image when it is done. Where [`Trainer::step`] came between, the drawing begins anew.
    ///
    /// # Errors
    /// As [`Trainer::draw`]; the training can go on.
    pub fn draw_on(&mut self, glimpse: &mut Glimpse) -> Result<Option<Vec<f32>>> {
        let drawn = self.piece(glimpse);
        if drawn.is_err() {
            let _ = self.put_away(); // the first error is the one to be told
        }
        drawn
    }
    fn piece(&mut self, glimpse: &mut Glimpse) -> Result<Option<Vec<f32>>> {
        if !self.glimpsing {
            (glimpse.part, glimpse.running) = (Part::Waiting, None);
        }
        if let Some(plan) = glimpse.running {
            if self.pipeline().exec.advance(plan)? {
                glimpse.running = None;
                match &mut glimpse.part {
                    Part::Waiting => {}
                    Part::Texts(_, texts) => self.pipeline().collect_texts(texts)?,
                    Part::Images(images) => self.pipeline().collect_images(images)?,
                }
            }
            return Ok(None);
        }
        let next = match &mut glimpse.part {
            Part::Waiting if self.running.is_some() => {
                // One of the plans needed here may be half done: finish it, and keep its news for the next step.
                let event = self.step()?;
                if self.running.is_none() {
                    self.held = Some(event);
                }
                return Ok(None);
            }
            Part::Waiting => {
                self.show_average(true)?;
                self.glimpsing = true;
                return self.read(glimpse).map(|()| None);
            }
            Part::Texts(_, texts) => self.machine.pipeline.launch_texts(texts)?,
            Part::Images(images) => self.machine.pipeline.launch_images(images)?,
        };
        if let Some(plan) = next {
            self.pipeline().exec.rewind(plan);
            glimpse.running = Some(plan);
            return Ok(None);
        }
        match core::mem::replace(&mut glimpse.part, Part::Waiting) {
            Part::Images(images) => {
                let image = self.pipeline().finish_images(images)?.swap_remove(0);
                self.put_away()?;
                Ok(Some(image))
            }
            Part::Texts(prompts, texts) => {
                let encoded = self.pipeline().finish_texts(texts)?;
                self.pipeline().forget_texts()?; // the encoders leave the device again
                if self.texts.len() + prompts.len() > MOST_TEXTS {
                    self.texts.clear();
                }
                self.texts.extend(prompts.into_iter().zip(encoded));
                self.read(glimpse).map(|()| None)
            }
            Part::Waiting => Ok(None),
        }
    }

    /// Goes on to the images, or to the texts where one is missing.
    fn read(&mut self, glimpse: &mut Glimpse) -> Result<()> {
        let known = |text: &str| self.machine.known.find(text).or_else(|| self.texts.get(text));
        glimpse.part = match (known(&glimpse.prompt), known(&glimpse.negative)) {
            (Some(text), Some(null)) => {
                let (text, null) = (text.clone(), null.clone());
                let texts = [(&text, glimpse.seed)];
                Part::Images(self.machine.pipeline.begin_images(&texts, &null, &glimpse.how)?)
            }
            (text, null) => {
                let both = [(&glimpse.prompt, text.is_none()), (&glimpse.negative, null.is_none())];
                let missing: Vec<String> = both.into_iter().filter(|b| b.1).map(|b| b.0.clone()).collect();
                let list: Vec<&str> = missing.iter().map(String::as_str).collect();
                let texts = self.machine.pipeline.begin_texts(&list)?;
                Part::Texts(missing, texts)
            }
        };
        Ok(())
    }

    /// Lets a drawing go: the device gets the training's adapter back, and what it keeps for other sizes is freed.
    ///
    /// # Errors
    /// The device failed.
    pub(super) fn put_away(&mut self) -> Result<()> {
        if core::mem::take(&mut self.glimpsing) {
            let own = self.machine.size;
            self.pipeline().forget_plans(&|_, size| size == own)?;
            self.show_average(false)?;
        }
        Ok(())
    }
}
