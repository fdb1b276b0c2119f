//! Shader numerics by property, on the adapter that `PENTIMENTO_ADAPTER` names.
mod agree;
mod attention;
mod bisect;
mod coverage;
mod double;
mod fusion;
mod gradients;
mod harness;
mod images;
mod large;
mod linear;
mod properties;
mod random;
mod refusal;
mod summary;
mod together;
