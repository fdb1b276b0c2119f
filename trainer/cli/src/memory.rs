//! What `--memory` gave up, `--estimate`, and how long a preset takes.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::grad::Recompute;
use pentimento_trainer::config::{AtOnce, Config};
use pentimento_trainer::estimate::{BUS, Estimate, Work, megabytes};

/// What was given up to stay within a cap, a sentence; `None` for nothing.
pub fn given_up(before: &Config, now: &Config) -> Option<String> {
    let (was, is) = (before.at_once, now.at_once);
    let mut all = Vec::new();
    match now.recompute.filter(|how| before.recompute.unwrap_or_default() < *how) {
        Some(Recompute::Most) => all.push("most values are computed again on the way back".to_string()),
        Some(Recompute::All) => all.push("values are computed again on the way back".to_string()),
        Some(Recompute::Nothing) | None => {}
    }
    let AtOnce { train, sample, describe } = is;
    for (what, was, is) in [
        ("trained on", was.train, train),
        ("sampled", was.sample, sample),
        ("described", was.describe, describe),
    ] {
        if is < was {
            all.push(format!("{is} images at a time are {what}"));
        }
    }
    if now.stream && !before.stream {
        all.push("weights stay in the host's memory and are streamed".into());
    }
    (!all.is_empty()).then(|| format!("to stay within the memory, {}", all.join(", ")))
}

/// Operations of a whole training without looks.
fn all(w: &Work, config: &Config) -> f64 {
    w.prepare + w.warm + config.iterations as f64 * w.iteration
}

/// How long a training takes on a device that makes so many operations a second on large matrices, of which trainings come to a fifth to two
/// thirds; looks take as long as they are many.
pub fn duration(e: &Estimate, config: &Config, rate: f64) -> String {
    let looks = config.iterations.checked_div(config.watch.every).map_or(0.0, |n| n as f64 + 2.0);
    let seconds = (all(&e.work, config) + looks * e.work.look) / rate;
    format!("{} to {}", time(1.5 * seconds), time(5.0 * seconds))
}

/// Seconds, as people say them.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Prints the table. `rate`: operations a second.
pub fn table(caps: &Caps, e: &Estimate, config: &Config, rate: f64) {
    println!("on {}:", caps.name);
    println!("  weights");
    for (name, bytes) in &e.components {
        println!("    {:<28} {:>10}", title(name), megabytes(*bytes));
    }
    println!("  when it is most, in the phase `{}`", e.when);
    for (name, bytes) in e.peak.each().into_iter().filter(|(_, bytes)| *bytes > 0) {
        println!("    {:<28} {:>10}", kind(name), megabytes(bytes));
    }
    println!("  held by the end of");
    for (phase, bytes) in &e.phases {
        println!("    {phase:<28} {:>10}", megabytes(*bytes));
    }
    println!("  most on the device             {:>10}", megabytes(e.most()));
    if let Some(own) = caps.memory {
        println!("  the device's own memory        {:>10}", megabytes(own));
    }
    println!("  saved state, and on the host   {:>10}", megabytes(e.state));
    let rows = |w: &Work| [w.prepare, w.warm, w.iteration, w.look, all(w, config)];
    println!(
        "  time at {:.3} TFLOP/s, without pauses, compiling of shaders and work of the host",
        rate / 1e12
    );
    let names = ["preparation", "warm start", "an iteration", "a look", "all without looks"];
    for (what, work) in names.into_iter().zip(rows(&e.work)) {
        println!("    {what:<28} {:>10.3} TFLOP {:>8.1} s", work / 1e12, work / rate);
    }
    if config.stream {
        println!(
            "  and time at {:.1} GB/s from the host's memory, of which some goes on beside the work",
            BUS / 1e9
        );
        for (what, bytes) in names.into_iter().zip(rows(&e.streamed)) {
            println!("    {what:<28} {:>10.1} GB    {:>8.1} s", bytes / 1e9, bytes / BUS);
        }
    }
}

/// What the leaves of a component are.
fn title(component: &str) -> &str {
    match component {
        "lora" => "adapter",
        "vae" => "autoencoder",
        "reward" => "reward's network",
        "head" => "reward head",
        other => other,
    }
}

/// What a kind of memory is.
fn kind(name: &str) -> &str {
    match name {
        "leaves" => "weights and parameters",
        "arena" => "values between kernels",
        "unpacked" => "a weight written out",
        "window" => "streamed weights in passing",
        "uniforms" => "kernels' parameters",
        "readback" => "results for the host",
        "staging" => "numbers from the host",
        other => other,
    }
}
