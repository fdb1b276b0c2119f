//! Encoding as a series of plan runs, so that a caller can pause between any two.
use super::{COMPONENTS, Text, TextEncoders};
use crate::exec::{Executor, PlanId};
use crate::model::{lora, t5};
use crate::{Error, Result};
use alloc::{borrow::ToOwned, format, string::String, vec, vec::Vec};

/// Prompts on their way through the encoders; several may be under way, but what is launched must be collected before another
/// launch. All through the first CLIP, then the second, then T5 block by block, whose
/// weights come to the device once. Made by [`TextEncoders::begin`].
#[derive(Debug)]
pub struct Encoding {
    prompts: Vec<String>,
    texts: Vec<Text>,
    /// T5 states between blocks, `[T, C]` each.
    states: Vec<Vec<f32>>,
    /// CLIP encoder, or T5 block counted on from them.
    stage: usize,
    /// The prompt whose run is next, or under way.
    prompt: usize,
}

impl Encoding {
    /// The finished texts, in the prompts' order.
    pub fn into_texts(self) -> Vec<Text> {
        self.texts
    }
    /// Prompts times stages behind us.
    pub fn done(&self) -> usize {
        self.stage * self.prompts.len() + self.prompt
    }
}

impl TextEncoders {
    /// Plan runs that a prompt takes.
    pub fn stages(&self) -> usize {
        self.clips.len() + self.t5.as_ref().map_or(0, |(t5, _)| t5.config.num_layers)
    }

    /// Begins to encode prompts.
    pub fn begin(&self, prompts: &[&str]) -> Encoding {
        let layout = self.layout();
        let empty = Text { context: vec![0.0; layout.tokens * layout.width], pooled: Vec::new() };
        Encoding {
            prompts: prompts.iter().map(|&p| p.to_owned()).collect(),
            texts: vec![empty; prompts.len()],
            states: Vec::new(),
            stage: 0,
            prompt: 0,
        }
    }

    /// Writes the inputs of the next run and returns its plan; `None` when all prompts are encoded.
    ///
    /// # Errors
    /// Damaged checkpoints, a tokenizer that does not belong to its encoder, or the device failed.
    pub fn launch(&mut self, exec: &mut dyn Executor, job: &mut Encoding) -> Result<Option<PlanId>> {
        let Some(prompt) = job.prompts.get(job.prompt).filter(|_| job.stage < self.stages()) else {
            return Ok(None);
        };
        if let (Some((clip, plan)), Some(component)) =
            (self.clips.get_mut(job.stage), COMPONENTS.get(job.stage))
        {
            let plan = match *plan {
                Some(plan) => plan,
                None => *plan.insert(clip.prepare(exec, component)?),
            };
            clip.write(exec, plan, prompt)?;
            return Ok(Some(plan));
        }
        let block = job.stage - self.clips.len();
        let length = self.t5_tokens;
        let Some((t5, runner)) = &mut self.t5 else { return Ok(None) };
        let runner = match runner {
            Some(runner) => runner,
            None => {
                let pairs = t5.pairs.clone();
                let component = COMPONENTS[2];
                runner.insert(t5::Encoder::new(exec, &t5.config, component, &t5.weights, pairs, length)?)
            }
        };
        if block == 0 && job.prompt == 0 {
            let ids: Vec<_> = job.prompts.iter().map(|p| t5.tokenizer.encode(p, length)).collect();
            job.states = runner.embed(&t5.weights, &ids)?;
        }
        // Another encoding may have been here since.
        if self.block != Some(block) {
            self.block = None;
            runner.load(exec, &t5.weights, block)?;
            self.block = Some(block);
        }
        Ok(Some(runner.write(exec, &job.states[job.prompt])?))
    }

    /// Reads the finished run that [`TextEncoders::launch`] prepared.
    ///
    /// # Errors
    /// Nothing was launched, or the device failed.
    pub fn collect(&mut self, exec: &mut dyn Executor, job: &mut Encoding) -> Result<()> {
        let (layout, clips) = (self.layout(), self.clips.len());
        let stages = self.stages();
        let Some(text) = job.texts.get_mut(job.prompt).filter(|_| job.stage < stages) else {
            return Err(Error::missing("text encoders", format!("a prompt number {}", job.prompt)));
        };
        let nothing = || Error::missing("text encoders", "a run to read");
        if let Some((clip, plan)) = self.clips.get(job.stage) {
            let column = self.clips.iter().take(job.stage).map(|(c, _)| c.config.hidden_size).sum();
            clip.read(exec, plan.ok_or_else(nothing)?, layout.width, column, text)?;
        } else if let Some((_, runner)) = &self.t5 {
            let runner = runner.as_ref().ok_or_else(nothing)?;
            job.states[job.prompt] = runner.read(exec, job.stage - clips)?;
            if job.stage + 1 == stages {
                text.context.truncate(self.clip_tokens() * layout.width);
                text.context.append(&mut job.states[job.prompt]);
            }
        }
        job.prompt += 1;
        if job.prompt == job.prompts.len() {
            (job.prompt, job.stage) = (0, job.stage + 1);
        }
        Ok(())
    }

    /// Frees plans and weights; they come back with the next launch. What was launched must have been collected before; an encoding that
    /// is under way goes on afterwards.
    ///
    /// # Errors
    /// Another plan that reads the weights, or the device failed.
    pub fn forget(&mut self, exec: &mut dyn Executor) -> Result<()> {
        let clips = self.clips.iter_mut().filter_map(|(_, plan)| plan.take());
        let t5 = self.t5.iter_mut().filter_map(|(_, runner)| runner.take().map(|runner| runner.plan()));
        clips.chain(t5).try_for_each(|plan| exec.forget(plan))?;
        self.block = None;
        for component in COMPONENTS {
            exec.forget_leaves(&format!("{component}/"))?;
            exec.forget_leaves(&lora::leaf_prefix(component))?;
        }
        Ok(())
    }

    /// Encodes prompts to the end. Many at once cost T5 one upload of its weights, one by one they cost one each.
    ///
    /// # Errors
    /// As [`TextEncoders::launch`].
    pub fn encode(&mut self, exec: &mut dyn Executor, prompts: &[&str]) -> Result<Vec<Text>> {
        let mut job = self.begin(prompts);
        while let Some(plan) = self.launch(exec, &mut job)? {
            exec.run(plan)?;
            self.collect(exec, &mut job)?;
        }
        Ok(job.into_texts())
    }
}
