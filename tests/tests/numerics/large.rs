//! Sizes beyond a binding, beyond one side of a dispatch, and of nothing.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::plan::Plan;
use pentimento_wgsl::{Class, Stored};
use std::collections::BTreeSet;
use tests::adapter::Device;
use tests::cases::all;
use tests::check::{Data, check, check_spoiled};
use tests::draw::{Draw, Values};

fn plan(g: Graph, y: Id, caps: &Caps) -> Plan {
    Plan::new(g, &[("y", y)], caps, &|_| Stored::F32).expect("a plan")
}
fn ramp(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 8191) as f32 - 4095.0).collect()
}

/// More workgroups than one side of a dispatch has: by invocations, by rows, by tiles.
#[test]
fn dispatches_beyond_65535_workgroups_fold() {
    let Some(mut device) = Device::open("folded dispatches") else { return };
    type Build = fn(&mut Graph) -> (Id, usize);
    let builds: [(&str, Class, Build); 3] = [
        ("unary", Class::Software, |g| {
            let x = g.input("x", &[65535 * 64 + 1]);
            (g.affine(x, 3.0, 1.0), 65535 * 64 + 1)
        }),
        ("layer_norm", Class::Software, |g| {
            let x = g.input("x", &[65537, 3]);
            (g.layer_norm(x, 1e-5), 65537 * 3)
        }),
        ("matmul", Class::Gpu, |g| {
            let (x, w) = (g.input("x", &[65536 * 64 + 1, 1]), g.input("w", &[1, 1]));
            (g.linear(x, w, None), 65536 * 64 + 1)
        }),
    ];
    for (kernel, class, build) in builds {
        device.clear();
        let exec = device.exec();
        let own = exec.caps().clone();
        // Software's bodies have small workgroups; too few iterations for a row make one share it.
        let max_iterations = if class == Class::Software { 8 } else { own.max_iterations };
        let caps = Caps { class, texture_rows: 0, max_iterations, ..own };
        let mut g = Graph::new();
        let (y, len) = build(&mut g);
        let plan = plan(g, y, &caps);
        let [x, y] = plan.commands[0].groups;
        assert!(x <= 65535 && y > 1 && u64::from(x) * u64::from(y) > 65535, "{kernel}: {x} x {y}");
        let data = Data::from([("x".into(), ramp(len)), ("w".into(), vec![0.1])]);
        check(exec, plan, &data).unwrap_or_else(|e| panic!("{kernel}: {e}"));
    }
}

/// Long loops, which llvmpipe ends early and in silence: they are right, or refused where a driver is known to end them.
#[test]
fn long_loops_are_right_or_refused() {
    let Some(mut device) = Device::open("long loops") else { return };
    type Build = fn(&mut Graph) -> Id;
    let builds: [(&str, bool, Build); 7] = [
        ("group norm", true, |g| {
            let (x, w, b) = (g.input("x", &[1, 160, 150, 6]), g.input("w", &[6]), g.input("b", &[6]));
            g.group_norm(x, w, b, 2, 1e-5)
        }),
        ("group norm's gradient", true, |g| {
            let (x, w, b) = (g.input("x", &[1, 160, 150, 6]), g.input("w", &[6]), g.input("b", &[6]));
            let y = g.group_norm(x, w, b, 2, 1e-5);
            let dy = g.input("dy", &[1, 160, 150, 6]);
            gradients(g, y, dy, &[x], false).expect("a gradient")[0]
        }),
        ("softmax", true, |g| {
            let x = g.input("x", &[1, 144_000]);
            g.softmax(x, 1.0)
        }),
        ("sum", true, |g| {
            let x = g.input("x", &[144_000]);
            g.sum(x, 1, 144_000, 1, 1.0, &[1])
        }),
        ("nt", false, |g| {
            let (x, w) = (g.input("x", &[1, 144_000]), g.input("v", &[4, 144_000]));
            g.linear(x, w, None)
        }),
        ("tn", false, |g| {
            let (x, w) = (g.input("x", &[36_000, 4]), g.input("v", &[144_000, 4]));
            let x = g.concat(x, x, 0);
            let x = g.concat(x, x, 0);
            g.matmul(x, w, true, false)
        }),
        ("attention", false, |g| {
            let (q, k) = (g.input("b", &[1, 1, 4]), g.input("v", &[1, 70_000, 4]));
            g.attention(q, k, k, 1, None, false)
        }),
    ];
    for class in [Class::Gpu, Class::Software] {
        for (name, always, build) in builds {
            device.clear();
            let exec = device.exec();
            let own = exec.caps().clone();
            let texture_rows = if class == own.class { own.texture_rows } else { 0 };
            let caps = Caps { class, texture_rows, ..own };
            let mut g = Graph::new();
            let y = build(&mut g);
            let wave = |n: usize| (0..n).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect::<Vec<_>>();
            match Plan::new(g, &[("y", y)], &caps, &|_| Stored::F32) {
                Ok(plan) => {
                    let data = plan.inputs.iter().map(|i| (i.name.clone(), wave(i.slot.len))).collect();
                    check(exec, plan, &data).unwrap_or_else(|e| panic!("{name}, {class:?}: {e}"));
                }
                Err(e) => assert!(!always && e.to_string().contains("ends loops"), "{name}, {class:?}: {e}"),
            }
        }
    }
}

