//! What a training is made of, one file each. A stage writes the inputs of one plan at a time and reads what it gave; the
//! trainer submits between the two, so that a host can pause anywhere. A recipe says which stage comes next.
pub(crate) mod ask;
pub(crate) mod base;
pub(crate) mod describe;
pub(crate) mod head;
pub(crate) mod prepare;
pub mod rollout;
pub(crate) mod score;
pub(crate) mod update;
pub mod warm;
pub mod watch;

use crate::machine::Machine;
use crate::spread::Made;
use crate::train::Event;
use crate::train::state::State;
use crate::{Error, Result};
use pentimento_runtime::exec::PlanId;

/// A part of a training. It keeps only what must not outlive it: an interrupted stage begins anew.
pub(crate) trait Stage {
    /// Writes the inputs of the next run and returns its plan; `None` when the stage is complete.
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>>;
    /// Reads the finished run.
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event>;
    /// Takes in the pieces that it asked others for, in place of its own runs.
    fn join(&mut self, m: &mut Machine, s: &mut State, made: Vec<Made>) -> Result<Event> {
        let _ = (m, s, made);
        Err(Error::Graph("pieces for a stage that asks for none".into()))
    }
    /// Whether the stage, begun anew at this moment, would go on from here.
    fn rests(&self) -> bool {
        false
    }
}
