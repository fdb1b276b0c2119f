//! Adapters: forward and every gradient.
use crate::common::{all_executors, executors, model};
use crate::transformer::{Inputs, sample};
use pentimento_runtime::exec::{Executor, LeafData, compile, upload};
use pentimento_runtime::grad::{Recompute, gradients};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::layout::{self, Rename};
use pentimento_runtime::model::channels_last;
use pentimento_runtime::model::lora::{Layer, Layers, Lora, upload as upload_pairs};
use pentimento_runtime::model::mmdit::{self, lora_targets};
use pentimento_runtime::plan::Command;
use pentimento_runtime::weights::Weights;
use pentimento_trainer::adapter::Adapter;
use pentimento_wgsl::kernel::Rounding;
use tests::fixture::{Check, Golden, safetensors, within};

/// The golden LoRA folder with its base model and adapter.
struct Adapted {
    golden: Golden,
    cfg: mmdit::MmditConfig,
    weights: Weights,
    adapter: Weights,
    rank: usize,
    lora: Lora,
}

impl Adapted {
    fn open() -> Option<Self> {
        let golden = Golden::find("lora")?;
        let base = golden.json["checkpoint"][0].as_str().and_then(|s| s.split_whitespace().next());
        let path = golden.path.join(base.expect("checkpoint[0] names the base model"));
        if !path.join("config.json").is_file() {
            println!("SKIPPED: no base model {}", path.display());
            return None;
        }
        let (_, config, weights) = model(&path);
        let cfg = mmdit::MmditConfig::from_value(&config, "config.json").expect("a config");
        let file = golden.path.join("diffusers/pytorch_lora_weights.safetensors");
        let adapter =
            Weights::from_bytes("adapter", std::fs::read(file).expect("an adapter")).expect("an adapter");
        let rank = golden.json["r"].as_u64().expect("r") as usize;
        let scale = golden.json["scaling"].as_f64().expect("scaling") as f32;
        let lora = Lora::joint(&cfg, rank, scale);
        Some(Adapted { golden, cfg, weights, adapter, rank, lora })
    }
    /// (leaf name, target, A or B, shape) of every parameter.
    fn params(&self) -> Vec<(String, String, [usize; 2])> {
        let r = self.rank;
        let both = |(t, i, o): (String, usize, usize)| {
            [(format!("{t}.lora_A.weight"), [r, i]), (format!("{t}.lora_B.weight"), [o, r])]
        };
        let all = lora_targets(&self.cfg).into_iter().flat_map(both);
        all.map(|(name, shape)| (format!("lora/{name}"), name, shape)).collect()
    }
    fn set_params(&self, exec: &mut dyn Executor, factor_b: f32) {
        for (leaf, name, shape) in self.params() {
            let view =
                self.adapter.expect(&format!("transformer.{name}"), &shape).expect("an adapter tensor");
            let factor = if name.contains("lora_B") { factor_b } else { 1.0 };
            let data: Vec<f32> = view.to_f32().expect("room").iter().map(|v| v * factor).collect();
            exec.set_leaf(&leaf, LeafData::F32(&data)).expect("a parameter");
        }
    }
}

