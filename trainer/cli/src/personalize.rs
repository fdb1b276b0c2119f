//! `pentimento personalize`.
use crate::ask::Ask;
use crate::device::DeviceArgs;
use crate::generate::lines;
use crate::job::Job;
use crate::memory::{duration, given_up, table};
use crate::out::{Out, REFERENCE_PICTURES, REFERENCES, SHOWN_REFERENCES, THUMB};
use crate::progress::Spinner;
use crate::report::save_sheet;
use crate::settings::SettingArgs;
use crate::stop::Stop;
use clap::Args as ClapArgs;
use pentimento_runtime::caps::Caps;
use pentimento_runtime::folder::ModelFolder;
use pentimento_trainer::config::Config;
use pentimento_trainer::estimate::{self, Estimate};
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::images::Picture;
use pentimento_trainer::recipe::PRESETS;
use pentimento_trainer::references::{Reference, Survey, load, summary as framed};
use pentimento_trainer::settings::{MOST_SECONDS, Settings};
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
    /// File with one training prompt a line; the captions by default.
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// File with one prompt a line for before.png and after.png; the training prompts by default.
    #[arg(long)]
    show: Option<PathBuf>,
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
    /// Draw the pictures of before.png every so many iterations, as OUT/iteration-N.png, N the iteration; 0: never. SIGUSR1 asks for
    /// one after the iteration or warm-start step in progress. A CPU's driver then holds a few MB more than --estimate says.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preview: usize,
    /// File that keeps encoded prompts between runs; with all of them in it the text encoders are not run.
    #[arg(long, value_name = "FILE")]
    pub text_cache: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl Args {
    /// Refuses values that mean nothing.
    fn check(&self) -> Result<()> {
        for (name, value, most) in
            [("--save-every", Some(self.save_every), MOST_SECONDS / 60.0), ("--speed", self.speed, 1e9)]
        {
            if let Some(v) = value.filter(|v| !(*v > 0.0 && *v <= most)) {
                return Err(Error::bad(name, "a positive number", v.to_string()));
            }
        }
        if self.limit == Some(0) {
            return Err(Error::bad("--limit", "at least 1 reference", "0"));
        }
        Ok(())
    }
}

pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    args.check()?;
    let ask = Ask::install();
    args.settings.resolve(true)?; // mistakes are told before a device is opened
    let mut device = args.device.open()?;
    let exec = &mut device.0;
    let slow = exec.caps().class == Class::Software || large(args)?;
    let mut settings = args.settings.resolve(slow)?;
    println!("training on {}", exec.caps().name);
    let size = size(args, &settings)?;
    let references = references(args, &settings, size)?;
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
    let fitted = within(&caps, &setup, &mut settings)?;
    let preset = args.settings.base.preset.as_deref();
    if args.estimate || preset.is_some() {
        let estimate = fitted.map_or_else(|| estimate::estimate(&caps, &setup, &settings.config), Ok)?;
        let rate = args.speed.map_or_else(|| estimate::speed(&mut **exec), |tflops| Ok(1e12 * tflops))?;
        if args.estimate {
            table(&caps, &estimate, &settings.config, rate);
            return Ok(());
        }
        preset.iter().for_each(|name| expect(name, &settings, &duration(&estimate, &settings.config, rate)));
    }
    let mut out = folder(args, &references, size)?;
    Job { args, setup, settings, slow, show, size, stop, ask: &ask }.run(device, &mut out)
}

/// Says what a preset is and how long it takes.
fn expect(name: &str, settings: &Settings, time: &str) {
    let about = PRESETS.iter().find(|p| p.name == name).map_or("", |p| p.about);
    match settings.seconds {
        None => {
            println!("preset {name}: {about} On this device, as busy as it is now, it takes about {time}.")
        }
        Some(seconds) => println!("preset {name}: {about} It ends after {}.", crate::memory::time(seconds)),
    }
}

/// The folder for what the run makes, with a word about what is there.
fn folder(args: &Args, references: &[Reference], [width, height]: [usize; 2]) -> Result<Out> {
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
        let picture = |r: &Reference| Picture::from_unit(width as u32, height as u32, &r.pixels);
        let pictures = references.iter().take(SHOWN_REFERENCES).map(picture).collect::<Result<Vec<_>>>()?;
        save_sheet(&out.path(REFERENCE_PICTURES), &pictures, THUMB)?;
    }
    Ok(out)
}

/// Settings that stay within the memory asked for, or else, as far as that can be, the device's own, of which a driver may have more than
/// it says; and what the training takes, where that was asked for.
fn within(caps: &Caps, setup: &Setup<'_>, settings: &mut Settings) -> Result<Option<Estimate>> {
    let (asked, own) = (settings.memory.map(|cap| cap.0), caps.memory.map(|own| own / 10 * 9));
    let Some(cap) = asked.or(own) else { return Ok(None) };
    let config = &settings.config;
    let rehearsing = Spinner::new("estimating memory");
    let (fitting, estimate) = match estimate::fit(caps, setup, config, cap) {
        Err(e @ Error::Call { .. }) if asked.is_none() => {
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
    given_up(config, &fitting).iter().for_each(|sentence| println!("{sentence}"));
    settings.config = fitting;
    Ok(Some(estimate))
}

/// The references to train on, and a line about them.
fn references(args: &Args, settings: &Settings, size: [usize; 2]) -> Result<Vec<Reference>> {
    let (survey, framing, [width, height]) =
        (Survey::of(&args.references)?, &settings.framing, size.map(|n| n as u32));
    let (mut references, unread) = load(&args.references, &survey, width, height, framing);
    // One bad picture in a folder is no reason to train on none.
    match unread.first() {
        Some(first) if references.is_empty() => return Err(first.clone()),
        _ => unread.iter().for_each(|e| eprintln!("passed over: {e}")),
    }
    if let Some(limit) = args.limit {
        pentimento_runtime::rng::Philox::new(settings.config.seed, 0x11).shuffle(&mut references);
        references.truncate(limit);
        references.sort_by(|a, b| a.name.cmp(&b.name));
    }
    println!("{}", framed(&references, framing, width, height));
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

/// Width and height that are trained at, pixels.
fn size(args: &Args, settings: &Settings) -> Result<[usize; 2]> {
    let folder = ModelFolder::open_with(&args.model, args.config.as_deref())?;
    let sample =
        folder.component_config("transformer")?.get("sample_size").and_then(serde_json::Value::as_u64);
    let label = folder.config_label("vae");
    let vae =
        pentimento_runtime::model::vae::VaeConfig::from_value(&folder.component_config("vae")?, &label)?;
    let native = sample.unwrap_or(128) as usize * vae.downscale();
    let Config { width, height, .. } = settings.config;
    Ok([width, height].map(|side| if side == 0 { native } else { side }))
}
