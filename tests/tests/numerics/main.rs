//! Shader numerics by property, on the adapter that `PENTIMENTO_ADAPTER` names.
mod agree;
mod common;
mod gradients;
mod properties;
mod summary;
