//! Drawing cases, running graphs on the twins and on the adapter, comparing.
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, LeafData};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::plan::Plan;
use pentimento_runtime::rng::Philox;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use tests::adapter::adapter;

/// Tensors by name.
pub type Values = BTreeMap<String, Vec<f32>>;

/// Runs a property on drawn cases (`PENTIMENTO_CASES`, 6 by default); a failure is shrunk and told in one line.
/// Returns the number of cases.
pub fn property<S: Strategy>(name: &str, strategy: S, check: impl Fn(S::Value) -> Result<(), String>) -> u32
where
    S::Value: Debug,
{
    let cases = std::env::var("PENTIMENTO_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(6);
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    });
    let done = Cell::new(0);
    let result = runner.run(&strategy, |value| {
        done.set(done.get() + 1);
        check(value).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => done.get(),
        Err(TestError::Fail(reason, value)) => panic!("{name} with {value:?}: {reason}"),
        Err(TestError::Abort(reason)) => panic!("{name}: {reason}"),
    }
}

/// Any seed; small ones when shrunk.
pub fn seeds() -> impl Strategy<Value = u64> {
    0u64..1 << 32
}
/// Three small sizes.
pub fn small() -> impl Strategy<Value = [usize; 3]> {
    [1usize..=9, 1usize..=9, 1usize..=9]
}
/// Three sizes of every kind: one, below and above tiles, primes, multiples of four (which kernels for texels want).
pub fn sizes() -> impl Strategy<Value = [usize; 3]> {
    let one = || prop_oneof![1usize..=40, (1usize..=17).prop_map(|n| 4 * n), Just(63), Just(65)];
    [one(), one(), one()]
}

/// The twins, and the adapter under test if there is one.
pub fn executors(what: &str) -> Vec<(String, Box<dyn Executor>)> {
    let mut all: Vec<(String, Box<dyn Executor>)> = vec![("twins".into(), Box::new(Cpu::new()))];
    if let Some(gpu) = adapter(what) {
        all.push((gpu.name().into(), Box::new(gpu)));
    }
    all
}

/// Runs a graph. Tensors of `values` that it does not read are ignored; the others are zero.
pub fn run(exec: &mut dyn Executor, g: &Graph, outputs: &[Id], values: &Values) -> Vec<Vec<f32>> {
    run_as(exec, g, outputs, values, true)
}

/// As [`run`], with or without fusion.
pub fn run_as(
    exec: &mut dyn Executor,
    g: &Graph,
    outputs: &[Id],
    values: &Values,
    fused: bool,
) -> Vec<Vec<f32>> {
    let names: Vec<String> = (0..outputs.len()).map(|i| format!("o{i}")).collect();
    let named: Vec<(&str, Id)> = names.iter().map(String::as_str).zip(outputs.iter().copied()).collect();
    let caps = exec.caps().clone();
    let kind = |name: &str| exec.stored(name);
    let plan = if fused {
        Plan::new(g.clone(), &named, &caps, &kind)
    } else {
        Plan::unfused(g, &named, &caps, &kind)
    };
    let plan = plan.expect("a plan");
    let inputs: Vec<String> = plan.inputs.iter().map(|i| i.name.clone()).collect();
    for leaf in &plan.leaves {
        exec.set_leaf(&leaf.name, LeafData::F32(&values[&leaf.name])).expect("a leaf");
    }
    let plan = exec.prepare(plan).expect("a prepared plan");
    for (name, data) in inputs.iter().filter_map(|n| Some((n, values.get(n)?))) {
        exec.write(plan, name, data).expect("an input");
    }
    exec.run(plan).expect("a run");
    names.iter().map(|n| exec.peek(plan, n).expect("an output")).collect()
}

/// Normal numbers.
pub fn normals(seed: u64, stream: u64, len: usize) -> Vec<f32> {
    let mut x = vec![0.0; len];
    Philox::new(seed, stream).normals(&mut x);
    x
}
/// Whole numbers from -4 to 4: sums of their products are exact in f32, in whatever order they are made.
pub fn whole(seed: u64, stream: u64, len: usize) -> Vec<f32> {
    let mut rng = Philox::new(seed, stream);
    (0..len).map(|_| rng.below(9) as f32 - 4.0).collect()
}
/// A tensor for every input of a graph, the input "zero" left at zero.
pub fn fill(g: &Graph, draw: impl Fn(u64, usize) -> Vec<f32>) -> Values {
    let inputs = tests::cases::inputs(g).into_iter().enumerate().filter(|(_, (name, _))| name != "zero");
    inputs.map(|(i, (name, len))| (name, draw(i as u64, len))).collect()
}

/// The sum of products, in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// The same bits everywhere.
pub fn same_bits(got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} numbers, expected {}", got.len(), want.len()));
    }
    match (0..got.len()).find(|&i| got[i].to_bits() != want[i].to_bits()) {
        None => Ok(()),
        Some(i) => Err(format!("{:e} at {i}, expected {:e}", got[i], want[i])),
    }
}
/// Equal as numbers, 0 and -0 included.
pub fn equal(got: &[f32], want: &[f32]) -> Result<(), String> {
    if got.len() == want.len() && got.iter().zip(want).all(|(g, w)| g == w) {
        return Ok(());
    }
    let at = got.iter().zip(want).position(|(g, w)| g != w);
    Err(format!("differs at {at:?}: {:?}, expected {:?}", at.map(|i| got[i]), at.map(|i| want[i])))
}
/// Every element within its own limit.
pub fn within(got: &[f32], want: &[f32], limit: &[f64]) -> Result<(), String> {
    if got.len() != want.len() || got.len() != limit.len() {
        return Err(format!("{} numbers, {} expected, {} limits", got.len(), want.len(), limit.len()));
    }
    for i in 0..got.len() {
        let error = (f64::from(got[i]) - f64::from(want[i])).abs();
        // Accept, never reject: NaN must fail.
        if error <= limit[i] {
            continue;
        }
        return Err(format!(
            "{:e} at {i}, expected {:e}, error {error:.1e}, limit {:.1e}",
            got[i], want[i], limit[i]
        ));
    }
    Ok(())
}

#[test]
fn comparers_refuse_what_differs() {
    assert!(same_bits(&[1.0], &[1.0]).is_ok() && same_bits(&[f32::NAN], &[f32::NAN]).is_ok());
    assert!(same_bits(&[0.0], &[-0.0]).is_err() && same_bits(&[1.0], &[1.000_000_1]).is_err());
    assert!(same_bits(&[], &[1.0]).is_err());
    assert!(equal(&[0.0], &[-0.0]).is_ok() && equal(&[f32::NAN], &[f32::NAN]).is_err());
    assert!(equal(&[1.0], &[2.0]).is_err() && equal(&[1.0], &[1.0, 1.0]).is_err());
    assert!(within(&[1.0], &[1.5], &[0.5]).is_ok() && within(&[1.0], &[1.5], &[0.4]).is_err());
    assert!(within(&[f32::NAN], &[1.0], &[1.0]).is_err() && within(&[1.0], &[1.0], &[f64::NAN]).is_err());
    assert!(within(&[1.0], &[1.0], &[]).is_err());
}

#[test]
#[should_panic(expected = "drawn with 10: 10 is too large")]
fn a_failing_property_is_shrunk_to_one_line() {
    property("drawn", 0u32..1000, |n| {
        // The first case may pass by chance; the range makes sixty-four misses in a row impossible in practice.
        let all = (n..1000).step_by(1);
        if all.max().unwrap_or(0) < 10 || n < 10 { Ok(()) } else { Err(format!("{n} is too large")) }
    });
}
