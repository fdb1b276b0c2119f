//! `pentimento personalize`.
use crate::device::DeviceArgs;
use crate::generate::{draw, lines, make_folder, say_cuts};
use crate::{Spinner, Stop, bar};
use clap::Args as ClapArgs;
use pentimento::folder::ModelFolder;
use pentimento::pipeline::Sampling;
use pentimento_trainer::config::Config;
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::images::{Picture, contact_sheet};
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::references::{Colour, Fit, Framing, Survey, load, summary as framed};
use pentimento_trainer::stage::watch::Look;
use pentimento_trainer::train::{Event, Metrics, Setup, Trainer};
use pentimento_trainer::{Error, Result};
use pentimento_wgsl::Class;
use serde_json::json;
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct Args {
    /// Model: a diffusers folder, or a single safetensors or GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// For a single file: a diffusers folder with what it lacks (tokenizers, configurations, other components).
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of PNG, JPEG or WebP images; captions in NAME.txt, NAME.caption, metadata.jsonl or metadata.csv.
    #[arg(long)]
    references: PathBuf,
    /// Folder for the adapter, the pictures and the metrics.
    #[arg(long)]
    out: PathBuf,
    /// Folder of the reward's network, DINOv2 or a CLIP such as PickScore's; `reward` inside the model folder by default.
    #[arg(long)]
    reward_model: Option<PathBuf>,
    /// Part of the reward, 0 to 1, that a CLIP's --reward-model gives for images that are what their prompts say.
    #[arg(long)]
    alignment: Option<f32>,
    /// File with one training prompt a line; the captions by default.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// File with one prompt a line for before.png and after.png; the training prompts by default.
    #[arg(long)]
    show: Option<PathBuf>,
    /// Train for about this long instead of a number of iterations.
    #[arg(long, conflicts_with = "iterations")]
    minutes: Option<f64>,
    /// Iterations after the warm start.
    #[arg(long)]
    iterations: Option<usize>,
    /// Supervised steps on the references before the first iteration.
    #[arg(long)]
    warm_steps: Option<usize>,
    /// Iterations from one look at fixed pictures to the next, which may end the training or go back to an earlier adapter;
    /// 0: none.
    #[arg(long)]
    watch_every: Option<usize>,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// LoRA rank; 16, or 32 with --recipe released, by default.
    #[arg(long)]
    rank: Option<usize>,
    /// Use at most this many references, chosen by the seed.
    #[arg(long)]
    limit: Option<usize>,
    /// Keep the adapter of every iteration, as iteration-N.safetensors.
    #[arg(long)]
    keep: bool,
    /// What to do with references that are not square: crop the centre, pad, or squash, which the released recipe always does.
    #[arg(long, value_name = "cover|pad|squash")]
    fit: Option<Fit>,
    /// Colour behind transparent references and around padded ones.
    #[arg(long, value_name = "RRGGBB", default_value = "ffffff")]
    background: Colour,
    /// What is done, and in which order; with `released`, --iterations counts epochs, with `sft` tens of steps.
    #[arg(long, default_value = "default", value_parser = Recipe::NAMES, conflicts_with = "official")]
    recipe: String,
    /// The same as --recipe released.
    #[arg(long)]
    official: bool,
    /// T5 tokens of a prompt; 256, or 128 with --recipe released, by default.
    #[arg(long)]
    text_tokens: Option<usize>,
    /// File that keeps encoded prompts between runs; with all of them in it the text encoders are not run.
    #[arg(long, value_name = "FILE")]
    text_cache: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Images in a contact sheet, and how they are sampled.
const SHEET: usize = 8;
const SHEET_STEPS: usize = 10;

impl Args {
    fn settings(&self, slow: bool) -> Result<Config> {
        let mut config = Config::recipe(self.name(), slow)?;
        config.seed = self.seed;
        config.text_tokens = self.text_tokens.unwrap_or(config.text_tokens);
        config.rank = self.rank.unwrap_or(config.rank);
        config.iterations = self.iterations.unwrap_or(config.iterations);
        config.warm.steps = self.warm_steps.unwrap_or(config.warm.steps);
        config.head.alignment = self.alignment.unwrap_or(config.head.alignment);
        config.watch.every = self.watch_every.unwrap_or(config.watch.every);
        Ok(config)
    }
    fn name(&self) -> &str {
        if self.official { "released" } else { &self.recipe }
    }
    fn framing(&self) -> Result<Framing> {
        let released = self.name() == "released";
        let usual = if released { Fit::Squash } else { Fit::default() };
        let fit = self.fit.unwrap_or(usual);
        if released && fit != Fit::Squash {
            let expected = "squash, as the released schedule does, or nothing";
            return Err(Error::bad(
                "--fit with --recipe released",
                expected,
                format!("{fit:?}").to_lowercase(),
            ));
        }
        Ok(Framing { fit, background: self.background })
    }
}

pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    let framing = args.framing()?;
    if let Some(m) = args.minutes.filter(|m| !(m.is_finite() && *m > 0.0)) {
        return Err(Error::bad("--minutes", "a positive number", m.to_string()));
    }
    let exec = args.device.open()?;
    let config = args.settings(exec.caps().class == Class::Software || large(args)?)?;
    config.check()?;
    println!("training on {}", exec.caps().name);
    let side = native_size(args)?;
    let survey = Survey::of(&args.references)?;
    let mut references = load(&args.references, &survey, side as u32, side as u32, &framing)?;
    if let Some(limit) = args.limit {
        pentimento::rng::Philox::new(args.seed, 0x11).shuffle(&mut references);
        references.truncate(limit.max(1));
        references.sort_by(|a, b| a.name.cmp(&b.name));
    }
    println!("{}", framed(&references, &framing, side as u32, side as u32));
    println!("{survey}");
    make_folder(&args.out)?;
    let used: String = references.iter().map(|r| format!("{}\n", r.name)).collect();
    write_atomically(&args.out.join("references.txt"), used.as_bytes())?;
    let prompts = args.prompts.as_deref().map_or(Ok(Vec::new()), lines)?;
    let setup = Setup {
        model: &args.model,
        config: args.config.as_deref(),
        reward: args.reward_model.as_deref(),
        references: &references,
        prompts: &prompts,
        text_cache: args.text_cache.as_deref(),
    };
    let loading = Spinner::new("loading");
    let mut work = Trainer::new(exec, &setup, config)?;
    if let Some(minutes) = args.minutes {
        work.set_deadline(60.0 * minutes);
    }
    drop(loading);
    let captions: Vec<String> = references.iter().filter_map(|r| r.caption.clone()).collect();
    let show = match &args.show {
        Some(path) => lines(path)?,
        None if prompts.is_empty() => captions,
        None => prompts.clone(),
    };
    let show: Vec<String> = show.into_iter().take(SHEET).collect();
    let read =
        [&prompts, &show].into_iter().flatten().chain(references.iter().filter_map(|r| r.caption.as_ref()));
    say_cuts(work.pipeline(), read.map(String::as_str));
    let how = Sampling { steps: SHEET_STEPS, guidance: 4.5, width: side, height: side };
    sheet(&mut work, args, &show, &how, stop, "before.png")?;
    let trained = train(&mut work, args, stop);
    // Whatever happened, the best adapter so far is worth keeping.
    let path = args.out.join("pytorch_lora_weights.safetensors");
    work.adapter()?.save(&path)?;
    work.verdict().iter().for_each(|sentence| println!("{sentence}"));
    println!("adapter: {}", crate::path(&path));
    trained?;
    work.show_average(true)?;
    if !stop.asked() {
        sheet(&mut work, args, &show, &how, stop, "after.png")?;
        println!("pictures: {0}/before.png and {0}/after.png", crate::path(&args.out));
    }
    Ok(())
}

