//! Where a plan's time goes, by the device's own clock where it has one, and what the device does at best. For measuring only.
use super::{Instant, Mark, Wgpu, encode};
use crate::Result;
use crate::exec::{Executor, LeafData, PlanId, compile, null};
use crate::graph::{Graph, Layout};
use crate::plan::Command;
use alloc::vec::Vec;
use pentimento_wgsl::{Class, Stored, Variant};

/// How the time of single commands is taken, the better one later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// By the host: every command is submitted and waited for alone, so a short one shows what submitting costs.
    Host,
    /// By the device, at both ends of a pass for each command: what lies between two passes is no command's.
    Passes,
    /// By the device, between the commands of a pass.
    Commands,
}

/// Time spent in one command, or in all of one kernel variant.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// The variant.
    pub variant: Variant,
    /// Seconds, staging copies included.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of operands and results as they are stored, each counted once: what memory must move at least.
    pub bytes: u64,
    /// Dispatches.
    pub count: usize,
}

/// Duration of a whole run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Time {
    /// Seconds by the host's clock, from the first submit until the device is idle.
    pub wall: f64,
    /// Seconds by the device's clock, from the first command's begin to the last one's end; `None` without timestamps.
    pub device: Option<f64>,
}

/// Where the time of a plan goes.
#[derive(Clone, Debug)]
pub struct Profile {
    /// How `commands` were timed.
    pub clock: Clock,
    /// An uninterrupted run. Where it takes longer than all commands together, the device waited between them.
    pub whole: Time,
    /// Every command, in the plan's order.
    pub commands: Vec<Spent>,
}

impl Profile {
    /// The commands summed by variant, longest first.
    pub fn by_variant(&self) -> Vec<Spent> {
        let mut sums: Vec<Spent> = Vec::new();
        for c in &self.commands {
            match sums.iter_mut().find(|s| s.variant == c.variant) {
                Some(s) => s.add(c),
                None => sums.push(*c),
            }
        }
        sums.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        sums
    }
    /// Seconds of all commands together.
    pub fn seconds(&self) -> f64 {
        self.commands.iter().map(|c| c.seconds).sum()
    }
}

impl Spent {
    /// Adds another's time and work.
    pub fn add(&mut self, other: &Spent) {
        self.seconds += other.seconds;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.count += other.count;
    }
}

/// The best rates that were measured on an adapter: what a kernel's own are compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peaks {
    /// Bytes read and written per second by a copy of buffers that no cache holds.
    pub bytes: f64,
    /// Floating-point operations per second of the fastest large matmul.
    pub flops: f64,
}

/// Most queries of one set (WebGPU).
const QUERIES: u32 = 4096;

/// Timestamps, and the way back to the host.
pub(super) struct Marks {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readback: wgpu::Buffer,
}

impl Marks {
    pub(super) fn new(exec: &Wgpu, count: u32) -> Result<Self> {
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count };
        let set = exec.ours(|| exec.device.create_query_set(&descriptor));
        let (bytes, usage) = (8 * u64::from(count), wgpu::BufferUsages::QUERY_RESOLVE);
        let resolved = exec.create("timestamps", bytes, usage | wgpu::BufferUsages::COPY_SRC)?;
        let marks = Marks { set, resolved, readback: exec.readback_buffer(bytes)? };
        exec.failure()?;
        Ok(marks)
    }
    pub(super) fn at(&self, index: u32) -> Mark<'_> {
        Some((&self.set, index))
    }
    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder, count: u32) {
        encoder.resolve_query_set(&self.set, 0..count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readback, 0, 8 * u64::from(count));
    }
    /// Asks for the first two, once what was submitted is done.
    pub(super) fn request(&self) {
        self.readback.map_async(wgpu::MapMode::Read, 0..16, |_| {});
    }
    /// The ticks between them, after what they were asked with is done.
    pub(super) fn between(&self) -> Option<u64> {
        let ticks = match self.readback.get_mapped_range(0..16) {
            Ok(view) => bytemuck::pod_collect_to_vec::<u8, u64>(&view),
            Err(_) => Vec::new(),
        };
        self.readback.unmap();
        ticks.get(1)?.checked_sub(ticks[0])
    }
    /// Waits; seconds since the first one.
    fn read(&self, exec: &Wgpu, count: u32) -> Result<Vec<f64>> {
        let ticks: Vec<u64> = exec.map(&self.readback, 8 * u64::from(count))?;
        let period = f64::from(exec.queue.get_timestamp_period()) * 1e-9;
        let first = ticks.first().copied().unwrap_or(0);
        Ok(ticks.iter().map(|t| t.saturating_sub(first) as f64 * period).collect())
    }
}

