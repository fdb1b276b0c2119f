//! Every parser of files on mutated inputs: no panic, memory within a stated multiple of the input, an answer in time.
//!
//! Each target runs for four seconds. `PENTIMENTO_FUZZ=SECONDS` makes that longer, `PENTIMENTO_SEED=N` draws other inputs,
//! `PENTIMENTO_FUZZ_TARGET=PART` leaves the other targets out:
//! `PENTIMENTO_FUZZ=3600 PENTIMENTO_SEED=1 cargo test --release -p tests --test fuzz -- --nocapture`.
use pentimento_runtime::layout::SingleFile;
use pentimento_runtime::model::contents;
use pentimento_runtime::schedule::Schedule;
use pentimento_runtime::text::TextCache;
use pentimento_runtime::tokenizer::{Tokenizer, TokenizerFiles, Unigram};
use pentimento_runtime::weights::Weights;
use pentimento_runtime::{file, folder, shown};
use pentimento_trainer::adapter::{Adapter, Layer, Layers};
use pentimento_trainer::images::Picture;
use pentimento_trainer::references::Survey;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tests::busy::worked;
use tests::fuzz::{Random, Target, crc32};
use tests::scratch::Scratch;

#[global_allocator]
static COUNTING: tests::memory::Counting = tests::memory::Counting;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All files of a folder.
fn files(folder: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(here(folder)).expect(folder).flatten().map(|e| e.path()).collect();
    paths.sort();
    paths.into_iter().map(|p| std::fs::read(p).expect("a file")).collect()
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|t| t.as_bytes().to_vec()).collect()
}

fn unchanged(_: &mut Random, input: Vec<u8>) -> Vec<u8> {
    input
}

/// A safetensors file from its header, as long as it says.
fn wrapped(header: &[u8], data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![0x3c; data]].concat()
}

/// Reads all that a set of weights holds.
fn read(weights: &Weights) {
    for name in weights.names() {
        let Ok(t) = weights.get(name) else { continue };
        assert_eq!(t.to_f32().expect("room").len(), t.elements(), "{name}");
        let _ = t.rows(t.elements() / 3, 1);
    }
    let _ = weights.get("a name that is not there").map(|_| ());
}

/// An error is one short line.
fn line<T>(result: pentimento_runtime::Result<T>) -> Option<T> {
    result
        .map_err(|e| e.to_string())
        .map_err(|e| assert!(e.len() < 20_000 && !e.contains(char::is_control), "{e:?}"))
        .ok()
}

#[test]
fn safetensors() {
    let corpus = texts(&[
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[],"data_offsets":[16,18]}}"#,
        r#"{"a.weight":{"dtype":"F8_E4M3","shape":[4,2],"data_offsets":[0,8]},"a.scale_weight":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"scaled_fp8":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[12,14]}}"#,
        r#"{"a.weight":{"dtype":"F8_E5M2","shape":[2,1],"data_offsets":[0,2]},"a.weight_scale":{"dtype":"F16","shape":[2,1],"data_offsets":[2,6]},"a.comfy_quant":{"dtype":"U8","shape":[4],"data_offsets":[6,10]}}"#,
    ]);
    let target = Target {
        name: "safetensors",
        corpus,
        words: &[
            "\"F32\"",
            "\"BF16\"",
            "\"I64\"",
            "\"F4\"",
            "[",
            "]",
            "{",
            "}",
            "\"shape\":",
            "\"data_offsets\":[0,4]",
            "\\u001b",
            ".weight",
            ".weight_scale",
            "null",
            "-1",
            "1e9",
        ],
        memory: |n| 12 * n + 64 * KIB,
        longest: 16 * KIB,
    };
    let finish = |random: &mut Random, header: Vec<u8>| {
        let data = random.below(24);
        match random.below(8) {
            0 => header,
            _ => wrapped(&header, *random.of(&[18, 14, 10, data])),
        }
    };
    target.run(finish, |bytes| {
        let bytes = bytes.to_vec();
        if let Some(weights) = line(Weights::from_bytes("fuzz", bytes)) {
            read(&weights);
        }
    });
}

