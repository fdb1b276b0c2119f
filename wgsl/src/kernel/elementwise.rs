//! Elementwise functions of one and two arguments.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, Binding, Needs, Operand, Part, Rows, Source, part, storage, workgroups};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

/// Activations by number, as in `shader/shared/activation.wgsl`. The slope of `Relu` at 0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Act {
    None = 0,
    Silu = 1,
    Gelu = 2,
    GeluTanh = 3,
    QuickGelu = 4,
    Relu = 5,
}

/// Elementwise functions of one argument; the numbers are those in `shader/unary.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// An activation.
    Act(Act),
    /// `alpha * x + beta`.
    Affine(f32, f32),
    /// `e^x`.
    Exp,
    /// `x * x`.
    Square,
    /// Clamp to `[lo, hi]`; slope 1 inside, borders included, as PyTorch has it.
    Clamp(f32, f32),
    /// Square root.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// `|x|`; slope 0 at 0.
    Abs,
}

impl Unary {
    /// (number, alpha, beta) as the shader takes them.
    pub fn code(self) -> (u32, f32, f32) {
        match self {
            Unary::Act(a) => (a as u32, 0.0, 0.0),
            Unary::Affine(a, b) => (16, a, b),
            Unary::Exp => (17, 0.0, 0.0),
            Unary::Square => (18, 0.0, 0.0),
            Unary::Clamp(a, b) => (19, a, b),
            Unary::Sqrt => (20, 0.0, 0.0),
            Unary::Reciprocal => (21, 0.0, 0.0),
            Unary::Abs => (22, 0.0, 0.0),
        }
    }
}

/// Elementwise functions of two arguments; the numbers are those in `shader/binary.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Binary {
    /// `a + b`.
    Add = 0,
    /// `a - b`.
    Sub = 1,
    /// `a * b`.
    Mul = 2,
    /// The larger one; where both are equal, the gradient goes to `a` alone.
    Max = 3,
    /// 1 where `a >= b`, else 0. Has no gradient.
    Ge = 4,
    /// `a * (1 + b)`, the modulation of adaptive layer norms.
    Scale1 = 5,
}

uniform! {
    /// Parameters of `shader/unary.wgsl`.
    Map {
        /// Numbers.
        n: u32,
        /// Function, see [`Unary::code`].
        op: u32,
        /// The function's first constant.
        alpha: f32,
        /// The function's second constant.
        beta: f32,
    }
}

impl Map {
    /// `f` of `n` numbers.
    pub fn new(n: usize, f: Unary) -> Self {
        let (op, alpha, beta) = f.code();
        Map { n: n as u32, op, alpha, beta }
    }
}

uniform! {
    /// Parameters of `shader/binary.wgsl`; a: `[O, S, C]`.
    Pair {
        /// Numbers of a.
        n: u32,
        /// Function, see [`Binary`].
        op: u32,
        /// S C.
        sc: u32,
        /// C.
        c: u32,
        /// From one outer index of b to the next; 0 where b is repeated.
        stride_o: u32,
        /// From one inner index of b to the next; 0 where b is repeated.
        stride_c: u32,
    }
}

/// A kernel of this family with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// `y = f(x)`. x; y.
    Unary(Map),
    /// `dx = dy f'(x)`. x, dy; dx.
    UnaryBackward(Map),
    /// `y = f(a, b)`. a, b; y.
    Binary(Pair),
}

/// One body each, one invocation per number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Variant {
    Unary,
    UnaryBackward,
    Binary,
}

