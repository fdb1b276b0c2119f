//! What must hold whatever the numbers are.
use crate::harness::{executors, fill, normals, property, run, same_bits, seeds, sizes, small};
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::grad::{Recompute, gradients};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_wgsl::kernel::{Act, Binary};
use std::cell::RefCell;
use tests::cases::{CASES, Case, FORWARD_ONLY};

/// A row's graph with its gradients of a random `dy`.
fn with_gradients(case: &Case, n: [usize; 3], recompute: Recompute) -> (Graph, Vec<Id>) {
    let mut g = Graph::new();
    if recompute != Recompute::Nothing {
        g.begin_block();
    }
    let (y, wrt) = (case.build)(&mut g, n);
    g.end_block();
    let mut out = vec![y];
    if !wrt.is_empty() {
        let shape = g.shape(y).to_vec();
        let dy = g.input("dy", &shape);
        out.extend(gradients(&mut g, y, dy, &wrt, recompute).expect("gradients"));
    }
    (g, out)
}

/// The gradients of the first row, stored, and of the second, recomputed, have the same bits.
fn recomputed(exec: &mut dyn Executor, rows: [&Case; 2], n: [usize; 3], seed: u64) -> Result<(), String> {
    let mut run = |case, recompute| {
        let (g, out) = with_gradients(case, n, recompute);
        let values = fill(&g, |i, len| normals(seed, i, len));
        // The value itself may be fused where its parts are not kept; only gradients are promised.
        run(exec, &g, &out, &values).split_off(1)
    };
    let stored = run(rows[0], Recompute::Nothing);
    [Recompute::Most, Recompute::All].into_iter().try_for_each(|how| {
        let again = run(rows[1], how);
        stored.iter().zip(&again).try_for_each(|(a, b)| same_bits(b, a))
    })
}

fn operands(g: &mut Graph, n: [usize; 3]) -> [Id; 3] {
    ["a", "b", "c"].map(|name| g.input(name, &n))
}

#[test]
fn the_recomputation_check_sees_one_rounding() {
    let left = Case {
        name: "(a b) c",
        build: |g, n| {
            let [a, b, c] = operands(g, n);
            let ab = g.mul(a, b);
            (g.mul(ab, c), vec![a])
        },
    };
    let right = Case {
        name: "a (b c)",
        build: |g, n| {
            let [a, b, c] = operands(g, n);
            let bc = g.mul(b, c);
            (g.mul(a, bc), vec![a])
        },
    };
    let check = |rows| recomputed(&mut Cpu::new(), rows, [2, 3, 8], 1);
    assert!(check([&left, &left]).is_ok() && check([&left, &right]).is_err());
}

#[test]
fn recomputed_blocks_give_the_same_bits() {
    for (who, exec) in executors("recomputation") {
        let exec = RefCell::new(exec);
        let cases: u32 = CASES
            .iter()
            .map(|case| {
                property(&format!("recomputed {}", case.name), (small(), seeds()), |(n, seed)| {
                    recomputed(&mut **exec.borrow_mut(), [case, case], n, seed)
                })
            })
            .sum();
        println!("recomputed like stored, bit for bit: {cases} cases on {who}");
    }
}

/// Two runs of one plan, and another executor, give the same bits.
#[test]
fn runs_repeat_bit_for_bit() {
    let others = executors("determinism");
    for ((who, exec), (_, other)) in executors("determinism").into_iter().zip(others) {
        let (exec, other) = (RefCell::new(exec), RefCell::new(other));
        let cases: u32 = CASES
            .iter()
            .chain(FORWARD_ONLY)
            .map(|case| {
                property(&format!("determinism of {}", case.name), (sizes(), seeds()), |(n, seed)| {
                    let (g, out) = with_gradients(case, n.map(|n| n.min(40)), Recompute::Nothing);
                    let values = fill(&g, |i, len| normals(seed, i, len));
                    let first = run(&mut **exec.borrow_mut(), &g, &out, &values);
                    for exec in [&exec, &other] {
                        let again = run(&mut **exec.borrow_mut(), &g, &out, &values);
                        first.iter().zip(&again).try_for_each(|(a, b)| same_bits(b, a))?;
                    }
                    Ok(())
                })
            })
            .sum();
        println!("two runs and two executors, bit for bit: {cases} cases on {who}");
    }
}

