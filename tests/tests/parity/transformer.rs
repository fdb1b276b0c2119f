//! `SD3Transformer2DModel` forward.
use crate::common::{all_executors, executors, model, run};
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, LeafData};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::lora::Lora;
use pentimento_runtime::model::mmdit;
use pentimento_runtime::model::{channels_first, channels_last};
use pentimento_runtime::weights::Weights;
use std::collections::BTreeMap;
use tests::fixture::{Check, Golden, Tolerance, folders, rewritten, to_f16, within};

/// The transformer's inputs as the golden file has them, brought to the device's layout.
pub struct Inputs {
    pub latents: [usize; 4],
    pub values: Vec<(&'static str, Vec<f32>)>,
    pub shapes: Vec<Vec<usize>>,
}

impl Inputs {
    pub fn new(golden: &Golden) -> Self {
        Self::with_prefix(golden, "")
    }
    /// As the golden file names them after a prefix.
    pub fn with_prefix(golden: &Golden, prefix: &str) -> Self {
        let name = |part: &str| format!("{prefix}{part}");
        let &[b, c, h, w] = golden.shape(&name("hidden_states")) else {
            panic!("hidden_states are [B, C, H, W]")
        };
        let time: Vec<f32> =
            golden.floats(&name("timestep")).iter().flat_map(|&t| mmdit::time_projection(t)).collect();
        let values = vec![
            ("latents", channels_last(golden.floats(&name("hidden_states")), c, h * w, c)),
            ("time", time),
            ("pooled", golden.floats(&name("pooled_projections")).to_vec()),
            ("context", golden.floats(&name("encoder_hidden_states")).to_vec()),
        ];
        let shapes = vec![
            vec![b, h, w, c],
            vec![b, mmdit::TIME_CHANNELS],
            golden.shape(&name("pooled_projections")).to_vec(),
            golden.shape(&name("encoder_hidden_states")).to_vec(),
        ];
        Inputs { latents: [b, h, w, c], values, shapes }
    }
    pub fn ids(&self, g: &mut Graph) -> Vec<Id> {
        self.values.iter().zip(&self.shapes).map(|((name, _), shape)| g.input(*name, shape)).collect()
    }
    pub fn values(&self) -> Vec<(&str, &[f32])> {
        self.values.iter().map(|(name, data)| (*name, data.as_slice())).collect()
    }
    /// A device tensor in the latents' layout as the golden file stores it.
    pub fn stored(&self, data: &[f32]) -> Vec<f32> {
        let [_, h, w, c] = self.latents;
        channels_first(data, c, h * w)
    }
}

/// Velocity of a golden folder's inputs, in the file's layout.
pub fn sample(
    exec: &mut dyn Executor,
    cfg: &mmdit::MmditConfig,
    lora: Option<&Lora>,
    w: &Weights,
    inputs: &Inputs,
) -> Vec<f32> {
    let mut g = Graph::new();
    let ids = inputs.ids(&mut g);
    let y = mmdit::velocity(&mut g, cfg, lora, ids[0], ids[1], ids[2], ids[3], None);
    let out = run(exec, g, &[(mmdit::COMPONENT, w)], &inputs.values(), &[("y", y)]);
    inputs.stored(&out[0])
}

/// The module whose output an expectation of a golden folder is.
fn module(expectation: &str) -> Option<String> {
    let outer = [
        ("patch_embed_out", "pos_embed"),
        ("temb", "time_text_embed"),
        ("context_embed_out", "context_embedder"),
        ("norm_out", "norm_out"),
        ("proj_out", "proj_out"),
    ];
    if let Some((_, module)) = outer.iter().find(|(name, _)| *name == expectation) {
        return Some(module.to_string());
    }
    let (n, part) = expectation.strip_prefix("block")?.split_once('_')?;
    let inner = match part {
        "norm1_x" => "norm1",
        "attn_x" => "attn.to_out.0",
        "attn_ctx" => "attn.to_add_out",
        "ff_out" => "ff",
        other => other,
    };
    Some(format!("transformer_blocks.{n}.{inner}"))
}

/// Every expectation of an intermediate value with what the network computed, in order of execution, velocity last.
fn intermediates(
    exec: &mut dyn Executor,
    cfg: &mmdit::MmditConfig,
    w: &Weights,
    golden: &Golden,
) -> Vec<(String, Vec<f32>)> {
    let inputs = Inputs::new(golden);
    let mut g = Graph::new();
    let ids = inputs.ids(&mut g);
    let y = mmdit::velocity(&mut g, cfg, None, ids[0], ids[1], ids[2], ids[3], None);
    let taps = g.taps().to_vec();
    let expected = golden.expectations().filter_map(|e| Some((module(e)?, e.to_string())));
    let expected: BTreeMap<String, String> = expected.collect();
    let mut wanted: Vec<(&str, Id)> =
        taps.iter().filter_map(|(tap, id)| Some((expected.get(tap)?.as_str(), *id))).collect();
    let missing: Vec<&String> =
        expected.iter().filter(|(m, _)| !taps.iter().any(|t| t.0 == **m)).map(|e| e.1).collect();
    assert!(missing.is_empty(), "{}: no intermediate value for {missing:?}", golden.path.display());
    wanted.push(("sample", y));
    let mut out = run(exec, g, &[(mmdit::COMPONENT, w)], &inputs.values(), &wanted);
    if let Some(velocity) = out.last_mut() {
        *velocity = inputs.stored(velocity);
    }
    wanted.iter().map(|(name, _)| name.to_string()).zip(out).collect()
}

#[test]
fn transformers_predict_the_same_velocity() {
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::MmditConfig::from_value(&config, &path.display().to_string()).expect("a config");
        let inputs = Inputs::new(&golden);
        for (name, mut exec, half) in all_executors("transformer") {
            let mut check = Check::new(&golden, &name).halves(half, 3.0);
            check.tensor("sample", &sample(exec.as_mut(), &cfg, None, &weights, &inputs));
            check.finish();
        }
        if golden.has("sample_f16w") {
            for (name, mut exec) in executors("transformer, f16 weights") {
                let mut check = Check::new(&golden, &name);
                check.tensor("sample_f16w", &sample(exec.as_mut(), &cfg, None, &to_f16(&weights), &inputs));
                check.finish();
            }
        }
    }
}

