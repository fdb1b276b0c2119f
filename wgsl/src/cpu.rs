//! CPU twins: each kernel again, in plain indexed loops, to be read beside its shader. Sums are kept in f64 so
//! that a twin is the more exact of the two. Tensors are f32, as on the device, or f64 ([`Real`]).
// Plain indexed loops on purpose: a twin is read beside its shader.
#![allow(clippy::needless_range_loop)]
pub(crate) mod attention;
pub(crate) mod binary;
pub(crate) mod conv2d;
pub(crate) mod copy;
pub(crate) mod group;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod philox;
mod real;
pub(crate) mod sum;
pub(crate) mod unary;

pub use philox::philox4x32_10;
pub use real::Real;
pub use unary::{activate, activate_slope};
