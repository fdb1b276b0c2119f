//! Advantages, the clipped loss with its gradients, the KL term, optimisers and the averaged weights, as released.
use crate::common::executors;
use pentimento_runtime::exec::{LeafData, compile};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::Graph;
use pentimento_trainer::advantage::{Spread, grouped, groups};
use pentimento_trainer::config::Config;
use pentimento_trainer::objective::grpo::{clipped, distance};
use pentimento_trainer::optim::{AdamW, Ema, clip_norm};
use tests::fixture::{Check, Golden, within};

#[test]
fn advantages_are_those_of_the_released_tracker() {
    let Some(golden) = Golden::find("grpo") else { return };
    let mut check = Check::new(&golden, "host");
    let prompts = golden.json["prompts"].as_array().expect("prompts");
    let by_prompt = groups(prompts);
    let one_group = vec![0; prompts.len()];
    let rewards = golden.floats("rewards");
    let &[_, width] = golden.shape("rewards") else { panic!("rewards are [N, T]") };
    let limit = f32::INFINITY;
    for (name, groups, spread) in [
        ("advantages_global_std_1", &by_prompt, Spread::Global),
        ("advantages_global_std_0", &by_prompt, Spread::Group),
        ("advantages_no_tracking", &one_group, Spread::Global),
    ] {
        let got = grouped(rewards, groups, width, spread, 0.0, limit);
        check.tensor(name, &got);
        let other = grouped(rewards, groups, width, Spread::Within, 0.0, limit);
        let same = within(&other, golden.floats(name), golden.tolerance(name)).is_ok();
        // It does not where there is one group, or nothing to compare in any.
        let flat = groups.iter().all(|g| *g == 0) || golden.floats(name).iter().all(|a| *a == 0.0);
        assert!(!same || flat, "{name}: another spread must differ");
        if let Some(kind) = name.strip_prefix("advantages_global_std_") {
            let count = groups.iter().max().map_or(0, |m| m + 1) as f32;
            check.tensor(&format!("stats_global_std_{kind}"), &[groups.len() as f32 / count, count]);
        }
    }
    check.finish();
}

/// `beta0.04_clip1e-05_loss` and the like: (prefix, beta, clip).
fn losses(golden: &Golden) -> Vec<(String, f32, f32)> {
    let all = golden.names().filter_map(|n| n.strip_suffix("_policy_loss"));
    let parts = |prefix: &str| {
        let (beta, clip) = prefix.strip_prefix("beta")?.split_once("_clip")?;
        Some((prefix.to_string(), beta.parse().ok()?, clip.parse().ok()?))
    };
    all.filter_map(parts).collect()
}

#[test]
fn losses_and_gradients_are_the_released_ones() {
    let Some(golden) = Golden::find("grpo") else { return };
    let shape = golden.shape("mean").to_vec();
    let n = shape[0];
    let limit = Config::released().grpo.advantage_limit;
    let columns = golden.shape("advantages")[1];
    let advantage: Vec<f32> =
        golden.floats("advantages").iter().step_by(columns).map(|a| a.clamp(-limit, limit)).collect();
    let minus = |name: &str| golden.floats(name).iter().map(|v| -v).collect::<Vec<f32>>();
    assert!(losses(&golden).len() > 1);
    for (prefix, beta, clip) in losses(&golden) {
        for (name, mut exec) in executors("objective") {
            let exec = exec.as_mut();
            let mut check = Check::new(&golden, &name);
            let mut g = Graph::new();
            let (old, advantages) = (g.input("old", &[n]), g.input("advantage", &[n]));
            let (new, mean) = (g.param("new", &[n]), g.param("mean", &shape));
            let (policy, ratio) = clipped(&mut g, old, new, advantages, clip);
            let reference = g.input("reference", &shape);
            let kl = distance(&mut g, mean, reference, 1);
            let weighted = g.affine(kl, beta, 0.0);
            let loss = g.add(policy, weighted);
            let seed = g.input("seed", &[n]);
            let d = gradients(&mut g, loss, seed, &[new, mean], false).expect("gradients");
            exec.set_leaf("new", LeafData::F32(&minus("log_prob_new"))).expect("a parameter");
            exec.set_leaf("mean", LeafData::F32(golden.floats("mean"))).expect("a parameter");
            let outputs = [
                ("policy", policy),
                ("ratio", ratio),
                ("kl", kl),
                ("loss", loss),
                ("dnew", d[0]),
                ("dmean", d[1]),
            ];
            let plan = compile(exec, g, &outputs).expect("a plan");
            let seed = vec![1.0 / n as f32; n];
            for (name, data) in [
                ("old", minus("log_prob_old").as_slice()),
                ("advantage", &advantage),
                ("reference", golden.floats("mean_ref")),
                ("seed", &seed),
            ] {
                exec.write(plan, name, data).expect("an input");
            }
            exec.run(plan).expect("a run");
            let mut read = |name: &str| exec.read(plan, name).expect("an output");
            let average = |v: Vec<f32>| [v.iter().map(|v| f64::from(*v)).sum::<f64>() as f32 / n as f32];
            let ratio = read("ratio");
            let outside = ratio.iter().filter(|r| (**r - 1.0).abs() > clip).count();
            check.tensor(&format!("{prefix}_ratio"), &ratio);
            check.tensor(&format!("{prefix}_clipfrac"), &[outside as f32 / n as f32]);
            check.tensor(&format!("{prefix}_policy_loss"), &average(read("policy")));
            check.tensor(&format!("{prefix}_loss"), &average(read("loss")));
            let grad: Vec<f32> = read("dnew").iter().map(|d| -d).collect();
            check.tensor(&format!("{prefix}_grad_log_prob"), &grad);
            check.optional(&format!("{prefix}_kl"), &average(read("kl")));
            check.optional(&format!("{prefix}_grad_mean"), &read("dmean"));
            check.finish();
        }
    }
}

