//! The released training loop, replayed: recorded noise, patches and prompt order in; latents, rewards, losses,
//! gradients, adapter and head out, in the order in which they were computed.
use crate::common::executors;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::model::{channels_first, channels_last};
use pentimento_runtime::pipeline;
use pentimento_runtime::weights::Weights;
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::advantage::Spread;
use pentimento_trainer::config::Config;
use pentimento_trainer::images::Picture;
use pentimento_trainer::objective::grpo;
use pentimento_trainer::optim;
use pentimento_trainer::recipe::released::{ReleasedSchedule, Script};
use pentimento_trainer::references::Reference;
use pentimento_trainer::stage::rollout;
use pentimento_trainer::train::{Event, Setup, Trainer};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tests::fixture::{Check, Golden, Tolerance, root, within};

/// Folders under `trace` that hold a recording.
fn traces() -> Vec<PathBuf> {
    let top = root().join("trace");
    let inside = std::fs::read_dir(&top).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = inside.filter(|p| p.join("golden.json").is_file()).collect();
    found.sort();
    if found.is_empty() {
        println!("SKIPPED: no recorded runs in {}", top.display());
    }
    found
}

/// What a recording's configuration says.
struct Recorded {
    config: Config,
    prompts: Vec<String>,
    references: Vec<Reference>,
    pipeline: PathBuf,
}

impl Recorded {
    fn new(golden: &Golden) -> Self {
        let c = &golden.json["config"];
        let whole = |key: &str| c[key].as_u64().unwrap_or_else(|| panic!("config.{key}")) as usize;
        let real = |key: &str| c[key].as_f64().unwrap_or_else(|| panic!("config.{key}")) as f32;
        let side = whole("res");
        let mut config = Config {
            width: side,
            height: side,
            rank: whole("r"),
            lora_scale: real("alpha") / real("r"),
            ..Config::released()
        };
        config.rollout = rollout::Settings {
            prompts: whole("num_batches"),
            group: whole("mini"),
            steps: whole("num_steps"),
            window: whole("train_num_steps"),
            window_start: Some(whole("random_timestep")),
            guidance: real("guidance"),
            eta: real("noise_level"),
            ..config.rollout
        };
        config.grpo = grpo::Settings {
            beta: real("beta"),
            clip: real("clip_range"),
            advantage_limit: real("adv_clip_max"),
            spread: if c["global_std"].as_bool() == Some(true) { Spread::Global } else { Spread::Group },
            ..config.grpo
        };
        config.optim = optim::Settings {
            rate: real("lr"),
            max_norm: real("max_grad_norm"),
            weight_decay: real("wd"),
            ema: real("ema_decay"),
            micro_batch: whole("mini"),
            ..config.optim
        };
        config.head.rate = real("d_lr");
        let schedule = ReleasedSchedule {
            d_times: whole("d_times"),
            ema_interval: whole("ema_interval"),
            hidden: whole("h_hidden"),
            ..ReleasedSchedule::default()
        };
        let prompts: Vec<String> =
            c["prompts"].as_array().expect("config.prompts").iter().map(text).collect();
        let own = golden.path.join("pipeline");
        let pipeline = if own.is_dir() { own } else { golden.path.join("../main/pipeline") };
        let references = references(&golden.path.join("refs"), &prompts, side as u32);
        config.released = schedule;
        config.iterations = whole("epochs");
        Recorded { config, prompts, references, pipeline }
    }
}
fn text(v: &Value) -> String {
    v.as_str().expect("a text").to_string()
}

/// `p{prompt}_{number}.png`, in order.
fn references(folder: &Path, prompts: &[String], side: u32) -> Vec<Reference> {
    let mut all = Vec::new();
    for (p, prompt) in prompts.iter().enumerate() {
        for j in 0.. {
            let path = folder.join(format!("p{p}_{j}.png"));
            if !path.is_file() {
                break;
            }
            let picture = Picture::open(&path).expect("a reference");
            all.push(Reference::new("reference", Some(prompt), &picture, side, side).expect("a reference"));
        }
    }
    assert!(!all.is_empty(), "references in {}", folder.display());
    all
}

