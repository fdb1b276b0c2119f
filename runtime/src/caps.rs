//! What an adapter offers, as far as the planner cares.
use alloc::string::String;
pub use pentimento_wgsl::Class;
use pentimento_wgsl::kernel::{Abilities, Features, Matrix};

/// Most commands of a dispatch: query, key and value of two streams of tokens. More would make longer shaders, not fuller dispatches.
pub(crate) const MOST_TOGETHER: u32 = 6;

/// Limits and abilities of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Caps {
    /// Adapter name, for messages.
    pub name: String,
    /// Real GPU or CPU driver: chooses kernel bodies.
    pub class: Class,
    /// Largest range one binding may cover, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Most workgroups along one side of a dispatch.
    pub max_groups: u32,
    /// Most iterations that one invocation's loops may make together. llvmpipe ends loops, in silence, after 65535
    /// (Mesa, gallium/auxiliary/gallivm, `LP_MAX_TGSI_LOOP_ITERATIONS`).
    pub max_iterations: u32,
    /// Height limit of a staging texture, in rows of 4096 numbers; 0 where textures are not used.
    pub texture_rows: u32,
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Most bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Optional features that the device is opened with.
    pub features: Features,
    /// Cooperative matrices, where the device has some that passed their test.
    pub matrix: Option<Matrix>,
    /// Offsets of storage bindings are multiples of this, bytes.
    pub alignment: u64,
    /// Offsets of uniform bindings are multiples of this, bytes.
    pub uniform_alignment: u64,
    /// Keep half-precision matmul weights as they are.
    pub half_weights: bool,
    /// Floating-point operations, or the time of so many, above which a command becomes several dispatches: a device finishes what it has
    /// begun before it does anything for another.
    pub longest: u64,
    /// Commands that may share a dispatch; 1 where each has its own, as on CPU drivers, which gain nothing by it.
    pub together: u32,
    /// Storage buffers that one dispatch may bind.
    pub storage_bindings: u32,
    /// Bytes of the device's own memory, where its driver tells; for a driver that computes on the CPU, what it may take of the machine's.
    pub memory: Option<u64>,
}

impl Caps {
    /// The limits WebGPU guarantees everywhere, as a GPU.
    pub fn webgpu() -> Self {
        Caps {
            name: "webgpu limits".into(),
            class: Class::Gpu,
            max_binding: 128 << 20,
            // Less one row of texels: executors let whole rows be copied past an arena's end.
            max_buffer: (256 << 20) - (16 << 10),
            max_groups: 65535,
            max_iterations: u32::MAX,
            texture_rows: 0,
            invocations: 256,
            workgroup_memory: 16384,
            features: Features::NONE,
            matrix: None,
            alignment: 256,
            uniform_alignment: 256,
            half_weights: true,
            longest: u64::MAX,
            together: 4,
            storage_bindings: 8,
            memory: None,
        }
    }
    /// What the choice of a kernel's body asks for.
    pub fn abilities(&self) -> Abilities {
        Abilities {
            class: self.class,
            texture_rows: self.texture_rows,
            invocations: self.invocations,
            workgroup_memory: self.workgroup_memory,
            features: self.features,
            matrix: self.matrix,
        }
    }
    /// Gives up all optional features.
    #[cfg(feature = "wgpu")]
    pub(crate) fn plain(&mut self) {
        (self.features, self.matrix) = (Features::NONE, None);
    }
    /// No limits worth naming: the CPU executor.
    pub fn unlimited(name: &str) -> Self {
        let (max_binding, max_buffer) = (1 << 40, 1 << 40);
        let (together, storage_bindings) = (MOST_TOGETHER, 1 << 20);
        Caps { name: name.into(), max_binding, max_buffer, together, storage_bindings, ..Caps::webgpu() }
    }
}
