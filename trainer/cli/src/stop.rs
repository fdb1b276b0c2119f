//! Ctrl-C, SIGTERM and SIGHUP: the first one asks, the second one ends at once.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of what a signal ended.
pub const STATUS: u8 = 130;

/// Set by a signal; work stops at the next step.
#[derive(Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn install() -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let handler = move || {
            if set.swap(true, Ordering::SeqCst) {
                std::process::exit(STATUS.into());
            }
            eprintln!("\nStopping after this step; press Ctrl-C again to quit at once.");
        };
        let kept = hangup_ignored();
        // Without a handler a signal simply ends the process, as usual.
        let _ = ctrlc::set_handler(handler);
        if kept {
            ignore_hangup();
        }
        Stop(flag)
    }
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(unix)]
use nix::sys::signal::{SigHandler, Signal, signal};

/// Whether whoever started this wants it to outlive its terminal, as `nohup` does.
#[cfg(unix)]
fn hangup_ignored() -> bool {
    matches!(ignore_hangup(), Some(SigHandler::SigIgn))
}
/// The disposition before. Its caller sets another one at once, or means this one.
#[cfg(unix)]
fn ignore_hangup() -> Option<SigHandler> {
    // SAFETY: no handler is installed, so nothing can run at a moment that forbids it.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }.ok()
}

#[cfg(not(unix))]
fn hangup_ignored() -> bool {
    false
}
#[cfg(not(unix))]
fn ignore_hangup() {}
