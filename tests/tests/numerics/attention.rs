//! Symmetries of attention, without a twin.
use crate::harness::{Values, dot, executors, fill, normals, property, run, same_bits, seeds, within};
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::rng::Philox;
use proptest::prelude::*;
use std::cell::RefCell;

/// Batch, heads, queries, keys, head width.
type Sizes = (usize, usize, usize, usize, usize);

fn shapes() -> impl Strategy<Value = (Sizes, u64)> {
    let head = prop_oneof![Just(4usize), Just(12), Just(16), Just(64), Just(128)];
    ((1usize..=3, 1usize..=3, 1usize..=20, 1usize..=40, head), seeds())
}

/// Inputs q, k, v and, with `bias`, a bias by key.
fn build((b, h, q, k, d): Sizes, bias: bool, causal: bool) -> (Graph, Id, [Id; 3]) {
    let mut g = Graph::new();
    let x = g.input("q", &[b, q, h * d]);
    let (key, value) = (g.input("k", &[b, k, h * d]), g.input("v", &[b, k, h * d]));
    let bias = bias.then(|| g.input("bias", &[k]));
    let y = g.attention(x, key, value, h, bias, causal);
    (g, y, [x, key, value])
}

/// Blocks of `size` numbers in another order, within each of `outer` parts.
fn reordered(x: &[f32], outer: usize, order: &[usize], size: usize) -> Vec<f32> {
    let part = x.len() / outer.max(1);
    let blocks = |o: usize| order.iter().flat_map(move |&i| (0..size).map(move |e| o * part + i * size + e));
    (0..outer).flat_map(blocks).map(|i| x[i]).collect()
}
fn order(seed: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    Philox::new(seed, 77).shuffle(&mut order);
    order
}

/// How far a result may be from another order of its keys.
///
/// The logits are the same numbers, so only the sums and the rescaling of an online softmax round differently: a
/// probability errs by a few roundings a key (a multiply and an add in the sum, the rescaling's product and its
/// exponential, 3 ulp by WGSL's rule: 8), plus the exponentials' share of their arguments (2 ulp times |argument|; those
/// of a chain add up to the range of the logits, at most twice the largest). So each order is within
/// (8 K + 4 range + 8) eps of P |v|, and they are within twice that of each other.
fn limits(s: Sizes, values: &Values) -> Vec<f64> {
    limits_with(s, values, 0.0, 0.0)
}
/// As [`limits`], with further roundings of a probability: `more`, and `each` for every unit of the logits' range.
fn limits_with((_, h, q, k, d): Sizes, values: &Values, more: f64, each: f64) -> Vec<f64> {
    let mut inputs = values.clone();
    for v in inputs.get_mut("v").into_iter().flatten() {
        *v = v.abs();
    }
    let sizes = (values["q"].len() / (q * h * d), h, q, k, d);
    let (g, y, _) = build(sizes, values.contains_key("bias"), false);
    let size = run(&mut Cpu::new(), &g, &[y], &inputs).remove(0);
    let longest = |x: &[f32]| x.chunks(d).map(|r| dot(r, r).sqrt()).fold(0.0, f64::max);
    let bias = values.get("bias").map_or(0.0, |b| b.iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs())));
    let range = 2.0 * (longest(&values["q"]) * longest(&values["k"]) / (d as f64).sqrt() + bias);
    let unit = 2.0 * (8.0 * k as f64 + 8.0 + more + (4.0 + each) * range) * f64::from(f32::EPSILON);
    size.into_iter().map(|v| unit * f64::from(v) + f64::from(f32::MIN_POSITIVE)).collect()
}

/// How far dq may be from that of another order of queries: compilers write a tile's rows out and may contract products and
/// sums of each in their own way.
///
/// dq is 1 / sqrt(D) times the sum over keys of P (dP - delta) k. P errs as in [`limits`], dP and delta by a rounding for each of their
/// D products; P sums up to 1, and |dP|, |delta| <= |dy| |v|, so the sum is at most 2 |dy| |v| |k|.
fn gradient_limits((_, _, _, k, d): Sizes, values: &Values) -> Vec<f64> {
    let longest = |x: &str| values[x].chunks(d).map(|r| dot(r, r).sqrt()).fold(0.0, f64::max);
    let range = 2.0 * longest("q") * longest("k") / (d as f64).sqrt();
    let unit = 2.0 * (8.0 * k as f64 + 8.0 + 2.0 * d as f64 + 4.0 * range) * f64::from(f32::EPSILON);
    let size = 2.0 * longest("dy") * longest("v") * longest("k") / (d as f64).sqrt();
    vec![unit * size + f64::from(f32::MIN_POSITIVE); values["q"].len()]
}

