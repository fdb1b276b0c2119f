//! The released schedules, step by step: `scripts/train_sd3_fast_dino_patch.py` and `train_sd3_fast_pickscore.py` of the
//! Adv-GRPO code at 8287f90, with what is odd in them kept and named. The slow, exact loop beside [`crate::train`].
//!
//! ```text
//! epoch: batches of one prompt each -> rollout -> images -> reward of generated and reference images
//!        the judge's turn ((epoch + 1) mod d_times != 0): one step of it over all of them, nothing else
//!        else: two generator steps, each over half of the batches and all trained steps of the rollout
//! ```
//!
//! Kept on purpose:
//! - Nine of ten epochs train the head only; their rewards and advantages are computed and thrown away. PickScore learns
//!   instead of the generator whenever the references' mean reward is below the generated images'.
//! - Rewards of an epoch come from the head as it was before the epoch's own step.
//! - Every image has its own initial noise; steps outside the window are the same step with noise level 0.
//! - The reward normalises tokens and resizes floats; the head trains on raw tokens of 8-bit images. PickScore's reward
//!   rounds images to 8 bits, its training cuts them off.
//! - References of the batch's prompt: all of them, whatever their number; lists of unequal length are cut to the shorter.
//! - Prompts that are equal without regard to case and spacing are one group.
//! - `global_step` counts head epochs too; the average ([`Ema::step`]) follows it and is asked once per batch.
mod generator;
mod rollout;
mod script;

pub use script::{Script, Seeded};

use crate::adapter::{Adapter, Pair};
use crate::advantage;
use crate::config::Config;
use crate::machine::initial;
use crate::objective::Params;
use crate::optim::{AdamW, Ema};
use crate::references::Reference;
use crate::reward::HeadStep;
use crate::reward::judge::{self, Judge, Pairs};
use crate::train::Setup;
use crate::{Error, Result, texts};
use pentimento::exec::{Executor, PlanId};
use pentimento::folder::ModelFolder;
use pentimento::model::mmdit::Lora;
use pentimento::pipeline::{Pipeline, Text, TextSettings};
use rollout::Batch;

/// What the released script has besides [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The head trains in every epoch but each `d_times`-th (released: 10).
    pub d_times: usize,
    /// The average takes the adapter in at every `ema_interval`-th global step (released: 8).
    pub ema_interval: usize,
    /// Hidden units of the head (released: 512).
    pub hidden: usize,
    /// PickScore's image layers `layers[tune_layer:]` learn (released: -1; paper: -2).
    pub tune_layer: i64,
    /// Learning rate of those layers (released: 5e-6).
    pub tune_rate: f32,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            d_times: 10,
            ema_interval: 8,
            hidden: crate::reward::head::HIDDEN,
            tune_layer: -1,
            tune_rate: 5e-6,
        }
    }
}

/// A prompt with its encoded text and its references.
struct Prompt {
    name: String,
    text: Text,
    /// Prompts of one key are one group.
    key: String,
    references: Vec<Reference>,
}

/// What an epoch did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Counted from 0.
    pub epoch: usize,
    /// Mean reward of the generated images.
    pub reward_generated: f32,
    /// Mean reward of the references.
    pub reward_reference: f32,
    /// The head's step, in an epoch that trains it.
    pub head: Option<HeadStep>,
    /// Gradient norms of the generator's optimiser steps.
    pub gradient_norms: Vec<f32>,
    /// Part of the ratios outside the clip range.
    pub clip_fraction: f32,
}

/// A run of the released schedule. In [`Config`], `prompts` is the number of batches of an epoch and `group` the images in
/// one.
pub struct Official {
    /// The model. Between epochs it may be used to draw, too.
    pub pipeline: Pipeline,
    config: Config,
    schedule: Schedule,
    /// Latent height and width.
    size: [usize; 2],
    params: Params,
    values: Vec<Vec<f32>>,
    adam: AdamW,
    ema: Ema,
    judge: Box<dyn Judge>,
    prompts: Vec<Prompt>,
    null: Text,
    grpo: Option<PlanId>,
    /// Gradients so far, and training runs that went into them.
    sums: Vec<Vec<f32>>,
    micro_steps: usize,
    optimiser_steps: usize,
    epoch: usize,
    global_step: u32,
}

