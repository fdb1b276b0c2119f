//! Steps of the reward head: references against images of this iteration and earlier ones.
use super::Stage;
use crate::Result;
use crate::machine::Machine;
use crate::reward::HeadStep;
use crate::reward::head::Patches;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

/// Head steps of an iteration: `head.warm` in the first, `head.steps` in the others.
pub(crate) struct Teach {
    left: usize,
}

impl Teach {
    pub fn new(m: &Machine, s: &State) -> Self {
        let c = &m.config.head;
        Teach { left: if s.iteration == 0 { c.warm } else { c.steps } }
    }
}

impl Stage for Teach {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if self.left == 0 {
            return Ok(None);
        }
        let n = m.config.head.batch;
        let mut draw = |n: usize, all: usize| -> Vec<usize> {
            (0..n).map(|_| s.rng.below(all as u32) as usize).collect()
        };
        let real = draw(n, m.known.tokens.len());
        let old = if s.replay.is_empty() { 0 } else { n / 2 };
        let fake = draw(n - old, s.batch.tokens.len());
        let kept = draw(old, s.replay.len());
        let picked = m.pick_patches(s, 2 * n)?;
        let real: Vec<&[f32]> = real.iter().map(|&i| m.known.tokens[i].as_slice()).collect();
        let kept = kept.iter().map(|&i| s.replay[i].as_slice());
        let fake: Vec<&[f32]> = fake.iter().map(|&i| s.batch.tokens[i].as_slice()).chain(kept).collect();
        let patches = picked.as_deref().map_or(Patches::All, Patches::Picked);
        let critic = m.critic.as_mut().ok_or_else(crate::reward::none)?;
        critic.head.begin_step(&mut *m.pipeline.exec, &real, &fake, patches).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let (pipeline, critic) = m.judged()?;
        let HeadStep { loss, accuracy } = critic.head.end_step(&mut *pipeline.exec)?;
        (s.metrics.head_loss, s.metrics.head_accuracy) = (loss, accuracy);
        s.metrics.head_steps += 1;
        self.left -= 1;
        Ok(Event::Working)
    }
}
