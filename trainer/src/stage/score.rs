//! Rewards of the iteration's images, and of as many references.
use super::Stage;
use crate::Result;
use crate::advantage::moments;
use crate::machine::Machine;
use crate::reward::head::{Patches, rewards};
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

/// Scores images, then references, from `first` on.
#[derive(Default)]
pub(crate) struct Score {
    first: usize,
    scores: Vec<Vec<f32>>,
}

impl Stage for Score {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if self.first == count(m, s) {
            return Ok(None);
        }
        let made = &s.batch.tokens;
        let critic = m.critic.as_mut().ok_or_else(crate::reward::none)?;
        let known = m.known.tokens.iter().take(made.len()).map(Vec::as_slice);
        let all = made.iter().map(|t| t.as_slice()).chain(known);
        let tokens: Vec<&[f32]> = all.skip(self.first).take(critic.head.score_batch()).collect();
        let normalise = m.config.head.normalise_reward;
        critic.head.begin_score(&mut *m.pipeline.exec, &tokens, normalise).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let all = count(m, s);
        let (pipeline, critic) = m.judged()?;
        let left = (all - self.first).min(critic.head.score_batch());
        self.scores.extend(critic.head.end_score(&mut *pipeline.exec, left)?);
        self.first += left;
        if self.first == all {
            critic.head.rest(&mut *pipeline.exec)?;
            self.finish(m, s)?;
        }
        Ok(Event::Working)
    }
}

impl Score {
    /// Turns scores into rewards, and keeps the tokens for head steps to come.
    fn finish(&mut self, m: &Machine, s: &mut State) -> Result<()> {
        let mut scores = core::mem::take(&mut self.scores);
        let reference = scores.split_off(s.batch.tokens.len().min(scores.len()));
        let mut generated = reward(m, s, &scores)?;
        let part = m.config.head.alignment;
        let aligned = generated.iter_mut().zip(&s.batch.alignment);
        aligned.for_each(|(r, a)| *r = (1.0 - part) * *r + part * a);
        let reference = reward(m, s, &reference)?;
        settle(m, s, scores, generated);
        s.metrics.reward_reference = moments(&reference).0;
        s.replay.extend(s.batch.tokens.iter().cloned());
        while s.replay.len() > m.config.head.replay {
            s.replay.pop_front();
        }
        Ok(())
    }
}

/// Takes in the scores of the iteration's images and their rewards.
pub(super) fn settle(m: &Machine, s: &mut State, scores: Vec<Vec<f32>>, rewards: Vec<f32>) {
    let c = &m.config.rollout;
    let groups = rewards.chunks_exact(c.group);
    s.metrics.reward_spread = groups.map(|g| moments(g).1).sum::<f32>() / c.prompts as f32;
    s.metrics.reward_generated = moments(&rewards).0;
    (s.batch.scores, s.batch.rewards) = (scores, rewards);
}

/// Images and references to score.
fn count(m: &Machine, s: &State) -> usize {
    let made = s.batch.tokens.len();
    made + m.known.tokens.len().min(made)
}

/// Rewards from the head's scores, over all patches or some drawn anew.
fn reward(m: &Machine, s: &mut State, scores: &[Vec<f32>]) -> Result<Vec<f32>> {
    let picked = m.pick_patches(s, scores.len())?;
    let patches = picked.as_deref().map_or(Patches::All, Patches::Picked);
    rewards(scores, m.config.head.class_weight, patches)
}
