//! What a training runs on, and what it has come to. Stages change both; everything in [`State`] is plain data.
use crate::adapter::{Adapter, Pair};
use crate::config::Config;
use crate::objective::grpo::Taken;
use crate::objective::{Gradients, Params};
use crate::optim::{AdamW, Ema};
use crate::recipe::released::Bench;
use crate::reward::host::HostReward;
use crate::reward::{self, Critic};
use crate::stage::prepare::Known;
use crate::stage::watch::Seen;
use crate::train::{Event, Metrics, Setup};
use crate::{Result, texts};
use pentimento::exec::{Executor, PlanId};
use pentimento::folder::ModelFolder;
use pentimento::model::lora::{Lora, Pairs, device_rank};
use pentimento::pipeline::{Pipeline, Text, TextSettings};
use pentimento::rng::Philox;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Instant;

/// Model, settings, plans and what was known before training. A new one is made from the same files and settings.
pub(crate) struct Machine {
    pub pipeline: Pipeline,
    pub config: Config,
    /// Latent height and width.
    pub size: [usize; 2],
    /// Width and height, pixels.
    pub pixels: (usize, usize),
    pub params: Params,
    pub known: Known,
    /// Where the reward's network is.
    pub reward: PathBuf,
    /// The reward on latents, in recipes that have one.
    pub critic: Option<Critic>,
    /// The host's own reward in its place.
    pub host: Option<HostReward>,
    /// What the released schedule works with, in its recipe.
    pub bench: Option<Bench>,
    pub clock: Clock,
    plans: BTreeMap<&'static str, PlanId>,
}

/// What training has changed.
pub(crate) struct State {
    /// The adapter, A then B of each target.
    pub values: Vec<Vec<f32>>,
    /// The adapter as the warm start left it, for the anchor.
    pub warm: Vec<Vec<f32>>,
    pub adam: AdamW,
    /// The averaged adapter, once there is one.
    pub ema: Option<Ema>,
    pub rng: Philox,
    /// Prompts drawn and not used yet.
    pub order: Vec<usize>,
    /// Complete iterations.
    pub iteration: usize,
    /// Deviations of the first rewards within groups: of images', of patches'.
    pub spread: [Option<f64>; 2],
    /// Running mean of the gradients' agreement.
    pub agreement: Option<f32>,
    /// Tokens of earlier images.
    pub replay: VecDeque<Vec<f32>>,
    /// What this iteration has made so far.
    pub batch: Batch,
    pub metrics: Metrics,
    /// What looks at fixed pictures have shown.
    pub watch: Seen,
    /// Model runs of this iteration, done and all.
    pub parts: (usize, usize),
    /// Gradients of training runs that have not made a step yet (released schedule).
    pub carried: Gradients,
    /// Training runs, optimiser steps, and those with the judge's steps (released schedule).
    pub micro_steps: usize,
    pub optimiser_steps: usize,
    pub global_step: u32,
}

/// Images of an iteration, group after group, and what is known of them. Each stage adds its part.
#[derive(Default)]
pub(crate) struct Batch {
    /// Index of each group's prompt.
    pub prompts: Vec<usize>,
    /// Its stochastic steps.
    pub taken: Vec<Taken>,
    /// Latents before the last sampling step, image after image.
    pub before_last: Vec<f32>,
    /// Finished latents.
    pub images: Vec<Vec<f32>>,
    /// What the reward reads of each image.
    pub tokens: Vec<Vec<f32>>,
    /// How far each image is what its prompt says, where the reward asks for it.
    pub alignment: Vec<f32>,
    /// The head's outputs for each image.
    pub scores: Vec<Vec<f32>>,
    pub rewards: Vec<f32>,
}

impl Batch {
    /// The prompt of each row, `repeat` rows a group.
    pub fn texts<'a>(&self, known: &'a Known, repeat: usize) -> Vec<&'a Text> {
        let texts = self.prompts.iter().map(|&p| &known.prompts[p]);
        texts.flat_map(|t| core::iter::repeat_n(t, repeat)).collect()
    }
}

