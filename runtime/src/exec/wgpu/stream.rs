//! Weights that stay on the host: their way to the device, a window at a time (`exec/stream.rs`).
//!
//! ```text
//! host    copy into first | copy into second | wait for first's submit, copy into it | ..
//! device                  | first -> window, commands | second -> window, commands   | ..
//! ```
//!
//! Submits run in their order, so a window is not overwritten before its commands have read it.
use super::{Held, LeafBuffer, Numbers, Prepared, Wgpu, device_error};
use crate::exec::stream::{Rules, Stream, Window as Loads};
use crate::exec::{PlanId, checkpoint};
use crate::exec::{memory, null, plans};
use crate::plan::{Place, Plan, Slot};
use crate::weights::Shared;
use crate::{Error, Result};
use alloc::borrow::ToOwned;
use alloc::{format, vec::Vec};
use pentimento_wgsl::Stored;

/// What streamed weights pass through.
pub(super) struct Window {
    room: wgpu::Buffer,
    /// Filled in turn; each with the submit that copies it, if that may not be over.
    staging: [(wgpu::Buffer, Option<wgpu::SubmissionIndex>); 2],
    turn: usize,
}

impl LeafBuffer {
    /// Bytes on the device.
    pub(super) fn bytes(&self) -> u64 {
        match self.numbers {
            Numbers::Device { .. } => memory::leaf(self.kind, self.len),
            Numbers::Host(_) => 0,
        }
    }
    /// Bytes of its texels.
    pub(super) fn texture_bytes(&self) -> u64 {
        match &self.numbers {
            Numbers::Device { texture, .. } if texture.get().is_some() => memory::texture(self.len),
            Numbers::Device { .. } | Numbers::Host(_) => 0,
        }
    }
}

impl Wgpu {
    /// For tests: bytes of a window of streamed weights.
    #[doc(hidden)]
    #[must_use]
    pub fn with_window(mut self, bytes: u64) -> Self {
        self.window = bytes;
        self
    }

    /// Creates a weight that stays on the host, or overwrites one where it is.
    pub(super) fn set_hosted(
        &mut self,
        name: &str,
        (kind, len): (Stored, usize),
        bytes: Shared,
    ) -> Result<()> {
        let expected = kind.bytes(len);
        if bytes.len() != expected {
            let found = format!("{} bytes", bytes.len());
            return Err(Error::bad(format!("`{name}`"), format!("{expected} bytes"), found));
        }
        if let Some(leaf) = self.leaves.get(name) {
            null::check_set(name, (leaf.kind, leaf.len), (kind, len))?;
            null::check_hosted(name, matches!(leaf.numbers, Numbers::Host(_)))?;
        }
        self.leaves.insert(name.to_owned(), LeafBuffer { kind, len, numbers: Numbers::Host(bytes) });
        Ok(())
    }

    /// How a plan's streamed weights come here.
    pub(super) fn stream(&self, plan: &Plan) -> Result<Stream> {
        let streamed = |name: &str| {
            let leaf = self.leaves.get(name)?;
            matches!(leaf.numbers, Numbers::Host(_)).then(|| memory::leaf(leaf.kind, leaf.len))
        };
        let rules = Rules { window: self.window, alignment: self.caps.alignment, streamed: &streamed };
        plans::stream(plan, &rules)
    }

