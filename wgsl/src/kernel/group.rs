//! Group norms among workgroups: images of many pixels in few groups, a workgroup for each part of a group. One command makes
//! the parts' moments, a second one puts them together and writes. The planner takes both in place of one of [`super::norm`]'s.
use super::family::{Accuracy, Built, Calls, Rounding};
use super::{Abilities, Binding, Needs, Operand, Rows, Source, indices, part, storage};
use crate::{Real, cpu};
use alloc::{string::String, vec, vec::Vec};

uniform! {
    /// Parameters of `shader/group.wgsl`; x, y: `[B, HW, C]`.
    Params {
        /// Images times groups times parts.
        rows: u32,
        /// Parts of a group; at most [`PARTS`].
        parts: u32,
        /// Pixels of a part; of the last one what is left.
        part: u32,
        /// Channels.
        c: u32,
        /// Groups of channels.
        groups: u32,
        /// Pixels of an image.
        hw: u32,
        /// Added to variances.
        eps: f32,
        /// Activation ([`super::Act`]).
        mode: u32,
    }
}

/// The kernels of this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// x; stats.
    Stats,
    /// x, w, shift, stats; y.
    Apply,
    /// x, w, dy; stats.
    StatsBackward,
    /// x, w, dy, stats; dx.
    ApplyBackward,
}
use Kernel::*;

/// A kernel of this family with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// Which one.
    pub kernel: Kernel,
    /// Its parameters.
    pub params: Params,
}

/// A kernel of this family as it is built: one body.
pub type Variant = Kernel;

/// Invocations of a workgroup, and most parts: each is put together by an invocation.
pub const PARTS: u32 = 256;
/// Least numbers of a part.
const LEAST: u32 = 1024;
/// Workgroups that fill a GPU.
const FILL: u32 = 1024;

impl Params {
    /// `rows` (images times groups) in parts, where there are too few of them and they are long.
    pub(super) fn of(norm: &super::norm::Params) -> Option<Params> {
        let super::norm::Params { rows, c, groups, hw, eps, mode, .. } = *norm;
        let per = c / groups.max(1);
        let parts = (hw.saturating_mul(per) / LEAST).min(FILL / rows.max(1)).min(PARTS);
        if parts < 2 {
            return None;
        }
        let part = hw.div_ceil(parts);
        let parts = hw.div_ceil(part);
        Some(Params { rows: rows * parts, parts, part, c, groups, hw, eps, mode })
    }
    /// Numbers of a row's stats.
    fn each(kernel: Kernel) -> usize {
        match kernel {
            Stats | Apply => 2,
            StatsBackward | ApplyBackward => 4,
        }
    }
}

impl Call {
    /// Numbers of all rows' stats.
    pub fn stats(&self) -> usize {
        self.params.rows as usize * Params::each(self.kernel)
    }
}

impl Calls for Call {
    type Variant = Variant;
    fn kernel(&self) -> &'static str {
        Built::kernel(&self.kernel)
    }
    fn words(&self) -> Vec<u32> {
        self.params.words()
    }
    fn ranked(&self, _: &[Operand], _: &Abilities) -> Vec<Variant> {
        vec![self.kernel]
    }
    fn groups(&self, _: &Variant) -> usize {
        self.params.rows as usize
    }
    fn iterations(&self, v: &Variant) -> u64 {
        let [part, per] = [self.params.part, self.params.c / self.params.groups.max(1)].map(u64::from);
        let passes = match v {
            Stats | StatsBackward => 2,
            Apply | ApplyBackward => 1,
        };
        // And a tree for each of at most four sums.
        passes * (part * per).div_ceil(PARTS.into()) + 32
    }
    fn rows(&self) -> Option<Rows> {
        None
    }
    fn counted(&mut self) -> &mut u32 {
        &mut self.params.rows
    }
    fn terms(&self) -> usize {
        let [c, groups, hw] = indices([self.params.c, self.params.groups, self.params.hw]);
        hw * (c / groups.max(1))
    }
    fn accuracy(&self) -> Accuracy {
        Accuracy::Functions
    }
    fn twin<R: Real>(&self, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
        match self.kernel {
            Stats => cpu::group::stats(&self.params, inputs, outputs),
            Apply => cpu::group::apply(&self.params, inputs, outputs),
            StatsBackward => cpu::group::stats_backward(&self.params, inputs, outputs),
            ApplyBackward => cpu::group::apply_backward(&self.params, inputs, outputs),
        }
    }
}

impl Built for Variant {
    fn all() -> Vec<Self> {
        vec![Stats, Apply, StatsBackward, ApplyBackward]
    }
    fn kernel(&self) -> &'static str {
        match self {
            Stats => "group_stats",
            Apply => "group_apply",
            StatsBackward => "group_stats_backward",
            ApplyBackward => "group_apply_backward",
        }
    }
    fn entry(&self) -> &'static str {
        Built::kernel(self)
    }
    fn bindings(&self) -> Vec<(u32, Binding)> {
        match self {
            Stats => storage(&[1, 4]),
            StatsBackward => storage(&[1, 2, 3, 4]),
            Apply | ApplyBackward => storage(&[1, 2, 3, 4, 5]),
        }
    }
    fn outputs(&self) -> usize {
        1
    }
    fn parts(&self) -> Vec<Source> {
        vec![part!("shared/row_lanes.wgsl"), part!("shared/activation.wgsl"), part!("group.wgsl")]
    }
    fn constants(&self) -> Vec<(&'static str, u32)> {
        vec![("LANES", PARTS)]
    }
    fn needs(&self) -> Needs {
        Needs { invocations: PARTS, workgroup_memory: 4 * PARTS, ..Needs::PLAIN }
    }
    fn rounding(&self) -> Rounding {
        Rounding::None
    }
    fn body(&self) -> String {
        String::new()
    }
}
