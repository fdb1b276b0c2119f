//! `pentimento generate`.
use crate::device::DeviceArgs;
use crate::drawn::{Drawn, Recipe};
use crate::out::make_folder;
use crate::progress::{Phase, Spinner};
use crate::stop::Stop;
use clap::Args as ClapArgs;
use pentimento_runtime::file;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Pipeline, Sampling, Text, TextSettings};
use pentimento_runtime::sampler;
use pentimento_runtime::shown::Shown;
use pentimento_runtime::text::T5_TOKENS;
use pentimento_runtime::weights::Base;
use pentimento_trainer::adapted::Source;
use pentimento_trainer::images::Picture;
use pentimento_trainer::{Error, Result, adapted, texts};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
pub struct Args {
    /// Model: a diffusers folder, or a single safetensors or GGUF file.
    #[arg(long)]
    pub model: PathBuf,
    /// For a single file: a diffusers folder with what it lacks (tokenizers, configurations, other components).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// LoRA adapter, a file or a folder that holds one, with a strength other than 1 behind a colon; several add up.
    #[arg(long, value_name = "FILE[:STRENGTH]")]
    pub adapter: Vec<OsString>,
    /// What to draw; may be given several times.
    #[arg(long, num_args = 1..)]
    pub prompt: Vec<String>,
    /// File with one prompt a line.
    #[arg(long)]
    pub prompts: Option<PathBuf>,
    /// What guidance leads away from.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub negative: String,
    /// Pictures of each prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Pictures drawn side by side: more is faster, as far as the device's memory allows.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub batch: u32,
    /// Sampling steps.
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Classifier-free guidance; 1 turns it off.
    #[arg(long, default_value_t = 4.5)]
    pub guidance: f32,
    /// Seed of the first picture; the next ones count up, prompt after prompt.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Pixels; the model's own size by default.
    #[arg(long)]
    pub width: Option<usize>,
    /// Pixels; the model's own size by default.
    #[arg(long)]
    pub height: Option<usize>,
    /// Quantise the model's matrices to 8 or 4 bits while loading: half or a quarter of the memory, and an approximation of the model.
    #[arg(long, value_name = "q8|q4")]
    pub base: Option<Base>,
    /// Keep the networks' weights in the host's memory, from where they come to the device for each pass: less of the device's memory, and
    /// later.
    #[arg(long)]
    pub stream: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// T5 tokens of a prompt.
    #[arg(long, default_value_t = T5_TOKENS)]
    pub text_tokens: usize,
    /// File that keeps encoded prompts between runs; with all of them in it the text encoders are not run.
    #[arg(long, value_name = "FILE")]
    pub text_cache: Option<PathBuf>,
    /// Folder for the pictures, NUMBER-PROMPT-SEED.png, and contact.png of all where there are several. What is there already stays.
    #[arg(long)]
    pub out: PathBuf,
}

/// Largest file of prompts, in bytes.
const MAX_PROMPTS: u64 = 16 << 20;

/// Non-empty lines of a file, and a line about them.
pub fn lines(path: &Path) -> Result<Vec<String>> {
    let place = path.display().to_string();
    let text = file::text(path, MAX_PROMPTS)?;
    let lines: Vec<String> =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
    if lines.is_empty() {
        return Err(Error::missing(place, "prompts, one a line"));
    }
    let empty = match text.lines().count() - lines.len() {
        0 => String::new(),
        n => format!("; passed over: {n} empty lines"),
    };
    println!("prompts in {place}: {}{empty}", lines.len());
    Ok(lines)
}

/// Prompts of which the end that is cut is shown; more are counted.
const CUTS: usize = 10;

/// Says how many prompts there are, and on stderr, once a prompt, what the text encoders do not read of it.
pub fn say_cuts<'a>(pipeline: &Pipeline, prompts: impl IntoIterator<Item = &'a str>) {
    let prompts: BTreeSet<&str> = prompts.into_iter().filter(|p| !p.is_empty()).collect();
    let all = prompts.len();
    let cuts: Vec<_> =
        prompts.into_iter().map(|p| (p, pipeline.cuts(p))).filter(|(_, c)| !c.is_empty()).collect();
    let long = if cuts.is_empty() { "none".to_string() } else { cuts.len().to_string() };
    println!("texts to read: {all}, {long} too long for an encoder");
    for (prompt, cuts) in cuts.iter().take(CUTS) {
        cuts.iter().for_each(|cut| eprintln!("prompt `{}`: {cut}", Shown { text: prompt, most: 40 }));
    }
    if let Some(more) = cuts.len().checked_sub(CUTS + 1) {
        eprintln!("{} more prompts are cut", more + 1);
    }
}