/// Names of single files and of adapters, in every spelling.
const NAMES: [&str; 40] = [
    "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
    "joint_blocks.0.context_block.attn.qkv.bias",
    "joint_blocks.1.context_block.adaLN_modulation.1.weight",
    "joint_blocks.0.x_block.mlp.fc1.weight",
    "pos_embed",
    "x_embedder.proj.weight",
    "t_embedder.mlp.0.weight",
    "y_embedder.mlp.0.weight",
    "context_embedder.weight",
    "final_layer.linear.weight",
    "final_layer.adaLN_modulation.1.bias",
    "joint_blocks.0.x_block.attn.ln_q.weight",
    "joint_blocks.0.x_block.attn2.qkv.weight",
    "first_stage_model.decoder.up.1.block.0.conv1.weight",
    "first_stage_model.decoder.up.0.upsample.conv.weight",
    "first_stage_model.encoder.down.0.block.0.conv1.weight",
    "first_stage_model.decoder.mid.attn_1.q.weight",
    "first_stage_model.encoder.mid.block_1.norm1.weight",
    "first_stage_model.decoder.conv_in.weight",
    "encoder.conv_in.weight",
    "quant_conv.weight",
    "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight",
    "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight",
    "text_encoders.clip_l.transformer.text_model.embeddings.position_embedding.weight",
    "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
    "text_encoders.t5xxl.transformer.shared.weight",
    "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
    "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
    "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight",
    "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight",
    "lora_unet_joint_blocks_0_x_block_attn_qkv.alpha",
    "lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight",
    "base_model.model.transformer_blocks.0.attn.to_k.lora_A.default.weight",
    "diffusion_model.joint_blocks.0.context_block.attn.proj.lora_A.weight",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
    "transformer_blocks.0.attn.to_v.lora.down.weight",
    "transformer.transformer_blocks.0.attn.to_q.dora_scale",
    "transformer_blocks.0.norm1.linear.lora_A.weight",
];

/// A well-formed file of tensors with mutated names, types and shapes.
fn tensors(random: &mut Random, names: &[u8]) -> Vec<u8> {
    let (mut entries, mut data) = (Vec::new(), 0);
    let names = String::from_utf8_lossy(names);
    let side = *random.of(&[1, 2, 3, 4, 6]);
    for name in names.split('\n').take(64) {
        let (dtype, size) = *random.of(&[("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("I64", 8)]);
        let sides = if name.ends_with("bias") { 1 } else { *random.of(&[0, 1, 2, 2, 2, 2, 3, 4]) };
        let shape: Vec<usize> = (0..sides)
            .map(|_| if random.below(3) == 0 { random.below(7) } else { side * *random.of(&[1, 1, 3, 64]) })
            .collect();
        let bytes = size * shape.iter().product::<usize>();
        if bytes > 64 * KIB {
            continue;
        }
        let name = Value::from(name);
        entries.push(format!(
            r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{data},{}]}}"#,
            data + bytes
        ));
        data += bytes;
    }
    wrapped(format!("{{{}}}", entries.join(",")).as_bytes(), data)
}

/// Lists of names, one a line.
fn names() -> Vec<Vec<u8>> {
    [&NAMES[..27], &NAMES[27..], &NAMES[..13], &NAMES[27..29], &NAMES[29..32]]
        .map(|n| n.join("\n").into_bytes())
        .to_vec()
}

const PARTS: [&str; 24] = [
    "\n",
    ".",
    "_",
    "0",
    "1023",
    "1024",
    "weight",
    "bias",
    "attn",
    "attn2",
    "to_q",
    "to_out.0",
    "qkv",
    "joint_blocks.",
    "transformer_blocks.",
    "context_block",
    "x_block",
    "lora_A",
    "lora_B",
    "alpha",
    "\u{1b}[2J",
    "transformer.",
    "lora_unet_",
    "text_encoders.clip_g.transformer.",
];

#[test]
fn single_file() {
    let target = Target {
        name: "single_file",
        corpus: names(),
        words: &PARTS,
        memory: |n| 16 * n + 40 * MIB,
        longest: 8 * KIB,
    };
    target.run(
        |random, names| tensors(random, &names),
        |bytes| {
            let Some(weights) = line(Weights::from_bytes("fuzz", bytes.to_vec())) else { return };
            let Some(single) = line(SingleFile::split(&weights)) else { return };
            for component in single.components() {
                single.component(component).into_iter().for_each(read);
                if let Some(config) = line(single.config(component)) {
                    check_config(&config);
                }
            }
        },
    );
}

