//! Shader numerics by property, on the adapter that `PENTIMENTO_ADAPTER` names.
mod agree;
mod common;
mod coverage;
mod gradients;
mod large;
mod properties;
mod refusal;
mod summary;
