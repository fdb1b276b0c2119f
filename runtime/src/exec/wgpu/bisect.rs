//! Which command of a plan goes wrong on an adapter: command by command against the CPU twins.
use super::Wgpu;
use crate::exec::limit::{difference, limits};
use crate::exec::operands;
use crate::exec::trace::leaves;
use crate::exec::{Executor, LeafData, Memory, PlanId, null};
use crate::plan::{Command, Place, Plan, Slot};
use crate::weights::Shared;
use crate::{Error, Result};
use alloc::{
    borrow::Cow,
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec,
    vec::Vec,
};
use core::fmt;
use half::f16;
use pentimento_wgsl::{Stored, Variant, twin};

/// The numbers of some arguments.
type Tensors = Vec<Vec<f32>>;

/// Whose result of a command the commands after it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The twin's: command n runs on the adapter after n commands on the twins.
    Twin,
    /// The adapter's: command n runs on its twin after n commands on the adapter.
    Adapter,
}

/// What one command's results on adapter and twin have between them.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Position in the plan, from 0.
    pub index: usize,
    /// Commands of the plan.
    pub commands: usize,
    /// The kernel as built.
    pub variant: Variant,
    /// Weights or parameters that it reads.
    pub leaves: Vec<String>,
    /// Shape of the value that it computes, see [`Command::shape`].
    pub shape: Vec<usize>,
    /// Norm of the difference.
    pub error: f64,
    /// What it may be.
    pub limit: f64,
    /// The element that differs most, on the adapter and on the twin.
    pub worst: (usize, f32, f32),
}

impl Difference {
    /// Within the limit; false for NaN.
    pub fn agrees(&self) -> bool {
        self.error <= self.limit
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.variant;
        write!(f, "command {} of {}, {}", self.index + 1, self.commands, v.entry())?;
        let body = v.body();
        if !body.is_empty() {
            write!(f, " ({body})")?;
        }
        write!(f, " to {:?}", self.shape)?;
        if !self.leaves.is_empty() {
            write!(f, " with {}", self.leaves.join(", "))?;
        }
        let (at, got, want) = self.worst;
        write!(f, ": error {:.2e}, limit {:.2e}", self.error, self.limit)?;
        write!(f, "; element {at} is {got:e} on the adapter, {want:e} on the CPU")
    }
}

impl Wgpu {
    /// Runs a prepared plan command by command, each on the adapter and on its twin with the same inputs, and returns
    /// the first whose results differ beyond what rounding explains; the plan stops there. `Ok(None)`: all agree, and
    /// the results can be read. `truth` is the plan as it should be where the prepared one may not be it. `note` is told
    /// of every command.
    ///
    /// # Errors
    /// The device failed, or `truth` has another number of commands.
    pub fn bisect(
        &mut self,
        plan: PlanId,
        truth: Option<&Plan>,
        follow: Follow,
        note: &mut dyn FnMut(&Difference),
    ) -> Result<Option<Difference>> {
        let commands = self.commands(plan, truth)?;
        self.rewind(plan);
        for (index, command) in commands.into_iter().enumerate() {
            if !command.last {
                self.one(plan)?;
                continue;
            }
            let (inputs, outputs) = self.twin_of(plan, &command)?;
            self.one(plan)?;
            let found = self.compare(plan, index, &command, &inputs, &outputs)?;
            note(&found);
            if !found.agrees() {
                return Ok(Some(found));
            }
            if follow == Follow::Twin {
                self.store(plan, &command, &outputs)?;
            }
        }
        Ok(None)
    }

    /// Runs the first `n` commands of a prepared plan, or of the one that it should be, on the CPU twins and the rest on
    /// the adapter. Where [`Wgpu::bisect`] has named a command, its results with n on either side tell what it spoils.
    ///
    /// # Errors
    /// The device failed, or `truth` has another number of commands.
    pub fn run_mixed(&mut self, plan: PlanId, truth: Option<&Plan>, n: usize) -> Result<()> {
        let commands = self.commands(plan, truth)?;
        self.rewind(plan);
        for command in commands.iter().take(n) {
            if !command.last {
                self.one(plan)?;
                continue;
            }
            let (_, outputs) = self.twin_of(plan, command)?;
            self.one(plan)?; // fills staged textures as the next commands expect them
            self.store(plan, command, &outputs)?;
        }
        if n < self.plans.get(plan)?.plan.commands.len() {
            while !self.advance(plan)? {}
        }
        Ok(())
    }