#[test]
fn the_order_of_keys_does_not_matter() {
    for (who, exec) in executors("permutation of keys") {
        let exec = RefCell::new(exec);
        let cases = property("permutation of keys", shapes(), |(s, seed)| {
            let (g, y, _) = build(s, true, false);
            let values = fill(&g, |i, len| normals(seed, i, len));
            let order = order(seed, s.3);
            let mut moved = values.clone();
            for name in ["k", "v"] {
                moved.insert(name.into(), reordered(&values[name], s.0, &order, s.1 * s.4));
            }
            moved.insert("bias".into(), reordered(&values["bias"], 1, &order, 1));
            let f = |v: &Values| run(&mut **exec.borrow_mut(), &g, &[y], v).remove(0);
            within(&f(&moved), &f(&values), &limits(s, &values))
        });
        println!("attention under a permutation of keys: {cases} cases on {who}");
    }
}

#[test]
fn permuted_batches_and_queries_give_permuted_results() {
    for (who, exec) in executors("permutation of the batch") {
        let exec = RefCell::new(exec);
        let cases = property("permutation of batch and queries", shapes(), |(s, seed)| {
            let (mut g, y, wrt) = build(s, false, false);
            let shape = g.shape(y).to_vec();
            let dy = g.input("dy", &shape);
            let mut out = vec![y];
            out.extend(gradients(&mut g, y, dy, &wrt, false).map_err(|e| e.to_string())?);
            let values = fill(&g, |i, len| normals(seed, i, len));
            let (b, row) = (s.0, s.1 * s.4);
            let batches = order(seed, b);
            let mut moved = values.clone();
            for (name, len) in [("q", s.2), ("k", s.3), ("v", s.3), ("dy", s.2)] {
                moved.insert(name.into(), reordered(&values[name], 1, &batches, len * row));
            }
            let f = |v: &Values| run(&mut **exec.borrow_mut(), &g, &out, v);
            let (want, got) = (f(&values), f(&moved));
            for ((want, got), len) in want.iter().zip(&got).zip([s.2, s.2, s.3, s.3]) {
                same_bits(got, &reordered(want, 1, &batches, len * row))?;
            }
            // Queries do not see each other either: their results and gradients move with them.
            let queries = order(seed + 1, s.2);
            let mut moved = values.clone();
            for name in ["q", "dy"] {
                moved.insert(name.into(), reordered(&values[name], b, &queries, row));
            }
            let got = f(&moved);
            let [y, dq] = [0, 1].map(|i| reordered(&want[i], b, &queries, row));
            if who == "twins" {
                return same_bits(&got[0], &y).and_then(|()| same_bits(&got[1], &dq));
            }
            within(&got[0], &y, &limits(s, &moved))?;
            within(&got[1], &dq, &gradient_limits(s, &moved))
        });
        println!("attention under a permutation of batch (bit for bit) and queries: {cases} cases on {who}");
    }
}

/// Causal attention: later keys and values change nothing before them, forward or backward, and get no gradient from there.
#[test]
fn the_future_does_not_matter() {
    for (who, exec) in executors("causality") {
        let exec = RefCell::new(exec);
        let cases = property("causality", shapes(), |((b, h, n, _, d), seed)| {
            let (mut g, y, wrt) = build((b, h, n, n, d), false, true);
            let shape = g.shape(y).to_vec();
            let dy = g.input("dy", &shape);
            let mut out = vec![y];
            out.extend(gradients(&mut g, y, dy, &wrt, false).map_err(|e| e.to_string())?);
            let mut values = fill(&g, |i, len| normals(seed, i, len));
            let (row, now) = (h * d, seed as usize % n);
            let past = |x: &[f32]| -> Vec<f32> {
                x.chunks(n * row).flat_map(|b| b[..(now + 1) * row].to_vec()).collect()
            };
            let future = |x: &mut [f32], f: &dyn Fn(f32) -> f32| {
                x.chunks_mut(n * row).for_each(|b| b[(now + 1) * row..].iter_mut().for_each(|v| *v = f(*v)));
            };
            if let Some(v) = values.get_mut("dy") {
                future(v, &|_| 0.0);
            }
            let want = run(&mut **exec.borrow_mut(), &g, &out, &values);
            for name in ["k", "v"] {
                let changed = values.get_mut(name).ok_or("an input")?;
                future(changed, &|v| 1e3 * v - 7.0);
            }
            let got = run(&mut **exec.borrow_mut(), &g, &out, &values);
            (0..4).try_for_each(|i| {
                same_bits(&past(&got[i]), &past(&want[i])).map_err(|e| format!("output {i}: {e}"))
            })?;
            for d in &mut [got[2].clone(), got[3].clone()] {
                future(d, &|v| if v == 0.0 { 0.0 } else { f32::NAN });
                if d.iter().any(|v| v.is_nan()) {
                    return Err("a later key has a gradient".into());
                }
            }
            Ok(())
        });
        println!("causal attention does not see the future, bit for bit: {cases} cases on {who}");
    }
}

