//! Everything a training is, apart from files and device: plain data that a file can keep and another process can go on from.
use crate::archive::{Item, Read, Written, kept};
use crate::config::Config;
use crate::machine::Machine;
use crate::objective::Gradients;
use crate::objective::grpo::{self, Credit, Taken};
use crate::optim::{AdamW, Ema, Tensors};
use crate::recipe::released::Seeded;
use crate::reward::Learned;
use crate::stage::prepare::Known;
use crate::stage::watch::Seen;
use crate::train::identity::Identity;
use crate::train::{Event, Metrics};
use crate::{Error, Result};
use pentimento_runtime::exec::finite;
use pentimento_runtime::pipeline::Text;
use pentimento_runtime::rng::Philox;
use std::collections::VecDeque;
use std::sync::Arc;

/// What training has changed. Copying it is cheap: what is large is shared until it changes.
#[derive(Clone)]
pub(crate) struct State {
    /// The adapter, A then B of each target.
    pub values: Tensors,
    /// The adapter as the warm start left it, for the anchor.
    pub warm: Tensors,
    pub adam: AdamW,
    /// The averaged adapter, once there is one.
    pub ema: Option<Ema>,
    pub rng: Philox,
    /// Prompts drawn and not used yet.
    pub order: Vec<usize>,
    /// How far the warm start is.
    pub warmed: Warmed,
    /// Complete iterations.
    pub iteration: usize,
    /// Deviations of the first rewards within groups: of images', of patches'.
    pub spread: [Option<f64>; 2],
    /// Running mean of the gradients' agreement.
    pub agreement: Option<f32>,
    /// Tokens of earlier images.
    pub replay: VecDeque<Arc<Vec<f32>>>,
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
kept!(State {
    values,
    warm,
    adam,
    ema,
    rng,
    order,
    warmed,
    iteration,
    spread,
    agreement,
    replay,
    batch,
    metrics,
    watch,
    parts,
    carried,
    micro_steps,
    optimiser_steps,
    global_step,
});

/// Steps of the warm start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warmed {
    pub done: usize,
    /// As many as time allows, where there is a deadline; `None` before it began.
    pub steps: Option<usize>,
    /// When it began, by the training's clock.
    pub began: f64,
}
kept!(Warmed { done, steps, began });

impl Warmed {
    /// Steps to come.
    pub fn left(&self) -> usize {
        self.steps.map_or(0, |steps| steps.saturating_sub(self.done))
    }
}

/// Images of an iteration, group after group, and what is known of them. Each stage adds its part.
#[derive(Clone, Default)]
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
    pub tokens: Vec<Arc<Vec<f32>>>,
    /// How far each image is what its prompt says, where the reward asks for it.
    pub alignment: Vec<f32>,
    /// The head's outputs for each image.
    pub scores: Vec<Vec<f32>>,
    pub rewards: Vec<f32>,
}
kept!(Batch { prompts, taken, before_last, images, tokens, alignment, scores, rewards });
impl Item for Taken {}

impl Batch {
    /// The prompt of each row, `repeat` rows a group.
    pub fn texts<'a>(&self, known: &'a Known, repeat: usize) -> Vec<&'a Text> {
        let texts = self.prompts.iter().map(|&p| &known.prompts[p]);
        texts.flat_map(|t| core::iter::repeat_n(t, repeat)).collect()
    }
}

impl State {
    /// Before training.
    pub fn new(config: &Config, values: Vec<Vec<f32>>) -> Self {
        State {
            adam: adam(config, &values),
            values: Arc::new(values),
            warm: Tensors::default(),
            ema: None,
            rng: Philox::new(config.seed, 1),
            order: Vec::new(),
            warmed: Warmed::default(),
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
        }
    }
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

/// A training at a moment from which it can go on: between two stages, or where a stage holds nothing of its own.
#[derive(Clone)]
pub(crate) struct Saved {
    pub state: State,
    /// What the reward has learnt, in recipes where it learns.
    pub reward: Option<Learned>,
    /// Randomness of the released schedule.
    pub script: Option<Seeded>,
    /// The stage that comes next, by the recipe's names.
    pub phase: String,
    /// Seconds spent, and when the iteration in progress began.
    pub clock: (f64, f64),
}
kept!(Saved { state, reward, script, phase, clock });

/// The entry of the metadata that marks a state's file and says whose it is. What the tensors mean changes with its number.
const FORMAT: &str = "pentimento_state_1";

impl Saved {
    pub fn write(&self, identity: &Identity) -> Result<Vec<u8>> {
        let mut file = Written::default();
        crate::archive::Kept::put(self, "", &mut file);
        file.finish(FORMAT, identity.text())
    }
    /// Fills a state as it is before training, `into`, with a file's. `label` names the file in errors.
    pub fn read(label: &str, bytes: &[u8], own: &Identity, into: Saved) -> Result<Saved> {
        let (mut saved, file) = (into, Read::new(label, bytes)?);
        let other = || {
            Error::bad(label, "a training's state of this version", "another safetensors file").with_hint(
                "It may be of another version of pentimento: go on with the version that wrote it.",
            )
        };
        let text = file.metadata(bytes, FORMAT)?.ok_or_else(other)?;
        own.accept(label, &text)?;
        crate::archive::Kept::fill(&mut saved, "", &file)?;
        file.finish()?;
        Ok(saved)
    }

