//! Every op of the case table: adapter against CPU twins, and analytic gradients against central differences.
use pentimento::exec::cpu::Cpu;
use pentimento::exec::{Executor, compile};
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Id};
use pentimento::rng::Philox;
use proptest::test_runner::{Config, TestRunner};
use tests::adapter::adapter;
use tests::cases::{CASES, Case, FORWARD_ONLY, inputs};

/// Runs a graph with seeded normal inputs.
fn run(exec: &mut dyn Executor, g: &Graph, outputs: &[(&str, Id)], seed: u64) -> Vec<Vec<f32>> {
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
fn with_gradients(case: &Case, n: [usize; 3], recompute: bool) -> (Graph, Vec<(String, Id)>) {
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

/// `<J u, dy> = <u, Jt dy>` with J u by central differences on the twins.
#[test]
fn gradients_agree_with_differences() {
    for case in CASES {
        let n = [3, 5, 4];
        let (g, out) = with_gradients(case, n, false);
        let out: Vec<(&str, Id)> = out.iter().map(|(s, i)| (s.as_str(), *i)).collect();
        let mut cpu = Cpu::new();
        let got = run(&mut cpu, &g, &out, 3);
        let plan = compile(&mut cpu, g.clone(), &out[..1]).expect("a plan");
        let names = inputs(&g);
        let mut values: Vec<Vec<f32>> = names.iter().map(|(_, len)| vec![0.0; *len]).collect();
        for (i, v) in values.iter_mut().enumerate().filter(|(i, _)| names[*i].0 != "zero") {
            Philox::new(3, i as u64).normals(v);
        }
        let dy = names.iter().position(|(n, _)| n == "dy").expect("dy");
        let mut fresh = Graph::new();
        let (_, wrt) = (case.build)(&mut fresh, n);
        for (d, id) in wrt.iter().enumerate() {
            let input =
                names.iter().position(|(n, _)| Some(n) == leaf_name(&fresh, *id).as_ref()).expect("an input");
            let mut u = vec![0.0; values[input].len()];
            Philox::new(11, d as u64).normals(&mut u);
            let h = 1e-2f32;
            let mut forward = |sign: f32| {
                for (i, (name, _)) in names.iter().enumerate().filter(|(i, _)| *i != dy) {
                    let mut v = values[i].clone();
                    if i == input {
                        v.iter_mut().zip(&u).for_each(|(x, u)| *x += sign * h * u);
                    }
                    let _ = cpu.write(plan, name, &v); // an input the forward pass does not use is not in the plan
                }
                cpu.run(plan).expect("a run");
                cpu.read(plan, "y").expect("y")
            };
            let (up, down) = (forward(1.0), forward(-1.0));
            let dot = |a: &[f32], b: &[f32]| {
                a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>()
            };
            let slope: Vec<f32> = up.iter().zip(&down).map(|(a, b)| (a - b) / (2.0 * h)).collect();
            let (left, right) = (dot(&slope, &values[dy]), dot(&u, &got[1 + d]));
            let scale = (dot(&slope, &slope) * dot(&values[dy], &values[dy])).sqrt();
            // Third-order remainder h^2/6 |f'''| plus f32 rounding of the values over 2h.
            assert!(
                (left - right).abs() <= 3e-3 * scale + 1e-5,
                "{} d{d}: {left} against {right}",
                case.name
            );
            assert!(dot(&got[1 + d], &got[1 + d]) > 0.0, "{} d{d}: an all-zero gradient", case.name);
        }
    }
}

fn leaf_name(g: &Graph, id: Id) -> Option<String> {
    match &g.node(id).op {
        pentimento::graph::Op::Leaf { name, .. } => Some(name.clone()),
        _ => None,
    }
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    for case in CASES {
        let n = [5, 3, 4];
        let mut results = Vec::new();
        for recompute in [false, true] {
            let (g, out) = with_gradients(case, n, recompute);
            let out: Vec<(&str, Id)> = out.iter().map(|(s, i)| (s.as_str(), *i)).collect();
            // The value itself may be fused where its parts are not kept; only gradients are promised.
            results.push(run(&mut Cpu::new(), &g, &out, 5).split_off(1));
        }
        assert_eq!(results[0], results[1], "{}", case.name);
    }
}

#[test]
fn comparison_rejects_nan_and_wrong_values() {
    assert!(close("x", [1; 3], "y", &[1.0], &[f32::NAN], 1.0).is_err());
    assert!(close("x", [1; 3], "y", &[1.0, 2.0], &[1.0, 2.1], 1e-3).is_err());
    assert!(close("x", [1; 3], "y", &[1.0, 2.0], &[1.0], 1e-3).is_err());
    assert!(close("x", [1; 3], "y", &[1.0], &[1.0], 1e-6).is_ok());
}