impl Call {
    fn variant(&self) -> Variant {
        match self {
            Call::Unary(_) => Variant::Unary,
            Call::UnaryBackward(_) => Variant::UnaryBackward,
            Call::Binary(_) => Variant::Binary,
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        self.variant().kernel()
    }
    fn words(&self) -> Vec<u32> {
        match self {
            Call::Unary(p) | Call::UnaryBackward(p) => p.words(),
            Call::Binary(p) => p.words(),
        }
    }
    fn ranked(&self, _: &[Operand], _: &Abilities) -> Vec<Variant> {
        vec![self.variant()]
    }
    fn groups(&self, v: &Variant) -> usize {
        match self {
            Call::Unary(Map { n, .. })
            | Call::UnaryBackward(Map { n, .. })
            | Call::Binary(Pair { n, .. }) => workgroups(*n as usize, v.needs()),
        }
    }
    fn iterations(&self, v: &Variant) -> u64 {
        match v {
            Variant::Unary | Variant::UnaryBackward | Variant::Binary => 0,
        }
    }
    fn rows(&self) -> Option<Rows> {
        match self {
            Call::Unary(p) => Rows::new(p.n as usize, 1, [Part::Rows(1); 2]),
            Call::UnaryBackward(p) => Rows::new(p.n as usize, 1, [Part::Rows(1); 3]),
            Call::Binary(p) => p.rows(),
        }
    }
    fn counted(&mut self) -> &mut u32 {
        match self {
            Call::Unary(p) | Call::UnaryBackward(p) => &mut p.n,
            Call::Binary(p) => &mut p.n,
        }
    }
    fn terms(&self) -> usize {
        match self {
            Call::Unary(_) | Call::UnaryBackward(_) | Call::Binary(_) => 1,
        }
    }
    fn accuracy(&self) -> Accuracy {
        match self {
            Call::Unary(_) | Call::UnaryBackward(_) | Call::Binary(_) => Accuracy::Functions,
        }
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        match self {
            Call::Unary(p) => cpu::unary::unary(p, inputs, outputs),
            Call::UnaryBackward(p) => cpu::unary::unary_backward(p, inputs, outputs),
            Call::Binary(p) => cpu::binary::binary(p, inputs, outputs),
        }
    }
}

impl Pair {
    /// Rows are those of a's last axis, but single numbers where b has a's shape or is one number.
    fn rows(&self) -> Option<Rows> {
        use Part::{Group, Rows as Row, Whole};
        let [n, sc, c, outer, inner] =
            super::indices([self.n, self.sc, self.c, self.stride_o, self.stride_c]);
        match (outer, inner) {
            (o, 1) if o == c && sc == c => Rows::new(n, 1, [Row(1); 3]), // the same shape
            (0, 0) => Rows::new(n, 1, [Row(1), Whole, Row(1)]),
            (0, _) => Rows::new(n / c.max(1), c, [Row(c), Whole, Row(c)]),
            (o, _) => {
                let b = Group { rows: sc / c.max(1), len: o };
                Rows::new(n / c.max(1), c, [Row(c), b, Row(c)])
            }
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        vec![Variant::Unary, Variant::UnaryBackward, Variant::Binary]
    }
    fn kernel(&self) -> &'static str {
        match self {
            Variant::Unary => "unary",
            Variant::UnaryBackward => "unary_backward",
            Variant::Binary => "binary",
        }
    }
    fn entry(&self) -> &'static str {
        self.kernel()
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        match self {
            Variant::Unary => storage(&[1, 2]),
            Variant::UnaryBackward | Variant::Binary => storage(&[1, 2, 3]),
        }
    }
    fn outputs(&self) -> usize {
        match self {
            Variant::Unary | Variant::UnaryBackward | Variant::Binary => 1,
        }
    }
    fn parts(&self) -> Vec<Source> {
        match self {
            Variant::Unary | Variant::UnaryBackward => {
                vec![part!("shared/activation.wgsl"), part!("unary.wgsl")]
            }
            Variant::Binary => vec![part!("binary.wgsl")],
        }
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        match self {
            Variant::Unary | Variant::UnaryBackward | Variant::Binary => vec![],
        }
    }
    fn needs(&self) -> Needs {
        match self {
            Variant::Unary | Variant::UnaryBackward | Variant::Binary => Needs::PLAIN,
        }
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        String::new()
    }
}