    /// The commands that the twins run.
    fn commands(&self, plan: PlanId, truth: Option<&Plan>) -> Result<Vec<Command>> {
        let own = &self.plans.get(plan)?.plan;
        let (count, truth) = (own.commands.len(), truth.unwrap_or(own));
        if truth.commands.len() != count {
            let found = truth.commands.len();
            return Err(Error::bad("bisect", format!("{count} commands"), format!("{found}")));
        }
        Ok(truth.commands.clone())
    }

    /// The command's inputs as its body sees them on the device, and its twin's outputs.
    fn twin_of(&self, plan: PlanId, c: &Command) -> Result<(Tensors, Tensors)> {
        let (inputs, outputs) = c.args.split_at(c.args.len() - c.variant.outputs());
        let inputs: Vec<Vec<f32>> = inputs.iter().map(|s| self.fetch(plan, s)).collect::<Result<_>>()?;
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let inputs: Vec<Vec<f32>> = operands(&c.variant, &views).into_iter().map(Cow::into_owned).collect();
        let mut outputs: Vec<Vec<f32>> = outputs.iter().map(|s| vec![0.0; s.len]).collect();
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        twin(&c.call, &views, &mut outputs);
        Ok((inputs, outputs))
    }

    /// The output that comes closest to its limit, or exceeds it most.
    fn compare(
        &self,
        plan: PlanId,
        index: usize,
        c: &Command,
        inputs: &[Vec<f32>],
        want: &[Vec<f32>],
    ) -> Result<Difference> {
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let limits = limits(&c.variant, &c.call, &views, want);
        let p = &self.plans.get(plan)?.plan;
        let mut found = Difference {
            index,
            commands: p.commands.len(),
            variant: c.variant,
            leaves: leaves(p, c),
            shape: c.shape.clone(),
            error: 0.0,
            limit: 0.0,
            worst: (0, 0.0, 0.0),
        };
        let slots = &c.args[c.args.len() - want.len()..];
        for (i, ((slot, want), limit)) in slots.iter().zip(want).zip(limits).enumerate() {
            let got = self.fetch(plan, slot)?;
            let error = difference(want, &got);
            // How far over its limit; NaN counts as farthest.
            let ratio = |error: f64, limit: f64| if error <= limit { error - limit } else { f64::INFINITY };
            if i == 0 || ratio(error, limit) > ratio(found.error, found.limit) {
                (found.error, found.limit, found.worst) = (error, limit, worst(want, &got));
            }
        }
        Ok(found)
    }

    /// An argument's numbers as they are on the device.
    pub(super) fn fetch(&self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        let p = self.plans.get(plan)?;
        self.plans.holds(plan, slot, "argument")?;
        if slot.place == Place::Absent {
            return Ok(Vec::new());
        }
        if let Some(numbers) = self.hosted(&p.plan, slot)? {
            return Ok(numbers);
        }
        let kind = self.kind(&p.plan, slot)?;
        let (buffer, offset) = self.locate(p, slot)?;
        let bytes = (kind.bytes(slot.len) as u64).max(4).next_multiple_of(4);
        let readback = self.readback_buffer(bytes)?;
        let mut encoder = self.encoder();
        encoder.copy_buffer_to_buffer(buffer, offset, &readback, 0, bytes);
        self.submit(Some(encoder));
        let mut data: Vec<f32> = self.map(&readback, bytes)?;
        if kind != Stored::F32 {
            data = null::widen(kind, &kind.to_file(bytemuck::cast_slice(&data), slot.len))?;
        }
        data.truncate(slot.len);
        Ok(data)
    }