#[test]
fn gguf() {
    let small = files("corpus/gguf");
    let target = Target {
        name: "gguf",
        corpus: small,
        words: &[
            "GGUF",
            "general.alignment",
            "\0\0\0\0\0\0\0\0",
            "\x01\0\0\0\0\0\0\0",
            "joint_blocks.0.x_block.attn.qkv.weight",
        ],
        memory: |n| 32 * n + 64 * KIB,
        longest: 16 * KIB,
    };
    target.run(unchanged, |bytes| {
        let Some(weights) = line(Weights::from_bytes("fuzz", bytes.to_vec())) else { return };
        read(&weights);
        if let Some(single) = line(SingleFile::split(&weights)) {
            single.components().for_each(|c| drop(line(single.config(c))));
        }
    });
}

fn check_config(config: &Value) {
    if let Some(needs) = line(contents::of(config, "config.json")) {
        assert!(contents::parameters(&needs) > 0);
    }
}

/// Three kinds that were slow or large once.
#[test]
fn small_files_stay_small() {
    let mut config = std::fs::read(here("fixtures/transformer/sd35_medium/config.json"))
        .map(|bytes| serde_json::from_slice::<Value>(&bytes).expect("JSON"))
        .expect("a configuration");
    // Eight times the layers, eight times the time of a processor: the least of five.
    let mut time = |layers: usize| {
        config["num_layers"] = layers.into();
        let once = || {
            let start = worked();
            let (needs, taken) =
                tests::memory::peak(|| contents::of(&config, "config.json").expect("a network"));
            assert!(needs.len() > 20 * layers && taken < 128 * MIB, "{taken}");
            worked().saturating_sub(start).as_secs_f64()
        };
        (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
    };
    let (few, many) = (time(128), time(1024));
    println!("128 layers: {few:.3} s, 1024 layers: {many:.3} s");
    assert!(many <= 24.0 * few, "{many} for 1024 layers, {few} for 128");

    let entry =
        |i: usize| format!(r#""{i}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}}"#, 4 * i, 4 * i + 4);
    for (n, opens) in [(1 << 16, true), (1 << 20, false)] {
        let header = format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","));
        let bytes = wrapped(header.as_bytes(), 4 * n);
        let length = bytes.len();
        let (made, taken) = tests::memory::peak(|| Weights::from_bytes("many", bytes));
        println!("{n} tensors: {} KiB for a file of {} KiB", taken / KIB, length / KIB);
        assert_eq!(line(made).is_some(), opens);
        assert!(taken < 6 * length, "{taken} for {length}");
    }

    let name = "\\u001b[2J".repeat(1 << 17);
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let error =
        Weights::from_bytes("long", wrapped(header.as_bytes(), 4)).expect_err("a long name").to_string();
    assert!(error.len() < 400, "{error}");
}

#[test]
fn configs() {
    let corpus = [
        "fixtures/text/clip_l/config.json",
        "fixtures/text/t5/config.json",
        "fixtures/dino/hf_base/config.json",
        "fixtures/dino/timm_registers/config.json",
        "fixtures/vae/config.json",
        "fixtures/clip_reward/config.json",
        "fixtures/transformer/sd35_medium/config.json",
        "../examples/models/icons/scheduler/scheduler_config.json",
    ];
    let target = Target {
        name: "configs",
        corpus: corpus.map(|path| std::fs::read(here(path)).expect(path)).to_vec(),
        words: &[
            "null",
            "true",
            "[",
            "]",
            "-1",
            "0",
            "1e308",
            "0.5",
            "\"\"",
            "1048576",
            "1048577",
            "1024",
            "{",
            "}",
            ",",
            "[0,1,2]",
            "\"rms_norm\"",
            "\"gelu\"",
        ],
        // A network of a thousand layers is described in a few bytes.
        memory: |n| 64 * n + 256 * MIB,
        longest: 16 * KIB,
    };
    target.run(unchanged, |bytes| {
        let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
        check_config(&json);
        if let Some(schedule) = line(Schedule::from_value(&json, "scheduler_config.json")) {
            let _ = line(schedule.sigmas(7, schedule.mu(64)));
        }
    });
}

#[test]
fn tokenizer_files() {
    let target = Target {
        name: "tokenizer_files",
        corpus: files("corpus/tokenizer"),
        words: &[
            "null",
            "[",
            "]",
            "{",
            "}",
            "\"Unigram\"",
            "\"BPE\"",
            "-1",
            "4294967295",
            "4294967296",
            "\u{2581}",
            "</w>",
            "\\u0000",
            "1e39",
            "\"\"",
        ],
        memory: |n| 96 * n + 256 * KIB,
        longest: 32 * KIB,
    };
    target.run(unchanged, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let files = TokenizerFiles { tokenizer_json: Some(text), ..TokenizerFiles::default() };
        if let Some(clip) = line(Tokenizer::new("fuzz", &files)) {
            assert_eq!(clip.encode("an <|endoftext|> thin\u{301} re\u{1f34b}", 9).len(), 9);
        }
        if let Some(t5) = line(Unigram::new("fuzz", &files)) {
            assert_eq!(t5.encode("ab \u{fb01} a</s>b", 9).len(), 9);
        }
    });
}

