//! For programs that draw frames of their own. A [`Host`] is one device and one thread that works on it: opening, loading, building
//! shaders, training and drawing all happen there, so that no call from a frame waits for any of them. [`Host::pace`] gives that thread time of
//! the GPU and the processor, frame by frame. Everything on one host shares the device, the memory and the weights of a checkpoint.
//!
//! Work is a [`Job`]: it can be watched, paused, cancelled and waited for from any thread. Drawing goes before training; a training that is
//! interrupted in the middle of a run begins that run anew and ends with the same bits.
mod artist;
mod desk;
mod ticket;
mod training;

pub use artist::{Attached, Drawing, Keeping};
pub use ticket::{Job, News, Outcome, Phase, Picture, Progress};
pub use training::Brief;

use crate::adapter::Adapter;
use crate::pipeline_cache::Kept;
use crate::{Error, Result};
use desk::{Desk, Thing};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::wgpu::{Pace, Wgpu};
use pentimento_runtime::exec::{Executor, Memory};
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::TextSettings;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use ticket::Ticket;

/// Opens the device: called on the host's own thread, when something first needs it and again after it was lost.
pub type Open = Box<dyn FnMut() -> Result<(Wgpu, Option<Kept>)> + Send>;

type Task = Box<dyn FnOnce(&mut Desk) + Send>;

/// See the module. Clones are one and the same; the thread ends with the last of them and of what was made with them.
#[derive(Clone)]
pub struct Host(Arc<Line>);

