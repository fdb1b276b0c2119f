//! Submitting under a [`Pace`]: pieces of about half of what a poll gives, at most two of them submitted and not done, and their times learnt
//! from the device's own clock. Where it has none, a piece's time is what lies between its submit, or the end of the piece before, and its
//! end, which the worker waits for; a host's pauses are not in it.
use super::pace::Pace;
use super::profile::{Clock, Marks};
use super::{Prepared, Step, Wgpu, cost, device_error, encode};
use crate::Result;
use crate::exec::PlanId;
use crate::exec::plans::Held;
use alloc::{collections::VecDeque, format, vec::Vec};
use core::ops::Range;
use pentimento_wgsl::Variant;
use std::collections::HashMap;
use std::time::Instant;

/// Nanoseconds for each of [`cost`]'s units before anything was measured: a slow GPU, so that the first pieces are too small, not too
/// large.
const FIRST_RATE: f64 = 1.0 / 200.0;
/// A measured piece changes what is expected of its commands by no more than this factor.
const MOST_CHANGE: f64 = 4.0;
/// Nanoseconds for each byte that is copied to or from the device.
const COPY_RATE: f64 = 1.0 / 8.0;
/// Pieces that are submitted and not done, at most.
const MOST_PIECES: usize = 2;

/// What is under way, and what commands take.
#[derive(Default)]
pub(super) struct Flight {
    sent: VecDeque<Sent>,
    /// When the last piece was seen to be done.
    landed: Option<Instant>,
    /// Nanoseconds for each unit of cost, by variant.
    rates: HashMap<Variant, f64>,
    /// Stopwatches that nothing uses.
    idle: Vec<Marks>,
}

/// One submit.
struct Sent {
    index: wgpu::SubmissionIndex,
    /// Nanoseconds that were taken for it.
    taken: u64,
    watch: Option<Marks>,
    at: Instant,
    /// Commands of a plan, to learn from what they took; none for copies and first runs, which compile.
    commands: Option<(PlanId, Range<usize>)>,
}

impl Flight {
    /// Whether a piece has to wait for those before it.
    fn crowded(&self, taken: u64, most: u64) -> bool {
        let under_way: u64 = self.sent.iter().map(|sent| sent.taken).sum();
        !self.sent.is_empty() && (self.sent.len() >= MOST_PIECES || under_way.saturating_add(taken) > most)
    }
}

impl Wgpu {
    /// Submits no more than `pace` allows from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// No more commands than this share a dispatch in plans that are made from now on, as far as the device lets them: for measurements of
    /// what it gains.
    pub fn set_together(&mut self, most: u32) {
        self.caps.together = self.caps.together.min(most).max(1);
    }

    /// Nanoseconds that a command is expected to take.
    pub(super) fn expected(&self, p: &Held<Prepared>, index: usize) -> u64 {
        let known = p.own.took.get(index).copied().filter(|&took| took > 0.0);
        known.map_or_else(|| self.guess(p, index), f64::from).max(1.0) as u64
    }
    fn guess(&self, p: &Held<Prepared>, index: usize) -> f64 {
        let command = &p.plan.commands[index];
        let rate = self.flight.rates.get(&command.variant).copied().unwrap_or(FIRST_RATE);
        cost(command.flops) as f64 * rate
    }

