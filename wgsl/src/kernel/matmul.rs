//! Matrix products with an epilogue: `y = residual + gate * act(a b + bias)`.
//!
//! A new body is a variant of [`Variant`], its answers below, and its place in `Params::ranked`.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{
    Abilities, Binding, Class, Needs, Operand, Part, Rows, STORED, Source, Stored, indices, part, workgroups,
};
use crate::{Real, cpu};
use alloc::{format, string::String, vec, vec::Vec};

/// [`Params::flags`]: the bias is there.
pub const BIAS: u32 = 1;
/// [`Params::flags`]: the gate is there.
pub const GATE: u32 = 2;
/// [`Params::flags`]: the residual is there.
pub const RESIDUAL: u32 = 4;

uniform! {
    /// Parameters of `shader/shared/matmul.wgsl`; a: M x K, b: K x N, y: `[M, N]`.
    Params {
        /// M.
        m: u32,
        /// N.
        n: u32,
        /// K.
        k: u32,
        /// From a row of a to the next.
        stride_am: u32,
        /// From a column of a to the next.
        stride_ak: u32,
        /// From a row of b to the next.
        stride_bk: u32,
        /// From a column of b to the next.
        stride_bn: u32,
        /// [`BIAS`], [`GATE`], [`RESIDUAL`].
        flags: u32,
        /// Activation ([`super::Act`]).
        act: u32,
        /// Rows that share a gate.
        rows_per_batch: u32,
    }
}

/// The kernel with its parameters. a, b, bias, gate, residual; y.
pub type Call = Params;

/// Which sides are contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// a `[M, K]`, b `[N, K]`.
    Nt,
    /// a `[M, K]`, b `[K, N]`.
    Nn,
    /// a `[K, M]`, b `[K, N]`.
    Tn,
    /// a `[K, M]`, b `[N, K]`.
    Tt,
}

/// The kernel as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// One output per invocation, any layout; how b is stored.
    Naive(Stored),
    /// Workgroup tiles, any layout; how b is stored.
    Tile(Stored),
    /// Register tiles of operands read as texels, for CPU drivers; not for `Tt`.
    Texture(Layout),
}

/// Side and depth of a workgroup tile (`shader/matmul_tile.wgsl`); an invocation has `PER` x `PER` outputs.
const TILE: u32 = 64;
const DEPTH: u32 = 16;
const PER: u32 = 4;
/// Outputs of an invocation (`shader/matmul_texture.wgsl`).
const ROWS: u32 = 12;
const COLUMNS: u32 = 16;

impl Params {
    /// Which sides are contiguous. A side of one row or column is whatever the strides say last.
    pub fn layout(&self) -> Layout {
        let Params { m, n, k, .. } = *self;
        let a_t = self.stride_ak != 1 || (self.stride_am == 1 && m > 1 && k > 1);
        let b_t = self.stride_bk == 1 && ((n > 1 && k > 1) || self.stride_bn != 1);
        match (a_t, b_t) {
            (false, true) => Layout::Nt,
            (false, false) => Layout::Nn,
            (true, false) => Layout::Tn,
            (true, true) => Layout::Tt,
        }
    }
    /// The layout, where texels can serve it: the sides read four at a time are multiples of 4.
    fn texels(&self, inputs: &[Operand], able: &Abilities) -> Option<Layout> {
        let [m, n, k] = [self.m, self.n, self.k].map(|side| side.is_multiple_of(4));
        let layout = self.layout();
        let even = match layout {
            Layout::Nt => k,
            Layout::Nn => k && n,
            Layout::Tn => m && n,
            Layout::Tt => false,
        };
        (even && inputs[..2].iter().all(|x| able.stages(x))).then_some(layout)
    }
}

