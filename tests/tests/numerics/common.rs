//! Running a row of the case table.
use pentimento::exec::{Executor, compile};
use pentimento::graph::{Graph, Id};
use pentimento::rng::Philox;
use tests::cases::inputs;
pub use tests::draw::with_gradients;

/// Runs a graph with seeded normal inputs.
pub fn run(exec: &mut dyn Executor, g: &Graph, outputs: &[(&str, Id)], seed: u64) -> Vec<Vec<f32>> {
    let plan = compile(exec, g.clone(), outputs).expect("a plan");
    for (i, (name, len)) in inputs(g).into_iter().enumerate() {
        let mut data = vec![0.0; len];
        if name != "zero" {
            Philox::new(seed, i as u64).normals(&mut data);
        }
        exec.write(plan, &name, &data).expect("an input");
    }
    exec.run(plan).expect("a run");
    outputs.iter().map(|(name, _)| exec.read(plan, name).expect("an output")).collect()
}