/// The result and what has the batch as its first axis.
type Built = (Id, Vec<Id>);

/// An operation on a batch: input "x", and all in `batched`, have the batch as their first axis, as has the result.
struct Batched {
    name: &'static str,
    build: fn(&mut Graph, usize, [usize; 3]) -> Built,
    backward: bool,
}

const BATCHED: &[Batched] = &[
    Batched {
        name: "linear",
        build: |g, b, n| {
            let (x, w) = (g.input("x", &[b, n[0], n[2]]), g.input("w", &[n[1], n[2]]));
            let bias = g.input("b", &[n[1]]);
            (g.linear(x, w, Some(bias)), vec![x])
        },
        backward: true,
    },
    Batched {
        name: "linear_gelu_gate_residual",
        build: |g, b, n| {
            let (x, w) = (g.input("x", &[b, n[0], n[2]]), g.input("w", &[n[1], n[2]]));
            let (gate, r) = (g.input("gate", &[b, 1, n[1]]), g.input("r", &[b, n[0], n[1]]));
            let y = g.linear(x, w, None);
            let y = g.act(Act::GeluTanh, y);
            let y = g.mul(y, gate);
            (g.add(r, y), vec![x, gate, r])
        },
        backward: true,
    },
    Batched {
        name: "layer_norm_modulated",
        build: |g, b, n| {
            let x = g.input("x", &[b, n[0], n[1] + 1]);
            let (scale, shift) = (g.input("scale", &[b, 1, n[1] + 1]), g.input("shift", &[b, 1, n[1] + 1]));
            let y = g.layer_norm(x, 1e-5);
            let y = g.binary(Binary::Scale1, y, scale);
            (g.add(y, shift), vec![x, scale, shift])
        },
        backward: true,
    },
    Batched {
        name: "rms_norm",
        build: |g, b, n| {
            let (x, w) = (g.input("x", &[b, n[0], n[1]]), g.input("w", &[n[1]]));
            (g.rms_norm(x, w, 1e-5), vec![x])
        },
        backward: true,
    },
    Batched {
        name: "attention",
        build: |g, b, n| {
            let head = 4 * (1 + n[2] % 16);
            let q = g.input("x", &[b, n[0], 2 * head]);
            let (k, v) = (g.input("k", &[b, n[1], 2 * head]), g.input("v", &[b, n[1], 2 * head]));
            (g.attention(q, k, v, 2, None, false), vec![q, k, v])
        },
        backward: true,
    },
    Batched {
        name: "softmax",
        build: |g, b, n| {
            let x = g.input("x", &[b, n[0], n[1]]);
            (g.softmax(x, 0.7), vec![x])
        },
        backward: true,
    },
    Batched {
        name: "group_norm_silu",
        build: |g, b, n| {
            let c = 2 * n[2];
            let x = g.input("x", &[b, n[0], 1 + n[1] % 7, c]);
            let (w, bias) = (g.input("w", &[c]), g.input("b", &[c]));
            let y = g.group_norm(x, w, bias, 2, 1e-5);
            (g.act(Act::Silu, y), vec![x])
        },
        backward: true,
    },
    Batched {
        name: "conv2d",
        build: |g, b, n| {
            let c = 4 * (1 + n[2] % 3);
            let x = g.input("x", &[b, 3 + n[0] % 9, 3 + n[1] % 9, c]);
            let w = g.input("w", &[1 + n[2] % 7, 3, 3, c]);
            (g.conv2d(x, w, None, 1, 1, 0), vec![x])
        },
        backward: true,
    },
];

