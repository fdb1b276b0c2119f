//! Operations: builders with their shape rules (methods of [`Graph`]), backward rules and lowering, one file per family.
//! Adding an [`Op`] breaks the build in exactly the places to fill: here.
pub mod attention;
pub mod copy;
pub mod elementwise;
pub mod image;
pub mod matmul;
pub mod norm;
pub mod random;

use crate::graph::{Graph, Id, Node, Op};
use crate::{Error, Result};
use alloc::{format, vec, vec::Vec};
use pentimento_wgsl::Call;

/// A node as the planner needs it: a kernel with its parameters, its operands and its cost.
pub(crate) struct Lowered {
    pub call: Call,
    /// Operands in the kernel's order; `None` for an optional one that is absent.
    pub inputs: Vec<Option<Id>>,
    pub flops: u64,
}

impl Lowered {
    pub(crate) fn new(call: Call, inputs: &[Id], flops: u64) -> Self {
        Lowered { call, inputs: inputs.iter().map(|&i| Some(i)).collect(), flops }
    }
}

/// Gradients of a node's inputs, given its own gradient; `None` where none is asked or none exists. `id` is where its value is, `node` says where
/// its inputs are.
pub(crate) fn backward(g: &mut Graph, id: Id, node: &Node, dy: Id, need: &[bool]) -> Result<Vec<Option<Id>>> {
    match &node.op {
        Op::Reshape => {
            let shape = g.shape(node.inputs[0]).to_vec();
            Ok(vec![Some(g.reshape(dy, &shape))])
        }
        Op::Detach => Ok(vec![None]),
        Op::Balance => Ok(vec![Some(dy)]),
        Op::Matmul { .. } => matmul::backward(g, node, dy, need),
        Op::Unary(f) => Ok(vec![Some(g.unary_backward(*f, node.inputs[0], dy))]),
        Op::Binary { .. } => elementwise::binary_backward(g, node, dy, need),
        Op::Sum { .. } => Ok(vec![Some(elementwise::sum_backward(g, node, dy))]),
        Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. } | Op::Permute { .. } => {
            copy::backward(g, node, dy, need)
        }
        Op::Upsample => Ok(vec![Some(image::upsample_backward(g, node, dy))]),
        Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::GroupNorm { .. } => norm::backward(g, node, dy, need),
        Op::Softmax { scale } => Ok(vec![Some(norm::softmax_backward(g, id, *scale, dy))]),
        Op::Attention { .. } => attention::backward(g, id, node, dy, need),
        Op::Conv2d { .. } => image::backward(g, node, dy, need),
        other => Err(Error::Graph(format!(
            "a gradient was asked through {other:?}, which has none; stop it with detach if that is meant"
        ))),
    }
}

/// The call of a node; `None` for leaves and views.
pub(crate) fn lower(g: &Graph, id: Id) -> Option<Lowered> {
    match &g.node(id).op {
        Op::Leaf { .. } | Op::Reshape | Op::Detach | Op::Balance | Op::Second => None,
        Op::Matmul { .. } => Some(matmul::lower(g, id)),
        Op::Unary(_) | Op::UnaryBackward(_) | Op::Binary { .. } | Op::Sum { .. } => {
            Some(elementwise::lower(g, id))
        }
        Op::Slice { .. } | Op::Pad { .. } | Op::Concat { .. } | Op::Permute { .. } | Op::Upsample => {
            Some(copy::lower(g, id))
        }
        Op::LayerNorm { .. }
        | Op::LayerNormBackward { .. }
        | Op::RmsNorm { .. }
        | Op::RmsNormBackward { .. }
        | Op::Softmax { .. }
        | Op::SoftmaxBackward { .. }
        | Op::GroupNorm { .. }
        | Op::GroupNormBackward { .. } => Some(norm::lower(g, id)),
        Op::Attention { .. }
        | Op::AttentionStats { .. }
        | Op::AttentionDq { .. }
        | Op::AttentionDkv { .. } => Some(attention::lower(g, id)),
        Op::Conv2d { .. } | Op::Conv2dDx { .. } => Some(image::lower(g, id)),
        Op::Philox => Some(random::lower(g, id)),
    }
}
