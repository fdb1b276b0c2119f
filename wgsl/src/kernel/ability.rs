//! What an adapter has and what a body needs of it.
use super::{Source, Stored, TEXTURE_ROW, WORKGROUP, part};

/// What kind of adapter a body is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Real GPUs: workgroup memory, one workgroup per row.
    Gpu,
    /// CPU drivers: register tiles, operands from textures, no barriers.
    Software,
}

/// Optional features of a device that shaders can use; each has an `enable` directive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Arithmetic in half precision.
    pub f16: bool,
    /// Exchange among the invocations of a subgroup.
    pub subgroups: bool,
    /// Cooperative matrices of f16, summed in f32.
    pub matrix: bool,
}

/// What a subgroup multiplies together: square matrices of f16, summed in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Side: 8 or 16.
    pub edge: u32,
    /// Invocations of a subgroup.
    pub subgroup: u32,
}

impl Matrix {
    /// Those that drivers are known to have: NVIDIA and RDNA in its two widths, RDNA's or Apple's narrow ones, Mesa's CPU driver.
    pub const KNOWN: [Matrix; 4] = [
        Matrix { edge: 16, subgroup: 32 },
        Matrix { edge: 16, subgroup: 64 },
        Matrix { edge: 8, subgroup: 32 },
        Matrix { edge: 8, subgroup: 8 },
    ];
    /// The part that names their types.
    pub(super) fn aliases(self) -> Source {
        match self.edge {
            16 => part!("shared/matrix_16.wgsl"),
            _ => part!("shared/matrix_8.wgsl"),
        }
    }
}

impl Features {
    /// What WebGPU guarantees.
    pub const NONE: Features = Features { f16: false, subgroups: false, matrix: false };
    /// What kernels on cooperative matrices need.
    pub const MATRIX: Features = Features { f16: true, subgroups: true, matrix: true };

    /// Whether all of `wanted` are here.
    pub const fn hold(self, wanted: Features) -> bool {
        (self.f16 || !wanted.f16) && (self.subgroups || !wanted.subgroups) && (self.matrix || !wanted.matrix)
    }
    /// The names that WGSL enables them by. naga 30 refuses the one of subgroups and knows their builtins without.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let Features { f16, matrix, .. } = self;
        let all = [(f16, "f16"), (matrix, "wgpu_cooperative_matrix")];
        all.into_iter().filter(|f| f.0).map(|f| f.1)
    }
}

/// What a body needs of an adapter beyond its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Optional features; they are enabled at the top of the linked source.
    pub features: Features,
}

impl Needs {
    /// Most bodies: [`WORKGROUP`] invocations and nothing else.
    pub const PLAIN: Needs = Needs { invocations: WORKGROUP, workgroup_memory: 0, features: Features::NONE };
}

/// What an adapter has, as far as the choice of a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Real GPU or CPU driver.
    pub class: Class,
    /// Height limit of a staging texture, in rows of [`TEXTURE_ROW`] numbers; 0 where textures are not used.
    pub texture_rows: u32,
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Most bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Optional features of the device.
    pub features: Features,
    /// Its cooperative matrices.
    pub matrix: Option<Matrix>,
}

impl Abilities {
    /// Whether a body that needs so much can run.
    pub fn hold(&self, needs: &Needs) -> bool {
        needs.invocations <= self.invocations
            && needs.workgroup_memory <= self.workgroup_memory
            && self.features.hold(needs.features)
    }
    /// Whether an operand can be staged in a texture.
    pub(super) fn stages(&self, operand: &Operand) -> bool {
        operand.stored == Stored::F32
            && operand.len.div_ceil(TEXTURE_ROW) <= self.texture_rows as usize
            && operand.len.is_multiple_of(4)
    }
}

/// An input of a call, as far as the choice of a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Numbers; 0 for an absent one.
    pub len: usize,
    /// How they are stored.
    pub stored: Stored,
    /// A frozen weight, which may be rounded where the device is faster so.
    pub frozen: bool,
}
