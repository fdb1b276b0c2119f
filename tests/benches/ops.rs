//! Every row of the op table, timed by kernel variant: `cargo bench -p tests --bench ops [-- PREFIX]`. Needs an adapter.
//! Operations and bytes are what the row needs, so that both rates compare with the device's peaks.
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::wgpu::{Spent, Wgpu};
use pentimento_wgsl::{Class, Stored};
use tests::cases::{all, kinds};
use tests::draw::{Draw, Values};

/// Sizes that fill an adapter for a moment and stay below a binding's limit.
const SIDES: [usize; 3] = [192, 192, 64];
const RUNS: usize = 5;

/// The median of several profiled runs, by variant.
fn time(gpu: &mut Wgpu, draw: &Draw) -> Result<Vec<Spent>, String> {
    gpu.clear();
    let caps = gpu.caps().clone();
    let (plan, data) = draw.plan(gpu, &caps)?;
    let inputs: Vec<String> = plan.inputs.iter().map(|i| i.name.clone()).collect();
    let id = gpu.prepare(plan).map_err(|e| e.to_string())?;
    for name in inputs {
        gpu.write(id, &name, &data[&name]).map_err(|e| e.to_string())?;
    }
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(gpu.profile(id).map_err(|e| e.to_string())?.by_variant());
    }
    let first = runs[0].clone();
    let median = |s: &Spent| {
        let mut seconds: Vec<f64> =
            runs.iter().flatten().filter(|r| r.variant == s.variant).map(|r| r.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        Spent { seconds: seconds[seconds.len() / 2], ..*s }
    };
    Ok(first.iter().map(median).collect())
}

fn main() {
    let mut gpu = match Wgpu::open(std::env::var("PENTIMENTO_ADAPTER").ok().as_deref()) {
        Ok(gpu) => gpu,
        Err(e) => return println!("SKIPPED: {e}"),
    };
    let prefix = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let class = gpu.caps().class;
    let peaks = match gpu.peaks() {
        Ok(peaks) => peaks,
        Err(e) => return println!("{}: {e}", gpu.name()),
    };
    println!(
        "{}: median of {RUNS} runs, sizes {SIDES:?}; at best {:.2} GFLOP/s (matmul), {:.2} GB/s (copy)",
        gpu.name(),
        peaks.flops / 1e9,
        peaks.bytes / 1e9
    );
    for case in all().filter(|c| c.name.starts_with(&prefix)) {
        // On CPU drivers halves become f32 on upload.
        let here = |kind: &Stored| class == Class::Gpu || !matches!(kind, Stored::F16 | Stored::BF16);
        for weight in kinds(&case).into_iter().filter(here) {
            let draw = Draw {
                case,
                class,
                weight,
                n: SIDES,
                values: Values::Normal,
                seed: 0,
                fold: false,
                split: false,
                cut: false,
                stage: true,
            };
            match time(&mut gpu, &draw) {
                Err(e) => println!("{draw}: {e}"),
                Ok(spent) => spent.iter().for_each(|s| {
                    println!(
                        "{:<26} {:<5} {:<20} {:<22} {:>3} x {:>9.3} ms {:>8.2} GFLOP/s {:>3.0}% {:>8.2} GB/s {:>3.0}%",
                        case.name,
                        format!("{weight:?}").to_lowercase(),
                        s.variant.entry(),
                        s.variant.body(),
                        s.count,
                        s.seconds * 1e3 / s.count as f64,
                        s.flops as f64 / s.seconds / 1e9,
                        100.0 * s.flops as f64 / s.seconds / peaks.flops,
                        s.bytes as f64 / s.seconds / 1e9,
                        100.0 * s.bytes as f64 / s.seconds / peaks.bytes
                    );
                }),
            }
        }
    }
}
