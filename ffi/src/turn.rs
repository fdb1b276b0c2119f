//! Stopping a call from another thread.
use crate::guard::Result;
use runtime::Error;
use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const RUNS: u8 = 1;
const ASKED: u8 = 2;

/// Whether a handle's work is in progress, and asked to stop. What is asked ends with the call that it was asked of.
#[derive(Default)]
pub struct Turn(AtomicU8);

impl Turn {
    /// A call begins, by whoever has exclusive use of the handle.
    pub fn begin(&self) -> Running<'_> {
        self.0.store(RUNS, Ordering::Release);
        Running(self)
    }
    /// Asks the call in progress, if any, to stop, or takes that back.
    pub fn ask(&self, stop: bool) {
        let (from, to) = if stop { (RUNS, ASKED) } else { (ASKED, RUNS) };
        let _ = self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A call in progress.
pub struct Running<'a>(&'a Turn);

impl Running<'_> {
    pub fn asked(&self) -> bool {
        self.0.0.load(Ordering::Acquire) == ASKED
    }
    pub fn check(&self) -> Result<()> {
        if self.asked() { Err(Error::Cancelled.into()) } else { Ok(()) }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.store(IDLE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_hits_the_call_in_progress_and_no_other() {
        let turn = Turn::default();
        turn.ask(true);
        let call = turn.begin();
        assert!(!call.asked() && call.check().is_ok(), "asked before it began");
        turn.ask(true);
        assert!(call.asked() && call.check().is_err());
        turn.ask(false);
        assert!(!call.asked(), "taken back");
        turn.ask(true);
        turn.ask(true);
        drop(call);
        assert!(!turn.begin().asked(), "the next call was hit");
    }
}
