//! Whole networks as trainings run them: `cargo bench -p tests --bench model [-- NAMES] [--short | --tiny] [--profile]`; `--help`
//! lists the rest. Needs an adapter, but for `--count`. Weights are random.
mod work;

use clap::Parser;
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::wgpu::{Clock, Peaks, Profile, Spent, Time, Wgpu};
use pentimento_runtime::exec::{Executor, PlanId, null};
use pentimento_runtime::plan::{Command, Plan};
use pentimento_runtime::rng::Philox;
use pentimento_runtime::weights::Base;
use pentimento_wgsl::kernel::attention;
use pentimento_wgsl::{Call, Stored, Variant};
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use work::{NAMES, Pattern, Size, Work};

/// Times whole networks with random weights.
#[derive(Parser)]
struct Options {
    /// Workloads, or what their names begin with; all without any
    names: Vec<String>,
    /// Images at once
    #[arg(long)]
    batch: Option<usize>,
    /// Transformer blocks or encoder layers
    #[arg(long)]
    layers: Option<usize>,
    /// Rank of the adapter
    #[arg(long)]
    rank: Option<usize>,
    /// Quantises the transformer's matrices: q8 or q4
    #[arg(long)]
    base: Option<Base>,
    /// Commands that may share a dispatch, at most; as many as the device lets without
    #[arg(long)]
    together: Option<u32>,
    /// Index, PCI id or part of the name of the adapter; PENTIMENTO_ADAPTER without
    #[arg(long)]
    adapter: Option<String>,
    /// Timed runs of which the median counts
    #[arg(long)]
    runs: Option<usize>,
    /// A choice that ends within minutes on a fast GPU
    #[arg(long)]
    short: bool,
    /// Two layers of narrow networks on one image of an eighth of each side: for CPU drivers
    #[arg(long)]
    tiny: bool,
    /// Table by kernel variant
    #[arg(long)]
    profile: bool,
    /// Table by kernel variant and shape
    #[arg(long)]
    shapes: bool,
    /// Adds a line of JSON for each workload to a file
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Date for the JSON; seconds since 1970 without
    #[arg(long)]
    date: Option<String>,
    /// Plans and counts, without an adapter
    #[arg(long)]
    count: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The workloads of `--short`, with batches.
const SHORT: [(&str, Option<usize>); 8] = [
    ("sd35-forward-512", Some(2)),
    ("sd35-forward-512", Some(8)),
    ("sd35-forward-1024", Some(2)),
    ("sd35-lora-512", Some(2)),
    ("sd35-lora-512", Some(8)),
    ("sd35-lora-1024", Some(2)),
    ("dino-518", None),
    ("vae-decode-512", None),
];

impl Options {
    /// Names and batches of what is to be run.
    fn chosen(&self) -> Vec<(&'static str, Option<usize>)> {
        let all: Vec<(&str, Option<usize>)> = match self.short {
            true => SHORT.into(),
            false => NAMES.iter().map(|&n| (n, None)).collect(),
        };
        // The larger ones show nothing else where all are tiny.
        let wanted = |name: &str| match self.names.is_empty() {
            true => !self.tiny || !name.ends_with("1024"),
            false => self.names.iter().any(|n| name.starts_with(n.as_str())),
        };
        all.into_iter().filter(|(n, _)| wanted(n)).map(|(n, b)| (n, self.batch.or(b))).collect()
    }
    fn size(&self, batch: Option<usize>) -> Size {
        Size { batch, layers: self.layers, rank: self.rank, tiny: self.tiny }
    }
}

/// Bytes that all commands move.
fn moved(plan: &Plan, weights: &dyn Fn(&str) -> Stored) -> u64 {
    plan.commands.iter().map(|c| null::moved(plan, c, weights)).sum()
}

fn title(name: &str, work: &Work) -> String {
    format!("{name} b{}", work.batch)
}

/// Every workload's counts for a GPU without limits on buffers and bindings.
fn count(options: &Options) {
    println!(
        "{:<22} {:>10} {:>9} {:>10} {:>10} {:>10}",
        "", "dispatches", "TFLOP", "GB moved", "GB arena", "GB weights"
    );
    let caps = Caps::unlimited("null");
    for (name, batch) in options.chosen() {
        let work = work::build(name, options.size(batch), usize::MAX);
        let leaves = work.leaves(&caps, options.base);
        let kinds: std::collections::HashMap<&str, Stored> =
            leaves.iter().map(|l| (l.0.as_str(), l.2)).collect();
        let kind = |n: &str| kinds.get(n).copied().unwrap_or(Stored::F32);
        let plan = match work.plan(&caps, &kind) {
            Ok(plan) => plan,
            Err(e) => {
                println!("{:<22} {e}", title(name, &work));
                continue;
            }
        };
        let c = null::count(&plan);
        let weights: u64 = leaves.iter().map(|l| l.2.bytes(l.1) as u64).sum();
        println!(
            "{:<22} {:>10} {:>9.4} {:>10.3} {:>10.3} {:>10.3}",
            title(name, &work),
            c.dispatches,
            c.flops as f64 * 1e-12,
            moved(&plan, &kind) as f64 * 1e-9,
            c.bytes as f64 * 1e-9,
            weights as f64 * 1e-9
        );
    }
}

/// What was measured of one workload.
struct Measured {
    plan_s: f64,
    load_s: f64,
    first_s: f64,
    weight_bytes: u64,
    times: Vec<Time>,
    counts: null::Count,
    moved: u64,
    profile: Option<Profile>,
    /// Of the profile, by variant or shape.
    table: Vec<(String, Spent)>,
    /// Outputs with NaN or infinities.
    bad: Vec<String>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Measured {
    fn wall(&self) -> f64 {
        median(self.times.iter().map(|t| t.wall).collect())
    }
    /// By the device's clock.
    fn device(&self) -> Option<f64> {
        let all: Option<Vec<f64>> = self.times.iter().map(|t| t.device).collect();
        all.filter(|all| !all.is_empty()).map(median)
    }
    /// By the device's clock where it has one.
    fn seconds(&self) -> f64 {
        self.device().unwrap_or_else(|| self.wall())
    }
}

/// Inputs of normal numbers; the one called `zero` stays so.
fn write(gpu: &mut Wgpu, id: PlanId) -> pentimento_runtime::Result<()> {
    let inputs = gpu.plan(id).inputs.clone();
    for (i, input) in inputs.iter().enumerate().filter(|i| i.1.name != "zero") {
        let mut data = vec![0.0; input.slot.len];
        Philox::new(1, i as u64).normals(&mut data);
        gpu.write(id, &input.name, &data)?;
    }
    Ok(())
}

fn measure(
    gpu: &mut Wgpu,
    work: &Work,
    options: &Options,
    normal: &Pattern,
) -> pentimento_runtime::Result<Measured> {
    let start = Instant::now();
    let weight_bytes = work.load(gpu, normal, options.base)?;
    let load_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let plan = work.plan(&gpu.caps().clone(), &|name| gpu.stored(name))?;
    let plan_s = start.elapsed().as_secs_f64();
    let counts = null::count(&plan);
    let moved = moved(&plan, &|name| gpu.stored(name));
    let id = gpu.prepare(plan)?;
    write(gpu, id)?;
    let start = Instant::now();
    gpu.run(id)?;
    gpu.peek(id, &work.outputs[0].0)?;
    let first_s = start.elapsed().as_secs_f64();
    let runs = options.runs.unwrap_or(if options.tiny { 2 } else { 5 }).max(1);
    let times = (0..runs).map(|_| gpu.time(id)).collect::<pentimento_runtime::Result<_>>()?;
    let profile = if options.profile || options.shapes { Some(gpu.profile(id)?) } else { None };
    let table =
        profile.as_ref().map(|p| table(p, &gpu.plan(id).commands, options.shapes)).unwrap_or_default();
    let mut bad = Vec::new();
    for (name, _) in &work.outputs {
        if gpu.peek(id, name)?.iter().any(|v| !v.is_finite()) {
            bad.push(name.clone());
        }
    }
    Ok(Measured { plan_s, load_s, first_s, weight_bytes, times, counts, moved, profile, table, bad })
}

/// Commands summed by variant, or by variant and shape, longest first.
fn table(profile: &Profile, commands: &[Command], shapes: bool) -> Vec<(String, Spent)> {
    let mut rows: Vec<(String, Spent)> = Vec::new();
    for (spent, c) in profile.commands.iter().zip(commands) {
        let label = if shapes { format!("{} {}", kernel(&c.variant), shape(c)) } else { kernel(&c.variant) };
        match rows.iter_mut().find(|row| row.0 == label) {
            Some(row) => row.1.add(spent),
            None => rows.push((label, *spent)),
        }
    }
    rows.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    rows
}

/// A variant in few letters.
fn kernel(v: &Variant) -> String {
    format!("{} {}", v.entry(), v.body())
}

/// Sides of a matmul, heads and tokens of an attention, else the result's shape.
fn shape(c: &Command) -> String {
    match &c.call {
        Call::Matmul(p) => format!("{}x{}x{}", p.m, p.n, p.k),
        Call::Attention(attention::Call::Pass(_, p)) => {
            format!("{}x{}x{}x{}", p.block.batch, p.block.heads, p.block.q, p.block.k)
        }
        _ => format!("{:?}", c.shape),
    }
}

/// A rate and its share of a peak, in per cent.
fn rate(amount: u64, seconds: f64, peak: f64) -> [f64; 2] {
    let rate = if seconds > 0.0 { amount as f64 / seconds } else { f64::NAN };
    [rate, 100.0 * rate / peak]
}

fn print(title: &str, m: &Measured, peaks: &Peaks) {
    let (giga, tera) = (1e9, 1e12);
    println!(
        "\n{title}\n  planning {:.2} s, weights {:.2} s ({:.3} GB), first run {:.2} s",
        m.plan_s,
        m.load_s,
        m.weight_bytes as f64 / giga,
        m.first_s
    );
    let device = m.device().map_or("no timestamps".into(), |s| format!("{:.2} ms GPU", s * 1e3));
    let [flops, of_flops] = rate(m.counts.flops, m.seconds(), peaks.flops);
    let [bytes, of_bytes] = rate(m.moved, m.seconds(), peaks.bytes);
    println!(
        "  {:.2} ms wall, {device} (median of {}): {:.4} TFLOP/s ({of_flops:.0}% of peak), {:.1} GB/s ({of_bytes:.0}%)",
        m.wall() * 1e3,
        m.times.len(),
        flops / tera,
        bytes / giga,
    );
    println!(
        "  {:.4} TFLOP, {:.3} GB moved, {} dispatches, arena {:.3} GB",
        m.counts.flops as f64 / tera,
        m.moved as f64 / giga,
        m.counts.dispatches,
        m.counts.bytes as f64 / giga
    );
    if let Some(p) = &m.profile {
        println!(
            "  {:>9} {:>6} {:>6} {:>10} {:>5} {:>9} {:>5}",
            "ms", "", "count", "GFLOP/s", "peak", "GB/s", "peak"
        );
        let sum = p.seconds();
        for (label, s) in &m.table {
            let [flops, of_flops] = rate(s.flops, s.seconds, peaks.flops);
            let [bytes, of_bytes] = rate(s.bytes, s.seconds, peaks.bytes);
            println!(
                "  {:>9.3} {:>5.1}% {:>6} {:>10.2} {of_flops:>4.0}% {:>9.2} {of_bytes:>4.0}%  {label}",
                s.seconds * 1e3,
                100.0 * s.seconds / sum,
                s.count,
                flops / giga,
                bytes / giga
            );
        }
        let how = match p.clock {
            Clock::Commands => "timestamps between commands",
            Clock::Passes => "timestamps around a pass for each command",
            Clock::Host => "the host's clock, command by command",
        };
        let device = p.whole.device.map_or(String::new(), |s| format!(" ({:.3} ms GPU)", s * 1e3));
        let wall = p.whole.wall * 1e3;
        println!("  {:>9.3} all commands, by {how}; uninterrupted {wall:.3} ms{device}", sum * 1e3);
    }
    if !m.bad.is_empty() {
        println!("  *** NaN OR INFINITE: {} ***", m.bad.join(", "));
    }
}

fn json_line(title: &str, name: &str, batch: usize, m: &Measured, peaks: &Peaks, head: &Value) -> Value {
    let rows = m.table.iter().map(|(label, s)| {
        json!({"kernel": label, "seconds": s.seconds, "flops": s.flops, "bytes": s.bytes, "count": s.count})
    });
    json!({
        "title": title, "workload": name, "batch": batch, "about": head,
        "plan_s": m.plan_s, "weights_s": m.load_s, "first_run_s": m.first_s,
        "wall_s": m.wall(), "gpu_s": m.device(),
        "all_wall_s": m.times.iter().map(|t| t.wall).collect::<Vec<_>>(),
        "flops": m.counts.flops, "dispatches": m.counts.dispatches, "moved_bytes": m.moved,
        "arena_bytes": m.counts.bytes, "weight_bytes": m.weight_bytes,
        "peak_flops": peaks.flops, "peak_bytes": peaks.bytes,
        "profile_s": m.profile.as_ref().map(Profile::seconds),
        "clock": m.profile.as_ref().map(|p| format!("{:?}", p.clock)),
        "kernels": rows.collect::<Vec<_>>(), "not_finite": m.bad,
    })
}

fn append(path: &std::path::Path, line: &Value) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    if let Err(e) = file.and_then(|mut f| writeln!(f, "{line}")) {
        println!("{}: {e}", path.display());
    }
}

fn main() {
    let options = Options::parse();
    if options.chosen().is_empty() {
        println!("no workload begins with {:?}; there are {NAMES:?}", options.names);
        std::process::exit(2);
    }
    if options.count {
        return count(&options);
    }
    let choice = options.adapter.clone().or_else(|| std::env::var("PENTIMENTO_ADAPTER").ok());
    let mut gpu = match Wgpu::open(choice.as_deref()) {
        Ok(gpu) => gpu,
        Err(e) => return println!("SKIPPED: {e}"),
    };
    if let Some(most) = options.together {
        gpu.set_together(most);
    }
    let peaks = match gpu.peaks() {
        Ok(peaks) => peaks,
        Err(e) => return println!("{}: {e}", gpu.name()),
    };
    let driver = tests::adapter::driver(gpu.name());
    println!(
        "{}, {driver}: at best {:.4} TFLOP/s (matmul), {:.1} GB/s (copy); clock: {:?}",
        gpu.name(),
        peaks.flops * 1e-12,
        peaks.bytes * 1e-9,
        gpu.clock()
    );
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()).to_string();
    let head = json!({
        "device": gpu.name(), "driver": driver, "date": options.date.clone().unwrap_or_else(now),
        "tiny": options.tiny, "layers": options.layers, "rank": options.rank, "together": gpu.caps().together, "base": options.base.map(|b| b.stored().name()),
    });
    let (normal, mut failed) = (Pattern::new(), false);
    for (name, batch) in options.chosen() {
        let work = work::build(name, options.size(batch), gpu.caps().max_binding as usize / 4);
        let title = title(name, &work);
        match measure(&mut gpu, &work, &options, &normal) {
            Err(e) => {
                failed = true;
                println!("\n{title}\n  FAILED: {e}");
            }
            Ok(m) => {
                failed |= !m.bad.is_empty();
                print(&title, &m, &peaks);
                if let Some(path) = &options.json {
                    append(path, &json_line(&title, name, work.batch, &m, &peaks, &head));
                }
            }
        }
        gpu.clear();
    }
    if failed {
        std::process::exit(1);
    }
}
