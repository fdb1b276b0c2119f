//! Quantised weights: the parts of shaders that read their blocks, and a kernel that writes a whole matrix out, for products
//! that read it more than once.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, BLOCKS, Binding, Features, Needs, Operand, Rows, Source, Stored, part, workgroups};
use crate::Real;
use alloc::{format, string::String, vec, vec::Vec};

uniform! {
    /// Parameters of `shader/unpack.wgsl`; b: `[N]` in blocks; y: `[N]`.
    Params {
        /// N.
        n: u32,
    }
}

/// The kernel with its parameters. b; y.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// Parameters.
    pub params: Params,
    /// What it becomes.
    pub to: Unpacked,
}

/// What blocks are written out as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unpacked {
    /// 32-bit floats.
    F32,
    /// Half precision, for products that round to it anyway.
    F16,
}

/// The kernel as it is built: from, to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The format of the blocks.
    pub from: Stored,
    /// What they become.
    pub to: Unpacked,
}

/// Invocations of a workgroup; each writes four numbers.
const WIDE: u32 = 256;

/// Loads of four neighbours of b as f32, `load_b4`.
pub(super) fn fours(b: Stored) -> Vec<Source> {
    let blocks = match b {
        Stored::F32 => return vec![part!("load/four_f32.wgsl")],
        Stored::F16 => return vec![part!("load/four_f16.wgsl")],
        Stored::BF16 => return vec![part!("load/four_bf16.wgsl")],
        Stored::Q8_0 => part!("load/four_q8_0.wgsl"),
        Stored::Q4_0 => part!("load/four_q4_0.wgsl"),
        Stored::Q4_1 => part!("load/four_q4_1.wgsl"),
        Stored::Q5_0 => part!("load/four_q5_0.wgsl"),
        Stored::Q5_1 => part!("load/four_q5_1.wgsl"),
        Stored::Q4_K => part!("load/four_q4_k.wgsl"),
        Stored::Q5_K => part!("load/four_q5_k.wgsl"),
        Stored::Q6_K => part!("load/four_q6_k.wgsl"),
    };
    vec![part!("load/blocks.wgsl"), blocks]
}

impl Unpacked {
    const ALL: [Unpacked; 2] = [Unpacked::F32, Unpacked::F16];
    /// As a way to store.
    pub const fn stored(self) -> Stored {
        match self {
            Unpacked::F32 => Stored::F32,
            Unpacked::F16 => Stored::F16,
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        "unpack"
    }
    fn words(&self) -> Vec<u32> {
        self.params.words()
    }
    fn ranked(&self, inputs: &[Operand], _: &Abilities) -> Vec<Variant> {
        vec![Variant { from: inputs[0].stored, to: self.to }]
    }
    fn groups(&self, v: &Variant) -> usize {
        workgroups(self.params.n as usize / 4, v.needs())
    }
    fn iterations(&self, _: &Variant) -> u64 {
        0
    }
    fn rows(&self) -> Option<Rows> {
        None // weights are bound from their beginning
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.params.n
    }
    fn terms(&self) -> usize {
        1
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Products
    }
    /// Inputs of twins are numbers, however they are stored, and rounded already where a variant rounds.
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        let n = self.params.n as usize;
        outputs[0][..n].copy_from_slice(&inputs[0][..n]);
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let to = |from| Unpacked::ALL.map(|to| Variant { from, to });
        BLOCKS.into_iter().flat_map(to).collect()
    }
    fn kernel(&self) -> &'static str {
        "unpack"
    }
    fn entry(&self) -> &'static str {
        "unpack"
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let out = match self.to {
            Unpacked::F32 => Binding::Storage,
            Unpacked::F16 => Binding::Written(Stored::F16),
        };
        vec![(2, Binding::of(self.from)), (3, out)]
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        fours(self.from).into_iter().chain([part!("unpack.wgsl")]).collect()
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        vec![("HALF", u32::from(self.to == Unpacked::F16))]
    }
    fn needs(&self) -> Needs {
        let features = Features { f16: self.to == Unpacked::F16, ..Features::NONE };
        Needs { invocations: WIDE, features, ..Needs::PLAIN }
    }
    fn rounding(&self) -> Rounding {
        match self.to {
            Unpacked::F32 => Rounding::None,
            // Each number of its own, not only as it comes in: `d * q` is rounded twice.
            Unpacked::F16 => Rounding::Half { operands: 1, inner: true },
        }
    }
    fn body(&self) -> String {
        format!("{} to {}", self.from.name(), self.to.stored().name())
    }
}