/// `metrics.jsonl`, rewritten whole with every line.
struct Log {
    path: PathBuf,
    text: String,
    start: std::time::Instant,
}

impl Log {
    fn new(args: &Args) -> Self {
        Log { path: args.out.join("metrics.jsonl"), text: String::new(), start: std::time::Instant::now() }
    }
    /// Adds an object, with the seconds so far.
    fn add(&mut self, mut line: serde_json::Value) -> Result<()> {
        line["elapsed"] = json!(self.start.elapsed().as_secs_f64());
        self.text.push_str(&line.to_string());
        self.text.push('\n');
        write_atomically(&self.path, self.text.as_bytes())
    }
}

/// Whether an iteration takes many seconds on any device: SD3's sizes do.
fn large(args: &Args) -> Result<bool> {
    let folder = ModelFolder::open_with(&args.model, args.config.as_deref())?;
    let config = folder.component_config("transformer")?;
    let number = |key: &str| config.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
    Ok(number("num_attention_heads") * number("attention_head_dim") >= LARGE)
}
/// Width of a transformer that is large.
const LARGE: u64 = 1024;

fn native_size(args: &Args) -> Result<usize> {
    let folder = ModelFolder::open_with(&args.model, args.config.as_deref())?;
    let sample =
        folder.component_config("transformer")?.get("sample_size").and_then(serde_json::Value::as_u64);
    let label = folder.config_label("vae");
    let vae = pentimento::model::vae::Config::from_value(&folder.component_config("vae")?, &label)?;
    Ok(sample.unwrap_or(128) as usize * vae.downscale())
}

