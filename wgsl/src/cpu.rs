//! CPU twins: each kernel again, in plain indexed loops, to be read beside its shader. Sums are kept in f64 so
//! that a twin is the more exact of the two. Tensors are f32, as on the device, or f64 ([`Real`]).
// Plain indexed loops on purpose: a twin is read beside its shader.
#![allow(clippy::needless_range_loop)]
mod attention;
mod binary;
mod conv2d;
mod copy;
mod matmul;
mod norm;
mod philox;
mod real;
mod sum;
mod unary;

pub use philox::philox4x32_10;
pub use real::Real;
pub use unary::{activate, activate_slope};

use crate::kernel::Kernel;
use alloc::vec::Vec;

/// Runs `kernel` on the CPU. `params` are the words of the shader's uniform block, `inputs` follow
/// [`crate::Variant::bindings`] (an empty slice for an unused optional one), `outputs` have their final length.
pub fn twin<R: Real>(kernel: Kernel, params: &[u32], inputs: &[&[R]], outputs: &mut [Vec<R>]) {
    match kernel {
        Kernel::Unary => unary::unary(params, inputs, outputs),
        Kernel::UnaryBackward => unary::unary_backward(params, inputs, outputs),
        Kernel::Binary => binary::binary(params, inputs, outputs),
        Kernel::Sum => sum::sum(params, inputs, outputs),
        Kernel::Slice => copy::slice(params, inputs, outputs),
        Kernel::Pad => copy::pad(params, inputs, outputs),
        Kernel::Concat => copy::concat(params, inputs, outputs),
        Kernel::Permute => copy::permute(params, inputs, outputs),
        Kernel::Upsample => copy::upsample(params, inputs, outputs),
        Kernel::LayerNorm => norm::layer_norm(params, inputs, outputs),
        Kernel::LayerNormBackward => norm::layer_norm_backward(params, inputs, outputs),
        Kernel::RmsNorm => norm::rms_norm(params, inputs, outputs),
        Kernel::RmsNormBackward => norm::rms_norm_backward(params, inputs, outputs),
        Kernel::Softmax => norm::softmax(params, inputs, outputs),
        Kernel::SoftmaxBackward => norm::softmax_backward(params, inputs, outputs),
        Kernel::GroupNorm => norm::group_norm(params, inputs, outputs),
        Kernel::GroupNormBackward => norm::group_norm_backward(params, inputs, outputs),
        Kernel::Matmul => matmul::matmul(params, inputs, outputs),
        Kernel::Attention => attention::attention(params, inputs, outputs),
        Kernel::AttentionStats => attention::attention_stats(params, inputs, outputs),
        Kernel::AttentionDq => attention::attention_dq(params, inputs, outputs),
        Kernel::AttentionDkv => attention::attention_dkv(params, inputs, outputs),
        Kernel::Conv2d => conv2d::conv2d(params, inputs, outputs),
        Kernel::Conv2dDx => conv2d::conv2d_dx(params, inputs, outputs),
        Kernel::Philox => philox::philox(params, inputs, outputs),
    }
}

/// A parameter word as an index.
fn at(params: &[u32], i: usize) -> usize {
    params[i] as usize
}
/// A parameter word as a float.
fn float(params: &[u32], i: usize) -> f32 {
    f32::from_bits(params[i])
}