impl Wgpu {
    /// The best clock of the device.
    pub fn clock(&self) -> Clock {
        use wgpu::Features as F;
        let features = self.device.features();
        if !features.contains(F::TIMESTAMP_QUERY) {
            return Clock::Host;
        }
        let inside = F::TIMESTAMP_QUERY_INSIDE_ENCODERS | F::TIMESTAMP_QUERY_INSIDE_PASSES;
        if features.contains(inside) { Clock::Commands } else { Clock::Passes }
    }

    /// Runs a plan from its first command to its last and waits; before that, once more where it still lacks pipelines.
    ///
    /// # Errors
    /// The device failed.
    pub fn time(&mut self, plan: PlanId) -> Result<Time> {
        self.build_all(plan)?;
        let p = self.plans.get(plan)?;
        let (commands, work) =
            (p.plan.commands.len(), p.plan.commands.iter().map(|c| super::cost(c.flops)).sum());
        let marked = commands > 0 && self.clock() != Clock::Host;
        let marks = if marked { Some(Marks::new(self, 2)?) } else { None };
        let start = Instant::now();
        self.rewind(plan);
        while self.plans.get(plan)?.cursor < commands {
            let (range, _) = self.next_slice(plan)?;
            let mut encoder = self.encoder();
            let begin = marks.as_ref().filter(|_| range.start == 0).and_then(|m| m.at(0));
            let last = marks.as_ref().filter(|_| range.end == commands);
            let end = last.and_then(|m| m.at(1));
            encode(&self.plans.get(plan)?.own.steps[range.clone()], &mut encoder, begin, end);
            if let Some(marks) = last {
                marks.resolve(&mut encoder, 2);
            }
            self.submit(Some(encoder));
            self.plans.get_mut(plan)?.cursor = range.end;
        }
        self.wait()?;
        let wall = start.elapsed().as_secs_f64();
        self.learn(work, wall);
        let device = marks.map(|m| m.read(self, 2)).transpose()?;
        Ok(Time { wall, device: device.map(|seconds| seconds[1]) })
    }

    /// Times a plan as a whole and command by command, with the numbers its inputs have. Runs it twice, and once before
    /// where it still lacks pipelines.
    ///
    /// # Errors
    /// The device failed.
    pub fn profile(&mut self, plan: PlanId) -> Result<Profile> {
        self.profile_by(plan, self.clock())
    }

    /// [`Wgpu::profile`] by a clock, or by the device's best where it has no such clock.
    ///
    /// # Errors
    /// The device failed.
    pub fn profile_by(&mut self, plan: PlanId, clock: Clock) -> Result<Profile> {
        let (clock, whole) = (clock.min(self.clock()), self.time(plan)?);
        self.rewind(plan);
        let seconds = match clock {
            Clock::Host => self.seconds_by_host(plan)?,
            _ => self.seconds_by_device(plan, clock == Clock::Commands)?,
        };
        let plan = &self.plans.get(plan)?.plan;
        let seconds = shared_out(&plan.commands, seconds);
        let kind = |name: &str| self.stored(name);
        let commands = plan.commands.iter().zip(seconds).map(|(c, seconds)| {
            let bytes = null::moved(plan, c, &kind);
            Spent { variant: c.variant, seconds, flops: c.flops, bytes, count: (c.together > 0).into() }
        });
        Ok(Profile { clock, whole, commands: commands.collect() })
    }

    /// Runs a plan that has not run to its end before; its pipelines, and the driver's own, are then there.
    fn build_all(&mut self, plan: PlanId) -> Result<()> {
        let p = self.plans.get(plan)?;
        let new = p.plan.commands.iter().filter_map(Command::pipeline).any(|key| !self.run.contains(&key));
        if new || p.own.steps.len() < p.plan.commands.len() {
            self.run(plan)?;
        }
        self.plans.get_mut(plan)?.own.pending = (0, None);
        self.wait()
    }

