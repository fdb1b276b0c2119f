//! The real models without their weights: graphs from the published configurations on the null executor. Parameters are
//! checked against diffusers and transformers; floating-point operations against a formula; both are printed.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::null::{Count, count};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::contents::{self, Needs, parameters};
use pentimento_runtime::model::{Constants, clip, clip_vision, dino, mmdit, t5, vae};
use pentimento_runtime::plan::Plan;
use pentimento_wgsl::Stored;
use serde_json::{Value, json};

/// Latent side, name.
const SIZES: [(usize, &str); 2] = [(64, "512²"), (128, "1024²")];
/// Context tokens of the published pipelines: 77 of CLIP, 256 of T5.
const TOKENS: usize = 77 + 256;

/// Counts a graph on an adapter without limits.
fn plan(g: Graph, outputs: &[(&str, Id)]) -> Count {
    let caps = Caps::unlimited("null");
    count(&Plan::new(g, outputs, &caps, &|_| Stored::F32).expect("a plan"))
}

fn report(name: &str, numbers: u64, size: &str, c: &Count) {
    println!(
        "{name:<16} {numbers:>13} parameters, {:>7.1} MB in f16 | {size:>5}: {:>8.2} GFLOP, {:>7.1} MB beside the weights, {} dispatches",
        numbers as f64 * 2e-6,
        c.flops as f64 * 1e-9,
        c.bytes as f64 * 1e-6,
        c.dispatches
    );
}

fn needs(config: &Value) -> Needs {
    contents::of(config, "config.json").expect("a configuration")
}

