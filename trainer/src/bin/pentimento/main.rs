//! The command-line tool: parses arguments, shows progress, writes files. No logic of its own.
mod device;
mod generate;
mod inspect;
mod personalize;

use clap::{Parser, Subcommand};
use pentimento::exec::wgpu::{Limits, Wgpu, adapters_within};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Parser)]
#[command(
    version,
    about = "Personalises SD3-family models to a few reference images, on whatever GPU there is"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List adapters with their backend, features and limits.
    Devices {
        /// Limits and features to show.
        #[arg(long, value_enum, default_value = "adapter")]
        limits: device::Within,
    },
    /// Say what a model folder or adapter file holds, and whether it can be used.
    Inspect(inspect::Args),
    /// Draw images.
    Generate(generate::Args),
    /// Train an adapter on a folder of reference images.
    Personalize(personalize::Args),
}

/// Set by Ctrl-C; work stops at the next step.
#[derive(Clone)]
struct Stop(Arc<AtomicBool>);

impl Stop {
    fn install() -> Self {
        let flag = Arc::new(AtomicBool::new(false));
        let set = flag.clone();
        let handler = move || {
            if set.swap(true, Ordering::SeqCst) {
                std::process::exit(130); // the second Ctrl-C does not wait
            }
            eprintln!("\nStopping after this step; press Ctrl-C again to quit at once.");
        };
        // Without a handler Ctrl-C simply ends the process, as usual.
        let _ = ctrlc::set_handler(handler);
        Stop(flag)
    }
    fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A path as it is printed: names of files can hold anything.
fn path(path: &std::path::Path) -> String {
    pentimento::shown::Shown { text: &path.display().to_string(), most: 4096 }.to_string()
}

fn bar(length: u64, what: &str) -> indicatif::ProgressBar {
    let style =
        indicatif::ProgressStyle::with_template("{msg:<12} [{bar:30}] {pos}/{len} {elapsed} (eta {eta})");
    let bar = indicatif::ProgressBar::new(length).with_message(what.to_string());
    bar.with_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()))
}

/// Shown while something without parts takes its time; gone when dropped.
struct Spinner(indicatif::ProgressBar);

impl Spinner {
    fn new(what: &str) -> Self {
        let spinner = indicatif::ProgressBar::new_spinner().with_message(what.to_string());
        spinner.enable_steady_tick(std::time::Duration::from_millis(120));
        Spinner(spinner)
    }
}
impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn devices(limits: Limits) -> pentimento::Result<()> {
    let all = adapters_within(limits);
    if all.is_empty() {
        Wgpu::open(None)?;
    }
    for a in all {
        println!("{}", a.name);
        println!("  {} on {}, {}", a.kind, a.backend, a.driver);
        println!(
            "  features: {}",
            if a.features.is_empty() { "none of interest".into() } else { a.features.join(", ") }
        );
        let c = &a.caps;
        println!(
            "  limits: binding {} MiB, buffer {} MiB, {} workgroups a side",
            c.max_binding >> 20,
            c.max_buffer >> 20,
            c.max_groups
        );
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Devices { limits } => devices((*limits).into()),
        Command::Inspect(args) => inspect::run(args),
        Command::Generate(args) => generate::run(args, &Stop::install()),
        Command::Personalize(args) => personalize::run(args, &Stop::install()),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
