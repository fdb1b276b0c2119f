//! How far something is: a bar on a terminal, and lines now and then where a log file is written.
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{IsTerminal, stderr, stdout};
use std::time::{Duration, Instant};

/// Between two lines of one phase.
const EVERY: Duration = Duration::from_secs(10);

/// Whether bars are seen, and by everybody who reads the lines.
fn seen() -> bool {
    stdout().is_terminal() && stderr().is_terminal()
}

/// Something of many parts; its bar is gone when it is dropped.
pub struct Phase {
    bar: ProgressBar,
    what: &'static str,
    /// When the last line was written, where lines are.
    told: Option<Instant>,
    whole: bool,
}

impl Phase {
    pub fn new(what: &'static str, all: usize) -> Self {
        let style = ProgressStyle::with_template("{msg:<12} [{bar:30}] {pos}/{len} {elapsed} (eta {eta})");
        let bar = ProgressBar::new(all as u64).with_message(what);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if !seen() {
            bar.suspend(|| println!("{what}"));
        }
        Phase { bar, what, told: (!seen()).then(Instant::now), whole: false }
    }
    /// `done` of `all`; `more` ends the line.
    pub fn set(&mut self, done: usize, all: usize, more: impl Display) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        let whole = done >= all && !core::mem::replace(&mut self.whole, done >= all);
        if self.told.is_some_and(|told| whole || told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            self.say(format_args!("{}: {done} of {all}{more}", self.what));
        }
    }
    /// A line beside the bar.
    pub fn say(&self, line: impl Display) {
        self.bar.suspend(|| println!("{line}"));
    }
}

impl Drop for Phase {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shown while something without parts takes its time; gone when dropped.
pub struct Spinner(ProgressBar);

impl Spinner {
    pub fn new(what: &'static str) -> Self {
        let spinner = ProgressBar::new_spinner().with_message(what);
        if seen() {
            spinner.enable_steady_tick(Duration::from_millis(120));
        } else {
            println!("{what}");
        }
        Spinner(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
