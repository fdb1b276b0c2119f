//! A training on a host's thread.
use super::artist::{Drawing, State};
use super::desk::{Device, Turn};
use super::ticket::{News, Phase, Picture, Progress, Ticket};
use crate::estimate;
use crate::references::Reference;
use crate::settings::Settings;
use crate::train::{Event, Setup, Trainer};
use crate::{Error, Result};
use pentimento_runtime::exec::Executor;
use std::path::PathBuf;
use std::sync::Arc;

/// What a training is made from.
#[derive(Default)]
pub struct Brief {
    /// A diffusers folder or a single file.
    pub model: PathBuf,
    /// A `Dinov2Model` folder; by default `reward` inside the model folder.
    pub reward: Option<PathBuf>,
    /// References at the training resolution.
    pub references: Vec<Reference>,
    /// Prompts of the rollouts; empty: the references' captions.
    pub prompts: Vec<String>,
    /// Settings, with limits of time and memory.
    pub settings: Settings,
    /// A state to go on from, see [`Trainer::resume`], and its name for errors.
    pub state: Option<(String, Vec<u8>)>,
    /// Pieces that other trainers make of rollouts and gradients, see [`Trainer::spread`]; 0: they are made here.
    pub pieces: usize,
}

/// Before and after its model is loaded.
pub(super) struct Training {
    brief: Brief,
    trainer: Option<Box<Trainer>>,
    /// What its device could not.
    broken: Option<Error>,
    /// Seconds that it may take from when its prompts are encoded, until then.
    seconds: Option<f64>,
    /// How far it was when it was last seen: a job that goes on begins with that.
    seen: Progress,
}

impl Training {
    pub fn new(brief: Brief) -> Self {
        Training { brief, trainer: None, broken: None, seconds: None, seen: Progress::default() }
    }
    /// The trainer, once loaded.
    pub fn trainer(&mut self) -> Result<&mut Trainer> {
        let early = || Error::missing("training", "what it has learnt: it has not begun");
        self.trainer.as_deref_mut().ok_or_else(early)
    }

