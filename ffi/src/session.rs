//! What the two working handles hold.
use crate::guard::{Failure, Result, Shared};
use crate::turn::Running;
use crate::types::{no_recipe, pmt_recipe};
use crate::{pmt_config, pmt_phase, pmt_progress};
use pentimento_trainer::adapted::{self, Source};
use pentimento_trainer::config::Config;
use pentimento_trainer::estimate;
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::images::Picture;
use pentimento_trainer::pipeline_cache::{self, Kept, Place};
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::references::{Colour, Fit, Framing, Reference};
use pentimento_trainer::reward::{self, backbone::Backbone};
use pentimento_trainer::train::{Event, Setup, Trainer};
use runtime::Error;
use runtime::exec::Executor;
use runtime::exec::cpu::Cpu;
use runtime::exec::wgpu::{Limits, Wgpu};
use runtime::folder::ModelFolder;
use runtime::grad::Recompute;
use runtime::pipeline::{Pipeline, Sampling, Text, TextSettings};
use runtime::weights::Base;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

/// Largest state that is read, bytes.
const MOST_STATE: u64 = 1 << 36;

/// Width and height, pixels.
pub type Size = [u32; 2];

/// A personalisation, before and after its model is loaded.
pub struct Session {
    /// Absolute: they are opened again by the first step, wherever the program is then.
    model: PathBuf,
    reward: Option<PathBuf>,
    config: Config,
    seconds: f64,
    /// Bytes of the device's memory to stay within; 0: no limit.
    memory: u64,
    framing: Framing,
    /// Training resolution.
    pub size: Size,
    references: Vec<Reference>,
    prompts: Vec<String>,
    /// The state to go on from, and where it was.
    state: Option<(String, Vec<u8>)>,
    trainer: Option<Trainer>,
    /// Behind the trainer, so that it is freed after it.
    keeper: Option<Keeper>,
    progress: pmt_progress,
}

impl Session {
    /// Reads configurations only; nothing is uploaded.
    pub fn new(model: &str, reward: Option<&str>, settings: &pmt_config) -> Result<Self> {
        let (config, framing) = (config(settings)?, framing(settings)?);
        let (model, reward) = (Path::new(model), reward.map(Path::new));
        let folder = ModelFolder::open(model)?;
        let pipeline = adapted::open_with(&folder, &[], Box::new(Cpu::new()), TextSettings::default())?;
        let side = |n: usize| if n == 0 { native_side(&pipeline).map(|n| n as usize) } else { Ok(n) };
        let (width, height) = (side(config.width)?, side(config.height)?);
        pipeline.latent_size(width, height).map_err(Failure::Argument)?;
        if !matches!(config.recipe, Recipe::Released | Recipe::Supervised) {
            Backbone::open(&reward::folder(&folder, reward))?;
        }
        Ok(Session {
            model: absolute(model, "model")?,
            reward: reward.map(|reward| absolute(reward, "reward")).transpose()?,
            config,
            seconds: settings.max_seconds,
            memory: u64::from(settings.memory_mb) * 1_000_000,
            framing,
            size: [width as u32, height as u32],
            references: Vec::new(),
            prompts: Vec::new(),
            state: None,
            trainer: None,
            keeper: None,
            progress: pmt_progress::default(),
        })
    }

