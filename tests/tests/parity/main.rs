//! The networks and the algorithm against the libraries they follow: golden inputs in, golden outputs and gradients out,
//! on the CPU twins and on the adapter. `PENTIMENTO_GOLDENS` chooses the set.
mod adapted;
mod clip_reward;
mod common;
mod contents;
mod dino;
mod gguf;
mod grpo;
mod head;
mod lora;
mod preprocess;
mod sampler;
mod single_file;
mod text;
mod text_cache;
mod tokenizers;
mod trace;
mod transformer;
mod vae;