    fn seconds_by_host(&mut self, plan: PlanId) -> Result<Vec<f64>> {
        let mut seconds = Vec::new();
        while !self.plans.get(plan)?.done() {
            let start = Instant::now();
            self.one(plan)?;
            self.wait()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    /// `inside`: timestamps between the commands of a pass, else a pass and two timestamps for each.
    fn seconds_by_device(&mut self, plan: PlanId, inside: bool) -> Result<Vec<f64>> {
        let marks = Marks::new(self, QUERIES)?;
        let most = if inside { QUERIES - 1 } else { QUERIES / 2 } as usize;
        let mut seconds = Vec::new();
        while !self.plans.get(plan)?.done() {
            let range = self.next_slice(plan)?.0;
            let range = range.start..range.end.min(range.start + most);
            let steps = &self.plans.get(plan)?.own.steps[range.clone()];
            let mut encoder = self.encoder();
            let mut count = 0;
            if inside {
                encoder.write_timestamp(&marks.set, count);
                for run in steps.chunk_by(|_, next| next.copies.is_empty()) {
                    run[0].copies.iter().for_each(|copy| copy.encode(&mut encoder));
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    for step in run {
                        step.dispatch(&mut pass);
                        count += 1;
                        pass.write_timestamp(&marks.set, count);
                    }
                }
                count += 1;
            } else {
                for step in steps {
                    let step = core::slice::from_ref(step);
                    encode(step, &mut encoder, marks.at(count), marks.at(count + 1));
                    count += 2;
                }
            }
            marks.resolve(&mut encoder, count);
            self.submit(Some(encoder));
            self.plans.get_mut(plan)?.cursor = range.end;
            let at = marks.read(self, count)?;
            let between = |pair: &[f64]| (pair[1] - pair[0]).max(0.0);
            if inside {
                seconds.extend(at.windows(2).map(between));
            } else {
                seconds.extend(at.chunks_exact(2).map(between));
            }
        }
        Ok(seconds)
    }

    /// Measures what the adapter does at best. Takes about a gigabyte of device memory for a second.
    ///
    /// # Errors
    /// The device failed.
    pub fn peaks(&mut self) -> Result<Peaks> {
        let kinds: &[Stored] =
            if self.caps.half_weights { &[Stored::F32, Stored::F16] } else { &[Stored::F32] };
        let (plans, mut flops) = (self.plans.made(), 0.0f64);
        for &kind in kinds {
            let rate = self.matmul_rate(kind);
            self.plans.ids_since(plans).into_iter().try_for_each(|plan| self.forget(plan))?;
            self.forget_leaves(PEAK_LEAF)?;
            flops = flops.max(rate?);
        }
        let bytes = self.copy_rate()?; // right after, while the clock is high
        Ok(Peaks { bytes, flops })
    }

    /// Bytes per second that copying a buffer reads and writes.
    fn copy_rate(&mut self) -> Result<f64> {
        let (most, copies) = if self.caps.class == Class::Gpu { (512 << 20, 16) } else { (64 << 20, 4) };
        let size = most.min(self.caps.max_buffer / 16 * 16);
        let (from, to) = (self.buffer("from", size)?, self.buffer("to", size)?);
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let mut encoder = self.encoder();
            (0..copies).for_each(|_| encoder.copy_buffer_to_buffer(&from, 0, &to, 0, size));
            let start = Instant::now();
            self.submit(Some(encoder));
            self.wait()?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((2 * copies * size) as f64 / best)
    }

    /// Operations per second of a square matmul with a weight of that kind.
    fn matmul_rate(&mut self, kind: Stored) -> Result<f64> {
        let n = if self.caps.class == Class::Gpu { 4096 } else { 512 };
        // Neither zeros nor a short period: some devices do those faster.
        let numbers: Vec<f32> = (0..n * n).map(|i| ((i * 7919 % 10007) as f32 - 5003.0) * 1e-4).collect();
        match kind {
            Stored::F32 => self.set_leaf(PEAK_LEAF, LeafData::F32(&numbers))?,
            _ => {
                let words: Vec<half::f16> = numbers.iter().map(|&v| half::f16::from_f32(v)).collect();
                let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                self.set_leaf(PEAK_LEAF, LeafData::Packed(Stored::F16, &bytes))?;
            }
        }
        let mut g = Graph::new();
        let x = g.input("x", &[n, n]);
        let w = g.weight(PEAK_LEAF, &[n, n], Layout::Plain);
        let y = g.linear(x, w, None);
        let plan = compile(self, g, &[("y", y)])?;
        self.write(plan, "x", &numbers)?;
        let flops = self.plan(plan).flops as f64;
        let start = Instant::now();
        while self.caps.class == Class::Gpu && start.elapsed().as_secs_f64() < AWAKE {
            (0..32).try_for_each(|_| self.run(plan))?;
            self.wait()?;
        }
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let time = self.time(plan)?;
            best = best.min(time.device.filter(|&s| s > 0.0).unwrap_or(time.wall));
        }
        Ok(flops / best)
    }
}

/// Seconds by command, where the first of a dispatch was timed for all of it: in proportion to their operations.
fn shared_out(commands: &[Command], mut seconds: Vec<f64>) -> Vec<f64> {
    for (at, first) in commands.iter().enumerate().filter(|(_, c)| c.together > 1) {
        let all = at..at + first.together as usize;
        let cost = |c: &Command| super::cost(c.flops) as f64;
        let (time, sum): (f64, f64) =
            (seconds[all.clone()].iter().sum(), commands[all.clone()].iter().map(cost).sum());
        for (own, c) in seconds[all.clone()].iter_mut().zip(&commands[all]) {
            *own = time * cost(c) / sum;
        }
    }
    seconds
}

const PEAK_LEAF: &str = "peak/weight";
/// Runs of which the fastest counts.
const RUNS: usize = 6;
/// Seconds of work without a pause that an idle card gets before: its clock is slow, and takes a while to rise.
const AWAKE: f64 = 1.0;
