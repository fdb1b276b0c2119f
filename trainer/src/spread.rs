//! An iteration on more than one machine. One trainer keeps the course: it owns the adapter, the optimiser, the head and all that is drawn by
//! chance, and asks for two things, the [`What`]s. Others, of the same files and settings, make pieces of them: pure functions of the bytes that
//! are shared, so a piece that is lost is made again, by anyone. Who carries the bytes is the program's affair.
//!
//! ```text
//! rollout:    adapter, order of prompts, random stream -> pictures of some prompts, described
//! gradients:  adapter, pictures, rewards, head, random stream -> what some training runs give
//! ```
//! Every machine draws all that is drawn, so nothing depends on who makes what. Training runs are added up in their order and have the bits of a
//! training that is alone; rollouts have them where a piece is as many pictures as a run of that training, or a multiple.
pub(crate) mod errand;

use crate::archive::{Kept, Read, Written, kept};
use crate::machine::Machine;
use crate::objective::{Gives, Outputs};
use crate::optim::{Ema, Tensors};
use crate::recipe::Recipe;
use crate::reward::Learned;
use crate::train::state::{Batch, Finds, State};
use crate::{Error, Result};
use core::ops::Range;
use pentimento_runtime::fingerprint::Hash;
use pentimento_runtime::rng::Philox;
use std::time::Instant;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// Pictures of an iteration's prompts, and what the reward reads of them.
    #[default]
    Rollout,
    /// What the training runs of an optimiser step give: their gradients above all.
    Gradients,
}

impl What {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            What::Rollout => "rollout",
            What::Gradients => "gradients",
        }
    }
}

/// Refuses recipes whose iterations have no pieces.
///
/// # Errors
/// The recipe is one of those.
pub fn check(recipe: Recipe) -> Result<()> {
    match recipe {
        Recipe::Pathwise | Recipe::Grpo | Recipe::FlowGrpo | Recipe::Nft => Ok(()),
        Recipe::Released | Recipe::Supervised => {
            Err(Error::call("recipe to be spread", "pathwise, grpo, flow-grpo or nft", recipe.name()))
        }
    }
}

/// The entries of the metadata that mark the two kinds of files. What tensors mean changes with their numbers.
const SHARED: &str = "pentimento_shared_1";
const PIECE: &str = "pentimento_piece_1";

/// What those who work for a training must know of it.
pub(crate) struct Share {
    /// Whether gradients are asked for, and of which optimiser step of the iteration.
    gradients: bool,
    pub update: usize,
    pub pieces: usize,
    /// Images in a run of each kind: gradients are of runs, which must be the same everywhere.
    rows: [usize; 3],
    values: Tensors,
    /// For the anchor, and for the forward-process objective.
    warm: Tensors,
    average: Tensors,
    rng: Philox,
    order: Vec<usize>,
    spread: [Option<f64>; 2],
    batch: Batch,
    reward: Option<Learned>,
}
kept!(Share { gradients, update, pieces, rows, values, warm, average, rng, order, spread, batch, reward });

/// Random stream and deviations as they were before a stage drew.
#[derive(Clone)]
pub(crate) struct Before {
    rng: Philox,
    spread: [Option<f64>; 2],
}

impl Before {
    pub fn new(s: &State) -> Self {
        Before { rng: s.rng.clone(), spread: s.spread }
    }
}

/// Images in a run of each kind.
fn rows(m: &Machine) -> [usize; 3] {
    [m.config.optim.micro_batch, m.config.pathwise.batch, m.config.warm_rows()]
}

