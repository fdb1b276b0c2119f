//! Linking: a generated prelude of constants, then the parts, as one WGSL source. Module-scope declarations may
//! stand in any order, so a missing or doubled part is an ordinary compiler error.
use crate::kernel::{Class, Kernel, MatmulBody, Variant, WORKGROUP, WeightType};
use alloc::{format, string::String, vec::Vec};

macro_rules! part {
    ($path:literal) => {
        ($path, include_str!(concat!("../shader/", $path)))
    };
}

/// File name and text of every part of a variant, in linking order.
pub fn parts(v: &Variant) -> Vec<(&'static str, &'static str)> {
    let mut p = Vec::from([part!("shared/index.wgsl")]);
    match v.kernel {
        Kernel::Unary | Kernel::UnaryBackward => {
            p.extend([part!("shared/activation.wgsl"), part!("unary.wgsl")]);
        }
        Kernel::Binary => p.push(part!("binary.wgsl")),
        Kernel::Sum => p.push(part!("sum.wgsl")),
        Kernel::Slice | Kernel::Pad | Kernel::Concat | Kernel::Permute | Kernel::Upsample => {
            p.push(part!("copy.wgsl"));
        }
        Kernel::LayerNorm
        | Kernel::LayerNormBackward
        | Kernel::RmsNorm
        | Kernel::RmsNormBackward
        | Kernel::Softmax
        | Kernel::SoftmaxBackward
        | Kernel::GroupNorm
        | Kernel::GroupNormBackward => {
            p.push(match v.class {
                Class::Gpu => part!("shared/row_workgroup.wgsl"),
                Class::Software => part!("shared/row_serial.wgsl"),
            });
            p.extend([part!("shared/activation.wgsl"), part!("norm.wgsl")]);
        }
        Kernel::Matmul => {
            p.extend([part!("shared/activation.wgsl"), part!("shared/matmul.wgsl")]);
            let load = match v.weight {
                WeightType::F32 => part!("load/matmul_f32.wgsl"),
                WeightType::F16 => part!("load/matmul_f16.wgsl"),
                WeightType::BF16 => part!("load/matmul_bf16.wgsl"),
            };
            match v.body {
                MatmulBody::Naive => p.extend([load, part!("matmul.wgsl")]),
                MatmulBody::Tile => p.extend([load, part!("matmul_tile.wgsl")]),
                _ => p.extend([part!("shared/texel.wgsl"), part!("matmul_texture.wgsl")]),
            }
        }
        Kernel::AttentionStats => p.push(part!("attention_stats.wgsl")),
        Kernel::Philox => p.push(part!("philox.wgsl")),
        Kernel::Attention | Kernel::AttentionDq | Kernel::AttentionDkv => {
            if v.textures {
                p.extend([part!("shared/texel.wgsl"), part!("load/qkv_texture.wgsl")]);
            } else {
                p.push(part!("load/qkv_storage.wgsl"));
            }
            if v.kernel != Kernel::Attention {
                p.push(if v.textures {
                    part!("load/dy_texture.wgsl")
                } else {
                    part!("load/dy_storage.wgsl")
                });
            }
            p.push(match v.kernel {
                Kernel::Attention => part!("attention.wgsl"),
                Kernel::AttentionDq => part!("attention_dq.wgsl"),
                _ => part!("attention_dkv.wgsl"),
            });
        }
        Kernel::Conv2d | Kernel::Conv2dDx => {
            if v.textures {
                p.extend([part!("shared/texel.wgsl"), part!("load/conv_texture.wgsl")]);
            } else {
                p.push(part!("load/conv_storage.wgsl"));
            }
            p.push(match v.kernel {
                Kernel::Conv2d => part!("conv2d.wgsl"),
                _ => part!("conv2d_dx.wgsl"),
            });
        }
    }
    p
}

fn prelude(v: &Variant) -> String {
    let mut s = format!("const WORKGROUP = {WORKGROUP}u;\n");
    if v.head > 0 {
        s += &format!(
            "const D4 = {}u;\nconst QUERIES = {}u;\nconst KEYS = {}u;\n",
            v.head / 4,
            v.queries(),
            v.queries()
        );
    }
    s
}

/// One WGSL source for a variant.
pub fn link(v: &Variant) -> String {
    let mut s = prelude(v);
    for (_, text) in parts(v) {
        s += text;
    }
    s
}

/// The part and line (from 1) behind a line (from 1) of the linked source, for error messages.
pub fn origin(v: &Variant, line: usize) -> (&'static str, usize) {
    let mut left = line.saturating_sub(prelude(v).lines().count());
    if left == 0 {
        return ("prelude", line);
    }
    for (name, text) in parts(v) {
        let n = text.lines().count();
        if left <= n {
            return (name, left);
        }
        left -= n;
    }
    ("past the end", left)
}
