//! Attention and its backward passes.
//!
//! A new body is a variant of [`Variant`], its answers below, and its place in `Call::ranked`.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{
    Abilities, Binding, Class, Needs, Operand, Part, Rows, Source, indices, part, storage, workgroups,
};
use crate::{Real, cpu};
use alloc::{format, string::String, vec, vec::Vec};

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
    /// Uniform block of `shader/attention.wgsl`, `attention_dq.wgsl` and `attention_dkv.wgsl`.
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

/// How a pass streams the other side past the queries (or, in [`Pass::Dkv`], keys) that an invocation holds in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// One, from storage: GPUs.
    One,
    /// Several, from storage: CPU drivers.
    Several,
    /// Several, from textures: CPU drivers.
    Textures,
}

/// A kernel of this family as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// A pass without workgroup memory.
    Stream {
        /// Which one.
        pass: Pass,
        /// D.
        head: u32,
        /// How.
        stream: Stream,
    },
    /// One invocation per query and head.
    Stats,
}

/// Queries (or keys) that an invocation holds.
fn held(pass: Pass, head: u32, stream: Stream) -> u32 {
    // As many as gain speed and still compile in seconds on llvmpipe, where loads from storage are written out lane by lane.
    let queries = match stream {
        Stream::One => return 1,
        Stream::Several => 4,
        Stream::Textures if head <= 64 => 8,
        Stream::Textures => 4,
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
    /// Queries or keys that invocations hold, of one head, and how many pass by.
    fn sides(&self, pass: Pass) -> (u32, u32) {
        match pass {
            Pass::Forward | Pass::Dq => (self.block.q, self.block.k),
            Pass::Dkv => (self.block.k, self.block.q),
        }
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
        let Call::Pass(pass, Params { head, .. }) = *self else { return vec![Variant::Stats] };
        let of = |stream| Variant::Stream { pass, head, stream };
        match able.class {
            Class::Gpu => vec![of(Stream::One)],
            Class::Software => {
                let staged = inputs[..3].iter().all(|x| able.stages(x)).then(|| of(Stream::Textures));
                staged.into_iter().chain([of(Stream::Several)]).collect()
            }
        }
    }
    fn groups(&self, v: &Variant) -> usize {
        match (self, v) {
            (Call::Pass(pass, p), Variant::Stream { head, stream, .. }) => {
                let blocks = p.sides(*pass).0.div_ceil(held(*pass, *head, *stream));
                workgroups((p.block.batch * p.block.heads) as usize * blocks as usize, v.needs())
            }
            (Call::Stats(p), Variant::Stats) => {
                let [batch, heads, q] = indices([p.batch, p.heads, p.q]);
                workgroups(batch * heads * q, v.needs())
            }
            (Call::Pass(..), Variant::Stats) | (Call::Stats(_), Variant::Stream { .. }) => {
                unreachable!("{} is not built as {}", self.kernel(), v.entry())
            }
        }
    }
    fn iterations(&self, v: &Variant) -> u64 {
        match (self, v) {
            (Call::Pass(pass, p), Variant::Stream { .. } | Variant::Stats) => p.sides(*pass).1.into(),
            (Call::Stats(p), Variant::Stream { .. } | Variant::Stats) => p.d.into(),
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
            Stream::One | Stream::Several => false,
            Stream::Textures => true,
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let mut all = vec![Variant::Stats];
        for pass in [Pass::Forward, Pass::Dq, Pass::Dkv] {
            for head in (4..=MAX_HEAD).step_by(4) {
                let streams = [Stream::One, Stream::Several, Stream::Textures];
                all.extend(streams.map(|stream| Variant::Stream { pass, head, stream }));
            }
        }
        all
    }
    fn kernel(&self) -> &'static str {
        match self {
            Variant::Stream { pass, .. } => pass.name(),
            Variant::Stats => "attention_stats",
        }
    }
    fn entry(&self) -> &'static str {
        match self {
            Variant::Stream { .. } | Variant::Stats => self.kernel(),
        }
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let Variant::Stream { pass, stream, .. } = self else { return storage(&[1, 2, 3, 4]) };
        let (staged, plain) = match pass {
            Pass::Forward => (3, 3),
            Pass::Dq => (4, 3),
            Pass::Dkv => (4, 4),
        };
        let staged = core::iter::repeat_n(Binding::staged(stream.textures()), staged);
        let plain = core::iter::repeat_n(Binding::Storage, plain);
        staged.chain(plain).zip(1..).map(|(kind, n)| (n, kind)).collect()
    }
    fn outputs(&self) -> usize {
        match self {
            Variant::Stream { pass: Pass::Forward | Pass::Dkv, .. } => 2,
            Variant::Stream { pass: Pass::Dq, .. } | Variant::Stats => 1,
        }
    }
    fn parts(&self) -> Vec<Source> {
        let Variant::Stream { pass, stream, .. } = *self else { return vec![part!("attention_stats.wgsl")] };
        let mut parts = loads(pass, stream.textures());
        parts.push(match pass {
            Pass::Forward => part!("attention.wgsl"),
            Pass::Dq => part!("attention_dq.wgsl"),
            Pass::Dkv => part!("attention_dkv.wgsl"),
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
            Variant::Stats => vec![],
        }
    }
    fn needs(&self) -> Needs {
        match self {
            Variant::Stream { .. } | Variant::Stats => Needs::PLAIN,
        }
    }
    fn rounding(&self) -> Rounding {
        match self {
            Variant::Stream { .. } | Variant::Stats => Rounding::None,
        }
    }
    fn body(&self) -> String {
        match *self {
            Variant::Stream { pass, head, stream } => {
                let textures = if stream.textures() { ", textures" } else { "" };
                format!("{} at a time{textures}", held(pass, head, stream))
            }
            Variant::Stats => String::new(),
        }
    }
}
