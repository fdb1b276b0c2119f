//! The loop: references in, adapter out, as a state machine. Every [`Trainer::step`] makes at most one GPU submit (two
//! small ones when rewards are read), so a host may pause between any two calls, for as long as it likes.
//!
//! ```text
//! prompts -> rollout (Flow-CPS) -> decode -> tokens -> head steps -> rewards -> advantages -> clipped loss -> AdamW
//!                                              ^ references, encoded once
//! ```
mod draw;
mod prepare;
mod rollout;
mod update;

use crate::adapter::{Adapter, Pair};
use crate::config::Config;
use crate::objective::{Params, flow};
use crate::optim::{AdamW, Ema, clip_norm};
use crate::references::Reference;
use crate::reward::HeadStep;
use crate::reward::dino::Backbone;
use crate::reward::head::{Head, Patches, Shape};
use crate::{Error, Result, texts};
use pentimento::exec::{Executor, PlanId};
use pentimento::graph::Graph;
use pentimento::model::mmdit::Lora;
use pentimento::pipeline::{Pipeline, Text, TextSettings};
use pentimento::rng::Philox;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Instant;

use rollout::Rollout;
use update::Update;

/// What one iteration did.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Counted from 1.
    pub iteration: usize,
    /// Mean reward of the generated images.
    pub reward_generated: f32,
    /// Mean reward of the references.
    pub reward_reference: f32,
    /// Hinge loss of the last head step.
    pub head_loss: f32,
    /// Part of class logits on the right side before the last head step.
    pub head_accuracy: f32,
    /// Standard deviation of rewards within groups.
    pub reward_spread: f32,
    /// Root mean square of the advantages.
    pub advantage_spread: f32,
    /// Part of ratios outside the clip range.
    pub clip_fraction: f32,
    /// Gradient norm before clipping, of the last optimiser step.
    pub gradient_norm: f32,
    /// Seconds of the whole iteration.
    pub seconds: f64,
}

/// What a step brought.
#[derive(Clone, Debug)]
pub enum Event {
    /// Work was submitted; nothing to tell.
    Working,
    /// Preparation, done and all: prompts encoded, references encoded and described.
    Encoded(usize, usize),
    /// A warm-start step: its number from 1, how many there are, its loss.
    Warm(usize, usize, f32),
    /// A part of an iteration: done and all, in model runs.
    Part(usize, usize),
    /// An iteration is complete.
    Iteration(Metrics),
    /// All iterations are complete.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Encode the texts.
    Texts,
    /// Encode the reference image of this number.
    Latents(usize),
    /// Decode and describe reference latents from this index.
    Encode(usize),
    /// The supervised step of this number.
    Warm(usize),
    /// Sample; the state is in `rollout`.
    Sample,
    /// Decode and describe generated images from this index.
    Describe(usize),
    /// Head step of this number.
    Head(usize),
    /// Score generated images and references from this index.
    Score(usize),
    /// The generator's update; the state is in `update`.
    Generator,
    Done,
}

/// A personalisation in progress.
pub struct Trainer {
    /// The model. Between steps it may be used to draw, too.
    pub pipeline: Pipeline,
    config: Config,
    size: [usize; 2],
    params: Params,
    values: Vec<Vec<f32>>,
    backbone: Backbone,
    head: Head,
    ema: Option<Ema>,
    adam: AdamW,
    rng: Philox,
    todo: prepare::Todo,
    null: Text,
    prompts: Vec<Text>,
    order: Vec<usize>,
    reference_texts: Vec<Text>,
    /// Reference latents: as given, then mirrored.
    latents: Vec<Vec<f32>>,
    reference_tokens: Vec<Vec<f32>>,
    replay: VecDeque<Vec<f32>>,
    tokens: Vec<Vec<f32>>,
    scores: Vec<Vec<f32>>,
    rollout: Rollout,
    update: Update,
    describe: (PlanId, usize),
    plans: BTreeMap<&'static str, PlanId>,
    phase: Phase,
    running: Option<PlanId>,
    /// News of a run that [`Trainer::draw`] had to finish.
    held: Option<Event>,
    iteration: usize,
    metrics: Metrics,
    started: Instant,
    deadline: Option<(Instant, f64)>,
}

