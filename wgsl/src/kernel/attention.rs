//! Attention and its backward passes.
//!
//! A new body is a variant of [`Variant`], its answers below, and its place in `Call::ranked`.
mod coop;
mod tile;

use super::family::{Accuracy, Built, Calls, Rounding};
use super::{
    Abilities, Binding, Class, Matrix, Needs, Operand, Part, Rows, Source, indices, part, storage, workgroups,
};
use crate::{Real, cpu};
use alloc::{format, string::String, vec, vec::Vec};

pub use coop::Coop;

/// [`Block::flags`]: a bias by key, `[K]`.
pub const BIAS: u32 = 1;
/// [`Block::flags`]: keys after the query are hidden.
pub const CAUSAL: u32 = 2;
/// [`Block::flags`]: a bias by head, query and key, `[H, Q, K]`.
pub const BIAS_BY_QUERY: u32 = 4;

/// Widest head the bodies hold in registers; widths are multiples of 4.
pub const MAX_HEAD: u32 = 128;

/// Parameters of a pass; q: `[B, Q, H*D]`, k: `[B, K, H*D]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// Uniform block.
    pub block: Block,
    /// D: a constant of the shader, not in the block.
    pub head: u32,
}

uniform! {
    /// Uniform block of `shader/attention.wgsl`, `attention_dq.wgsl` and `attention_dkv.wgsl`, in every body.
    Block {
        /// B.
        batch: u32,
        /// H.
        heads: u32,
        /// Q.
        q: u32,
        /// K.
        k: u32,
        /// Factor of the logits.
        scale: f32,
        /// [`BIAS`], [`CAUSAL`], [`BIAS_BY_QUERY`].
        flags: u32,
    }
}

uniform! {
    /// Parameters of `shader/attention_stats.wgsl`.
    Stats {
        /// B.
        batch: u32,
        /// H.
        heads: u32,
        /// Q.
        q: u32,
        /// D.
        d: u32,
    }
}

/// The passes over all pairs of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// q, k, v, bias; y, lse.
    Forward,
    /// q, k, v, dy, bias, stats; dq.
    Dq,
    /// q, k, v, dy, bias, stats; dk, dv.
    Dkv,
}

/// A kernel of this family with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// A pass over all pairs.
    Pass(Pass, Params),
    /// What both backward passes need of the forward one. y, dy, lse; stats.
    Stats(Stats),
}

/// How a pass without workgroup memory streams the other side past the queries (or, in [`Pass::Dkv`], keys) that an
/// invocation holds in registers, several at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// From storage.
    Storage,
    /// From textures.
    Textures,
}

/// A kernel of this family as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// A pass without workgroup memory: CPU drivers.
    Stream {
        /// Which one.
        pass: Pass,
        /// D.
        head: u32,
        /// How.
        stream: Stream,
    },
    /// A pass over tiles in workgroup memory: GPUs.
    Tile {
        /// Which one.
        pass: Pass,
        /// D.
        head: u32,
    },
    /// A pass on cooperative matrices: GPUs that have some.
    Coop {
        /// Which one.
        pass: Pass,
        /// D.
        head: u32,
        /// How.
        coop: Coop,
    },
    /// One invocation per query and head.
    Stats,
}

/// Queries (or keys) that an invocation of a streaming pass holds.
fn held(pass: Pass, head: u32, stream: Stream) -> u32 {
    // As many as gain speed and still compile in seconds on llvmpipe, where loads from storage are written out lane by lane.
    let queries = match stream {
        Stream::Textures if head <= 64 => 8,
        Stream::Storage | Stream::Textures => 4,
    };
    match pass {
        Pass::Forward | Pass::Dq => queries,
        Pass::Dkv => queries / 2,
    }
}

impl Pass {
    fn name(self) -> &'static str {
        match self {
            Pass::Forward => "attention",
            Pass::Dq => "attention_dq",
            Pass::Dkv => "attention_dkv",
        }
    }
}

