//! `pentimento personalize`.
use crate::device::DeviceArgs;
use crate::generate::lines;
use crate::job::Job;
use crate::memory::{Bytes, given_up, table};
use crate::out::{Out, REFERENCES};
use crate::progress::Spinner;
use crate::stop::Stop;
use clap::Args as ClapArgs;
use pentimento::caps::Caps;
use pentimento::folder::ModelFolder;
use pentimento::grad::Recompute;
use pentimento::weights::Base;
use pentimento_trainer::config::Config;
use pentimento_trainer::estimate::{self, Estimate};
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::references::{Colour, Fit, Framing, Reference, Survey, load, summary as framed};
use pentimento_trainer::train::Setup;
use pentimento_trainer::{Error, Result};
use pentimento_wgsl::Class;
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
    /// Folder for the adapter, the pictures, the metrics and the run's state. A complete run replaces the files of an earlier one; a run that
    /// fails or is stopped leaves them alone, and its own in OUT/unfinished.
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
    pub minutes: Option<f64>,
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
    /// Go on with the run that left off in OUT: killed, stopped, out of power. Everything else is to be as it was, but for more
    /// --iterations or --minutes, which count what was done. Without such a run, one begins.
    #[arg(long)]
    resume: bool,
    /// Save the run's state, for --resume, at least every so many minutes. It is saved more often where that takes less than a
    /// hundredth of the time.
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    pub save_every: f64,
    /// Stay within so much of the device's memory, as in 6GB: by computing values again, then by fewer images at a time. By default what
    /// the device has.
    #[arg(long, value_name = "BYTES")]
    memory: Option<Bytes>,
    /// Say how much memory and work the run would take, and do nothing.
    #[arg(long)]
    estimate: bool,
    /// For --estimate: the device's speed in TFLOP/s; measured on large products of matrices by default, of which trainings come to a fifth
    /// to two thirds.
    #[arg(long, value_name = "TFLOPS", requires = "estimate")]
    speed: Option<f64>,
    /// Keep the adapter of every iteration, as iteration-N.safetensors.
    #[arg(long)]
    pub keep: bool,
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
    pub text_cache: Option<PathBuf>,
    /// Quantise the model's matrices to 8 or 4 bits while loading: half or a quarter of the memory, and an approximation of the model.
    #[arg(long, value_name = "q8|q4")]
    base: Option<Base>,
    /// Values to compute again on the way back instead of keeping them: less memory, up to a third more work. `most` leaves attentions out. By
    /// default as few as the device's memory allows.
    #[arg(long, value_enum)]
    recompute: Option<Again>,
    /// Keep the networks' weights in the host's memory, from where they come to the device for each pass: the same results in about 3 GB of
    /// the device's memory for SD3.5-medium at 512 pixels, and later. Done without a word where the device's memory asks for it.
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `--recompute`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Again {
    None,
    Most,
    All,
}

impl From<Again> for Recompute {
    fn from(again: Again) -> Self {
        match again {
            Again::None => Recompute::Nothing,
            Again::Most => Recompute::Most,
            Again::All => Recompute::All,
        }
    }
}

/// A hundred years.
const MOST_MINUTES: f64 = 60.0 * 24.0 * 36525.0;

