//! Bodies of kernels whose invocations have nothing to do with each other: how many numbers each of them has.
use super::{Abilities, Class, Needs, Source, part};
use alloc::{string::String, vec, vec::Vec};

/// What an invocation moves, and how many make a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Items {
    /// One number, [`super::WORKGROUP`] invocations: CPU drivers.
    Single,
    /// One number, 256 invocations. On an NVIDIA H200, 49152 workgroups of 64 take 47 us whatever they do: elementwise kernels,
    /// copies and norms of short rows alike.
    Wide,
    /// Four neighbouring numbers, 256 invocations. On llvmpipe, too: what it does lane by lane is then done for four numbers.
    Four,
}

/// Invocations of a workgroup on GPUs.
const WIDE: u32 = 256;

impl Items {
    pub(super) const ALL: [Items; 3] = [Items::Single, Items::Wide, Items::Four];

    /// The best one; `fours`: whatever is moved together is a multiple of four numbers.
    pub(super) fn best(able: &Abilities, fours: bool) -> Items {
        match able.class {
            Class::Gpu | Class::Software if fours => Items::Four,
            Class::Gpu => Items::Wide,
            Class::Software => Items::Single,
        }
    }
    /// Numbers of an invocation.
    fn size(self) -> u32 {
        match self {
            Items::Single | Items::Wide => 1,
            Items::Four => 4,
        }
    }
    /// Workgroups for so many numbers.
    pub(super) fn groups(self, numbers: u32) -> usize {
        super::workgroups(numbers.div_ceil(self.size()) as usize, self.needs())
    }
    pub(super) fn part(self) -> Source {
        part!("shared/item.wgsl")
    }
    pub(super) fn constants(self) -> Vec<(&'static str, u32)> {
        vec![("ITEM", self.size())]
    }
    pub(super) fn needs(self) -> Needs {
        match self {
            Items::Single => Needs::PLAIN,
            Items::Wide | Items::Four => Needs { invocations: WIDE, ..Needs::PLAIN },
        }
    }
    pub(super) fn name(self) -> String {
        match self {
            Items::Single => "single numbers",
            Items::Wide => "single numbers, wide",
            Items::Four => "fours",
        }
        .into()
    }
}
