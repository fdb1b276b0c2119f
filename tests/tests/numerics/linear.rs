//! Linearity and adjointness, without a twin. On whole numbers every sum is exact in f32, so there is no tolerance: an
//! index that is wrong anywhere shows, and nothing else can.
use crate::harness::{Values, dot, equal, executors, fill, normals, property, run, seeds, sizes, whole};
use pentimento_runtime::exec::Executor;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_wgsl::kernel::Binary;
use std::cell::RefCell;

/// The result and the sets of operands.
type Built = (Id, Vec<Vec<Id>>);

/// An operation that is linear in each set of operands while the others stay.
struct Linear {
    name: &'static str,
    build: fn(&mut Graph, [usize; 3]) -> Built,
    /// Whether it has a backward pass.
    backward: bool,
}

fn product(g: &mut Graph, a: [usize; 2], b: [usize; 2], a_t: bool, b_t: bool) -> Built {
    let (a, b) = (g.input("a", &a), g.input("b", &b));
    (g.matmul(a, b, a_t, b_t), vec![vec![a], vec![b]])
}
fn pair(g: &mut Graph, a: &[usize], b: &[usize], f: Binary) -> Built {
    let (a, b) = (g.input("a", a), g.input("b", b));
    let sets = if f == Binary::Mul { vec![vec![a], vec![b]] } else { vec![vec![a, b]] };
    (g.binary(f, a, b), sets)
}
/// Linear in x and in w; a gradient goes to x only.
fn conv(g: &mut Graph, n: [usize; 3], kernel: usize, stride: usize, pad: usize, pad_end: usize) -> Built {
    let c = 4 * (1 + n[2] % 3);
    let x = g.input("x", &[2, kernel + n[0] % 9, kernel + n[1] % 9, c]);
    let w = g.input("w", &[1 + n[2] % 7, kernel, kernel, c]);
    (g.conv2d(x, w, None, stride, pad, pad_end), vec![vec![x], vec![w]])
}

fn of_x((y, mut sets): Built) -> Built {
    sets.truncate(1);
    (y, sets)
}

const LINEAR: &[Linear] = &[
    Linear {
        name: "matmul",
        build: |g, n| product(g, [n[0], n[2]], [n[2], n[1]], false, false),
        backward: true,
    },
    Linear {
        name: "matmul_at",
        build: |g, n| product(g, [n[2], n[0]], [n[2], n[1]], true, false),
        backward: true,
    },
    Linear {
        name: "matmul_bt",
        build: |g, n| product(g, [n[0], n[2]], [n[1], n[2]], false, true),
        backward: true,
    },
    Linear {
        name: "matmul_at_bt",
        build: |g, n| product(g, [n[2], n[0]], [n[1], n[2]], true, true),
        backward: true,
    },
    Linear { name: "add", build: |g, n| pair(g, &n, &n, Binary::Add), backward: true },
    Linear { name: "sub_row", build: |g, n| pair(g, &n, &[n[2]], Binary::Sub), backward: true },
    Linear { name: "add_batch", build: |g, n| pair(g, &n, &[n[0], 1, n[2]], Binary::Add), backward: true },
    Linear { name: "mul_outer", build: |g, n| pair(g, &n, &[n[0], 1, 1], Binary::Mul), backward: true },
    Linear { name: "mul_batch", build: |g, n| pair(g, &n, &[n[0], 1, n[2]], Binary::Mul), backward: true },
    Linear {
        name: "slice",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.slice(x, 1, n[1] / 3, n[1] - n[1] / 2), vec![vec![x]])
        },
        backward: true,
    },
    Linear {
        name: "pad",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.pad(x, 1, n[0] % 5, n[1] + n[0] % 5 + n[2] % 3), vec![vec![x]])
        },
        backward: true,
    },
    Linear {
        name: "concat",
        build: |g, n| {
            let (a, b) = (g.input("a", &n), g.input("b", &[n[0], 1 + n[2] % 5, n[2]]));
            (g.concat(a, b, 1), vec![vec![a, b]])
        },
        backward: true,
    },
    Linear {
        name: "permute",
        build: |g, n| {
            let x = g.input("x", &[2, n[0], n[1], n[2]]);
            (g.permute(x, &[3, 1, 0, 2]), vec![vec![x]])
        },
        backward: true,
    },
    Linear {
        name: "sum_middle",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.sum(x, n[0], n[1], n[2], 0.5, &[n[0], n[2]]), vec![vec![x]])
        },
        backward: true,
    },
    Linear {
        name: "sum_long",
        build: |g, n| {
            let x = g.input("x", &[2, 64 * n[0]]);
            (g.sum(x, 2, 64 * n[0], 1, 1.0, &[2]), vec![vec![x]])
        },
        backward: true,
    },
    Linear { name: "conv2d_3x3", build: |g, n| conv(g, n, 3, 1, 1, 0), backward: false },
    Linear { name: "conv2d_down", build: |g, n| conv(g, n, 3, 2, 0, 1), backward: false },
    Linear { name: "conv2d_1x1", build: |g, n| conv(g, n, 1, 1, 0, 0), backward: false },
    Linear { name: "conv2d_3x3_x", build: |g, n| of_x(conv(g, n, 3, 1, 1, 0)), backward: true },
    Linear { name: "conv2d_down_x", build: |g, n| of_x(conv(g, n, 3, 2, 0, 1)), backward: true },
    Linear { name: "conv2d_apart_x", build: |g, n| of_x(conv(g, n, 2, 3, 1, 0)), backward: true },
    Linear { name: "conv2d_1x1_x", build: |g, n| of_x(conv(g, n, 1, 1, 0, 0)), backward: true },
    Linear {
        name: "upsample",
        build: |g, n| {
            let x = g.input("x", &[2, 1 + n[0] % 9, 1 + n[1] % 9, n[2]]);
            (g.upsample(x), vec![vec![x]])
        },
        backward: true,
    },
];