/// Answers with what was recorded, and compares what is computed.
struct Replay {
    golden: &'static Golden,
    check: Check<'static>,
    seen: BTreeSet<String>,
    averages: usize,
    /// Largest deviation of the training run's advantages.
    inherited: f64,
}

impl Replay {
    /// Device layout to the file's, for a tensor of 4 axes with channels first.
    fn compare(&mut self, name: &str, values: &[f32]) {
        if self.golden.json["tensors"][name]["role"] != "expect" {
            return;
        }
        let stored = match self.golden.shape(name) {
            &[_, c, h, w] if !name.ends_with("_u8") => channels_first(values, c, h * w),
            _ => values.to_vec(),
        };
        self.seen.insert(name.to_string());
        let tol = self.limit(name);
        if name.ends_with(".advantages") {
            let pairs = stored.iter().zip(self.golden.floats(name));
            self.inherited = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        }
        self.check.against(name, &stored, &self.golden.numbers(name), tol);
    }

    /// Whether a tensor that is a part `by` off fails, as it must where its recorded limits notice that: those of a loss
    /// near zero do not.
    fn misses(&self, name: &str, by: f32) -> bool {
        let right = self.golden.floats(name);
        let off: Vec<f32> = right.iter().map(|a| (1.0 + by) * a).collect();
        let fails = |limit| within(&off, right, limit).is_err();
        fails(self.limit(name)) || !fails(self.golden.tolerance(name))
    }

    /// The recorded limits, ten times the deviations of one f32 run, with three exceptions. Adam turns rounding noise on
    /// near-zero gradients into steps of a whole learning rate, so adapters are held by their norms, as the set's README
    /// asks. Of a single number both limits measure the same: the larger holds. A generator's loss is the mean of
    /// advantages times ratios near 1: what its advantages were off here (they have limits of their own), it may be off
    /// too; by chance, the recorded f32 run's mistakes can cancel in that mean.
    fn limit(&self, name: &str) -> Tolerance {
        let own = self.golden.tolerance(name);
        if name.contains(".lora.") {
            return Tolerance { max_abs: f64::INFINITY, ..own };
        }
        let numbers = self.golden.numbers(name);
        let &[number] = numbers.as_ref() else { return own };
        let size = f64::from(number).abs();
        let loss = name.ends_with(".loss") || name.ends_with(".policy_loss");
        let more = if loss { self.inherited } else { 0.0 };
        let max_abs = own.max_abs.max(own.rel_l2 * size) + more;
        Tolerance { max_abs, rel_l2: if size > 0.0 { max_abs / size } else { own.rel_l2 } }
    }
}

impl Script for Replay {
    fn order(&mut self, epoch: usize, _: usize, _: usize) -> Vec<usize> {
        let order = self.golden.json["config"]["order"][epoch].as_array().expect("config.order");
        order.iter().map(|p| p.as_u64().expect("a prompt") as usize).collect()
    }
    fn noise(&mut self, name: &str, out: &mut [f32]) {
        let &[_, c, h, w] = self.golden.shape(name) else { panic!("{name} is [B, C, H, W]") };
        out.copy_from_slice(&channels_last(self.golden.floats(name), c, h * w, c));
    }
    fn patches(&mut self, name: &str, images: usize, _: usize, _: usize) -> Vec<Vec<u32>> {
        let all = self.golden.ints(name);
        let lists = all.chunks_exact(all.len() / images);
        lists.map(|list| list.iter().map(|&p| p as u32).collect()).collect()
    }
    fn note(&mut self, name: &str, values: &[f32]) {
        if name == "ema.call" {
            let recorded = self.golden.ints(&format!("ema{}.call", self.averages));
            let got: Vec<i64> = values.iter().map(|&v| v as i64).collect();
            self.check.exact("ema.call", &got, recorded);
            self.averages += 1;
        }
        let name = name.replacen("head/", "head_after.layers.", 1);
        let name = name.replacen("grad/", "grad.base_model.model.", 1);
        let name = name.replacen("lora/", "lora.base_model.model.", 1);
        let name = name.replacen("lora.transformer", "lora.base_model.model.transformer", 1);
        let name = match name.strip_prefix("ema.") {
            Some(rest) => format!("ema{}.{rest}", self.averages.saturating_sub(1)),
            None => name,
        };
        self.compare(&name, values);
    }
}

