//! The main job on the default model, in small: it runs, moves the adapter, repeats bit for bit, and refuses bad input
//! with one sentence that names the file.
use pentimento::exec::cpu::Cpu;
use pentimento::folder::ModelFolder;
use pentimento::pipeline::Pipeline;
use pentimento_trainer::config::Config;
use pentimento_trainer::references::{Reference, load_references};
use pentimento_trainer::train::{Event, Metrics, Setup, Trainer};
use std::path::{Path, PathBuf};
use tests::adapter::adapter;
use tests::scratch::{Scratch, copy};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons")
}
fn references() -> Vec<Reference> {
    let mut all = load_references(&model().join("references/mono"), 64, 64).expect("references");
    all.truncate(2);
    all
}
fn setup<'a>(model: &'a Path, references: &'a [Reference]) -> Setup<'a> {
    Setup { model, config: None, reward: None, references, prompts: &[], text_cache: None }
}
/// The model's components without its references.
fn broken_model(name: &str) -> Scratch {
    let scratch = Scratch::new(name);
    for part in [
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
        "reward",
    ] {
        copy(&model().join(part), &scratch.0.join(part));
    }
    std::fs::copy(model().join("model_index.json"), scratch.0.join("model_index.json")).expect("a copy");
    scratch
}

fn tiny(seed: u64) -> Config {
    let mut c = Config { seed, rank: 4, iterations: 1, ..Config::default() };
    (c.warm.steps, c.warm.batch) = (1, 2);
    (c.rollout.prompts, c.rollout.group) = (1, 2);
    (c.rollout.steps, c.rollout.window) = (2, 1);
    (c.head.warm, c.head.batch) = (2, 2);
    c.optim.micro_batch = 2;
    c
}
/// With one more change.
fn with(mut config: Config, change: impl FnOnce(&mut Config)) -> Config {
    change(&mut config);
    config
}

fn train(config: Config) -> Option<(Vec<u8>, Vec<u8>, Metrics)> {
    let gpu = adapter("a small training run")?;
    let (model, references) = (model(), references());
    let setup = setup(&model, &references);
    let mut trainer = Trainer::new(Box::new(gpu), &setup, config).expect("a trainer");
    let start = trainer.adapter().and_then(|a| a.write_bytes()).expect("an adapter");
    let mut metrics = None;
    for _ in 0..10_000 {
        match trainer.step().expect("a step") {
            Event::Iteration(m) => metrics = Some(m),
            Event::Done => {
                let bytes = trainer.adapter().and_then(|a| a.write_bytes()).expect("an adapter");
                return Some((start, bytes, metrics.expect("an iteration")));
            }
            _ => {}
        }
    }
    panic!("the trainer does not end");
}

#[test]
fn same_seed_same_bits() {
    let Some((start, first, metrics)) = train(tiny(5)) else { return };
    let Some((_, second, _)) = train(tiny(5)) else { return };
    let Some((_, other, _)) = train(tiny(6)) else { return };
    assert!(first == second, "two runs with one seed differ");
    assert!(first != other && first != start, "training changed nothing");
    // The first update is on policy: the ratio is 1 up to the rounding of two differently fused forward passes.
    assert!(metrics.gradient_norm > 0.0 && metrics.gradient_norm.is_finite(), "{metrics:?}");
    assert!((0.0..=1.0).contains(&metrics.head_accuracy), "{metrics:?}");
}

/// With a deadline the number of steps and iterations follows from the time they take, not from the settings.
#[test]
fn a_deadline_ends_the_training() {
    let Some(gpu) = adapter("a deadline") else { return };
    let (model, references) = (model(), references());
    let setup = setup(&model, &references);
    let endless = with(tiny(1), |c| (c.warm.steps, c.iterations) = (1_000_000, 1_000_000));
    let mut trainer = Trainer::new(Box::new(gpu), &setup, endless).expect("a trainer");
    const SECONDS: f64 = 5.0;
    let start = std::time::Instant::now();
    trainer.set_deadline(SECONDS);
    let (mut warm, mut last) = (0, 0.0);
    loop {
        match trainer.step().expect("a step") {
            Event::Warm(k, _, _) => warm = k,
            Event::Iteration(m) => last = m.seconds,
            Event::Done => break,
            _ => {}
        }
        // Preparation and compilation may take long on a slow driver; what is cut is what repeats.
        assert!(start.elapsed().as_secs_f64() < 100.0 * SECONDS, "the deadline is ignored");
    }
    assert!(warm >= 1 && last > 0.0, "at least one step of each kind: {warm} warm, iteration of {last} s");
}

