//! Kernels by family. A [`Call`] is a kernel with its parameters, a [`Variant`] a kernel with the body that it is built
//! with. Each family has a room, `kernel/FAMILY.rs`, that answers everything about its calls and bodies; what there is
//! to answer stands in `kernel/family.rs`.
#[macro_use]
mod uniform;
mod ability;
pub mod attention;
pub mod blocks;
pub mod conv;
pub mod copy;
mod cut;
pub mod elementwise;
mod family;
pub mod group;
mod items;
pub mod matmul;
pub mod norm;
pub mod philox;
mod stored;
pub mod sum;

pub use ability::{Abilities, Class, Features, Matrix, Needs, Operand};
pub use cut::{Part, Rows};
pub use elementwise::{Act, Binary, Unary};
pub use family::{Accuracy, Rounding};
pub use items::Items;
pub use stored::{BLOCKS, PLAIN, Plain, Stored};
pub use uniform::indices;

use crate::Real;
use alloc::{string::String, vec::Vec};
use family::{Built, Calls};

/// Invocations of a workgroup, of every body that does not ask for another number.
pub const WORKGROUP: u32 = 64;
/// Texels of a row of a staging texture, as in `shader/shared/texel.wgsl`.
pub const TEXELS: u32 = 1024;
/// Numbers of a row of a staging texture.
pub const TEXTURE_ROW: usize = 4 * TEXELS as usize;

/// How an argument is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// f32 storage, always `read_write`: one arena may then serve inputs and outputs of the same dispatch.
    Storage,
    /// Packed words, `read`; lives in a buffer of its own.
    Packed(Stored),
    /// Packed words that are written; in a buffer that no other argument lies in.
    Written(Stored),
    /// An f32 tensor staged in a storage texture that is only read, [`TEXTURE_ROW`] numbers a row.
    Texture,
}

impl Binding {
    /// A tensor in a buffer.
    const fn of(stored: Stored) -> Self {
        if stored.packed() { Binding::Packed(stored) } else { Binding::Storage }
    }
    /// A staged or a plain f32 tensor.
    const fn staged(texture: bool) -> Self {
        if texture { Binding::Texture } else { Binding::Storage }
    }
    /// Bytes of a buffer's binding that `len` numbers take; 0 for a texture.
    pub const fn bytes(self, len: usize) -> usize {
        match self {
            Binding::Storage => Stored::F32.bytes(len),
            Binding::Packed(stored) | Binding::Written(stored) => stored.bytes(len),
            Binding::Texture => 0,
        }
    }
}

/// Plain f32 storage under these numbers.
fn storage(numbers: &[u32]) -> Vec<(u32, Binding)> {
    numbers.iter().map(|&n| (n, Binding::Storage)).collect()
}

/// File name and text of a part of a shader.
pub type Source = (&'static str, &'static str);

