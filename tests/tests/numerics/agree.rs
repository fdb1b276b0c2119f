//! Adapter against CPU twins, for every row of the case table.
use crate::common::{run, with_gradients};
use pentimento::exec::cpu::Cpu;
use pentimento::graph::Id;
use proptest::test_runner::{Config, TestRunner};
use tests::adapter::adapter;
use tests::cases::{CASES, FORWARD_ONLY};

fn close(case: &str, n: [usize; 3], what: &str, want: &[f32], got: &[f32], tol: f64) -> Result<(), String> {
    let norm = want.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let err = want.iter().zip(got).map(|(&a, &b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    // Accept, never reject: NaN must fail.
    if want.len() == got.len() && err <= tol * norm + 1e-6 * (want.len() as f64).sqrt() {
        return Ok(());
    }
    Err(format!("{case} {n:?} {what}: error {err:.3e}, norm {norm:.3e}, limit {tol:.1e}"))
}

/// Summation error of f32 grows with the square root of the longest sum (random signs); twelve roundings of slack
/// for exp, sqrt and division, which WGSL allows 3 ulp and more.
fn tolerance(n: [usize; 3]) -> f64 {
    let longest = (n.iter().max().copied().unwrap_or(1) * 64 * 32) as f64;
    12.0 * f64::from(f32::EPSILON) * longest.sqrt().max(1.0)
}

fn cases_count() -> u32 {
    std::env::var("PENTIMENTO_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(4)
}

#[test]
fn adapter_agrees_with_twins() {
    let Some(mut gpu) = adapter("kernels against their twins") else { return };
    for case in CASES.iter().chain(FORWARD_ONLY) {
        let mut runner =
            TestRunner::new(Config { cases: cases_count(), failure_persistence: None, ..Config::default() });
        let gpu = std::cell::RefCell::new(&mut gpu);
        let result = runner.run(&(1usize..=40, 1usize..=40, 1usize..=40), |(a, b, c)| {
            let n = [a, b, c];
            let (g, out) = with_gradients(case, n, false);
            let out: Vec<(&str, Id)> = out.iter().map(|(s, i)| (s.as_str(), *i)).collect();
            let want = run(&mut Cpu::new(), &g, &out, 7);
            let got = run(&mut **gpu.borrow_mut(), &g, &out, 7);
            for (i, (w, v)) in want.iter().zip(&got).enumerate() {
                close(case.name, n, out[i].0, w, v, tolerance(n))
                    .map_err(proptest::test_runner::TestCaseError::fail)?;
            }
            Ok(())
        });
        result.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
    println!("{} ops x {} shapes on {}", CASES.len() + FORWARD_ONLY.len(), cases_count(), gpu.name());
}

#[test]
fn comparison_rejects_nan_and_wrong_values() {
    assert!(close("x", [1; 3], "y", &[1.0], &[f32::NAN], 1.0).is_err());
    assert!(close("x", [1; 3], "y", &[1.0, 2.0], &[1.0, 2.1], 1e-3).is_err());
    assert!(close("x", [1; 3], "y", &[1.0, 2.0], &[1.0], 1e-3).is_err());
    assert!(close("x", [1; 3], "y", &[1.0], &[1.0], 1e-6).is_ok());
}