/// Tensors named `{prefix}0`, `{prefix}1`, ...
fn list(golden: &Golden, prefix: &str, suffix: &str) -> Vec<Vec<f32>> {
    let names = (0..).map(|i| format!("{prefix}{i}{suffix}"));
    names.take_while(|n| golden.has(n)).map(|n| golden.floats(&n).to_vec()).collect()
}

/// Runs named `{run}_hyper` in the JSON file.
#[test]
fn optimisers_agree_with_torch() {
    let Some(golden) = Golden::find("grpo") else { return };
    let mut check = Check::new(&golden, "host");
    let runs: Vec<(String, serde_json::Value)> = golden
        .json
        .as_object()
        .expect("an object")
        .iter()
        .filter_map(|(k, v)| Some((k.strip_suffix("_hyper")?.to_string(), v.clone())))
        .collect();
    assert!(!runs.is_empty());
    for (run, hyper) in runs {
        let number = |name: &str, or: f64| hyper[name].as_f64().unwrap_or(or) as f32;
        let beta = |i: usize| hyper["betas"][i].as_f64().expect("betas") as f32;
        let mut params = list(&golden, "adamw_p", "_init");
        let lengths = params.iter().map(Vec::len);
        let mut adam = AdamW::new((beta(0), beta(1)), number("weight_decay", 0.0), lengths)
            .with_eps(number("eps", 1e-8));
        // Runs with recorded norms clip the gradients to a norm of 1.
        let clips = golden.has(&format!("{run}_norms"));
        let mut norms = Vec::new();
        for step in 0.. {
            let mut grads = list(&golden, "adamw_g", &format!("_step{step}"));
            if grads.is_empty() {
                break;
            }
            if clips {
                norms.push(clip_norm(&mut grads, Config::released().optim.max_norm));
            }
            adam.update(&mut params, &grads, number("lr", 0.0));
            for (i, p) in params.iter().enumerate() {
                check.optional(&format!("{run}_p{i}_after{step}"), p);
            }
        }
        if clips {
            check.tensor(&format!("{run}_norms"), &norms);
        }
    }
    check.finish();
}

#[test]
fn averages_follow_the_released_schedule() {
    let Some(golden) = Golden::find("grpo") else { return };
    let mut check = Check::new(&golden, "host");
    let json = &golden.json["ema"];
    let interval = json["update_step_interval"].as_u64().expect("an interval") as u32;
    let calls: Vec<u32> =
        json["calls"].as_array().expect("calls").iter().map(|c| c.as_u64().expect("a step") as u32).collect();
    let mut params = list(&golden, "adamw_p", "_init");
    let drift = list(&golden, "ema_drift", "");
    let mut ema = Ema::new(json["decay"].as_f64().expect("a decay") as f32, &params);
    let mut history: Vec<Vec<f32>> = vec![Vec::new(); params.len()];
    for &call in &calls {
        for (p, d) in params.iter_mut().zip(&drift) {
            p.iter_mut().zip(d).for_each(|(p, d)| *p += 0.1 * d);
        }
        ema.step(&params, call, interval);
        history.iter_mut().zip(ema.average.iter()).for_each(|(h, a)| h.extend(a));
    }
    for (i, h) in history.iter().enumerate() {
        check.tensor(&format!("ema_p{i}"), h);
    }
    let decays: Vec<f32> = calls.iter().map(|&c| ema.decay(c)).collect();
    check.tensor("ema_decay", &decays);
    check.finish();
}
