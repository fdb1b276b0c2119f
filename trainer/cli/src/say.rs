//! All that the tool prints. What cannot be printed must not cost anybody's work: a closed pipe (`| head`) is no error, a
//! full disk is one, told at the end; either way the work goes on, without words. Names and texts of others are in what is
//! printed, so that no line leaves here longer than a screen, or with characters that a terminal would act on.
use pentimento_runtime::shown::Shown;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first failure of standard output.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Most characters of a line; a path has up to 4096.
const MOST: usize = 6000;

/// A text as it may be printed, line by line.
fn plain(text: Arguments<'_>) -> String {
    let text = text.to_string();
    let lines: Vec<String> = text.split('\n').map(|text| Shown { text, most: MOST }.to_string()).collect();
    lines.join("\n")
}

/// When the last line was.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// How long there has been no line on standard output.
pub fn quiet() -> Duration {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now).elapsed()
}

/// A line on standard output.
pub fn line(text: Arguments<'_>) {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        let mut out = io::stdout().lock();
        *failed = writeln!(out, "{}", plain(text)).and_then(|()| out.flush()).err();
    }
}

/// A line on standard error. Where even that fails nobody is left to be told.
pub fn aside(text: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", plain(text));
}

/// Takes in a failure of somebody else's printing.
pub fn note(failure: io::Error) {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
}

/// Why standard output is not complete, if anybody still wanted it.
pub fn failure() -> Option<pentimento_runtime::Error> {
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let e = failed.as_ref().filter(|e| e.kind() != ErrorKind::BrokenPipe)?;
    Some(pentimento_runtime::Error::io("standard output", "write", e.to_string()))
}
