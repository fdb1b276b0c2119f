//! The kernels of pentimento as data: WGSL sources, how they are linked into one shader, and for each a CPU twin
//! that computes the same thing with plain loops. This crate knows no GPU interface and does no I/O.
//!
//! A kernel takes a uniform block of 32-bit words, some inputs and one or two outputs. [`Call`] is a kernel with its
//! parameters, [`Variant`] says how it is built for one kind of adapter, [`link()`] gives its source and [`twin`] runs a
//! call on the CPU. [`kernel`] has a room for every family of kernels.
#![no_std]
extern crate alloc;

pub mod cpu;
mod expand;
pub mod kernel;
pub mod link;
pub mod together;

pub use cpu::Real;
pub use kernel::{Binding, Call, Class, Stored, Variant, kernels, twin, variants};
pub use link::link;
pub use together::link_together;
