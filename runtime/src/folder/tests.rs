//! Tests of model folders and single files on disk.
use super::*;
use alloc::vec::Vec;
use std::fs;

/// A folder under the system's temporary one, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pentimento-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
    fn write(&self, file: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A safetensors file with one f32 scalar.
fn tensor(name: &str, value: f32) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}"#);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

const INDEX: &str = r#"{"_class_name":"StableDiffusion3Pipeline","vae":["diffusers","AutoencoderKL"],
    "transformer":["diffusers","SD3Transformer2DModel"],"text_encoder_3":[null,null],
    "scheduler":["diffusers","FlowMatchEulerDiscreteScheduler"]}"#;

#[test]
fn a_pipeline_folder_opens() {
    let s = Scratch::new("open");
    s.write("model_index.json", INDEX);
    s.write("vae/config.json", r#"{"latent_channels":16}"#);
    s.write("vae/diffusion_pytorch_model.safetensors", tensor("x", 2.5));
    s.write("scheduler/scheduler_config.json", r#"{"shift":3.0}"#);
    let m = ModelFolder::open(&s.0).unwrap();
    assert!(m.has("vae").unwrap() && !m.has("text_encoder_3").unwrap() && !m.has("image_encoder").unwrap());
    assert_eq!(m.component_config("vae").unwrap()["latent_channels"], 16);
    assert_eq!(m.component_weights("vae").unwrap().get("x").unwrap().to_f32().unwrap(), [2.5]);
    assert_eq!(m.schedule().unwrap().shift, 3.0);
    let text = message(m.has("transformer"));
    assert!(
        text.contains("missing the folder `transformer`") && text.contains("model_index.json lists"),
        "{text}"
    );
    assert!(message(m.component_weights("text_encoder_3")).contains("component `text_encoder_3`"));
    assert!(message(m.has("_class_name")).contains("a pair [library, class]"));
    assert!(message(m.read_text("vae", "none.txt")).contains("missing `none.txt`"));
    assert!(message(m.read_text("vae", "../model_index.json")).contains("plain name"));
    assert!(message(m.tokenizer("vae")).contains("vocab.json"));
}

#[test]
fn folders_that_are_none_are_refused() {
    let s = Scratch::new("none");
    assert!(message(ModelFolder::open(&s.0)).contains("model_index.json"));
    assert!(message(ModelFolder::open(&s.0.join("absent"))).contains("missing the folder itself"));
    s.write("file", "");
    assert!(message(ModelFolder::open(&s.0.join("file"))).contains("an empty file"));
    for text in ["", "[1]", "{"] {
        s.write("model_index.json", text);
        assert!(message(ModelFolder::open(&s.0)).contains("a JSON object"), "{text}");
    }
    s.write("model_index.json", [0xff, 0xfe]);
    assert!(message(ModelFolder::open(&s.0)).contains("UTF-8"));
    s.write("model_index.json", r#"{"../up":["a","b"],"vae":[1,2]}"#);
    let m = ModelFolder::open(&s.0).unwrap();
    assert!(message(m.has("../up")).contains("plain folder name") && m.has("vae").is_err());
    assert!(message(open_component(&s.0)).contains("config.json"));
}

#[test]
fn large_text_is_refused() {
    let s = Scratch::new("large");
    fs::File::create(s.0.join("model_index.json")).unwrap().set_len(MAX_CONFIG + 1).unwrap();
    assert!(message(ModelFolder::open(&s.0)).contains("at most 4 MiB"));
    fs::File::create(s.0.join("vocab.json")).unwrap().set_len(MAX_TEXT + 1).unwrap();
    let folder = tokenizer_folder(&s.0).unwrap();
    assert!(message(folder.read_text("vocab.json")).contains("at most 32 MiB"));
}

#[test]
fn shards_are_joined_and_checked() {
    let s = Scratch::new("shards");
    let index = |map: &str| {
        s.write("diffusion_pytorch_model.safetensors.index.json", format!(r#"{{"weight_map":{map}}}"#));
    };
    s.write("config.json", "{}");
    s.write("1.safetensors", tensor("a", 1.0));
    s.write("2.safetensors", tensor("b", 2.0));
    index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
    let c = open_component(&s.0).unwrap();
    assert_eq!(c.weights().unwrap().get("b").unwrap().to_f32().unwrap(), [2.0]);
    index(r#"{"a":"1.safetensors","c":"2.safetensors"}"#);
    let text = message(c.weights());
    assert!(text.contains("2.safetensors: missing tensor `c`"), "{text}");
    index(r#"{"a":"3.safetensors"}"#);
    assert!(message(c.weights()).contains("missing `3.safetensors`"));
    for bad in ["../1.safetensors", "/etc/passwd", "..", "", "a\\\\b", "C:x"] {
        index(&format!(r#"{{"a":"{bad}"}}"#));
        assert!(message(c.weights()).contains("plain name"), "{bad}");
    }
    index("[]");
    assert!(message(c.weights()).contains("`weight_map`"));
    s.write("2.safetensors", tensor("a", 2.0));
    index(r#"{"a":"1.safetensors","b":"2.safetensors"}"#);
    assert!(message(c.weights()).contains("a name used once"));
}

#[test]
fn weights_files_are_found_or_named() {
    let s = Scratch::new("weights");
    s.write("config.json", "{}");
    let c = open_component(&s.0).unwrap();
    assert!(message(c.weights()).contains("model.safetensors") && message(c.weights()).contains("pickle"));
    s.write("model.fp16.safetensors", tensor("half", 0.5));
    assert!(c.weights().unwrap().contains("half"));
    s.write("model.safetensors", "");
    assert!(message(c.weights()).contains("an empty file"));
    s.write("model.safetensors", tensor("x", 1.0));
    assert!(c.weights().unwrap().contains("x"));
    s.write("model.safetensors", &tensor("x", 1.0)[..60]);
    assert!(message(c.weights()).contains("Is the file complete?"));
}

#[test]
fn published_layouts_open() {
    let Some(root) = std::env::var_os("PENTIMENTO_GOLDENS") else {
        std::println!("SKIPPED: published layouts (PENTIMENTO_GOLDENS is not set)");
        return;
    };
    let root = Path::new(&root);
    let pipeline = root.join("trace/main/pipeline");
    if pipeline.is_dir() {
        let m = ModelFolder::open(&pipeline).unwrap();
        for name in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
            assert!(!m.component_weights(name).unwrap().is_empty(), "{name}");
            assert!(m.component_config(name).unwrap().is_object(), "{name}");
        }
        assert!(m.tokenizer("tokenizer_2").unwrap().vocab_size() > 0);
        assert!(m.schedule().unwrap().sigmas(10, None).is_ok());
    } else {
        std::println!("SKIPPED: no pipeline at {}", pipeline.display());
    }
    let large = root.join("transformer/sd35_large");
    if large.join("diffusion_pytorch_model.safetensors.index.json").is_file() {
        let weights = open_component(&large).unwrap().weights().unwrap();
        assert!(weights.label().contains(", "), "all parts are named: {}", weights.label());
    } else {
        std::println!("SKIPPED: nothing in parts at {}", large.display());
    }
}

/// A single file with a lone text encoder, and with what else it needs beside it.
#[test]
fn a_single_file_says_what_it_lacks() {
    let s = Scratch::new("single");
    s.write("m.safetensors", tensor("joint_blocks.0.x_block.attn.ln_q.weight", 1.0));
    let open = |config: Option<&str>| {
        ModelFolder::open_with(&s.0.join("m.safetensors"), config.map(|c| s.0.join(c)).as_deref())
    };
    let m = open(None).unwrap();
    assert!(m.has("transformer").unwrap() && !m.has("vae").unwrap() && m.single_file().is_some());
    let text = message(m.tokenizer("tokenizer"));
    assert!(text.contains("missing `tokenizer`") && text.contains("--config DIR"), "{text}");
    assert!(message(m.component_weights("vae")).contains("missing `vae`"));
    assert!(message(m.component_config("transformer")).contains("pos_embed.proj.weight"));
    assert_eq!(m.schedule().unwrap().shift, 3.0);

    s.write("other/scheduler/scheduler_config.json", r#"{"shift":2.0}"#);
    s.write("other/transformer/config.json", r#"{"x":1}"#);
    let m = open(Some("other")).unwrap();
    assert_eq!(
        (m.schedule().unwrap().shift, m.component_config("transformer").unwrap()["x"].as_u64()),
        (2.0, Some(1))
    );
    assert_eq!(m.component_weights("transformer").unwrap().len(), 1);
    assert!(message(m.component("../other")).contains("missing"));
    // Found without being asked for: the folder of the same name.
    s.write("m/scheduler/scheduler_config.json", r#"{"shift":4.0}"#);
    assert_eq!(open(None).unwrap().schedule().unwrap().shift, 3.0, "no tokenizer there");
    s.write("m/tokenizer/vocab.json", "{}");
    assert_eq!(open(None).unwrap().schedule().unwrap().shift, 4.0);

    assert!(message(open(Some("none"))).contains("missing the folder itself"));
    s.write("p/model_index.json", "{}");
    assert!(message(ModelFolder::open_with(&s.0.join("p"), Some(&s.0))).contains("leave --config out"));
    s.write("text.safetensors", "not a checkpoint");
    assert!(message(ModelFolder::open(&s.0.join("text.safetensors"))).contains("text.safetensors"));
}
