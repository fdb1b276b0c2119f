//! The command-line tool: parses arguments, shows progress, writes files. No logic of its own.

/// The standard library's ends in a panic where standard output is closed or full.
macro_rules! println {
    ($($text:tt)*) => { $crate::say::line(format_args!($($text)*)) };
}
/// As `println!`.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::say::aside(format_args!($($text)*)) };
}

mod ask;
mod course;
mod device;
mod drawn;
mod generate;
mod inspect;
mod job;
mod memory;
mod out;
mod page;
mod personalize;
mod progress;
mod report;
mod say;
mod settings;
mod stop;

use clap::{Parser, Subcommand};
use pentimento_runtime::Error;
use std::process::ExitCode;
use stop::Stop;

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
    /// List adapters with index, PCI id, backend, features and limits.
    Devices {
        /// Limits and features to show.
        #[arg(long, value_enum, default_value = "adapter")]
        limits: device::Within,
        /// Compare a small network with the CPU, command by command, and measure the device: some seconds each.
        #[arg(long)]
        test: bool,
        /// Only this one: index, PCI id, or a part of the name that no other device has.
        #[arg(long)]
        device: Option<String>,
    },
    /// Say what a model folder or adapter file holds, and whether it can be used.
    Inspect(inspect::Args),
    /// Draw images. Each is written when its batch is done; Ctrl-C keeps those.
    Generate(Box<generate::Args>),
    /// Train an adapter on a folder of reference images. Ctrl-C, SIGTERM or SIGHUP end after the current step and keep what is
    /// trained.
    Personalize(Box<personalize::Args>),
    /// Make the page that tells of a run, from what is in its folder, or one that compares several.
    Report(page::Args),
    /// Print all settings of a training as a file that `personalize --settings` takes: what each is, may be, and is by default.
    Settings(settings::Args),
}

fn main() -> ExitCode {
    quiet_driver();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let printed = e.print().err().filter(|_| !e.use_stderr());
            printed.into_iter().for_each(say::note);
            return end(Ok(()), e.exit_code());
        }
    };
    let result = match &cli.command {
        Command::Devices { limits, test, device } => device::list((*limits).into(), device.as_deref(), *test),
        Command::Inspect(args) => inspect::run(args),
        Command::Generate(args) => generate::run(args, &Stop::install()),
        Command::Personalize(args) => personalize::run(args, &Stop::install()),
        Command::Report(args) => page::run(args),
        Command::Settings(args) => settings::run(args),
    };
    end(result, 0)
}

/// The exit status, after a word on standard error about what went wrong.
fn end(result: pentimento_runtime::Result<()>, good: i32) -> ExitCode {
    match result.and_then(|()| say::failure().map_or(Ok(()), Err)) {
        Ok(()) => ExitCode::from(u8::try_from(good).unwrap_or(1)),
        Err(Error::Cancelled) => {
            eprintln!("{}", Error::Cancelled);
            ExitCode::from(stop::STATUS)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Mesa's device selection looks for a display and, without one, prints what looks like an error. Left alone where somebody
/// selects by it.
fn quiet_driver() {
    if std::env::var_os("MESA_VK_DEVICE_SELECT").is_none() {
        // SAFETY: the first thing this process does; it has one thread.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
