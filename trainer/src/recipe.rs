//! Ways to train: which stage comes next.
pub(crate) mod adversarial;
pub mod released;

use crate::Result;
use crate::machine::{Machine, State};
use crate::stage::Stage;

/// The course of a training.
pub(crate) trait Course {
    /// The stage after the one that is complete, or the first; `None` at the end.
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>>;
}
