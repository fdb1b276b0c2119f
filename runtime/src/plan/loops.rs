//! How long a kernel's loops run: some drivers end long ones early ([`Caps::max_iterations`]).
use crate::caps::Caps;
use crate::{Error, Result};
use pentimento_wgsl::kernel::{MatmulBody, WORKGROUP};
use pentimento_wgsl::{Class, Kernel, Variant};

/// Iterations of all loops of one invocation, but for the few that count registers.
fn iterations(v: &Variant, p: &[u32]) -> u64 {
    let p = |i: usize| u64::from(p[i]);
    let passes = match v.kernel {
        Kernel::LayerNormBackward | Kernel::GroupNormBackward => 4,
        Kernel::LayerNorm | Kernel::Softmax | Kernel::GroupNorm => 3,
        _ => 2,
    };
    let lanes = if v.class == Class::Gpu { u64::from(WORKGROUP) } else { 1 };
    match v.kernel {
        Kernel::GroupNorm | Kernel::GroupNormBackward => {
            passes * (p(6) * (p(1) / p(5).max(1))).div_ceil(lanes)
        }
        k if k.by_row() => passes * p(1).div_ceil(lanes),
        Kernel::Matmul => match v.body {
            MatmulBody::Naive | MatmulBody::TextureTn => p(2),
            MatmulBody::TextureNt | MatmulBody::TextureNn => p(2) / 4,
            // 16 products and 4 loads for every 16 columns.
            MatmulBody::Tile => p(2).div_ceil(16) * 21,
        },
        Kernel::Attention | Kernel::AttentionDq => p(3),
        Kernel::AttentionDkv => p(2),
        Kernel::Conv2d => p(7) * (1 + p(8) * (1 + p(3) / 4)),
        Kernel::Conv2dDx => p(7) * (1 + p(8) * (1 + p(6).div_ceil(4))),
        Kernel::Sum => p(1).div_ceil(4),
        _ => 0,
    }
}

/// The variant, or for long rows the one that shares a row among a workgroup; an error where neither ends in time.
pub(super) fn bounded(v: Variant, params: &[u32], caps: &Caps) -> Result<Variant> {
    let most = u64::from(caps.max_iterations);
    let shared = Variant { class: Class::Gpu, ..v };
    if iterations(&v, params) <= most {
        return Ok(v);
    }
    if v.kernel.by_row() && iterations(&shared, params) <= most {
        return Ok(shared);
    }
    Err(Error::Device {
        device: caps.name.clone(),
        reason: alloc::format!(
            "{:?} would loop {} times, but this driver ends loops after {most}; use a smaller image or batch, or another adapter",
            v.kernel,
            iterations(&v, params)
        ),
    })
}