/// `transformer/config.json` of stabilityai/stable-diffusion-3-medium-diffusers, -3.5-medium and -3.5-large.
fn transformers() -> [(&'static str, Value, mmdit::MmditConfig, u64); 3] {
    let config = |layers: usize, side: usize, norm: Value, dual: Vec<usize>| {
        json!({
            "_class_name": "SD3Transformer2DModel", "sample_size": 128, "patch_size": 2, "in_channels": 16,
            "out_channels": 16, "num_layers": layers, "num_attention_heads": layers, "attention_head_dim": 64,
            "joint_attention_dim": 4096, "caption_projection_dim": 64 * layers, "pooled_projection_dim": 2048,
            "pos_embed_max_size": side, "qk_norm": norm, "dual_attention_layers": dual,
        })
    };
    // Parameters by diffusers 0.42 on the meta device. The table of positions is a buffer there, and counted beside them.
    [
        ("SD3-medium", config(24, 192, Value::Null, vec![]), mmdit::MmditConfig::sd3_medium(), 2_028_328_000),
        (
            "SD3.5-medium",
            config(24, 384, "rms_norm".into(), (0..13).collect()),
            mmdit::MmditConfig::sd35_medium(),
            2_243_171_520,
        ),
        (
            "SD3.5-large",
            config(38, 192, "rms_norm".into(), vec![]),
            mmdit::MmditConfig::sd35_large(),
            8_056_627_520,
        ),
    ]
}

/// Multiply-adds, times two, of the matrices and attentions of a forward pass (Esser et al. 2024, figure 2).
fn transformer_flops(cfg: &mmdit::MmditConfig, side: usize) -> f64 {
    let (c, s, t) = (cfg.width() as f64, cfg.image_tokens(side, side) as f64, TOKENS as f64);
    let last = cfg.num_layers - 1;
    let mut flops = 0.0;
    for n in 0..cfg.num_layers {
        let dual = cfg.dual_attention_layers.contains(&n);
        let (per_image, modulations) = if dual { (16.0, 9.0) } else { (12.0, 6.0) };
        flops += s * per_image * c * c + modulations * c * c;
        flops += if n == last { t * 3.0 * c * c + 2.0 * c * c } else { t * 12.0 * c * c + 6.0 * c * c };
        flops += 2.0 * (s + t) * (s + t) * c + if dual { 2.0 * s * s * c } else { 0.0 };
    }
    let patch = (cfg.patch_size * cfg.patch_size) as f64;
    flops += s * c * patch * (cfg.in_channels + cfg.out_channels) as f64;
    flops += t * c * cfg.joint_attention_dim as f64
        + c * (256.0 + c + cfg.pooled_projection_dim as f64 + c + 2.0 * c);
    2.0 * flops
}

#[test]
fn transformers_have_the_published_sizes() {
    for (name, json, constructor, expected) in transformers() {
        let cfg = mmdit::MmditConfig::from_value(&json, "config.json").expect("a configuration");
        assert_eq!(cfg, constructor, "{name}");
        let positions = (cfg.pos_embed_max_size * cfg.pos_embed_max_size * cfg.width()) as u64;
        assert_eq!(parameters(&needs(&json)), expected + positions, "{name}");
        for (side, size) in SIZES {
            let mut g = Graph::new();
            let latents = g.input("latents", &[1, side, side, cfg.in_channels]);
            let time = g.input("time", &[1, mmdit::TIME_CHANNELS]);
            let pooled = g.input("pooled", &[1, cfg.pooled_projection_dim]);
            let context = g.input("context", &[1, TOKENS, cfg.joint_attention_dim]);
            let v = mmdit::velocity(&mut g, &cfg, None, latents, time, pooled, context, None);
            let c = plan(g, &[("velocity", v)]);
            report(name, expected, size, &c);
            let formula = transformer_flops(&cfg, side);
            let ratio = c.flops as f64 / formula;
            assert!((0.99..1.05).contains(&ratio), "{name} {size}: {} FLOP, formula {formula:.0}", c.flops);
            // Only the window of the table is read, not its 906 MB.
            let window = (cfg.image_tokens(side, side) * cfg.width()) as u64;
            assert!(c.leaf_elements <= expected + window, "{name} {size}: {} numbers read", c.leaf_elements);
        }
    }
}

/// `text_encoder/config.json` and `text_encoder_2/config.json` of the SD3 folders.
#[test]
fn text_encoders_have_the_published_sizes() {
    let config = |width: usize, layers: usize, act: &str| {
        json!({
            "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": width, "projection_dim": width,
            "intermediate_size": 4 * width, "num_hidden_layers": layers, "num_attention_heads": width / 64,
            "max_position_embeddings": 77, "hidden_act": act, "layer_norm_eps": 1e-5, "eos_token_id": 2,
        })
    };
    // Parameters by transformers 5.23 on the meta device.
    for (name, json, constructor, expected) in [
        ("CLIP-L", config(768, 12, "quick_gelu"), clip::ClipConfig::clip_l(), 123_650_304),
        ("CLIP-G", config(1280, 32, "gelu"), clip::ClipConfig::clip_g(), 694_659_840),
    ] {
        let cfg = clip::ClipConfig::from_value(&json, "config.json").expect("a configuration");
        assert_eq!(cfg, constructor, "{name}");
        assert_eq!(parameters(&needs(&json)), expected, "{name}");
        let mut g = Graph::new();
        let (t, c) = (cfg.max_position_embeddings, cfg.hidden_size);
        let (x, pick) = (g.input("embeds", &[1, t, c]), g.input("pick", &[1, t]));
        let y = clip::encode(&mut g, &cfg, "text_encoder", None, x, pick);
        report(name, expected, "77", &plan(g, &[("penultimate", y.penultimate), ("pooled", y.pooled)]));
    }
}

/// `config.json` of facebook/dinov2-base and -large.
#[test]
fn backbones_have_the_published_sizes() {
    let config = |width: usize, layers: usize| {
        json!({
            "model_type": "dinov2", "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width / 64,
            "mlp_ratio": 4, "image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-6, "qkv_bias": true,
            "use_swiglu_ffn": false, "hidden_act": "gelu", "num_channels": 3,
        })
    };
    // Parameters by transformers 5.23 on the meta device, less the mask token, which no forward pass reads.
    for (name, json, expected) in
        [("DINOv2-B", config(768, 12), 86_580_480 - 768), ("DINOv2-L", config(1024, 24), 304_368_640 - 1024)]
    {
        let cfg = dino::DinoConfig::from_value(&json, "config.json").expect("a configuration");
        assert_eq!(parameters(&needs(&json)), expected, "{name}");
        let mut g = Graph::new();
        let pixels = g.input("pixels", &[1, cfg.image_size, cfg.image_size, 3]);
        let tokens = dino::encode(&mut g, &mut Constants::new(), &cfg, "dino", pixels);
        report(name, expected, "518²", &plan(g, &[("tokens", tokens)]));
    }
}

/// `vae/config.json` of the SD3 folders.
#[test]
fn the_autoencoder_has_the_published_size() {
    let json = json!({
        "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
        "latent_channels": 16, "norm_num_groups": 32, "mid_block_add_attention": true, "use_quant_conv": false,
        "use_post_quant_conv": false, "scaling_factor": 1.5305, "shift_factor": 0.0609,
    });
    let cfg = vae::VaeConfig::from_value(&json, "config.json").expect("a configuration");
    assert_eq!(cfg, vae::VaeConfig::sd3());
    // By diffusers 0.42 on the meta device; the first convolution reads a fourth, empty channel here.
    let (expected, fourth) = (83_819_683, 128 * 3 * 3);
    assert_eq!(parameters(&needs(&json)), expected + fourth);
    for (side, size) in SIZES {
        let mut g = Graph::new();
        let z = g.input("z", &[1, side, side, cfg.latent_channels]);
        let image = vae::decode(&mut g, &cfg, z);
        report("VAE decoder", expected, size, &plan(g, &[("image", image)]));
        let mut g = Graph::new();
        let pixels = side * cfg.downscale();
        let image = g.input("image", &[1, pixels, pixels, vae::IMAGE_CHANNELS]);
        let moments = vae::encode(&mut g, &cfg, image);
        report("VAE encoder", expected, size, &plan(g, &[("moments", moments)]));
    }
}

/// `text_encoder_3/config.json` of the SD3 folders: google/t5-v1_1-xxl.
#[test]
fn t5_has_the_published_size() {
    let json = json!({
        "model_type": "t5", "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24,
        "num_heads": 64, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new",
    });
    let cfg = t5::T5Config::from_value(&json, "config.json").expect("a configuration");
    assert_eq!(cfg, t5::T5Config::xxl());
    // By hand: four projections, three of the feed-forward and two norms a block; the two tables; the last norm.
    let block = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 2 * 4096;
    let expected = 24 * block + 32 * 64 + 32128 * 4096 + 4096;
    assert_eq!(parameters(&needs(&json)), expected);
    let mut g = Graph::new();
    let x = g.input("x", &[1, 256, cfg.d_model]);
    let bias = g.input("bias", &[cfg.num_heads, 256, 256]);
    let states = t5::whole(&mut g, &cfg, "text_encoder_3", x, bias);
    report("T5-XXL", expected, "256", &plan(g, &[("states", states)]));
}

/// `config.json` of laion/CLIP-ViT-H-14, on which PickScore builds.
#[test]
fn pick_score_has_the_published_size() {
    let json = json!({
        "model_type": "clip", "projection_dim": 1024, "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 1024, "projection_dim": 1024,
            "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
            "max_position_embeddings": 77, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 1280, "projection_dim": 1024,
            "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16, "num_channels": 3,
            "image_size": 224, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
        },
    });
    let (vision, _) =
        clip_vision::ClipVisionConfig::from_value(&json, "config.json").expect("a configuration");
    assert_eq!(vision, clip_vision::ClipVisionConfig::clip_h());
    // Parameters by transformers 5.23 on the meta device.
    let expected = 986_109_441;
    assert_eq!(parameters(&needs(&json)), expected);
    let mut g = Graph::new();
    let pixels = g.input("pixels", &[1, vision.image_size, vision.image_size, 3]);
    let layers = vision.num_hidden_layers;
    let x = clip_vision::hidden(&mut g, &vision, "clip", pixels, layers);
    let image = clip_vision::embed(&mut g, &vision, "clip", x, layers, false);
    report("CLIP-H image", expected, "224²", &plan(g, &[("image", image)]));
}
