//! The thread's side: what there is, what is to be done, and whose turn it is.
use super::artist::{Artist, State};
use super::ticket::{News, Outcome, Phase, Ticket};
use super::training::Training;
use super::{Drawing, Open, Task};
use crate::pipeline_cache::Kept;
use crate::{Error, Result};
use pentimento_runtime::exec::Memory;
use pentimento_runtime::exec::share::{Seat, Shared};
#[cfg(not(target_vendor = "apple"))]
use pentimento_runtime::exec::wgpu::Target;
use pentimento_runtime::exec::wgpu::{Pace, Wgpu};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// The longest dispatch, where it can be cut.
const LONGEST: Duration = Duration::from_millis(2);

/// What works on a host.
pub(super) enum Thing {
    Artist(Box<Artist>),
    Training(Box<Training>),
}

impl Thing {
    /// Frees what an error has spoilt. Whether the work can begin anew, with less.
    fn recovers(&mut self, what: &mut What, error: &Error) -> bool {
        let Thing::Artist(artist) = self else { return false };
        if let (What::Draw(draw), Error::Memory { .. }) = (what, error)
            && artist.spare()
        {
            draw.1 = State::default();
            return true;
        }
        if matches!(error, Error::Device { .. } | Error::Memory { .. }) {
            artist.unload(); // its next drawing begins with the model's files
        }
        false
    }
}

/// What is asked of it.
pub(super) enum What {
    Train,
    /// What another training shares, and a piece of it, until it is begun.
    Work(Option<(Vec<u8>, usize)>),
    Draw(Box<(Drawing, State)>),
}

struct Work {
    thing: u64,
    what: What,
    ticket: Arc<Ticket>,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// In the middle of something that would have to begin anew.
    Within,
    /// Another may go first.
    Between,
    Done,
}

/// The open device.
pub(super) struct Device {
    pub name: String,
    shared: Shared,
    /// Bytes that may be held.
    pub most: Option<u64>,
    /// Behind the device, so that it is written after it.
    _kept: Option<Keeper>,
}

impl Device {
    /// A user's part of it. Transformers and autoencoders of the checkpoint that `space` names are there once.
    pub fn seat(&self, space: &str) -> Result<Box<Seat>> {
        Ok(Box::new(self.shared.seat(space, &["transformer/", "vae/"])?))
    }
    fn on<R>(&self, ask: impl FnOnce(&mut Wgpu) -> Result<R>) -> Result<R> {
        self.shared.with(|exec| {
            let wgpu = exec.as_any().and_then(|exec| exec.downcast_mut::<Wgpu>());
            ask(wgpu.ok_or_else(|| Error::missing("host", "a device of wgpu's"))?)
        })
    }
}

/// Writes the kept pipelines when their device goes. They are never required, so a failure is nobody's.
struct Keeper(Kept);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.save();
    }
}

pub(super) struct Desk {
    open: Open,
    device: Option<Device>,
    pace: Pace,
    most: Arc<AtomicU64>,
    things: BTreeMap<u64, Thing>,
    works: Vec<Work>,
}

impl Desk {
    pub fn new(open: Open, pace: Pace, most: Arc<AtomicU64>) -> Self {
        Desk { open, device: None, pace, most, things: BTreeMap::new(), works: Vec::new() }
    }

    /// The thread.
    pub fn work(mut self, tasks: &Receiver<Task>) {
        loop {
            let next = self.next();
            let task = match next {
                None => tasks.recv().map_err(|_| TryRecvError::Disconnected),
                Some(_) => tasks.try_recv(),
            };
            match (task, next) {
                (Ok(task), _) => task(&mut self),
                (Err(TryRecvError::Disconnected), _) => return,
                (Err(TryRecvError::Empty), Some(index)) => {
                    self.pace.begin();
                    self.turn(index);
                    self.pace.end();
                }
                (Err(TryRecvError::Empty), None) => {}
            }
        }
    }

    /// Whose turn it is: one that was cancelled, to be ended; a drawing; the one that is first in line. Drawings of one model share its plans
    /// and their inputs, so one that is paused in the middle holds up those behind it.
    fn next(&self) -> Option<usize> {
        let find = |test: &dyn Fn(&Work) -> bool| self.works.iter().position(test);
        let draws = |work: &Work| matches!(work.what, What::Draw(_));
        let first = |work: &Work| {
            let of_same = self.works.iter().find(|other| draws(other) && other.thing == work.thing);
            of_same.is_some_and(|other| Arc::ptr_eq(&other.ticket, &work.ticket))
        };
        let ready =
            |work: &Work| !work.ticket.paused() && !work.ticket.asks() && (!draws(work) || first(work));
        let cancelled = find(&|work| work.ticket.cancelled());
        let drawing = || find(&|work| draws(work) && ready(work));
        cancelled.or_else(drawing).or_else(|| find(&ready))
    }

