//! Every kernel, its arguments, and the variants it is built in.

/// An operation that exists as a WGSL entry point and as a CPU twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kernel {
    Unary,
    UnaryBackward,
    Binary,
    Sum,
    Slice,
    Pad,
    Concat,
    Permute,
    Upsample,
    LayerNorm,
    LayerNormBackward,
    RmsNorm,
    RmsNormBackward,
    Softmax,
    SoftmaxBackward,
    GroupNorm,
    GroupNormBackward,
    Matmul,
    Attention,
    AttentionStats,
    AttentionDq,
    AttentionDkv,
    Conv2d,
    Conv2dDx,
    Philox,
}

/// All kernels, for tables and tests.
pub const KERNELS: [Kernel; 25] = [
    Kernel::Unary,
    Kernel::UnaryBackward,
    Kernel::Binary,
    Kernel::Sum,
    Kernel::Slice,
    Kernel::Pad,
    Kernel::Concat,
    Kernel::Permute,
    Kernel::Upsample,
    Kernel::LayerNorm,
    Kernel::LayerNormBackward,
    Kernel::RmsNorm,
    Kernel::RmsNormBackward,
    Kernel::Softmax,
    Kernel::SoftmaxBackward,
    Kernel::GroupNorm,
    Kernel::GroupNormBackward,
    Kernel::Matmul,
    Kernel::Attention,
    Kernel::AttentionStats,
    Kernel::AttentionDq,
    Kernel::AttentionDkv,
    Kernel::Conv2d,
    Kernel::Conv2dDx,
    Kernel::Philox,
];

/// How an argument is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// f32 storage, always `read_write`: one arena may then serve inputs and outputs of the same dispatch.
    Storage,
    /// Half-precision words, `read`; lives in a buffer of its own.
    Packed,
    /// An f32 tensor staged in a texture, 4096 numbers a row.
    Texture,
}

/// What kind of adapter a variant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Real GPUs: workgroup memory, one workgroup per row.
    Gpu,
    /// CPU drivers: register tiles, operands from textures, no barriers.
    Software,
}

/// How the second matmul operand is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, two a word.
    F16,
    /// bfloat16, two a word.
    BF16,
}

/// Which matmul body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatmulBody {
    /// One output per invocation.
    Naive,
    /// 64 x 64 workgroup tiles.
    Tile,
    /// Texels: a [M, K], b [N, K].
    TextureNt,
    /// Texels: a [M, K], b [K, N].
    TextureNn,
    /// Texels: a [K, M], b [K, N].
    TextureTn,
}

/// A kernel as it is built: two variants with equal fields share one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The operation.
    pub kernel: Kernel,
    /// The adapter class.
    pub class: Class,
    /// Storage of matmul's second operand; F32 for every other kernel.
    pub weight: WeightType,
    /// Matmul body; `Naive` for every other kernel.
    pub body: MatmulBody,
    /// Attention head width; 0 for every other kernel.
    pub head: u32,
    /// Attention and convolution read their operands from textures.
    pub textures: bool,
}

/// Activations by number, as in `shader/shared/activation.wgsl`. The slope of `Relu` at 0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Act {
    None = 0,
    Silu = 1,
    Gelu = 2,
    GeluTanh = 3,
    QuickGelu = 4,
    Relu = 5,
}

/// Elementwise functions of one argument; the numbers are those in `shader/unary.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// An activation.
    Act(Act),
    /// `alpha * x + beta`.
    Affine(f32, f32),
    /// `e^x`.
    Exp,
    /// `x * x`.
    Square,
    /// Clamp to `[lo, hi]`; slope 1 inside, borders included, as PyTorch has it.
    Clamp(f32, f32),
    /// Square root.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// `|x|`; slope 0 at 0.
    Abs,
}

impl Unary {
    /// (number, alpha, beta) as the shader takes them.
    pub fn code(self) -> (u32, f32, f32) {
        match self {
            Unary::Act(a) => (a as u32, 0.0, 0.0),
            Unary::Affine(a, b) => (16, a, b),
            Unary::Exp => (17, 0.0, 0.0),
            Unary::Square => (18, 0.0, 0.0),
            Unary::Clamp(a, b) => (19, a, b),
            Unary::Sqrt => (20, 0.0, 0.0),
            Unary::Reciprocal => (21, 0.0, 0.0),
            Unary::Abs => (22, 0.0, 0.0),
        }
    }
}

/// Elementwise functions of two arguments; the numbers are those in `shader/binary.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Binary {
    /// `a + b`.
    Add = 0,
    /// `a - b`.
    Sub = 1,
    /// `a * b`.
    Mul = 2,
    /// The larger one; where both are equal, the gradient goes to `a` alone.
    Max = 3,
    /// 1 where `a >= b`, else 0. Has no gradient.
    Ge = 4,
    /// `a * (1 + b)`, the modulation of adaptive layer norms.
    Scale1 = 5,
}

impl Variant {
    /// The plain variant of a kernel for a class: storage operands, f32 weights.
    pub fn plain(kernel: Kernel, class: Class) -> Self {
        Variant { kernel, class, weight: WeightType::F32, body: MatmulBody::Naive, head: 0, textures: false }
    }