#[test]
fn lora_gradients_agree() {
    let Some(a) = Adapted::open() else { return };
    assert_eq!(a.adapter.len(), a.params().len(), "every tensor of the adapter is used");
    let inputs = Inputs::new(&a.golden);
    let [b, h, w, c] = inputs.latents;
    let cotangent = channels_last(a.golden.floats("R"), c, h * w, c);
    for recompute in [Recompute::Nothing, Recompute::Most, Recompute::All] {
        for (name, mut exec, half) in all_executors("LoRA gradients") {
            let mut g = Graph::new();
            let ids = inputs.ids(&mut g);
            let y = mmdit::velocity(&mut g, &a.cfg, Some(&a.lora), ids[0], ids[1], ids[2], ids[3], None);
            let dy = g.input("dy", &[b, h, w, c]);
            let params = a.params();
            let mut wrt = vec![ids[0], ids[2], ids[3]];
            wrt.extend(params.iter().map(|(leaf, _, shape)| g.param(leaf.as_str(), shape)));
            let grads = gradients(&mut g, y, dy, &wrt, recompute).expect("gradients");
            let labels =
                ["y", "hidden_states", "pooled_projections", "encoder_hidden_states"].map(String::from);
            let labels: Vec<String> = labels.into_iter().chain(params.iter().map(|p| p.1.clone())).collect();
            let outputs: Vec<(&str, Id)> =
                labels.iter().map(String::as_str).zip([y].into_iter().chain(grads)).collect();

            let exec = exec.as_mut();
            upload(exec, &g, "transformer/", &a.weights).expect("the checkpoint fits the graph");
            a.set_params(exec, 1.0);
            let plan = compile(exec, g, &outputs).expect("a plan");
            let rounds = |c: &Command| matches!(c.variant.rounding(), Rounding::Half { .. });
            assert_eq!(exec.plan(plan).commands.iter().any(rounds), half, "{name}");
            for (input, data) in inputs.values().into_iter().chain([("dy", cotangent.as_slice())]) {
                exec.write(plan, input, data).expect("an input");
            }
            let place = format!("{name}, recompute {recompute:?}");
            let mut check = Check::new(&a.golden, &place).halves(half, 16.0);
            exec.run(plan).expect("a run");
            let mut read = |label: &str| exec.read(plan, label).expect("an output");
            let y = read("y");
            let loss: f64 = y.iter().zip(&cotangent).map(|(&y, &r)| f64::from(y) * f64::from(r)).sum();
            check.tensor("sample", &inputs.stored(&y));
            check.tensor("loss", &[loss as f32]);
            check.tensor("grad_hidden_states", &inputs.stored(&read("hidden_states")));
            for input in ["pooled_projections", "encoder_hidden_states"] {
                check.tensor(&format!("grad_{input}"), &read(input));
            }
            for (_, param, _) in &params {
                check.tensor(&format!("grad.base_model.model.{param}"), &read(param));
            }
            let expected = a.golden.names().filter(|n| n.starts_with("grad.")).count();
            assert_eq!(expected, params.len(), "{place}: every golden gradient is compared");

            // A fresh adapter has B = 0: the output is the base model's, and B already has a gradient.
            a.set_params(exec, 0.0);
            exec.run(plan).expect("a run");
            let mut read = |label: &str| exec.read(plan, label).expect("an output");
            check.optional("fresh.sample", &inputs.stored(&read("y")));
            for (_, param, _) in &params {
                check.optional(&format!("fresh.grad.base_model.model.{param}"), &read(param));
            }
            check.finish();
        }
    }
}

#[test]
fn adapters_can_be_off_or_rescaled() {
    let Some(a) = Adapted::open() else { return };
    let inputs = Inputs::new(&a.golden);
    for (name, mut exec) in executors("adapter scale") {
        let mut check = Check::new(&a.golden, &name);
        a.set_params(exec.as_mut(), 1.0);
        let exec = exec.as_mut();
        check.tensor("sample_adapter_disabled", &sample(exec, &a.cfg, None, &a.weights, &inputs));
        let unscaled = Lora::joint(&a.cfg, a.rank, 1.0);
        check.tensor("sample_diffusers_nometa", &sample(exec, &a.cfg, Some(&unscaled), &a.weights, &inputs));
        check.finish();
    }
}

/// The golden adapter in every form that is read, and whether its scale is known there.
fn forms(a: &Adapted) -> Vec<(String, Adapter, bool)> {
    let targets = lora_targets(&a.cfg);
    let layer = |&(_, inputs, outputs): &(String, usize, usize)| Layer { inputs, outputs, patch: 1 };
    let sizes: Layers = targets.iter().map(|t| (t.0.clone(), layer(t))).collect();
    let load = |name: &str| Adapter::load(&a.golden.path.join(name), &sizes).expect("an adapter");
    let folders = [("diffusers", true), ("peft", true), ("diffusers_nometa", false)];
    let there = folders.into_iter().filter(|(name, _)| a.golden.path.join(name).is_dir());
    let mut all: Vec<_> = there.map(|(name, scaled)| (name.to_string(), load(name), scaled)).collect();
    let parse = |what: &str, bytes: Vec<u8>| Adapter::parse(what, bytes, None, &sizes).expect("an adapter");
    let alpha = a.golden.json["lora_alpha"].as_f64().expect("lora_alpha") as f32;
    let plain = a.adapter.names().map(|n| {
        let view = a.adapter.get(n).expect("a tensor");
        (n.to_string(), view.shape.to_vec(), view.bytes.to_vec())
    });
    let alphas =
        targets.iter().map(|t| (format!("transformer.{}.alpha", t.0), vec![], alpha.to_le_bytes().to_vec()));
    all.push(("alpha tensors".into(), parse("alpha", safetensors("F32", plain.chain(alphas))), true));
    for (what, name) in [
        ("kohya", (|m| format!("lora_unet_{}", m.replace('.', "_"))) as fn(String) -> String),
        ("original layout", |m| format!("diffusion_model.{m}")),
    ] {
        let halves = if what == "kohya" {
            ["lora_down.weight", "lora_up.weight"]
        } else {
            ["lora_A.weight", "lora_B.weight"]
        };
        all.push((what.into(), parse(what, fused(a, alpha, name, halves)), true));
    }
    let again = parse("written", all[0].1.write_bytes().expect("bytes"));
    all.push(("written".into(), again, true));
    let (bytes, config) = all[0].1.write_peft().expect("bytes");
    let peft = Adapter::parse("written as PEFT", bytes, Some(&config), &sizes).expect("an adapter");
    all.push(("written as PEFT".into(), peft, true));
    all
}

