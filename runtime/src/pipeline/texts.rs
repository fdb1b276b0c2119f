//! Prompts to texts, through the cache where there is one.
use super::Pipeline;
use crate::exec::PlanId;
use crate::text::{Cut, Encoding, Text, TextCache};
use crate::{Error, Result};
use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec::Vec};

/// Prompts that are being encoded, one plan run at a time. Made by [`Pipeline::begin_texts`].
#[derive(Debug)]
pub struct Texts {
    prompts: Vec<String>,
    known: BTreeMap<String, Text>,
    missing: Vec<String>,
    encoding: Option<Encoding>,
}

impl Pipeline {
    /// Encodes a prompt, or takes it from the cache.
    ///
    /// # Errors
    /// As [`Pipeline::encode_all`].
    pub fn encode(&mut self, prompt: &str) -> Result<Text> {
        Ok(self.encode_all(&[prompt])?.swap_remove(0))
    }

    /// Encodes prompts, or takes them from the cache. With a T5 this is much faster than one by one: its weights pass
    /// through the device once.
    ///
    /// # Errors
    /// Damaged text encoders, a prompt that is not in the cache where there are no encoders, or the device failed.
    pub fn encode_all(&mut self, prompts: &[&str]) -> Result<Vec<Text>> {
        self.encode_while(prompts, &mut || true)
    }

    /// As [`Pipeline::encode_all`]; `more` is asked before every submit and may stop the work by returning false.
    ///
    /// # Errors
    /// As [`Pipeline::encode_all`], or [`Error::Cancelled`].
    pub fn encode_while(&mut self, prompts: &[&str], more: &mut dyn FnMut() -> bool) -> Result<Vec<Text>> {
        let mut job = self.begin_texts(prompts)?;
        while let Some(plan) = self.launch_texts(&mut job)? {
            self.run_while(plan, more)?;
            self.collect_texts(&mut job)?;
        }
        self.finish_texts(job)
    }

    /// Begins to encode prompts; equal ones are encoded once.
    ///
    /// # Errors
    /// A prompt that is not in the cache where there are no encoders, or a damaged cache.
    pub fn begin_texts(&self, prompts: &[&str]) -> Result<Texts> {
        let mut known: BTreeMap<String, Text> = BTreeMap::new();
        let mut missing: Vec<&str> = Vec::new();
        for &prompt in prompts {
            if known.contains_key(prompt) || missing.contains(&prompt) {
                continue;
            }
            match self.cache.as_ref().map_or(Ok(None), |cache| cache.get(prompt))? {
                Some(text) => drop(known.insert(prompt.to_owned(), text)),
                None => missing.push(prompt),
            }
        }
        let encoding = self.encoders.as_ref().map(|encoders| encoders.begin(&missing));
        if let (Some(first), None) = (missing.first(), &encoding) {
            return Err(Error::missing("text cache", format!("the prompt `{first}`"))
                .with_hint("The model folder has no text encoders to encode it with."));
        }
        let own = |list: &[&str]| list.iter().map(|&p| p.to_owned()).collect();
        Ok(Texts { prompts: own(prompts), known, missing: own(&missing), encoding })
    }

    /// Writes the inputs of the next run and returns its plan; `None` when nothing is left to run.
    ///
    /// # Errors
    /// As [`crate::text::TextEncoders::launch`].
    pub fn launch_texts(&mut self, job: &mut Texts) -> Result<Option<PlanId>> {
        match (&mut self.encoders, &mut job.encoding) {
            (Some(encoders), Some(encoding)) => encoders.launch(&mut *self.exec, encoding),
            _ => Ok(None),
        }
    }
    /// Reads the finished run.
    ///
    /// # Errors
    /// As [`crate::text::TextEncoders::collect`].
    pub fn collect_texts(&mut self, job: &mut Texts) -> Result<()> {
        match (&mut self.encoders, &mut job.encoding) {
            (Some(encoders), Some(encoding)) => encoders.collect(&mut *self.exec, encoding),
            _ => Err(Error::missing("text encoders", "a run to read")),
        }
    }
    /// How many distinct prompts' worth of work is done, and all of it; cached ones count as done.
    pub fn texts_progress(&self, job: &Texts) -> (usize, usize) {
        let stages = self.encoders.as_ref().map_or(1, |e| e.stages().max(1));
        let done = job.encoding.as_ref().map_or(0, |e| e.done() / stages).min(job.missing.len());
        (job.known.len() + done, job.known.len() + job.missing.len())
    }
    /// The texts of a job that has nothing left to run, in the prompts' order; the cache takes in the new ones.
    ///
    /// # Errors
    /// A job that is not done.
    pub fn finish_texts(&mut self, mut job: Texts) -> Result<Vec<Text>> {
        if self.launch_texts(&mut job)?.is_some() {
            return Err(Error::missing("texts", "runs that are still to be made"));
        }
        let Texts { prompts, mut known, missing, encoding } = job;
        let texts = encoding.map(Encoding::into_texts).unwrap_or_default();
        for (prompt, text) in missing.into_iter().zip(texts) {
            if let Some(cache) = &mut self.cache {
                cache.insert(&prompt, text.clone());
            }
            known.insert(prompt, text);
        }
        let text =
            |p: &String| known.get(p).cloned().ok_or_else(|| Error::missing("texts", format!("`{p}`")));
        prompts.iter().map(text).collect()
    }

    /// What the text encoders do not read of a prompt that is too long for them; nothing where there are no encoders.
    pub fn cuts(&self, prompt: &str) -> Vec<Cut> {
        self.encoders.as_ref().map_or(Vec::new(), |encoders| encoders.cuts(prompt))
    }

    /// The encoded prompts, where the pipeline was opened with a cache.
    pub fn text_cache_mut(&mut self) -> Option<&mut TextCache> {
        self.cache.as_mut()
    }
}