/// What must not pass: results that are off by this part.
fn noticed(name: &str) -> Option<(&str, f32)> {
    let by = match name.rsplit_once('.')?.1 {
        "advantages" | "loss" => 0.01,
        "log_prob" => 1e-3,
        "weight" if name.contains(".lora.") && !name.ends_with("lora_B.weight") => 1e-3,
        _ => return None,
    };
    Some((name, by))
}

fn open(golden: &Golden, exec: Box<dyn Executor>, recorded: &Recorded) -> Trainer {
    let reward = golden.path.join("dino");
    let setup = Setup {
        model: &recorded.pipeline,
        config: None,
        reward: Some(&reward),
        references: &recorded.references,
        prompts: &recorded.prompts,
        text_cache: None,
    };
    let mut run = Trainer::new(exec, &setup, recorded.config.clone()).expect("a run");
    let layers =
        pipeline::layers(&ModelFolder::open(&recorded.pipeline).expect("a model")).expect("its layers");
    let adapter = Adapter::load(&golden.path.join("lora_init"), &layers).expect("the first adapter");
    run.start_from(&adapter).expect("an adapter that fits");
    let bytes = std::fs::read(golden.path.join("head_init.safetensors")).expect("the first head");
    let head = Weights::from_bytes("head_init", bytes).expect("the first head");
    let names = ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"];
    let tensor = |name: &&str| head.get(name).expect("a tensor of the head").to_f32().expect("room");
    run.start_head_from(names.iter().map(tensor).collect()).expect("a head that fits");
    run
}

#[test]
fn the_released_loop_is_replayed() {
    for path in traces() {
        // The trainer owns its script, so what the script reads must live as long.
        let golden: &'static Golden = Box::leak(Box::new(Golden::open(&path)));
        let recorded = Recorded::new(golden);
        for (name, exec) in executors("recorded runs") {
            let name: &'static str = Box::leak(name.into());
            let mut run = open(golden, exec, &recorded);
            let replay = Rc::new(RefCell::new(Replay {
                golden,
                check: Check::new(golden, name),
                seen: BTreeSet::new(),
                averages: 0,
                inherited: 0.0,
            }));
            run.set_script(Box::new(replay.clone())).expect("the released schedule");
            for (tensor, by) in golden.expectations().filter_map(noticed) {
                assert!(
                    replay.borrow().misses(tensor, by),
                    "{name}: {tensor} off by a part {by} must be noticed"
                );
            }
            while !matches!(run.step().expect("a step"), Event::Done) {}
            finish(golden, &recorded, &mut run, &mut replay.borrow_mut());
            let missed: Vec<&str> = golden
                .names()
                .filter(|n| {
                    golden.json["tensors"][n]["role"] == "expect" && !replay.borrow().seen.contains(*n)
                })
                .collect();
            assert!(missed.is_empty(), "{}: not compared: {missed:?}", path.display());
            drop(run);
            let replay = Rc::try_unwrap(replay).ok().expect("the trainer is gone");
            replay.into_inner().check.finish();
        }
    }
}

/// What is compared once: texts, the count of steps, the pictures of the averaged adapter.
fn finish(golden: &Golden, recorded: &Recorded, run: &mut Trainer, replay: &mut Replay) {
    let labels = std::iter::once("negative".to_string())
        .chain((0..recorded.prompts.len()).map(|p| format!("prompt{p}")));
    for (label, text) in labels.zip(run.texts()) {
        replay.compare(&format!("{label}.prompt_embeds"), &text.context);
        replay.compare(&format!("{label}.pooled"), &text.pooled);
    }
    replay.compare("final.global_step", &[run.global_step() as f32]);
    if golden.has("eval.latents_init") {
        let &[n, c, h, w] = golden.shape("eval.latents_init") else { panic!("[B, C, H, W]") };
        let x = channels_last(golden.floats("eval.latents_init"), c, h * w, c);
        let who: Vec<usize> = (0..n).map(|i| i % recorded.prompts.len()).collect();
        let steps = (0..).take_while(|s| golden.has(&format!("eval.b0.s{s}.latents_after"))).count();
        run.evaluate(&who, steps, x, replay).expect("images");
    }
}
