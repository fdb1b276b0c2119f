//! Operations that only move numbers.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, Binding, Items, Needs, Operand, Part, Rows, Source, indices, part, storage};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

uniform! {
    /// Parameters of `slice` (`[O, N, I]` to `[O, L, I]`) and of its transpose `pad`.
    Window {
        /// Numbers of the output.
        n: u32,
        /// L I.
        len: u32,
        /// N I.
        side: u32,
        /// First number of the window.
        start: u32,
    }
}

uniform! {
    /// Parameters of `concat`: `[O, A]`, `[O, B]` to `[O, A + B]`.
    Joint {
        /// Numbers of the output.
        n: u32,
        /// A.
        a: u32,
        /// B.
        b: u32,
    }
}

uniform! {
    /// Parameters of `permute`; missing axes are outermost ones of size 1.
    Axes {
        /// Numbers.
        n: u32,
        /// Sizes of the output's axes, outermost first.
        sizes: [u32; 5],
        /// The input's strides along them.
        strides: [u32; 5],
    }
}

uniform! {
    /// Parameters of `upsample`: `[B, H, W, C]` to `[B, 2H, 2W, C]`.
    Image {
        /// Numbers of the output.
        n: u32,
        /// H.
        h: u32,
        /// W.
        w: u32,
        /// C.
        c: u32,
    }
}

/// A kernel of this family with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// A part of an axis. x; y.
    Slice(Window),
    /// A part of an axis among zeros. x; y.
    Pad(Window),
    /// One after the other. a, b; y.
    Concat(Joint),
    /// Axes in another order. x; y.
    Permute(Axes),
    /// Each pixel four times. x; y.
    Upsample(Image),
}

/// The kernels of this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kernel {
    Slice,
    Pad,
    Concat,
    Permute,
    Upsample,
}
const KERNELS: [Kernel; 5] = [Kernel::Slice, Kernel::Pad, Kernel::Concat, Kernel::Permute, Kernel::Upsample];

/// A kernel of this family as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which one.
    pub kernel: Kernel,
    /// What an invocation moves.
    pub items: Items,
}

impl Call {
    fn of(&self) -> Kernel {
        match self {
            Call::Slice(_) => Kernel::Slice,
            Call::Pad(_) => Kernel::Pad,
            Call::Concat(_) => Kernel::Concat,
            Call::Permute(_) => Kernel::Permute,
            Call::Upsample(_) => Kernel::Upsample,
        }
    }
    /// Runs of fours stay together.
    fn fours(&self) -> bool {
        let all = |sides: &[u32]| sides.iter().all(|side| side.is_multiple_of(4));
        match self {
            Call::Slice(p) | Call::Pad(p) => all(&[p.len, p.side, p.start]),
            Call::Concat(p) => all(&[p.a, p.b]),
            Call::Permute(p) => p.strides[4] == 1 && all(&p.strides[..4]) && all(&p.sizes[4..]),
            Call::Upsample(p) => all(&[p.c]),
        }
    }
    /// Numbers of the output.
    fn len(&self) -> u32 {
        match self {
            Call::Slice(p) | Call::Pad(p) => p.n,
            Call::Concat(p) => p.n,
            Call::Permute(p) => p.n,
            Call::Upsample(p) => p.n,
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        self.of().name()
    }
    fn words(&self) -> Vec<u32> {
        let mut words = match self {
            Call::Slice(p) | Call::Pad(p) => p.words(),
            Call::Concat(p) => p.words(),
            Call::Permute(p) => p.words(),
            Call::Upsample(p) => p.words(),
        };
        words.resize(4 + 4 * 3, 0); // the shader has one block for all of them
        words
    }
    fn ranked(&self, _: &[Operand], able: &Abilities) -> Vec<Variant> {
        vec![Variant { kernel: self.of(), items: Items::best(able, self.fours()) }]
    }
    fn groups(&self, v: &Variant) -> usize {
        v.items.groups(self.len())
    }
    fn iterations(&self, v: &Variant) -> u64 {
        match v.kernel {
            Kernel::Slice | Kernel::Pad | Kernel::Concat | Kernel::Permute | Kernel::Upsample => 0,
        }
    }
    fn rows(&self) -> Option<Rows> {
        use Part::Rows as Row;
        match self {
            Call::Slice(p) => {
                let [n, len, side] = indices([p.n, p.len, p.side]);
                Rows::new(n / len.max(1), len, [Row(side), Row(len)])
            }
            Call::Pad(p) => {
                let [n, len, side] = indices([p.n, p.len, p.side]);
                Rows::new(n / side.max(1), side, [Row(len), Row(side)])
            }
            Call::Concat(p) => {
                let [n, a, b] = indices([p.n, p.a, p.b]);
                Rows::new(n / (a + b).max(1), a + b, [Row(a), Row(b), Row(a + b)])
            }
            Call::Permute(_) => None,
            Call::Upsample(p) => {
                let [n, w, c] = indices([p.n, p.w, p.c]);
                Rows::new(n / (4 * w * c).max(1), 4 * w * c, [Row(w * c), Row(4 * w * c)])
            }
        }
    }
    fn counted(&mut self) -> &mut u32 {
        match self {
            Call::Slice(p) | Call::Pad(p) => &mut p.n,
            Call::Concat(p) => &mut p.n,
            Call::Permute(p) => &mut p.n,
            Call::Upsample(p) => &mut p.n,
        }
    }
    fn terms(&self) -> usize {
        1
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Exact
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        match self {
            Call::Slice(p) => cpu::copy::slice(p, inputs, outputs),
            Call::Pad(p) => cpu::copy::pad(p, inputs, outputs),
            Call::Concat(p) => cpu::copy::concat(p, inputs, outputs),
            Call::Permute(p) => cpu::copy::permute(p, inputs, outputs),
            Call::Upsample(p) => cpu::copy::upsample(p, inputs, outputs),
        }
    }
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Kernel::Slice => "slice",
            Kernel::Pad => "pad",
            Kernel::Concat => "concat",
            Kernel::Permute => "permute",
            Kernel::Upsample => "upsample",
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let bodies = |kernel| Items::ALL.map(|items| Variant { kernel, items });
        KERNELS.into_iter().flat_map(bodies).collect()
    }
    fn kernel(&self) -> &'static str {
        self.kernel.name()
    }
    fn entry(&self) -> &'static str {
        self.kernel()
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        match self.kernel {
            Kernel::Slice | Kernel::Pad | Kernel::Permute | Kernel::Upsample => storage(&[1, 2]),
            Kernel::Concat => storage(&[1, 3, 2]),
        }
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        vec![self.items.part(), part!("copy.wgsl")]
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        self.items.constants()
    }
    fn needs(&self) -> Needs {
        self.items.needs()
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        self.items.name()
    }
}
