//! Analytic gradients against central differences, both on the twins in f64.
use crate::double::{Values, dot, draw, name, norm, plan, sensitivity, transformer, values};
use crate::harness::{executors, property, seeds, small};
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, compile};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::rng::Philox;
use pentimento_wgsl::kernel::{Act, Binary, Unary};
use std::cell::Cell;
use tests::cases::{CASES, Case};

/// Unit roundoff of f64.
const U: f64 = f64::EPSILON / 2.0;
/// The step that balances a remainder of h^2 against roundings over h.
const STEP: f64 = 6.055e-6; // eps^(1/3)
/// What a limit may be beside what is compared: three orders below what differences in f32 could tell.
const SHARE: f64 = 1e-6;

/// A slope against the central differences of `phi` with steps h and h/2. `rounding` bounds the error of one `phi`.
///
/// The remainder of D(h/2) is h^2/24 phi''' and D(h) - D(h/2) is three times that, so the latter bounds it with room for
/// the next order; two values over h add 2 rounding / h. A limit above [`SHARE`] of `scale`, the size of what is compared,
/// would say nothing and is refused. Returns the part of the limit that was used.
fn agree(mut phi: impl FnMut(f64) -> f64, slope: f64, rounding: f64, scale: f64) -> Result<f64, String> {
    let mut difference = |h: f64| (phi(h) - phi(-h)) / (2.0 * h);
    let (coarse, fine) = (difference(STEP), difference(STEP / 2.0));
    let limit = (coarse - fine).abs() + 2.0 * rounding / STEP;
    let error = (fine - slope).abs();
    // Accept, never reject: NaN must fail.
    if error <= limit && limit <= SHARE * scale {
        return Ok(error / limit.max(f64::MIN_POSITIVE));
    }
    Err(format!(
        "slope {slope:.12e}, difference {fine:.12e}, error {error:.1e}, limit {limit:.1e}, scale {scale:.1e}"
    ))
}

/// [`check_at`] drawn numbers.
fn check(graph: (Graph, Id, Id, Vec<Id>), seed: u64, directions: u64) -> Result<(usize, f64), String> {
    let inputs = draw(&graph.0, seed);
    check_at(graph, &inputs, seed, directions)
}

/// Every direction of every gradient of a graph; `directions` per tensor and, with several tensors, all of them at once.
pub fn check_at(
    (g, y, dy, wrt): (Graph, Id, Id, Vec<Id>),
    inputs: &Values,
    seed: u64,
    directions: u64,
) -> Result<(usize, f64), String> {
    let rounding = U * sensitivity(&g, y, dy, &wrt, inputs).sums;
    let mut full = g.clone();
    let grads = gradients(&mut full, y, dy, &wrt, false).expect("gradients");
    let grads = values(&full, &grads, inputs, true);
    let names: Vec<&str> = wrt.iter().filter_map(|&id| name(&g, id)).collect();
    let out = &inputs[name(&g, dy).unwrap_or("dy")];
    let mut cpu = Cpu::double();
    let id = plan(&mut cpu, &g, &[("y", y)], inputs, true);
    cpu.run(id).expect("a run");
    let whole = norm(&cpu.read_real(id, "y").expect("y")) * norm(out);
    let mut sets: Vec<Vec<usize>> = (0..wrt.len()).map(|i| vec![i]).collect();
    if wrt.len() > 1 {
        sets.push((0..wrt.len()).collect());
    }
    let (mut done, mut worst) = (0, 0.0f64);
    for (set, direction) in sets.iter().flat_map(|s| (0..directions).map(move |d| (s, d))) {
        let u: Vec<Vec<f64>> =
            set.iter().map(|&i| normals(seed ^ direction, 1000 + i as u64, grads[i].len())).collect();
        let (mut slope, mut size, mut length) = (0.0, 0.0, 0.0);
        for (u, &i) in u.iter().zip(set) {
            slope += dot(u, &grads[i]);
            size += dot(&grads[i], &grads[i]);
            length += dot(u, u);
        }
        // What the slope could be at most, and what phi is made of: gradients can be small beside it.
        let scale = (size * length).sqrt() + whole;
        let phi = |t: f64| {
            for (u, &i) in u.iter().zip(set) {
                let moved: Vec<f64> = inputs[names[i]].iter().zip(u).map(|(x, u)| x + t * u).collect();
                move_to(&mut cpu, id, names[i], moved);
            }
            cpu.run(id).expect("a run");
            dot(&cpu.read_real(id, "y").expect("y"), out)
        };
        let label = if set.len() > 1 { "all" } else { names[set[0]] };
        worst = worst.max(agree(phi, slope, rounding, scale).map_err(|e| format!("d {label}: {e}"))?);
        for &i in set {
            move_to(&mut cpu, id, names[i], inputs[names[i]].clone());
        }
        done += 1;
    }
    Ok((done, worst))
}

