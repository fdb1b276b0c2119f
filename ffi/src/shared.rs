//! A context as its handles share it.
use crate::guard::{Failure, Result, attempt};
use crate::pmt_status;
use crate::types::pmt_log;
use pentimento_trainer::host::Host;
use pentimento_trainer::pipeline_cache::{self, Kept, Place};
use runtime::Error;
#[cfg(not(target_vendor = "apple"))]
use runtime::exec::wgpu::Handles;
use runtime::exec::wgpu::{Limits, Options, Wgpu, unsupported};
use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A context.
pub struct Shared {
    pub host: Host,
    made: Arc<Made>,
    message: Mutex<String>,
    /// Jobs that are under way.
    jobs: Mutex<Vec<Weak<pentimento_trainer::host::Job>>>,
}

/// The device that is meant.
pub enum Which {
    /// One of our own, chosen as `pmt_context_new` says.
    Own(Option<String>),
    /// A host's. It promises what `Wgpu::adopt_vulkan` asks for.
    #[cfg(not(target_vendor = "apple"))]
    Vulkan(Box<Handles>),
    /// A host's of an interface that cannot be adopted.
    Unsupported(&'static str),
}

impl Which {
    fn open(&self, options: &Options<'_>) -> runtime::Result<Wgpu> {
        match self {
            Which::Own(device) => Wgpu::open_with(device.as_deref(), options),
            #[cfg(not(target_vendor = "apple"))]
            // SAFETY: the host's promise, in the header.
            Which::Vulkan(handles) => unsafe { Wgpu::adopt_vulkan(handles, options) },
            Which::Unsupported(interface) => Err(unsupported(interface)),
        }
    }
}

/// What opening the device looks at.
pub struct Made {
    device: Which,
    /// Where built pipelines are kept.
    pipelines: Mutex<Option<PathBuf>>,
    log: Mutex<Log>,
}

#[derive(Clone, Copy)]
struct Log(pmt_log, *mut c_void);
// SAFETY: only handed to the program's own function, which the header tells to expect another thread.
unsafe impl Send for Log {}

impl Made {
    fn open(&self) -> runtime::Result<(Wgpu, Option<Kept>)> {
        let place = lock(&self.pipelines).clone().map(Place::File);
        let open = |options: &Options<'_>| self.device.open(options);
        let opened = pipeline_cache::open_by(Limits::Adapter, place.as_ref(), open)?;
        self.log(&format!("device {}", opened.0.name()));
        opened.0.notes().iter().for_each(|note| self.log(note));
        Ok(opened)
    }
    fn log(&self, text: &str) {
        // Not under the lock: the function may call back.
        let Log(log, user) = *lock(&self.log);
        if let (Some(log), Ok(text)) = (log, CString::new(text)) {
            // SAFETY: the program's function and its own pointer.
            unsafe { log(user, text.as_ptr()) };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(device: Option<&str>) -> Result<Self> {
        Self::on(Which::Own(device.map(String::from)))
    }
    /// A context on a device.
    pub fn on(device: Which) -> Result<Self> {
        let (pipelines, log) = (Mutex::default(), Mutex::new(Log(None, std::ptr::null_mut())));
        let made = Arc::new(Made { device, pipelines, log });
        let opens = made.clone();
        let host = Host::new(Box::new(move || opens.open()))?;
        Ok(Shared { host, made, message: Mutex::default(), jobs: Mutex::default() })
    }
    pub fn message(&self) -> MutexGuard<'_, String> {
        lock(&self.message)
    }
    /// Names another file for built pipelines, or none.
    pub fn keep_pipelines(&self, file: Option<PathBuf>) {
        *lock(&self.made.pipelines) = file;
    }
    /// Who is told what happens.
    pub fn set_log(&self, log: pmt_log, user: *mut c_void) {
        *lock(&self.made.log) = Log(log, user);
    }
    /// Runs a body and keeps the message of its failure.
    pub fn run(&self, body: impl FnOnce() -> Result<()>) -> pmt_status {
        attempt(body).map_or_else(
            |failure| {
                // What is no failure has no message.
                if !matches!(failure, Failure::Pending) {
                    *self.message() = failure.to_string();
                }
                failure.status()
            },
            |()| pmt_status::Ok,
        )
    }
    /// Takes note of a new job.
    pub fn keep(&self, job: &Arc<pentimento_trainer::host::Job>) {
        let mut jobs = lock(&self.jobs);
        jobs.retain(|job| job.strong_count() > 0);
        jobs.push(Arc::downgrade(job));
    }
    /// Asks all that is in progress to stop.
    pub fn cancel(&self) {
        lock(&self.jobs).iter().filter_map(Weak::upgrade).for_each(|job| job.cancel());
    }
}

/// What was read before is right, so what cannot be is the call: a device that nobody has, or one at the wrong time.
pub fn of_call(error: Error) -> Failure {
    match error {
        Error::Bad { .. } => Failure::Argument(error),
        error => error.into(),
    }
}