    /// The buffer of a leaf that is on the device.
    pub(super) fn resident(&self, plan: &Plan, leaf: usize) -> Result<&wgpu::Buffer> {
        let name = &plan.leaves[leaf].name;
        match &self.leaf(plan, leaf)?.numbers {
            Numbers::Device { buffer, .. } => Ok(buffer),
            Numbers::Host(_) => Err(Error::missing("device", format!("`{name}`, which stays on the host"))),
        }
    }
    /// As [`Wgpu::locate`], for an argument of the command that is built next.
    pub(super) fn found<'a>(&'a self, p: &'a Held<Prepared>, slot: &Slot) -> Result<(&'a wgpu::Buffer, u64)> {
        let Place::Leaf(leaf) = slot.place else { return self.locate(p, slot) };
        match (p.stream.offset(p.own.steps.len(), leaf), &self.rooms.window) {
            (None, _) => self.locate(p, slot),
            (Some(offset), Some(window)) => Ok((&window.room, offset)),
            (Some(_), None) => Err(no_window()),
        }
    }
    /// The numbers of an argument that stays on the host; `None` for all others.
    pub(super) fn hosted(&self, plan: &Plan, slot: &Slot) -> Result<Option<Vec<f32>>> {
        let Place::Leaf(i) = slot.place else { return Ok(None) };
        let leaf = self.leaf(plan, i)?;
        let Numbers::Host(bytes) = &leaf.numbers else { return Ok(None) };
        let bytes = bytes.bytes().ok_or_else(|| checkpoint::changed(&plan.leaves[i].name))?;
        null::widen(leaf.kind, &leaf.kind.to_file(bytes, leaf.len)).map(Some)
    }

    /// The rooms of a window.
    pub(super) fn window(&self, size: u64) -> Result<Window> {
        use wgpu::BufferUsages as U;
        let staging = || Ok((self.create("streamed weights", size, U::MAP_WRITE | U::COPY_SRC)?, None));
        let room = self.room("window", size, false)?;
        Ok(Window { room, staging: [staging()?, staging()?], turn: 0 })
    }

    /// Brings what the next commands read, if a window begins with them.
    pub(super) fn fill(&mut self, plan: PlanId) -> Result<()> {
        let held = self.plans.get(plan)?;
        let Some(window) = held.stream.begins(held.cursor) else { return Ok(()) };
        let rooms = self.rooms.window.as_ref().ok_or_else(no_window)?;
        let (from, busy) = &rooms.staging[rooms.turn];
        if let Some(index) = busy {
            let submission_index = Some(index.clone());
            let waited = self.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
            waited.map_err(|e| device_error(&self.caps.name, format!("waiting failed: {e}")))?;
        }
        let size = window.bytes();
        self.ours(|| from.map_async(wgpu::MapMode::Write, 0..size, |_| {}));
        let written = self.poll().and_then(|()| self.write_window(&held.plan, window, from));
        from.unmap(); // also after a failure: it is used again
        written?;
        let mut encoder = self.encoder();
        self.ours(|| encoder.copy_buffer_to_buffer(from, 0, &rooms.room, 0, size));
        let index = self.carry(Some(encoder), size)?;
        if let Some(rooms) = &mut self.rooms.window {
            rooms.staging[rooms.turn].1 = Some(index);
            rooms.turn = 1 - rooms.turn;
        }
        self.streamed += size;
        self.failure()
    }
    /// Copies a window's weights to where the host may write, each where it will lie in the room.
    fn write_window(&self, plan: &Plan, window: &Loads, to: &wgpu::Buffer) -> Result<()> {
        let view = to.get_mapped_range_mut(0..window.bytes());
        let mut view =
            view.map_err(|e| device_error(&self.caps.name, format!("no room for weights: {e}")))?;
        for load in &window.loads {
            let name = &plan.leaves[load.leaf].name;
            let Numbers::Host(bytes) = &self.leaf(plan, load.leaf)?.numbers else { continue };
            let bytes = bytes.bytes().ok_or_else(|| checkpoint::changed(name))?;
            let at = load.offset as usize;
            view.slice(at..at + bytes.len()).copy_from_slice(bytes);
        }
        Ok(())
    }
    /// Lets what is over be noticed.
    fn poll(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Poll);
        polled.map_err(|e| device_error(&self.caps.name, format!("waiting failed: {e}")))?;
        self.failure()
    }
}

fn no_window() -> Error {
    Error::missing("executor", "the window of streamed weights, which is made before a plan runs")
}
