//! Normalisations and softmax: a row is reduced, then written.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{
    Abilities, Binding, Class, Needs, Operand, Part, Rows, Source, WORKGROUP, group, indices, part, storage,
};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

uniform! {
    /// Parameters of `shader/norm.wgsl`, for all its kernels.
    Params {
        /// Rows; images times groups for group norms.
        rows: u32,
        /// Numbers of a row; channels for group norms.
        c: u32,
        /// Added to variances and mean squares.
        eps: f32,
        /// Layer norm: 1 modulated, 2 affine. Group norm: activation ([`super::Act`]).
        mode: u32,
        /// Rows that share a modulation.
        rows_per_batch: u32,
        /// Groups of channels.
        groups: u32,
        /// Pixels of an image.
        hw: u32,
        /// Factor of softmax's argument.
        scale: f32,
    }
}

/// The kernels of this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// x, w, shift; y.
    LayerNorm,
    /// x, dy; dx.
    LayerNormBackward,
    /// x, w; y.
    RmsNorm,
    /// x, w, dy; dx.
    RmsNormBackward,
    /// x; y.
    Softmax,
    /// y, dy; dx.
    SoftmaxBackward,
    /// x, w, shift; y.
    GroupNorm,
    /// x, w, dy; dx.
    GroupNormBackward,
}
use Kernel::*;

const KERNELS: [Kernel; 8] = [
    LayerNorm,
    LayerNormBackward,
    RmsNorm,
    RmsNormBackward,
    Softmax,
    SoftmaxBackward,
    GroupNorm,
    GroupNormBackward,
];

/// A kernel of this family with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// Which one.
    pub kernel: Kernel,
    /// Its parameters.
    pub params: Params,
}

/// Who reduces a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// One workgroup; sums by a tree.
    Shared,
    /// As `Shared`, a workgroup of 256 invocations: long rows on GPUs.
    Wide,
    /// 16 invocations of a workgroup of 256: short rows on GPUs, for which small workgroups are too many ([`super::Items::Wide`]).
    Several,
    /// One invocation: on a CPU driver barriers cost more than they share.
    Serial,
    /// As `Serial`, four numbers at a time, because llvmpipe's loads and stores cost by the instruction.
    Fours,
}

/// Invocations of a workgroup on GPUs, where rows are long or short.
const WIDE: u32 = 256;
/// Invocations of a short row.
const FEW: u32 = 16;
/// The longest row that is short, the shortest that is long.
const SHORT: usize = 256;
const LONG: usize = 1024;

impl Body {
    /// Invocations of a workgroup.
    fn invocations(self) -> u32 {
        match self {
            Body::Shared | Body::Serial | Body::Fours => WORKGROUP,
            Body::Wide | Body::Several => WIDE,
        }
    }
    /// Invocations of a row.
    fn lanes(self) -> u32 {
        match self {
            Body::Shared | Body::Wide => self.invocations(),
            Body::Several => FEW,
            Body::Serial | Body::Fours => 1,
        }
    }
    /// Numbers that are read together.
    fn item(self) -> u32 {
        match self {
            Body::Shared | Body::Wide | Body::Several | Body::Serial => 1,
            Body::Fours => 4,
        }
    }
}

/// A kernel of this family as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Which one.
    pub kernel: Kernel,
    /// How.
    pub body: Body,
}

impl Kernel {
    /// Times that a row is read.
    fn passes(self) -> u64 {
        match self {
            LayerNormBackward | GroupNormBackward => 4,
            LayerNorm | Softmax | GroupNorm => 3,
            RmsNorm | RmsNormBackward | SoftmaxBackward => 2,
        }
    }
}

impl Call {
    /// Numbers that are reduced together.
    fn row(&self) -> usize {
        let [c, groups, hw] = indices([self.params.c, self.params.groups, self.params.hw]);
        match self.kernel {
            GroupNorm | GroupNormBackward => hw * (c / groups.max(1)),
            LayerNorm | LayerNormBackward | RmsNorm | RmsNormBackward | Softmax | SoftmaxBackward => c,
        }
    }
}