fn names(g: &Graph, ids: &[Id]) -> Vec<String> {
    ids.iter().filter_map(|&id| crate::double::name(g, id).map(Into::into)).collect()
}

/// f(alpha x + beta z) = alpha f(x) + beta f(z), for every set of operands.
fn linear(exec: &mut dyn Executor, row: &Linear, n: [usize; 3], seed: u64) -> Result<(), String> {
    let mut g = Graph::new();
    let (y, sets) = (row.build)(&mut g, n);
    let x = fill(&g, |i, len| whole(seed, i, len));
    let z = fill(&g, |i, len| whole(seed, 100 + i, len));
    let (alpha, beta) = (3.0, if seed.is_multiple_of(2) { -2.0 } else { 1.0 });
    let mix =
        |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| alpha * a + beta * b).collect() };
    let mut f = |v: &Values| run(exec, &g, &[y], v).remove(0);
    let fx = f(&x);
    for set in sets {
        let (mut other, mut mixed) = (x.clone(), x.clone());
        for name in names(&g, &set) {
            mixed.insert(name.clone(), mix(&x[&name], &z[&name]));
            other.insert(name.clone(), z[&name].clone());
        }
        let want = mix(&fx, &f(&other));
        equal(&f(&mixed), &want).map_err(|e| format!("{} in {:?}: {e}", row.name, names(&g, &set)))?;
    }
    Ok(())
}

/// <J x, dy> = <x, Jt dy>: J x is the value itself, Jt dy the backward pass.
fn adjoint(exec: &mut dyn Executor, row: &Linear, n: [usize; 3], seed: u64) -> Result<(), String> {
    let mut g = Graph::new();
    let (y, sets) = (row.build)(&mut g, n);
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    for set in sets {
        let mut g = g.clone();
        let mut out = vec![y];
        out.extend(gradients(&mut g, y, dy, &set, false).map_err(|e| e.to_string())?);
        let x = fill(&g, |i, len| whole(seed, i, len));
        let got = run(exec, &g, &out, &x);
        let left = dot(&got[0], &x["dy"]);
        let names = names(&g, &set);
        let right: f64 = names.iter().zip(&got[1..]).map(|(name, d)| dot(&x[name], d)).sum();
        // Whole numbers below 2^53 throughout: equal, not close.
        if left != right {
            return Err(format!("{} in {names:?}: <J x, dy> = {left}, <x, Jt dy> = {right}", row.name));
        }
    }
    Ok(())
}

#[test]
fn linear_operations_are_linear() {
    for (who, exec) in executors("linearity") {
        let exec = RefCell::new(exec);
        let each = |row: &Linear| {
            property(&format!("linearity of {}", row.name), (sizes(), seeds()), |(n, seed)| {
                linear(&mut **exec.borrow_mut(), row, n, seed)
            })
        };
        let cases: u32 = LINEAR.iter().map(each).sum();
        println!("linearity, exact: {cases} cases of {} ops on {who}", LINEAR.len());
    }
}

#[test]
fn backward_is_the_adjoint_of_forward() {
    for (who, exec) in executors("adjointness") {
        let exec = RefCell::new(exec);
        let rows = || LINEAR.iter().filter(|r| r.backward);
        let each = |row: &Linear| {
            property(&format!("adjoint of {}", row.name), (sizes(), seeds()), |(n, seed)| {
                adjoint(&mut **exec.borrow_mut(), row, n, seed)
            })
        };
        let cases: u32 = rows().map(each).sum();
        println!("adjointness, exact: {cases} cases of {} ops on {who}", rows().count());
    }
}

