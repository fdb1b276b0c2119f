//! Running a row of the case table.
use pentimento::exec::{Executor, compile};
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Id};
use pentimento::rng::Philox;
use tests::cases::{Case, inputs};

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

/// Forward value, then the gradients of a random `dy`.
pub fn with_gradients(case: &Case, n: [usize; 3], recompute: bool) -> (Graph, Vec<(String, Id)>) {
    let mut g = Graph::new();
    if recompute {
        g.begin_block();
    }
    let (y, wrt) = (case.build)(&mut g, n);
    g.end_block();
    let shape = g.shape(y).to_vec();
    let mut out = vec![("y".to_string(), y)];
    if !wrt.is_empty() {
        let dy = g.input("dy", &shape);
        let grads = gradients(&mut g, y, dy, &wrt, recompute).expect("gradients");
        out.extend(grads.into_iter().enumerate().map(|(i, d)| (format!("d{i}"), d)));
    }
    (g, out)
}
