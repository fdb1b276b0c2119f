//! Analytic gradients against central differences.
use crate::common::{run, with_gradients};
use pentimento::exec::cpu::Cpu;
use pentimento::exec::{Executor, compile};
use pentimento::graph::{Graph, Id};
use pentimento::rng::Philox;
use tests::cases::{CASES, inputs};

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
