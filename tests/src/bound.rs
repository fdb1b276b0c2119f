//! For every kernel, what a conforming adapter may answer: the shader's formula in [`Real`]s, from the very numbers that
//! the shader reads. A second transcription of each formula beside the twin; the two must agree as well.
mod attention;
mod elementwise;
mod matmul;
mod norm;

use crate::real::Real;
use pentimento_wgsl::{Kernel, Variant};

/// Value and error of every output number; `None` where the outputs are copies or random words and every bit must
/// be right.
pub fn bounds(variant: &Variant, params: &[u32], inputs: &[&[f32]]) -> Option<Vec<Vec<Real>>> {
    let p = params;
    Some(vec![match variant.kernel {
        Kernel::Slice
        | Kernel::Pad
        | Kernel::Concat
        | Kernel::Permute
        | Kernel::Upsample
        | Kernel::Philox => return None,
        Kernel::Unary => elementwise::unary(p, inputs[0]),
        Kernel::UnaryBackward => elementwise::unary_backward(p, inputs[0], inputs[1]),
        Kernel::Binary => elementwise::binary(p, inputs[0], inputs[1]),
        Kernel::Sum => elementwise::sum(p, inputs[0]),
        Kernel::LayerNorm => norm::layer_norm(p, inputs),
        Kernel::LayerNormBackward => norm::layer_norm_backward(p, inputs),
        Kernel::RmsNorm => norm::rms_norm(p, inputs),
        Kernel::RmsNormBackward => norm::rms_norm_backward(p, inputs),
        Kernel::Softmax => norm::softmax(p, inputs),
        Kernel::SoftmaxBackward => norm::softmax_backward(p, inputs),
        Kernel::GroupNorm => norm::group_norm(p, inputs),
        Kernel::GroupNormBackward => norm::group_norm_backward(p, inputs),
        Kernel::Matmul => matmul::matmul(p, inputs, variant.weight),
        Kernel::Conv2d => matmul::conv2d(p, inputs),
        Kernel::Conv2dDx => matmul::conv2d_dx(p, inputs),
        Kernel::Attention => return Some(attention::attention(p, inputs)),
        Kernel::AttentionStats => attention::stats(p, inputs),
        Kernel::AttentionDq => attention::dq(p, inputs),
        Kernel::AttentionDkv => return Some(attention::dkv(p, inputs)),
    }])
}

/// A parameter word as an index.
fn at(params: &[u32], i: usize) -> usize {
    params[i] as usize
}
/// A parameter word as a float.
fn float(params: &[u32], i: usize) -> f32 {
    f32::from_bits(params[i])
}