/// What a trainer is made from.
pub struct Setup<'a> {
    /// A diffusers folder or a single file.
    pub model: &'a Path,
    /// What a single file lacks, see `ModelFolder::open_with`.
    pub config: Option<&'a Path>,
    /// A `Dinov2Model` folder; by default `reward` inside the model folder.
    pub reward: Option<&'a Path>,
    /// References at the training resolution.
    pub references: &'a [Reference],
    /// Prompts of the rollouts; empty: the references' captions.
    pub prompts: &'a [String],
    /// Where encoded prompts are kept between runs, if anywhere; see [`crate::texts`].
    pub text_cache: Option<&'a Path>,
}

impl Trainer {
    /// Opens the model and makes the first plans. Prompts and references are encoded by the first steps.
    ///
    /// # Errors
    /// Settings, files or a device that cannot be used; references without captions where no prompts are given.
    pub fn new(exec: Box<dyn Executor>, setup: &Setup<'_>, config: Config) -> Result<Self> {
        config.check()?;
        let folder = pentimento::folder::ModelFolder::open_with(setup.model, setup.config)?;
        let lora = Lora { rank: config.rank, scale: config.lora_scale };
        let text = TextSettings { t5_tokens: config.text_tokens, cache: texts::load(setup.text_cache)? };
        let mut pipeline = Pipeline::open_with(&folder, exec, Some(lora), text)?;
        let (width, height) = resolution(&config, &pipeline);
        let size = pipeline.latent_size(width, height)?;
        let todo = prepare::Todo::new(setup, (width, height))?;
        let mut backbone =
            Backbone::open(&setup.reward.map_or_else(|| folder.beside().join("reward"), Path::to_path_buf))?;
        let params = Params::new(&pipeline.mmdit, config.rank);
        let values = initial(&mut pipeline, &params, &config)?;
        let head =
            Head::new(&mut *pipeline.exec, Shape::of(&backbone), &config, config.prompts * config.group)?;
        let describe = (describe(&mut pipeline, &mut backbone, DESCRIBE, size)?, DESCRIBE);
        let adam = AdamW::new((0.9, 0.999), config.weight_decay, values.iter().map(Vec::len));
        let rng = Philox::new(config.seed, 1);
        Ok(Trainer {
            pipeline,
            size,
            params,
            values,
            backbone,
            head,
            ema: None,
            adam,
            rng,
            todo,
            null: Text::default(),
            prompts: Vec::new(),
            order: Vec::new(),
            reference_texts: Vec::new(),
            latents: Vec::new(),
            reference_tokens: Vec::new(),
            replay: VecDeque::new(),
            tokens: Vec::new(),
            scores: Vec::new(),
            rollout: Rollout::default(),
            update: Update::default(),
            describe,
            plans: BTreeMap::new(),
            phase: Phase::Texts,
            running: None,
            held: None,
            iteration: 0,
            metrics: Metrics::default(),
            started: Instant::now(),
            deadline: None,
            config,
        })
    }

    /// Ends after about `seconds` from now instead of after the configured iterations: 40 % for the warm start.
    pub fn set_deadline(&mut self, seconds: f64) {
        self.deadline = Some((Instant::now(), seconds));
    }
    fn part_left(&self, part: f64) -> bool {
        self.deadline.is_none_or(|(since, seconds)| since.elapsed().as_secs_f64() < part * seconds)
    }

    /// The settings in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Does the next piece of work: submits it, or reads what has been submitted and decides what follows.
    ///
    /// # Errors
    /// The device failed, or training diverged. The adapter of the last complete iteration stays readable.
    pub fn step(&mut self) -> Result<Event> {
        if let Some(event) = self.held.take() {
            return Ok(event);
        }
        if let Some(plan) = self.running {
            if !self.pipeline.exec.advance(plan)? {
                return Ok(Event::Working);
            }
            self.running = None;
            return self.collect();
        }
        let next = if self.phase == Phase::Texts { self.launch_texts()? } else { self.launch()? };
        match next {
            Some(plan) => {
                self.pipeline.exec.rewind(plan);
                self.running = Some(plan);
                Ok(Event::Working)
            }
            None => Ok(Event::Done),
        }
    }

