//! Fused plans against plans of one command per operation.
use crate::double::{draw, sensitivity, transformer, values};
use crate::harness::{Values, dot, executors, property, run_as, seeds, sizes, small, within};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::plan::Plan;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::{Act, Binary};
use std::cell::{Cell, RefCell};
use tests::cases::CASES;

/// Unit roundoff of f32.
const U: f64 = f32::EPSILON as f64 / 2.0;

fn rounded(values: &crate::double::Values) -> Values {
    values.iter().map(|(name, v)| (name.clone(), v.iter().map(|&v| v as f32).collect())).collect()
}
fn widened(values: &Values) -> crate::double::Values {
    values.iter().map(|(name, v)| (name.clone(), v.iter().map(|&v| v.into()).collect())).collect()
}

/// <y, dy> of the fused and of the plain plan, on the twins, and how far apart they may be.
///
/// A twin keeps its sums in f64 and rounds once, when it stores. So each plan's result is within u times the sum of
/// |v_i dphi/dv_i| over all stored values of the true one, to first order: [`Sensitivity::stores`]. The plans are within
/// twice that of each other; one part in a thousand is for higher orders. `fuse` makes the graph that is fused from the
/// plain one: the same, outside the test that this check fails.
///
/// [`Sensitivity::stores`]: crate::double::Sensitivity
fn twins_agree(
    (g, y, dy, wrt): (Graph, Id, Id, Vec<Id>),
    fuse: fn(Graph, Id) -> (Graph, Id),
    seed: u64,
) -> Result<f64, String> {
    let inputs = rounded(&draw(&g, seed));
    let limit = 2.001 * U * sensitivity(&g, y, dy, &wrt, &widened(&inputs)).stores;
    let phi = |(g, y): (Graph, Id), fused| {
        dot(&run_as(&mut Cpu::new(), &g, &[y], &inputs, fused)[0], &inputs["dy"])
    };
    let (fused, plain) = (phi(fuse(g.clone(), y), true), phi((g, y), false));
    if (fused - plain).abs() <= limit {
        return Ok((fused - plain).abs() / limit);
    }
    Err(format!("fused {fused}, plain {plain}, limit {limit:.1e}"))
}

#[test]
fn fused_twins_agree_with_plain_ones() {
    let mut cases = 0;
    for case in CASES {
        cases += property(&format!("fused {}", case.name), (small(), seeds()), |(n, seed)| {
            let mut g = Graph::new();
            let (y, wrt) = (case.build)(&mut g, n);
            let shape = g.shape(y).to_vec();
            let dy = g.input("dy", &shape);
            twins_agree((g, y, dy, wrt), |g, y| (g, y), seed).map(|_| ())
        });
    }
    let worst = Cell::new(0.0f64);
    cases += property(
        "a fused transformer",
        (1usize..=3, 2usize..=3, 1usize..=5, seeds()),
        |(rank, side, tokens, seed)| {
            let same = |g, y| (g, y);
            worst.set(worst.get().max(twins_agree(transformer(rank, side, tokens), same, seed)?));
            Ok(())
        },
    );
    println!(
        "fused like plain on twins: {cases} cases, the transformer at most {:.0} % of the limit",
        100.0 * worst.get()
    );
}

/// A value with what multiplies its error on the way to the result: a slope bound, and a further factor.
type Kept = (Id, f64, Option<Id>);

/// A chain that fuses into one command.
struct Chain {
    name: &'static str,
    /// The result and the values that the plain plan stores on the way.
    build: fn(&mut Graph, [usize; 3]) -> (Id, Vec<Kept>),
}

/// Largest slope of an activation: gelu in either form 1.13, silu 1.10.
const SLOPE: f64 = 1.13;

const CHAINS: &[Chain] = &[
    Chain {
        name: "linear, gelu, gate, residual",
        build: |g, n| {
            let (x, w) = (g.input("x", &[2, n[0], n[2]]), g.input("w", &[n[1], n[2]]));
            let (b, gate) = (g.input("b", &[n[1]]), g.input("gate", &[2, 1, n[1]]));
            let other = g.input("other", &[2, n[0], n[1]]);
            let z = g.linear(x, w, Some(b));
            let a = g.act(Act::GeluTanh, z);
            let m = g.mul(a, gate);
            let y = g.add(other, m);
            // The gate as large as z, for the bound only.
            let zero = g.affine(z, 0.0, 0.0);
            let ones = g.affine(zero, 0.0, 1.0);
            let wide = g.mul(ones, gate);
            (y, vec![(z, SLOPE, Some(wide)), (a, 1.0, Some(wide)), (m, 1.0, None)])
        },
    },
    Chain {
        name: "layer norm, scale, shift",
        build: |g, n| {
            let x = g.input("x", &[2, n[0], n[1] + 1]);
            let (scale, shift) = (g.input("scale", &[2, 1, n[1] + 1]), g.input("shift", &[2, 1, n[1] + 1]));
            let norm = g.layer_norm(x, 1e-5);
            let scaled = g.binary(Binary::Scale1, norm, scale);
            let y = g.add(scaled, shift);
            // Both n and 1 + scale are rounded: each moves the product by its own size.
            (y, vec![(scaled, 3.0, None)])
        },
    },
    Chain {
        name: "group norm, silu",
        build: |g, n| {
            let c = 2 * n[2];
            let x = g.input("x", &[2, n[0], 1 + n[1] % 7, c]);
            let (w, b) = (g.input("w", &[c]), g.input("b", &[c]));
            let norm = g.group_norm(x, w, b, 2, 1e-5);
            (g.act(Act::Silu, norm), vec![(norm, SLOPE, None)])
        },
    },
    Chain {
        name: "conv, residual",
        build: |g, n| {
            let (h, w, c) = (1 + n[0] % 9, 1 + n[1] % 9, 4 * (1 + n[2] % 4));
            let (x, k) = (g.input("x", &[2, h, w, c]), g.input("k", &[n[2], 3, 3, c]));
            let (b, r) = (g.input("b", &[n[2]]), g.input("r", &[2, h, w, n[2]]));
            let y = g.conv2d(x, k, Some(b), 1, 1, 0);
            (g.add(y, r), vec![(y, 1.0, None)])
        },
    },
];

