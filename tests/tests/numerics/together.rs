//! Commands that share a dispatch compute what they compute alone.
use crate::harness::{normals, same_bits};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, LeafData};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id, Op};
use pentimento_runtime::model::lora::Lora;
use pentimento_runtime::model::mmdit::{TIME_CHANNELS, lora_targets, velocity};
use pentimento_runtime::plan::{Plan, check_overlap};
use pentimento_wgsl::{Class, Stored};
use std::collections::BTreeSet;
use tests::adapter::Device;
use tests::beside::{beside, name};
use tests::cases::all;
use tests::check::check;
use tests::draw::{Draw, Values};
use tests::tiny;

/// Limits of the adapter as a GPU's, with so many commands a dispatch.
fn gpu(own: &Caps, together: u32) -> Caps {
    Caps { class: Class::Gpu, texture_rows: 0, together, ..own.clone() }
}

/// Velocity of a small transformer with an adapter, and the gradients of its factors.
fn step() -> (Graph, Vec<(String, Id)>) {
    let (mut g, cfg) = (Graph::new(), tiny::transformer(2));
    let x = g.input("latents", &[2, 8, 8, cfg.in_channels]);
    let time = g.input("time", &[2, TIME_CHANNELS]);
    let pooled = g.input("pooled", &[2, cfg.pooled_projection_dim]);
    let context = g.input("context", &[2, 5, cfg.joint_attention_dim]);
    let y = velocity(&mut g, &cfg, Some(&Lora::joint(&cfg, 4, 1.0)), x, time, pooled, context, None);
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    let factors = lora_targets(&cfg).into_iter().flat_map(|(t, i, o)| {
        [(format!("lora/{t}.lora_A.weight"), [4, i]), (format!("lora/{t}.lora_B.weight"), [o, 4])]
    });
    let (names, wrt): (Vec<String>, Vec<Id>) =
        factors.map(|(n, shape)| (format!("d {n}"), g.param(n, &shape))).unzip();
    let grads = gradients(&mut g, y, dy, &wrt, true).expect("gradients");
    (g, [("y".to_string(), y)].into_iter().chain(names.into_iter().zip(grads)).collect())
}

/// Every output's numbers, and the dispatches that it took.
fn run(exec: &mut dyn Executor, caps: &Caps) -> (Vec<Vec<f32>>, usize) {
    let (g, outputs) = step();
    let named: Vec<(&str, Id)> = outputs.iter().map(|(n, id)| (n.as_str(), *id)).collect();
    let plan = Plan::new(g.clone(), &named, caps, &|_| Stored::F32).expect("a plan");
    check_overlap(&plan).expect("a sound plan");
    // By name: which leaf comes first depends on the order of commands.
    let stream = |name: &str| name.bytes().fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
    for leaf in &plan.leaves {
        let numbers = normals(3, stream(&leaf.name), leaf.shape.iter().product());
        let numbers: Vec<f32> = numbers.iter().map(|v| 0.1 * v).collect();
        exec.set_leaf(&leaf.name, LeafData::F32(&numbers)).expect("a leaf");
    }
    let (dispatches, inputs) = (plan.dispatches(), plan.inputs.clone());
    let id = exec.prepare(plan).expect("a plan");
    for input in &inputs {
        exec.write(id, &input.name, &normals(5, stream(&input.name), input.slot.len)).expect("an input");
    }
    exec.run(id).expect("a run");
    (named.iter().map(|(n, _)| exec.read(id, n).expect("an output")).collect(), dispatches)
}

#[test]
fn a_step_keeps_its_bits() {
    let mut devices = vec![Device::Twins(Box::new(Cpu::new()))];
    devices.extend(Device::open("a step whose commands share dispatches"));
    for device in &mut devices {
        let own = device.exec().caps().clone();
        let (alone, many) = run(device.exec(), &gpu(&own, 1));
        // lavapipe of Mesa 22.3 crashes with the fourth bind group; with 26.2 four pass, too.
        for together in [2, 3] {
            device.clear();
            let (shared, few) = run(device.exec(), &gpu(&own, together));
            println!("{}: {many} dispatches, {few} with up to {together} commands", own.name);
            // Where a product's bindings fit twice.
            let much = own.storage_bindings >= 20;
            assert!(few * 10 < many * if much { 8 } else { 10 }, "{few} of {many}");
            for (a, b) in alone.iter().zip(&shared) {
                same_bits(b, a).unwrap_or_else(|e| panic!("{}, {together}: {e}", own.name));
            }
        }
        // The last block's text leads nowhere.
        let some = alone.iter().filter(|v| v.iter().any(|x| *x != 0.0)).count();
        assert!(2 * some > alone.len(), "{some} of {} outputs", alone.len());
        device.clear();
    }
}