    /// Writes the inputs of the phase's next run.
    fn launch(&mut self) -> Result<Option<PlanId>> {
        Ok(Some(match self.phase {
            Phase::Latents(k) => self.launch_latents(k)?,
            Phase::Encode(first) => self.launch_describe(first, true)?,
            Phase::Warm(_) => self.launch_warm()?,
            Phase::Sample => self.launch_sample()?,
            Phase::Describe(first) => self.launch_describe(first, false)?,
            Phase::Head(_) => self.launch_head()?,
            Phase::Score(first) => self.launch_score(first)?,
            Phase::Generator => self.launch_generator()?,
            Phase::Texts | Phase::Done => return Ok(None),
        }))
    }
    /// Reads the finished run and moves on.
    fn collect(&mut self) -> Result<Event> {
        match self.phase {
            Phase::Latents(k) => self.collect_latents(k),
            Phase::Encode(first) => self.collect_encode(first),
            Phase::Warm(k) => self.collect_warm(k),
            Phase::Sample => self.collect_sample(),
            Phase::Describe(first) => self.collect_describe(first),
            Phase::Head(k) => self.collect_head(k),
            Phase::Score(first) => self.collect_score(first),
            Phase::Generator => self.collect_generator(),
            Phase::Texts => self.collect_texts(),
            Phase::Done => Ok(Event::Done),
        }
    }

    fn launch_describe(&mut self, first: usize, references: bool) -> Result<PlanId> {
        let (plan, batch) = self.describe;
        let all: &[Vec<f32>] = if references { &self.latents } else { &self.rollout.images };
        let mut x: Vec<f32> = all[first..].iter().take(batch).flatten().copied().collect();
        x.resize(batch * self.rollout_numbers(), 0.0);
        self.pipeline.exec.write(plan, "latents", &x)?;
        Ok(plan)
    }
    fn read_tokens(&mut self, wanted: usize) -> Result<Vec<Vec<f32>>> {
        let tokens = self.pipeline.exec.read(self.describe.0, "tokens")?;
        let per = self.backbone.token_numbers();
        Ok(tokens.chunks_exact(per).take(wanted).map(<[f32]>::to_vec).collect())
    }
    fn launch_warm(&mut self) -> Result<PlanId> {
        let (batch, size) = (self.config.warm_batch, self.size);
        let plan = match self.plans.get("warm") {
            Some(&plan) => plan,
            None => flow::supervised(&mut self.pipeline, &self.params, batch, size, false)?,
        };
        self.plans.insert("warm", plan);
        let (mut noisy, mut target, mut time) = (Vec::new(), Vec::new(), Vec::new());
        let mut texts = Vec::with_capacity(batch);
        for _ in 0..batch {
            let i = self.rng.below(self.latents.len() as u32) as usize;
            let drop = self.rng.uniform() < self.config.caption_drop;
            let sigma = self.rng.uniform();
            texts.push(if drop { &self.null } else { &self.reference_texts[i % self.reference_texts.len()] });
            time.extend(pentimento::model::mmdit::time_projection(self.pipeline.schedule.timestep(sigma)));
            for &x0 in &self.latents[i] {
                let eps = self.rng.normal();
                noisy.push((1.0 - sigma) * x0 + sigma * eps);
                target.push(eps - x0);
            }
        }
        let exec = &mut self.pipeline.exec;
        exec.write(plan, "latents", &noisy)?;
        exec.write(plan, "target", &target)?;
        exec.write(plan, "time", &time)?;
        exec.write(plan, "pooled", &texts.iter().flat_map(|t| t.pooled.iter().copied()).collect::<Vec<_>>())?;
        exec.write(
            plan,
            "context",
            &texts.iter().flat_map(|t| t.context.iter().copied()).collect::<Vec<_>>(),
        )?;
        Ok(plan)
    }
    fn collect_warm(&mut self, k: usize) -> Result<Event> {
        let plan = self.plans["warm"];
        let loss = self.pipeline.exec.read(plan, "loss")?;
        let loss = loss.iter().sum::<f32>() / loss.len() as f32;
        let mut grads = self.read_gradients(plan)?;
        self.refit_warm(k);
        let steps = self.config.warm_steps;
        let ramp = ((k + 1) as f32 / 10.0).min(1.0);
        let cosine = 0.5 * (1.0 + (core::f32::consts::PI * k as f32 / steps as f32).cos());
        let norm = clip_norm(&mut grads, self.config.max_norm);
        self.apply(&grads, norm, self.config.warm_rate * ramp * (0.1 + 0.9 * cosine))?;
        self.phase = Phase::Warm(k + 1);
        if k + 1 >= steps || !self.part_left(0.4) {
            self.phase = self.begin_adversarial()?;
        }
        Ok(Event::Warm(k + 1, steps, loss))
    }
    /// Under a deadline: as many warm steps as fit, by the speed of those so far.
    fn refit_warm(&mut self, k: usize) {
        if let (Some((since, seconds)), true) = (self.deadline, k == 5) {
            let left = 0.4 * seconds - since.elapsed().as_secs_f64();
            let each = self.started.elapsed().as_secs_f64() / (k + 1) as f64;
            self.config.warm_steps = (k + 1 + (left / each).max(0.0) as usize).min(self.config.warm_steps);
        }
    }

