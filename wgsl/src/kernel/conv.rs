//! Convolutions, channels last, and their input gradient.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, Binding, Class, Needs, Operand, Part, Rows, Source, indices, part, workgroups};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

/// [`Params::flags`]: the bias is there.
pub const BIAS: u32 = 1;
/// [`Params::flags`]: the residual is there.
pub const RESIDUAL: u32 = 4;

uniform! {
    /// Parameters of `shader/conv2d.wgsl`; x: `[B, H, W, C]`, w: `[O, KH, KW, C]`, y: `[B, HO, WO, O]`.
    Params {
        /// B.
        batch: u32,
        /// H.
        h: u32,
        /// W.
        w: u32,
        /// C.
        c: u32,
        /// HO.
        ho: u32,
        /// WO.
        wo: u32,
        /// O.
        o: u32,
        /// KH.
        kh: u32,
        /// KW.
        kw: u32,
        /// Pixels from one output to the next.
        stride: u32,
        /// Zeros above and to the left.
        pad: u32,
        /// [`BIAS`], [`RESIDUAL`].
        flags: u32,
    }
}

uniform! {
    /// Parameters of `shader/conv2d_dx.wgsl`, named as in the forward pass; dy's channels are padded to a multiple of 4.
    Dx {
        /// B.
        batch: u32,
        /// H.
        h: u32,
        /// W.
        w: u32,
        /// C.
        c: u32,
        /// HO.
        ho: u32,
        /// WO.
        wo: u32,
        /// O.
        o: u32,
        /// KH.
        kh: u32,
        /// KW.
        kw: u32,
        /// Pixels from one output to the next.
        stride: u32,
        /// Zeros above and to the left.
        pad: u32,
    }
}

/// A kernel of this family with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    /// x, w, bias, residual; y.
    Conv2d(Params),
    /// dy, w; dx.
    Conv2dDx(Dx),
}

/// The kernels of this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kernel {
    Conv2d,
    Conv2dDx,
}

/// A kernel of this family as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which one.
    pub kernel: Kernel,
    /// How.
    pub body: Body,
}

/// Who computes what, from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// 4 x 4 pixels and channels an invocation.
    Storage,
    /// As `Storage`, operands read from textures: CPU drivers, few channels.
    Textures,
    /// Register tiles of operands read from textures: CPU drivers.
    Texels,
    /// A matmul on register tiles whose left side is gathered as it is read: GPUs, C and O multiples of 4.
    Tiles,
}

/// Neighbouring pixels, and channels, of an invocation.
const BLOCK: u32 = 4;
/// Pixels and channels of an invocation's register tile (`shader/conv2d_texture.wgsl`), and channels from which it is worth while.
const PIXELS: u32 = 8;
const CHANNELS: u32 = 16;
const MANY: usize = 12;
/// Pixels and channels of a workgroup's tile, and its depth (`shader/shared/register_tile.wgsl`).
const TILE: u32 = 64;
const DEPTH: u32 = 16;
/// Outputs of an invocation along each side of a tile.
const PER: u32 = 4;

