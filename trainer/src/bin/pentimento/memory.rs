//! `--memory` and `--estimate`.
use pentimento::caps::Caps;
use pentimento::grad::Recompute;
use pentimento_trainer::config::{AtOnce, Config};
use pentimento_trainer::estimate::{BUS, Estimate, Work, megabytes};
use pentimento_trainer::{Error, Result};
use std::str::FromStr;

/// Bytes, as people write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::bad("memory", "a number with MB, GB, MiB or GiB, as in 6GB", text);
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "mb" | "m" => 1e6,
            "gb" | "g" => 1e9,
            "mib" => 1048576.0,
            "gib" => 1073741824.0,
            _ => return Err(bad()),
        };
        let bytes = number.parse::<f64>().map_err(|_| bad())? * unit;
        if (1.0..1e18).contains(&bytes) { Ok(Bytes(bytes as u64)) } else { Err(bad()) }
    }
}

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
    let all = |w: &Work| w.prepare + w.warm + config.iterations as f64 * w.iteration;
    let rows = |w: &Work| [w.prepare, w.warm, w.iteration, w.look, all(w)];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_people_do() {
        let of = |text: &str| text.parse::<Bytes>().map(|b| b.0).ok();
        assert_eq!(
            [of("6GB"), of("1.5 gb"), of("512MiB"), of("2g")].map(Option::unwrap),
            [6_000_000_000, 1_500_000_000, 536_870_912, 2_000_000_000]
        );
        for bad in ["", "6", "GB", "-1GB", "6TB", "1e9GB", "0GB", "..GB", "99999999999GB"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
