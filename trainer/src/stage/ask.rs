//! Rewards of the iteration's images from the host: decoded on the device, several images a run.
use super::{Stage, score};
use crate::Result;
use crate::machine::Machine;
use crate::objective::grpo::Credit;
use crate::reward::head::{Patches, rewards};
use crate::reward::host::{Drawn, checked};
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

/// Asks for each image in turn.
#[derive(Default)]
pub(crate) struct Ask {
    done: usize,
    scores: Vec<Vec<f32>>,
}

impl Stage for Ask {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        let rest = &s.batch.images[self.done..];
        if rest.is_empty() {
            return Ok(None);
        }
        let rows = m.config.at_once.describe;
        let mut x: Vec<f32> = rest.iter().take(rows).flatten().copied().collect();
        x.resize(rows * m.per_image(), 0.0);
        let plan = m.pipeline.decoder(rows, m.size)?;
        m.pipeline.exec.write(plan, "latents", &x)?;
        Ok(Some(plan))
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let plan = m.pipeline.decoder(m.config.at_once.describe, m.size)?;
        let images = m.pipeline.exec.read(plan, "image")?;
        let reward = m.host.as_mut().ok_or_else(crate::reward::none)?;
        let needed = matches!(m.config.grpo.credit, Credit::Patch(_));
        let left = s.batch.images.len() - self.done;
        for pixels in images.chunks_exact(m.pixels.0 * m.pixels.1 * 3).take(left) {
            let prompt = m.known.prompt(s.batch.prompts[self.done / m.config.rollout.group]);
            self.scores.push(checked(reward(&Drawn { prompt, pixels, size: m.pixels }), needed)?);
            self.done += 1;
        }
        if self.done == s.batch.images.len() {
            let scores = core::mem::take(&mut self.scores);
            let rewards = self::reward(m, &scores)?;
            score::settle(m, s, scores, rewards);
        }
        Ok(s.part())
    }
}

/// Without patches an image's own reward is all of it.
fn reward(m: &Machine, scores: &[Vec<f32>]) -> Result<Vec<f32>> {
    if scores.iter().all(|r| r.len() == 1) {
        return Ok(scores.concat());
    }
    rewards(scores, m.config.head.class_weight, Patches::All)
}