impl Args {
    fn settings(&self, slow: bool) -> Result<Config> {
        let mut config = Config::recipe(self.name(), slow)?;
        config.seed = self.seed;
        (config.base, config.recompute) = (self.base, self.recompute.map(Recompute::from));
        config.stream = self.stream;
        config.text_tokens = self.text_tokens.unwrap_or(config.text_tokens);
        config.rank = self.rank.unwrap_or(config.rank);
        config.iterations = self.iterations.unwrap_or(config.iterations);
        config.warm.steps = self.warm_steps.unwrap_or(config.warm.steps);
        config.head.alignment = self.alignment.unwrap_or(config.head.alignment);
        config.watch.every = self.watch_every.unwrap_or(config.watch.every);
        Ok(config)
    }
    /// Refuses values that mean nothing.
    fn checked(&self) -> Result<Framing> {
        let minutes = [("--minutes", self.minutes), ("--save-every", Some(self.save_every))];
        let numbers = minutes.map(|(name, value)| (name, value, MOST_MINUTES));
        for (name, value, most) in numbers.into_iter().chain([("--speed", self.speed, 1e9)]) {
            if let Some(v) = value.filter(|v| !(*v > 0.0 && *v <= most)) {
                return Err(Error::bad(name, "a positive number", v.to_string()));
            }
        }
        if self.limit == Some(0) {
            return Err(Error::bad("--limit", "at least 1 reference", "0"));
        }
        self.framing()
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
    let framing = args.checked()?;
    let mut device = args.device.open()?;
    let exec = &mut device.0;
    let config = args.settings(exec.caps().class == Class::Software || large(args)?)?;
    config.check()?;
    println!("training on {}", exec.caps().name);
    let side = native_size(args)?;
    let references = references(args, &framing, side)?;
    let prompts = args.prompts.as_deref().map_or(Ok(Vec::new()), lines)?;
    let show = shown(args, &references, &prompts)?;
    let setup = Setup {
        model: &args.model,
        config: args.config.as_deref(),
        reward: args.reward_model.as_deref(),
        references: &references,
        prompts: &prompts,
        text_cache: args.text_cache.as_deref(),
    };
    let caps = exec.caps().clone();
    let (config, fitted) = within(args, &caps, &setup, config)?;
    if args.estimate {
        let estimate = fitted.map_or_else(|| estimate::estimate(&caps, &setup, &config), Ok)?;
        let rate = args.speed.map_or_else(|| estimate::speed(&mut **exec), |tflops| Ok(1e12 * tflops))?;
        table(&caps, &estimate, &config, rate);
        return Ok(());
    }
    let mut out = folder(args, &references)?;
    Job { args, setup, show, side, stop }.run(device, config, &mut out)
}

/// The folder for what the run makes, with a word about what is there.
fn folder(args: &Args, references: &[Reference]) -> Result<Out> {
    let out = Out::open(&args.out, &args.references, args.resume)?;
    if out.guards() {
        let (folder, work) = (args.out.display(), out.path(""));
        println!(
            "{folder} keeps an earlier run's files until this run is complete; its own are in {}",
            work.display()
        );
    }
    if out.left && !args.resume {
        println!("a run left off in {}: --resume would go on with it", args.out.display());
    }
    if args.resume && !out.resumes {
        println!("{} has no run to go on with, so one begins", args.out.display());
    }
    // A run that goes on has the same ones, or is refused and loses nothing.
    if !out.resumes {
        let used: String = references.iter().map(|r| format!("{}\n", r.name)).collect();
        write_atomically(&out.path(REFERENCES), used.as_bytes())?;
    }
    Ok(out)
}

/// Settings that stay within the memory asked for, or else, as far as that can be, the device's own, of which a driver may have more than
/// it says; and what the training takes, where that was asked for.
fn within(args: &Args, caps: &Caps, setup: &Setup<'_>, config: Config) -> Result<(Config, Option<Estimate>)> {
    let own = caps.memory.map(|own| own / 10 * 9);
    let Some(cap) = args.memory.map(|cap| cap.0).or(own) else { return Ok((config, None)) };
    let rehearsing = Spinner::new("estimating memory");
    let (fitting, estimate) = match estimate::fit(caps, setup, &config, cap) {
        Err(e @ Error::Bad { .. }) if args.memory.is_none() => {
            eprintln!("the device's memory may not do: {e}");
            let sparing = config.clone().sparing();
            let estimate = estimate::estimate(caps, setup, &sparing)?;
            (sparing, estimate)
        }
        fitting => fitting?,
    };
    drop(rehearsing);
    let most = estimate::megabytes(estimate.most());
    println!("takes at most {most} of the device's memory, when it comes to `{}`", estimate.when);
    given_up(&config, &fitting).iter().for_each(|sentence| println!("{sentence}"));
    Ok((fitting, Some(estimate)))
}

/// The references to train on, and a line about them.
fn references(args: &Args, framing: &Framing, side: usize) -> Result<Vec<Reference>> {
    let survey = Survey::of(&args.references)?;
    let (mut references, unread) = load(&args.references, &survey, side as u32, side as u32, framing);
    // One bad picture in a folder is no reason to train on none.
    match unread.first() {
        Some(first) if references.is_empty() => return Err(first.clone()),
        _ => unread.iter().for_each(|e| eprintln!("passed over: {e}")),
    }
    if let Some(limit) = args.limit {
        pentimento::rng::Philox::new(args.seed, 0x11).shuffle(&mut references);
        references.truncate(limit);
        references.sort_by(|a, b| a.name.cmp(&b.name));
    }
    println!("{}", framed(&references, framing, side as u32, side as u32));
    println!("{survey}");
    Ok(references)
}

/// Prompts of the contact sheets.
fn shown(args: &Args, references: &[Reference], prompts: &[String]) -> Result<Vec<String>> {
    let show = match &args.show {
        Some(path) => lines(path)?,
        None if prompts.is_empty() => references.iter().filter_map(|r| r.caption.clone()).collect(),
        None => prompts.to_vec(),
    };
    Ok(show.into_iter().take(estimate::SHEET).collect())
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
