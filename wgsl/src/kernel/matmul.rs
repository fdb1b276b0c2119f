//! Matrix products with an epilogue: `y = residual + gate * act(a b + bias)`.
//!
//! A new body is a variant of [`Variant`], its answers below, and its place in `Params::ranked`.
mod loads;
mod tile;

use super::family::{Accuracy, Built, Calls, Rounding};
use super::{
    Abilities, BLOCKS, Binding, Class, Features, Matrix, Needs, Operand, PLAIN, Part, Plain, Rows, Source,
    Stored, WORKGROUP, indices, part, workgroups,
};
use crate::{Real, cpu};
use alloc::{format, string::String, vec, vec::Vec};

use super::blocks::fours;
use loads::{halves, loads};
pub use tile::Tile;

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
        /// Columns of the second pair of factors, whose product is added before the bias: low_a `[M, low]`, low_b laid out as b; 0
        /// without.
        low: u32,
        /// Columns of a that one of several partial sums takes, which lie one after another in y; K where there is one sum.
        part: u32,
    }
}

/// The kernel with its parameters. a, b, low_a, low_b, bias, gate, residual; y.
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
    Naive(Plain),
    /// Workgroup tiles, any layout; how b is stored.
    Tile(Plain),
    /// Register tiles of operands read as texels, for CPU drivers; not for `Tt`.
    Texture {
        /// Which sides are contiguous.
        layout: Layout,
        /// Rows of y are multiples of four numbers, which are then written together.
        fours: bool,
    },
    /// Few rows of a, b read once; b `[N, K]`.
    Few {
        /// Rows of a at most.
        rows: u32,
        /// How b is stored.
        stored: Stored,
    },
    /// Register tiles staged four numbers at a time, not for `Tt`; how b is stored, and how a tile lies.
    Regs(Layout, Plain, Tile),
    /// Cooperative matrices, for `Nt` and `Nn`.
    Coop {
        /// Which sides are contiguous.
        layout: Layout,
        /// How b is stored.
        stored: Plain,
        /// What a subgroup multiplies.
        matrix: Matrix,
    },
}

/// Side and depth of a workgroup tile (`shader/matmul_tile.wgsl`); an invocation has `PER` x `PER` outputs.
const TILE: u32 = 64;
const DEPTH: u32 = 16;
const PER: u32 = 4;
/// Outputs of a workgroup and of a subgroup, and depth, of cooperative matrices (`shader/matmul_coop.wgsl`).
const COOP: [u32; 2] = [64, 128];
const SIDE: [u32; 2] = [32, 32];
const COOP_DEPTH: u32 = 32;
/// Invocations that share a column (`shader/matmul_few.wgsl`), and most rows.
const LANES: u32 = 16;
const FEW: u32 = 8;
/// Outputs of an invocation (`shader/matmul_texture.wgsl`), and invocations of a workgroup: few, so that two cores share a small product.
const ROWS: u32 = 12;
const COLUMNS: u32 = 16;
const TEXTURE_GROUP: u32 = 16;

