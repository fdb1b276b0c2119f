//! Adapter against CPU twins, for every row of the case table and both classes of kernel bodies.
use crate::summary::Summary;
use pentimento::exec::Executor;
use pentimento_wgsl::{Class, WeightType};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::RefCell;
use tests::adapter::{driver, executor};
use tests::cases::{Case, WEIGHTED, all};
use tests::check::{Step, check};
use tests::draw::{Draw, draws};
use tests::known::{KNOWN, find, row, verdict};

const WHAT: &str = "kernels against their twins";

fn number(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(v) => v.parse().unwrap_or_else(|_| panic!("{variable}: `{v}` is not a number")),
        Err(_) => default,
    }
}

fn one(exec: &mut dyn Executor, draw: &Draw) -> Result<Vec<Step>, String> {
    let (plan, data) = draw.plan(exec)?;
    check(exec, plan, &data)
}

/// Draws from one row until `PENTIMENTO_CASES` have passed or one has failed and is shrunk.
fn explore(exec: &mut dyn Executor, row: (Case, Class, WeightType), sum: &mut Summary) -> Result<(), String> {
    let (case, class, weight) = row;
    // The same cases on every run: a failure is replayed, a longer run goes on where a shorter one ended.
    let mut seed = [0u8; 32];
    for (i, b) in format!("{}{class:?}{weight:?}{}", case.name, number("PENTIMENTO_SEED", 0)).bytes().enumerate() {
        seed[i % 32] ^= b.rotate_left(i as u32 / 32);
    }
    let config = Config { cases: number("PENTIMENTO_CASES", 6), failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let state = RefCell::new((exec, sum));
    let result = runner.run(&draws(case, class, weight), |draw| {
        let (exec, sum) = &mut *state.borrow_mut();
        let steps = one(&mut **exec, &draw).map_err(TestCaseError::fail)?;
        sum.add(&draw, &steps);
        Ok(())
    });
    result.map_err(|e| match e {
        TestError::Fail(reason, draw) => format!("{draw}: {reason}\n    {}", reproducer(&draw)),
        TestError::Abort(reason) => format!("{}: {reason}", case.name),
    })
}

fn reproducer(draw: &Draw) -> String {
    format!("PENTIMENTO_CASE='{draw}' cargo test --release -p tests --test numerics adapter_agrees -- --nocapture")
}

/// Replays `PENTIMENTO_CASE`.
fn replay(text: &str) {
    let draw: Draw = text.parse().unwrap_or_else(|e| panic!("PENTIMENTO_CASE: {e}"));
    let Some(mut exec) = executor(WHAT) else { return };
    let mut sum = Summary::default();
    let steps = one(&mut *exec, &draw).unwrap_or_else(|e| panic!("{draw} on {}: {e}", exec.caps().name));
    sum.add(&draw, &steps);
    sum.print(&exec.caps().name, "");
}

#[test]
fn adapter_agrees_with_twins() {
    if let Ok(text) = std::env::var("PENTIMENTO_CASE") {
        return replay(&text);
    }
    let mut sum = Summary::default();
    let mut failures = Vec::new();
    let mut name = String::new();
    let mut version = String::new();
    for case in all() {
        let weighted = WEIGHTED.iter().any(|w| w.name == case.name);
        let kinds = [WeightType::F32, WeightType::F16, WeightType::BF16];
        for &weight in &kinds[..if weighted { 3 } else { 1 }] {
            // A fresh device per row: plans are never freed, and leaves keep their type.
            let Some(mut exec) = executor(WHAT) else { return };
            if name.is_empty() {
                name = exec.caps().name.clone();
                version = driver(&name);
            }
            for class in [Class::Gpu, Class::Software] {
                let any = Draw { case, class, weight, n: [1; 3], values: tests::draw::Values::Normal, seed: 0, fold: false };
                let label = row(&any);
                let result = explore(&mut *exec, (case, class, weight), &mut sum);
                match verdict(find(KNOWN, &name, &version, &label), result) {
                    Ok(None) => {}
                    Ok(Some(line)) => println!("{label}: {line}"),
                    Err(e) => {
                        println!("FAILED {e}");
                        failures.push(e);
                    }
                }
            }
        }
    }
    sum.print(&name, &version);
    assert!(sum.cases() > 0);
    assert!(failures.is_empty(), "{} rows fail on {name}:\n{}", failures.len(), failures.join("\n"));
}
