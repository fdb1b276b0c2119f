//! The networks and the algorithm against the libraries they follow: golden inputs in, golden outputs and gradients out,
//! on the CPU twins and on the adapter. `PENTIMENTO_GOLDENS` chooses the set.
mod common;
mod dino;
mod lora;
mod text;
mod text_cache;
mod tokenizers;
mod transformer;
mod vae;
