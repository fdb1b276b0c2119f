//! What a job's owner and its worker both see of it.
use super::Host;
use crate::spread::What;
use crate::stage::watch::Look;
use crate::train::Metrics;
use crate::{Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// News that wait to be fetched, at most; the oldest are lost first.
const MOST_NEWS: usize = 4096;

/// What a job is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Other jobs go first.
    #[default]
    Waiting,
    /// The device is opened.
    Opening,
    /// Configurations, weights and plans are made ready, and memory is planned.
    Loading,
    /// Prompts and references are encoded.
    Encoding,
    /// Supervised steps on the references.
    Warm,
    /// Iterations.
    Iterating,
    /// Images are sampled and decoded.
    Drawing,
    /// Over, whatever the outcome.
    Over,
}

/// How far a job is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Where `done` and `total` belong.
    pub phase: Phase,
    /// Pieces of this phase.
    pub done: usize,
    /// All of them; 0 while unknown.
    pub total: usize,
    /// Complete iterations.
    pub iteration: usize,
    /// All iterations; 0 where time decides, and for drawings.
    pub iterations: usize,
    /// Loss of the last supervised step.
    pub warm_loss: f32,
    /// Of the last complete iteration.
    pub metrics: Option<Metrics>,
    /// The last look at fixed pictures.
    pub look: Option<Look>,
    /// Seconds to the end, at the speed so far.
    pub seconds_left: Option<f64>,
}

/// What happened, once each, in order.
#[derive(Clone, Debug)]
pub enum News {
    /// The device is open: its name.
    Opened(String),
    /// Another phase.
    Phase(Phase),
    /// Pieces of the phase, done and all.
    Step(usize, usize),
    /// A step of the warm start: its number, its loss.
    Warm(usize, f32),
    /// An iteration is complete.
    Iteration(Box<Metrics>),
    /// A look at fixed pictures.
    Look(Look),
    /// A training waits for so many pieces that others are to make, see [`crate::spread`].
    Wanted(What, usize),
    /// [`Job::preview`] shows the sampling step of that number.
    Preview(usize),
    /// Something that is to be known, a sentence.
    Note(String),
    /// Over.
    Over(Outcome),
}

/// How a job ended, if it has.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has not.
    Running,
    /// All is done.
    Done,
    /// By [`Job::cancel`], or what it worked on is gone.
    Cancelled,
    /// By an error.
    Failed(Error),
}

/// An image, `[H, W, 3]` in 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Row by row from the top.
    pub pixels: Arc<Vec<f32>>,
}

struct State {
    progress: Progress,
    news: VecDeque<News>,
    outcome: Outcome,
    pictures: Vec<Picture>,
    preview: Option<Picture>,
    /// When the phase began, and how many of its pieces were done then.
    since: (Instant, usize),
}

/// See the module.
pub(super) struct Ticket {
    state: Mutex<State>,
    changed: Condvar,
    paused: AtomicBool,
    cancelled: AtomicBool,
    /// Whether others' pieces are waited for.
    asks: AtomicBool,
}

impl Default for Ticket {
    fn default() -> Self {
        let state = State {
            progress: Progress::default(),
            news: VecDeque::new(),
            outcome: Outcome::Running,
            pictures: Vec::new(),
            preview: None,
            since: (Instant::now(), 0),
        };
        let [paused, cancelled, asks] = [(); 3].map(|()| AtomicBool::new(false));
        Ticket { state: Mutex::new(state), changed: Condvar::new(), paused, cancelled, asks }
    }
}