#[test]
fn prompts() {
    let tiny = "fixtures/text/tiny_tokenizers";
    let open = |name: &str| folder::tokenizer_folder(&here(&format!("{tiny}/{name}"))).expect(name);
    let (clip, t5) = (open("clip_l").tokenizer().expect("CLIP"), open("t5").unigram_tokenizer().expect("T5"));
    let target = Target {
        name: "prompts",
        corpus: texts(&[
            "icon of a lemon, red & blue; the <|endoftext|> thing",
            "\u{feff}ic\u{f4}ne \u{30ec}\u{30e2}\u{30f3} \u{1f34b}\r\n",
            "a\u{301}\u{fb01} '\u{2019}s 12 ½ ...",
            "  \t x  ",
        ]),
        words: &[
            "<|startoftext|>",
            "</s>",
            "\u{301}",
            "\u{200d}",
            "\u{1f468}",
            "'s",
            " ",
            "\u{2581}",
            "\u{ac00}",
            "\u{df}",
            "\0",
        ],
        memory: |n| 512 * n + 64 * KIB,
        longest: 2 * KIB,
    };
    target.run(unchanged, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(clip.encode(&text, 77).len(), 77);
        assert_eq!(t5.encode(&text, 64).len(), 64);
        let seen = shown(&text).to_string();
        assert!(!seen.contains(char::is_control) && seen.chars().count() < 2400);
    });
}

#[test]
fn captions() {
    let shared = Path::new("/dev/shm");
    let scratch = Scratch::new("fuzz-captions");
    let root = if shared.is_dir() {
        shared.join(format!("pentimento-fuzz-{}", std::process::id()))
    } else {
        scratch.0.clone()
    };
    std::fs::create_dir_all(&root).expect("a folder");
    for name in ["a.png", "B.jpg", "\u{e9}.webp"] {
        std::fs::write(root.join(name), "").expect("a file");
    }
    let target = Target {
        name: "captions",
        corpus: texts(&[
            "0{\"file_name\":\"a.png\",\"text\":\"a lemon\"}\n{\"file_name\":\"b.jpg\",\"caption\":\"x\",\"more\":[1,{\"a\":2}]}\n",
            "1file_name,text\na.png,\"a \"\"lemon\"\"\"\nB.jpg,\"two\nlines\"\n",
            "2\u{feff}a lemon\r\n",
            "3{\"_class_name\":\"StableDiffusion3Pipeline\",\"vae\":[\"diffusers\",\"AutoencoderKL\"],\"text_encoder_3\":[null,null]}",
            "4{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}",
        ]),
        words: &[
            "\n",
            ",",
            "\"",
            "{",
            "}",
            "\"file_name\":",
            "\"text\":",
            "file_name",
            "../",
            "./",
            "a.png",
            "null",
            "\u{feff}",
            "[",
            "\u{e9}.webp",
        ],
        memory: |n| 64 * n + 256 * KIB,
        longest: 8 * KIB,
    };
    target.run(unchanged, |bytes| {
        let Some((kind, bytes)) = bytes.split_first() else { return };
        let name = match kind % 5 {
            0 => "metadata.jsonl",
            1 => "metadata.csv",
            2 => "a.png.txt",
            3 => "model_index.json",
            _ => "model.safetensors.index.json",
        };
        let path = root.join(name);
        std::fs::write(&path, bytes).expect("a file");
        if kind % 5 < 3 {
            if let Some(survey) = line(Survey::of(&root)) {
                assert!(!survey.to_string().contains(char::is_control));
            }
        } else if kind % 5 == 3 {
            if let Some(model) = line(folder::ModelFolder::open(&root)) {
                ["vae", "text_encoder_3", "transformer"]
                    .iter()
                    .for_each(|c| drop(line(model.component_config(c))));
            }
        } else {
            drop(folder::tokenizer_folder(&root).map(|c| line(c.weights())));
        }
        let _ = line(file::text(&path, 4 * KIB as u64));
        std::fs::remove_file(&path).expect("the file");
    });
    let _ = std::fs::remove_dir_all(root);
}

