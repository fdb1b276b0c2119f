//! pentimento: runs SD3-family flow transformers and trains LoRA adapters for them on any GPU wgpu reaches.
#![no_std]
#![warn(missing_docs)]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod caps;
pub mod error;
pub mod exec;
#[cfg(feature = "std")]
pub mod file;
pub mod fingerprint;
#[cfg(feature = "std")]
pub mod folder;
mod fuse;
mod gguf;
pub mod grad;
pub mod graph;
pub mod layout;
pub mod model;
#[cfg(feature = "std")]
pub mod mount;
mod op;
#[cfg(feature = "std")]
pub mod pipeline;
pub mod plan;
pub mod rng;
pub mod room;
pub mod sampler;
pub mod schedule;
pub mod shown;
pub mod text;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};
pub use shown::shown;
