//! Ways to train: which stage comes next.
pub(crate) mod adversarial;
mod presets;
pub mod released;
pub(crate) mod supervised;

pub use presets::{PRESETS, Preset};

use crate::Result;
use crate::machine::Machine;
use crate::stage::Stage;
use crate::train::Metrics;
use crate::train::state::Finds;
use crate::train::state::State;

/// Which recipe. All but the released one begin with a supervised warm start; [`crate::config::Config::recipe`] has settings for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// The forward-process objective on every rollout (DiffusionNFT, arXiv 2509.16117); see [`crate::objective::nft`].
    Nft,
    /// Supervised flow matching on the references, the warm start's loss throughout, without a reward; with the prior
    /// preservation of [`crate::objective::prior`].
    Supervised,
    /// The released schedule, epoch by epoch; see [`released`].
    Released,
}

impl Recipe {
    /// Their names; `default` is the one that suits the device.
    pub const NAMES: [&'static str; 7] =
        ["default", "pathwise", "grpo", "flow-grpo", "nft", "sft", "released"];

    /// The one of a name among [`Recipe::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        if name == "default" {
            return Some(Recipe::default());
        }
        use Recipe::*;
        [Pathwise, Grpo, FlowGrpo, Nft, Supervised, Released].into_iter().find(|r| r.name() == name)
    }
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Pathwise => "pathwise",
            Recipe::Grpo => "grpo",
            Recipe::FlowGrpo => "flow-grpo",
            Recipe::Nft => "nft",
            Recipe::Supervised => "sft",
            Recipe::Released => "released",
        }
    }
}

/// The course of a training.
pub(crate) trait Course {
    /// The stage after the one that is complete, or the first; `None` at the end.
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>>;
    /// The name of what comes next; `None` while prompts and references are prepared, which is always done anew.
    fn phase(&self) -> Option<&'static str>;
    /// What a phase finds of an iteration's batch; `None` for one that this course does not have.
    fn finds(&self, phase: &str) -> Option<Finds>;
    /// Goes to a phase, if the course has it.
    fn go(&mut self, phase: &str);
}

/// Begins an iteration's clock and metrics, if there is to be one: the deadline leaves time for one as long as the last, or
/// without a deadline there are fewer than configured.
fn begins(m: &mut Machine, s: &mut State) -> bool {
    let spare = m
        .clock
        .left(1.0)
        .is_none_or(|left| s.metrics.seconds == 0.0 || left >= s.metrics.seconds + s.watch.seconds);
    if m.clock.deadline.is_none() && s.iteration >= m.config.iterations || !spare {
        return false;
    }
    m.clock.started = m.clock.now();
    s.metrics = Metrics { iteration: s.iteration + 1, ..Metrics::default() };
    true
}
