//! Sums over a middle axis.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, Binding, Needs, Operand, Part, Rows, Source, part, storage, workgroups};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

uniform! {
    /// Parameters of `shader/sum.wgsl`; x: `[O, N, I]`; y: `[O, I]`.
    Params {
        /// O I.
        outputs: u32,
        /// N.
        n: u32,
        /// I.
        inner: u32,
        /// Factor of the sum.
        scale: f32,
    }
}

/// The kernel with its parameters. x; y.
pub type Call = Params;

/// The only body: one invocation per output.
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
        workgroups(self.outputs as usize, v.needs())
    }
    fn iterations(&self, Variant: &Variant) -> u64 {
        u64::from(self.n.div_ceil(4)) // four running sums
    }
    fn rows(&self) -> Option<Rows> {
        let [outputs, n, inner] = super::indices([self.outputs, self.n, self.inner]);
        Rows::new(outputs / inner.max(1), inner, [Part::Rows(n * inner), Part::Rows(inner)])
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.outputs
    }
    fn terms(&self) -> usize {
        self.n as usize
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Products
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        cpu::sum::sum(self, inputs, outputs);
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        vec![Variant]
    }
    fn kernel(&self) -> &'static str {
        "sum"
    }
    fn entry(&self) -> &'static str {
        "sum"
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        storage(&[1, 2])
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        vec![part!("sum.wgsl")]
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