/// Entry `keep` of a batch gives the same bits when the others hold other numbers, and when they are NaN.
fn independent(
    exec: &mut dyn Executor,
    row: &Batched,
    batch: usize,
    n: [usize; 3],
    seed: u64,
) -> Result<(), String> {
    let mut g = Graph::new();
    let (y, batched) = (row.build)(&mut g, batch, n);
    let mut out = vec![y];
    let mut names: Vec<String> =
        batched.iter().filter_map(|&id| crate::double::name(&g, id).map(Into::into)).collect();
    if row.backward {
        let shape = g.shape(y).to_vec();
        let dy = g.input("dy", &shape);
        names.push("dy".into());
        out.extend(gradients(&mut g, y, dy, &batched, false).map_err(|e| e.to_string())?);
    }
    let values = fill(&g, |i, len| normals(seed, i, len));
    let want = run(exec, &g, &out, &values);
    let keep = seed as usize % batch;
    let others: [&dyn Fn(u64, usize) -> Vec<f32>; 2] =
        [&|i, len| normals(seed + 1, i, len), &|_, len| vec![f32::NAN; len]];
    for (i, other) in others.into_iter().enumerate() {
        let mut changed = values.clone();
        for name in &names {
            let mut data = other(i as u64, values[name].len());
            let part = part(keep, batch, data.len());
            data[part.clone()].copy_from_slice(&values[name][part]);
            changed.insert(name.clone(), data);
        }
        for (got, want) in run(exec, &g, &out, &changed).iter().zip(&want) {
            let part = part(keep, batch, got.len());
            same_bits(&got[part.clone()], &want[part])
                .map_err(|e| format!("{} of entry {keep}: {e}", row.name))?;
        }
    }
    Ok(())
}
fn part(i: usize, batch: usize, len: usize) -> std::ops::Range<usize> {
    i * (len / batch)..(i + 1) * (len / batch)
}

#[test]
fn batch_entries_do_not_see_each_other() {
    for (who, exec) in executors("batch independence") {
        let exec = RefCell::new(exec);
        let cases: u32 = BATCHED
            .iter()
            .map(|row| {
                let strategy = (2usize..=4, sizes(), seeds());
                property(&format!("batch independence of {}", row.name), strategy, |(batch, n, seed)| {
                    independent(&mut **exec.borrow_mut(), row, batch, n.map(|n| n.min(40)), seed)
                })
            })
            .sum();
        println!("batch independence, bit for bit: {cases} cases of {} ops on {who}", BATCHED.len());
    }
}

#[test]
fn the_batch_check_finds_a_leak() {
    let mean = Batched {
        name: "minus the batch's mean",
        build: |g, b, n| {
            let x = g.input("x", &[b, n[0]]);
            let mean = g.sum(x, 1, b, n[0], 1.0 / b as f32, &[n[0]]);
            (g.sub(x, mean), vec![x])
        },
        backward: true,
    };
    assert!(independent(&mut Cpu::new(), &mean, 3, [4, 1, 1], 2).is_err());
}

/// Probabilities are at least 0 and sum to one, for logits of any size: the exponentials are the same numbers above and
/// below the line, so what is left is a sum of n (n roundings at most) and a division (2.5 ulp) per term.
#[test]
fn softmax_rows_sum_to_one() {
    for (who, exec) in executors("softmax") {
        let exec = RefCell::new(exec);
        let cases = property("softmax", (sizes(), -20i32..=20, seeds()), |([rows, c, _], power, seed)| {
            let mut g = Graph::new();
            let x = g.input("x", &[rows, c]);
            let y = g.softmax(x, 0.7);
            let values =
                fill(&g, |i, len| normals(seed, i, len).iter().map(|v| v * 2f32.powi(power)).collect());
            let y = run(&mut **exec.borrow_mut(), &g, &[y], &values).remove(0);
            y.chunks(c).try_for_each(is_distribution)
        });
        println!("softmax rows sum to one: {cases} cases on {who}");
    }
}
fn is_distribution(row: &[f32]) -> Result<(), String> {
    let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
    let limit = (row.len() + 5) as f64 * f64::from(f32::EPSILON) / 2.0;
    if row.iter().all(|&v| v >= 0.0) && (sum - 1.0).abs() <= limit {
        return Ok(());
    }
    Err(format!("a row of {} sums to {sum:.9}, limit {limit:.1e}", row.len()))
}

#[test]
fn the_row_check_refuses_what_is_no_distribution() {
    assert!(is_distribution(&[0.25, 0.75]).is_ok());
    assert!(is_distribution(&[0.25, 0.750_01]).is_err() && is_distribution(&[-0.5, 1.5]).is_err());
    assert!(is_distribution(&[f32::NAN, 1.0]).is_err() && is_distribution(&[]).is_err());
}