/// Seconds spent in steps: what a host does between two of them, pauses and drawing above all, is not training. No state
/// keeps them.
#[derive(Default)]
pub(crate) struct Clock {
    /// In finished steps, and when the one in progress began.
    spent: f64,
    since: Option<Instant>,
    /// When the iteration in progress began.
    pub started: f64,
    /// When it was set, and the seconds from then.
    pub deadline: Option<(f64, f64)>,
}

impl Clock {
    /// A step begins.
    pub fn resume(&mut self) {
        self.since = Some(Instant::now());
    }
    /// It ends.
    pub fn pause(&mut self) {
        self.spent = self.now();
        self.since = None;
    }
    pub fn now(&self) -> f64 {
        self.spent + self.since.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }
    /// Seconds left of a part of the deadline's time, where there is one.
    pub fn left(&self, part: f64) -> Option<f64> {
        self.deadline.map(|(since, seconds)| part * seconds - (self.now() - since))
    }
    /// Seconds of the iteration so far.
    pub fn iteration(&self) -> f64 {
        self.now() - self.started
    }
}

impl Machine {
    /// Opens the model. `known` is given the resolution in pixels.
    pub fn open(
        exec: Box<dyn Executor>,
        setup: &Setup<'_>,
        config: Config,
        known: impl FnOnce((usize, usize)) -> Result<Known>,
    ) -> Result<(Machine, State)> {
        config.check()?;
        // More places than images would be computed and thrown away.
        let mut config = config;
        config.optim.micro_batch = config.optim.micro_batch.min(config.images());
        let folder = ModelFolder::open_with(setup.model, setup.config)?;
        let text = TextSettings { t5_tokens: config.text_tokens, cache: texts::load(setup.text_cache)? };
        let mut pipeline = Pipeline::open_with(&folder, exec, Pairs::new(), text)?;
        pipeline.base = config.base;
        pipeline.lora = Some(Lora::joint(&pipeline.mmdit, device_rank(config.rank), config.lora_scale));
        let native = pipeline.native_size();
        let side = |n: usize| if n == 0 { native } else { n };
        let pixels = (side(config.width), side(config.height));
        let size = pipeline.latent_size(pixels.0, pixels.1)?;
        let known = known(pixels)?;
        let params = Params::new(&pipeline.mmdit, config.rank);
        let values = initial(&mut pipeline, &params, &config)?;
        let state = State {
            adam: adam(&config, &values),
            values,
            warm: Vec::new(),
            ema: None,
            rng: Philox::new(config.seed, 1),
            order: Vec::new(),
            iteration: 0,
            spread: [None; 2],
            agreement: None,
            replay: VecDeque::new(),
            batch: Batch::default(),
            metrics: Metrics::default(),
            watch: Seen::new(&config.watch),
            parts: (0, 0),
            carried: Gradients::default(),
            micro_steps: 0,
            optimiser_steps: 0,
            global_step: 0,
        };
        let reward = reward::folder(&folder, setup.reward);
        let clock = Clock::default();
        let (critic, host, bench, plans) = (None, None, None, BTreeMap::new());
        let machine = Machine {
            pipeline,
            config,
            size,
            pixels,
            params,
            known,
            reward,
            critic,
            host,
            bench,
            clock,
            plans,
        };
        Ok((machine, state))
    }

