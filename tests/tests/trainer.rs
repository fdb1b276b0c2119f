//! The main job on the default model, in small: it runs, moves the adapter, repeats bit for bit, and refuses bad input
//! with one sentence that names the file.
use pentimento_runtime::caps::{Caps, Class};
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::grad::{Recompute, gradients};
use pentimento_runtime::graph::Graph;
use pentimento_runtime::model::lora::{Lora, device_rank};
use pentimento_runtime::pipeline::Pipeline;
use pentimento_runtime::rng::Philox;
use pentimento_runtime::weights::Weights;
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::config::Config;
use pentimento_trainer::objective::{self, Params};
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::references::{Reference, load_references};
use pentimento_trainer::stage::watch::Look;
use pentimento_trainer::train::{Event, Metrics, Setup, Trainer};
use std::path::Path;
use tests::adapter::adapter;
use tests::icons::{model, references};
use tests::scratch::{Scratch, icons as broken_model};

fn setup<'a>(model: &'a Path, references: &'a [Reference]) -> Setup<'a> {
    Setup { model, config: None, reward: None, references, prompts: &[], text_cache: None }
}

fn tiny(seed: u64) -> Config {
    let mut c = Config { seed, rank: 4, iterations: 1, ..Config::default() };
    (c.warm.steps, c.warm.batch) = (1, 2);
    (c.rollout.prompts, c.rollout.group) = (1, 2);
    (c.rollout.steps, c.rollout.window) = (2, 1);
    (c.head.warm, c.head.batch) = (2, 2);
    c.optim.micro_batch = 2;
    c.watch.every = 0;
    c
}
/// The same with the clipped objective.
fn clipped(seed: u64) -> Config {
    with(tiny(seed), |c| c.recipe = Recipe::Grpo)
}
/// With one more change.
fn with(mut config: Config, change: impl FnOnce(&mut Config)) -> Config {
    change(&mut config);
    config
}