/// 132 MiB through a binding that holds 128: the guaranteed limit of WebGPU. Doubling is exact.
#[test]
fn a_tensor_beyond_a_binding_is_cut() {
    let len = (132 << 20) / 4 + 5;
    let Some(mut device) = Device::open("a tensor of 132 MiB") else { return };
    let exec = device.exec();
    let most = exec.caps().max_binding.min(128 << 20);
    let caps = Caps { max_binding: most, ..exec.caps().clone() };
    let mut g = Graph::new();
    let x = g.input("x", &[len]);
    let y = g.affine(x, 2.0, 0.0);
    let plan = plan(g, y, &caps);
    assert!(plan.commands.len() > 1 && plan.commands.iter().all(|c| 4 * c.args[0].len as u64 <= most));
    let id = exec.prepare(plan).expect("memory for 400 MiB");
    let numbers = ramp(len);
    exec.write(id, "x", &numbers).expect("an input");
    exec.run(id).expect("a run");
    let got = exec.read(id, "y").expect("an output");
    assert_eq!(got.len(), len);
    let wrong = numbers.iter().zip(&got).position(|(x, y)| 2.0 * x != *y);
    assert_eq!(wrong, None);
}

/// Which kernels a low binding limit cuts into pieces; the comparison itself runs with the draws that say `split`.
#[test]
fn most_kernels_can_be_cut() {
    let mut cut = BTreeSet::new();
    for case in all() {
        let draw = Draw {
            case,
            class: Class::Gpu,
            weight: Stored::F32,
            n: [128, 64, 33],
            values: Values::Normal,
            seed: 0,
            fold: false,
            split: true,
            cut: false,
            stage: false,
        };
        let mut cpu = Cpu::new();
        let (plan, data) = draw.plan(&mut cpu, &Caps::webgpu()).expect("a plan");
        let whole = Draw { split: false, ..draw }.plan(&mut Cpu::new(), &Caps::webgpu()).expect("a plan").0;
        if plan.commands.len() > whole.commands.len() {
            cut.extend(plan.commands.iter().map(|c| c.variant.kernel()));
            check(&mut cpu, plan, &data).unwrap_or_else(|e| panic!("{draw}: {e}"));
        }
    }
    for kernel in ["unary", "binary", "matmul", "layer_norm", "attention"] {
        assert!(cut.contains(kernel), "{kernel} is never cut; cut are {cut:?}");
    }
}

/// Every command of more than one workgroup can become several dispatches, the comparison itself runs with the draws that say `cut`; one that
/// begins where another began leaves numbers unwritten, and that is noticed.
#[test]
fn dispatches_go_on_where_others_ended() {
    let Some(mut device) = Device::open("dispatches") else { return };
    for row in ["linear_weight", "attention_64", "conv2d_fours", "group_norm", "silu", "softmax", "permute"] {
        device.clear();
        let draw: Draw = format!("{row}:f32:gpu:62,62,35:normal:4:cut").parse().expect("a draw");
        let exec = device.exec();
        let caps = exec.caps().clone();
        let (plan, data) = draw.plan(exec, &caps).expect("a plan");
        let later = plan.commands.iter().filter(|c| c.first > 0).count();
        assert!(later > 0, "{row}: no command of several dispatches");
        assert_eq!(plan.commands.iter().filter(|c| c.last).count(), plan.commands.len() - later);
        check(exec, plan.clone(), &data).unwrap_or_else(|e| panic!("{draw}: {e}"));
        let spoiled =
            check_spoiled(exec, plan, &data, |plan| plan.commands.iter_mut().for_each(|c| c.first = 0));
        assert!(spoiled.is_err(), "{draw}: nobody noticed");
    }
}

#[test]
fn an_empty_batch_is_a_sentence() {
    let mut refused = 0;
    for case in all() {
        let mut g = Graph::new();
        let (y, _) = (case.build)(&mut g, [0, 5, 4]);
        match Plan::new(g, &[("y", y)], &Caps::webgpu(), &|_| Stored::F32) {
            Ok(_) => continue, // the row makes its sides positive
            Err(e) => assert!(e.to_string().contains("no elements"), "{}: {e}", case.name),
        }
        refused += 1;
    }
    assert!(refused > 40, "{refused}");
    // Empty on the way, not from the start.
    let mut g = Graph::new();
    let x = g.input("x", &[2, 3]);
    let y = g.slice(x, 1, 3, 0);
    let e = Plan::new(g, &[("y", y)], &Caps::webgpu(), &|_| Stored::F32).expect_err("empty");
    assert!(e.to_string().contains("no elements"), "{e}");
}