    /// Submits commands of a plan once there is time for them. `first`: the last of them has never run.
    pub(super) fn send(&mut self, plan: PlanId, range: Range<usize>, first: bool) -> Result<()> {
        let p = self.plans.get(plan)?;
        let taken: u64 = range.clone().map(|i| self.expected(p, i)).sum();
        self.room_for(taken)?;
        let watch = self.stopwatch()?;
        let steps = &self.plans.get(plan)?.own.steps[range.clone()];
        let mut encoder = self.encoder();
        self.ours(|| timed(steps, &mut encoder, watch.as_ref()));
        let index = self.submit(Some(encoder));
        if let Some(watch) = &watch {
            self.ours(|| watch.request());
        }
        let commands = (!first).then_some((plan, range));
        self.fly(Sent { index, taken, watch, at: Instant::now(), commands });
        Ok(())
    }
    /// Submits copies of so many bytes once there is time for them.
    pub(super) fn carry(
        &mut self,
        encoder: Option<wgpu::CommandEncoder>,
        bytes: u64,
    ) -> Result<wgpu::SubmissionIndex> {
        if !self.pace.limited() {
            return Ok(self.submit(encoder));
        }
        let taken = (bytes as f64 * COPY_RATE) as u64;
        self.room_for(taken)?;
        let index = self.submit(encoder);
        self.fly(Sent { index: index.clone(), taken, watch: None, at: Instant::now(), commands: None });
        Ok(index)
    }
    fn fly(&mut self, sent: Sent) {
        self.flight.sent.push_back(sent);
    }

    /// Waits until a piece may be submitted, and takes its time.
    fn room_for(&mut self, taken: u64) -> Result<()> {
        self.pace.breathe();
        while self.flight.crowded(taken, self.pace.queued().unwrap_or(u64::MAX)) {
            self.land()?;
        }
        self.pace.take(taken);
        Ok(())
    }

    /// Waits for the oldest piece and learns what it took.
    fn land(&mut self) -> Result<()> {
        let Some(sent) = self.flight.sent.pop_front() else { return Ok(()) };
        let before = Instant::now();
        let wait = wgpu::PollType::Wait { submission_index: Some(sent.index.clone()), timeout: None };
        let waited = self.device.poll(wait);
        self.pace.away(before.elapsed());
        waited.map_err(|e| device_error(&self.caps.name, format!("waiting failed: {e}")))?;
        let now = Instant::now();
        let began = self.flight.landed.replace(now).map_or(sent.at, |last| last.max(sent.at));
        let by_host = now.duration_since(began).as_nanos() as f64;
        let period = f64::from(self.queue.get_timestamp_period());
        let ticks = sent.watch.as_ref().and_then(Marks::between);
        self.flight.idle.extend(sent.watch);
        let measured = ticks.map_or(by_host, |ticks| ticks as f64 * period);
        if let Some((plan, range)) = sent.commands {
            self.pace.settle(sent.taken, measured as u64);
            self.learn_commands(plan, range, measured / sent.taken.max(1) as f64);
        }
        self.failure()
    }

    /// Takes to heart what commands took together, `ratio` times what was expected of them.
    fn learn_commands(&mut self, plan: PlanId, range: Range<usize>, ratio: f64) {
        let Ok(p) = self.plans.get(plan) else { return };
        let ratio = ratio.clamp(1.0 / MOST_CHANGE, MOST_CHANGE);
        let each: Vec<f64> = range.clone().map(|i| self.expected(p, i) as f64 * ratio).collect();
        for (took, command) in each.iter().zip(&p.plan.commands[range.clone()]) {
            self.flight.rates.insert(command.variant, took / cost(command.flops) as f64);
        }
        let Ok(p) = self.plans.get_mut(plan) else { return };
        p.own.took.resize(p.plan.commands.len(), 0.0);
        for (known, took) in p.own.took[range].iter_mut().zip(each) {
            *known = took as f32;
        }
    }

    fn stopwatch(&mut self) -> Result<Option<Marks>> {
        if self.clock() == Clock::Host {
            return Ok(None);
        }
        self.flight.idle.pop().map_or_else(|| Marks::new(self, 2), Ok).map(Some)
    }
}

/// Encodes commands between the two marks of a stopwatch.
fn timed(steps: &[Step], encoder: &mut wgpu::CommandEncoder, watch: Option<&Marks>) {
    let at = |i| watch.and_then(|marks| marks.at(i));
    encode(steps, encoder, at(0), at(1));
    if let Some(marks) = watch {
        marks.resolve(encoder, 2);
    }
}