/// The adapter before training and after, and what each iteration did.
fn iterations(config: Config) -> Option<([Vec<u8>; 2], Vec<Metrics>)> {
    let gpu = adapter("a small training run")?;
    let (model, references) = (model(), references());
    let setup = setup(&model, &references);
    let mut trainer = Trainer::new(Box::new(gpu), &setup, config).expect("a trainer");
    let start = trainer.adapter().and_then(|a| a.write_bytes()).expect("an adapter");
    let mut all = Vec::new();
    for _ in 0..10_000 {
        match trainer.step().expect("a step") {
            Event::Iteration(m) => all.push(m),
            Event::Done => {
                let bytes = trainer.adapter().and_then(|a| a.write_bytes()).expect("an adapter");
                return Some(([start, bytes], all));
            }
            _ => {}
        }
    }
    panic!("the trainer does not end");
}
/// The last iteration only.
fn train(config: Config) -> Option<(Vec<u8>, Vec<u8>, Metrics)> {
    let ([start, end], mut all) = iterations(config)?;
    Some((start, end, all.pop().expect("an iteration")))
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

/// A recipe's preset in small.
fn preset(name: &str, iterations: usize) -> Config {
    let own = Config::recipe(name, true).expect("a preset");
    let small = tiny(5);
    let (window, steps) = (own.rollout.window.min(1), small.rollout.steps);
    with(Config { rank: 4, seed: 5, iterations, warm: small.warm, head: own.head.clone(), ..own }, |c| {
        (c.rollout.prompts, c.rollout.group, c.rollout.steps, c.rollout.window) = (2, 2, steps, window);
        (c.head.warm, c.head.batch, c.optim.micro_batch) = (2, 2, 3);
        (c.pathwise.images, c.pathwise.batch, c.prior.images) = (2, 2, 3);
    })
}
fn finite(name: &str, m: &Metrics) {
    let all = [
        m.reward_generated,
        m.reward_reference,
        m.head_loss,
        m.advantage_spread,
        m.gradient_norm,
        m.reward_pathwise,
        m.anchor_loss,
        m.supervised_loss,
        m.prior_loss,
    ];
    assert!(all.iter().all(|v| v.is_finite()) && m.gradient_norm > 0.0, "{name}: {m:?}");
}

/// Every recipe runs, moves the adapter, and uses what it says it does.
#[test]
fn every_recipe_trains() {
    for name in ["pathwise", "grpo", "flow-grpo", "nft", "sft"] {
        let Some((start, end, m)) = train(preset(name, 2)) else { return };
        assert!(start != end && m.iteration == 2, "{name} changed nothing");
        finite(name, &m);
        let judged = m.reward_reference != 0.0;
        assert_eq!(judged, name != "sft", "{name}: {m:?}");
        assert_eq!(m.head_steps, if matches!(name, "flow-grpo" | "sft") { 0 } else { 2 }, "{name}: {m:?}");
        assert_eq!(m.updates, if name == "sft" { 10 } else { 1 }, "{name}: {m:?}");
        assert_eq!(m.anchor_loss > 0.0, matches!(name, "pathwise" | "grpo" | "nft"), "{name}: {m:?}");
        assert_eq!(m.prior_loss > 0.0, name == "sft", "{name}: {m:?}");
        // The rate follows how well halves of the images agree, where there are halves.
        let (full, halves) = (preset(name, 2).optim.rate, matches!(name, "grpo" | "flow-grpo" | "nft"));
        assert_eq!(m.agreement.is_some_and(|a| a.abs() <= 1.0), halves, "{name}: {m:?}");
        assert!(
            if halves { (0.0..=full).contains(&m.rate) } else { m.rate == full || name == "sft" },
            "{name}: {m:?}"
        );
        if name == "nft" {
            let Some((_, again, _)) = train(preset(name, 2)) else { return };
            assert!(end == again, "{name}: two runs with one seed differ");
        }
    }
}

/// The reward of Flow-GRPO is fixed after the first iteration's head steps, so references keep their rewards to the bit;
/// Adv-GRPO's do not.
#[test]
fn the_head_of_flow_grpo_is_fixed() {
    let rewards = |name| {
        let (_, all) = iterations(preset(name, 2))?;
        Some(all.iter().map(|m| m.reward_reference).collect::<Vec<f32>>())
    };
    let (Some(fixed), Some(moving)) = (rewards("flow-grpo"), rewards("grpo")) else { return };
    assert!(fixed.len() == 2 && fixed[0] == fixed[1], "{fixed:?}");
    assert!(moving[0] != moving[1], "{moving:?}");
}

/// Without prior preservation nothing is drawn beforehand.
#[test]
fn supervised_training_without_a_prior_runs() {
    let Some((start, free, m)) = train(with(preset("sft", 1), |c| c.prior.weight = 0.0)) else { return };
    assert!(free != start && m.prior_loss == 0.0, "{m:?}");
}

/// What a run says of itself: looks, sentences, and the adapters after each iteration, at the end and in training.
struct Watched {
    looks: Vec<Look>,
    error: Option<String>,
    verdict: Option<String>,
    averages: Vec<Vec<u8>>,
    kept: Vec<u8>,
}

fn watched(config: Config) -> Option<Watched> {
    let gpu = adapter("a watched training")?;
    let (model, references) = (model(), references());
    let mut trainer = Trainer::new(Box::new(gpu), &setup(&model, &references), config).expect("a trainer");
    let (mut looks, mut averages, mut error) = (Vec::new(), Vec::new(), None);
    let bytes = |a: pentimento_trainer::Result<Adapter>| a.and_then(|a| a.write_bytes()).expect("an adapter");
    loop {
        match trainer.step() {
            Ok(Event::Watch(look)) => {
                if looks.is_empty() {
                    averages.push(bytes(trainer.average()));
                }
                looks.push(look);
            }
            Ok(Event::Iteration(_)) => averages.push(bytes(trainer.average())),
            Ok(Event::Done) => break,
            Ok(_) => {}
            Err(e) => {
                error = Some(e.to_string());
                break;
            }
        }
    }
    let kept = bytes(trainer.adapter());
    Some(Watched { looks, error, verdict: trainer.verdict(), averages, kept })
}

/// A rate that destroys the model: the run says so and hands back an adapter from before.
#[test]
fn a_destroyed_model_is_not_handed_out() {
    let config = with(tiny(5), |c| {
        (c.recipe, c.iterations, c.watch.every, c.optim.rate) = (Recipe::Grpo, 12, 1, 0.05);
    });
    let Some(run) = watched(config) else { return };
    let say = run.verdict.expect("a sentence");
    let best = run.looks.last().and_then(|l| l.best).expect("a best look");
    assert!(run.error.is_some() || run.looks.iter().any(|l| l.stop.is_some()), "{:?}", run.looks);
    assert!(best + 1 < run.averages.len(), "nothing was destroyed: {:?}", run.looks);
    assert!(run.kept == run.averages[best], "iteration {best} is the best, another is kept");
    assert!(say.contains(if best == 0 { "warm start is kept" } else { "iteration" }), "{say}");
}

/// Looks draw from a stream of their own and put the adapter in training back.
#[test]
fn watching_changes_nothing_in_training() {
    let config = |every| with(tiny(5), |c| (c.iterations, c.watch.every) = (3, every));
    let Some(off) = watched(config(0)) else { return };
    let Some(on) = watched(config(2)) else { return };
    assert!(off.looks.is_empty() && off.verdict.is_none() && off.kept == off.averages[2]);
    assert_eq!(on.looks.iter().map(|l| l.iteration).collect::<Vec<_>>(), [0, 2, 3]);
    assert!(on.averages[1..] == off.averages, "looks changed what is learnt");
    let first = &on.looks[0];
    assert!(first.distance.is_finite() && first.distance > 0.0 && first.diversity > 0.0, "{first:?}");
    assert!(first.silhouettes.is_some_and(|s| s > 0.3) && first.head_loss.is_none(), "{first:?}");
    assert!(on.looks[1].head_loss.is_some_and(f32::is_finite), "{:?}", on.looks);
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

/// Ranks that no kernel likes: the file has the rank that was asked for, and every row and column of it has learnt.
#[test]
fn any_rank_trains() {
    for rank in [1, 3, 6] {
        let Some((start, end, metrics)) = train(Config { rank, iterations: 2, ..tiny(5) }) else { return };
        assert!(metrics.gradient_norm > 0.0 && metrics.gradient_norm.is_finite(), "{metrics:?}");
        let [start, end] =
            [start, end].map(|bytes| Weights::from_bytes("adapter", bytes).expect("an adapter"));
        let width = ModelFolder::open(&model()).map(|f| Pipeline::open(&f, Box::new(Cpu::new())));
        let width = width.expect("a folder").expect("a model").mmdit.width();
        let name = |half: &str| format!("transformer.transformer_blocks.0.attn.to_q.lora_{half}.weight");
        let read = |from: &Weights, half: &str, shape: [usize; 2]| {
            from.expect(&name(half), &shape)
                .expect("a factor of the rank that was asked for")
                .to_f32()
                .expect("room")
        };
        let (a, b) = (read(&end, "A", [rank, width]), read(&end, "B", [width, rank]));
        let before = read(&start, "A", [rank, width]);
        for k in 0..rank {
            assert!(a[k * width..][..width] != before[k * width..][..width], "rank {rank}: row {k} of A");
            assert!(b.iter().skip(k).step_by(rank).any(|v| *v != 0.0), "rank {rank}: column {k} of B");
        }
    }
}

/// Loss and gradients of flow matching on a few latents, with an adapter of rank 6 that is not zero anywhere.
struct SixRanks {
    pipeline: Pipeline,
    params: Params,
    values: Vec<Vec<f32>>,
}

const SIX: usize = 6;
const LATENTS: [usize; 2] = [2, 3];

impl SixRanks {
    fn open(exec: Box<dyn Executor>, rank: usize) -> Self {
        let folder = ModelFolder::open(&model()).expect("a folder");
        let mut pipeline = Pipeline::open(&folder, exec).expect("a model");
        pipeline.lora = Some(Lora::joint(&pipeline.mmdit, rank, 2.0));
        let params = Params::new(&pipeline.mmdit, SIX);
        let mut rng = Philox::new(3, 0);
        let mut draw = |(_, [r, c]): (String, [usize; 2])| {
            let mut data = vec![0.0; r * c];
            rng.normals(&mut data);
            data.iter_mut().for_each(|v| *v *= 0.1);
            data
        };
        let values = params.leaves().into_iter().map(&mut draw).collect();
        SixRanks { pipeline, params, values }
    }
    /// Runs a plan of [`objective::flow::supervised`] on fixed inputs.
    fn run(&mut self, plan: PlanId) -> f32 {
        let m = &self.pipeline.mmdit;
        let context = self.pipeline.context_tokens() * m.joint_attention_dim;
        let numbers = LATENTS[0] * LATENTS[1] * m.in_channels;
        let inputs = [
            ("latents", numbers),
            ("target", numbers),
            ("time", 256),
            ("pooled", m.pooled_projection_dim),
            ("context", context),
        ];
        let mut rng = Philox::new(4, 0);
        for (name, length) in inputs {
            let mut data = vec![0.0; length];
            rng.normals(&mut data);
            self.pipeline.exec.write(plan, name, &data).expect("an input");
        }
        self.pipeline.exec.run(plan).expect("a run");
        self.pipeline.exec.read(plan, "loss").expect("a loss")[0]
    }
    /// As [`objective::flow::supervised`], but at rank 6 on the device too.
    fn unpadded(&mut self) -> (f32, Vec<Vec<f32>>) {
        let mut g = Graph::new();
        let (x, v) = self.pipeline.velocity_graph(&mut g, "", 1, LATENTS, None);
        let shape = g.shape(x).to_vec();
        let target = g.input("target", &shape);
        let d = g.sub(v, target);
        let square = g.unary(pentimento_wgsl::kernel::Unary::Square, d);
        let loss = g.mean(square, 1);
        let dy = g.input("seed", &[1]);
        let leaves = self.params.leaves();
        let ids: Vec<_> = leaves.iter().map(|(name, shape)| g.param(name.clone(), shape)).collect();
        let grads = gradients(&mut g, loss, dy, &ids, false).expect("gradients");
        let named = leaves.iter().map(|l| l.0.as_str()).zip(grads);
        let outputs: Vec<_> = named.chain([("loss", loss)]).collect();
        for ((name, _), data) in leaves.iter().zip(&self.values) {
            self.pipeline.set_param(name, data).expect("a parameter");
        }
        let plan = self.pipeline.compile(g, &outputs, LATENTS).expect("a plan");
        self.pipeline.exec.write(plan, "seed", &[1.0]).expect("an input");
        let loss = self.run(plan);
        let read = |(name, _): &(String, _)| self.pipeline.exec.read(plan, name).expect("a gradient");
        (loss, leaves.iter().map(read).collect())
    }
}

/// Twins of kernels that sum each number up at once, whatever the rank: products for GPUs are summed up in parts, or together with
/// an adapter's, when sides are multiples of four, as those of rank 6 are not.
fn plain_twins() -> Box<dyn Executor> {
    Box::new(Cpu::planned(Caps { class: Class::Software, ..Caps::unlimited("cpu") }))
}

/// What rank 6 is padded with on the device gets a gradient of exactly zero and changes nothing: on the twins not a bit.
#[test]
fn padding_is_inert() {
    let wide = device_rank(SIX);
    assert_eq!((wide, device_rank(1), device_rank(8)), (8, 4, 8));
    let (loss, right) = SixRanks::open(plain_twins(), SIX).unpadded();
    let gpu = adapter("padding").map(|gpu| Box::new(gpu) as Box<dyn Executor>);
    for (exact, exec) in std::iter::once((true, plain_twins())).chain(gpu.map(|g| (false, g))) {
        let mut run = SixRanks::open(exec, wide);
        run.params.upload(&mut run.pipeline, &run.values).expect("parameters");
        let plan =
            objective::flow::supervised(&mut run.pipeline, &run.params, 1, LATENTS, Recompute::Nothing)
                .expect("a plan");
        let padded = run.run(plan);
        let grads = run.params.gradients(&mut *run.pipeline.exec, plan).expect("gradients");
        assert!((padded - loss).abs() <= if exact { 0.0 } else { 1e-5 * loss.abs() }, "{padded} and {loss}");
        for (((name, [rows, columns]), got), right) in run.params.leaves().into_iter().zip(&grads).zip(&right)
        {
            let raw = run.pipeline.exec.read(plan, &name).expect("a gradient");
            let padding: Vec<f32> = if name.ends_with("lora_A.weight") {
                raw[rows * columns..].to_vec()
            } else {
                raw.chunks_exact(wide).flat_map(|row| row[SIX..].iter().copied()).collect()
            };
            assert!(padding.len() == raw.len() / 4 && padding.iter().all(|g| *g == 0.0), "{name} is pulled");
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
            let off = norm(&mut got.iter().zip(right).map(|(a, b)| a - b));
            let limit = if exact { 0.0 } else { 1e-4 * norm(&mut right.iter().copied()) };
            assert!(got.len() == right.len() && off <= limit, "{name}: off by {off}, limit {limit}");
        }
        assert!(grads.iter().flatten().any(|g| *g != 0.0), "no gradient at all");
    }
}

/// What is computed again is what was kept, up to the roundings of what is fused with it.
#[test]
fn recomputing_changes_roundings_only() {
    let mut run = SixRanks::open(plain_twins(), device_rank(SIX));
    run.params.upload(&mut run.pipeline, &run.values).expect("parameters");
    let [kept, most, all] = [Recompute::Nothing, Recompute::Most, Recompute::All].map(|recompute| {
        let plan = objective::flow::supervised(&mut run.pipeline, &run.params, 1, LATENTS, recompute);
        let plan = plan.expect("a plan");
        let loss = run.run(plan);
        let gradients = run.params.gradients(&mut *run.pipeline.exec, plan).expect("gradients");
        (run.pipeline.exec.plan(plan).commands.len(), loss, gradients)
    });
    assert!(all.0 > most.0 && most.0 > kept.0);
    for again in [most, all] {
        assert!((again.1 - kept.1).abs() <= 1e-5 * kept.1.abs());
        for (a, b) in again.2.iter().zip(&kept.2) {
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|v| v * v).sum::<f32>().sqrt();
            let (off, size) = (norm(&mut a.iter().zip(b).map(|(a, b)| a - b)), norm(&mut b.iter().copied()));
            assert!(off <= 1e-5 * size, "off by {off} of {size}");
        }
    }
    assert!(kept.2.iter().flatten().any(|g| *g != 0.0), "no gradient at all");
}

#[test]
fn the_released_objective_runs() {
    let released = Config::released();
    let config = with(clipped(5), |c| {
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
    let mut pipeline = Pipeline::open(&folder, Box::new(Cpu::new())).expect("configurations fit");
    let error = pipeline.velocity(1, [8, 8]).expect_err("a mis-shaped tensor").to_string();
    assert!(error.contains("pos_embed") && error.contains("144") && error.contains("256"), "{error}");

    assert!(refusal(&model(), &[]).contains("references"));
    let pickscore = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/clip_reward");
    let (model, references) = (model(), references());
    let error = refusal_of(&Setup { reward: Some(&pickscore), ..setup(&model, &references) });
    assert!(error.contains("clip_reward") && error.contains("vocab.json"), "{error}");
    let config = with(tiny(0), |c| c.head.alignment = 0.5);
    let Err(error) = Trainer::new(Box::new(Cpu::new()), &setup(&model, &references), config) else {
        panic!("accepted")
    };
    assert!(error.to_string().contains("CLIP"), "{error}");

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
        (with(tiny(0), |c| c.rank = 0), "rank"),
        (with(tiny(0), |c| c.rollout.group = 3), "group"),
        (with(tiny(0), |c| c.rollout.window = 9), "window"),
        (with(clipped(0), |c| c.grpo.updates = 5), "updates"),
        (with(preset("nft", 1), |c| c.rollout.group = 1), "group"),
        (with(preset("nft", 1), |c| c.nft.noisings = 0), "noisings"),
        (with(tiny(0), |c| c.head.alignment = 1.5), "alignment"),
        (with(preset("sft", 1), |c| c.head.alignment = 0.5), "alignment"),
        (with(preset("sft", 1), |c| c.prior.weight = f32::NAN), "prior.weight"),
    ] {
        let error = config.check().expect_err(field).to_string();
        assert!(error.contains(field), "{error}");
    }
}
