//! What a training of SD3.5-medium's size takes and how it is fitted into cards, on the executor that counts. `PENTIMENTO_REAL_SIZE=all` makes
//! the whole table of RESULTS.md, `512` or `1024` half of it; without it a part.
use pentimento_runtime::weights::DType;
use pentimento_trainer::config::{AtOnce, Config};
use pentimento_trainer::estimate::{SHEET, estimate, fit};
use std::thread;
use std::time::Instant;
use tests::adapter::with_matrices;
use tests::hollow::Hollow;

const GB: u64 = 1_000_000_000;

/// One model at one size.
struct Row {
    /// As it is.
    whole: u64,
    /// The least that a refusal names, bytes.
    least: u64,
    /// Every cap, from the largest to the smallest that is met.
    fitted: Vec<Fitted>,
}

/// What a cap comes to.
struct Fitted {
    gb: u64,
    /// Bytes held.
    most: u64,
    at_once: AtOnce,
    /// Whether weights are streamed.
    stream: bool,
}

/// The estimate, and every cap; the largest first.
fn row(hollow: &Hollow, stored: DType, side: usize, caps_gb: &[u64]) -> Row {
    let (caps, model) = (with_matrices(), hollow.model(stored));
    let setup = hollow.setup(&model);
    let config = Config { width: side, height: side, ..Config::pathwise(false) };
    let began = Instant::now();
    let whole = estimate(&caps, &setup, &config).expect("an estimate").most();
    println!("{stored}, {side} x {side}: one estimate takes {:.1} s", began.elapsed().as_secs_f64());
    let refused = |cap: u64, sentence: String| -> u64 {
        let least =
            sentence.split("at least ").nth(1).and_then(|t| t.split(" MB").next()?.parse::<u64>().ok());
        let least = least.expect(&sentence) * GB / 1000;
        assert!(least > cap, "{sentence}, of {cap}");
        least
    };
    let least =
        refused(GB, fit(&caps, &setup, &config, GB).expect_err("a gigabyte is too little").to_string());
    println!("{stored}, {side} x {side}: {whole} bytes, at least {least}");
    let mut fitted = Vec::new();
    // What is below the least is refused with the same sentence.
    for gb in caps_gb.iter().copied().filter(|gb| gb * GB >= least) {
        let began = Instant::now();
        let (config, estimate) = fit(&caps, &setup, &config, gb * GB).expect("it fits");
        assert!(estimate.most() <= gb * GB, "{} of {gb} GB", estimate.most());
        let AtOnce { train, sample, describe } = config.at_once;
        let (train, sample) = (train.min(config.warm.batch), sample.min(config.images().max(SHEET)));
        let at_once = AtOnce { train, sample, describe };
        let (most, stream, took) = (estimate.most(), config.stream, began.elapsed().as_secs_f64());
        println!(
            "{stored}, {side} x {side}, {gb} GB: {most} bytes in `{}`, {at_once:?}, {:?}, in {took:.1} s",
            estimate.when, config.recompute
        );
        println!("  streamed {stream}: {:?} bytes, {:?} operations", estimate.streamed, estimate.work);
        fitted.push(Fitted { gb, most, at_once, stream });
    }
    Row { whole, least, fitted }
}

#[test]
fn real_sizes_are_estimated_and_fitted() {
    let wanted = std::env::var("PENTIMENTO_REAL_SIZE").unwrap_or_default();
    let all = !wanted.is_empty();
    let sizes: &[usize] = match wanted.as_str() {
        "all" => &[1024, 512],
        "1024" => &[1024],
        _ => &[512],
    };
    let caps: &[u64] = if all { &[24, 16, 12, 8, 6, 4] } else { &[4] };
    let bases: &[DType] = if all { &[DType::F16, DType::Q8_0, DType::Q4_K] } else { &[DType::Q4_K] };
    let mut lines = Vec::new();
    for &side in sizes {
        let hollow = Hollow::new(&format!("real-{side}"), side as u32);
        let rows: Vec<Row> = thread::scope(|scope| {
            let one = |&stored: &DType| {
                scope.spawn({
                    let hollow = &hollow;
                    move || row(hollow, stored, side, caps)
                })
            };
            let threads: Vec<_> = bases.iter().map(one).collect();
            threads.into_iter().map(|t| t.join().expect("a row")).collect()
        });
        for pair in rows.windows(2) {
            assert!(pair[1].whole <= pair[0].whole && pair[1].least <= pair[0].least, "fewer bits take more");
        }
        for (row, stored) in rows.iter().zip(bases) {
            let last = row.fitted.last().expect("a cap that is met");
            assert!(
                last.stream || side > 512,
                "{side}, {stored}, {} GB: weights stay on the device",
                last.gb
            );
            let cell = |cap: &u64| {
                let found = row.fitted.iter().find(|f| f.gb == *cap);
                found.map_or("no".into(), |Fitted { most, at_once, stream, .. }| {
                    let AtOnce { train, sample, describe } = at_once;
                    let (most, how) = (*most as f64 / GB as f64, if *stream { " streamed" } else { "" });
                    format!("{most:.1}: {train}, {sample}, {describe}{how}")
                })
            };
            let cells: Vec<String> = caps.iter().rev().map(cell).collect();
            let (whole, least) = (row.whole as f64 / GB as f64, row.least as f64 / GB as f64);
            lines.push(format!("| {side} | {stored} | {whole:.1} | {least:.1} | {} |", cells.join(" | ")));
            for pair in row.fitted.windows(2) {
                // With weights on the host there is room for more at once than in a larger card that holds them.
                let (large, small) = (&pair[0], &pair[1]);
                assert!(small.stream || !large.stream, "{side}, {stored}, {} GB", large.gb);
                let (more, less) = (large.at_once, small.at_once);
                let more =
                    more.train >= less.train && more.sample >= less.sample && more.describe >= less.describe;
                assert!(more || large.stream != small.stream, "{side}, {stored}, {} GB", large.gb);
            }
        }
    }
    println!(
        "| side | blocks | as it is, GB | least | {caps:?} GB, from the smallest: held, images trained, sampled, described at once"
    );
    lines.iter().for_each(|line| println!("{line}"));
}