macro_rules! part {
    ($path:literal) => {
        ($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shader/", $path)))
    };
}
use part;

/// Workgroups of `invocations`.
fn workgroups(invocations: usize, needs: Needs) -> usize {
    invocations.div_ceil(needs.invocations as usize)
}

/// The enums of all families, and who answers what.
macro_rules! families {
    ($($(#[$doc:meta])* $Family:ident: $room:ident,)*) => {
        /// A kernel with its parameters.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub enum Call { $($(#[$doc])* $Family($room::Call),)* }

        /// A kernel as it is built: equal variants share one pipeline.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Variant { $($(#[$doc])* $Family($room::Variant),)* }

        impl Call {
            /// The kernel's name.
            pub fn kernel(&self) -> &'static str {
                match self { $(Call::$Family(c) => Calls::kernel(c),)* }
            }
            /// Words of the uniform block but for the last one, the first workgroup of a dispatch.
            pub fn words(&self) -> Vec<u32> {
                match self { $(Call::$Family(c) => Calls::words(c),)* }
            }
            /// Bodies that compute this on adapters with these abilities, best first: take the first one whose needs are
            /// met and whose loops end in time.
            pub fn ranked(&self, inputs: &[Operand], able: &Abilities) -> Vec<Variant> {
                match self {
                    $(Call::$Family(c) => c.ranked(inputs, able).into_iter().map(Variant::$Family).collect(),)*
                }
            }
            /// Workgroups; more than any dispatch holds for a variant of another kernel.
            pub fn groups(&self, v: &Variant) -> usize {
                match self {
                    $(Call::$Family(c) => {
                        let Variant::$Family(v) = v else { return usize::MAX };
                        c.groups(v)
                    })*
                }
            }
            /// Iterations of all loops of one invocation, but for the few that count registers; endless for a variant of another
            /// kernel.
            pub fn iterations(&self, v: &Variant) -> u64 {
                match self {
                    $(Call::$Family(c) => {
                        let Variant::$Family(v) = v else { return u64::MAX };
                        c.iterations(v)
                    })*
                }
            }
            /// How the call can be cut; `None` where it cannot.
            pub fn rows(&self) -> Option<Rows> {
                match self { $(Call::$Family(c) => c.rows(),)* }
            }
            /// The parameter that counts the rows.
            pub fn counted(&mut self) -> &mut u32 {
                match self { $(Call::$Family(c) => c.counted(),)* }
            }
            /// Terms of the longest sum behind one number of the result; at least 1.
            pub fn terms(&self) -> usize {
                match self { $(Call::$Family(c) => c.terms().max(1),)* }
            }
            /// How exact the outputs are.
            pub fn accuracy(&self) -> Accuracy {
                match self { $(Call::$Family(c) => c.accuracy(),)* }
            }
        }

        impl Variant {
            /// The kernel's name.
            pub fn kernel(&self) -> &'static str {
                match self { $(Variant::$Family(v) => v.kernel(),)* }
            }
            /// WGSL entry point.
            pub fn entry(&self) -> &'static str {
                match self { $(Variant::$Family(v) => v.entry(),)* }
            }
            /// Binding number and kind of each argument: inputs in the twin's order, then outputs.
            pub fn bindings(&self) -> Vec<(u32, Binding)> {
                match self { $(Variant::$Family(v) => v.bindings(),)* }
            }
            /// How many of the arguments are outputs; they come last.
            pub fn outputs(&self) -> usize {
                match self { $(Variant::$Family(v) => v.outputs(),)* }
            }
            /// Parts of the shader beside `shared/index.wgsl`, in linking order.
            pub(crate) fn parts(&self) -> Vec<Source> {
                match self { $(Variant::$Family(v) => v.parts(),)* }
            }
            /// Constants of the prelude beside `WORKGROUP`.
            pub(crate) fn constants(&self) -> Vec<(&'static str, u32)> {
                match self { $(Variant::$Family(v) => v.constants(),)* }
            }
            /// What it needs of an adapter.
            pub fn needs(&self) -> Needs {
                match self { $(Variant::$Family(v) => v.needs(),)* }
            }
            /// What it does to the operands of its products.
            pub fn rounding(&self) -> Rounding {
                match self { $(Variant::$Family(v) => v.rounding(),)* }
            }
            /// The body in a few words; empty where there is only one.
            pub fn body(&self) -> String {
                match self { $(Variant::$Family(v) => v.body(),)* }
            }
        }

        /// Runs a call on the CPU. `inputs` follow [`Variant::bindings`] (an empty slice for an unused optional one),
        /// `outputs` have their final length.
        pub fn twin<R: Real>(call: &Call, inputs: &[&[R]], outputs: &mut [Vec<R>]) {
            match call { $(Call::$Family(c) => c.twin(inputs, outputs),)* }
        }

        /// Every variant that a planner can ask for: what tests of all shaders walk through.
        pub fn variants() -> Vec<Variant> {
            let mut all = Vec::new();
            $(all.extend($room::Variant::all().into_iter().map(Variant::$Family));)*
            all
        }
    };
}

families! {
    /// Elementwise functions of one and two arguments.
    Elementwise: elementwise,
    /// Sums over a middle axis.
    Sum: sum,
    /// Operations that only move numbers.
    Copy: copy,
    /// Normalisations and softmax.
    Norm: norm,
    /// Group norms among workgroups.
    Group: group,
    /// Matrix products with an epilogue.
    Matmul: matmul,
    /// Quantised weights, written out.
    Blocks: blocks,
    /// Attention and its backward passes.
    Attention: attention,
    /// Convolutions.
    Conv: conv,
    /// Random words.
    Philox: philox,
}

/// Names of all kernels, each once.
pub fn kernels() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = variants().iter().map(Variant::kernel).collect();
    names.dedup();
    names
}