struct Line {
    tasks: Mutex<Option<Sender<Task>>>,
    pace: Pace,
    /// Bytes that may be held.
    most: Arc<AtomicU64>,
    next: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    /// Starts the thread; the device is opened when something needs it.
    ///
    /// # Errors
    /// The system starts no thread.
    pub fn new(open: Open) -> Result<Self> {
        let (tasks, line) = channel();
        let pace = Pace::default();
        let most = Arc::new(AtomicU64::new(u64::MAX));
        let (own, limit) = (pace.clone(), most.clone());
        let thread = std::thread::Builder::new().name("pentimento".into());
        let thread = thread.spawn(move || Desk::new(open, own, limit).work(&line));
        let thread = thread.map_err(|e| Error::io("thread", "start", e.to_string()))?;
        Ok(Host(Arc::new(Line {
            tasks: Mutex::new(Some(tasks)),
            pace,
            most,
            next: AtomicU64::new(1),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// What the thread may use.
    pub fn pace(&self) -> &Pace {
        &self.0.pace
    }

    /// Limits what everything on this host holds together, in bytes; `u64::MAX` lifts it. Trainings that begin from now on keep to it as to their
    /// setting `memory`, or are refused with the least that would do; a drawing for which there is no more room frees its model's weights
    /// and streams them. What is held already stays. From the next piece of work on.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn set_memory(&self, most: u64) -> Result<()> {
        self.0.most.store(most, Ordering::Relaxed);
        self.send(Box::new(Desk::limit))
    }
    /// What [`Host::set_memory`] set.
    pub fn memory_limit(&self) -> Option<u64> {
        limit(&self.0.most)
    }
    /// Bytes that everything on this host holds and held. Waits for the piece of work in progress.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn memory(&self) -> Result<Memory> {
        self.call(|desk| Ok(desk.memory()))
    }
    /// Opens the device, if that has not happened, and tells its name. Waits.
    ///
    /// # Errors
    /// As the function that opens it.
    pub fn open(&self) -> Result<String> {
        self.call(|desk| desk.device().map(|device| device.name.clone()))
    }

    /// What the device can do, opened if that has not happened. Waits.
    ///
    /// # Errors
    /// As the function that opens it.
    pub fn caps(&self) -> Result<Caps> {
        self.call(|desk| Ok(desk.device()?.seat("")?.caps().clone()))
    }

    /// Copies bytes, an image's for one, into memory of the program whose Vulkan device this host works on. Waits for the piece of work in
    /// progress, and for the copy where nothing is to be signalled.
    ///
    /// # Errors
    /// As [`Wgpu::deliver`].
    ///
    /// # Safety
    /// As [`Wgpu::deliver`].
    #[cfg(not(target_vendor = "apple"))]
    pub unsafe fn deliver(
        &self,
        bytes: Vec<u8>,
        target: pentimento_runtime::exec::wgpu::Target,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        self.call(move |desk| unsafe { desk.deliver(&bytes, &target) })
    }

    /// A model to draw with, of which configurations and adapters are read here and weights when they are needed.
    ///
    /// # Errors
    /// As [`crate::adapted::open_with`].
    pub fn artist(
        &self,
        model: ModelFolder,
        adapters: Vec<Attached>,
        text: TextSettings,
        keeping: Keeping,
    ) -> Result<Artist> {
        let sketch = artist::Sketch { model, adapters, text, keeping };
        let native = sketch.check()?;
        let id = self.place(|| Thing::Artist(Box::new(artist::Artist::new(sketch))))?;
        Ok(Artist { id, host: self.clone(), native })
    }
    /// A training.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn training(&self, brief: Brief) -> Result<Training> {
        let id = self.place(|| Thing::Training(Box::new(training::Training::new(brief))))?;
        Ok(Training { id, host: self.clone() })
    }

    fn place(&self, make: impl FnOnce() -> Thing + Send + 'static) -> Result<u64> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.send(Box::new(move |desk| desk.place(id, make())))?;
        Ok(id)
    }
    fn send(&self, task: Task) -> Result<()> {
        let tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = tasks.as_ref().is_some_and(|tasks| tasks.send(task).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }
    /// Runs something on the thread between two pieces of work, and waits for it without keeping to the pace.
    fn call<R: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Desk) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (result, answer) = channel();
        let _hurry = self.0.pace.hurry();
        self.send(Box::new(move |desk| drop(result.send(task(desk)))))?;
        answer.recv().map_err(|_| gone())?
    }
    fn begin(&self, thing: u64, what: desk::What) -> Result<Job> {
        let ticket = Arc::new(Ticket::default());
        let own = ticket.clone();
        self.send(Box::new(move |desk| desk.begin(thing, what, own)))?;
        Ok(Job::new(ticket, self.clone()))
    }
    /// Makes the thread look again at what there is to do.
    fn wake(&self) {
        let _ = self.send(Box::new(|_| {}));
    }
}

/// A limit that is one.
fn limit(most: &AtomicU64) -> Option<u64> {
    Some(most.load(Ordering::Relaxed)).filter(|&most| most < u64::MAX)
}

fn gone() -> Error {
    Error::missing("host", "its thread, which ended by a bug")
}

impl Drop for Line {
    fn drop(&mut self) {
        let _hurry = self.pace.hurry();
        drop(self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What the thread itself drops last cannot wait for it.
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// A model on a host, ready to draw. It is gone when this is dropped, with jobs that are not done.
pub struct Artist {
    id: u64,
    host: Host,
    native: usize,
}

impl Artist {
    /// The resolution the model was trained at, pixels a side.
    pub fn native_size(&self) -> usize {
        self.native
    }
    /// Draws.
    ///
    /// # Errors
    /// The thread is gone; all else is told by the job.
    pub fn draw(&self, drawing: Drawing) -> Result<Job> {
        self.host.begin(self.id, desk::What::Draw(Box::new((drawing, artist::State::default()))))
    }
    /// Replaces the adapters. Where only strengths change, that is a copy of their numbers to the device. Waits for the piece of work in
    /// progress.
    ///
    /// # Errors
    /// A drawing that is not done; adapters that do not fit the model, and the old ones stay; or the device failed.
    pub fn attach(&self, adapters: Vec<Attached>) -> Result<()> {
        let id = self.id;
        self.host.call(move |desk| desk.idle_artist(id)?.attach(adapters))
    }
    /// Frees what the device holds of it until the next drawing. Waits for the piece of work in progress.
    ///
    /// # Errors
    /// A drawing that is not done, or the device failed.
    pub fn unload(&self) -> Result<()> {
        let id = self.id;
        self.host.call(move |desk| desk.idle_artist(id).map(artist::Artist::unload))
    }
}

impl Drop for Artist {
    fn drop(&mut self) {
        let id = self.id;
        let _ = self.host.send(Box::new(move |desk| desk.remove(id)));
    }
}

/// A training on a host. It is gone when this is dropped.
pub struct Training {
    id: u64,
    host: Host,
}

impl Training {
    /// Begins it, or goes on with one whose job was cancelled or failed.
    ///
    /// # Errors
    /// The thread is gone; all else is told by the job.
    pub fn start(&self) -> Result<Job> {
        self.host.begin(self.id, desk::What::Train)
    }
    /// What others must be given to make the pieces that it waits for, see [`News::Wanted`]; then each goes to [`Training::give`]. Waits for the
    /// piece of work in progress.
    ///
    /// # Errors
    /// A training that waits for none.
    pub fn shared(&self) -> Result<Vec<u8>> {
        let id = self.id;
        let none = || Error::call("training", "one that waits for pieces", "one that does not");
        self.host.call(move |desk| {
            let trainer = desk.training(id)?.trainer()?;
            Ok(trainer.wanted().ok_or_else(none)?.shared.to_vec())
        })
    }
    /// Takes in a piece that another training made; gives how many are still missing. The last one lets the training go on.
    ///
    /// # Errors
    /// As [`crate::train::Trainer::give`].
    pub fn give(&self, piece: usize, bytes: Vec<u8>) -> Result<usize> {
        let id = self.id;
        self.host.call(move |desk| desk.give(id, piece, &bytes))
    }
    /// Makes a piece for another training, whose [`Training::shared`] is `shared`; [`Training::made`] has it when the job is done.
    ///
    /// # Errors
    /// The thread is gone; all else is told by the job.
    pub fn work(&self, shared: Vec<u8>, piece: usize) -> Result<Job> {
        self.host.begin(self.id, desk::What::Work(Some((shared, piece))))
    }
    /// The piece that [`Training::work`] has made, once.
    ///
    /// # Errors
    /// There is none.
    pub fn made(&self) -> Result<Vec<u8>> {
        let id = self.id;
        let none = || Error::missing("training", "a piece that was made for another");
        self.host.call(move |desk| desk.training(id)?.trainer()?.take_made().ok_or_else(none))
    }
    /// Draws one image with the adapter that would be saved.
    ///
    /// # Errors
    /// The thread is gone; all else is told by the job, a training that has not begun for one.
    pub fn draw(&self, drawing: Drawing) -> Result<Job> {
        self.host.begin(self.id, desk::What::Draw(Box::new((drawing, artist::State::default()))))
    }
    /// The adapter as it would be saved now. Waits for the piece of work in progress.
    ///
    /// # Errors
    /// A training that has not begun.
    pub fn adapter(&self) -> Result<Adapter> {
        let id = self.id;
        self.host.call(move |desk| desk.training(id)?.trainer()?.adapter())
    }
    /// The training as bytes, see [`crate::train::Trainer::save`]. Waits for the piece of work in progress.
    ///
    /// # Errors
    /// A training that has not begun, or nothing to save yet.
    pub fn state(&self) -> Result<Vec<u8>> {
        let id = self.id;
        self.host.call(move |desk| desk.training(id)?.trainer()?.save())
    }
    /// Which adapter [`Training::adapter`] gives and why, a sentence; `None` before a first look.
    ///
    /// # Errors
    /// A training that has not begun.
    pub fn verdict(&self) -> Result<Option<String>> {
        let id = self.id;
        self.host.call(move |desk| Ok(desk.training(id)?.trainer()?.verdict()))
    }
}

impl Drop for Training {
    fn drop(&mut self) {
        let id = self.id;
        let _ = self.host.send(Box::new(move |desk| desk.remove(id)));
    }
}