/// Attention is linear in v: <P v, dy> = <v, Pt dy>. Both sides' probabilities are within [`limits`] of the true ones, with
/// two additions: each side makes its logits anew, with (D + 2) roundings of at most |q| |k| / sqrt(D), half the range;
/// and the backward pass sums over Q queries.
#[test]
fn the_gradient_of_v_is_the_adjoint() {
    for (who, exec) in executors("adjointness of attention in v") {
        let exec = RefCell::new(exec);
        let cases = property("adjointness in v", shapes(), |(s, seed)| {
            let (mut g, y, wrt) = build(s, true, false);
            let shape = g.shape(y).to_vec();
            let dy = g.input("dy", &shape);
            let dv = gradients(&mut g, y, dy, &wrt[2..], false).map_err(|e| e.to_string())?[0];
            let values = fill(&g, |i, len| normals(seed, i, len));
            let got = run(&mut **exec.borrow_mut(), &g, &[y, dv], &values);
            let (left, right) = (dot(&got[0], &values["dy"]), dot(&values["v"], &got[1]));
            let limit = adjoint_limit(s, &values);
            if (left - right).abs() <= limit {
                return Ok(());
            }
            Err(format!("<P v, dy> = {left}, <v, Pt dy> = {right}, limit {limit:.1e}"))
        });
        println!("adjointness of attention in v: {cases} cases on {who}");
    }
}
fn adjoint_limit(s: Sizes, values: &Values) -> f64 {
    let limits = limits_with(s, values, s.2 as f64, (s.4 + 2) as f64 / 2.0);
    limits.iter().zip(&values["dy"]).map(|(l, d)| l * f64::from(d.abs())).sum()
}

#[test]
fn the_checks_refuse_wrong_symmetries() {
    let s = (2, 2, 5, 7, 8);
    let (g, y, _) = build(s, true, false);
    let values = fill(&g, |i, len| normals(3, i, len));
    let f = |v: &Values| run(&mut Cpu::new(), &g, &[y], v).remove(0);
    let mut moved = values.clone();
    // Keys move, values stay.
    moved.insert("k".into(), reordered(&values["k"], 2, &[1, 0, 2, 3, 4, 5, 6], 16));
    assert!(within(&f(&moved), &f(&values), &limits(s, &values)).is_err());
    // A bias that stays behind.
    moved.insert("v".into(), reordered(&values["v"], 2, &[1, 0, 2, 3, 4, 5, 6], 16));
    assert!(within(&f(&moved), &f(&values), &limits(s, &values)).is_err());
    moved.insert("bias".into(), reordered(&values["bias"], 1, &[1, 0, 2, 3, 4, 5, 6], 1));
    assert!(within(&f(&moved), &f(&values), &limits(s, &values)).is_ok());
    // Attention that is not causal sees the future.
    let mut later = values.clone();
    for v in later.get_mut("v").into_iter().flatten().skip(6 * 16) {
        *v += 1.0;
    }
    assert!(same_bits(&f(&later)[..16], &f(&values)[..16]).is_err());
    // An adjoint of other numbers.
    let mut dy = values.clone();
    dy.insert("dy".into(), normals(9, 9, 2 * 5 * 16));
    let left = dot(&f(&dy), &dy["dy"]);
    let right = dot(&f(&later), &dy["dy"]);
    assert!((left - right).abs() > adjoint_limit(s, &dy));
}