    /// A piece of work. `errand`: what another training shares, and which piece of it is to be made.
    pub fn turn(
        &mut self,
        device: &Device,
        errand: &mut Option<(Vec<u8>, usize)>,
        ticket: &Ticket,
    ) -> Result<Turn> {
        ticket.begin(&self.seen);
        self.renew(ticket)?;
        let turn = self.piece(device, errand, ticket);
        self.note_broken(turn)
    }
    fn note_broken<R>(&mut self, result: Result<R>) -> Result<R> {
        result.inspect_err(|error| {
            if matches!(error, Error::Device { .. } | Error::Memory { .. }) {
                self.broken = Some(error.clone());
            }
        })
    }
    fn piece(
        &mut self,
        device: &Device,
        errand: &mut Option<(Vec<u8>, usize)>,
        ticket: &Ticket,
    ) -> Result<Turn> {
        if self.trainer.is_none() {
            ticket.at(Phase::Loading, 0, 0);
            self.load(device, ticket)?;
            ticket.at(Phase::Encoding, 0, 0);
            return Ok(Turn::Between);
        }
        if let Some(seconds) = self.seconds
            && self.trainer()?.has_read()
        {
            self.trainer()?.set_deadline(seconds);
            self.seconds = None;
        }
        if self.brief.state.is_some() && self.trainer()?.saved().is_some() {
            self.brief.state = None; // until here it is all that there is, should the device be lost again
        }
        if let Some((shared, piece)) = errand.take() {
            self.trainer()?.work("what is shared", &shared, piece)?;
        }
        let event = self.trainer()?.step()?;
        let turn = self.note(event, ticket);
        if turn != Turn::Within {
            self.seen = ticket.progress();
        }
        Ok(turn)
    }
    /// Puts away a trainer whose device was lost or had no more memory, so that it is loaded anew where it was: from the last moment between two
    /// stages, with less at once where memory was short.
    fn renew(&mut self, ticket: &Ticket) -> Result<()> {
        let (Some(error), Some(trainer)) = (self.broken.take(), &self.trainer) else { return Ok(()) };
        let short = error.is_out_of_memory();
        let phase = trainer.phase().unwrap_or(estimate::PREPARING);
        if short && estimate::less(&mut self.brief.settings.config, phase) {
            let text = "The device had too little memory: what goes through it at once is less from here on.";
            ticket.tell(News::Note(text.into()));
        }
        if trainer.saved().is_some() {
            self.brief.state = Some(("the training so far".into(), trainer.save()?));
        }
        self.trainer = None;
        Ok(())
    }
    fn load(&mut self, device: &Device, ticket: &Ticket) -> Result<()> {
        let Brief { model, reward, references, prompts, settings, state, pieces } = &self.brief;
        let reward = reward.as_deref();
        let setup = Setup { model, config: None, reward, references, prompts, text_cache: None };
        let exec = device.seat(&format!("{} {:?}", model.display(), settings.config.base))?;
        let mut config = settings.config.clone();
        if let Some(most) = settings.memory.map(|memory| memory.0).into_iter().chain(device.most).min() {
            config = estimate::fit(exec.caps(), &setup, &config, most)?.0;
        }
        let mut trainer = Trainer::new(exec, &setup, config)?;
        if *pieces > 0 {
            trainer.spread(*pieces)?;
        }
        if let Some((label, bytes)) = state {
            self.seen.iteration = trainer.resume(label, bytes)?.iteration;
        }
        let iterations = if settings.seconds.is_some() { 0 } else { trainer.config().iterations };
        self.seen.iterations = iterations;
        ticket.update(|p| (p.iteration, p.iterations) = (self.seen.iteration, iterations));
        self.seconds = settings.seconds;
        self.trainer = Some(Box::new(trainer));
        Ok(())
    }
    fn note(&mut self, event: Event, ticket: &Ticket) -> Turn {
        match event {
            Event::Working | Event::Looking(..) => return Turn::Within,
            Event::Encoded(done, all) => ticket.at(Phase::Encoding, done, all),
            Event::Warm(done, all, loss) => {
                ticket.at(Phase::Warm, done, all);
                ticket.update(|p| p.warm_loss = loss);
                ticket.tell(News::Warm(done, loss));
            }
            Event::Part(done, all) => ticket.at(Phase::Iterating, done, all),
            Event::Iteration(m) => {
                ticket.at(Phase::Iterating, 0, 0);
                ticket.update(|p| {
                    p.iteration = m.iteration;
                    let left = p.iterations.checked_sub(m.iteration).filter(|_| p.iterations > 0);
                    p.seconds_left = left.map(|left| left as f64 * m.seconds);
                    p.metrics = Some(m.clone());
                });
                ticket.tell(News::Iteration(Box::new(m)));
            }
            Event::Watch(look) => {
                ticket.update(|p| p.look = Some(look.clone()));
                ticket.tell(News::Look(look));
            }
            Event::Wanted => {
                if let Some(wanted) = self.trainer.as_ref().and_then(|t| t.wanted()) {
                    ticket.ask(wanted.what, wanted.pieces);
                }
            }
            Event::Done => return Turn::Done,
        }
        Turn::Between
    }

    /// A piece of a drawing in the middle of training. The training goes on where one is paused, which then begins its image anew.
    pub fn draw(&mut self, drawing: &Drawing, state: &mut State, ticket: &Ticket) -> Result<Turn> {
        let (how, count) = (&drawing.how, drawing.images.len());
        let Some((prompt, seed)) = drawing.images.get(state.done) else { return Ok(Turn::Done) };
        let trainer = self.trainer()?;
        let new = || trainer.begin_drawing(prompt, &drawing.negative, *seed, how);
        let mut glimpse = state.glimpse.take().unwrap_or_else(new);
        let image = trainer.draw_on(&mut glimpse)?;
        let (done, all) = glimpse.progress();
        if let Some(pixels) = image {
            state.done += 1;
            ticket.at(Phase::Drawing, state.done * all, count * all);
            ticket.deliver(vec![Picture { width: how.width, height: how.height, pixels: Arc::new(pixels) }]);
            return Ok(if state.done == count { Turn::Done } else { Turn::Within });
        }
        ticket.at(Phase::Drawing, state.done * all + done, count * all);
        state.glimpse = Some(glimpse);
        Ok(Turn::Within)
    }
}
