//! A piece for another trainer.
use super::{Made, Share, What, range};
use crate::Result;
use crate::machine::Machine;
use crate::objective::Learn;
use crate::recipe::adversarial;
use crate::stage::Stage;
use crate::stage::describe::Describe;
use crate::stage::rollout::Rollout;
use crate::train::Event;
use crate::train::state::State;
use pentimento_runtime::exec::PlanId;

/// What comes next.
enum Next {
    Begin,
    Describe,
    End,
}

/// The course of a trainer that works for another.
pub(crate) struct Errand {
    share: Share,
    /// Of what is shared.
    name: String,
    piece: usize,
    next: Next,
}

impl Errand {
    pub fn new(share: Share, name: String, piece: usize) -> Self {
        Errand { share, name, piece, next: Next::Begin }
    }
    pub fn begun(&self) -> bool {
        !matches!(self.next, Next::Begin)
    }
    /// The stage after the one that is complete, or the first; `None` at the end.
    pub fn next(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<Box<dyn Stage>>> {
        match (&self.next, self.share.what()) {
            (Next::Begin, what) => {
                let (state, reward) = self.share.state(m);
                *s = state;
                reward.map_or(Ok(()), |learned| m.learn_from(learned))?;
                m.set_adapter(&s.values)?;
                m.made = Made::default();
                if what == What::Gradients {
                    self.next = Next::End;
                    return Ok(Some(Box::new(Part::begin(m, s, &self.share, self.piece)?)));
                }
                self.next = if m.critic.is_some() { Next::Describe } else { Next::End };
                let groups = range(m.config.rollout.prompts, self.piece, self.share.pieces);
                Ok(Some(Box::new(Rollout::part(m, s, groups)?)))
            }
            (Next::Describe, _) => {
                self.next = Next::End;
                Ok(Some(Box::new(Describe::images(s))))
            }
            (Next::End, _) => Ok(None),
        }
    }
    /// The piece's bytes.
    pub fn made(&self, m: &mut Machine, s: &mut State) -> Result<Vec<u8>> {
        let mut made = core::mem::take(&mut m.made);
        if self.share.what() == What::Rollout {
            made.batch = core::mem::take(&mut s.batch);
        }
        made.write(&self.name, self.piece)
    }
}

/// Some of the training runs of an optimiser step.
struct Part {
    learn: Learn,
    piece: usize,
    pieces: usize,
}

impl Part {
    fn begin(m: &mut Machine, s: &mut State, share: &Share, piece: usize) -> Result<Self> {
        let mut learn = Learn::new(adversarial::objectives(m));
        learn.begin(m, s)?;
        // What the optimiser steps before this one drew.
        for _ in 0..share.update {
            while learn.turn(m).is_some() {
                learn.deal(m, s)?;
                learn.pass(m);
            }
            learn.again();
        }
        Ok(Part { learn, piece, pieces: share.pieces.max(1) })
    }
}

impl Stage for Part {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        while let Some((_, unit)) = self.learn.turn(m) {
            if unit % self.pieces == self.piece {
                return self.learn.launch(m, s).map(Some);
            }
            self.learn.deal(m, s)?;
            self.learn.pass(m);
        }
        Ok(None)
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let Some((run, _)) = self.learn.turn(m) else { return Ok(Event::Working) };
        let mut gave = self.learn.read(m)?;
        // The objective may need what a run gave for the next one, but nobody here adds gradients up.
        let gradients = core::mem::take(&mut gave.gradients);
        self.learn.take(m, s, gave.clone())?;
        gave.gradients = gradients;
        m.made.which.push(run);
        m.made.runs.push(gave);
        Ok(Event::Working)
    }
}