fn move_to(cpu: &mut Cpu<f64>, id: pentimento_runtime::exec::PlanId, name: &str, data: Vec<f64>) {
    if cpu.has_leaf(name) {
        cpu.set_leaf_real(name, data).expect("a leaf");
    } else {
        cpu.write_real(id, name, &data).expect("an input");
    }
}

fn normals(seed: u64, stream: u64, len: usize) -> Vec<f64> {
    let mut u = vec![0.0f32; len];
    Philox::new(seed, stream).normals(&mut u);
    u.into_iter().map(f64::from).collect()
}

fn built(case: &Case, n: [usize; 3]) -> (Graph, Id, Id, Vec<Id>) {
    let mut g = Graph::new();
    let (y, wrt) = (case.build)(&mut g, n);
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    (g, y, dy, wrt)
}

/// Rows that bend: where a side is chosen, differences see the slope of that side.
const BENT: &[Case] = &[
    Case { name: "relu", build: |g, n| one(g, n, Unary::Act(Act::Relu)) },
    Case { name: "clamp", build: |g, n| one(g, n, Unary::Clamp(-0.5, 0.75)) },
    Case { name: "abs", build: |g, n| one(g, n, Unary::Abs) },
    Case { name: "max", build: |g, n| two(g, &n, &n) },
    Case { name: "max_row", build: |g, n| two(g, &n, &[n[2]]) },
];
fn one(g: &mut Graph, n: [usize; 3], f: Unary) -> (Id, Vec<Id>) {
    let x = g.input("x", &n);
    (g.unary(f, x), vec![x])
}
fn two(g: &mut Graph, a: &[usize], b: &[usize]) -> (Id, Vec<Id>) {
    let (a, b) = (g.input("a", a), g.input("b", b));
    (g.binary(Binary::Max, a, b), vec![a, b])
}

#[test]
fn gradients_agree_with_differences() {
    let (done, worst) = (Cell::new(0), Cell::new(0.0f64));
    for case in CASES.iter().chain(BENT) {
        property(&format!("gradient of {}", case.name), (small(), seeds()), |(n, seed)| {
            let (k, share) = check(built(case, n), seed, 2)?;
            done.set(done.get() + k);
            worst.set(worst.get().max(share));
            Ok(())
        });
    }
    println!(
        "gradients: {} directions of {} ops, at most {:.0} % of the limit",
        done.get(),
        CASES.len() + BENT.len(),
        100.0 * worst.get()
    );
}

/// A whole transformer, by latents, time, text and every LoRA matrix.
#[test]
fn transformer_gradients_agree_with_differences() {
    let (done, worst) = (Cell::new(0), Cell::new(0.0f64));
    let sizes = (1usize..=3, 2usize..=3, 1usize..=5, seeds());
    property("gradients of a transformer with LoRA", sizes, |(rank, side, tokens, seed)| {
        let (k, share) = check(transformer(rank, side, tokens), seed, 1)?;
        done.set(done.get() + k);
        worst.set(worst.get().max(share));
        Ok(())
    });
    let share = 100.0 * worst.get();
    println!(
        "gradients of a transformer with LoRA: {} directions, at most {share:.0} % of the limit",
        done.get()
    );
}

/// d of every element of x at the given points for dy = 2.
fn slopes(
    exec: &mut dyn Executor,
    g: &mut Graph,
    y: Id,
    wrt: &[Id],
    inputs: &[(&str, &[f32])],
) -> Vec<Vec<f32>> {
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    let grads = gradients(g, y, dy, wrt, false).expect("gradients");
    let names: Vec<String> = (0..grads.len()).map(|i| format!("d{i}")).collect();
    let out: Vec<(&str, Id)> = names.iter().map(String::as_str).zip(grads).collect();
    let plan = compile(exec, g.clone(), &out).expect("a plan");
    for (name, data) in inputs {
        let _ = exec.write(plan, name, data); // slopes need not read the other operand
    }
    exec.write(plan, "dy", &vec![2.0; g.len(y)]).expect("dy");
    exec.run(plan).expect("a run");
    names.iter().map(|n| exec.peek(plan, n).expect("a gradient")).collect()
}