impl Calls for Params {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        "matmul"
    }
    fn words(&self) -> Vec<u32> {
        self.words()
    }
    fn ranked(&self, inputs: &[Operand], able: &Abilities) -> Vec<Variant> {
        let stored = inputs[1].stored;
        match able.class {
            Class::Gpu => vec![Variant::Tile(stored)],
            Class::Software => {
                let texels = self.texels(inputs, able).map(Variant::Texture);
                texels.into_iter().chain([Variant::Naive(stored)]).collect()
            }
        }
    }
    fn groups(&self, v: &Variant) -> usize {
        let tiles = |rows: u32, columns: u32| {
            (self.m as usize).div_ceil(rows as usize) * (self.n as usize).div_ceil(columns as usize)
        };
        match v {
            Variant::Naive(_) => workgroups(tiles(1, 1), v.needs()),
            Variant::Tile(_) => tiles(TILE, TILE),
            Variant::Texture(_) => workgroups(tiles(ROWS, COLUMNS), v.needs()),
        }
    }
    fn iterations(&self, v: &Variant) -> u64 {
        let k = u64::from(self.k);
        match v {
            Variant::Naive(_) => k,
            // Products and loads, for every tile along K.
            Variant::Tile(_) => {
                let loads = TILE * DEPTH / v.needs().invocations;
                k.div_ceil(DEPTH.into()) * u64::from(1 + loads + DEPTH)
            }
            Variant::Texture(Layout::Nt | Layout::Nn) => k / 4,
            Variant::Texture(Layout::Tn | Layout::Tt) => k,
        }
    }
    /// By rows of a, where they lie one after the other.
    fn rows(&self) -> Option<Rows> {
        use Part::{Group, Rows as Row, Whole};
        if self.stride_am != self.k || self.stride_ak != 1 {
            return None;
        }
        let [m, n, k, per] = indices([self.m, self.n, self.k, self.rows_per_batch]);
        let gate = if self.flags & GATE != 0 { Group { rows: per, len: n } } else { Whole };
        Rows::new(m, 1, [Row(k), Whole, Whole, gate, Row(n), Row(n)])
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.m
    }
    fn terms(&self) -> usize {
        self.k as usize
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Products
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        cpu::matmul::matmul(self, inputs, outputs);
    }
}

impl Variant {
    /// How b is stored.
    pub fn stored(&self) -> Stored {
        match self {
            Variant::Naive(stored) | Variant::Tile(stored) => *stored,
            Variant::Texture(_) => Stored::F32,
        }
    }
}

/// Loads of a and b, one number at a time.
fn loads(b: Stored) -> Source {
    match b {
        Stored::F32 => part!("load/matmul_f32.wgsl"),
        Stored::F16 => part!("load/matmul_f16.wgsl"),
        Stored::BF16 => part!("load/matmul_bf16.wgsl"),
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> =
            STORED.into_iter().flat_map(|s| [Variant::Tile(s), Variant::Naive(s)]).collect();
        all.extend([Layout::Nt, Layout::Nn, Layout::Tn].map(Variant::Texture));
        all
    }
    fn kernel(&self) -> &'static str {
        "matmul"
    }
    fn entry(&self) -> &'static str {
        match self {
            Variant::Naive(_) => "matmul",
            Variant::Tile(_) => "matmul_tile",
            Variant::Texture(Layout::Nt) => "nt",
            Variant::Texture(Layout::Nn) => "nn",
            Variant::Texture(Layout::Tn) => "tn",
            Variant::Texture(Layout::Tt) => "tt",
        }
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let (a, b) = match self {
            Variant::Naive(stored) | Variant::Tile(stored) => (Binding::Storage, Binding::of(*stored)),
            Variant::Texture(_) => (Binding::Texture, Binding::Texture),
        };
        [a, b].into_iter().chain([Binding::Storage; 4]).zip(1..).map(|(kind, n)| (n, kind)).collect()
    }
    fn outputs(&self) -> usize {
        match self {
            Variant::Naive(_) | Variant::Tile(_) | Variant::Texture(_) => 1,
        }
    }
    fn parts(&self) -> Vec<Source> {
        let mut parts = vec![part!("shared/activation.wgsl"), part!("shared/matmul.wgsl")];
        parts.extend(match self {
            Variant::Naive(stored) => [loads(*stored), part!("matmul.wgsl")],
            Variant::Tile(stored) => [loads(*stored), part!("matmul_tile.wgsl")],
            Variant::Texture(_) => [part!("shared/texel.wgsl"), part!("matmul_texture.wgsl")],
        });
        parts
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        match self {
            Variant::Naive(_) => vec![],
            Variant::Tile(_) => vec![("TILE", TILE), ("DEPTH", DEPTH), ("PER", PER)],
            Variant::Texture(_) => vec![("ROWS", ROWS), ("COLUMNS", COLUMNS)],
        }
    }
    fn needs(&self) -> Needs {
        match self {
            Variant::Naive(_) | Variant::Texture(_) => Needs::PLAIN,
            Variant::Tile(_) => Needs {
                invocations: (TILE / PER) * (TILE / PER),
                workgroup_memory: 4 * 2 * (TILE + 1) * DEPTH,
                ..Needs::PLAIN
            },
        }
    }
    fn rounding(&self) -> Rounding {
        match self {
            Variant::Naive(_) | Variant::Tile(_) | Variant::Texture(_) => Rounding::None,
        }
    }
    fn body(&self) -> String {
        match self {
            Variant::Naive(stored) => format!("naive, {}", stored.name()),
            Variant::Tile(stored) => format!("tile, {}", stored.name()),
            Variant::Texture(_) => "textures".into(),
        }
    }
}