impl Official {
    /// Loads everything and encodes the prompts: those of `setup`, or the references' captions. A prompt that is the
    /// caption of no reference has all of them (the released loader would stop there).
    ///
    /// # Errors
    /// Settings, files or a device that cannot be used; references without captions where no prompts are given.
    pub fn new(
        exec: Box<dyn Executor>,
        setup: &Setup<'_>,
        config: Config,
        schedule: Schedule,
    ) -> Result<Self> {
        config.check()?;
        if schedule.d_times == 0 || schedule.ema_interval == 0 || config.rollout.prompts < 2 {
            let found = format!("{schedule:?} with {} batches", config.rollout.prompts);
            return Err(Error::bad(
                "official schedule",
                "intervals of 1 or more and 2 batches or more",
                found,
            ));
        }
        let lora = Lora { rank: config.rank, scale: config.lora_scale };
        let folder = ModelFolder::open_with(setup.model, setup.config)?;
        let text = TextSettings { t5_tokens: config.text_tokens, cache: texts::load(setup.text_cache)? };
        let mut pipeline = Pipeline::open_with(&folder, exec, Some(lora), text)?;
        let native = pipeline.native_size();
        let side = |n: usize| if n == 0 { native } else { n };
        let pixels = (side(config.width), side(config.height));
        let size = pipeline.latent_size(pixels.0, pixels.1)?;
        let reward =
            setup.reward.map_or_else(|| folder.beside().join("reward"), std::path::Path::to_path_buf);
        let params = Params::new(&pipeline.mmdit, config.rank);
        let values = initial(&mut pipeline, &params, &config)?;
        let (null, prompts) = prompts(&mut pipeline, setup)?;
        texts::save(&mut pipeline, setup.text_cache)?;
        let most = prompts.iter().map(|p| p.references.len()).max().unwrap_or(0).max(config.rollout.group);
        let judge = judge::open(&mut pipeline, &reward, &config, &schedule, pixels, most)?;
        let adam = AdamW::new((0.9, 0.999), config.optim.weight_decay, values.iter().map(Vec::len));
        let ema = Ema::new(config.optim.ema, &values);
        Ok(Official {
            pipeline,
            schedule,
            size,
            params,
            values,
            adam,
            ema,
            judge,
            prompts,
            null,
            grpo: None,
            sums: Vec::new(),
            micro_steps: 0,
            optimiser_steps: 0,
            epoch: 0,
            global_step: 0,
            config,
        })
    }