    /// Overwrites a command's outputs.
    fn store(&self, plan: PlanId, c: &Command, outputs: &[Vec<f32>]) -> Result<()> {
        let p = self.plans.get(plan)?;
        for (slot, data) in c.args[c.args.len() - outputs.len()..].iter().zip(outputs) {
            let (buffer, offset) = self.locate(p, slot)?;
            match self.kind(&p.plan, slot)? {
                Stored::F16 => {
                    let halves = data.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes());
                    self.upload(buffer, offset, &halves.collect::<Vec<u8>>());
                }
                _ => self.upload(buffer, offset, bytemuck::cast_slice(data)),
            }
        }
        self.failure()
    }
}

/// The element with the largest difference, NaN before all: index, got, wanted.
fn worst(want: &[f32], got: &[f32]) -> (usize, f32, f32) {
    let size = |i: usize| {
        let d = difference(&want[i..=i], &got[i..=i]);
        if d.is_nan() { f64::INFINITY } else { d }
    };
    let at = (0..want.len().min(got.len())).max_by(|&a, &b| size(a).total_cmp(&size(b))).unwrap_or(0);
    let of = |v: &[f32]| v.get(at).copied().unwrap_or(0.0);
    (at, of(got), of(want))
}

/// What is told of each plan that agreed: its commands, and the one that came closest to its limit.
pub type Note = Box<dyn FnMut(&Difference)>;

/// An adapter whose every plan is bisected on its first run; a disagreement is an error that names the command. Later runs
/// of a plan are not checked.
pub struct Checked {
    exec: Wgpu,
    note: Note,
    checked: BTreeSet<PlanId>,
}

impl Checked {
    /// Checks what runs on `exec`.
    pub fn new(exec: Wgpu, note: Note) -> Self {
        Checked { exec, note, checked: BTreeSet::new() }
    }
}

impl Executor for Checked {
    fn caps(&self) -> &crate::caps::Caps {
        self.exec.caps()
    }
    fn has_leaf(&self, name: &str) -> bool {
        self.exec.has_leaf(name)
    }
    fn stored(&self, name: &str) -> Stored {
        self.exec.stored(name)
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()> {
        self.exec.set_leaf(name, data)
    }
    fn set_streamed(&mut self, name: &str, stored: Stored, len: usize, bytes: Shared) -> Result<()> {
        self.exec.set_streamed(name, stored, len, bytes)
    }
    fn streamed(&self) -> u64 {
        self.exec.streamed()
    }
    fn memory(&self) -> Memory {
        self.exec.memory()
    }
    fn components(&self) -> BTreeMap<String, u64> {
        self.exec.components()
    }
    fn forget(&mut self, plan: PlanId) -> Result<()> {
        self.checked.remove(&plan);
        self.exec.forget(plan)
    }
    fn forget_leaves(&mut self, prefix: &str) -> Result<()> {
        self.exec.forget_leaves(prefix)
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        self.exec.prepare(plan)
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        self.exec.write(plan, input, data)
    }
    fn rewind(&mut self, plan: PlanId) {
        self.exec.rewind(plan);
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        if self.checked.contains(&plan) {
            return self.exec.advance(plan);
        }
        let mut closest: Option<Difference> = None;
        let share = |d: &Difference| if d.limit > 0.0 { d.error / d.limit } else { 0.0 };
        let found = self.exec.bisect(plan, None, Follow::Adapter, &mut |d| {
            if closest.as_ref().is_none_or(|c| share(c) < share(d)) {
                closest = Some(d.clone());
            }
        })?;
        if let Some(found) = found {
            return Err(super::device_error(self.exec.name(), format!("{found}")));
        }
        if let Some(closest) = &closest {
            (self.note)(closest);
        }
        self.checked.insert(plan);
        Ok(true)
    }
    fn peek(&mut self, plan: PlanId, output: &str) -> Result<Vec<f32>> {
        self.exec.peek(plan, output)
    }
    fn peek_all(&mut self, plan: PlanId, outputs: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.exec.peek_all(plan, outputs)
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        self.exec.plan(plan)
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        self.exec.argument(plan, slot)
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        self.exec.one(plan)
    }
}
