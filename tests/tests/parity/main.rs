//! The networks and the algorithm against the libraries they follow: golden inputs in, golden outputs and gradients out,
//! on the CPU twins and on the adapter. `PENTIMENTO_GOLDENS` chooses the set.
mod common;
mod contents;
mod dino;
mod gguf;
mod lora;
mod single_file;
mod text;
mod transformer;
mod vae;