/// Where a function bends, the slope is a choice; these are documented at [`Unary`], [`Binary`] and [`Act`].
#[test]
fn slopes_at_kinks_are_the_documented_ones() {
    let tiny = f32::from_bits(0x0080_0000); // smallest normal
    let cases: [(Unary, &[f32], &[f32]); 3] = [
        (Unary::Act(Act::Relu), &[0.0, -0.0, tiny, -tiny, 1.0, -1.0], &[0.0, 0.0, 2.0, 0.0, 2.0, 0.0]),
        (Unary::Abs, &[0.0, -0.0, tiny, -tiny, 3.0, -3.0], &[0.0, 0.0, 2.0, -2.0, 2.0, -2.0]),
        (
            Unary::Clamp(-0.5, 0.75),
            &[-0.5, 0.75, -0.500_000_06, 0.750_000_06, 0.0, 9.0],
            &[2.0, 2.0, 0.0, 0.0, 2.0, 0.0],
        ),
    ];
    for (who, mut exec) in executors("slopes at kinks") {
        for (f, at, want) in &cases {
            let mut g = Graph::new();
            let x = g.input("x", &[at.len()]);
            let y = g.unary(*f, x);
            let got = slopes(&mut *exec, &mut g, y, &[x], &[("x", at)]).remove(0);
            assert!(
                got.iter().zip(*want).all(|(g, w)| g == w),
                "{who}: {f:?} at {at:?}: {got:?}, expected {want:?}"
            );
        }
        let (a, b): ([f32; 5], [f32; 5]) = ([1.0, 2.0, 0.0, -1.0, -0.0], [1.0, 1.0, 0.0, 3.0, 0.0]);
        let mut g = Graph::new();
        let (x, z) = (g.input("a", &[5]), g.input("b", &[5]));
        let y = g.binary(Binary::Max, x, z);
        let got = slopes(&mut *exec, &mut g, y, &[x, z], &[("a", &a), ("b", &b)]);
        assert_eq!(
            got,
            [[2.0, 2.0, 2.0, 0.0, 2.0], [0.0, 0.0, 0.0, 2.0, 0.0]],
            "{who}: a tie goes to the first"
        );
        println!(
            "slopes at kinks: {} points on {who}",
            cases.iter().map(|c| c.1.len()).sum::<usize>() + a.len()
        );
    }
}

#[test]
fn the_difference_check_refuses_wrong_slopes() {
    let phi = |t: f64| (1.0 + t).sin();
    let right = 1f64.cos();
    let judge = |slope: f64, rounding: f64| agree(phi, slope, rounding, 1.0);
    assert!(judge(right, 2.0 * U).is_ok());
    assert!(judge(right * (1.0 + 1e-8), 2.0 * U).is_err(), "one part in 10^8");
    assert!(judge(-right, 2.0 * U).is_err() && judge(0.0, 2.0 * U).is_err());
    assert!(judge(f64::NAN, 2.0 * U).is_err() && judge(right, f64::NAN).is_err());
    assert!(judge(right, 1e-9).is_err(), "a limit that allows anything");
    assert!(agree(|t| (t - 1e-6).abs(), 1.0, U, 1.0).is_err(), "a kink within the step");
    // The slope of another function: gelu against its tanh form, which differ by 1e-3.
    let (mut g, mut other) = (Graph::new(), Graph::new());
    let (y, wrt) = one(&mut g, [3, 4, 5], Unary::Act(Act::Gelu));
    let (z, _) = one(&mut other, [3, 4, 5], Unary::Act(Act::GeluTanh));
    let dy = other.input("dy", &[3, 4, 5]);
    let wrong = gradients(&mut other, z, dy, &wrt, false).expect("a gradient");
    let inputs = draw(&other, 5);
    let wrong = values(&other, &wrong, &inputs, true).remove(0);
    let u = normals(1, 1, 60);
    let phi = |t: f64| {
        let moved = inputs["x"].iter().zip(&u).map(|(x, u)| x + t * u).collect();
        let moved = Values::from([("x".to_string(), moved)]);
        dot(&values(&g, &[y], &moved, true)[0], &inputs["dy"])
    };
    assert!(agree(phi, dot(&u, &wrong), 1e3 * U, norm(&u) * norm(&wrong)).is_err());
}
