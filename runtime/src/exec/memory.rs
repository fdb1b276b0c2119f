//! What an executor holds, in bytes, and the sizes on which the executor that allocates and the one that counts agree.
use super::stream::Stream;
use crate::caps::Caps;
use crate::plan::{Command, Plan};
use alloc::vec::Vec;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::TEXTURE_ROW;

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Weights and parameters.
    pub leaves: u64,
    /// Values between commands: as much as the plan needs that needs most.
    pub arena: u64,
    /// Inputs of all plans.
    pub inputs: u64,
    /// The largest quantised weight that is written out before it is read.
    pub unpacked: u64,
    /// What weights that stay on the host pass through: the room that commands read them in, and two as large that the host fills in turn.
    pub window: u64,
    /// Parameters of all plans' kernels.
    pub uniforms: u64,
    /// Outputs on their way to the host: as much as the plan needs that needs most.
    pub readback: u64,
    /// Tensors as texels, for drivers that compute on the CPU; made by a plan's first run.
    pub textures: u64,
    /// Numbers from the host that wait for the next submit, until when wgpu keeps a copy.
    pub staging: u64,
}

impl Kinds {
    /// All together.
    pub fn total(&self) -> u64 {
        self.each().iter().map(|kind| kind.1).sum()
    }
    /// Every kind with its name, for a table.
    pub fn each(&self) -> [(&'static str, u64); 9] {
        let Kinds { leaves, arena, inputs, unpacked, window, uniforms, readback, textures, staging } = *self;
        [
            ("leaves", leaves),
            ("arena", arena),
            ("inputs", inputs),
            ("unpacked", unpacked),
            ("window", window),
            ("uniforms", uniforms),
            ("readback", readback),
            ("textures", textures),
            ("staging", staging),
        ]
    }
}

/// Memory of an executor, as its own allocations add up. A driver adds what it needs for itself: shaders, alignment, blocks that it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What is held.
    pub now: Kinds,
    /// What was held when it was most.
    pub peak: Kinds,
}

impl Memory {
    /// Bytes held.
    pub fn total(&self) -> u64 {
        self.now.total()
    }
    /// Takes note of a change.
    pub(super) fn change(&mut self, by: impl FnOnce(&mut Kinds)) {
        by(&mut self.now);
        if self.now.total() > self.peak.total() {
            self.peak = self.now;
        }
    }
}

/// What a plan needs of what all plans share, as sizes of buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of the arena's slabs.
    pub slabs: Vec<u64>,
    /// 0 without any.
    pub unpacked: u64,
    /// 0 where no weight is streamed.
    pub window: u64,
    /// 0 without plans.
    pub readback: u64,
}

impl Sizes {
    pub fn of(plan: &Plan, stream: &Stream) -> Self {
        Sizes {
            // Whole texture rows are copied, so a slab ends with room for one row past its last tensor.
            slabs: plan.slabs.iter().map(|&s| buffer(s + ROW_BYTES)).collect(),
            unpacked: if plan.unpacked == 0 { 0 } else { buffer(plan.unpacked) },
            window: stream.room(),
            readback: buffer(readback(plan)),
        }
    }
    /// Room for this or the other.
    pub fn joined(mut self, other: &Sizes) -> Self {
        self.slabs.resize(self.slabs.len().max(other.slabs.len()), 0);
        for (own, other) in self.slabs.iter_mut().zip(&other.slabs) {
            *own = (*own).max(*other);
        }
        self.unpacked = self.unpacked.max(other.unpacked);
        self.window = self.window.max(other.window);
        self.readback = self.readback.max(other.readback);
        self
    }
    /// Bytes of all slabs.
    pub fn arena(&self) -> u64 {
        self.slabs.iter().sum()
    }
    /// Bytes of [`Kinds::window`].
    pub fn windows(&self) -> u64 {
        3 * self.window
    }
}

/// Bytes of one texture row.
pub(super) const ROW_BYTES: u64 = Stored::F32.bytes(TEXTURE_ROW) as u64;
/// Bytes of a leaf that is sent to the device at once.
pub(super) const LARGE_UPLOAD: usize = 1 << 22;
/// Bytes of outputs that come back at once, where one alone has no more.
const READBACK: u64 = 64 << 20;

/// Bytes of a buffer that holds so many.
pub(super) fn buffer(bytes: u64) -> u64 {
    bytes.max(16).next_multiple_of(16)
}
/// Bytes of a weight's or parameter's buffer.
pub(super) fn leaf(kind: Stored, len: usize) -> u64 {
    buffer(kind.bytes(len) as u64)
}
/// Bytes of a plan's inputs.
pub(super) fn inputs(plan: &Plan) -> u64 {
    buffer(plan.input_bytes + ROW_BYTES)
}
/// Room for the largest output, and for all together if they are small.
fn readback(plan: &Plan) -> u64 {
    let bytes = || plan.outputs.iter().map(|o| Stored::F32.bytes(o.slot.len) as u64);
    bytes().sum::<u64>().min(READBACK).max(bytes().max().unwrap_or(0))
}
/// Rows of a texture that holds `len` numbers.
pub(super) fn texture_rows(len: usize) -> u32 {
    len.div_ceil(TEXTURE_ROW).max(1) as u32
}
/// Bytes of a texture that holds `len` numbers.
pub(super) fn texture(len: usize) -> u64 {
    u64::from(texture_rows(len)) * ROW_BYTES
}
/// Bytes that writing `len` numbers into a texture stages.
pub(super) fn texels(len: usize) -> u64 {
    Stored::F32.bytes(len.next_multiple_of(4)) as u64
}
/// Bytes that uploading so many stages.
pub(super) fn upload(bytes: usize) -> u64 {
    bytes.next_multiple_of(4) as u64
}
/// Bytes from one command's uniform block to the next.
pub(super) fn uniform_stride(c: &Command, caps: &Caps) -> u64 {
    (4 * c.words().len() as u64).max(64).next_multiple_of(caps.uniform_alignment.max(16))
}
/// Bytes of all uniform blocks of a plan.
pub(super) fn uniform_bytes(plan: &Plan, caps: &Caps) -> u64 {
    plan.commands.iter().map(|c| uniform_stride(c, caps)).sum()
}
/// Bytes of the buffer of these blocks.
pub(super) fn uniforms(blocks: u64) -> u64 {
    buffer(blocks)
}
