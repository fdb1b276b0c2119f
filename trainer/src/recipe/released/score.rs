//! Rewards of an epoch, from the judge as it was before the epoch's own step, and their advantages.
use super::Bench;
use crate::Result;
use crate::advantage;
use crate::machine::Machine;
use crate::stage::Stage;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

/// Generated images, then references, batch after batch.
#[derive(Default)]
pub(super) struct Score {
    /// Lists done: two a batch.
    done: usize,
    begun: bool,
    /// Rewards of generated images, of references.
    rewards: [Vec<f32>; 2],
}

impl Score {
    fn begin(&mut self, bench: &mut Bench, epoch: usize) -> Result<()> {
        let (b, references) = (self.done / 2, self.done % 2 == 1);
        let Bench { batches, prompts, judge, script, .. } = bench;
        let prompt = &prompts[batches[b].prompt];
        let (kind, images): (&str, Vec<&[f32]>) = if references {
            ("ref", prompt.references.iter().map(|r| r.pixels.as_slice()).collect())
        } else {
            ("gen", batches[b].images.iter().map(Vec::as_slice).collect())
        };
        self.begun = true;
        judge.begin_rewards(&prompt.name, &images, &format!("e{epoch}.b{b}.idx_{kind}"), &mut **script)
    }
    /// Advantages, and what is reported.
    fn finish(&self, m: &mut Machine, s: &mut State) -> Result<()> {
        let (e, c) = (s.iteration, m.config.clone());
        let [generated, reference] = &self.rewards;
        let bench = Bench::of(m)?;
        let key = |b: &super::Made| bench.prompts[b.prompt].key.as_str();
        let keys: Vec<&str> =
            bench.batches.iter().flat_map(|b| core::iter::repeat_n(key(b), c.rollout.group)).collect();
        let groups = advantage::groups(&keys);
        let advantages =
            advantage::grouped(generated, &groups, 1, c.grpo.spread, 0.0, c.grpo.advantage_limit);
        bench.script.note(&format!("e{e}.rewards"), generated);
        bench.script.note(&format!("e{e}.reference_rewards"), reference);
        // One advantage for all trained steps of an image.
        let each = advantages.iter().flat_map(|&a| core::iter::repeat_n(a, c.rollout.window));
        bench.script.note(&format!("e{e}.advantages"), &each.collect::<Vec<f32>>());
        bench.advantages = advantages;
        s.metrics.reward_generated = advantage::moments(generated).0;
        s.metrics.reward_reference = advantage::moments(reference).0;
        Ok(())
    }
}

impl Stage for Score {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        let all = 2 * Bench::of(m)?.batches.len();
        if self.done == all {
            self.finish(m, s)?;
            return Ok(None);
        }
        if !self.begun {
            self.begin(Bench::of(m)?, s.iteration)?;
        }
        let Machine { pipeline, bench: Some(bench), .. } = m else { return Ok(None) };
        bench.judge.launch(&mut *pipeline.exec).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, _: &mut State) -> Result<Event> {
        let Machine { pipeline, bench: Some(bench), .. } = m else { return Ok(Event::Working) };
        if bench.judge.collect(&mut *pipeline.exec)? {
            self.rewards[self.done % 2].extend(bench.judge.rewards()?);
            self.done += 1;
            self.begun = false;
        }
        Ok(Event::Working)
    }
}
