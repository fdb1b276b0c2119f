//! Adapter against CPU twins, for every row of the case table and both classes of kernel bodies.
use crate::summary::Summary;
use pentimento_wgsl::{Class, Stored};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::RefCell;
use tests::adapter::{Device, driver};
use tests::cases::{Case, all, kinds};
use tests::check::{Step, check};
use tests::draw::{Draw, draws, label};
use tests::known::{KNOWN, Known};

const WHAT: &str = "kernels against their twins";

fn number(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(v) => v.parse().unwrap_or_else(|_| panic!("{variable}: `{v}` is not a number")),
        Err(_) => default,
    }
}

fn one(device: &mut Device, draw: &Draw) -> Result<Vec<Step>, String> {
    device.clear();
    let exec = device.exec();
    let caps = exec.caps().clone();
    let (plan, data) = draw.plan(exec, &caps)?;
    check(exec, plan, &data)
}

/// A row as it is explored.
type Row = (Case, Class, Stored);

/// Rows times classes times weight types; `PENTIMENTO_ROWS` keeps those whose name begins so.
fn rows() -> Vec<Row> {
    let prefix = std::env::var("PENTIMENTO_ROWS").unwrap_or_default();
    let mut out = Vec::new();
    for case in all().filter(|c| c.name.starts_with(&prefix)) {
        for weight in kinds(&case) {
            out.extend([Class::Gpu, Class::Software].map(|class| (case, class, weight)));
        }
    }
    out
}

/// Draws from one row until `PENTIMENTO_CASES` have passed or one has failed and is shrunk; `known` ones are left out.
fn explore(
    device: &mut Device,
    (case, class, weight): Row,
    known: &[&Known],
    sum: &mut Summary,
) -> Result<(), String> {
    // The same cases on every run, unless `PENTIMENTO_SEED` asks for others; a longer run goes on where a shorter ended.
    let mut seed = [0u8; 32];
    let text = format!("{}{}", label(case, class, weight), number("PENTIMENTO_SEED", 0));
    for (i, b) in text.bytes().enumerate() {
        seed[i % 32] ^= b.rotate_left(i as u32 / 32);
    }
    let config = Config {
        cases: number("PENTIMENTO_CASES", 16),
        failure_persistence: None,
        max_shrink_iters: 1000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let state = RefCell::new((device, sum));
    let result = runner.run(&draws(case, class, weight), |draw| {
        if known.iter().any(|k| k.concerns(&draw)) {
            return Ok(());
        }
        let (device, sum) = &mut *state.borrow_mut();
        let steps = one(device, &draw).map_err(TestCaseError::fail)?;
        sum.add(&draw, &steps);
        Ok(())
    });
    result.map_err(|e| match e {
        TestError::Fail(reason, draw) => format!("{draw}: {reason}\n    {}", reproducer(&draw)),
        TestError::Abort(reason) => format!("{}: {reason}", case.name),
    })
}

fn reproducer(draw: &Draw) -> String {
    format!(
        "PENTIMENTO_CASE='{draw}' cargo test --release -p tests --test numerics adapter_agrees -- --nocapture"
    )
}

/// Replays `PENTIMENTO_CASE`.
fn replay(text: &str) {
    let draw: Draw = text.parse().unwrap_or_else(|e| panic!("PENTIMENTO_CASE: {e}"));
    let Some(mut device) = Device::open(WHAT) else { return };
    let name = device.exec().caps().name.clone();
    let steps = one(&mut device, &draw).unwrap_or_else(|e| panic!("{draw} on {name}: {e}"));
    let mut sum = Summary::default();
    sum.add(&draw, &steps);
    sum.print(&name, &driver(&name));
}

#[test]
fn adapter_agrees_with_twins() {
    if let Ok(text) = std::env::var("PENTIMENTO_CASE") {
        return replay(&text);
    }
    let Some(mut device) = Device::open(WHAT) else { return };
    let name = device.exec().caps().name.clone();
    let version = driver(&name);
    let mut sum = Summary::default();
    let mut failures = Vec::new();
    let known: Vec<&Known> = KNOWN.iter().filter(|k| k.on(&name, &version)).collect();
    for row in rows() {
        if let Err(e) = explore(&mut device, row, &known, &mut sum) {
            failures.push(format!("{}: {e}", label(row.0, row.1, row.2)));
        }
    }
    for k in known {
        let witness: Draw = k.witness.parse().unwrap_or_else(|e| panic!("{}: {e}", k.witness));
        match k.verdict(one(&mut device, &witness).map(|_| ())) {
            Ok(line) => println!("{line}"),
            Err(e) => failures.push(e),
        }
    }
    sum.print(&name, &version);
    assert!(sum.cases() > 0 || !failures.is_empty(), "no row was run");
    assert!(failures.is_empty(), "{} rows fail on {name}:\n{}", failures.len(), failures.join("\n"));
}
