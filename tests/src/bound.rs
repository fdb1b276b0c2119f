//! For every kernel, what a conforming adapter may answer: the shader's formula in [`Real`]s, from the very numbers that
//! the shader reads. A second transcription of each formula beside the twin; the two must agree as well.
mod attention;
mod elementwise;
mod group;
mod matmul;
mod norm;

use crate::real::Real;
use pentimento_wgsl::kernel::attention::{Call as Attention, Pass, Variant as AttentionVariant};
use pentimento_wgsl::kernel::conv::Call as Conv;
use pentimento_wgsl::kernel::copy::Call as Copy;
use pentimento_wgsl::kernel::elementwise::Call as Elementwise;
use pentimento_wgsl::kernel::matmul as matmul_room;
use pentimento_wgsl::{Call, Variant};

/// Value and error of every output number; `None` where the outputs are copies or random words and every bit must
/// be right.
pub fn bounds(variant: &Variant, call: &Call, inputs: &[&[f32]]) -> Option<Vec<Vec<Real>>> {
    Some(vec![match call {
        Call::Copy(
            Copy::Slice(_) | Copy::Pad(_) | Copy::Concat(_) | Copy::Permute(_) | Copy::Upsample(_),
        )
        | Call::Philox(_) => return None,
        Call::Elementwise(Elementwise::Unary(p)) => elementwise::unary(p, inputs[0]),
        Call::Elementwise(Elementwise::UnaryBackward(p)) => {
            elementwise::unary_backward(p, inputs[0], inputs[1])
        }
        Call::Elementwise(Elementwise::Binary(p)) => elementwise::binary(p, inputs[0], inputs[1]),
        Call::Sum(p) => elementwise::sum(p, inputs[0]),
        Call::Norm(c) => norm::bounds(c, inputs),
        Call::Group(c) => group::bounds(c, inputs),
        Call::Blocks(c) => matmul::unpack(c, inputs[0]),
        Call::Matmul(p) => matmul::matmul(p, inputs, product(variant)),
        Call::Conv(Conv::Conv2d(p)) => matmul::conv2d(p, inputs),
        Call::Conv(Conv::Conv2dDx(p)) => matmul::conv2d_dx(p, inputs),
        Call::Attention(Attention::Pass(pass, p)) => {
            let body = attention_body(variant);
            match pass {
                Pass::Forward => return Some(attention::attention(body, p, inputs)),
                Pass::Dq => attention::dq(body, p, inputs),
                Pass::Dkv => return Some(attention::dkv(body, p, inputs)),
            }
        }
        Call::Attention(Attention::Stats(p)) => attention::stats(p, inputs),
    }])
}

/// The body of a matmul.
fn product(variant: &Variant) -> &matmul_room::Variant {
    match variant {
        Variant::Matmul(v) => v,
        v => panic!("{v:?} is no matmul"),
    }
}

/// How an attention pass computes.
fn attention_body(variant: &Variant) -> attention::Body {
    match variant {
        Variant::Attention(AttentionVariant::Stream { .. }) => attention::Body::Natural,
        Variant::Attention(AttentionVariant::Tile { .. }) => attention::Body::Binary,
        Variant::Attention(AttentionVariant::Coop { .. }) => attention::Body::Half,
        v => panic!("{v:?} is no pass of attention"),
    }
}
