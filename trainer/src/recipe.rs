//! Ways to train: which stage comes next.
pub(crate) mod adversarial;
pub mod released;

use crate::Result;
use crate::machine::{Machine, State};
use crate::stage::Stage;

/// Which recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Recipe {
    /// A supervised warm start, then Adv-GRPO that uses every rollout for head and generator.
    #[default]
    Default,
    /// The released schedule, epoch by epoch; see [`released`].
    Released(released::Schedule),
}

impl Recipe {
    /// What the command line calls them.
    pub const NAMES: [&'static str; 2] = ["default", "released"];
}

/// The course of a training.
pub(crate) trait Course {
    /// The stage after the one that is complete, or the first; `None` at the end.
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>>;
}
