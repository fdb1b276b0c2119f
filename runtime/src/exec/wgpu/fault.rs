//! What goes wrong on a device, and, for tests, what is made to.
use super::Wgpu;
use super::pipelines::{caught, claim};
use crate::{Error, Result};
use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a driver reported.
enum Trouble {
    /// The device is gone: everything fails from now on.
    Lost(String),
    Memory(String),
    Other(String),
}

/// The first error that nobody took.
#[derive(Clone, Default)]
pub(super) struct Failure {
    first: Arc<Mutex<Option<Trouble>>>,
    /// On a device that another program's part opened, where errors are caught around our own calls.
    scopes: Option<Arc<Scopes>>,
}

/// wgpu's error scopes around our calls.
struct Scopes {
    device: wgpu::Device,
    /// Scopes may belong to all threads together, and must then not cross.
    turn: Mutex<()>,
}

impl Scopes {
    fn around<T>(&self, make: impl FnOnce() -> T) -> (T, Option<wgpu::Error>) {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let [memory, internal, validation] =
            [OutOfMemory, Internal, Validation].map(|filter| self.device.push_error_scope(filter));
        let made = make();
        let errors = [validation, internal, memory].map(|scope| pollster::block_on(scope.pop()));
        (made, errors.into_iter().flatten().next())
    }
}

/// What an error of wgpu's is.
fn kind(error: &wgpu::Error, text: String) -> Trouble {
    match error {
        wgpu::Error::OutOfMemory { .. } => Trouble::Memory(text),
        wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => Trouble::Other(text),
    }
}

impl Failure {
    /// Where a device's errors are found from now on.
    pub(super) fn of(device: &wgpu::Device) -> Self {
        let failure = Failure::default();
        let (told, lost) = (failure.clone(), failure.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            if let Some(text) = claim(e.to_string()) {
                told.note(kind(&e, text));
            }
        }));
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.note(Trouble::Lost(format!("the device was lost: {text}")));
            }
        });
        failure
    }
    /// As [`Failure::of`] for a device whose handlers are another's: only what our own calls do is found. Its loss, which wgpu tells to
    /// the handler alone, is found when results cannot be read.
    pub(super) fn within(device: &wgpu::Device) -> Self {
        let scopes = Scopes { device: device.clone(), turn: Mutex::default() };
        Failure { scopes: Some(Arc::new(scopes)), ..Failure::default() }
    }
    /// Runs a call on the device whose errors are ours. Not within another one.
    pub(super) fn watch<T>(&self, make: impl FnOnce() -> T) -> T {
        let Some(scopes) = &self.scopes else { return make() };
        let (made, error) = scopes.around(make);
        if let Some(error) = error {
            let text = error.to_string();
            self.note(kind(&error, text));
        }
        made
    }
    /// What `make` makes, or the first error that it met, which is then nobody else's.
    pub(super) fn caught<T>(&self, make: impl FnOnce() -> T) -> core::result::Result<T, String> {
        let Some(scopes) = &self.scopes else { return caught(make) };
        let (made, error) = scopes.around(make);
        error.map_or(Ok(made), |error| Err(error.to_string()))
    }
    fn note(&self, trouble: Trouble) {
        let mut slot = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*slot, &trouble) {
            (Some(Trouble::Lost(_)), _) => {}
            (None, _) | (Some(_), Trouble::Lost(_)) => *slot = Some(trouble),
            (Some(Trouble::Memory(_) | Trouble::Other(_)), Trouble::Memory(_) | Trouble::Other(_)) => {}
        }
    }
    /// Notes that a host allows no more memory.
    pub(super) fn refuse(&self, bytes: u64, held: u64, most: u64) {
        self.note(Trouble::Memory(format!("{bytes} bytes beside {held} are more than the {most} allowed")));
    }
    /// The first error as the device's; a loss stays.
    pub(super) fn take(&self, device: &str) -> Result<()> {
        let mut slot = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.take() {
            None => Ok(()),
            Some(Trouble::Other(text)) => Err(device_error(device, text)),
            Some(Trouble::Memory(text)) => Err(memory_error(device, &text)),
            Some(Trouble::Lost(text)) => {
                let error = device_error(device, text.clone());
                *slot = Some(Trouble::Lost(text));
                Err(error)
            }
        }
    }
}