#[test]
fn the_checks_refuse_what_is_not_linear() {
    let square = Linear {
        name: "square",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.mul(x, x), vec![vec![x]])
        },
        backward: true,
    };
    let shifted = Linear {
        name: "affine",
        build: |g, n| {
            let x = g.input("x", &n);
            (g.affine(x, 2.0, 1.0), vec![vec![x]])
        },
        backward: true,
    };
    let mut cpu = pentimento_runtime::exec::cpu::Cpu::new();
    for row in [square, shifted] {
        assert!(
            linear(&mut cpu, &row, [3, 4, 5], 1).is_err() && adjoint(&mut cpu, &row, [3, 4, 5], 1).is_err()
        );
    }
}

/// <B(u), v> = <u, B(v)> for the backward pass B, at any x, of a function with layer norm's limit.
fn symmetric(
    exec: &mut dyn Executor,
    f: fn(&mut Graph, Id) -> Id,
    [rows, c]: [usize; 2],
    seed: u64,
) -> Result<(), String> {
    let mut g = Graph::new();
    let x = g.input("x", &[rows, c]);
    let y = f(&mut g, x);
    let (u, v) = (g.input("u", &[rows, c]), g.input("v", &[rows, c]));
    let mut out = gradients(&mut g, y, u, &[x], false).map_err(|e| e.to_string())?;
    out.extend(gradients(&mut g, y, v, &[x], false).map_err(|e| e.to_string())?);
    let values = fill(&g, |i, len| normals(seed, i, len));
    let got = run(exec, &g, &out, &values);
    let (left, right) = (dot(&got[0], &values["v"]), dot(&values["u"], &got[1]));
    let limit = symmetry_limit(&values, c);
    if (left - right).abs() <= limit {
        return Ok(());
    }
    Err(format!("<B u, v> = {left}, <u, B v> = {right}, limit {limit:.1e}"))
}

/// The Jacobian of a plain layer norm is symmetric.
#[test]
fn layer_norm_backward_is_symmetric() {
    for (who, exec) in executors("symmetry of layer norm's backward pass") {
        let exec = RefCell::new(exec);
        let cases = property("layer norm", (sizes(), seeds()), |([rows, c, _], seed)| {
            symmetric(&mut **exec.borrow_mut(), |g, x| g.layer_norm(x, 1e-5), [rows, c + 1], seed)
        });
        println!("symmetric Jacobian of layer norm: {cases} cases on {who}");
    }
}

#[test]
fn the_symmetry_check_refuses_scaled_columns() {
    let scaled = |g: &mut Graph, x: Id| {
        let y = g.layer_norm(x, 1e-5);
        // Another for each column, a tenth apart.
        let scale = g.input("scale", &[g.shape(x)[1]]);
        let scale = g.affine(scale, 0.1, 1.0);
        g.mul(y, scale)
    };
    assert!(symmetric(&mut pentimento_runtime::exec::cpu::Cpu::new(), scaled, [3, 17], 1).is_err());
}

/// dx = rstd (d - mean(d) - n mean(d n)) with n = (x - mean) rstd. Each sum of C terms errs by C roundings of its terms'
/// sizes, the rest by fewer than 16 roundings (division and square root: 2.5 each); n inherits the cancellation in
/// x - mean. So an element errs by (4 C + 16) u rstd (|d| + mean|d| + m mean|d m|), m = (|x| + mean|x|) rstd, and the
/// difference of the products by that of u times |v|, and the other way round.
fn symmetry_limit(values: &Values, c: usize) -> f64 {
    let unit = f64::from(f32::EPSILON) / 2.0;
    let mean = |f: &dyn Fn(usize) -> f64| (0..c).map(f).sum::<f64>() / c as f64;
    let mut limit = 0.0;
    for row in 0..values["x"].len() / c {
        let at = |name: &str, i: usize| f64::from(values[name][row * c + i]);
        let x = |i: usize| at("x", i);
        let centre = mean(&x);
        let rstd = 1.0 / (mean(&|i| (x(i) - centre).powi(2)) + 1e-5).sqrt();
        let size = mean(&|i| x(i).abs());
        let m = |i: usize| (x(i).abs() + size) * rstd;
        for (d, other) in [("u", "v"), ("v", "u")] {
            let (a, b) = (mean(&|i| at(d, i).abs()), mean(&|i| at(d, i).abs() * m(i)));
            let sum: f64 = (0..c).map(|i| (at(d, i).abs() + a + m(i) * b) * at(other, i).abs()).sum();
            limit += (4 * c + 16) as f64 * unit * rstd * sum;
        }
    }
    limit
}
