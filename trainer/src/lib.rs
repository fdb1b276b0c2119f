//! pentimento-trainer: personalises an SD3-family flow transformer to a few reference images.
//!
//! References go in ([`references`]), a LoRA adapter comes out ([`adapter`]); between them lies Adv-GRPO (arXiv
//! 2511.20256): images are sampled for each prompt, a small head over frozen features learns to tell them from the
//! references, and its score is the reward. Files are only ever replaced whole ([`files`]).
#![warn(missing_docs)]

pub mod adapted;
pub mod adapter;
pub mod advantage;
mod archive;
pub mod config;
pub mod estimate;
pub mod files;
pub mod host;
pub mod images;
mod machine;
pub mod objective;
pub mod optim;
pub mod pipeline_cache;
pub mod preprocess;
pub mod recipe;
pub mod references;
mod resize;
pub mod reward;
pub mod settings;
pub mod spread;
pub mod stage;
pub mod texts;
pub mod train;

pub use pentimento_runtime::{Error, Result};
