//! Small trainings of every recipe, on the smallest model.
use crate::scratch::Scratch;
use crate::tiny;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_trainer::Result;
use pentimento_trainer::config::Config;
use pentimento_trainer::images::Picture;
use pentimento_trainer::references::Reference;
use pentimento_trainer::train::{Event, Setup, Trainer};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A training with all that it needs.
pub struct Job {
    _folder: Scratch,
    /// A single file.
    pub model: PathBuf,
    /// Two.
    pub references: Vec<Reference>,
    /// Three.
    pub prompts: Vec<String>,
    /// Everything happens at least twice.
    pub config: Config,
}

impl Job {
    /// A recipe in small.
    pub fn new(recipe: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = Scratch::new(&format!("resume-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let model = tiny::model(&folder.0);
        let picture = |k: u8| {
            let bytes = (0..=255u8).flat_map(|i| [i, i.wrapping_mul(k), 255 - i]).collect();
            Picture::new(16, 16, bytes).expect("a picture")
        };
        let reference = |(k, caption)| Reference::new(caption, Some(caption), &picture(k), 16, 16);
        let references = [(3, "a cat"), (7, "two dogs")].map(|r| reference(r).expect("a reference"));
        let own = Config::recipe(recipe, true).expect("a recipe");
        let mut c = Config { seed: 3, rank: 2, iterations: 2, ..own };
        (c.warm.steps, c.warm.batch) = (if recipe == "released" { 0 } else { 4 }, 2);
        let window = c.rollout.window.min(1);
        (c.rollout.prompts, c.rollout.group, c.rollout.steps, c.rollout.window) = (2, 2, 2, window);
        (c.head.warm, c.head.steps, c.head.batch, c.head.replay) = (2, c.head.steps, 2, 6);
        (c.grpo.updates, c.optim.micro_batch) = (window.max(1), 3);
        (c.pathwise.images, c.pathwise.batch, c.prior.images, c.watch.every) = (3, 2, 3, 1);
        if recipe == "released" {
            (c.iterations, c.watch.every) = (4, 0);
            (c.released.d_times, c.released.ema_interval) = (2, 2);
        }
        let prompts = ["a cat", "two dogs", "a tree"].map(String::from).to_vec();
        Job { _folder: folder, model, references: references.to_vec(), prompts, config: c }
    }
    /// On the CPU's twins.
    pub fn open(&self) -> Trainer {
        self.on(Box::new(Cpu::new())).expect("a trainer")
    }
    /// What it is made from.
    pub fn setup(&self) -> Setup<'_> {
        Setup {
            model: &self.model,
            config: None,
            reward: None,
            references: &self.references,
            prompts: &self.prompts,
            text_cache: None,
        }
    }
    /// On an executor.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn on(&self, exec: Box<dyn Executor>) -> Result<Trainer> {
        let mut trainer = Trainer::new(exec, &self.setup(), self.config.clone())?;
        trainer.keep_every(0.0);
        Ok(trainer)
    }
    /// Going on from a state.
    ///
    /// # Errors
    /// As [`Trainer::resume`].
    pub fn resumed(&self, state: &[u8]) -> Result<Trainer> {
        let mut trainer = self.open();
        trainer.resume("state", state)?;
        Ok(trainer)
    }
    /// Why a state is refused.
    pub fn refused(&self, state: &[u8]) -> String {
        self.resumed(state).err().expect("it is refused").to_string()
    }
}

/// Files of the adapter to keep and of the averaged one.
pub fn bytes(trainer: &Trainer) -> [Vec<u8>; 2] {
    [trainer.adapter(), trainer.average()].map(|a| a.and_then(|a| a.write_bytes()).expect("an adapter"))
}

/// Steps until the end, at most `most`; true at the end.
pub fn run(trainer: &mut Trainer, most: usize) -> (usize, bool) {
    for step in 0..most {
        if matches!(trainer.step().expect("a step"), Event::Done) {
            return (step, true);
        }
    }
    (most, false)
}

/// More steps than any of these trainings has.
pub const ENOUGH: usize = 100_000;
