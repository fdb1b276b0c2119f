//! A model as large as SD3.5-medium that takes no room: its files have the real headers, and holes in place of the numbers.
use crate::scratch::{Scratch, copy};
use pentimento_runtime::exec::Need;
use pentimento_runtime::graph::Layout;
use pentimento_runtime::model::contents::{self, Needs};
use pentimento_runtime::model::{clip, dino, mmdit, t5, vae};
use pentimento_runtime::weights::DType;
use pentimento_trainer::images::Picture;
use pentimento_trainer::references::Reference;
use pentimento_trainer::train::Setup;
use pentimento_wgsl::kernel::Act;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Whole SD3.5-medium with T5-XXL, and DINOv2-base as its reward; tokenizers are the fixtures', which are smaller.
pub struct Hollow {
    folder: Scratch,
    /// Two.
    pub references: Vec<Reference>,
    /// Three.
    pub prompts: Vec<String>,
}

impl Hollow {
    /// Writes it; `name` tells it from others of the same process. `side`: of the references, pixels.
    pub fn new(name: &str, side: u32) -> Self {
        let folder = Scratch::new(name);
        whole(&folder.0);
        let picture = Picture::new(1, 1, vec![90; 3]).expect("a picture");
        let reference = |caption| Reference::new(caption, Some(caption), &picture, side, side);
        let references = ["a cat", "two dogs"].map(|c| reference(c).expect("a reference")).to_vec();
        let prompts = ["a cat", "two dogs", "a tree"].map(String::from).to_vec();
        Hollow { folder, references, prompts }
    }
    /// The model whose transformer's blocks are stored so: a folder in f16, a single GGUF file otherwise.
    pub fn model(&self, stored: DType) -> PathBuf {
        if stored == DType::F16 {
            return self.folder.0.clone();
        }
        let file = self.folder.0.join(format!("{stored}.gguf"));
        if !file.exists() {
            gguf(
                &file,
                &tensors(contents::transformer(&mmdit::MmditConfig::sd35_medium()), |name, shape| {
                    // As files of quantised models have it: the blocks' matrices, nothing else.
                    let block = name.starts_with("transformer_blocks.") && shape.len() == 2;
                    if block { stored } else { DType::F16 }
                }),
            );
        }
        file
    }
    /// A training of a model.
    pub fn setup<'a>(&'a self, model: &'a Path) -> Setup<'a> {
        Setup {
            model,
            config: None,
            reward: None,
            references: &self.references,
            prompts: &self.prompts,
            text_cache: None,
        }
    }
}

/// The folder in diffusers' layout.
fn whole(folder: &Path) {
    let tokenizer = |name: &str, from: &str| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/text/tiny_tokenizers");
        copy(&fixtures.join(from), &folder.join(name));
    };
    tokenizer("tokenizer", "clip_l");
    tokenizer("tokenizer_2", "clip_g");
    tokenizer("tokenizer_3", "t5");
    let (model, images) = ("model.safetensors", "diffusion_pytorch_model.safetensors");
    let part =
        |name: &str, file: &str, config: Value, needs: pentimento_runtime::Result<Needs>, stored: DType| {
            let folder = folder.join(name);
            fs::create_dir(&folder).expect("a folder");
            fs::write(folder.join("config.json"), config.to_string()).expect("a file");
            safetensors(&folder.join(file), &tensors(needs, |_, _| stored));
        };
    let m = mmdit::MmditConfig::sd35_medium();
    part("transformer", images, transformer(&m), contents::transformer(&m), DType::F16);
    let v = vae::VaeConfig::sd3();
    part("vae", images, autoencoder(&v), contents::autoencoder(&v), DType::F16);
    for (name, c) in
        [("text_encoder", clip::ClipConfig::clip_l()), ("text_encoder_2", clip::ClipConfig::clip_g())]
    {
        part(name, model, text(&c), contents::text_encoder(&c), DType::F16);
    }
    let t = t5::T5Config::xxl();
    part("text_encoder_3", model, t5_text(&t), contents::t5_encoder(&t), DType::F16);
    let d = dino::DinoConfig::base();
    part("reward", model, backbone(&d), contents::backbone(&d), DType::F32);

    fs::create_dir(folder.join("scheduler")).expect("a folder");
    let schedule = json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0 });
    fs::write(folder.join("scheduler/scheduler_config.json"), schedule.to_string()).expect("a file");
    let parts = [
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "tokenizer",
        "tokenizer_2",
        "tokenizer_3",
        "scheduler",
    ];
    let index: Map<String, Value> =
        parts.map(|p| (p.to_string(), json!(["library", "class"]))).into_iter().collect();
    fs::write(folder.join("model_index.json"), Value::from(index).to_string()).expect("a file");
}