/// The prompt that guidance leads away from and others, encoded; they are added to the file `text_cache`.
fn encode(
    pipeline: &mut Pipeline,
    negative: &str,
    prompts: &[String],
    text_cache: Option<&Path>,
    stop: &Stop,
) -> Result<Vec<Text>> {
    let _reading = Spinner::new("reading prompts");
    let all: Vec<&str> = [negative].into_iter().chain(prompts.iter().map(String::as_str)).collect();
    let all = pipeline.encode_while(&all, &mut || !stop.asked())?;
    texts::save(pipeline, text_cache)?;
    Ok(all)
}

/// Draws what [`encode`] gave in batches of `rows`; image i has seed `seed + i`. `keep` is given the pictures of a batch, with their
/// numbers, when it is done.
pub fn draw(
    pipeline: &mut Pipeline,
    texts: &[Text],
    rows: usize,
    seed: u64,
    how: &Sampling,
    stop: &Stop,
    keep: &mut dyn FnMut(usize, Picture) -> Result<()>,
) -> Result<()> {
    let Some((null, texts)) = texts.split_first() else { return Ok(()) };
    let jobs: Vec<(&Text, u64)> = texts.iter().zip(seed..).collect();
    let batches = jobs.chunks(rows.max(1));
    let mut progress = Phase::new("drawing", batches.len() * how.steps);
    for (i, part) in batches.enumerate() {
        let all = jobs.len().div_ceil(rows.max(1)) * how.steps;
        let images = pipeline.generate(part, null, how, &mut |done, _| {
            progress.set(i * how.steps + done, all, " steps");
            !stop.asked()
        })?;
        for (k, image) in images.into_iter().enumerate() {
            keep(i * rows + k, Picture::from_unit(how.width as u32, how.height as u32, &image)?)?;
        }
    }
    Ok(())
}

/// What to draw: every prompt as often as asked.
fn prompts(args: &Args) -> Result<Vec<String>> {
    let mut prompts = args.prompt.clone();
    if let Some(path) = &args.prompts {
        prompts.extend(lines(path)?);
    }
    if prompts.is_empty() {
        return Err(
            Error::missing("command line", "a prompt").with_hint("Give --prompt TEXT or --prompts FILE.")
        );
    }
    if !args.negative.is_empty() && !sampler::guides(args.guidance) {
        let found = args.guidance.to_string();
        return Err(Error::bad(
            "--guidance beside --negative",
            "more than 1, else nothing is led away from",
            found,
        ));
    }
    Ok(prompts)
}

pub fn run(args: &Args, stop: &Stop) -> Result<()> {
    let prompts = prompts(args)?;
    let adapters = args.adapter.iter().map(|a| Source::parse(a)).collect::<Result<Vec<_>>>()?;
    let loading = Spinner::new("loading");
    let model = ModelFolder::open_with(&args.model, args.config.as_deref())?;
    let (exec, _keeper) = args.device.open()?;
    let cache = args.text_cache.as_deref();
    let text = TextSettings { t5_tokens: args.text_tokens, cache: texts::load(cache)? };
    let mut pipeline = adapted::open_with(&model, &adapters, exec, text)?;
    (pipeline.base, pipeline.stream) = (args.base, args.stream);
    let native = pipeline.native_size();
    let how = Sampling {
        steps: args.steps,
        guidance: args.guidance,
        width: args.width.unwrap_or(native),
        height: args.height.unwrap_or(native),
    };
    pipeline.latent_size(how.width, how.height)?;
    drop(loading);
    let read = prompts.iter().map(String::as_str).chain([args.negative.as_str()]);
    say_cuts(&pipeline, read);
    make_folder(&args.out)?;
    let recipe = Recipe::new(&args.model, &adapters, &args.negative, &how);
    let encoded = encode(&mut pipeline, &args.negative, &prompts, cache, stop)?;
    let (null, each) = encoded.split_at(1.min(encoded.len()));
    let count = args.count as usize;
    let texts: Vec<Text> =
        null.iter().chain(each.iter().flat_map(|t| core::iter::repeat_n(t, count))).cloned().collect();
    let (all, out) = (prompts.len() * count, args.out.display());
    let mut drawn = Drawn::new(&args.out, count, all)?;
    let batch = args.batch as usize;
    let ended = draw(&mut pipeline, &texts, batch, args.seed, &how, stop, &mut |i, picture| {
        let prompt = prompts.get(i / count).map_or("", String::as_str);
        drawn.keep(&recipe, prompt, args.seed.wrapping_add(i as u64), &picture)
    });
    let sheet = drawn.sheet();
    match drawn.done() {
        done if done == all => println!("{all} images in {out}"),
        done => println!("{done} of {all} images in {out}"),
    }
    ended?;
    sheet.map(|sheet| sheet.iter().for_each(|path| println!("all in one: {}", path.display())))
}