/// Least columns of a partial sum, workgroups that fill a GPU, and most numbers of all partial sums.
const LEAST: u32 = 96;
const FILL: u32 = 400;
const SCRATCH: u32 = 8 << 20;

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
    /// Whether the sides that are read along, four numbers at a time, are multiples of 4, rows of y among them.
    fn fours(&self) -> bool {
        let [m, n, k] = [self.m, self.n, self.k].map(|side| side.is_multiple_of(4));
        let sides = match self.layout() {
            Layout::Nt => k,
            Layout::Nn => k,
            Layout::Tn => m && self.low == 0,
            Layout::Tt => false,
        };
        sides && n && self.low.is_multiple_of(4)
    }
    /// Bodies for GPUs, best first.
    fn for_gpus(&self, b: &Operand, able: &Abilities) -> Vec<Variant> {
        let layout = self.layout();
        let mut all = Vec::new();
        if self.m <= FEW && layout == Layout::Nt && self.k.is_multiple_of(4) && self.low == 0 {
            all.push(Variant::Few { rows: self.m.next_power_of_two(), stored: b.stored });
        }
        let Some(stored) = b.stored.plain() else { return all };
        if self.fours() {
            let large = self.m >= SIDE[0] && self.n >= SIDE[1] && self.k >= COOP_DEPTH;
            if let Some(matrix) = able.matrix.filter(|_| b.frozen && large && layout != Layout::Tn) {
                all.push(Variant::Coop { layout, stored, matrix });
            }
            all.push(Variant::Regs(layout, stored, Tile::of(self.m, self.n)));
        }
        all.push(Variant::Tile(stored));
        all
    }
    /// The call that makes partial sums, where K is long and the tiles of y too few to fill a GPU. Those are added up by another
    /// command.
    pub fn parted(&self, v: &Variant) -> Option<Self> {
        let Variant::Regs(_, _, tile) = v else { return None };
        let [rows, columns] = tile.sides();
        let tiles = self.m.div_ceil(rows).saturating_mul(self.n.div_ceil(columns));
        let most = (self.k / LEAST).min(FILL / tiles).min(SCRATCH / self.m.saturating_mul(self.n).max(1));
        let plain = self.flags == 0 && self.act == 0 && self.low == 0;
        if most < 2 || !plain {
            return None;
        }
        let part = self.k.div_ceil(most).next_multiple_of(DEPTH);
        (part < self.k).then_some(Params { part, ..*self })
    }
    /// Partial sums.
    pub fn parts(&self) -> u32 {
        self.k.div_ceil(self.part.max(1)).max(1)
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
        (even && self.low == 0 && inputs[..2].iter().all(|x| able.stages(x))).then_some(layout)
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
        match able.class {
            Class::Gpu => self.for_gpus(&inputs[1], able),
            Class::Software => {
                let fours = self.n.is_multiple_of(4);
                let texels = self.texels(inputs, able).map(|layout| Variant::Texture { layout, fours });
                texels.into_iter().chain(inputs[1].stored.plain().map(Variant::Naive)).collect()
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
            Variant::Texture { .. } => workgroups(tiles(ROWS, COLUMNS), v.needs()),
            Variant::Few { .. } => workgroups(self.n as usize * LANES as usize, v.needs()),
            Variant::Regs(_, _, tile) => {
                let [rows, columns] = tile.sides();
                tiles(rows, columns) * self.parts() as usize
            }
            Variant::Coop { .. } => tiles(COOP[0], COOP[1]),
        }
    }
    fn iterations(&self, v: &Variant) -> u64 {
        let k = u64::from(self.k) + u64::from(self.low);
        match v {
            Variant::Naive(_) => k,
            // Products and loads, for every tile along K.
            Variant::Tile(_) => {
                let loads = TILE * DEPTH / v.needs().invocations;
                k.div_ceil(DEPTH.into()) * u64::from(1 + loads + DEPTH)
            }
            // Products and at most two loads of a or b, for every tile along K.
            Variant::Regs(..) => {
                (k.min(self.part.into()).div_ceil(DEPTH.into()) + 1) * u64::from(1 + DEPTH + 4)
            }
            Variant::Coop { .. } => k.div_ceil(COOP_DEPTH.into()) + 32,
            Variant::Few { rows, .. } => {
                k.div_ceil(4 * u64::from(LANES)) * u64::from(1 + rows) + 8 * u64::from(*rows)
            }
            Variant::Texture { layout: Layout::Nt | Layout::Nn, .. } => k / 4,
            Variant::Texture { layout: Layout::Tn | Layout::Tt, .. } => k,
        }
    }
    /// By rows of a, where they lie one after the other.
    fn rows(&self) -> Option<Rows> {
        use Part::{Group, Rows as Row, Whole};
        if self.stride_am != self.k || self.stride_ak != 1 || self.parts() > 1 {
            return None;
        }
        let [m, n, k, per] = indices([self.m, self.n, self.k, self.rows_per_batch]);
        let gate = if self.flags & GATE != 0 { Group { rows: per, len: n } } else { Whole };
        let low = if self.low > 0 { Row(self.low as usize) } else { Whole };
        Rows::new(m, 1, [Row(k), Whole, low, Whole, Whole, gate, Row(n), Row(n)])
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.m
    }
    fn terms(&self) -> usize {
        (self.k.min(self.part) + self.low) as usize
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
            Variant::Naive(stored) | Variant::Tile(stored) | Variant::Regs(_, stored, _) => (*stored).into(),
            Variant::Coop { stored, .. } => (*stored).into(),
            Variant::Few { stored, .. } => *stored,
            Variant::Texture { .. } => Stored::F32,
        }
    }
}

