//! Every variant that a planner can ask for: what tests of all shaders walk through.
use crate::kernel::{Class, KERNELS, Kernel, MatmulBody, Variant, WeightType};
use alloc::vec::Vec;

/// Head widths of the fused attention: multiples of 4 up to 128.
pub fn heads() -> impl Iterator<Item = u32> {
    (1..=32).map(|n| 4 * n)
}

/// All variants, by class and kernel. Textures belong to CPU drivers only.
pub fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for class in [Class::Gpu, Class::Software] {
        for kernel in KERNELS {
            kernel_variants(kernel, class, &mut all);
        }
    }
    all
}

fn kernel_variants(kernel: Kernel, class: Class, all: &mut Vec<Variant>) {
    let plain = Variant::plain(kernel, class);
    let textures: &[bool] = if class == Class::Software { &[false, true] } else { &[false] };
    match kernel {
        Kernel::Matmul => {
            let body = if class == Class::Gpu { MatmulBody::Tile } else { MatmulBody::Naive };
            let weights = [WeightType::F32, WeightType::F16, WeightType::BF16];
            all.extend(weights.map(|weight| Variant { weight, body, ..plain }));
            if class == Class::Software {
                let bodies = [MatmulBody::TextureNt, MatmulBody::TextureNn, MatmulBody::TextureTn];
                all.extend(bodies.map(|body| Variant { body, ..plain }));
            }
        }
        Kernel::Attention | Kernel::AttentionDq | Kernel::AttentionDkv => {
            for head in heads() {
                all.extend(textures.iter().map(|&textures| Variant { head, textures, ..plain }));
            }
        }
        Kernel::Conv2d | Kernel::Conv2dDx => {
            all.extend(textures.iter().map(|&textures| Variant { textures, ..plain }));
        }
        _ => all.push(plain),
    }
}
