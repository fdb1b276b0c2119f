//! What a family answers about its calls and about its bodies. Adding a kernel or a body to a family breaks the build
//! wherever one of these answers is missing; no answer has an arm for "the others".
use super::{Abilities, Binding, Needs, Operand, Rows, Source};
use crate::Real;
use alloc::{string::String, vec::Vec};

/// How exact an output is, which says how far an adapter may be from the twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accuracy {
    /// Copies of inputs or random words: on every adapter each bit is the twin's.
    Exact,
    /// Products and their sums.
    Products,
    /// exp, division and square roots take part.
    Functions,
}

/// What a body does to its operands before it computes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Nothing: f32 throughout, and stored halves as they are.
    None,
    /// The first inputs, which products are made of, are rounded to f16; sums are f32.
    Half {
        /// How many inputs.
        operands: usize,
        /// Factors that it computes on the way are rounded so too.
        inner: bool,
    },
}

/// A family's calls: kernels with their parameters. What does not depend on the body.
pub(super) trait Calls: Sized {
    /// How its kernels are built.
    type Variant: Built;
    /// The kernel's name.
    fn kernel(&self) -> &'static str;
    /// Words of the uniform block.
    fn words(&self) -> Vec<u32>;
    /// Bodies that compute this on adapters with these abilities, best first. The planner takes the first one whose
    /// needs are met ([`Built::needs`]) and whose loops end in time.
    fn ranked(&self, inputs: &[Operand], able: &Abilities) -> Vec<Self::Variant>;
    /// Workgroups; `usize::MAX` for a body of another kernel.
    fn groups(&self, v: &Self::Variant) -> usize;
    /// Iterations of all loops of one invocation, but for the few that count registers.
    fn iterations(&self, v: &Self::Variant) -> u64;
    /// How the call can be cut; `None` where it cannot.
    fn rows(&self) -> Option<Rows>;
    /// The parameter that counts the rows.
    fn counted(&mut self) -> &mut u32;
    /// Terms of the longest sum behind one number of the result; at least 1.
    fn terms(&self) -> usize;
    /// How exact the outputs are.
    fn accuracy(&self) -> Accuracy;
    /// The CPU twin.
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]);
}

/// A family's kernels as they are built: what a pipeline is made from.
pub(super) trait Built: Copy {
    /// Every one that [`Calls::ranked`] can return.
    fn all() -> Vec<Self>;
    /// The kernel's name.
    fn kernel(&self) -> &'static str;
    /// WGSL entry point.
    fn entry(&self) -> &'static str;
    /// Binding number and kind of each argument: inputs in the twin's order, then outputs.
    fn bindings(&self) -> Vec<(u32, Binding)>;
    /// How many of the arguments are outputs; they come last.
    fn outputs(&self) -> usize;
    /// Parts of the shader, in linking order.
    fn parts(&self) -> Vec<Source>;
    /// Constants of the prelude beside `WORKGROUP`: tile sizes, above all.
    fn constants(&self) -> Vec<(&'static str, u32)>;
    /// What it needs of an adapter.
    fn needs(&self) -> Needs;
    /// What it does to the operands of its products.
    fn rounding(&self) -> Rounding;
    /// The body in a few words; empty where there is only one.
    fn body(&self) -> String;
}
