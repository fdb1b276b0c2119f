//! How far something is: a bar on a terminal, and lines now and then where a log file is written.
use crate::memory::time;
use crate::say;
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{IsTerminal, stderr, stdout};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Between two lines of one phase.
const EVERY: Duration = Duration::from_secs(10);
/// Without a line for so long, one says that something is still going on: a kernel can take as long, and a compiler longer.
const QUIET: Duration = Duration::from_secs(20);

/// Whether bars are seen, and by everybody who reads the lines.
fn seen() -> bool {
    stdout().is_terminal() && stderr().is_terminal()
}

/// Breaks the silence where lines are written. Ends when dropped.
struct Pulse {
    _end: Sender<()>,
}

impl Pulse {
    fn new(what: &'static str) -> Self {
        let (began, (end, ended)) = (Instant::now(), channel());
        std::thread::spawn(move || {
            loop {
                let quiet = say::quiet();
                if quiet >= QUIET {
                    println!("{what}: still at it after {}", time(began.elapsed().as_secs_f64()));
                } else if ended.recv_timeout(QUIET - quiet) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Pulse { _end: end }
    }
}

/// Something of many parts; its bar is gone when it is dropped.
pub struct Phase {
    bar: ProgressBar,
    what: &'static str,
    /// Where lines are written.
    pulse: Option<Pulse>,
    whole: bool,
    /// What was done when it was first asked, and when that was: what the seconds left are reckoned from.
    first: Option<(usize, Instant)>,
}

impl Phase {
    pub fn new(what: &'static str, all: usize) -> Self {
        let style = ProgressStyle::with_template("{prefix:<12} [{bar:30}] {pos}/{len} {elapsed}{msg}");
        let bar = ProgressBar::new(all as u64).with_prefix(what);
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if !seen() {
            bar.suspend(|| println!("{what}"));
        }
        Phase { bar, what, pulse: (!seen()).then(|| Pulse::new(what)), whole: false, first: None }
    }
    /// `done` of `all`; `more` ends the line.
    pub fn set(&mut self, done: usize, all: usize, more: impl Display) {
        let left = self.left(done, all);
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(left.clone());
        let whole = done >= all && !core::mem::replace(&mut self.whole, done >= all);
        if self.pulse.is_some() && (whole || say::quiet() >= EVERY) {
            self.say(format_args!("{}: {done} of {all}{more}{left}", self.what));
        }
    }
    /// Words for the time left, at the pace so far.
    fn left(&mut self, done: usize, all: usize) -> String {
        let (from, since) = *self.first.get_or_insert_with(|| (done, Instant::now()));
        let (made, left) = (done.saturating_sub(from), all.saturating_sub(done));
        if made == 0 || left == 0 {
            return String::new();
        }
        format!(", {} left", time(since.elapsed().as_secs_f64() / made as f64 * left as f64))
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
pub struct Spinner(ProgressBar, Option<Pulse>);

impl Spinner {
    pub fn new(what: &'static str) -> Self {
        let spinner = ProgressBar::new_spinner().with_message(what);
        if seen() {
            spinner.enable_steady_tick(Duration::from_millis(120));
            return Spinner(spinner, None);
        }
        println!("{what}");
        Spinner(spinner, Some(Pulse::new(what)))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.1 = None;
        self.0.finish_and_clear();
    }
}