impl Share {
    fn rollout(m: &Machine, s: &State) -> Self {
        Share { values: s.values.clone(), order: s.order.clone(), ..Share::empty(m, &s.rng) }
    }
    fn gradients(m: &Machine, s: &State, update: usize, before: &Before) -> Self {
        let none = Tensors::default;
        Share {
            gradients: true,
            update,
            values: s.values.clone(),
            warm: if m.config.anchor.weight > 0.0 { s.warm.clone() } else { none() },
            average: if m.config.recipe == Recipe::Nft { s.average().to_vec().into() } else { none() },
            spread: before.spread,
            batch: s.batch.clone(),
            reward: m.learned().cloned().filter(|_| m.config.recipe == Recipe::Pathwise),
            ..Share::empty(m, &before.rng)
        }
    }
    fn empty(m: &Machine, rng: &Philox) -> Self {
        Share {
            gradients: false,
            update: 0,
            pieces: 0,
            rows: rows(m),
            values: Tensors::default(),
            warm: Tensors::default(),
            average: Tensors::default(),
            rng: rng.clone(),
            order: Vec::new(),
            spread: [None; 2],
            batch: Batch::default(),
            reward: None,
        }
    }
    pub fn what(&self) -> What {
        if self.gradients { What::Gradients } else { What::Rollout }
    }
    fn write(&self, m: &Machine) -> Result<Vec<u8>> {
        let mut file = Written::default();
        self.put("", &mut file);
        file.finish(SHARED, m.identity.text())
    }
    /// Reads what another trainer shares. `label` names it in errors.
    pub fn read(label: &str, bytes: &[u8], m: &Machine) -> Result<Self> {
        let (mut share, file) = (Share::empty(m, &Philox::new(m.config.seed, 1)), Read::new(label, bytes)?);
        let other = || Error::bad(label, "what a trainer of this version shares", "another safetensors file");
        let text = file.metadata(bytes, SHARED)?.ok_or_else(other)?;
        m.identity.accept(label, &text)?;
        // The head's sizes are those of this trainer's own.
        share.reward = m.learned().cloned();
        share.fill("", &file)?;
        file.finish()?;
        share.check(label, m)?;
        Ok(share)
    }
    fn check(&self, label: &str, m: &Machine) -> Result<()> {
        let (own, found) = (rows(m), self.rows);
        if own != found {
            let say = |rows: [usize; 3]| format!("runs of {rows:?} images");
            return Err(Error::bad(label, say(own), say(found)).with_hint(
                "Give every machine the same `at_once.train`, or none of them a limit of memory.",
            ));
        }
        let known = |list: &[usize]| list.iter().all(|&p| p < m.known.count());
        let tokens = m.critic.as_ref().map_or(0, |critic| critic.backbone.token_numbers());
        let (made, prompts) = match self.what() {
            What::Rollout => (Finds::Nothing, 0),
            What::Gradients => (Finds::Rewards, m.config.rollout.prompts),
        };
        let reward = match (&self.reward, m.learned()) {
            (None, own) => own.is_none() || m.config.recipe != Recipe::Pathwise || !self.gradients,
            (Some(learned), own) => own.is_some_and(|own| own.fits(learned)),
        };
        let free =
            |t: &[Vec<f32>], needed: bool| t.is_empty() && !(needed && self.gradients) || m.params.fit(t);
        let fits = m.params.fit(&self.values)
            && free(&self.warm, m.config.anchor.weight > 0.0)
            && free(&self.average, m.config.recipe == Recipe::Nft)
            && known(&self.order)
            && known(&self.batch.prompts)
            && reward
            && self.batch.fits(m, tokens, made, prompts);
        if fits { Ok(()) } else { Err(Error::bad(label, "sizes as this training has them", "others")) }
    }
    /// A training's state as those who make a piece need it, and the head.
    pub fn state(&self, m: &Machine) -> (State, Option<Learned>) {
        let mut s = State::new(&m.config, self.values.to_vec());
        s.warm.clone_from(&self.warm);
        s.ema = (!self.average.is_empty()).then(|| Ema::new(0.0, &self.average));
        s.rng.clone_from(&self.rng);
        s.order.clone_from(&self.order);
        s.spread = self.spread;
        s.batch.clone_from(&self.batch);
        (s, self.reward.clone())
    }
}

/// The part of `all` that a piece of several is: as even as can be.
pub(crate) fn range(all: usize, piece: usize, pieces: usize) -> Range<usize> {
    let pieces = pieces.max(1);
    piece * all / pieces..(piece + 1) * all / pieces
}

/// Names what is shared.
pub(crate) fn name(shared: &[u8]) -> String {
    let (words, rest) = shared.as_chunks::<4>();
    let mut hash = Hash::new();
    hash.words(words.iter().map(|w| u32::from_le_bytes(*w)));
    hash.bytes(rest);
    hash.finish()
}

/// What a piece is.
#[derive(Default)]
pub(crate) struct Made {
    /// Of a rollout: some groups.
    pub batch: Batch,
    /// Of gradients: which runs, and what they gave.
    pub which: Vec<usize>,
    pub runs: Vec<Outputs>,
}
kept!(Made { batch, which, runs });

