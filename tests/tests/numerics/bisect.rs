//! The bisecting switch: a good plan has no disagreement; of a plan with one altered command exactly that is named.
use pentimento_runtime::exec::wgpu::{Checked, Follow, Wgpu};
use pentimento_runtime::exec::{Executor, LeafData, PlanId};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::lora::Lora;
use pentimento_runtime::model::mmdit::{TIME_CHANNELS, lora_targets, velocity};
use pentimento_runtime::plan::{Command, Plan};
use pentimento_runtime::rng::Philox;
use pentimento_wgsl::kernel::attention::Call as Attention;
use pentimento_wgsl::kernel::copy::Call as Copy;
use pentimento_wgsl::kernel::elementwise::Call as Elementwise;
use pentimento_wgsl::kernel::norm::Kernel;
use pentimento_wgsl::{Call, Stored};
use tests::adapter::{adapter, exact};

/// A joint block with dual attention and the last block, with the gradients of the first block's adapter. One matrix is
/// kept in half precision.
fn plan(exec: &mut Wgpu) -> Plan {
    let cfg = tests::tiny::transformer(2);
    let mut g = Graph::new();
    let x = g.input("latents", &[2, 4, 4, cfg.in_channels]);
    let time = g.input("time", &[2, TIME_CHANNELS]);
    let pooled = g.input("pooled", &[2, cfg.pooled_projection_dim]);
    let context = g.input("context", &[2, 5, cfg.joint_attention_dim]);
    let v = velocity(&mut g, &cfg, Some(&Lora::joint(&cfg, 4, 1.0)), x, time, pooled, context, None);
    let dy = g.input("dy", &[2, 4, 4, cfg.in_channels]);
    let wrt: Vec<Id> = lora_targets(&cfg)
        .into_iter()
        .take(8)
        .map(|(t, i, _)| g.param(format!("lora/{t}.lora_A.weight"), &[4, i]))
        .collect();
    let grads = gradients(&mut g, v, dy, &wrt, true).expect("gradients");
    let names: Vec<String> = (0..grads.len()).map(|i| format!("d{i}")).collect();
    let mut outputs: Vec<(&str, Id)> = names.iter().map(String::as_str).zip(grads).collect();
    outputs.push(("velocity", v));
    let bytes: Vec<u8> = (0..128 * 32u16).flat_map(|i| (0x3c00 | (i % 512)).to_le_bytes()).collect();
    exec.set_leaf(HALF, LeafData::Packed(Stored::BF16, &bytes)).expect("a leaf");
    Plan::new(g, &outputs, exec.caps(), &|n| exec.stored(n)).expect("a plan")
}

const HALF: &str = "transformer/context_embedder.weight";

/// Seeded normal weights and inputs.
fn prepare(exec: &mut dyn Executor, plan: &Plan) -> PlanId {
    let normals = |i: usize, shape: &[usize], scale: f32| {
        let mut data = vec![0.0; shape.iter().product()];
        Philox::new(5, i as u64).normals(&mut data);
        data.iter().map(|v| scale * v).collect::<Vec<f32>>()
    };
    for (i, leaf) in plan.leaves.iter().enumerate().filter(|(_, l)| l.name != HALF) {
        exec.set_leaf(&leaf.name, LeafData::F32(&normals(i, &leaf.shape, 0.1))).expect("a leaf");
    }
    let id = exec.prepare(plan.clone()).expect("a plan");
    for (i, input) in plan.inputs.iter().enumerate().filter(|(_, i)| i.name != "zero") {
        exec.write(id, &input.name, &normals(1000 + i, &input.shape, 1.0)).expect("an input");
    }
    id
}

#[test]
fn a_good_plan_has_no_disagreement() {
    let Some(mut gpu) = adapter("bisecting a good plan") else { return };
    let plan = plan(&mut gpu);
    let id = prepare(&mut gpu, &plan);
    for follow in [Follow::Twin, Follow::Adapter] {
        let mut worst = 0.0f64;
        let note = &mut |d: &pentimento_runtime::exec::wgpu::Difference| {
            worst = worst.max(if d.limit > 0.0 { d.error / d.limit } else { d.error });
        };
        let found = gpu.bisect(id, None, follow, note).expect("a run");
        assert!(found.is_none(), "{}", found.expect("a difference"));
        // A limit that nothing comes near would not find much either.
        println!(
            "{} commands agree, {follow:?} first; closest to its limit: {worst:.2} of it",
            plan.commands.len()
        );
        assert!(worst > 1e-4);
    }
}

