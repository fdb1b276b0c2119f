//! Ways to train: which stage comes next.
pub(crate) mod adversarial;
mod presets;
pub mod released;

use crate::Result;
use crate::machine::{Machine, State};
use crate::stage::Stage;

/// Which recipe. All but the released one begin with a supervised warm start; [`Config::recipe`] has settings for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Recipe {
    /// The adversarial reward's own gradient, through backbone, decoder and a sampling step; see
    /// [`crate::objective::pathwise`].
    #[default]
    Pathwise,
    /// Adv-GRPO that uses every rollout for head and generator; see [`crate::objective::grpo`].
    Grpo,
    /// The baseline Flow-GRPO (arXiv 2505.05470): the reward is fixed after the first iteration's head steps, and the policy
    /// is held to the base model.
    FlowGrpo,
    /// The released schedule, epoch by epoch; see [`released`].
    Released(released::Schedule),
}

impl Recipe {
    /// What the command line calls them; `default` is the one that suits the device.
    pub const NAMES: [&'static str; 5] = ["default", "pathwise", "grpo", "flow-grpo", "released"];
}

/// The course of a training.
pub(crate) trait Course {
    /// The stage after the one that is complete, or the first; `None` at the end.
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>>;
}
