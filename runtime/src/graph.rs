//! The computation graph: a list of nodes in topological order. Models append nodes, `grad` appends the backward
//! ones, `fuse` rewrites, `plan` turns the live ones into commands. Everything is f32; shapes are static.
//!
//! Builder methods return an [`Id`] at once; the first broken shape rule is kept and reported by [`Graph::check`]
//! (and so by `Plan::new`), which keeps model code free of error plumbing.
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use pentimento_wgsl::kernel::{Act, Binary, Unary};

/// A value in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(crate) u32);

impl Id {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a checkpoint tensor is laid out on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As in the file.
    Plain,
    /// `[O, C, KH, KW]` in the file, `[O, KH, KW, C']` on the device, C' = C padded with zeros to a multiple of 4.
    Conv,
    /// `[O, C, KH, KW]` in the file, `[O, KH * KW * C]` on the device: a patch embedding as a linear layer.
    Patch,
    /// `[1, side * side, C]` in the file, `[h * w, C]` on the device: the centre of a square table, rounded to the top
    /// left. Such a leaf is named `<tensor>@<h>x<w>`, since plans of several sizes share an executor.
    Centre {
        /// Side of the table.
        side: usize,
        /// Rows of the window.
        h: usize,
        /// Columns of the window.
        w: usize,
    },
}

/// What a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Set before each run; belongs to one plan.
    Input,
    /// Frozen checkpoint tensor; shared by all plans of an executor.
    Weight(Layout),
    /// Trainable tensor; shared by all plans of an executor, written by the host after each optimiser step.
    Param,
}

/// The closed set of operations.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Op {
    Leaf {
        kind: Leaf,
        name: String,
    },
    /// Same numbers, another shape.
    Reshape,
    /// Stops gradients; the only silent way to do so.
    Detach,
    /// The same numbers; gradients that all pass through here are brought to a size that half precision holds, see
    /// [`Graph::balance`].
    Balance,
    /// The second output of a two-output operation.
    Second,
    /// `act(a b + low_a low_b + bias) * gate + residual`; inputs a, b, then those of bias, low_a and low_b, gate, residual that are
    /// present.
    Matmul {
        a_t: bool,
        b_t: bool,
        bias: bool,
        low: bool,
        act: Act,
        gate: Option<usize>,
        residual: bool,
    },
    Unary(Unary),
    /// Inputs x, dy.
    UnaryBackward(Unary),
    /// b repeated: `[outer, middle, inner]` against b's `[outer or 1, 1, inner or 1]`.
    Binary {
        f: Binary,
        middle: usize,
        inner: usize,
        repeat_outer: bool,
        repeat_inner: bool,
    },
    /// Sum over the middle of `[O, N, I]`, times a constant.
    Sum {
        n: usize,
        inner: usize,
        scale: f32,
    },
    /// `[O, N, I]` -> `[O, len, I]`.
    Slice {
        n: usize,
        inner: usize,
        start: usize,
        len: usize,
    },
    /// Transpose of `Slice`.
    Pad {
        n: usize,
        inner: usize,
        start: usize,
        len: usize,
    },
    /// `[O, a]`, `[O, b]` -> `[O, a + b]`.
    Concat {
        a: usize,
        b: usize,
    },
    /// Up to five axes.
    Permute {
        axes: Vec<usize>,
    },
    /// Nearest, twice as large, NHWC.
    Upsample,
    /// mode 0 plain, 1 modulated by per-batch scale and shift, 2 affine.
    LayerNorm {
        eps: f32,
        mode: u32,
        rows_per_batch: usize,
    },
    LayerNormBackward {
        eps: f32,
    },
    RmsNorm {
        eps: f32,
    },
    RmsNormBackward {
        eps: f32,
    },
    Softmax {
        scale: f32,
    },
    /// Inputs: the softmax itself, dy.
    SoftmaxBackward {
        scale: f32,
    },
    GroupNorm {
        eps: f32,
        groups: usize,
        act: Act,
    },
    /// Inputs x, w, dy.
    GroupNormBackward {
        eps: f32,
        groups: usize,
    },
    /// Inputs q, k, v and the key bias if present; outputs y and lse.
    Attention {
        heads: usize,
        causal: bool,
        bias: bool,
    },
    AttentionStats {
        heads: usize,
    },
    AttentionDq {
        heads: usize,
        causal: bool,
        bias: bool,
    },
    AttentionDkv {
        heads: usize,
        causal: bool,
        bias: bool,
    },
    Conv2d {
        kernel: usize,
        stride: usize,
        pad: usize,
        bias: bool,
        residual: bool,
        out: [usize; 2],
    },
    /// Inputs dy, its channels padded to a multiple of 4, and w.
    Conv2dDx {
        kernel: usize,
        stride: usize,
        pad: usize,
    },
    /// Input: the state of a stream; outputs: upper 24 bits of its words over 2^24, lower 8 bits.
    Philox,
}

