//! Random words drawn on the device.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, Binding, Needs, Operand, Rows, Source, part, storage, workgroups};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

uniform! {
    /// Parameters of `shader/philox.wgsl`.
    Params {
        /// Words.
        n: u32,
    }
}

/// The kernel with its parameters. state; y, low.
pub type Call = Params;

/// The only body: one invocation per block of four words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant;

impl Calls for Params {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        Variant.kernel()
    }
    fn words(&self) -> Vec<u32> {
        self.words()
    }
    fn ranked(&self, _: &[Operand], _: &Abilities) -> Vec<Variant> {
        vec![Variant]
    }
    fn groups(&self, v: &Variant) -> usize {
        workgroups(self.n.div_ceil(4) as usize, v.needs())
    }
    fn iterations(&self, Variant: &Variant) -> u64 {
        10 + 4 // rounds, words
    }
    fn rows(&self) -> Option<Rows> {
        None // a piece would begin at another block, which is an input
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.n
    }
    fn terms(&self) -> usize {
        1
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        cpu::philox::philox(self, inputs, outputs);
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        vec![Variant]
    }
    fn kernel(&self) -> &'static str {
        "philox"
    }
    fn entry(&self) -> &'static str {
        "philox"
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        storage(&[1, 2, 3])
    }
    fn outputs(&self) -> usize {
        2
    }
    fn parts(&self) -> Vec<Source> {
        vec![part!("philox.wgsl")]
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        vec![]
    }
    fn needs(&self) -> Needs {
        Needs::PLAIN
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        String::new()
    }
}