    /// The optimiser starts anew: the two losses differ in scale.
    fn begin_adversarial(&mut self) -> Result<Phase> {
        self.adam = AdamW::new((0.9, 0.999), self.config.weight_decay, self.values.iter().map(Vec::len));
        self.ema = Some(Ema::new(self.config.ema, &self.values));
        self.begin_iteration()
    }
    fn begin_iteration(&mut self) -> Result<Phase> {
        let spare = self.deadline.is_none() || self.metrics.seconds == 0.0 || {
            let (since, seconds) = self.deadline.unwrap_or((Instant::now(), 0.0));
            since.elapsed().as_secs_f64() + self.metrics.seconds <= seconds
        };
        if self.deadline.is_none() && self.iteration >= self.config.iterations || !spare {
            return Ok(Phase::Done);
        }
        self.started = Instant::now();
        self.metrics = Metrics { iteration: self.iteration + 1, ..Metrics::default() };
        self.begin_rollout()?;
        Ok(Phase::Sample)
    }

    fn launch_head(&mut self) -> Result<PlanId> {
        let n = self.config.head_batch;
        let real: Vec<usize> =
            (0..n).map(|_| self.rng.below(self.reference_tokens.len() as u32) as usize).collect();
        let old = if self.replay.is_empty() { 0 } else { n / 2 };
        let fake: Vec<usize> =
            (0..n - old).map(|_| self.rng.below(self.tokens.len() as u32) as usize).collect();
        let kept: Vec<usize> = (0..old).map(|_| self.rng.below(self.replay.len() as u32) as usize).collect();
        let real: Vec<&[f32]> = real.iter().map(|&i| self.reference_tokens[i].as_slice()).collect();
        let fake: Vec<&[f32]> = fake
            .iter()
            .map(|&i| self.tokens[i].as_slice())
            .chain(kept.iter().map(|&i| self.replay[i].as_slice()))
            .collect();
        let picked = pick_patches(&mut self.rng, &self.config, &self.backbone, 2 * n);
        let patches = picked.as_deref().map_or(Patches::All, Patches::Picked);
        self.head.begin_step(&mut *self.pipeline.exec, &real, &fake, patches)
    }
    fn collect_head(&mut self, k: usize) -> Result<Event> {
        let HeadStep { loss, accuracy } = self.head.end_step(&mut *self.pipeline.exec)?;
        (self.metrics.head_loss, self.metrics.head_accuracy) = (loss, accuracy);
        let steps = if self.iteration == 0 { self.config.head_warm } else { self.config.head_steps };
        self.phase = Phase::Head(k + 1);
        if k + 1 >= steps {
            self.phase = Phase::Score(0);
        }
        Ok(Event::Working)
    }