fn sheet(
    work: &mut Trainer,
    args: &Args,
    prompts: &[String],
    how: &Sampling,
    stop: &Stop,
    file: &str,
) -> Result<()> {
    let cache = args.text_cache.as_deref();
    let pictures: Vec<Picture> = draw(work.pipeline(), prompts, 1000, how, cache, stop)?;
    write_atomically(&args.out.join(file), &contact_sheet(&pictures, 8, 2)?.to_png()?)
}

/// Steps until done or stopped.
fn train(trainer: &mut Trainer, args: &Args, stop: &Stop) -> Result<()> {
    let mut log = Log::new(args);
    let iterations = trainer.config().iterations;
    let mut progress = bar(1, "preparing");
    let mut label = "preparing";
    while !stop.asked() {
        match trainer.step()? {
            Event::Working => {}
            Event::Encoded(done, all) => {
                progress.set_length(all as u64);
                progress.set_position(done as u64);
            }
            Event::Warm(done, all, loss) => {
                if label != "warm start" {
                    (label, progress) = ("warm start", bar(all as u64, "warm start"));
                }
                progress.set_length(all as u64);
                progress.set_position(done as u64);
                log.add(json!({"warm": done, "loss": loss}))?;
            }
            Event::Part(done, all) => {
                if label != "training" {
                    // What the warm start alone gives, for comparison.
                    trainer.average()?.save(&args.out.join("warm_start.safetensors"))?;
                    (label, progress) = ("training", bar((all * iterations) as u64, "training"));
                }
                let whole = progress.position() / all as u64;
                progress.set_position(whole * all as u64 + (done as u64).min(all as u64 - 1));
            }
            Event::Iteration(m) => {
                let all = progress.length().unwrap_or(0) / iterations.max(1) as u64;
                progress.set_position(m.iteration as u64 * all);
                progress.println(summary(&m));
                log.add(record(&m))?;
                if args.keep {
                    let name = format!("iteration-{}.safetensors", m.iteration);
                    trainer.average()?.save(&args.out.join(name))?;
                }
            }
            Event::Watch(look) => {
                progress.println(glance(&look));
                log.add(looked(&look))?;
            }
            Event::Done => break,
        }
    }
    progress.finish_and_clear();
    Ok(())
}

fn summary(m: &Metrics) -> String {
    if m.supervised_loss > 0.0 {
        let Metrics { iteration, supervised_loss, prior_loss, gradient_norm, seconds, .. } = m;
        return format!(
            "{iteration:>3}  loss {supervised_loss:.4} prior {prior_loss:.4}  gradient {gradient_norm:.3}  {seconds:.1} s"
        );
    }
    format!(
        "{:>3}  reward {:+.3} (references {:+.3})  head loss {:.3} accuracy {:.2}  gradient {:.3}  {:.1} s",
        m.iteration,
        m.reward_generated,
        m.reward_reference,
        m.head_loss,
        m.head_accuracy,
        m.gradient_norm,
        m.seconds
    )
}

fn glance(look: &Look) -> String {
    let shapes = look.silhouettes.map_or("without silhouettes".into(), |s| format!("silhouettes {s:.2}"));
    let (distance, diversity) = (look.distance, look.diversity);
    let end = look.stop.as_ref().map_or(String::new(), |why| format!("\n{why}"));
    format!("{:>3}  {shapes}  distance {distance:.3}  diversity {diversity:.1}{end}", look.iteration)
}

fn looked(look: &Look) -> serde_json::Value {
    json!({
        "watch": look.iteration,
        "silhouettes": look.silhouettes,
        "distance": look.distance,
        "diversity": look.diversity,
        "head_loss": look.head_loss,
        "best": look.best,
        "stop": look.stop,
    })
}

fn record(m: &Metrics) -> serde_json::Value {
    json!({
        "iteration": m.iteration,
        "reward_generated": m.reward_generated,
        "reward_reference": m.reward_reference,
        "reward_spread": m.reward_spread,
        "head_loss": m.head_loss,
        "head_accuracy": m.head_accuracy,
        "advantage_spread": m.advantage_spread,
        "clip_fraction": m.clip_fraction,
        "agreement": m.agreement,
        "rate": m.rate,
        "reward_pathwise": m.reward_pathwise,
        "anchor_loss": m.anchor_loss,
        "gradient_norm": m.gradient_norm,
        "supervised_loss": m.supervised_loss,
        "prior_loss": m.prior_loss,
        "seconds": m.seconds,
    })
}