    /// Replaces the adapter, in training and averaged; the optimiser starts anew.
    ///
    /// # Errors
    /// An adapter of another rank or with other targets.
    pub fn start_from(&mut self, adapter: &Adapter) -> Result<()> {
        let (rank, scale) = (self.config.rank, self.config.lora_scale);
        let mut values = Vec::with_capacity(self.values.len());
        for (target, i, o) in &self.params.targets {
            let pair =
                adapter.pairs.get(target).filter(|p| (p.rank, p.inputs(), p.outputs()) == (rank, *i, *o));
            let Some(pair) = pair else {
                let expected = format!("factors of rank {rank} from {i} to {o} numbers");
                return Err(Error::bad(target.as_str(), expected, "none or others"));
            };
            values.push(pair.a.clone());
            values.push(pair.b.iter().map(|b| b / scale).collect());
        }
        self.adam = AdamW::new((0.9, 0.999), self.config.optim.weight_decay, values.iter().map(Vec::len));
        self.ema = Ema::new(self.config.optim.ema, &values);
        self.values = values;
        self.write_params(false)
    }
    /// Replaces what the judge learns: the head's four tensors ([`crate::reward::head::NAMES`]).
    ///
    /// # Errors
    /// Other lengths, or a PickScore, which starts from its checkpoint; the device failed.
    pub fn start_head_from(&mut self, params: Vec<Vec<f32>>) -> Result<()> {
        self.judge.start_from(&mut *self.pipeline.exec, params)
    }
    /// Steps so far: epochs that trained the head, and the generator's optimiser steps.
    pub fn global_step(&self) -> u32 {
        self.global_step
    }
    /// The encoded prompts, the empty one first.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        core::iter::once(&self.null).chain(self.prompts.iter().map(|p| &p.text))
    }
    /// The averaged adapter, which is the one the released code saves.
    ///
    /// # Errors
    /// Factors that do not fit (never, for a run's own).
    pub fn adapter(&self) -> Result<Adapter> {
        self.adapter_of(&self.ema.average)
    }
    /// The adapter in training, as the last optimiser step left it.
    ///
    /// # Errors
    /// As [`Official::adapter`].
    pub fn trained(&self) -> Result<Adapter> {
        self.adapter_of(&self.values)
    }
    fn adapter_of(&self, values: &[Vec<f32>]) -> Result<Adapter> {
        let pairs = self.params.targets.iter().zip(values.chunks_exact(2));
        let pair = |ab: &[Vec<f32>]| {
            Pair::new(self.config.rank, ab[0].clone(), ab[1].clone(), self.config.lora_scale)
        };
        let pairs = pairs.map(|((target, _, _), ab)| Ok((target.clone(), pair(ab)?)));
        Ok(Adapter { pairs: pairs.collect::<Result<_>>()? })
    }
    /// Makes [`Official::pipeline`] draw with the averaged adapter (`true`) or with the one in training.
    ///
    /// # Errors
    /// The device failed.
    pub fn show_average(&mut self, average: bool) -> Result<()> {
        self.write_params(average)
    }
    fn write_params(&mut self, average: bool) -> Result<()> {
        let values = if average { &self.ema.average } else { &self.values };
        for ((name, _), data) in self.params.leaves().iter().zip(values) {
            self.pipeline.set_param(name, data)?;
        }
        Ok(())
    }

    /// Runs one epoch. `progress` is called after every model run of the rollouts with (done, all) and may stop the
    /// run by returning false.
    ///
    /// # Errors
    /// The device failed, training diverged, or [`Error::Cancelled`].
    pub fn epoch(
        &mut self,
        script: &mut dyn Script,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<Report> {
        let (e, batches) = (self.epoch, self.config.rollout.prompts);
        let order = script.order(e, batches, self.prompts.len());
        if order.len() != batches || order.iter().any(|&p| p >= self.prompts.len()) {
            let expected = format!("{batches} of {} prompts", self.prompts.len());
            return Err(Error::bad("order of prompts", expected, format!("{order:?}")));
        }
        let mut all = Vec::with_capacity(batches);
        for (b, &prompt) in order.iter().enumerate() {
            let steps = self.config.rollout.steps;
            let mut on = |step: usize| progress(b * steps + step, batches * steps);
            all.push(self.rollout(prompt, &format!("e{e}.b{b}"), script, &mut on)?);
        }
        let (generated, reference) = self.score(&all, script)?;
        let keys: Vec<&str> = all
            .iter()
            .flat_map(|b| {
                core::iter::repeat_n(self.prompts[b.prompt].key.as_str(), self.config.rollout.group)
            })
            .collect();
        let groups = advantage::groups(&keys);
        let (spread, limit) = (self.config.grpo.spread, self.config.grpo.advantage_limit);
        let advantages = advantage::grouped(&generated, &groups, 1, spread, limit);
        script.note(&format!("e{e}.rewards"), &generated);
        script.note(&format!("e{e}.reference_rewards"), &reference);
        // One advantage for all trained steps of an image.
        let each = advantages.iter().flat_map(|&a| core::iter::repeat_n(a, self.config.rollout.window));
        script.note(&format!("e{e}.advantages"), &each.collect::<Vec<f32>>());
        let mut report = Report {
            epoch: e,
            reward_generated: advantage::moments(&generated).0,
            reward_reference: advantage::moments(&reference).0,
            ..Report::default()
        };
        if self.judge.learns(e, report.reward_generated, report.reward_reference) {
            let pairs: Vec<Pairs<'_>> = all
                .iter()
                .map(|b| Pairs {
                    prompt: &self.prompts[b.prompt].name,
                    references: &self.prompts[b.prompt].references,
                    images: &b.images,
                })
                .collect();
            report.head =
                Some(self.judge.learn(&mut *self.pipeline.exec, &pairs, &format!("e{e}"), script)?);
            self.global_step += 1;
        } else {
            self.train_generator(&all, &advantages, script, &mut report)?;
        }
        self.epoch += 1;
        Ok(report)
    }

    /// Rewards of generated images and of their prompts' references, batch after batch.
    fn score(&mut self, all: &[Batch], script: &mut dyn Script) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut generated, mut reference) = (Vec::new(), Vec::new());
        for (b, batch) in all.iter().enumerate() {
            let name = format!("e{}.b{b}", self.epoch);
            let prompt = &self.prompts[batch.prompt];
            let images: Vec<&[f32]> = batch.images.iter().map(Vec::as_slice).collect();
            let known: Vec<&[f32]> = prompt.references.iter().map(|r| r.pixels.as_slice()).collect();
            let exec = &mut *self.pipeline.exec;
            let name_of = |kind: &str| format!("{name}.idx_{kind}");
            generated.extend(self.judge.rewards(exec, &prompt.name, &images, &name_of("gen"), script)?);
            reference.extend(self.judge.rewards(exec, &prompt.name, &known, &name_of("ref"), script)?);
        }
        Ok((generated, reference))
    }
}

/// The empty text, and prompts with their texts and references.
fn prompts(pipeline: &mut Pipeline, setup: &Setup<'_>) -> Result<(Text, Vec<Prompt>)> {
    let mut names = vec![""];
    names.extend(setup.prompts.iter().map(String::as_str));
    if setup.prompts.is_empty() {
        for caption in setup.references.iter().filter_map(|r| r.caption.as_deref()) {
            if !names.contains(&caption) {
                names.push(caption);
            }
        }
    }
    if names.len() < 2 || setup.references.is_empty() {
        return Err(Error::missing("references", "images and prompts or captions")
            .with_hint("Give prompts, or a NAME.txt beside each image, or a metadata.jsonl."));
    }
    let mut texts = pipeline.encode_all(&names)?.into_iter();
    let null = texts.next().unwrap_or_default();
    let prompt = |(name, text): (&&str, Text)| {
        let own = |r: &&Reference| r.caption.as_deref().is_some_and(|c| key(c) == key(name));
        let mut references: Vec<Reference> = setup.references.iter().filter(own).cloned().collect();
        if references.is_empty() {
            references = setup.references.to_vec();
        }
        Prompt { name: (*name).to_string(), text, key: key(name), references }
    };
    let prompts = names.iter().skip(1).zip(texts).map(prompt).collect();
    Ok((null, prompts))
}

/// What the released grouping compares: CLIP's decoded tokens, so lower case and single spaces.
fn key(prompt: &str) -> String {
    prompt.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}