    fn turn(&mut self, index: usize) {
        let Some(work) = self.works.get(index) else { return };
        let (id, ticket) = (work.thing, work.ticket.clone());
        if ticket.cancelled() {
            self.works.remove(index);
            return ticket.end(Outcome::Cancelled);
        }
        let Some(mut thing) = self.things.remove(&id) else {
            self.works.remove(index);
            return ticket.end(Outcome::Cancelled);
        };
        let mut work = self.works.remove(index);
        let turn = catch_unwind(AssertUnwindSafe(|| self.act(&mut thing, &mut work)));
        match turn {
            Ok(Ok(Turn::Within)) => self.works.insert(index.min(self.works.len()), work),
            Ok(Ok(Turn::Between)) => self.works.push(work),
            Ok(Ok(Turn::Done)) => ticket.end(Outcome::Done),
            Ok(Err(Error::Cancelled)) => ticket.end(Outcome::Cancelled),
            Ok(Err(error)) => {
                if matches!(error, Error::Device { .. }) {
                    self.device = None; // the next job opens it anew
                }
                if thing.recovers(&mut work.what, &error) {
                    self.works.insert(index.min(self.works.len()), work);
                } else {
                    ticket.end(Outcome::Failed(error));
                }
            }
            Err(payload) => {
                // What it was working on may be half done: nobody gets it back.
                let text = format!("a bug: {}", text_of(&*payload));
                ticket.end(Outcome::Failed(Error::Graph(text)));
                let _ = catch_unwind(AssertUnwindSafe(|| drop(thing)));
                return;
            }
        }
        self.things.insert(id, thing);
    }
    fn act(&mut self, thing: &mut Thing, work: &mut Work) -> Result<Turn> {
        if self.device.is_none() {
            work.ticket.at(Phase::Opening, 0, 0);
            let name = self.device()?.name.clone();
            work.ticket.tell(News::Opened(name));
            return Ok(Turn::Between);
        }
        let device = self.device()?;
        match (thing, &mut work.what) {
            (Thing::Artist(artist), What::Draw(draw)) => {
                artist.turn(device, &draw.0, &mut draw.1, &work.ticket)
            }
            (Thing::Training(training), What::Train) => training.turn(device, &mut None, &work.ticket),
            (Thing::Training(training), What::Work(errand)) => training.turn(device, errand, &work.ticket),
            (Thing::Training(training), What::Draw(draw)) => {
                training.draw(&draw.0, &mut draw.1, &work.ticket)
            }
            (Thing::Artist(_), What::Train | What::Work(_)) => {
                Err(Error::call("job", "a training", "a drawing's model"))
            }
        }
    }

    /// The device, opened where it is not.
    pub fn device(&mut self) -> Result<&Device> {
        if self.device.is_none() {
            let (mut exec, kept) = (self.open)()?;
            exec.keep_dispatches_below(LONGEST)?; // before it would wait for a poll
            exec.set_pace(self.pace.clone());
            exec.set_memory(self.most.load(Ordering::Relaxed));
            let (name, shared) = (exec.name().to_string(), Shared::new(Box::new(exec)));
            self.device =
                Some(Device { name, shared, most: super::limit(&self.most), _kept: kept.map(Keeper) });
        }
        self.device.as_ref().ok_or_else(|| Error::missing("host", "a device"))
    }
    /// Holds the open device to the limit as it is now.
    pub fn limit(&mut self) {
        let most = self.most.load(Ordering::Relaxed);
        if let Some(device) = &mut self.device {
            device.most = super::limit(&self.most);
            let _ = device.on(|wgpu| {
                wgpu.set_memory(most);
                Ok(())
            });
        }
    }
    /// Copies bytes into memory of the program whose device this is.
    ///
    /// # Safety
    /// As [`Wgpu::deliver`].
    #[cfg(not(target_vendor = "apple"))]
    pub unsafe fn deliver(&mut self, bytes: &[u8], target: &Target) -> Result<()> {
        // SAFETY: the caller's promise.
        self.device()?.on(|wgpu| unsafe { wgpu.deliver(bytes, target) })
    }
    pub fn memory(&self) -> Memory {
        self.device.as_ref().map(|device| device.shared.memory()).unwrap_or_default()
    }

    pub fn place(&mut self, id: u64, thing: Thing) {
        self.things.insert(id, thing);
    }
    pub fn remove(&mut self, id: u64) {
        for work in self.works.extract_if(.., |work| work.thing == id) {
            work.ticket.end(Outcome::Cancelled);
        }
        self.things.remove(&id);
    }
    pub fn begin(&mut self, thing: u64, what: What, ticket: Arc<Ticket>) {
        let trains = |what: &What| matches!(what, What::Train | What::Work(_));
        let twice = |work: &Work| work.thing == thing && trains(&work.what);
        if trains(&what) && self.works.iter().any(twice) {
            let error = Error::call("training", "one that is not started", "one that is");
            return ticket.end(Outcome::Failed(error));
        }
        self.works.push(Work { thing, what, ticket });
    }
    pub fn training(&mut self, id: u64) -> Result<&mut Training> {
        match self.things.get_mut(&id) {
            Some(Thing::Training(training)) => Ok(training),
            _ => Err(lost("training")),
        }
    }
    /// Takes in a piece that another trainer made; gives how many are missing.
    pub fn give(&mut self, id: u64, piece: usize, bytes: &[u8]) -> Result<usize> {
        let left = self.training(id)?.trainer()?.give(piece, bytes)?;
        let own = |work: &&Work| left == 0 && work.thing == id;
        self.works.iter().filter(own).for_each(|work| work.ticket.answer());
        Ok(left)
    }
    /// One that draws nothing.
    pub fn idle_artist(&mut self, id: u64) -> Result<&mut Artist> {
        if self.works.iter().any(|work| work.thing == id && !work.ticket.over()) {
            return Err(Error::call("model", "no drawing that is not done", "one"));
        }
        match self.things.get_mut(&id) {
            Some(Thing::Artist(artist)) => Ok(artist),
            _ => Err(lost("model")),
        }
    }
}

fn lost(what: &str) -> Error {
    Error::missing(what, "what it was: a bug ended it in the middle of something")
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}