    /// Refuses sizes that the training's plans and lists do not have. `made`: what the phase finds of its iteration.
    pub fn check(&self, label: &str, m: &Machine, made: Finds) -> Result<()> {
        let s = &self.state;
        let like = |t: &[Vec<f32>]| m.params.fit(t);
        let free = |t: &[Vec<f32>]| t.is_empty() || like(t);
        let moved = s.adam.fits(&s.values) && s.ema.as_ref().is_none_or(|e| like(&e.average));
        let known = |list: &[usize]| list.iter().all(|&p| p < m.known.count());
        let left = self.script.as_ref().map_or(&[][..], |script| &script.left);
        let (spent, started) = self.clock;
        let reward = match (m.learned(), &self.reward) {
            (Some(own), Some(learned)) => own.fits(learned),
            (own, learned) => own.is_none() && learned.is_none(),
        };
        let tokens = m.critic.as_ref().map_or(0, |critic| critic.backbone.token_numbers());
        let replay = s.replay.len() <= m.config.head.replay && s.replay.iter().all(|t| t.len() == tokens);
        let parts = [
            ("another adapter", like(&s.values) && free(&s.warm) && free(&s.watch.best)),
            ("another optimiser", moved && free(&s.carried.0)),
            ("other prompts", known(&s.order) && known(&s.batch.prompts) && known(left)),
            ("times that cannot be", 0.0 <= started && started <= spent && spent.is_finite()),
            ("other silhouettes", s.watch.fits(m)),
            ("another reward", reward),
            ("other images of this iteration", s.batch.fits(m, tokens, made, m.config.rollout.prompts)),
            ("other earlier images", replay),
        ];
        match parts.iter().find(|(_, fits)| !fits) {
            None => Ok(()),
            Some((what, _)) => Err(Error::bad(label, "sizes as this training has them", *what)),
        }
    }
}

/// What a phase finds of its iteration's batch; each has what those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finds {
    Nothing,
    Images,
    Tokens,
    Rewards,
}

impl Batch {
    /// Whether everything has the size of so many groups, or is missing where it is not needed.
    pub fn fits(&self, m: &Machine, tokens: usize, made: Finds, groups: usize) -> bool {
        let (c, per, all) = (&m.config, m.per_image(), groups * m.config.rollout.group);
        let whole = |n: usize, of: usize, from: Finds| n == of || n == 0 && made < from;
        let each = |list: &[Vec<f32>], len: usize| list.iter().all(|x| x.len() == len);
        let places = all * grpo::places(c, m.size);
        let taken = |t: &Taken| {
            t.per == per && [t.x.len(), t.next.len(), t.old.len()] == [all * per, all * per, places]
        };
        let scores = self.scores.first().map_or(0, Vec::len);
        let patches = scores.saturating_sub(1);
        let square = patches.isqrt().pow(2) == patches && (patches > 0 || c.grpo.credit == Credit::Image);
        whole(self.prompts.len(), groups, Finds::Images)
            && whole(self.taken.len(), c.rollout.window, Finds::Images)
            && self.taken.iter().all(taken)
            && whole(self.before_last.len(), all * per, Finds::Images)
            && whole(self.images.len(), all, Finds::Images)
            && each(&self.images, per)
            && (whole(self.tokens.len(), all, Finds::Tokens) || m.critic.is_none())
            && self.tokens.iter().all(|t| t.len() == tokens)
            && (c.head.alignment == 0.0 || whole(self.alignment.len(), all, Finds::Tokens))
            && whole(self.scores.len(), all, Finds::Rewards)
            && each(&self.scores, scores)
            && (scores == 0 || square)
            && whole(self.rewards.len(), all, Finds::Rewards)
    }

    /// Refuses numbers that are none in what pictures are. `label` names where it comes from.
    pub fn finite(&self, label: &str) -> Result<()> {
        let taken = self.taken.iter().flat_map(|t| [&t.x, &t.next, &t.old]);
        let lists = self.images.iter().chain(taken).chain([&self.before_last, &self.alignment]);
        let mut all = lists.chain(self.tokens.iter().map(|t| &**t));
        all.try_for_each(|list| finite(label, list))
    }
    /// Adds the groups of another, up to what rewards are made of.
    ///
    /// # Errors
    /// Steps that are not the same.
    pub fn join(&mut self, other: Batch) -> Result<()> {
        if self.taken.is_empty() {
            self.taken = other
                .taken
                .iter()
                .map(|t| Taken { x: vec![], next: vec![], old: vec![], ..t.clone() })
                .collect();
        }
        if self.taken.len() != other.taken.len() {
            return Err(Error::bad("pieces", "steps of one rollout", "others"));
        }
        for (own, other) in self.taken.iter_mut().zip(other.taken) {
            if own.sigma != other.sigma {
                return Err(Error::bad("pieces", "steps of one rollout", "others"));
            }
            own.x.extend(other.x);
            own.next.extend(other.next);
            own.old.extend(other.old);
        }
        self.before_last.extend(other.before_last);
        self.images.extend(other.images);
        self.tokens.extend(other.tokens);
        self.alignment.extend(other.alignment);
        Ok(())
    }
}