/// Adapter name and reason as an error.
pub(super) fn device_error(device: &str, reason: impl Into<String>) -> Error {
    // wgpu's messages are lists of causes, one a line; an error is one sentence.
    let reason: String = reason.into();
    let lines: Vec<&str> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Error::Device { device: device.into(), reason: lines.join(" ") }
}

/// As [`device_error`] for a device without memory left.
fn memory_error(device: &str, reason: &str) -> Error {
    let lines = reason.lines().map(|line| line.trim().trim_end_matches('.'));
    let reason = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    Error::Memory { device: device.into(), reason, hint: String::new() }
        .with_hint("Use a smaller batch or resolution, or another adapter.")
}

/// Where something can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Allocation,
    Submit,
    Readback,
}

/// What is made to go wrong, see [`Wgpu::fail_at`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is lost in an allocation.
    LostAllocating,
    /// The device is lost in a submit.
    LostSubmitting,
    /// The device is lost while results are brought back.
    LostReading,
    /// One allocation finds no memory left.
    OutOfMemory,
}

impl Fault {
    fn event(self) -> Event {
        match self {
            Fault::LostAllocating | Fault::OutOfMemory => Event::Allocation,
            Fault::LostSubmitting => Event::Submit,
            Fault::LostReading => Event::Readback,
        }
    }
}

/// A fault that is still to come.
pub(super) struct Planned {
    fault: Fault,
    left: AtomicU64,
}

impl Wgpu {
    /// For tests: the `n`-th of the events that a fault belongs to, counted from 1 and from now on, goes wrong as on a device where it really
    /// does. After a loss everything does.
    #[doc(hidden)]
    pub fn fail_at(&mut self, fault: Fault, n: u64) {
        self.fault = Some(Planned { fault, left: AtomicU64::new(n) });
    }
    /// Lets a planned fault happen.
    pub(super) fn meets(&self, event: Event) {
        let Some(planned) = self.fault.as_ref().filter(|planned| planned.fault.event() == event) else {
            return;
        };
        let left = planned.left.load(Ordering::Relaxed);
        planned.left.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.error.note(match planned.fault {
                Fault::LostAllocating | Fault::LostSubmitting | Fault::LostReading => {
                    Trouble::Lost("the device was lost: a test wanted it".into())
                }
                Fault::OutOfMemory => Trouble::Memory("Not enough memory left.".into()),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;

    #[test]
    fn scopes_keep_our_errors_from_the_devices_owner() {
        let owner = Wgpu::noop().expect("noop");
        let ours = Failure::within(&owner.device);
        let mistake = || {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
            let size = 4;
            owner.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        ours.watch(mistake);
        assert!(owner.failure().is_ok(), "the owner was told");
        let error = ours.take("d").expect_err("a mistake");
        assert!(matches!(error, Error::Device { .. }), "{error}");
        assert!(ours.take("d").is_ok(), "taken twice");
        assert!(ours.caught(mistake).is_err() && ours.take("d").is_ok() && ours.caught(|| 1) == Ok(1));
        mistake();
        assert!(owner.failure().is_err() && ours.take("d").is_ok(), "the owner's own error");
        // From several threads, as scopes of all threads together allow.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert!(ours.caught(mistake).is_err())));
            }
        });
        assert!(owner.failure().is_ok());
    }

    #[test]
    fn kinds_are_told_apart() {
        let source = || Box::new(core::fmt::Error);
        let memory = wgpu::Error::OutOfMemory { source: source() };
        let internal = wgpu::Error::Internal { source: source(), description: String::new() };
        assert!(matches!(kind(&memory, String::new()), Trouble::Memory(_)));
        assert!(matches!(kind(&internal, String::new()), Trouble::Other(_)));
    }
}