impl Ticket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
    /// Whether there is nothing to do before others' pieces are there.
    pub fn asks(&self) -> bool {
        self.asks.load(Ordering::Acquire)
    }
    /// Asks others for pieces.
    pub fn ask(&self, what: What, pieces: usize) {
        if !self.asks.swap(true, Ordering::AcqRel) {
            self.tell(News::Wanted(what, pieces));
        }
    }
    /// They are there.
    pub fn answer(&self) {
        self.asks.store(false, Ordering::Release);
    }
    pub fn tell(&self, news: News) {
        self.state().tell(news);
    }
    /// Changes what is seen of the progress.
    pub fn update(&self, by: impl FnOnce(&mut Progress)) {
        by(&mut self.state().progress);
    }
    pub fn progress(&self) -> Progress {
        self.state().progress.clone()
    }
    /// At its beginning, what earlier jobs of the same work have reached.
    pub fn begin(&self, seen: &Progress) {
        let mut state = self.state();
        if state.progress.phase == Phase::Waiting {
            state.progress = Progress { phase: Phase::Waiting, done: 0, total: 0, ..seen.clone() };
        }
    }
    /// Enters a phase, or goes on in it.
    pub fn at(&self, phase: Phase, done: usize, total: usize) {
        let mut state = self.state();
        let before = (state.progress.phase, state.progress.done, state.progress.total);
        if before == (phase, done, total) {
            return;
        }
        if before.0 != phase {
            state.since = (Instant::now(), done);
            state.tell(News::Phase(phase));
        }
        state.tell(News::Step(done, total));
        (state.progress.phase, state.progress.done, state.progress.total) = (phase, done, total);
    }
    /// Seconds to the end of the phase, at its speed so far.
    pub fn left_in_phase(&self) -> Option<f64> {
        let state = self.state();
        let (since, first) = state.since;
        let done = state.progress.done.saturating_sub(first);
        let left = state.progress.total.checked_sub(state.progress.done)?;
        (done > 0).then(|| since.elapsed().as_secs_f64() / done as f64 * left as f64)
    }
    pub fn show(&self, step: usize, preview: Picture) {
        let mut state = self.state();
        state.preview = Some(preview);
        state.tell(News::Preview(step));
    }
    pub fn deliver(&self, pictures: Vec<Picture>) {
        self.state().pictures.extend(pictures);
    }
    /// Ends it, once.
    pub fn end(&self, outcome: Outcome) {
        let mut state = self.state();
        if state.outcome == Outcome::Running {
            state.outcome = outcome.clone();
            state.progress.phase = Phase::Over;
            state.progress.seconds_left = None;
            state.tell(News::Over(outcome));
            self.changed.notify_all();
        }
    }
    pub fn over(&self) -> bool {
        self.state().outcome != Outcome::Running
    }
}

impl State {
    fn tell(&mut self, news: News) {
        if self.news.len() >= MOST_NEWS {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }
}

/// Work on a host. Dropping it leaves the work alone.
pub struct Job {
    ticket: Arc<Ticket>,
    host: Host,
}

impl Job {
    pub(super) fn new(ticket: Arc<Ticket>, host: Host) -> Self {
        Job { ticket, host }
    }
    /// How far it is. Returns at once.
    pub fn progress(&self) -> Progress {
        self.ticket.progress()
    }
    /// How it ended, if it has. Returns at once.
    pub fn outcome(&self) -> Outcome {
        self.ticket.state().outcome.clone()
    }
    /// The oldest news that were not fetched yet. Returns at once.
    pub fn news(&self) -> Option<News> {
        self.ticket.state().news.pop_front()
    }
    /// Pauses it after the piece of work in progress, or goes on. Returns at once.
    pub fn pause(&self, paused: bool) {
        self.ticket.paused.store(paused, Ordering::Release);
        self.host.wake();
    }
    /// Ends it after the piece of work in progress. A training keeps what it has learnt and can be started again. Returns at once.
    pub fn cancel(&self) {
        self.ticket.cancelled.store(true, Ordering::Release);
        self.host.wake();
    }
    /// Waits until it is over or `most` has passed, without keeping to the pace meanwhile.
    pub fn wait(&self, most: Option<Duration>) -> Outcome {
        let _hurry = self.host.pace().hurry();
        let until = most.map(|most| Instant::now() + most);
        let mut state = self.ticket.state();
        while state.outcome == Outcome::Running {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    self.ticket.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.ticket.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.outcome.clone()
    }
    /// An image of a drawing, from 0, once it is there; `None` before. Returns at once.
    pub fn picture(&self, index: usize) -> Option<Picture> {
        self.ticket.state().pictures.get(index).cloned()
    }
    /// The last preview of a drawing that asked for some. Returns at once.
    pub fn preview(&self) -> Option<Picture> {
        self.ticket.state().preview.clone()
    }
    /// Its end as a result, for who waited.
    ///
    /// # Errors
    /// Why it failed; [`Error::Cancelled`] for one that was cancelled or has not ended.
    pub fn done(&self) -> Result<()> {
        match self.outcome() {
            Outcome::Done => Ok(()),
            Outcome::Failed(error) => Err(error),
            Outcome::Running | Outcome::Cancelled => Err(Error::Cancelled),
        }
    }
}
