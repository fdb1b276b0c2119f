//! What every comparison needs: executors, model folders, one run of a graph.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, compile, upload};
use pentimento_runtime::folder::{Component, open_component};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::weights::Weights;
use pentimento_wgsl::Class;
use pentimento_wgsl::kernel::{Features, Matrix};
use serde_json::Value;
use std::path::Path;
use tests::adapter::{adapter, exact};

/// A fresh executor of each kind: the CPU twins, and the adapter where there is one.
pub fn executors(what: &str) -> Vec<(String, Box<dyn Executor>)> {
    let mut all: Vec<(String, Box<dyn Executor>)> = vec![("cpu".into(), Box::new(Cpu::new()))];
    if let Some(gpu) = exact(what) {
        all.push((gpu.caps().name.clone(), Box::new(gpu)));
    }
    all
}

/// [`executors`], each with `false`, and those on cooperative matrices, with `true`: the CPU twins, whose operands are rounded as for
/// those, and the adapter where it has some.
pub fn all_executors(what: &str) -> Vec<(String, Box<dyn Executor>, bool)> {
    let exact = executors(what).into_iter().map(|(name, exec)| (name, exec, false));
    let mut all: Vec<_> = exact.collect();
    let matrix = Some(Matrix { edge: 16, subgroup: 32 });
    let unlimited = Caps::unlimited("cpu, operands in f16");
    let caps = Caps {
        workgroup_memory: 48 << 10,
        invocations: 1024,
        features: Features::MATRIX,
        matrix,
        ..unlimited
    };
    all.push((caps.name.clone(), Box::new(Cpu::planned(caps)), true));
    if let Some(gpu) =
        adapter(what).filter(|gpu| gpu.caps().class == Class::Gpu && gpu.caps().matrix.is_some())
    {
        all.push((format!("{}, on matrices", gpu.caps().name), Box::new(gpu), true));
    }
    all
}

/// Plans, uploads, writes and runs a graph; the outputs in order.
pub fn run(
    exec: &mut dyn Executor,
    g: Graph,
    weights: &[(&str, &Weights)],
    inputs: &[(&str, &[f32])],
    outputs: &[(&str, Id)],
) -> Vec<Vec<f32>> {
    for (component, weights) in weights {
        upload(exec, &g, &format!("{component}/"), weights).expect("the checkpoint fits the graph");
    }
    let plan = compile(exec, g, outputs).expect("a plan");
    for (name, data) in inputs {
        exec.write(plan, name, data).expect("an input");
    }
    exec.run(plan).expect("a run");
    outputs.iter().map(|(name, _)| exec.read(plan, name).expect("an output")).collect()
}

pub fn model(path: &Path) -> (Component, Value, Weights) {
    let component = open_component(path).expect("a model folder");
    let (config, weights) = (component.config().expect("a config"), component.weights().expect("weights"));
    (component, config, weights)
}
