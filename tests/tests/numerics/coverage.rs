//! The table reaches every kernel in every variant.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_wgsl::kernel::{Features, Matrix, attention};
use pentimento_wgsl::{Class, Variant, link};
use std::collections::{BTreeMap, BTreeSet};
use tests::cases::{all, kinds};
use tests::draw::{Draw, Values};

/// Every variant that the planner may ask for, one head width for all.
fn variants() -> Vec<Variant> {
    pentimento_wgsl::variants().into_iter().filter(|v| with_head(*v) == *v).collect()
}

/// The variant for heads of 64 numbers.
fn with_head(v: Variant) -> Variant {
    match v {
        Variant::Attention(v) => Variant::Attention(match v {
            attention::Variant::Stream { pass, stream, .. } => {
                attention::Variant::Stream { pass, head: 64, stream }
            }
            attention::Variant::Tile { pass, .. } => attention::Variant::Tile { pass, head: 64 },
            attention::Variant::Coop { pass, coop, .. } => attention::Variant::Coop { pass, head: 64, coop },
            attention::Variant::Stats => attention::Variant::Stats,
        }),
        v => v,
    }
}

/// Adapters: what WebGPU guarantees, and those with matrices, with more or less workgroup memory.
fn adapters() -> Vec<Caps> {
    let mut all = vec![Caps::webgpu()];
    for matrix in Matrix::KNOWN {
        all.extend([20 << 10, 30 << 10, 40 << 10, 64 << 10].map(|workgroup_memory| Caps {
            workgroup_memory,
            invocations: 1024,
            features: Features::MATRIX,
            matrix: Some(matrix),
            ..Caps::webgpu()
        }));
    }
    all
}

/// Equal shaders are one variant, whatever they are called.
fn shader(v: &Variant) -> (&'static str, String) {
    (v.entry(), link(&with_head(*v)))
}

/// Shaders that the rows link, with the rows that link them.
fn linked() -> BTreeMap<(&'static str, String), BTreeSet<&'static str>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let adapters = adapters();
    for case in all() {
        for (class, caps) in
            [Class::Gpu, Class::Software].iter().flat_map(|c| adapters.iter().map(move |a| (*c, a)))
        {
            if class == Class::Software && caps.matrix.is_some() {
                continue; // matrices are for GPUs
            }
            for weight in kinds(&case) {
                // `stage` off stands for an adapter whose textures are too small.
                // Few rows of a matmul, and as many as matrices are worth while for.
                let sizes = [
                    [5, 3, 4],
                    [8, 12, 16],
                    [1, 12, 16],
                    [2, 12, 16],
                    [3, 12, 16],
                    [32, 36, 32],
                    [36, 40, 32],
                ];
                for (n, stage) in sizes.map(|n| (n, true)).into_iter().chain([([8, 12, 16], false)]) {
                    let mut draw = Draw {
                        case,
                        class,
                        weight,
                        n,
                        values: Values::Normal,
                        seed: 0,
                        fold: false,
                        split: false,
                        cut: false,
                        stage,
                    };
                    draw.stage &= class == Class::Software;
                    let (plan, _) = draw.plan(&mut Cpu::new(), caps).expect("a plan");
                    for c in plan.commands {
                        found.entry(shader(&c.variant)).or_default().insert(case.name);
                    }
                }
            }
        }
    }
    found
}

#[test]
fn every_variant_is_reached() {
    let found = linked();
    let missing: Vec<_> = variants().into_iter().filter(|v| !found.contains_key(&shader(v))).collect();
    assert!(missing.is_empty(), "no row of tests/src/cases reaches {missing:#?}");
    let listed: BTreeSet<_> = variants().iter().map(shader).collect();
    let unlisted: Vec<_> =
        found.iter().filter(|(k, _)| !listed.contains(*k)).map(|(k, v)| (k.0, v)).collect();
    assert!(unlisted.is_empty(), "the planner asks for variants that this test does not list: {unlisted:?}");
}

/// The check fails when a row is taken away: some kernels are reached by one row only.
#[test]
fn a_forgotten_row_would_be_noticed() {
    let found = linked();
    let only = |row: &str| found.values().any(|rows| rows.len() == 1 && rows.contains(row));
    assert!(only("softmax") && only("upsample") && !only("silu"));
}