/// The limits for operands in f16 notice ones in bfloat16, with three bits fewer.
#[test]
fn limits_for_halves_notice_bfloat16() {
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::MmditConfig::from_value(&config, &path.display().to_string()).expect("a config");
        let bf16 = |v| half::bf16::from_f32(v).to_le_bytes().to_vec();
        let coarse = rewritten(&weights, "BF16", |n| Some(n.into()), bf16);
        let got = sample(&mut Cpu::new(), &cfg, None, &coarse, &Inputs::new(&golden));
        let want = golden.floats("sample");
        let error = within(&got, want, Tolerance::halves(want, 3.0)).expect_err("bfloat16 passes");
        assert!(error.contains("limit"), "{error}");
    }
}

/// Every expectation of every golden transformer; the first that differs is the first one named.
#[test]
fn intermediate_activations_agree() {
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::MmditConfig::from_value(&config, &path.display().to_string()).expect("a config");
        for (name, mut exec, half) in all_executors("intermediate activations") {
            let place = format!("{name}, intermediate activations");
            let mut check = Check::new(&golden, &place).halves(half, 3.0);
            let mut compared = vec!["time_proj".to_string()];
            check.optional("time_proj", &Inputs::new(&golden).values[1].1);
            for (expectation, got) in intermediates(exec.as_mut(), &cfg, &weights, &golden) {
                check.tensor(&expectation, &got);
                compared.push(expectation);
            }
            check.finish();
            let left =
                golden.expectations().filter(|e| !e.ends_with("_f16w") && !compared.iter().any(|c| c == e));
            assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{place}: every expectation is compared");
        }
    }
}

/// With one weight wrong, everything before it agrees and the first thing after it differs.
#[test]
fn the_first_difference_is_named() {
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::MmditConfig::from_value(&config, &path.display().to_string()).expect("a config");
        let tensor = "transformer_blocks.0.ff.net.2.bias";
        let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
        let values: Vec<f32> =
            weights.get(tensor).expect("a tensor").to_f32().expect("room").iter().map(|v| v + 1.0).collect();
        exec.set_leaf(&format!("{}/{tensor}", mmdit::COMPONENT), LeafData::F32(&values)).expect("a leaf");
        let all = intermediates(&mut exec, &cfg, &weights, &golden);
        let differs = |(name, got): &&(String, Vec<f32>)| {
            within(got, golden.floats(name), golden.tolerance(name)).is_err()
        };
        let first = all.iter().find(differs).map(|(name, _)| name.as_str());
        let after = ["block0_ff_out", "block0_hidden_states"].into_iter().find(|n| golden.has(n));
        assert_eq!(first, after, "{}", path.display());
    }
}

/// N equal context tokens and one with a key bias of ln N give the same velocity.
#[test]
fn repeated_context_tokens_can_be_one() {
    const N: usize = 7;
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::MmditConfig::from_value(&config, "config.json").expect("a config");
        let with_zeros = |n: usize| {
            let mut inputs = Inputs::new(&golden);
            let &[_, t, j] = inputs.shapes[3].as_slice() else { panic!("context is [B, T, J]") };
            let rows = inputs.values[3].1.chunks_exact(t * j);
            inputs.values[3].1 = rows.flat_map(|r| r.iter().copied().chain(vec![0.0; n * j])).collect();
            inputs.shapes[3][1] = t + n;
            inputs
        };
        for (name, mut exec) in executors("repeated context tokens") {
            let many = sample(exec.as_mut(), &cfg, None, &weights, &with_zeros(N));
            let inputs = with_zeros(1);
            let [_, h, w, _] = inputs.latents;
            let bias = mmdit::key_bias(cfg.image_tokens(h, w), inputs.shapes[3][1], N);
            let mut g = Graph::new();
            let ids = inputs.ids(&mut g);
            let b = g.input("bias", &[bias.len()]);
            let y = mmdit::velocity(&mut g, &cfg, None, ids[0], ids[1], ids[2], ids[3], Some(b));
            let mut values = inputs.values();
            values.push(("bias", &bias));
            let one = &run(exec.as_mut(), g, &[(mmdit::COMPONENT, &weights)], &values, &[("y", y)])[0];
            let tol = golden.tolerance("sample");
            if let Err(e) = within(&inputs.stored(one), &many, tol) {
                panic!("{} on {name}: {e}", path.display());
            }
            let plain = sample(exec.as_mut(), &cfg, None, &weights, &inputs);
            assert!(within(&plain, &many, tol).is_err(), "{name}: the bias must matter");
        }
    }
}
