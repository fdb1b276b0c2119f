//! The kernels of pentimento as data: WGSL sources, how they are linked into one shader, and for each a CPU twin
//! that computes the same thing with plain loops. This crate knows no GPU interface and does no I/O.
//!
//! A kernel takes a uniform block of 32-bit words, some inputs and one or two outputs. [`Kernel`] names the
//! operation, [`Variant`] says how it is built for one kind of adapter, [`link()`] gives its source and
//! [`twin`] its CPU version.
#![no_std]
extern crate alloc;

pub mod cpu;
pub mod kernel;
pub mod link;
pub mod variants;

pub use cpu::{Real, twin};
pub use kernel::{Binding, Class, Kernel, Variant, WeightType};
pub use link::link;
pub use variants::variants;