    /// WGSL entry point.
    pub fn entry(&self) -> &'static str {
        match self.kernel {
            Kernel::Unary => "unary",
            Kernel::UnaryBackward => "unary_backward",
            Kernel::Binary => "binary",
            Kernel::Sum => "sum",
            Kernel::Slice => "slice",
            Kernel::Pad => "pad",
            Kernel::Concat => "concat",
            Kernel::Permute => "permute",
            Kernel::Upsample => "upsample",
            Kernel::LayerNorm => "layer_norm",
            Kernel::LayerNormBackward => "layer_norm_backward",
            Kernel::RmsNorm => "rms_norm",
            Kernel::RmsNormBackward => "rms_norm_backward",
            Kernel::Softmax => "softmax",
            Kernel::SoftmaxBackward => "softmax_backward",
            Kernel::GroupNorm => "group_norm",
            Kernel::GroupNormBackward => "group_norm_backward",
            Kernel::Matmul => match self.body {
                MatmulBody::Naive => "matmul",
                MatmulBody::Tile => "matmul_tile",
                MatmulBody::TextureNt => "nt",
                MatmulBody::TextureNn => "nn",
                MatmulBody::TextureTn => "tn",
            },
            Kernel::Attention => "attention",
            Kernel::AttentionStats => "attention_stats",
            Kernel::AttentionDq => "attention_dq",
            Kernel::AttentionDkv => "attention_dkv",
            Kernel::Conv2d => "conv2d",
            Kernel::Conv2dDx => "conv2d_dx",
            Kernel::Philox => "philox",
        }
    }

    /// Binding number and kind of each argument: inputs in the twin's order, then outputs.
    pub fn bindings(&self) -> alloc::vec::Vec<(u32, Binding)> {
        use Binding::*;
        let t = if self.textures { Texture } else { Storage };
        let plain: &[u32] = match self.kernel {
            Kernel::Unary
            | Kernel::Sum
            | Kernel::Slice
            | Kernel::Pad
            | Kernel::Permute
            | Kernel::Upsample => &[1, 2],
            Kernel::UnaryBackward | Kernel::Binary | Kernel::Philox => &[1, 2, 3],
            Kernel::Concat => &[1, 3, 2],
            Kernel::LayerNormBackward | Kernel::RmsNorm | Kernel::SoftmaxBackward => &[1, 2, 4],
            Kernel::LayerNorm | Kernel::RmsNormBackward | Kernel::GroupNorm | Kernel::GroupNormBackward => {
                &[1, 2, 3, 4]
            }
            Kernel::Softmax => &[1, 4],
            Kernel::AttentionStats => &[1, 2, 3, 4],
            Kernel::Matmul => {
                let (a, b) = match (self.body, self.weight) {
                    (MatmulBody::TextureNt | MatmulBody::TextureNn | MatmulBody::TextureTn, _) => {
                        (Texture, Texture)
                    }
                    (_, WeightType::F32) => (Storage, Storage),
                    _ => (Storage, Packed),
                };
                return [(1, a), (2, b), (3, Storage), (4, Storage), (5, Storage), (6, Storage)].into();
            }
            Kernel::Attention => {
                return [(1, t), (2, t), (3, t), (4, Storage), (5, Storage), (6, Storage)].into();
            }
            Kernel::AttentionDq => {
                return [(1, t), (2, t), (3, t), (4, t), (5, Storage), (6, Storage), (7, Storage)].into();
            }
            Kernel::AttentionDkv => {
                return [
                    (1, t),
                    (2, t),
                    (3, t),
                    (4, t),
                    (5, Storage),
                    (6, Storage),
                    (7, Storage),
                    (8, Storage),
                ]
                .into();
            }
            Kernel::Conv2d => return [(1, t), (2, t), (3, Storage), (4, Storage), (5, Storage)].into(),
            Kernel::Conv2dDx => return [(1, t), (2, t), (3, Storage)].into(),
        };
        plain.iter().map(|&n| (n, Storage)).collect()
    }

    /// Invocations in a workgroup.
    pub fn workgroup(&self) -> u32 {
        match (self.kernel, self.body) {
            (Kernel::Matmul, MatmulBody::Tile) => 256,
            _ => WORKGROUP,
        }
    }

    /// Queries (or keys, in the backward pass over keys) one invocation of an attention kernel holds.
    pub fn queries(&self) -> u32 {
        // As many as gain speed and still compile in seconds on llvmpipe, where loads from storage are written out lane by lane.
        let rows = if self.textures && self.head <= 64 { 8 } else { 4 };
        match (self.class, self.kernel) {
            (Class::Gpu, _) => 1,
            (Class::Software, Kernel::AttentionDkv) => rows / 2,
            (Class::Software, _) => rows,
        }
    }
}

impl Kernel {
    /// How many of the arguments are outputs; they come last.
    pub fn outputs(self) -> usize {
        match self {
            Kernel::Attention | Kernel::AttentionDkv | Kernel::Philox => 2,
            _ => 1,
        }
    }
    /// Outputs are copies of inputs or random words: on every adapter each bit is the twin's.
    pub fn exact(self) -> bool {
        use Kernel::{Concat, Pad, Permute, Philox, Slice, Upsample};
        matches!(self, Slice | Pad | Concat | Permute | Upsample | Philox)
    }
    /// Rows per workgroup matter: these kernels follow `shared/row_*.wgsl`.
    pub fn by_row(self) -> bool {
        matches!(
            self,
            Kernel::LayerNorm
                | Kernel::LayerNormBackward
                | Kernel::RmsNorm
                | Kernel::RmsNormBackward
                | Kernel::Softmax
                | Kernel::SoftmaxBackward
                | Kernel::GroupNorm
                | Kernel::GroupNormBackward
        )
    }
}

/// Workgroup size of every kernel but the tiled matmul.
pub const WORKGROUP: u32 = 64;
