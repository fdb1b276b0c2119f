//! The judge's turn: one step over everything the epoch brought.
use super::{Bench, finish};
use crate::Result;
use crate::machine::Machine;
use crate::reward::HeadStep;
use crate::reward::judge::Pairs;
use crate::stage::Stage;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

/// The step in progress.
#[derive(Default)]
pub(super) struct Learn {
    begun: bool,
    done: bool,
}

impl Stage for Learn {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        let Machine { pipeline, bench: Some(bench), .. } = m else { return Ok(None) };
        if self.done {
            return Ok(None);
        }
        if !self.begun {
            let Bench { batches, prompts, judge, script, .. } = bench;
            let pairs = batches.iter().map(|b| Pairs {
                prompt: &prompts[b.prompt].name,
                references: &prompts[b.prompt].references,
                images: &b.images,
            });
            let pairs: Vec<Pairs<'_>> = pairs.collect();
            judge.begin_step(&pairs, &format!("e{}", s.iteration), &mut **script)?;
            self.begun = true;
        }
        bench.judge.launch(&mut *pipeline.exec).map(Some)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let Machine { pipeline, bench: Some(bench), .. } = m else { return Ok(Event::Working) };
        if !bench.judge.collect(&mut *pipeline.exec)? {
            return Ok(Event::Working);
        }
        let step = bench.judge.step(&format!("e{}", s.iteration), &mut *bench.script)?;
        HeadStep { loss: s.metrics.head_loss, accuracy: s.metrics.head_accuracy } = step;
        s.metrics.head_steps = 1;
        s.global_step += 1;
        self.done = true;
        Ok(finish(m, s))
    }
}