/// One operation with its inputs and the shape of its (first) output.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Operands, all earlier in the list.
    pub inputs: Vec<Id>,
    /// Shape of the output, outermost first.
    pub shape: Vec<usize>,
    /// Recomputation block; 0 is never recomputed.
    pub block: u32,
    /// Computed in f32 throughout, see [`Graph::exact`].
    pub exact: bool,
}

/// Nodes in topological order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    error: Option<Error>,
    exact: bool,
    block: u32,
    /// The largest block so far.
    last_block: u32,
    /// Leaves by name, so that asking for one again does not take longer in a deeper network.
    leaves: BTreeMap<String, Vec<Id>>,
    taps: Vec<(String, Id)>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }
    /// The first broken rule, if any.
    ///
    /// # Errors
    /// [`Error::Graph`] with the op and the shapes that do not fit.
    pub fn check(&self) -> Result<()> {
        self.error.clone().map_or(Ok(()), Err)
    }
    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// The node behind an id.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.index()]
    }
    /// Shape of a value.
    pub fn shape(&self, id: Id) -> &[usize] {
        &self.nodes[id.index()].shape
    }
    /// Number of elements of a value.
    pub fn len(&self, id: Id) -> usize {
        self.shape(id).iter().product()
    }
    /// True before the first node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
    /// Remembers an intermediate value under a name, for tests and tools; it becomes an output only where it is asked
    /// for as one, and costs nothing otherwise.
    pub(crate) fn tap(&mut self, name: String, id: Id) {
        self.taps.push((name, id));
    }
    /// Named intermediate values in order of execution. Networks name them by the module of the reference library that
    /// returns them.
    pub fn taps(&self) -> &[(String, Id)] {
        &self.taps
    }
    /// Starts a recomputation block; nodes until the next call belong to it. Returns its number.
    pub fn begin_block(&mut self) -> u32 {
        self.last_block += 1;
        self.block = self.last_block;
        self.block
    }
    /// Whether nodes from here on are computed in f32 throughout, whatever the device would do faster: for networks whose
    /// activations f16 cannot hold. Returns what it was.
    pub fn exact(&mut self, on: bool) -> bool {
        core::mem::replace(&mut self.exact, on)
    }
    /// Nodes from here on are stored, not recomputed.
    pub fn end_block(&mut self) {
        self.block = 0;
    }
    /// Remembers a broken rule and returns a value that can be used harmlessly.
    pub fn fail(&mut self, message: impl Into<String>) -> Id {
        if self.error.is_none() {
            self.error = Some(Error::Graph(message.into()));
        }
        self.push(Op::Leaf { kind: Leaf::Input, name: "invalid".into() }, Vec::new(), alloc::vec![0])
    }
    pub(crate) fn push(&mut self, op: Op, inputs: Vec<Id>, shape: Vec<usize>) -> Id {
        self.nodes.push(Node { op, inputs, shape, block: self.block, exact: self.exact });
        Id(self.nodes.len() as u32 - 1)
    }
    fn leaf(&mut self, kind: Leaf, name: String, shape: &[usize]) -> Id {
        if shape.contains(&0) {
            return self
                .fail(format!("`{name}` of shape {shape:?} has no elements; leave an empty batch out"));
        }
        let same = |id: &Id| {
            let node = self.node(*id);
            matches!(node.op, Op::Leaf { kind: k, .. } if k == kind) && node.shape == shape
        };
        if let Some(found) = self.leaves.get(&name).and_then(|ids| ids.iter().copied().find(same)) {
            return found;
        }
        let block = core::mem::take(&mut self.block);
        let id = self.push(Op::Leaf { kind, name: name.clone() }, Vec::new(), shape.to_vec());
        self.block = block;
        self.leaves.entry(name).or_default().push(id);
        id
    }
    /// A tensor set before each run.
    pub fn input(&mut self, name: impl Into<String>, shape: &[usize]) -> Id {
        self.leaf(Leaf::Input, name.into(), shape)
    }
    /// A frozen checkpoint tensor, `shape` as it is on the device.
    pub fn weight(&mut self, name: impl Into<String>, shape: &[usize], layout: Layout) -> Id {
        self.leaf(Leaf::Weight(layout), name.into(), shape)
    }
    /// A trainable tensor.
    pub fn param(&mut self, name: impl Into<String>, shape: &[usize]) -> Id {
        self.leaf(Leaf::Param, name.into(), shape)
    }
    /// Follows reshapes and detaches to the node that owns the storage.
    pub(crate) fn root(&self, mut id: Id) -> Id {
        while matches!(self.node(id).op, Op::Reshape | Op::Detach | Op::Balance) {
            id = self.node(id).inputs[0];
        }
        id
    }
}