impl Params {
    /// Queries or keys that are held, of one head, and how many pass by.
    fn sides(&self, pass: Pass) -> (u32, u32) {
        match pass {
            Pass::Forward | Pass::Dq => (self.block.q, self.block.k),
            Pass::Dkv => (self.block.k, self.block.q),
        }
    }
    /// Blocks of so many queries or keys, of all heads.
    fn blocks(&self, pass: Pass, rows: u32) -> usize {
        let [batch, heads, held] = indices([self.block.batch, self.block.heads, self.sides(pass).0]);
        batch * heads * held.div_ceil(rows as usize)
    }
    /// By images; the bias is shared by them.
    fn rows(&self, pass: Pass) -> Option<Rows> {
        use Part::{Rows as Row, Whole};
        let [batch, heads, q, k, d] =
            indices([self.block.batch, self.block.heads, self.block.q, self.block.k, self.head]);
        let (queries, keys) = (Row(q * heads * d), Row(k * heads * d));
        match pass {
            Pass::Forward => Rows::new(batch, 1, [queries, keys, keys, Whole, queries, Row(heads * q)]),
            Pass::Dq => {
                Rows::new(batch, 1, [queries, keys, keys, queries, Whole, Row(2 * heads * q), queries])
            }
            Pass::Dkv => {
                Rows::new(batch, 1, [queries, keys, keys, queries, Whole, Row(2 * heads * q), keys, keys])
            }
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        match self {
            Call::Pass(pass, _) => pass.name(),
            Call::Stats(_) => Variant::Stats.kernel(),
        }
    }
    fn words(&self) -> Vec<u32> {
        match self {
            Call::Pass(_, p) => p.block.words(),
            Call::Stats(p) => p.words(),
        }
    }
    fn ranked(&self, inputs: &[Operand], able: &Abilities) -> Vec<Variant> {
        let Call::Pass(pass, Params { head, block }) = *self else { return vec![Variant::Stats] };
        // Shapes decide, not what is done with them, so that a training's rollouts and steps round alike.
        let worth = block.q >= 64 && block.k >= Coop::KEYS;
        let of = |stream| Variant::Stream { pass, head, stream };
        match able.class {
            Class::Gpu => {
                let coop = able.matrix.filter(|_| worth).map(|m| Coop::ranked(pass, m)).unwrap_or_default();
                let coop = coop.into_iter().map(|coop| Variant::Coop { pass, head, coop });
                coop.chain([Variant::Tile { pass, head }]).collect()
            }
            Class::Software => {
                let staged = inputs[..3].iter().all(|x| able.stages(x)).then(|| of(Stream::Textures));
                staged.into_iter().chain([of(Stream::Storage)]).collect()
            }
        }
    }
    fn groups(&self, v: &Variant) -> usize {
        match (self, v) {
            (Call::Pass(pass, p), Variant::Stream { head, stream, .. }) => {
                workgroups(p.blocks(*pass, held(*pass, *head, *stream)), v.needs())
            }
            (Call::Pass(pass, p), Variant::Tile { .. }) => p.blocks(*pass, tile::TILE),
            (Call::Pass(pass, p), Variant::Coop { coop, .. }) => p.blocks(*pass, coop.rows()),
            (Call::Stats(p), Variant::Stats) => {
                let [batch, heads, q] = indices([p.batch, p.heads, p.q]);
                workgroups(batch * heads * q, v.needs())
            }
            (Call::Pass(..), Variant::Stats)
            | (Call::Stats(_), Variant::Stream { .. } | Variant::Tile { .. } | Variant::Coop { .. }) => {
                usize::MAX
            }
        }
    }
    fn iterations(&self, v: &Variant) -> u64 {
        match (self, v) {
            (Call::Pass(pass, p), Variant::Stream { .. } | Variant::Stats) => p.sides(*pass).1.into(),
            (Call::Pass(pass, p), Variant::Tile { head, .. }) => {
                u64::from(p.sides(*pass).1.div_ceil(tile::TILE)) * u64::from(tile::iterations(*pass, *head))
            }
            (Call::Pass(pass, p), Variant::Coop { .. }) => p.sides(*pass).1.div_ceil(Coop::KEYS).into(),
            (
                Call::Stats(p),
                Variant::Stream { .. } | Variant::Tile { .. } | Variant::Coop { .. } | Variant::Stats,
            ) => p.d.into(),
        }
    }
    fn rows(&self) -> Option<Rows> {
        match self {
            Call::Pass(pass, p) => p.rows(*pass),
            Call::Stats(p) => {
                let [batch, heads, q, d] = indices([p.batch, p.heads, p.q, p.d]);
                let [y, lse] = [heads * q * d, heads * q];
                Rows::new(batch, 1, [y, y, lse, 2 * lse].map(Part::Rows))
            }
        }
    }
    fn counted(&mut self) -> &mut u32 {
        match self {
            Call::Pass(_, p) => &mut p.block.batch,
            Call::Stats(p) => &mut p.batch,
        }
    }
    fn terms(&self) -> usize {
        match self {
            // Products over the head's width, then sums over queries or keys.
            Call::Pass(_, p) => p.head as usize + p.block.q.max(p.block.k) as usize,
            Call::Stats(p) => p.d as usize,
        }
    }
    fn accuracy(&self) -> Accuracy {
        match self {
            Call::Pass(..) => Accuracy::Functions,
            Call::Stats(_) => Accuracy::Products,
        }
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        match self {
            Call::Pass(Pass::Forward, p) => cpu::attention::attention(p, inputs, outputs),
            Call::Pass(Pass::Dq, p) => cpu::attention::attention_dq(p, inputs, outputs),
            Call::Pass(Pass::Dkv, p) => cpu::attention::attention_dkv(p, inputs, outputs),
            Call::Stats(p) => cpu::attention::attention_stats(p, inputs, outputs),
        }
    }
}

/// Loads of q, k and v, and of dy in backward passes.
fn loads(pass: Pass, textures: bool) -> Vec<Source> {
    let mut parts = if textures {
        vec![part!("shared/texel.wgsl"), part!("load/qkv_texture.wgsl")]
    } else {
        vec![part!("load/qkv_storage.wgsl")]
    };
    match pass {
        Pass::Forward => {}
        Pass::Dq | Pass::Dkv if textures => parts.push(part!("load/dy_texture.wgsl")),
        Pass::Dq | Pass::Dkv => parts.push(part!("load/dy_storage.wgsl")),
    }
    parts
}

impl Stream {
    fn textures(self) -> bool {
        match self {
            Stream::Storage => false,
            Stream::Textures => true,
        }
    }
}

impl Variant {
    /// Whether operands come from textures.
    fn textures(self) -> bool {
        match self {
            Variant::Stream { stream, .. } => stream.textures(),
            Variant::Tile { .. } | Variant::Coop { .. } | Variant::Stats => false,
        }
    }
    /// The pass, unless it is none.
    fn pass(self) -> Option<Pass> {
        match self {
            Variant::Stream { pass, .. } | Variant::Tile { pass, .. } | Variant::Coop { pass, .. } => {
                Some(pass)
            }
            Variant::Stats => None,
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let mut all = vec![Variant::Stats];
        for pass in [Pass::Forward, Pass::Dq, Pass::Dkv] {
            for head in (4..=MAX_HEAD).step_by(4) {
                let streams = [Stream::Storage, Stream::Textures];
                all.extend(streams.map(|stream| Variant::Stream { pass, head, stream }));
                all.push(Variant::Tile { pass, head });
                let coops = Matrix::KNOWN.iter().flat_map(|&m| Coop::ranked(pass, m));
                all.extend(coops.map(|coop| Variant::Coop { pass, head, coop }));
            }
        }
        all
    }
    fn kernel(&self) -> &'static str {
        self.pass().map_or("attention_stats", Pass::name)
    }
    fn entry(&self) -> &'static str {
        match self {
            Variant::Stream { .. } | Variant::Stats => self.kernel(),
            Variant::Tile { pass: Pass::Forward, .. } => "attention_tile",
            Variant::Tile { pass: Pass::Dq, .. } => "attention_dq_tile",
            Variant::Tile { pass: Pass::Dkv, .. } => "attention_dkv_tile",
            Variant::Coop { pass: Pass::Forward, .. } => "attention_coop",
            Variant::Coop { pass: Pass::Dq, .. } => "attention_dq_coop",
            Variant::Coop { pass: Pass::Dkv, .. } => "attention_dkv_coop",
        }
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let Some(pass) = self.pass() else { return storage(&[1, 2, 3, 4]) };
        let (staged, plain) = match pass {
            Pass::Forward => (3, 3),
            Pass::Dq => (4, 3),
            Pass::Dkv => (4, 4),
        };
        let staged = core::iter::repeat_n(Binding::staged(self.textures()), staged);
        let plain = core::iter::repeat_n(Binding::Storage, plain);
        staged.chain(plain).zip(1..).map(|(kind, n)| (n, kind)).collect()
    }
    fn outputs(&self) -> usize {
        match self.pass() {
            Some(Pass::Forward | Pass::Dkv) => 2,
            Some(Pass::Dq) | None => 1,
        }
    }
    fn parts(&self) -> Vec<Source> {
        let Some(pass) = self.pass() else { return vec![part!("attention_stats.wgsl")] };
        let mut parts = loads(pass, self.textures());
        parts.push(part!("shared/attention.wgsl"));
        parts.extend(match self {
            Variant::Stream { .. } | Variant::Stats => vec![],
            Variant::Tile { .. } => {
                vec![part!("shared/attention_blocks.wgsl"), part!("shared/attention_tile.wgsl")]
            }
            Variant::Coop { coop, .. } => {
                let shared = part!("shared/attention_coop.wgsl");
                vec![part!("shared/attention_blocks.wgsl"), coop.matrix.aliases(), shared]
            }
        });
        parts.push(match (self, pass) {
            (Variant::Stream { .. } | Variant::Stats, Pass::Forward) => part!("attention.wgsl"),
            (Variant::Stream { .. } | Variant::Stats, Pass::Dq) => part!("attention_dq.wgsl"),
            (Variant::Stream { .. } | Variant::Stats, Pass::Dkv) => part!("attention_dkv.wgsl"),
            (Variant::Tile { .. }, Pass::Forward) => part!("attention_tile.wgsl"),
            (Variant::Tile { .. }, Pass::Dq) => part!("attention_dq_tile.wgsl"),
            (Variant::Tile { .. }, Pass::Dkv) => part!("attention_dkv_tile.wgsl"),
            (Variant::Coop { .. }, Pass::Forward) => part!("attention_coop.wgsl"),
            (Variant::Coop { .. }, Pass::Dq) => part!("attention_dq_coop.wgsl"),
            (Variant::Coop { .. }, Pass::Dkv) => part!("attention_dkv_coop.wgsl"),
        });
        parts
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        match *self {
            Variant::Stream { pass, head, stream } => {
                let held = held(pass, head, stream);
                match pass {
                    Pass::Forward | Pass::Dq => vec![("D4", head / 4), ("QUERIES", held)],
                    Pass::Dkv => vec![("D4", head / 4), ("KEYS", held)],
                }
            }
            Variant::Tile { head, .. } => tile::constants(head),
            Variant::Coop { head, coop, .. } => coop.constants(head),
            Variant::Stats => vec![],
        }
    }
    fn needs(&self) -> Needs {
        match *self {
            Variant::Stream { .. } | Variant::Stats => Needs::PLAIN,
            Variant::Tile { pass, .. } => tile::needs(pass),
            Variant::Coop { pass, head, coop } => coop.needs(pass, head),
        }
    }
    fn rounding(&self) -> Rounding {
        match self {
            Variant::Stream { .. } | Variant::Tile { .. } | Variant::Stats => Rounding::None,
            // q, k, v and dy; P and ds.
            Variant::Coop { pass: Pass::Forward, .. } => Rounding::Half { operands: 3, inner: true },
            Variant::Coop { pass: Pass::Dq | Pass::Dkv, .. } => Rounding::Half { operands: 4, inner: true },
        }
    }
    fn body(&self) -> String {
        match *self {
            Variant::Stream { pass, head, stream } => {
                let textures = if stream.textures() { ", textures" } else { "" };
                format!("{} at a time{textures}", held(pass, head, stream))
            }
            Variant::Tile { .. } => "tile".into(),
            Variant::Coop { coop, .. } => {
                let ahead = if coop.ahead { ", ahead" } else { "" };
                format!("matrices, {} rows{ahead}", coop.rows())
            }
            Variant::Stats => String::new(),
        }
    }
}