/// A subtle mistake in a command, by kernel; `None` where this test knows none.
fn sabotage(c: &Command) -> Option<Command> {
    let mut bad = c.clone();
    match &mut bad.call {
        Call::Matmul(p) if p.k > 4 => p.k -= 1, // the last product of each sum is lost
        Call::Attention(Attention::Pass(_, p)) => p.block.scale *= 1.1,
        Call::Norm(c) => match c.kernel {
            Kernel::LayerNorm | Kernel::LayerNormBackward => c.params.eps = 0.1,
            Kernel::RmsNorm | Kernel::RmsNormBackward => c.params.eps = 1.0,
            Kernel::Softmax | Kernel::SoftmaxBackward => return None,
            Kernel::GroupNorm | Kernel::GroupNormBackward => return None,
        },
        Call::Elementwise(Elementwise::Binary(p)) => p.op ^= 1, // add becomes sub, mul becomes max
        Call::Elementwise(Elementwise::Unary(p)) => p.op = if p.op == 16 { 18 } else { 5 }, // relu
        Call::Sum(p) => p.scale *= 1.001,
        Call::Copy(Copy::Slice(p)) => p.start ^= 4, // from four numbers aside
        _ => return None,
    }
    Some(bad)
}

#[test]
fn an_altered_command_is_named() {
    let Some(mut gpu) = adapter("bisecting altered plans") else { return };
    let good = plan(&mut gpu);
    let mut tried: Vec<&str> = Vec::new();
    for (i, c) in good.commands.iter().enumerate() {
        // The second of its kind, so that some commands lie before it.
        let kernel = c.call.kernel();
        let nth = good.commands[..i].iter().filter(|c| c.call.kernel() == kernel).count();
        let only = good.commands.iter().filter(|c| c.call.kernel() == kernel).count() == 1;
        let Some(bad) = sabotage(c).filter(|_| !tried.contains(&kernel) && (nth > 0 || only)) else {
            continue;
        };
        tried.push(kernel);
        let mut plan = good.clone();
        plan.commands[i] = bad;
        let id = prepare(&mut gpu, &plan);
        for follow in [Follow::Twin, Follow::Adapter] {
            let found = gpu.bisect(id, Some(&good), follow, &mut |_| ()).expect("a run");
            let found = found.unwrap_or_else(|| panic!("{kernel} at {i} was not found"));
            assert_eq!((found.index, found.variant.kernel()), (i, kernel), "{found}");
            assert_eq!(found.shape, c.shape);
            let text = found.to_string();
            assert!(
                text.contains(c.variant.entry()) && text.contains(&format!("command {} of", i + 1)),
                "{text}"
            );
            if follow == Follow::Twin {
                println!("{text}");
            }
        }
    }
    assert!(tried.len() >= 9, "{tried:?}");
}

/// With the altered command among the first n, which run on the twins, the results are right; after them they are not.
#[test]
fn a_mixed_run_heals_what_the_twins_compute() {
    let Some(mut gpu) = exact("mixed runs") else { return };
    let good = plan(&mut gpu);
    let id = prepare(&mut gpu, &good);
    gpu.run(id).expect("a run");
    let want = gpu.read(id, "velocity").expect("an output");
    let at = good.commands.iter().position(|c| matches!(c.call, Call::Matmul(p) if p.k > 4));
    let at = at.expect("a matmul");
    let mut bad = good.clone();
    bad.commands[at] = sabotage(&good.commands[at]).expect("a mistake");
    let mut error = |plan: &Plan, n: usize| {
        let id = prepare(&mut gpu, plan);
        gpu.run_mixed(id, Some(&good), n).expect("a run");
        let got = gpu.read(id, "velocity").expect("an output");
        let d = want.iter().zip(&got).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        d / want.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    };
    let all = good.commands.len();
    let rounding = [0, 1, all / 2, all].map(|n| error(&good, n)).into_iter().fold(f64::EPSILON, f64::max);
    let (before, after) = (error(&bad, at), error(&bad, at + 1));
    println!(
        "mixed runs: {rounding:.1e} by rounding; mistake on the adapter {before:.1e}, on the twin {after:.1e}"
    );
    assert!(before > 100.0 * rounding && after <= 2.0 * rounding && rounding < 1e-5);
}

/// The executor behind `--bisect`.
#[test]
fn a_checked_executor_runs_every_plan() {
    let Some(mut gpu) = adapter("checked runs") else { return };
    let plan = plan(&mut gpu);
    let told = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = told.clone();
    let mut exec = Checked::new(gpu, Box::new(move |d| count.set(count.get() + d.commands)));
    let id = prepare(&mut exec, &plan);
    let mut results = Vec::new();
    for _ in 0..2 {
        exec.run(id).expect("a run without disagreement");
        results.push(exec.read(id, "velocity").expect("an output"));
    }
    assert_eq!(told.get(), plan.commands.len());
    assert!(results[0] == results[1]);
    assert_eq!(exec.stored("nothing"), Stored::F32);
}