/// Rows of b's tile, and vectors of four in each and in a's, 8 halves of padding among them (`shader/matmul_coop.wgsl`).
fn coop_tiles(layout: Layout) -> [u32; 3] {
    let row = |halves: u32| (halves + 8) / 4;
    match layout {
        Layout::Nt | Layout::Tt => [COOP[1], row(COOP_DEPTH), row(COOP_DEPTH)],
        Layout::Nn | Layout::Tn => [COOP_DEPTH, row(COOP[1]), row(COOP_DEPTH)],
    }
}

impl Layout {
    /// Whether a and b are transposed, as constants of shaders.
    fn constants(self) -> [(&'static str, u32); 2] {
        let (a_t, b_t) = match self {
            Layout::Nt => (0, 1),
            Layout::Nn => (0, 0),
            Layout::Tn => (1, 0),
            Layout::Tt => (1, 1),
        };
        [("A_T", a_t), ("B_T", b_t)]
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> =
            PLAIN.into_iter().flat_map(|s| [Variant::Tile(s), Variant::Naive(s)]).collect();
        all.extend(
            [Layout::Nt, Layout::Nn, Layout::Tn].map(|layout| Variant::Texture { layout, fours: true }),
        );
        all.push(Variant::Texture { layout: Layout::Nt, fours: false }); // the others read rows of n four at a time
        for stored in PLAIN.map(Stored::from).into_iter().chain(BLOCKS) {
            all.extend([1, 2, 4, 8].map(|rows| Variant::Few { rows, stored }));
        }
        for stored in PLAIN {
            for tile in [Tile::Square, Tile::Tall, Tile::Wide] {
                let layouts = [Layout::Nt, Layout::Nn, Layout::Tn];
                all.extend(layouts.map(|layout| Variant::Regs(layout, stored, tile)));
            }
            for matrix in Matrix::KNOWN {
                all.extend([Layout::Nt, Layout::Nn].map(|layout| Variant::Coop { layout, stored, matrix }));
            }
        }
        all
    }
    fn kernel(&self) -> &'static str {
        "matmul"
    }
    fn entry(&self) -> &'static str {
        match self {
            Variant::Naive(_) => "matmul",
            Variant::Tile(_) => "matmul_tile",
            Variant::Texture { layout: Layout::Nt, .. } => "nt",
            Variant::Texture { layout: Layout::Nn, .. } => "nn",
            Variant::Texture { layout: Layout::Tn, .. } => "tn",
            Variant::Texture { layout: Layout::Tt, .. } => "tt",
            Variant::Few { .. } => "matmul_few",
            Variant::Regs(..) => "matmul_regs",
            Variant::Coop { .. } => "matmul_coop",
        }
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let (a, b) = match self {
            Variant::Texture { .. } => (Binding::Texture, Binding::Texture),
            Variant::Naive(_)
            | Variant::Tile(_)
            | Variant::Few { .. }
            | Variant::Regs(..)
            | Variant::Coop { .. } => (Binding::Storage, Binding::of(self.stored())),
        };
        [a, b].into_iter().chain([Binding::Storage; 6]).zip(1..).map(|(kind, n)| (n, kind)).collect()
    }
    fn outputs(&self) -> usize {
        match self {
            Variant::Naive(_) | Variant::Tile(_) | Variant::Texture { .. } => 1,
            Variant::Few { .. } | Variant::Regs(..) | Variant::Coop { .. } => 1,
        }
    }
    fn parts(&self) -> Vec<Source> {
        let one = part!("shared/matmul.wgsl");
        let low = part!("shared/matmul_low.wgsl");
        let four = part!("shared/matmul_four.wgsl");
        let mut parts = vec![part!("shared/activation.wgsl"), part!("shared/matmul_params.wgsl")];
        parts.extend(match self {
            Variant::Naive(stored) => vec![one, low, loads(*stored), part!("matmul.wgsl")],
            Variant::Tile(stored) => vec![one, low, loads(*stored), part!("matmul_tile.wgsl")],
            Variant::Texture { .. } => vec![part!("shared/texel.wgsl"), part!("matmul_texture.wgsl")],
            Variant::Few { stored, .. } => {
                let mut parts = vec![one, part!("load/a_four.wgsl"), part!("matmul_few.wgsl")];
                parts.extend(fours(*stored));
                parts
            }
            Variant::Regs(_, stored, _) => {
                let tile =
                    [part!("shared/register_tile.wgsl"), part!("load/regs.wgsl"), part!("matmul_regs.wgsl")];
                let loads = fours((*stored).into());
                [four, part!("load/a_four.wgsl")].into_iter().chain(loads).chain(tile).collect()
            }
            Variant::Coop { stored, matrix, .. } => {
                vec![
                    four,
                    part!("load/a_four.wgsl"),
                    halves(*stored),
                    matrix.aliases(),
                    part!("matmul_coop.wgsl"),
                ]
            }
        });
        parts
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        match self {
            Variant::Naive(_) => vec![],
            Variant::Tile(_) => vec![("TILE", TILE), ("DEPTH", DEPTH), ("PER", PER)],
            Variant::Texture { fours, .. } => {
                vec![("ROWS", ROWS), ("COLUMNS", COLUMNS), ("FOURS", (*fours).into())]
            }
            Variant::Few { rows, .. } => vec![("ROWS", *rows), ("LANES", LANES)],
            Variant::Regs(layout, _, tile) => {
                let [rows, columns] = tile.sides();
                let tile = [("TILE_M", rows), ("TILE_N", columns), ("DEPTH", DEPTH)];
                tile.into_iter().chain(layout.constants()).collect()
            }
            Variant::Coop { layout, matrix, .. } => {
                let [rows_b, row_b, row_a] = coop_tiles(*layout);
                let tile = [("TILE_M", COOP[0]), ("TILE_N", COOP[1]), ("DEPTH", COOP_DEPTH)];
                let side = [
                    ("SIDE_M", SIDE[0]),
                    ("SIDE_N", SIDE[1]),
                    ("EDGE", matrix.edge),
                    ("SUBGROUP", matrix.subgroup),
                ];
                let rows = [("ROWS_B", rows_b), ("ROW_B", row_b), ("ROW_A", row_a)];
                tile.into_iter().chain(side).chain(rows).chain(layout.constants()).collect()
            }
        }
    }
    fn needs(&self) -> Needs {
        match self {
            Variant::Naive(_) => Needs::PLAIN,
            Variant::Texture { .. } => Needs { invocations: TEXTURE_GROUP, ..Needs::PLAIN },
            Variant::Few { rows, .. } => Needs { workgroup_memory: 4 * rows * WORKGROUP, ..Needs::PLAIN },
            Variant::Regs(_, _, tile) => {
                let [rows, columns] = tile.sides();
                Needs {
                    invocations: (TILE / PER) * (TILE / PER),
                    workgroup_memory: 4 * (rows + 4 + columns + 4) * DEPTH,
                    ..Needs::PLAIN
                }
            }
            Variant::Coop { layout, matrix, .. } => {
                let [rows_b, row_b, row_a] = coop_tiles(*layout);
                let subgroups = COOP[0] / SIDE[0] * (COOP[1] / SIDE[1]);
                Needs {
                    invocations: subgroups * matrix.subgroup,
                    workgroup_memory: 8 * (COOP[0] * row_a + rows_b * row_b)
                        + 4 * subgroups * matrix.edge * matrix.edge,
                    features: Features::MATRIX,
                }
            }
            Variant::Tile(_) => Needs {
                invocations: (TILE / PER) * (TILE / PER),
                workgroup_memory: 4 * 2 * (TILE + 1) * DEPTH,
                ..Needs::PLAIN
            },
        }
    }
    fn rounding(&self) -> Rounding {
        match self {
            Variant::Naive(_) | Variant::Tile(_) | Variant::Texture { .. } => Rounding::None,
            Variant::Few { .. } | Variant::Regs(..) => Rounding::None,
            Variant::Coop { .. } => Rounding::Half { operands: 4, inner: false },
        }
    }
    fn body(&self) -> String {
        match self {
            Variant::Naive(stored) => format!("naive, {}", stored.name()),
            Variant::Tile(stored) => format!("tile, {}", stored.name()),
            Variant::Few { rows, stored } => format!("{rows} rows, {}", stored.name()),
            Variant::Regs(layout, stored, tile) => {
                let [rows, columns] = tile.sides();
                format!("{layout:?}, {}, {rows} x {columns}", stored.name())
            }
            Variant::Coop { layout, stored, matrix } => {
                format!("{layout:?}, {}, {} wide", stored.name(), matrix.edge)
            }
            Variant::Texture { fours: true, .. } => "textures".into(),
            Variant::Texture { fours: false, .. } => "textures, single numbers".into(),
        }
    }
}