impl Call {
    /// A group norm as two commands over parts of its groups, where its rows are long and too few to fill a GPU.
    pub fn parted(&self, v: &Variant) -> Option<[group::Call; 2]> {
        let kernels = match (self.kernel, v.body) {
            (GroupNorm, Body::Wide) => [group::Kernel::Stats, group::Kernel::Apply],
            (GroupNormBackward, Body::Wide) => [group::Kernel::StatsBackward, group::Kernel::ApplyBackward],
            _ => return None,
        };
        let params = group::Params::of(&self.params)?;
        Some(kernels.map(|kernel| group::Call { kernel, params }))
    }
    /// Numbers that lie side by side are multiples of four.
    fn fours(&self) -> bool {
        let Params { c, groups, .. } = self.params;
        match self.kernel {
            GroupNorm | GroupNormBackward => c.is_multiple_of(4 * groups.max(1)),
            LayerNorm | LayerNormBackward | RmsNorm | RmsNormBackward | Softmax | SoftmaxBackward => {
                c.is_multiple_of(4)
            }
        }
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        Variant { kernel: self.kernel, body: Body::Shared }.kernel()
    }
    fn words(&self) -> Vec<u32> {
        self.params.words()
    }
    fn ranked(&self, _: &[Operand], able: &Abilities) -> Vec<Variant> {
        let of = |body| Variant { kernel: self.kernel, body };
        match able.class {
            Class::Gpu if self.row() <= SHORT => vec![of(Body::Several)],
            Class::Gpu if self.row() < LONG => vec![of(Body::Shared)],
            Class::Gpu => vec![of(Body::Wide)],
            // Long rows, which a driver would stop, are shared.
            Class::Software => {
                let fours = self.fours().then_some(Body::Fours);
                fours.into_iter().chain([Body::Serial, Body::Shared]).map(of).collect()
            }
        }
    }
    fn groups(&self, v: &Variant) -> usize {
        (self.params.rows as usize * v.body.lanes() as usize).div_ceil(v.body.invocations() as usize)
    }
    fn iterations(&self, v: &Variant) -> u64 {
        self.kernel.passes() * (self.row() as u64).div_ceil((v.body.lanes() * v.body.item()).into())
    }
    /// By rows; group norms by images.
    fn rows(&self) -> Option<Rows> {
        use Part::{Group, Rows as Row, Whole};
        let p = &self.params;
        let [rows, c, groups, hw, per] = indices([p.rows, p.c, p.groups, p.hw, p.rows_per_batch]);
        let (image, images) = (hw * c, rows / groups.max(1));
        match self.kernel {
            LayerNorm => {
                let w = if p.mode == 1 { Group { rows: per, len: c } } else { Whole };
                Rows::new(rows, 1, [Row(c), w, w, Row(c)])
            }
            LayerNormBackward | SoftmaxBackward => Rows::new(rows, 1, [Row(c); 3]),
            RmsNorm => Rows::new(rows, 1, [Row(c), Whole, Row(c)]),
            RmsNormBackward => Rows::new(rows, 1, [Row(c), Whole, Row(c), Row(c)]),
            Softmax => Rows::new(rows, 1, [Row(c); 2]),
            GroupNorm => Rows::new(images, groups, [Row(image), Whole, Whole, Row(image)]),
            GroupNormBackward => Rows::new(images, groups, [Row(image), Whole, Row(image), Row(image)]),
        }
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.params.rows
    }
    fn terms(&self) -> usize {
        self.row()
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Functions
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        let p = &self.params;
        match self.kernel {
            LayerNorm => cpu::norm::layer_norm(p, inputs, outputs),
            LayerNormBackward => cpu::norm::layer_norm_backward(p, inputs, outputs),
            RmsNorm => cpu::norm::rms_norm(p, inputs, outputs),
            RmsNormBackward => cpu::norm::rms_norm_backward(p, inputs, outputs),
            Softmax => cpu::norm::softmax(p, inputs, outputs),
            SoftmaxBackward => cpu::norm::softmax_backward(p, inputs, outputs),
            GroupNorm => cpu::norm::group_norm(p, inputs, outputs),
            GroupNormBackward => cpu::norm::group_norm_backward(p, inputs, outputs),
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        let bodies = |kernel| {
            [Body::Shared, Body::Wide, Body::Several, Body::Serial, Body::Fours]
                .map(|body| Variant { kernel, body })
        };
        KERNELS.into_iter().flat_map(bodies).collect()
    }
    fn kernel(&self) -> &'static str {
        match self.kernel {
            LayerNorm => "layer_norm",
            LayerNormBackward => "layer_norm_backward",
            RmsNorm => "rms_norm",
            RmsNormBackward => "rms_norm_backward",
            Softmax => "softmax",
            SoftmaxBackward => "softmax_backward",
            GroupNorm => "group_norm",
            GroupNormBackward => "group_norm_backward",
        }
    }
    fn entry(&self) -> &'static str {
        self.kernel()
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        match self.kernel {
            LayerNormBackward | RmsNorm | SoftmaxBackward => storage(&[1, 2, 4]),
            LayerNorm | RmsNormBackward | GroupNorm | GroupNormBackward => storage(&[1, 2, 3, 4]),
            Softmax => storage(&[1, 4]),
        }
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        let rows = match self.body {
            Body::Shared | Body::Wide | Body::Several => part!("shared/row_lanes.wgsl"),
            Body::Serial | Body::Fours => part!("shared/row_serial.wgsl"),
        };
        vec![rows, part!("shared/item.wgsl"), part!("norm.wgsl")]
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        vec![("LANES", self.body.lanes()), ("ITEM", self.body.item())]
    }
    fn needs(&self) -> Needs {
        let invocations = self.body.invocations();
        let workgroup_memory = match self.body {
            Body::Shared | Body::Wide | Body::Several => 4 * invocations,
            Body::Serial | Body::Fours => 0,
        };
        Needs { invocations, workgroup_memory, ..Needs::PLAIN }
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        match self.body {
            Body::Shared => "shared rows",
            Body::Wide => "shared rows, wide",
            Body::Several => "several rows",
            Body::Serial => "serial rows",
            Body::Fours => "serial rows, fours",
        }
        .into()
    }
}
