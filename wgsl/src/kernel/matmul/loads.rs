//! Parts of shaders that load b, by how it is stored.
use super::super::{Source, Stored, part};

/// Loads of a and b, one number at a time.
pub(super) fn loads(b: Stored) -> Source {
    match b {
        Stored::F32 => part!("load/matmul_f32.wgsl"),
        Stored::F16 => part!("load/matmul_f16.wgsl"),
        Stored::BF16 => part!("load/matmul_bf16.wgsl"),
    }
}

/// Loads of four neighbours of b as f32.
pub(super) fn fours(b: Stored) -> Source {
    match b {
        Stored::F32 => part!("load/four_f32.wgsl"),
        Stored::F16 => part!("load/four_f16.wgsl"),
        Stored::BF16 => part!("load/four_bf16.wgsl"),
    }
}

/// Loads of four neighbours of b as f16.
pub(super) fn halves(b: Stored) -> Source {
    match b {
        Stored::F32 => part!("load/coop_f32.wgsl"),
        Stored::F16 => part!("load/coop_f16.wgsl"),
        Stored::BF16 => part!("load/coop_bf16.wgsl"),
    }
}
