//! C interface of pentimento: what a C program sees, by handle, in the order of include/pentimento.h, which cbindgen makes from it; the
//! rules that hold for all functions are in `cbindgen.toml`.
#![allow(non_camel_case_types, reason = "these are the names C sees")]
#![allow(clippy::missing_safety_doc, reason = "one set of rules for all functions heads the header")]

mod context;
mod guard;
mod handles;
mod image;
mod job;
mod model;
mod pipeline;
mod settings;
mod shared;
mod spread;
mod trainer;
mod types;
mod vulkan;

pub(crate) use types::pmt_status;

/// Version of this header's functions and structures. Compare it with `pmt_abi_version` when linking dynamically. It
/// changes only when a program built for the old one would break: new functions, and new fields at the end of
/// structures, keep it.
pub const PMT_ABI_VERSION: u32 = 2;
