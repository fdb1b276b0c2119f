//! What goes wrong on a device, and, for tests, what is made to.
use super::pipelines::claim;
use super::{Wgpu, device_error};
use crate::{Error, Result};
use alloc::{format, string::String, string::ToString, sync::Arc};
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
pub(super) struct Failure(Arc<Mutex<Option<Trouble>>>);

impl Failure {
    /// Where a device's errors are found from now on.
    pub(super) fn of(device: &wgpu::Device) -> Self {
        let failure = Failure::default();
        let (told, lost) = (failure.clone(), failure.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            let memory = match &e {
                wgpu::Error::OutOfMemory { .. } => true,
                wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => false,
            };
            let Some(text) = claim(e.to_string()) else { return };
            told.note(if memory { Trouble::Memory(text) } else { Trouble::Other(text) });
        }));
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lost.note(Trouble::Lost(format!("the device was lost: {text}")));
            }
        });
        failure
    }
    fn note(&self, trouble: Trouble) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*slot, &trouble) {
            (Some(Trouble::Lost(_)), _) => {}
            (None, _) | (Some(_), Trouble::Lost(_)) => *slot = Some(trouble),
            (Some(Trouble::Memory(_) | Trouble::Other(_)), Trouble::Memory(_) | Trouble::Other(_)) => {}
        }
    }
    /// The first error as the device's; a loss stays.
    pub(super) fn take(&self, device: &str) -> Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

/// As [`device_error`] for a device without memory left.
fn memory_error(device: &str, reason: &str) -> Error {
    let lines = reason.lines().map(|line| line.trim().trim_end_matches('.'));
    let reason = lines.filter(|line| !line.is_empty()).collect::<alloc::vec::Vec<_>>().join(" ");
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