/// The golden adapter over the original model's layers. Separate factors of q, k and v become one pair of three times the
/// rank, A stacked and B block-diagonal, with three times the alpha.
fn fused(a: &Adapted, alpha: f32, name: fn(String) -> String, halves: [&str; 2]) -> Vec<u8> {
    let mut tensors = Vec::new();
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let modules =
        ["x_block.attn.qkv", "context_block.attn.qkv", "x_block.attn.proj", "context_block.attn.proj"];
    for (n, module) in (0..a.cfg.num_layers).flat_map(|n| modules.map(|m| (n, m))) {
        let full = format!("joint_blocks.{n}.{module}");
        let parts = match layout::module(&full, None).expect("a module") {
            Rename::To(one) | Rename::Swap(one) => vec![one],
            Rename::Split(parts) => parts.to_vec(),
        };
        let factor =
            |part: &str, half: &str| a.adapter.get(&format!("transformer.{part}.lora_{half}.weight"));
        if parts.iter().any(|p| factor(p, "A").is_err()) {
            continue; // the last block projects no context
        }
        let (r, k) = (a.rank, parts.len());
        let (mut down, mut up, mut rows) = (Vec::new(), Vec::new(), 0);
        for (i, part) in parts.iter().enumerate() {
            down.extend(factor(part, "A").expect("A").to_f32().expect("room"));
            for row in factor(part, "B").expect("B").to_f32().expect("room").chunks_exact(r) {
                up.extend((0..k).flat_map(|j| row.iter().map(move |v| if i == j { *v } else { 0.0 })));
                rows += 1;
            }
        }
        let width = down.len() / (r * k);
        let key = name(full);
        tensors.push((format!("{key}.{}", halves[0]), vec![r * k, width], bytes(&down)));
        tensors.push((format!("{key}.{}", halves[1]), vec![rows, r * k], bytes(&up)));
        tensors.push((format!("{key}.alpha"), vec![], bytes(&[alpha * k as f32])));
    }
    safetensors("F32", tensors)
}

#[test]
fn every_form_of_an_adapter_has_the_same_effect() {
    let Some(a) = Adapted::open() else { return };
    let inputs = Inputs::new(&a.golden);
    for (form, adapter, scaled) in forms(&a) {
        let lora = Lora::of(&adapter.pairs);
        for (name, mut exec) in executors("adapter forms") {
            upload_pairs(exec.as_mut(), &adapter.pairs).expect("parameters");
            let place = format!("{name}, {form}");
            let mut check = Check::new(&a.golden, &place);
            let got = sample(exec.as_mut(), &a.cfg, Some(&lora), &a.weights, &inputs);
            check.tensor(if scaled { "sample" } else { "sample_diffusers_nometa" }, &got);
            check.finish();
        }
    }
}

/// An adapter without its scale, taken for one with it, must fail.
#[test]
fn a_lost_scale_fails() {
    let Some(a) = Adapted::open() else { return };
    if a.lora.scale == 1.0 {
        println!("SKIPPED: alpha is the rank, there is no scale to lose");
        return;
    }
    let inputs = Inputs::new(&a.golden);
    let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
    a.set_params(&mut exec, 1.0);
    let unscaled = Lora::joint(&a.cfg, a.rank, 1.0);
    let got = sample(&mut exec, &a.cfg, Some(&unscaled), &a.weights, &inputs);
    assert!(within(&got, a.golden.floats("sample"), a.golden.tolerance("sample")).is_err());
}