/// One chain on one executor, element by element.
///
/// Both plans run the same f32 operations in the same order (a twin: fewer roundings when fused), up to a product and a sum
/// that a compiler may contract. So they differ by one rounding of each value that the plain plan stores, carried to the
/// result by what follows, and of the result in each plan. Executors make their activations with the same function in
/// both plans. One part in a thousand for higher orders and for the reference values, which are f64's.
fn chain_agrees(
    exec: &mut dyn pentimento_runtime::exec::Executor,
    chain: &Chain,
    n: [usize; 3],
    seed: u64,
) -> Result<(), String> {
    let mut g = Graph::new();
    let (y, stored) = (chain.build)(&mut g, n);
    let inputs = rounded(&draw(&g, seed));
    let ids: Vec<Id> = [y].into_iter().chain(stored.iter().flat_map(|s| [s.0, s.2.unwrap_or(s.0)])).collect();
    let found = values(&g, &ids, &widened(&inputs), false);
    let mut limit: Vec<f64> = found[0].iter().map(|v| 2.0 * v.abs()).collect();
    for (i, (_, slope, factor)) in stored.iter().enumerate() {
        let (v, by) = (&found[1 + 2 * i], &found[2 + 2 * i]);
        for (j, limit) in limit.iter_mut().enumerate() {
            *limit += slope * v[j].abs() * factor.map_or(1.0, |_| by[j].abs());
        }
    }
    limit.iter_mut().for_each(|l| *l = 1.001 * U * *l + f64::from(f32::MIN_POSITIVE));
    let mut f = |fused| run_as(exec, &g, &[y], &inputs, fused).remove(0);
    within(&f(true), &f(false), &limit)
}

#[test]
fn fused_chains_agree_with_plain_ones() {
    for (who, exec) in executors("fused against plain plans") {
        let exec = RefCell::new(exec);
        let each = |chain: &Chain| {
            property(chain.name, (sizes(), seeds()), |(n, seed)| {
                chain_agrees(&mut **exec.borrow_mut(), chain, n.map(|n| n.min(40)), seed)
            })
        };
        let cases: u32 = CHAINS.iter().map(each).sum();
        println!("fused like plain, element by element: {cases} cases of {} chains on {who}", CHAINS.len());
    }
}

#[test]
fn every_chain_fuses_into_one_command() {
    for chain in CHAINS {
        let mut g = Graph::new();
        let y = (chain.build)(&mut g, [5, 6, 7]).0;
        let caps = Caps::webgpu();
        let fused = Plan::new(g.clone(), &[("y", y)], &caps, &|_| Stored::F32).expect("a plan");
        let plain = Plan::unfused(&g, &[("y", y)], &caps, &|_| Stored::F32).expect("a plan");
        assert_eq!(fused.commands.len(), 1, "{}", chain.name);
        assert!(plain.commands.len() > 1, "{}", chain.name);
    }
}

#[test]
fn the_fusion_checks_refuse_another_function() {
    // As if fusing had dropped the residual: the values are of the limit's size, the error is of theirs.
    let mut g = Graph::new();
    let (y, stored) = (CHAINS[3].build)(&mut g, [5, 6, 7]);
    let inputs = rounded(&draw(&g, 3));
    let run = |id| run_as(&mut Cpu::new(), &g, &[id], &inputs, true).remove(0);
    let (got, want) = (run(stored[0].0), run(y));
    let limit: Vec<f64> = want.iter().map(|v| 4.0 * U * f64::from(v.abs())).collect();
    assert!(within(&got, &want, &limit).is_err() && within(&want, &want, &limit).is_ok());
    // As if fusing had made the velocity a thousandth longer.
    let longer = |mut g: Graph, y| {
        let y = g.affine(y, 1.001, 0.0);
        (g, y)
    };
    assert!(twins_agree(transformer(1, 2, 2), longer, 3).is_err());
}
