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
    /// Operands are read from textures: CPU drivers.
    pub textures: bool,
}

/// Neighbouring pixels, and channels, of an invocation.
const BLOCK: u32 = 4;

impl Call {
    fn of(&self, textures: bool) -> Variant {
        match self {
            Call::Conv2d(_) => Variant { kernel: Kernel::Conv2d, textures },
            Call::Conv2dDx(_) => Variant { kernel: Kernel::Conv2dDx, textures },
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        self.of(false).kernel()
    }
    fn words(&self) -> Vec<u32> {
        match self {
            Call::Conv2d(p) => p.words(),
            Call::Conv2dDx(p) => p.words(),
        }
    }
    fn ranked(&self, inputs: &[Operand], able: &Abilities) -> Vec<Variant> {
        match able.class {
            Class::Gpu => vec![self.of(false)],
            Class::Software => {
                let staged = inputs[..2].iter().all(|x| able.stages(x)).then(|| self.of(true));
                staged.into_iter().chain([self.of(false)]).collect()
            }
        }
    }
    fn groups(&self, v: &Variant) -> usize {
        let invocations = |batch: u32, h: u32, w: u32, c: u32| {
            let [batch, h, across, blocks] = indices([batch, h, w.div_ceil(BLOCK), c.div_ceil(BLOCK)]);
            batch * h * across * blocks
        };
        let invocations = match self {
            Call::Conv2d(p) => invocations(p.batch, p.ho, p.wo, p.o),
            Call::Conv2dDx(p) => invocations(p.batch, p.h, p.w, p.c),
        };
        workgroups(invocations, v.needs())
    }
    fn iterations(&self, Variant { kernel: _, textures: false | true }: &Variant) -> u64 {
        let taps =
            |kh: u32, kw: u32, blocks: u32| u64::from(kh) * (1 + u64::from(kw) * (1 + u64::from(blocks)));
        match self {
            Call::Conv2d(p) => taps(p.kh, p.kw, p.c / BLOCK),
            Call::Conv2dDx(p) => taps(p.kh, p.kw, p.o.div_ceil(BLOCK)),
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
        let both = |textures| [Kernel::Conv2d, Kernel::Conv2dDx].map(|kernel| Variant { kernel, textures });
        [false, true].into_iter().flat_map(both).collect()
    }
    fn kernel(&self) -> &'static str {
        match self.kernel {
            Kernel::Conv2d => "conv2d",
            Kernel::Conv2dDx => "conv2d_dx",
        }
    }
    fn entry(&self) -> &'static str {
        self.kernel()
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        let plain = match self.kernel {
            Kernel::Conv2d => 3,
            Kernel::Conv2dDx => 1,
        };
        let staged = [Binding::staged(self.textures); 2].into_iter();
        let plain = core::iter::repeat_n(Binding::Storage, plain);
        staged.chain(plain).zip(1..).map(|(kind, n)| (n, kind)).collect()
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        let mut parts = if self.textures {
            vec![part!("shared/texel.wgsl"), part!("load/conv_texture.wgsl")]
        } else {
            vec![part!("load/conv_storage.wgsl")]
        };
        parts.push(match self.kernel {
            Kernel::Conv2d => part!("conv2d.wgsl"),
            Kernel::Conv2dDx => part!("conv2d_dx.wgsl"),
        });
        parts
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        vec![("BLOCK", BLOCK)]
    }
    fn needs(&self) -> Needs {
        Needs::PLAIN
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        if self.textures { "textures".into() } else { "storage".into() }
    }
}
