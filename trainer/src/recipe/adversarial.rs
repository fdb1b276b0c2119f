//! The adversarial recipes: a supervised warm start, then every rollout serves head and generator (Adv-GRPO, arXiv
//! 2511.20256, and its pathwise sibling).
//!
//! ```text
//! prompts -> rollout -> decode -> tokens -> head steps -> rewards -> objective + anchor -> AdamW
//!                                   ^ references, encoded once
//! ```
//! Between iterations a training looks at itself, see [`watch`].
use super::{Course, Recipe};
use crate::Result;
use crate::machine::Machine;
use crate::objective::{
    Objective, anchor::Anchor, flow::Supervised, grpo::Grpo, nft::Nft, pathwise::Pathwise,
};
use crate::reward::Critic;
use crate::stage::Stage;
use crate::stage::ask::Ask;
use crate::stage::describe::Describe;
use crate::stage::head::Teach;
use crate::stage::prepare::{Aligned, Latents, Texts};
use crate::stage::rollout::Rollout;
use crate::stage::score::Score;
use crate::stage::update::Update;
use crate::stage::warm::Warm;
use crate::stage::watch::{self, Watch};
use crate::train::state::{Finds, State};

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Texts,
    Latents,
    Aligned,
    References,
    Warm,
    Restart,
    Base,
    Start,
    Seen,
    Iteration,
    Describe,
    Ask,
    Teach,
    Score,
    Update,
}

/// What a saved state calls them, and what they find of an iteration's batch. Those that prepare are done anew.
const PHASES: [(Next, &str, Finds); 10] = [
    (Next::Warm, "warm start", Finds::Nothing),
    (Next::Restart, "look at the base model", Finds::Nothing), // which comes at once
    (Next::Start, "look at the start", Finds::Nothing),
    (Next::Seen, "look", Finds::Nothing),
    (Next::Iteration, "iteration", Finds::Nothing),
    (Next::Describe, "describe", Finds::Images),
    (Next::Ask, "ask", Finds::Images),
    (Next::Teach, "teach", Finds::Tokens),
    (Next::Score, "score", Finds::Tokens),
    (Next::Update, "update", Finds::Rewards),
];

/// The course of the default recipe.
pub(crate) struct Adversarial {
    next: Next,
}

impl Adversarial {
    /// Opens the reward, where the host gives none.
    pub fn open(m: &mut Machine) -> Result<Self> {
        if m.host.is_none() {
            m.critic = Some(Critic::open(&mut m.pipeline, &m.reward, &m.config, m.size)?);
        }
        Ok(Adversarial { next: Next::Texts })
    }

    /// Begins an iteration, if there is to be one.
    fn iteration(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>> {
        if s.watch.verdict.stopped() || !super::begins(m, s) {
            return Ok(None);
        }
        let c = &m.config;
        let runs: usize = objectives(m).iter().map(|o| o.runs(m)).sum();
        s.parts = (0, c.rollout.steps + c.images().div_ceil(c.at_once.describe) + c.grpo.updates * runs);
        Ok(Some(Box::new(Rollout::begin(m, s)?)))
    }
}

/// The objective, and extra terms whose gradients are added to its own.
pub(crate) fn objectives(m: &Machine) -> Vec<Box<dyn Objective>> {
    let mut all: Vec<Box<dyn Objective>> = vec![match m.config.recipe {
        Recipe::Pathwise => Box::new(Pathwise::default()),
        Recipe::Nft => Box::new(Nft::default()),
        Recipe::Grpo | Recipe::FlowGrpo | Recipe::Supervised | Recipe::Released => Box::new(Grpo::default()),
    }];
    if m.config.anchor.weight > 0.0 {
        all.push(Box::new(Anchor::default()));
    }
    all
}

impl Course for Adversarial {
    fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>> {
        let (stage, next): (Box<dyn Stage>, Next) = match self.next {
            Next::Texts => (Box::new(Texts::default()), Next::Latents),
            Next::Latents => (Box::new(Latents), if m.host.is_some() { Next::Warm } else { Next::Aligned }),
            Next::Aligned => (Box::new(Aligned), Next::References),
            Next::References => (Box::new(Describe::references()), Next::Warm),
            Next::Warm => (Box::new(Warm::new(m, s, vec![Box::<Supervised>::default()])), Next::Restart),
            Next::Restart => {
                s.restart(&m.config);
                self.next = if Watch::wanted(m) { Next::Base } else { Next::Iteration };
                return self.next(m, s);
            }
            Next::Base => (Box::new(Watch::begin(m, watch::Of::Base)?), Next::Start),
            Next::Start => (Box::new(Watch::begin(m, watch::Of::Average)?), Next::Iteration),
            Next::Seen => {
                s.watch.note(s.metrics.head_loss);
                self.next = Next::Iteration;
                if Watch::wanted(m) && s.watch.due(m.config.watch.every, s.iteration) {
                    return Ok(Some(Box::new(Watch::begin(m, watch::Of::Average)?)));
                }
                return self.next(m, s);
            }
            Next::Iteration => {
                let stage = self.iteration(m, s)?;
                if stage.is_some() {
                    self.next = if m.host.is_some() { Next::Ask } else { Next::Describe };
                } else if s.watch.due(1, s.iteration) {
                    return Ok(Some(Box::new(Watch::begin(m, watch::Of::Average)?)));
                }
                return Ok(stage);
            }
            Next::Ask => (Box::new(Ask::default()), Next::Update),
            Next::Describe => (Box::new(Describe::images(s)), Next::Teach),
            Next::Teach => (Box::new(Teach::new(m, s)), Next::Score),
            Next::Score => (Box::new(Score::default()), Next::Update),
            Next::Update => {
                let updates = m.config.grpo.updates;
                (Box::new(Update::begin(m, s, updates, objectives(m))?), Next::Seen)
            }
        };
        self.next = next;
        Ok(Some(stage))
    }
    fn phase(&self) -> Option<&'static str> {
        PHASES.iter().find(|p| p.0 == self.next).map(|p| p.1)
    }
    fn finds(&self, phase: &str) -> Option<Finds> {
        PHASES.iter().find(|p| p.1 == phase).map(|p| p.2)
    }
    fn go(&mut self, phase: &str) {
        PHASES.iter().filter(|p| p.1 == phase).for_each(|p| self.next = p.0);
    }
}
