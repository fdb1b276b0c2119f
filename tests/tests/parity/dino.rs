//! The reward backbone in both libraries' formats.
use crate::common::{all_executors, model, run};
use pentimento_runtime::graph::Graph;
use pentimento_runtime::model::{Constants, channels_last, dino};
use std::path::PathBuf;
use tests::fixture::{Check, Golden, folders, to_f16, within};

/// Folders whose `config.json` is a DINOv2 model of transformers or timm.
fn backbones() -> Vec<PathBuf> {
    let mut all = folders("dino", "model_type", "dinov2");
    all.extend(folders("dino", "model_type", "dinov2_with_registers"));
    // timm names an architecture instead of a type of model.
    let with_config = |p: &PathBuf| p.join("config.json").is_file();
    let root = std::fs::read_dir(tests::fixture::root().join("dino")).into_iter().flatten().flatten();
    let mut more: Vec<PathBuf> = root.map(|e| e.path()).filter(with_config).collect();
    more.retain(|p| model(p).1.get("architecture").is_some());
    if more.is_empty() {
        println!("SKIPPED: no golden folder of timm's format");
    }
    more.sort();
    all.extend(more);
    all
}

#[test]
fn image_encoders_agree_at_every_size() {
    for path in backbones() {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = dino::DinoConfig::from_value(&config, &path.display().to_string()).expect("a config");
        for suffix in ["", "_f16w"] {
            if !suffix.is_empty() && !golden.names().any(|n| n.ends_with(suffix)) {
                continue;
            }
            let weights = if suffix.is_empty() { weights.clone() } else { to_f16(&weights) };
            let weights = dino::transformers_names(&cfg, &weights).expect("names of one library");
            for (name, mut exec, half) in all_executors("image encoder") {
                let mut check = Check::new(&golden, &name).halves(half, 3.0);
                for size in golden.names().filter_map(|n| n.strip_suffix("_pixel_values")) {
                    let pixels = format!("{size}_pixel_values");
                    let &[b, c, h, w] = golden.shape(&pixels) else { panic!("pixels are [B, C, H, W]") };
                    let data = channels_last(golden.floats(&pixels), c, h * w, c);
                    let (mut g, mut constants) = (Graph::new(), Constants::new());
                    let x = g.input("pixels", &[b, h, w, c]);
                    let states = dino::hidden_states(&mut g, &mut constants, &cfg, "reward", x);
                    constants.upload(exec.as_mut()).expect("constants");
                    let names: Vec<String> = names(states.len(), size, suffix);
                    let outputs: Vec<_> = names.iter().map(String::as_str).zip(states).collect();
                    let inputs = [("pixels", data.as_slice())];
                    let out = run(exec.as_mut(), g, &[("reward", &weights)], &inputs, &outputs);
                    for (name, got) in names.iter().zip(&out) {
                        check.optional(name, got);
                    }
                    // timm's name of the last one.
                    let last = out.last().expect("a last state");
                    check.optional(&format!("{size}_forward_features{suffix}"), last);
                }
                check.finish();
            }
        }
    }
}

/// Names of hidden states in the golden files.
fn names(states: usize, size: &str, suffix: &str) -> Vec<String> {
    let name = |i: usize| match i {
        0 => "embeddings".to_string(),
        i if i + 1 == states => "last_hidden_state".to_string(),
        i => format!("block{}", i - 1),
    };
    (0..states).map(|i| format!("{size}_{}{suffix}", name(i))).collect()
}

/// The libraries resample positions differently, and the goldens notice.
#[test]
fn the_wrong_resampling_is_noticed() {
    use pentimento_runtime::model::{Cubic, bicubic_matrix};
    for path in backbones() {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let mut cfg = dino::DinoConfig::from_value(&config, "config.json").expect("a config");
        cfg.position_resampling = match cfg.position_resampling {
            Cubic::Plain => Cubic::Antialiased,
            Cubic::Antialiased => Cubic::Plain,
        };
        let weights = dino::transformers_names(&cfg, &weights).expect("names of one library");
        // At the native size nothing is resampled, and some small grids come out alike either way.
        let alike = |side: usize| {
            let [plain, smooth] = [Cubic::Plain, Cubic::Antialiased]
                .map(|kind| bicubic_matrix(cfg.grid(), side / cfg.patch_size, kind));
            plain.iter().zip(&smooth).all(|(p, s)| (p - s).abs() < 1e-6)
        };
        for size in golden.names().filter_map(|n| n.strip_suffix("_pixel_values")) {
            let pixels = format!("{size}_pixel_values");
            let &[b, c, h, w] = golden.shape(&pixels) else { panic!("pixels are [B, C, H, W]") };
            let data = channels_last(golden.floats(&pixels), c, h * w, c);
            let (mut g, mut constants) = (Graph::new(), Constants::new());
            let x = g.input("pixels", &[b, h, w, c]);
            let y = dino::encode(&mut g, &mut constants, &cfg, "reward", x);
            let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
            constants.upload(&mut exec).expect("constants");
            let out = run(&mut exec, g, &[("reward", &weights)], &[("pixels", &data)], &[("y", y)]);
            let names = ["last_hidden_state", "forward_features"].map(|n| format!("{size}_{n}"));
            let want = names.iter().find(|n| golden.has(n)).expect("a last state");
            let same = within(&out[0], golden.floats(want), golden.tolerance(want)).is_ok();
            assert_eq!(same, alike(h) && alike(w), "{} {want}", path.display());
        }
    }
}

/// Register tokens are no patches.
#[test]
fn registers_are_left_out() {
    let cfg = dino::DinoConfig { num_register_tokens: 2, ..dino::DinoConfig::small() };
    let mut g = Graph::new();
    let x = g.input("tokens", &[1, 6, 1]);
    let y = dino::without_registers(&mut g, &cfg, x);
    let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
    let tokens = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let out = run(&mut exec, g, &[], &[("tokens", &tokens)], &[("y", y)]);
    assert_eq!(out[0], [0.0, 3.0, 4.0, 5.0]);
}