fn transformer(c: &mmdit::MmditConfig) -> Value {
    json!({
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": c.patch_size,
        "in_channels": c.in_channels,
        "out_channels": c.out_channels,
        "num_layers": c.num_layers,
        "attention_head_dim": c.attention_head_dim,
        "num_attention_heads": c.num_attention_heads,
        "joint_attention_dim": c.joint_attention_dim,
        "caption_projection_dim": c.width(),
        "pooled_projection_dim": c.pooled_projection_dim,
        "pos_embed_max_size": c.pos_embed_max_size,
        "dual_attention_layers": c.dual_attention_layers,
        "qk_norm": c.qk_norm.then_some("rms_norm"),
    })
}

fn autoencoder(c: &vae::VaeConfig) -> Value {
    json!({
        "_class_name": "AutoencoderKL",
        "block_out_channels": c.block_out_channels,
        "layers_per_block": c.layers_per_block,
        "latent_channels": c.latent_channels,
        "norm_num_groups": c.norm_num_groups,
        "use_quant_conv": c.use_quant_conv,
        "use_post_quant_conv": c.use_post_quant_conv,
        "scaling_factor": c.scaling_factor,
        "shift_factor": c.shift_factor,
    })
}

fn text(c: &clip::ClipConfig) -> Value {
    json!({
        "model_type": "clip_text_model",
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "projection_dim": c.projection_dim,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "max_position_embeddings": c.max_position_embeddings,
        "hidden_act": if c.hidden_act == Act::Gelu { "gelu" } else { "quick_gelu" },
        "eos_token_id": c.eos_token_id,
    })
}

fn t5_text(c: &t5::T5Config) -> Value {
    json!({
        "model_type": "t5",
        "feed_forward_proj": "gated-gelu",
        "vocab_size": c.vocab_size,
        "d_model": c.d_model,
        "d_kv": c.d_kv,
        "d_ff": c.d_ff,
        "num_layers": c.num_layers,
        "num_heads": c.num_heads,
    })
}

fn backbone(c: &dino::DinoConfig) -> Value {
    json!({
        "model_type": "dinov2",
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "image_size": c.image_size,
        "patch_size": c.patch_size,
    })
}

/// A tensor that a file lists.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    stored: DType,
    bytes: usize,
}

/// What a network reads, by name, as a checkpoint of it has it.
fn tensors(
    needs: pentimento_runtime::Result<Needs>,
    stored: impl Fn(&str, &[usize]) -> DType,
) -> Vec<Tensor> {
    let one = |(name, need): (String, Need)| {
        let mut shape = need.stored_shape();
        if need.layout == Layout::Patch {
            shape.extend([1, 1]); // a convolution of as many numbers, and its side is not asked for
        }
        let stored = stored(&name, &shape);
        let bytes = stored.bytes(shape.iter().product()).expect("whole blocks");
        Tensor { name, shape, stored, bytes }
    };
    needs.expect("a network").into_iter().map(one).collect()
}

/// A file that begins with a header and is holes from there on.
fn hollow(path: &Path, header: &[u8], data: usize) {
    let mut file = File::create(path).expect("a file");
    file.write_all(header).expect("a header");
    file.set_len((header.len() + data) as u64).expect("holes");
}

fn safetensors(path: &Path, tensors: &[Tensor]) {
    let mut end = 0;
    let entry = |t: &Tensor| {
        let kind = if t.stored == DType::F32 { "F32" } else { "F16" };
        let start = end;
        end += t.bytes;
        (t.name.clone(), json!({ "dtype": kind, "shape": t.shape, "data_offsets": [start, end] }))
    };
    let entries: Map<String, Value> = tensors.iter().map(entry).collect();
    let mut json = Value::from(entries).to_string();
    json.extend(core::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    let header = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
    hollow(path, &header, end);
}

fn gguf(path: &Path, tensors: &[Tensor]) {
    const ALIGNMENT: usize = 32;
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(0u64.to_le_bytes()); // no metadata
    let mut end = 0;
    for t in tensors {
        header.extend((t.name.len() as u64).to_le_bytes());
        header.extend(t.name.as_bytes());
        header.extend((t.shape.len() as u32).to_le_bytes());
        t.shape.iter().rev().for_each(|&side| header.extend((side as u64).to_le_bytes()));
        header.extend(number(t.stored).to_le_bytes());
        header.extend((end as u64).to_le_bytes());
        end = (end + t.bytes).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    hollow(path, &header, end);
}

/// Its number in `enum ggml_type`.
fn number(stored: DType) -> u32 {
    match stored {
        DType::F16 => 1,
        DType::Q8_0 => 8,
        DType::Q4_K => 12,
        other => panic!("{other} is not written"),
    }
}
