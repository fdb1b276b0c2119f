//! Asking a training that runs for a preview: SIGUSR1, where there are signals.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the signal until it is taken.
#[derive(Default)]
pub struct Ask(Arc<AtomicBool>);

impl Ask {
    /// From now on the signal asks, and ends nothing.
    pub fn install() -> Self {
        let ask = Ask::default();
        // Where it cannot be, there is no such way to ask; --preview is another.
        #[cfg(unix)]
        let _ = signal_hook::flag::register(signal_hook::consts::SIGUSR1, ask.0.clone());
        ask
    }
    /// Whether somebody asked since the last time.
    pub fn taken(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}