/// Each row of the case table, twice in one plan: every command shares its dispatch with its like, of other numbers.
#[test]
fn every_kernel_can_share_a_dispatch() {
    let Some(mut device) = Device::open("kernels that share a dispatch") else { return };
    let (mut reached, mut commands) = (BTreeSet::new(), 0);
    // A CPU driver takes ten seconds for each shader of attention.
    let slow = device.exec().caps().class == Class::Software;
    let some = ["attention_bias_16", "attention_large_causal_52"];
    let rows = all().filter(|c| tests::cases::kinds(c).contains(&Stored::F32));
    for case in rows.filter(|c| !slow || !c.name.starts_with("attention") || some.contains(&c.name)) {
        device.clear();
        let exec = device.exec();
        let draw = Draw {
            case,
            class: Class::Gpu,
            weight: Stored::F32,
            n: [33, 20, 12],
            values: Values::Normal,
            seed: 1,
            fold: false,
            split: false,
            cut: false,
            stage: true,
        };
        let own = exec.caps().clone();
        let (other, mut data) = (Draw { seed: 2, ..draw }.plan(exec, &own), draw.plan(exec, &own));
        let (Ok((_, more)), Ok((plan, numbers))) = (other, &mut data) else {
            panic!("{}: no plan", case.name);
        };
        let plan = beside(plan, 2, &own);
        for input in &plan.inputs {
            if let Some(own) = input.name.strip_suffix("@1") {
                numbers.insert(name(own, 1), more[own].clone());
            }
        }
        let shared = plan.commands.iter().filter(|c| c.together > 1).map(|c| format!("{:?}", c.variant));
        let before = reached.len();
        reached.extend(shared);
        if reached.len() == before {
            continue;
        }
        commands += plan.dispatches();
        let steps = check(exec, plan, numbers).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert!(!steps.is_empty());
    }
    println!("{} kernels shared {commands} dispatches", reached.len());
    let least = if device.exec().caps().storage_bindings >= 16 { 50 } else { 30 };
    assert!(reached.len() > least, "{} kernels", reached.len());
}

/// A plan whose dispatch holds what depends on each other, or not what it says, is found.
#[test]
fn a_wrong_dispatch_is_found() {
    let (g, outputs) = step();
    let named: Vec<(&str, Id)> = outputs.iter().map(|(n, id)| (n.as_str(), *id)).collect();
    let plan = |together| {
        let caps = Caps { together, ..Caps::unlimited("a GPU") };
        Plan::new(g.clone(), &named, &caps, &|_| Stored::F32).expect("a plan")
    };
    assert!(g.nodes().iter().any(|n| matches!(n.op, Op::Leaf { .. })));
    let good = plan(6);
    check_overlap(&good).expect("a sound plan");
    let head = good.commands.iter().position(|c| c.together > 2).expect("three together");
    let refused = |change: &dyn Fn(&mut Plan)| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = check_overlap(&bad).expect_err("a wrong plan").to_string();
        assert!(error.contains("dispatch") || error.contains("wrote"), "{error}");
    };
    refused(&|p| p.commands[head].together -= 1);
    refused(&|p| p.commands[head].together = 1000);
    refused(&|p| p.commands[head + 1].together = 1);
    refused(&|p| {
        let out = p.commands[head].outputs()[0];
        p.commands[head + 1].args[0] = out;
    });
    refused(&|p| {
        let (out, last) = (p.commands[head].outputs()[0], p.commands[head + 1].args.len() - 1);
        p.commands[head + 1].args[last] = out;
    });
    let mut alone = plan(1);
    let chain = alone.commands.windows(2).position(|w| {
        w[0].variant == w[1].variant && w[0].outputs().iter().any(|out| w[1].args.contains(out))
    });
    let chain = chain.expect("a command that reads what one of its kind wrote");
    (alone.commands[chain].together, alone.commands[chain + 1].together) = (2, 0);
    assert!(check_overlap(&alone).expect_err("a chain").to_string().contains("depends on"));
}
