//! Parts of shaders that load b, by how it is stored.
use super::super::{Plain, Source, part};

/// Loads of a and b, one number at a time.
pub(super) fn loads(b: Plain) -> Source {
    match b {
        Plain::F32 => part!("load/matmul_f32.wgsl"),
        Plain::F16 => part!("load/matmul_f16.wgsl"),
        Plain::BF16 => part!("load/matmul_bf16.wgsl"),
    }
}

/// Loads of four neighbours of b as f16.
pub(super) fn halves(b: Plain) -> Source {
    match b {
        Plain::F32 => part!("load/coop_f32.wgsl"),
        Plain::F16 => part!("load/coop_f16.wgsl"),
        Plain::BF16 => part!("load/coop_bf16.wgsl"),
    }
}