impl Made {
    pub fn write(&self, shared: &str, piece: usize) -> Result<Vec<u8>> {
        let mut file = Written::default();
        self.put("", &mut file);
        file.finish(PIECE, format!("{piece} of {shared}"))
    }
    fn read(label: &str, bytes: &[u8], shared: &str, piece: usize) -> Result<Self> {
        let (mut made, file) = (Made::default(), Read::new(label, bytes)?);
        let own = format!("{piece} of {shared}");
        let found = file.metadata(bytes, PIECE)?.unwrap_or_else(|| "another file".into());
        if found != own {
            return Err(Error::bad(label, format!("piece {own}"), found)
                .with_hint("Is it of an earlier iteration, or of another training?"));
        }
        made.fill("", &file)?;
        file.finish()?;
        Ok(made)
    }
}

/// Pieces that others make.
pub(crate) struct Away {
    pub what: What,
    /// What is shared, and its name.
    pub shared: Vec<u8>,
    name: String,
    parts: Vec<Option<Made>>,
    /// Of a rollout: the groups' prompts. Of gradients: each run's unit, and what it gives.
    prompts: Vec<usize>,
    runs: Vec<(usize, Gives)>,
    /// When they were asked for.
    pub since: Instant,
}

impl Away {
    /// Asks for a rollout.
    pub fn rollout(m: &Machine, s: &State) -> Result<Self> {
        let pieces = m.spread.min(m.config.rollout.prompts);
        Away::ask(m, Share { pieces, ..Share::rollout(m, s) }, Vec::new())
    }
    /// Asks for the gradients of `runs`, in so many units.
    pub fn gradients(
        m: &Machine,
        s: &State,
        update: usize,
        before: &Before,
        (units, runs): (usize, Vec<(usize, Gives)>),
    ) -> Result<Self> {
        let pieces = m.spread.min(units);
        Away::ask(m, Share { pieces, ..Share::gradients(m, s, update, before) }, runs)
    }
    fn ask(m: &Machine, share: Share, runs: Vec<(usize, Gives)>) -> Result<Self> {
        let shared = share.write(m)?;
        Ok(Away {
            what: share.what(),
            name: name(&shared),
            shared,
            parts: (0..share.pieces).map(|_| None).collect(),
            prompts: Vec::new(),
            runs,
            since: Instant::now(),
        })
    }
    /// Once the prompts of a rollout are drawn.
    pub fn of(mut self, prompts: &[usize]) -> Self {
        self.prompts = prompts.to_vec();
        self
    }
    /// Pieces, all of them.
    pub fn pieces(&self) -> usize {
        self.parts.len()
    }
    /// Those that are missing.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().enumerate().filter(|(_, made)| made.is_none()).map(|(i, _)| i)
    }
    /// Takes in a piece; one that was there already is left as it is.
    pub fn give(&mut self, m: &Machine, piece: usize, bytes: &[u8]) -> Result<()> {
        let pieces = self.pieces();
        let none = || Error::call("piece", format!("0 to {}", pieces - 1), piece.to_string());
        if self.parts.get(piece).ok_or_else(none)?.is_some() {
            return Ok(());
        }
        let label = format!("piece {piece}");
        let made = Made::read(&label, bytes, &self.name, piece)?;
        let other =
            |found: &str| Err(Error::bad(&*label, format!("{} of this training", self.what.name()), found));
        match self.what {
            What::Rollout => {
                let own = self.prompts.get(range(self.prompts.len(), piece, pieces)).unwrap_or_default();
                let tokens = m.critic.as_ref().map_or(0, |critic| critic.backbone.token_numbers());
                if made.batch.prompts != own || !made.batch.fits(m, tokens, Finds::Tokens, own.len()) {
                    return other("other prompts, or pictures of another size");
                }
                made.batch.finite(&label)?;
            }
            What::Gradients => {
                let own = (0..self.runs.len()).filter(|&run| self.runs[run].0 % pieces == piece);
                if !own.eq(made.which.iter().copied()) || made.which.len() != made.runs.len() {
                    return other("other runs");
                }
                for (&which, run) in made.which.iter().zip(&made.runs) {
                    run.check(&label, m, &self.runs[which].1)?;
                }
            }
        }
        self.parts[piece] = Some(made);
        Ok(())
    }
    /// All pieces in their order, once they are there.
    pub fn complete(&mut self) -> Option<Vec<Made>> {
        let all = self.parts.iter().all(Option::is_some);
        all.then(|| self.parts.iter_mut().filter_map(Option::take).collect())
    }
}