#[test]
fn images() {
    let target = Target {
        name: "images",
        corpus: files("corpus/image"),
        words: &[
            "IDAT",
            "IEND",
            "iCCP",
            "PLTE",
            "tRNS",
            "eXIf",
            "VP8L",
            "VP8X",
            "ALPH",
            "ANMF",
            "Exif\0\0MM\0*",
            "RIFF",
            "\u{ff}",
        ],
        memory: |_| 1 << 30,
        longest: 16 * KIB,
    };
    let finish = |random: &mut Random, mut bytes: Vec<u8>| {
        if random.below(4) == 0 {
            return bytes;
        }
        if bytes.starts_with(b"\x89PNG") {
            mend_png(&mut bytes);
        } else if bytes.starts_with(b"RIFF") && bytes.len() > 8 {
            let size = (bytes.len() - 8) as u32;
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
        } else if bytes.starts_with(b"\xff\xd8") && random.below(2) == 0 {
            bytes.extend([0xff, 0xd9]);
        }
        bytes
    };
    let mut draw = Random(1);
    target.run(finish, |bytes| {
        // Mostly a small limit, so that what is said of the memory is held to it; sometimes the real one.
        let most = if draw.below(64) == 0 { 1 << 30 } else { 48 * MIB as u64 };
        let (made, taken) = tests::memory::peak(|| Picture::decode_within("fuzz", bytes, most));
        assert!(taken as u64 <= most, "{taken} of {most}");
        if let Some(picture) = line(made) {
            assert_eq!(picture.rgb().len(), 3 * picture.width() as usize * picture.height() as usize);
        }
    });
}

/// Right lengths and checksums, as far as the chunks can be told.
fn mend_png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(end) =
            at.checked_add(8).and_then(|n| n.checked_add(length)).filter(|end| end + 4 <= bytes.len())
        else {
            return;
        };
        let crc = crc32(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_be_bytes());
        at = end + 4;
    }
}

#[test]
fn adapters() {
    let target = Target {
        name: "adapters",
        corpus: names(),
        words: &PARTS,
        memory: |n| 24 * n + 256 * KIB,
        longest: 8 * KIB,
    };
    let configs = [
        None,
        Some(r#"{"r":2,"lora_alpha":4,"alpha_pattern":{"to_q":1},"use_rslora":true}"#),
        Some(r#"{"r":"2","rank_pattern":{"^.*":[1]}}"#),
        Some("{"),
    ];
    let layer = Layer { inputs: 6, outputs: 6, patch: 1 };
    let targets = (0..4).flat_map(|i| {
        let names = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn2.to_q", "ff.net.2"];
        names.map(|name| format!("transformer_blocks.{i}.{name}"))
    });
    let layers: Layers = targets.map(|target| (target, layer)).collect();
    let mut draw = Random(2);
    target.run(
        |random, names| tensors(random, &names),
        |bytes| {
            let config = *draw.of(&configs);
            let Some(adapter) = line(Adapter::parse("fuzz", bytes.to_vec(), config, &layers)) else { return };
            let _ = line(adapter.write_bytes());
        },
    );
}

#[test]
fn text_cache() {
    let corpus = texts(&[
        r#"{"__metadata__":{"pentimento_text_1":"abc 2 3 1 1"},"context.x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"pooled.x":{"dtype":"F32","shape":[1],"data_offsets":[24,28]}}"#,
        r#"{"__metadata__":{"pentimento_text_1":"abc 1 1 1 256"},"context.":{"dtype":"F16","shape":[1,1],"data_offsets":[0,2]},"pooled.":{"dtype":"F16","shape":[1],"data_offsets":[2,4]}}"#,
    ]);
    let target = Target {
        name: "text_cache",
        corpus,
        words: &["context.", "pooled.", "\"F8_E4M3\"", "[1]", "0", "1048576", " ", "pentimento_text_1"],
        memory: |n| 16 * n + 64 * KIB,
        longest: 8 * KIB,
    };
    let finish = |random: &mut Random, header: Vec<u8>| wrapped(&header, *random.of(&[28, 4, 0, 5]));
    target.run(finish, |bytes| {
        let Some(mut cache) = line(TextCache::from_bytes("fuzz", bytes.to_vec())) else { return };
        ["", "x", "y"].iter().for_each(|prompt| drop(line(cache.get(prompt))));
        if let Some(layout) = cache.layout() {
            let _ = line(cache.claim("abc", layout));
        }
        let _ = line(cache.to_bytes());
    });
}
