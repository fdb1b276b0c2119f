//! Shader numerics by property, on the adapter that `PENTIMENTO_ADAPTER` names.
mod agree;
mod bisect;
mod common;
mod gradients;
mod properties;
