//! What a training runs on. Stages change it, and what it has come to, [`State`].
use crate::adapter::{Adapter, Pair};
use crate::config::Config;
use crate::objective::Params;
use crate::recipe::released::Bench;
use crate::reward::host::HostReward;
use crate::reward::{self, Critic, Learned};
use crate::spread::{Away, Made};
use crate::stage::prepare::Known;
use crate::stage::watch::Looked;
use crate::train::Setup;
use crate::train::identity::Identity;
use crate::train::state::State;
use crate::{Result, texts};
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::model::lora::{Lora, Pairs, device_rank};
use pentimento_runtime::pipeline::{Pipeline, TextSettings};
use pentimento_runtime::rng::Philox;
use std::collections::BTreeMap;
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
    /// What the last look saw, until it is taken.
    pub looked: Option<Looked>,
    /// What a run must have in common with one that it goes on from, or works for.
    pub identity: Identity,
    /// Pieces that rollouts and gradients are made of elsewhere; 0: they are made here.
    pub spread: usize,
    /// Those that are waited for.
    pub away: Option<Away>,
    /// What was made for another trainer so far.
    pub made: Made,
    plans: BTreeMap<&'static str, PlanId>,
}

/// Seconds spent in steps: what a host does between two of them, pauses and drawing above all, is not training.
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
    /// What a step waited for others counts, too.
    pub fn waited(&mut self, seconds: f64) {
        self.spent += seconds;
    }
    /// Seconds left of a part of the deadline's time, where there is one.
    pub fn left(&self, part: f64) -> Option<f64> {
        self.deadline.map(|(since, seconds)| part * seconds - (self.now() - since))
    }
    /// Goes on from a run's seconds spent and its iteration's beginning; preparing again counts, too. Returns what moments of that run
    /// are moved by.
    pub fn go_on(&mut self, (spent, started): (f64, f64)) -> f64 {
        let again = self.now();
        self.spent += spent;
        self.started = started + again;
        again
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
        let train = config.at_once.train;
        config.optim.micro_batch = config.optim.micro_batch.min(config.images()).min(train);
        config.pathwise.batch = config.pathwise.batch.min(train);
        let folder = ModelFolder::open_with(setup.model, setup.config)?;
        let text = TextSettings { t5_tokens: config.text_tokens, cache: texts::load(setup.text_cache)? };
        let mut pipeline = Pipeline::open_with(&folder, exec, Pairs::new(), text)?;
        (pipeline.base, pipeline.stream) = (config.base, config.stream);
        pipeline.lora = Some(Lora::joint(&pipeline.mmdit, device_rank(config.rank), config.lora_scale));
        let native = pipeline.native_size();
        let side = |n: usize| if n == 0 { native } else { n };
        let pixels = (side(config.width), side(config.height));
        let size = pipeline.latent_size(pixels.0, pixels.1)?;
        let known = known(pixels)?;
        let params = Params::new(&pipeline.mmdit, config.rank);
        let values = initial(&mut pipeline, &params, &config)?;
        let state = State::new(&config, values);
        let reward = reward::folder(&folder, setup.reward);
        let clock = Clock::default();
        let (critic, host, bench, looked, plans) = (None, None, None, None, BTreeMap::new());
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
            looked,
            identity: Identity::default(),
            spread: 0,
            away: None,
            made: Made::default(),
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
    /// What the reward has learnt, in recipes where it learns.
    pub fn learned(&self) -> Option<&Learned> {
        let head = self.critic.as_ref().map(|critic| critic.head.learned());
        head.or_else(|| self.bench.as_ref().map(|bench| bench.judge.learned()))
    }
    /// Goes on from what another reward has learnt.
    pub fn learn_from(&mut self, learned: Learned) -> Result<()> {
        let exec = &mut *self.pipeline.exec;
        match (&mut self.critic, &mut self.bench) {
            (Some(critic), _) => critic.head.learn_from(exec, learned),
            (None, Some(bench)) => bench.judge.learn_from(exec, learned),
            (None, None) => Ok(()),
        }
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