#[test]
fn the_released_objective_runs() {
    let released = Config::released();
    let config = with(tiny(5), |c| {
        (c.grpo.credit, c.grpo.spread) = (released.grpo.credit, released.grpo.spread);
        c.head.patches = released.head.patches;
        c.head.normalise_reward = released.head.normalise_reward;
        (c.rollout.share_noise, c.rollout.antithetic) = (false, false);
        c.rollout.window_start = Some(0);
        c.warm.steps = 0;
    });
    let Some((start, end, metrics)) = train(config) else { return };
    assert!(start != end);
    assert!(metrics.clip_fraction <= 0.5, "on policy nothing should be clipped: {metrics:?}");
}

/// The distance from the model without its adapter counts when it is asked for, and costs nothing when it is not.
#[test]
fn the_kl_term_pulls_back() {
    let Some((_, free, _)) = train(tiny(5)) else { return };
    let Some((_, held, metrics)) = train(with(tiny(5), |c| c.grpo.beta = 10.0)) else { return };
    assert!(free != held, "beta changed nothing");
    assert!(metrics.gradient_norm > 0.0 && metrics.gradient_norm.is_finite(), "{metrics:?}");
}

fn refusal(folder: &Path, references: &[Reference]) -> String {
    refusal_of(&setup(folder, references))
}
fn refusal_of(setup: &Setup<'_>) -> String {
    match Trainer::new(Box::new(Cpu::new()), setup, tiny(0)) {
        Ok(_) => panic!("accepted"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn bad_input_ends_in_one_sentence_that_names_the_file() {
    let missing = broken_model("missing");
    std::fs::remove_dir_all(missing.0.join("vae")).expect("removed");
    let error = refusal(&missing.0, &references());
    assert!(error.contains("vae"), "{error}");

    let truncated = broken_model("truncated");
    let file = truncated.0.join("transformer/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&file).expect("a file");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("written");
    let error = refusal(&truncated.0, &references());
    assert!(error.contains("diffusion_pytorch_model.safetensors") && error.contains("expected"), "{error}");

    let misshapen = broken_model("misshapen");
    let config = misshapen.0.join("transformer/config.json");
    let text = std::fs::read_to_string(&config)
        .expect("a file")
        .replace("\"pos_embed_max_size\": 16", "\"pos_embed_max_size\": 12");
    std::fs::write(&config, text).expect("written");
    let folder = ModelFolder::open(&misshapen.0).expect("a folder");
    let mut pipeline = Pipeline::open(&folder, Box::new(Cpu::new()), None).expect("configurations fit");
    let error = pipeline.velocity(1, [8, 8]).expect_err("a mis-shaped tensor").to_string();
    assert!(error.contains("pos_embed") && error.contains("144") && error.contains("256"), "{error}");

    assert!(refusal(&model(), &[]).contains("references"));
    let pickscore = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/clip_reward");
    let (model, references) = (model(), references());
    let error = refusal_of(&Setup { reward: Some(&pickscore), ..setup(&model, &references) });
    assert!(error.contains("clip_reward") && error.contains("--recipe released"), "{error}");

    let images = Scratch::new("images");
    let error = load_references(&images.0, 64, 64).expect_err("an empty folder").to_string();
    assert!(error.contains("pentimento-images"), "{error}");
    std::fs::write(images.0.join("broken.png"), b"\x89PNG not really").expect("written");
    let error = load_references(&images.0, 64, 64).expect_err("a broken image").to_string();
    assert!(error.contains("broken.png"), "{error}");
}

#[test]
fn settings_that_cannot_run_are_named() {
    for (config, field) in [
        (with(tiny(0), |c| c.rank = 3), "rank"),
        (with(tiny(0), |c| c.rollout.group = 3), "group"),
        (with(tiny(0), |c| c.rollout.window = 9), "window"),
        (with(tiny(0), |c| c.grpo.updates = 5), "updates"),
    ] {
        let error = config.check().expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
}
