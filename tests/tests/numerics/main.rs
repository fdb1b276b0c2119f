//! Shader numerics by property, on the adapter that `PENTIMENTO_ADAPTER` names.
mod agree;
mod attention;
mod bisect;
mod common;
mod double;
mod fusion;
mod gradients;
mod harness;
mod linear;
mod properties;
mod random;