    pub fn add_reference(&mut self, picture: &Picture, caption: Option<&str>) -> Result<()> {
        self.not_started("references")?;
        let name = format!("reference {}", self.references.len() + 1);
        self.references.push(Reference::framed(&name, caption, picture, self.size, &self.framing)?);
        Ok(())
    }
    pub fn add_prompt(&mut self, prompt: &str) -> Result<()> {
        self.not_started("prompts")?;
        self.prompts.push(prompt.into());
        Ok(())
    }
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        self.not_started("a state")?;
        let bytes = runtime::file::read(path, MOST_STATE)?;
        self.state = Some((path.display().to_string(), bytes));
        Ok(())
    }
    pub fn save_state(&mut self, path: &Path) -> Result<()> {
        let trainer = self.trainer()?;
        if trainer.saved().is_none() {
            return Err(Failure::argument(
                "trainer",
                "one that has prepared prompts and references",
                "one that has not",
            ));
        }
        Ok(write_atomically(path, &trainer.save()?)?)
    }
    fn not_started(&self, what: &str) -> Result<()> {
        let late = || Failure::argument(what, "all of them before the first step", "one more");
        if self.trainer.is_some() { Err(late()) } else { Ok(()) }
    }
    /// The trainer, once loaded.
    pub fn trainer(&mut self) -> Result<&mut Trainer> {
        let early = || Failure::argument("trainer", "a first step", "none yet");
        self.trainer.as_mut().ok_or_else(early)
    }

    /// Loads, the first time; else trains on.
    pub fn step(&mut self, shared: &Shared) -> Result<&pmt_progress> {
        match &mut self.trainer {
            None => self.load(shared)?,
            Some(trainer) => {
                let event = trainer.step()?;
                self.note(event);
            }
        }
        Ok(&self.progress)
    }
    fn load(&mut self, shared: &Shared) -> Result<()> {
        let setup = Setup {
            model: &self.model,
            config: None,
            reward: self.reward.as_deref(),
            references: &self.references,
            prompts: &self.prompts,
            text_cache: None,
        };
        let (exec, keeper) = open(shared)?;
        let mut config = self.config.clone();
        if self.memory > 0 {
            config = estimate::fit(exec.caps(), &setup, &config, self.memory)?.0;
        }
        let mut trainer = Trainer::new(exec, &setup, config)?;
        if self.seconds > 0.0 {
            trainer.set_deadline(self.seconds);
        }
        if let Some((label, bytes)) = &self.state {
            trainer.resume(label, bytes)?;
        }
        self.state = None;
        self.progress.iterations = if self.seconds > 0.0 { 0 } else { self.config.iterations as u32 };
        (self.trainer, self.keeper) = (Some(trainer), keeper);
        self.references = Vec::new();
        Ok(())
    }
    fn note(&mut self, event: Event) {
        let p = &mut self.progress;
        let mut at = |phase, done: usize, total: usize| {
            (p.phase, p.done, p.total) = (phase, done as u32, total as u32);
        };
        match event {
            Event::Working => {}
            Event::Encoded(done, all) => at(pmt_phase::Encode, done, all),
            Event::Warm(done, all, loss) => {
                at(pmt_phase::Warm, done, all);
                p.warm_loss = loss;
            }
            Event::Part(done, all) => at(pmt_phase::Adversarial, done, all),
            Event::Iteration(m) => {
                at(pmt_phase::Adversarial, 0, 0);
                p.iteration = m.iteration as u32;
                (p.reward_generated, p.reward_reference) = (m.reward_generated, m.reward_reference);
                (p.reward_spread, p.gradient_norm) = (m.reward_spread, m.gradient_norm);
                (p.head_loss, p.head_accuracy) = (m.head_loss, m.head_accuracy);
                (p.clip_fraction, p.iteration_seconds) = (m.clip_fraction, m.seconds as f32);
            }
            Event::Watch(look) => {
                p.silhouettes = look.silhouettes.unwrap_or(-1.0);
                p.distance = look.distance;
                p.best_iteration = look.best.unwrap_or(0) as u32;
            }
            Event::Done => at(pmt_phase::Done, 0, 0),
        }
    }
}

pub fn absolute(path: &Path, name: &str) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Failure::argument(name, "a path", e.to_string()))
}

/// Writes the kept pipelines when their handle is freed. They are never required, so a failure is nobody's.
struct Keeper(Kept);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.save();
    }
}

/// A device of its own for each handle.
fn open(shared: &Shared) -> Result<(Box<Wgpu>, Option<Keeper>)> {
    let place = shared.pipelines().map(Place::File);
    let opened = pipeline_cache::open(shared.device.as_deref(), Limits::Adapter, place.as_ref());
    let (exec, kept) = opened.map_err(|e| match e {
        Error::Bad { .. } => Failure::Argument(e), // no device of that name
        e => e.into(),
    })?;
    Ok((Box::new(exec), kept.map(Keeper)))
}

/// The host's settings on top of the defaults.
fn config(c: &pmt_config) -> Result<Config> {
    let floats = [
        ("warm_rate", f64::from(c.warm_rate)),
        ("guidance", f64::from(c.guidance)),
        ("rate", f64::from(c.rate)),
        ("max_seconds", c.max_seconds),
    ];
    if let Some((name, value)) = floats.iter().find(|(_, v)| !(v.is_finite() && *v >= 0.0)) {
        return Err(Failure::argument(name, "a finite number, not negative", value.to_string()));
    }
    let base = pmt_recipe::settings(c.recipe).ok_or_else(|| no_recipe(c.recipe))?;
    let mut config = Config {
        seed: c.seed,
        width: c.width as usize,
        height: c.height as usize,
        rank: c.rank as usize,
        base: quantised(c.base_bits)?,
        recompute: recompute(c.recompute)?,
        text_tokens: c.text_tokens as usize,
        iterations: c.iterations as usize,
        ..base
    };
    (config.warm.steps, config.warm.batch) = (c.warm_steps as usize, c.warm_batch as usize);
    (config.warm.rate, config.optim.rate) = (c.warm_rate, c.rate);
    (config.rollout.prompts, config.rollout.group) = (c.prompts as usize, c.group as usize);
    (config.rollout.steps, config.rollout.window) = (c.steps as usize, c.window as usize);
    config.rollout.guidance = c.guidance;
    config.pathwise.images = config.images();
    config.watch.every = c.watch_every as usize;
    config.optim.micro_batch = c.micro_batch as usize;
    (config.head.warm, config.head.batch) = (c.head_warm as usize, c.head_batch as usize);
    config.check().map_err(Failure::Argument)?;
    Ok(config)
}