impl Call {
    fn of(&self, body: Body) -> Variant {
        match self {
            Call::Conv2d(_) => Variant { kernel: Kernel::Conv2d, body },
            Call::Conv2dDx(_) => Variant { kernel: Kernel::Conv2dDx, body },
        }
    }
    /// Rows of the outputs' images, their columns, channels: (images x rows, columns, channels).
    fn outputs(&self) -> [usize; 3] {
        match self {
            Call::Conv2d(p) => indices([p.batch * p.ho, p.wo, p.o]),
            Call::Conv2dDx(p) => indices([p.batch * p.h, p.w, p.c]),
        }
    }
    /// Taps of an output along each side, and channels of each.
    fn taps(&self) -> [u32; 3] {
        match self {
            Call::Conv2d(p) => [p.kh, p.kw, p.c],
            Call::Conv2dDx(p) => [p.kh, p.kw, p.o.next_multiple_of(4)],
        }
    }
    /// Channels on both sides come in fours.
    fn fours(&self) -> bool {
        match self {
            Call::Conv2d(p) => p.c.is_multiple_of(4) && p.o.is_multiple_of(4),
            Call::Conv2dDx(p) => p.c.is_multiple_of(4),
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        self.of(Body::Storage).kernel()
    }
    fn words(&self) -> Vec<u32> {
        match self {
            Call::Conv2d(p) => p.words(),
            Call::Conv2dDx(p) => p.words(),
        }
    }
    fn ranked(&self, inputs: &[Operand], able: &Abilities) -> Vec<Variant> {
        match able.class {
            Class::Gpu => {
                let tiles = self.fours().then(|| self.of(Body::Tiles));
                tiles.into_iter().chain([self.of(Body::Storage)]).collect()
            }
            Class::Software => {
                let staged = inputs[..2].iter().all(|x| able.stages(x));
                let channels = self.outputs()[2];
                let many = channels >= MANY && channels.is_multiple_of(4);
                let bodies =
                    [(staged && many, Body::Texels), (staged, Body::Textures), (true, Body::Storage)];
                bodies.into_iter().filter(|b| b.0).map(|b| self.of(b.1)).collect()
            }
        }
    }
    fn groups(&self, v: &Variant) -> usize {
        let [rows, columns, channels] = self.outputs();
        let [block, tile] = [BLOCK, TILE].map(|side| side as usize);
        match v.body {
            Body::Storage | Body::Textures => {
                workgroups(rows * columns.div_ceil(block) * channels.div_ceil(block), v.needs())
            }
            Body::Texels => {
                let pixels = (rows * columns).div_ceil(PIXELS as usize);
                workgroups(pixels * channels.div_ceil(CHANNELS as usize), v.needs())
            }
            Body::Tiles => (rows * columns).div_ceil(tile) * channels.div_ceil(tile),
        }
    }
    fn iterations(&self, v: &Variant) -> u64 {
        let [kh, kw, channels] = self.taps().map(u64::from);
        match v.body {
            Body::Storage | Body::Textures => kh * (1 + kw * (1 + channels / u64::from(BLOCK))),
            Body::Texels => kh * kw * (1 + channels / 4) + u64::from(PIXELS * CHANNELS),
            // Products, and one round of loads for each side, for every tile along the taps.
            Body::Tiles => (kh * kw * channels).div_ceil(DEPTH.into()) * u64::from(1 + DEPTH + 2),
        }
    }
    /// By images; weights and biases are shared by them.
    fn rows(&self) -> Option<Rows> {
        use Part::{Rows as Row, Whole};
        match self {
            Call::Conv2d(p) => {
                let [batch, h, w, c, ho, wo, o] = indices([p.batch, p.h, p.w, p.c, p.ho, p.wo, p.o]);
                let y = Row(ho * wo * o);
                Rows::new(batch, 1, [Row(h * w * c), Whole, Whole, y, y])
            }
            Call::Conv2dDx(p) => {
                let [batch, h, w, c, ho, wo, o] = indices([p.batch, p.h, p.w, p.c, p.ho, p.wo, p.o]);
                Rows::new(batch, 1, [Row(ho * wo * o.next_multiple_of(4)), Whole, Row(h * w * c)])
            }
        }
    }
    fn counted(&mut self) -> &mut u32 {
        match self {
            Call::Conv2d(p) => &mut p.batch,
            Call::Conv2dDx(p) => &mut p.batch,
        }
    }
    fn terms(&self) -> usize {
        let (kh, kw, channels) = match self {
            Call::Conv2d(p) => (p.kh, p.kw, p.c),
            Call::Conv2dDx(p) => (p.kh, p.kw, p.o),
        };
        indices([kh, kw, channels]).into_iter().product()
    }
    fn accuracy(&self) -> Accuracy {
        match self {
            Call::Conv2d(_) | Call::Conv2dDx(_) => Accuracy::Products,
        }
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        match self {
            Call::Conv2d(p) => cpu::conv2d::conv2d(p, inputs, outputs),
            Call::Conv2dDx(p) => cpu::conv2d::conv2d_dx(p, inputs, outputs),
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let both = |body| [Kernel::Conv2d, Kernel::Conv2dDx].map(|kernel| Variant { kernel, body });
        [Body::Storage, Body::Textures, Body::Texels, Body::Tiles].into_iter().flat_map(both).collect()
    }
    fn kernel(&self) -> &'static str {
        match self.kernel {
            Kernel::Conv2d => "conv2d",
            Kernel::Conv2dDx => "conv2d_dx",
        }
    }
    fn entry(&self) -> &'static str {
        match (self.body, self.kernel) {
            (Body::Storage | Body::Textures, _) => self.kernel(),
            (Body::Texels, Kernel::Conv2d) => "conv2d_texture",
            (Body::Texels, Kernel::Conv2dDx) => "conv2d_dx_texture",
            (Body::Tiles, Kernel::Conv2d) => "conv2d_regs",
            (Body::Tiles, Kernel::Conv2dDx) => "conv2d_dx_regs",
        }
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let plain = match self.kernel {
            Kernel::Conv2d => 3,
            Kernel::Conv2dDx => 1,
        };
        let staged = [Binding::staged(matches!(self.body, Body::Textures | Body::Texels)); 2].into_iter();
        let plain = core::iter::repeat_n(Binding::Storage, plain);
        staged.chain(plain).zip(1..).map(|(kind, n)| (n, kind)).collect()
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        let mut parts = match self.body {
            Body::Storage => vec![part!("load/conv_storage.wgsl")],
            Body::Textures | Body::Texels => {
                vec![part!("shared/texel.wgsl"), part!("load/conv_texture.wgsl")]
            }
            Body::Tiles => vec![part!("shared/register_tile.wgsl")],
        };
        parts.push(match (self.body, self.kernel) {
            (Body::Storage | Body::Textures, Kernel::Conv2d) => part!("conv2d.wgsl"),
            (Body::Storage | Body::Textures, Kernel::Conv2dDx) => part!("conv2d_dx.wgsl"),
            (Body::Texels, Kernel::Conv2d) => part!("conv2d_texture.wgsl"),
            (Body::Texels, Kernel::Conv2dDx) => part!("conv2d_dx_texture.wgsl"),
            (Body::Tiles, Kernel::Conv2d) => part!("conv2d_regs.wgsl"),
            (Body::Tiles, Kernel::Conv2dDx) => part!("conv2d_dx_regs.wgsl"),
        });
        parts
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        match self.body {
            Body::Storage | Body::Textures => vec![("BLOCK", BLOCK)],
            Body::Texels => vec![("PIXELS", PIXELS), ("CHANNELS", CHANNELS)],
            Body::Tiles => vec![("TILE_M", TILE), ("TILE_N", TILE), ("DEPTH", DEPTH)],
        }
    }
    fn needs(&self) -> Needs {
        match self.body {
            Body::Storage | Body::Textures | Body::Texels => Needs::PLAIN,
            Body::Tiles => Needs {
                invocations: (TILE / PER) * (TILE / PER),
                workgroup_memory: 4 * 2 * (TILE + 4) * DEPTH,
                ..Needs::PLAIN
            },
        }
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        match self.body {
            Body::Storage => "storage",
            Body::Textures => "textures",
            Body::Texels => "register tiles, textures",
            Body::Tiles => "register tiles",
        }
        .into()
    }
}
