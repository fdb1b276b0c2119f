//! What a device does in a second.
use crate::Result;
use pentimento_runtime::exec::{Executor, LeafData, PlanId, compile};
use pentimento_runtime::graph::{Graph, Layout};
use pentimento_wgsl::Stored;
use std::time::Instant;

/// Side of the matrices; how many products in a row; runs that are timed.
const SIDE: usize = 1024;
const PRODUCTS: usize = 4;
const RUNS: usize = 3;
const PREFIX: &str = "speed/";

/// Operations a second of large products of matrices, as networks have them: some seconds on a CPU's driver, a moment on a GPU. Trainings
/// have smaller ones and much besides, and come to a fifth to two thirds of it.
///
/// # Errors
/// The device failed.
pub fn speed(exec: &mut dyn Executor) -> Result<f64> {
    let numbers: Vec<f32> = (0..SIDE * SIDE).map(|i| ((i % 7) as f32 - 3.0) / 64.0).collect();
    let halves: Vec<u8> = numbers.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let weight = if exec.caps().half_weights {
        LeafData::Packed(Stored::F16, &halves)
    } else {
        LeafData::F32(&numbers)
    };
    let mut g = Graph::new();
    let mut x = g.input("x", &[SIDE, SIDE]);
    for i in 0..PRODUCTS {
        let name = format!("{PREFIX}{i}");
        exec.set_leaf(&name, weight)?;
        let w = g.weight(name, &[SIDE, SIDE], Layout::Plain);
        x = g.linear(x, w, None);
    }
    let mean = g.mean(x, 1);
    let plan = compile(exec, g, &[("mean", mean)])?;
    exec.write(plan, "x", &numbers)?;
    let spent = time(exec, plan);
    let flops = exec.plan(plan).flops as f64;
    exec.forget(plan)?;
    exec.forget_leaves(PREFIX)?;
    Ok(flops / spent?)
}

/// Seconds of the fastest run, after one that builds what it needs.
fn time(exec: &mut dyn Executor, plan: PlanId) -> Result<f64> {
    let mut best = f64::INFINITY;
    for run in 0..=RUNS {
        let began = Instant::now();
        exec.run(plan)?;
        exec.read(plan, "mean")?;
        if run > 0 {
            best = best.min(began.elapsed().as_secs_f64());
        }
    }
    Ok(best.max(1e-9))
}