    /// Numbers in the latents of one image.
    pub fn per_image(&self) -> usize {
        self.size[0] * self.size[1] * self.pipeline.mmdit.in_channels
    }
    /// The plan of that name, made on first use.
    pub fn plan(
        &mut self,
        name: &'static str,
        make: impl FnOnce(&mut Pipeline, &Params, &Config, [usize; 2]) -> Result<PlanId>,
    ) -> Result<PlanId> {
        if let Some(&plan) = self.plans.get(name) {
            return Ok(plan);
        }
        let plan = make(&mut self.pipeline, &self.params, &self.config, self.size)?;
        self.plans.insert(name, plan);
        Ok(plan)
    }
    /// The model and the reward.
    pub fn judged(&mut self) -> Result<(&mut Pipeline, &mut Critic)> {
        let critic = self.critic.as_mut().ok_or_else(reward::none)?;
        Ok((&mut self.pipeline, critic))
    }
    /// Patches drawn with replacement for each of some images, as released; `None` where all of them count.
    pub fn pick_patches(&self, s: &mut State, images: usize) -> Result<Option<Vec<Vec<u32>>>> {
        let grid = self.critic.as_ref().ok_or_else(reward::none)?.backbone.grid();
        let patches = (grid * grid) as u32;
        let count = self.config.head.patches.min(patches as usize);
        let mut list = || (0..count).map(|_| s.rng.below(patches)).collect();
        Ok((count > 0).then(|| (0..images).map(|_| list()).collect()))
    }
    /// Makes the model read these values of the adapter's parameters.
    pub fn set_adapter(&mut self, values: &[Vec<f32>]) -> Result<()> {
        self.params.upload(&mut self.pipeline, values)
    }
    /// An adapter file of these values.
    pub fn adapter(&self, values: &[Vec<f32>]) -> Result<Adapter> {
        let pairs = self.params.targets.iter().zip(values.chunks_exact(2));
        let (rank, scale) = (self.config.rank, self.config.lora_scale);
        let pair = |ab: &[Vec<f32>]| Pair::new(rank, ab[0].clone(), ab[1].clone(), scale);
        let pairs = pairs.map(|((target, _, _), ab)| Ok((target.clone(), pair(ab)?)));
        Ok(Adapter { pairs: pairs.collect::<Result<_>>()? })
    }
}

impl State {
    /// Starts optimiser and average anew: two losses differ in scale.
    pub fn restart(&mut self, config: &Config) {
        self.adam = adam(config, &self.values);
        self.warm.clone_from(&self.values);
        self.ema = Some(Ema::new(config.optim.ema, &self.values));
    }
    /// The averaged adapter; the current one before there is an average.
    pub fn average(&self) -> &[Vec<f32>] {
        self.ema.as_ref().map_or(&self.values, |e| &e.average)
    }
    /// The adapter to hand out: the averaged one, or the best one seen where that is better.
    pub fn kept(&self) -> &[Vec<f32>] {
        let average = self.average();
        let good = !self.watch.verdict.refuses() && average.iter().flatten().all(|v| v.is_finite());
        if good || self.watch.best.is_empty() { average } else { &self.watch.best }
    }
    /// One more model run of this iteration is done.
    pub fn part(&mut self) -> Event {
        self.parts.0 += 1;
        Event::Part(self.parts.0, self.parts.1)
    }
}

fn adam(config: &Config, values: &[Vec<f32>]) -> AdamW {
    AdamW::new((0.9, 0.999), config.optim.weight_decay, values.iter().map(Vec::len))
}

/// A: normal with deviation 1/r, B: zero, as released; so the first images are the base model's.
fn initial(pipeline: &mut Pipeline, params: &Params, config: &Config) -> Result<Vec<Vec<f32>>> {
    let mut rng = Philox::new(config.seed, 0x10a);
    let mut values = Vec::new();
    for (name, shape) in params.leaves() {
        let mut data = vec![0.0; shape[0] * shape[1]];
        if name.ends_with("lora_A.weight") {
            rng.normals(&mut data);
            data.iter_mut().for_each(|v| *v /= config.rank as f32);
        }
        values.push(data);
    }
    params.upload(pipeline, &values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use std::time::Duration;

    #[test]
    fn pauses_are_no_time() {
        let nap = || sleep(Duration::from_millis(40));
        let mut clock = Clock { deadline: Some((0.0, 10.0)), ..Clock::default() };
        nap();
        assert_eq!((clock.now(), clock.left(0.5)), (0.0, Some(5.0)));
        clock.resume();
        nap();
        assert!(clock.now() >= 0.04 && clock.left(1.0) < Some(9.97), "a step's time is not seen in it");
        clock.pause();
        let spent = clock.now();
        nap();
        clock.started = clock.now();
        assert!(clock.now() == spent && clock.iteration() == 0.0, "a pause was counted");
        clock.resume();
        nap();
        clock.pause();
        assert!(clock.now() >= spent + 0.04 && clock.iteration() >= 0.04);
    }
}
