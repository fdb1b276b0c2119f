//! C and C++ programs on the library, compiled and run by tests.
use crate::built::{build, workspace};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder with the libraries.
pub fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("pentimento-ffi"))
}

/// How a program is linked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// The shared library.
    Shared,
    /// The static library under AddressSanitizer and UndefinedBehaviorSanitizer.
    Sanitised,
}

/// Compiles a program of the repository; `None`, with a word why, where there is no compiler or what `more` asks for.
pub fn compile(source: &str, out: &Path, link: Link, more: &[&str]) -> Option<PathBuf> {
    let cpp = source.ends_with("pp");
    let compiler = if cpp { "c++" } else { "cc" };
    if cfg!(not(target_os = "linux")) || Command::new(compiler).arg("--version").output().is_err() {
        println!("SKIPPED: {source} (no `{compiler}` on Linux)");
        return None;
    }
    let name = source.replace('/', "-");
    let program = out.join(format!("{name}-{}", if link == Link::Shared { "shared" } else { "sanitised" }));
    let mut cc = Command::new(compiler);
    cc.arg(if cpp { "-std=c++17" } else { "-std=gnu11" }).args(["-Wall", "-Wextra", "-Werror", "-g"]);
    cc.arg(workspace().join(source)).arg("-I").arg(workspace().join("include")).arg("-o").arg(&program);
    match link {
        Link::Shared => cc.arg("-L").arg(libraries()).arg("-lpentimento"),
        Link::Sanitised => cc
            .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"])
            .arg(libraries().join("libpentimento.a"))
            .arg("-ldl"),
    };
    let output = cc.args(["-lm", "-lpthread"]).args(more).output().expect("the compiler runs");
    let text = String::from_utf8_lossy(&output.stderr);
    if link == Link::Sanitised && text.contains("cannot find") && text.contains("san") {
        println!("SKIPPED: {source} under sanitizers (not installed)");
        return None;
    }
    assert!(output.status.success(), "{compiler} {source}: {text}");
    Some(program)
}

/// A program as it is run here.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries());
    // Drivers keep memory until the end, and loaders unload what a leak report would have to name.
    command.env("ASAN_OPTIONS", "detect_leaks=0:quarantine_size_mb=16");
    command
}

/// Runs a program.
pub fn run(program: &Path, args: &[&OsStr]) -> Output {
    command(program).args(args).output().expect("the program runs")
}

/// Standard output of a program that must succeed.
pub fn succeeds(program: &Path, args: &[&OsStr]) -> String {
    output_of(command(program).args(args))
}

/// Standard output of a command that must succeed.
pub fn output_of(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}