    fn read_gradients(&mut self, plan: PlanId) -> Result<Vec<Vec<f32>>> {
        self.params.leaves().iter().map(|(name, _)| self.pipeline.exec.read(plan, name)).collect()
    }
    fn apply(&mut self, grads: &[Vec<f32>], norm: f32, rate: f32) -> Result<()> {
        if !norm.is_finite() {
            return Err(Error::bad("gradient norm", "a finite number", norm.to_string())
                .with_hint("Training diverged: use a smaller learning rate."));
        }
        self.adam.update(&mut self.values, grads, rate);
        self.write_params(None)
    }
    fn write_params(&mut self, values: Option<&[Vec<f32>]>) -> Result<()> {
        let values = values.unwrap_or(&self.values);
        for ((name, _), data) in self.params.leaves().iter().zip(values) {
            self.pipeline.set_param(name, data)?;
        }
        Ok(())
    }

    /// The averaged adapter as it would be saved now; the current one before the first iteration.
    ///
    /// # Errors
    /// Factors that do not fit (never, for a trainer's own).
    pub fn adapter(&self) -> Result<Adapter> {
        let values = self.ema.as_ref().map_or(&self.values, |e| &e.average);
        let mut pairs = BTreeMap::new();
        for ((target, _, _), ab) in self.params.targets.iter().zip(values.chunks_exact(2)) {
            let pair = Pair::new(self.config.rank, ab[0].clone(), ab[1].clone(), self.config.lora_scale)?;
            pairs.insert(target.clone(), pair);
        }
        Ok(Adapter { pairs })
    }
    /// Makes [`Trainer::pipeline`] draw with the averaged adapter (`true`) or with the one in training.
    ///
    /// # Errors
    /// The device failed.
    pub fn show_average(&mut self, average: bool) -> Result<()> {
        let values = self.ema.as_ref().filter(|_| average).map(|e| e.average.clone());
        self.write_params(values.as_deref())
    }
    /// The empty prompt, for guidance.
    pub fn null_text(&self) -> &Text {
        &self.null
    }
}

/// Images decoded and described in one run.
const DESCRIBE: usize = 8;

pub(crate) fn resolution(config: &Config, pipeline: &Pipeline) -> (usize, usize) {
    let native = pipeline.native_size();
    let side = |n: usize| if n == 0 { native } else { n };
    (side(config.width), side(config.height))
}

/// A: normal with deviation 1/r, B: zero, as released; so the first images are the base model's.
pub(crate) fn initial(pipeline: &mut Pipeline, params: &Params, config: &Config) -> Result<Vec<Vec<f32>>> {
    let mut rng = Philox::new(config.seed, 0x10a);
    let mut values = Vec::new();
    for (name, shape) in params.leaves() {
        let mut data = vec![0.0; shape[0] * shape[1]];
        if name.ends_with("lora_A.weight") {
            rng.normals(&mut data);
            data.iter_mut().for_each(|v| *v /= config.rank as f32);
        }
        pipeline.set_param(&name, &data)?;
        values.push(data);
    }
    Ok(values)
}

/// Patches drawn with replacement for each of some images, as released; `None` where all of them count.
fn pick_patches(
    rng: &mut Philox,
    config: &Config,
    backbone: &Backbone,
    images: usize,
) -> Option<Vec<Vec<u32>>> {
    let patches = (backbone.grid() * backbone.grid()) as u32;
    let count = config.head_patches.min(patches as usize);
    (count > 0).then(|| (0..images).map(|_| (0..count).map(|_| rng.below(patches)).collect()).collect())
}

/// Latents to reward tokens: decode, resize, encode.
fn describe(
    pipeline: &mut Pipeline,
    backbone: &mut Backbone,
    batch: usize,
    size: [usize; 2],
) -> Result<PlanId> {
    let mut g = Graph::new();
    let x = g.input("latents", &[batch, size[0], size[1], pipeline.vae.latent_channels]);
    let image = pipeline.decode_graph(&mut g, x);
    let tokens = backbone.tokens(&mut g, image);
    g.check()?;
    backbone.upload(&mut *pipeline.exec, &g)?;
    pipeline.compile(g, &[("tokens", tokens)], size)
}