/// What is computed again.
fn recompute(value: u32) -> Result<Option<Recompute>> {
    match value {
        0 => Ok(None),
        1 => Ok(Some(Recompute::Nothing)),
        2 => Ok(Some(Recompute::Most)),
        3 => Ok(Some(Recompute::All)),
        other => Err(Failure::argument("recompute", "0 to 3", other.to_string())),
    }
}

/// What matrices are quantised to.
fn quantised(bits: u32) -> Result<Option<Base>> {
    match bits {
        0 => Ok(None),
        8 => Ok(Some(Base::Q8)),
        4 => Ok(Some(Base::Q4)),
        other => Err(Failure::argument("base_bits", "0, 8 or 4", other.to_string())),
    }
}

/// The host's wishes for references of other shapes.
fn framing(c: &pmt_config) -> Result<Framing> {
    let fit = match c.fit {
        0 => Fit::Cover,
        1 => Fit::Pad,
        2 => Fit::Squash,
        other => return Err(Failure::argument("fit", "0, 1 or 2", other.to_string())),
    };
    let [zero, r, g, b] = c.background.to_be_bytes();
    if zero != 0 {
        let found = format!("{:#x}", c.background);
        return Err(Failure::argument("background", "a colour, 0x000000 to 0xffffff", found));
    }
    Ok(Framing { fit, background: Colour([r, g, b]) })
}

/// A model to draw with.
pub struct Artist {
    pub pipeline: Pipeline,
    null: Text,
    /// Behind the pipeline, so that it is freed after it.
    _keeper: Option<Keeper>,
}

impl Artist {
    pub fn new(model: &str, adapters: &[Source], shared: &Shared) -> Result<Self> {
        let (exec, _keeper) = open(shared)?;
        let mut pipeline = adapted::open(Path::new(model), adapters, exec)?;
        let null = pipeline.encode("")?;
        Ok(Artist { pipeline, null, _keeper })
    }
    pub fn draw(&mut self, prompt: &str, seed: u64, how: &Sampling, turn: &Running<'_>) -> Result<Vec<f32>> {
        let text = self.pipeline.encode_while(&[prompt], &mut || !turn.asked())?.swap_remove(0);
        let more = &mut |_, _| !turn.asked();
        let image = self.pipeline.generate(&[(&text, seed)], &self.null, how, more);
        // A host may draw at any number of sizes: the last one's plans are kept.
        let last = self.pipeline.latent_size(how.width, how.height)?;
        self.pipeline.forget_plans(&|_, size| size == last)?;
        Ok(image?.swap_remove(0))
    }
}

/// The side of the model's own images, which must be one it can draw.
pub fn native_side(pipeline: &Pipeline) -> Result<u32> {
    let side = pipeline.native_size();
    pipeline.latent_size(side, side)?;
    let large = || Error::bad("sample_size", "a side of fewer pixels", side.to_string());
    Ok(u32::try_from(side).map_err(|_| large())?)
}

/// Checks what a host asks to be drawn, and where to.
pub fn sampling(
    pipeline: &Pipeline,
    steps: u32,
    guidance: f32,
    [width, height]: Size,
    room: &[MaybeUninit<u8>],
) -> Result<Sampling> {
    let how = Sampling { steps: steps as usize, guidance, width: width as usize, height: height as usize };
    pipeline.latent_size(how.width, how.height).map_err(Failure::Argument)?;
    if !(1..=1000).contains(&steps) {
        return Err(Failure::argument("steps", "1 to 1000", steps.to_string()));
    }
    if !guidance.is_finite() {
        return Err(Failure::argument("guidance", "a finite number", guidance.to_string()));
    }
    let needed = how.width * how.height * 3;
    if room.len() < needed {
        return Err(Failure::argument(
            "rgb_len",
            &format!("at least {needed} bytes"),
            room.len().to_string(),
        ));
    }
    Ok(how)
}

/// Writes values in 0 to 1 as bytes.
pub fn deliver(image: &[f32], room: &mut [MaybeUninit<u8>]) -> Result<()> {
    if !image.iter().all(|v| v.is_finite()) {
        return Err(Error::bad("image", "finite values", "others")
            .with_hint("Is the adapter damaged?")
            .into());
    }
    for (byte, v) in room.iter_mut().zip(image) {
        byte.write((v.clamp(0.0, 1.0) * 255.0).round() as u8);
    }
    Ok(())
}

/// A picture from rows that begin `stride` bytes apart.
pub fn picture(pixels: &[u8], width: u32, height: u32, stride: usize) -> Result<Picture> {
    let row = 3 * width as usize;
    let rgb = pixels.chunks(stride).flat_map(|r| &r[..row.min(r.len())]).copied().collect();
    Picture::new(width, height, rgb).map_err(Failure::Argument)
}
