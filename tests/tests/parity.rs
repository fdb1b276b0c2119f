//! The networks against the libraries they follow: golden inputs in, golden outputs and gradients out, on the CPU twins
//! and on the adapter.
use pentimento::exec::cpu::Cpu;
use pentimento::exec::{Executor, LeafData, compile, upload};
use pentimento::folder::{Component, open_component};
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Id};
use pentimento::model::mmdit::{self, Lora, lora_targets};
use pentimento::model::{Constants, channels_first, channels_last, clip, dino, vae};
use pentimento::weights::Weights;
use serde_json::Value;
use std::path::Path;
use tests::adapter::adapter;
use tests::fixture::{Check, Golden, Tolerance, folders, to_f16, within};

/// A fresh executor of each kind: the CPU twins, and the adapter where there is one.
fn executors(what: &str) -> Vec<(String, Box<dyn Executor>)> {
    let mut all: Vec<(String, Box<dyn Executor>)> = vec![("cpu".into(), Box::new(Cpu::new()))];
    if let Some(gpu) = adapter(what) {
        all.push((gpu.caps().name.clone(), Box::new(gpu)));
    }
    all
}

/// Plans, uploads, writes and runs a graph; the outputs in order.
fn run(
    exec: &mut dyn Executor,
    g: Graph,
    weights: &[(&str, &Weights)],
    inputs: &[(&str, &[f32])],
    outputs: &[(&str, Id)],
) -> Vec<Vec<f32>> {
    for (component, weights) in weights {
        upload(exec, &g, &format!("{component}/"), weights).expect("the checkpoint fits the graph");
    }
    let plan = compile(exec, g, outputs).expect("a plan");
    for (name, data) in inputs {
        exec.write(plan, name, data).expect("an input");
    }
    exec.run(plan).expect("a run");
    outputs.iter().map(|(name, _)| exec.read(plan, name).expect("an output")).collect()
}

fn model(path: &Path) -> (Component, Value, Weights) {
    let component = open_component(path).expect("a model folder");
    let (config, weights) = (component.config().expect("a config"), component.weights().expect("weights"));
    (component, config, weights)
}

/// The transformer's inputs as the golden file has them, brought to the device's layout.
struct Inputs {
    latents: [usize; 4],
    values: Vec<(&'static str, Vec<f32>)>,
    shapes: Vec<Vec<usize>>,
}

impl Inputs {
    fn new(golden: &Golden) -> Self {
        let &[b, c, h, w] = golden.shape("hidden_states") else { panic!("hidden_states are [B, C, H, W]") };
        let time: Vec<f32> =
            golden.floats("timestep").iter().flat_map(|&t| mmdit::time_projection(t)).collect();
        let values = vec![
            ("latents", channels_last(golden.floats("hidden_states"), c, h * w, c)),
            ("time", time),
            ("pooled", golden.floats("pooled_projections").to_vec()),
            ("context", golden.floats("encoder_hidden_states").to_vec()),
        ];
        let shapes = vec![
            vec![b, h, w, c],
            vec![b, mmdit::TIME_CHANNELS],
            golden.shape("pooled_projections").to_vec(),
            golden.shape("encoder_hidden_states").to_vec(),
        ];
        Inputs { latents: [b, h, w, c], values, shapes }
    }
    fn ids(&self, g: &mut Graph) -> Vec<Id> {
        self.values.iter().zip(&self.shapes).map(|((name, _), shape)| g.input(*name, shape)).collect()
    }
    fn values(&self) -> Vec<(&str, &[f32])> {
        self.values.iter().map(|(name, data)| (*name, data.as_slice())).collect()
    }
    /// A device tensor in the latents' layout as the golden file stores it.
    fn stored(&self, data: &[f32]) -> Vec<f32> {
        let [_, h, w, c] = self.latents;
        channels_first(data, c, h * w)
    }
}

/// Velocity of a golden folder's inputs, in the file's layout.
fn sample(
    exec: &mut dyn Executor,
    cfg: &mmdit::Config,
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

#[test]
fn transformers_predict_the_same_velocity() {
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::Config::from_value(&config, &path.display().to_string()).expect("a config");
        let inputs = Inputs::new(&golden);
        for (name, mut exec) in executors("transformer") {
            let mut check = Check::new(&golden, &name);
            check.optional("time_proj", &inputs.values[1].1);
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

/// N equal context tokens and one with a key bias of ln N give the same velocity.
#[test]
fn repeated_context_tokens_can_be_one() {
    const N: usize = 7;
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::Config::from_value(&config, "config.json").expect("a config");
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

/// The golden LoRA folder with its base model and adapter.
struct Adapted {
    golden: Golden,
    cfg: mmdit::Config,
    weights: Weights,
    adapter: Weights,
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
        let cfg = mmdit::Config::from_value(&config, "config.json").expect("a config");
        let file = golden.path.join("diffusers/pytorch_lora_weights.safetensors");
        let adapter =
            Weights::from_bytes("adapter", std::fs::read(file).expect("an adapter")).expect("an adapter");
        let rank = golden.json["r"].as_u64().expect("r") as usize;
        let scale = golden.json["scaling"].as_f64().expect("scaling") as f32;
        Some(Adapted { golden, cfg, weights, adapter, lora: Lora { rank, scale } })
    }
    /// (leaf name, target, A or B, shape) of every parameter.
    fn params(&self) -> Vec<(String, String, [usize; 2])> {
        let r = self.lora.rank;
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
            let data: Vec<f32> = view.to_f32().iter().map(|v| v * factor).collect();
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
    for recompute in [false, true] {
        for (name, mut exec) in executors("LoRA gradients") {
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
            for (input, data) in inputs.values().into_iter().chain([("dy", cotangent.as_slice())]) {
                exec.write(plan, input, data).expect("an input");
            }
            let place = format!("{name}, recompute {recompute}");
            let mut check = Check::new(&a.golden, &place);
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
        let unscaled = Lora { scale: 1.0, ..a.lora };
        check.tensor("sample_diffusers_nometa", &sample(exec, &a.cfg, Some(&unscaled), &a.weights, &inputs));
        check.finish();
    }
}

#[test]
fn autoencoders_decode_and_encode() {
    for path in folders("vae", "_class_name", "AutoencoderKL") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = vae::Config::from_value(&config, &path.display().to_string()).expect("a config");
        for (suffix, weights) in [("", weights.clone()), ("_f16w", to_f16(&weights))] {
            for (name, mut exec) in executors("VAE") {
                let mut check = Check::new(&golden, &name);
                decode(exec.as_mut(), &cfg, &weights, &golden, &mut check, suffix);
                encode(exec.as_mut(), &cfg, &weights, &golden, &mut check, suffix);
                check.finish();
            }
        }
    }
}

fn decode(
    exec: &mut dyn Executor,
    cfg: &vae::Config,
    w: &Weights,
    golden: &Golden,
    check: &mut Check,
    suffix: &str,
) {
    let &[b, c, h, v] = golden.shape("latents") else { panic!("latents are [B, C, h, w]") };
    let z = golden.floats("latents").iter().map(|z| z / cfg.scaling_factor + cfg.shift_factor);
    let z = channels_last(&z.collect::<Vec<f32>>(), c, h * v, c);
    let mut g = Graph::new();
    let input = g.input("z", &[b, h, v, c]);
    let y = vae::decode(&mut g, cfg, input);
    let out = run(exec, g, &[(vae::COMPONENT, w)], &[("z", &z)], &[("y", y)]);
    let d = cfg.downscale();
    let image = channels_first(&out[0], 3, h * v * d * d);
    check.tensor(&format!("decoded{suffix}"), &image);
    if suffix.is_empty() {
        let image01: Vec<f32> = image.iter().map(|x| (x / 2.0 + 0.5).clamp(0.0, 1.0)).collect();
        check.optional("image01", &image01);
    }
}

fn encode(
    exec: &mut dyn Executor,
    cfg: &vae::Config,
    w: &Weights,
    golden: &Golden,
    check: &mut Check,
    suffix: &str,
) {
    let &[b, c, h, v] = golden.shape("image") else { panic!("images are [B, C, H, W]") };
    let image = channels_last(golden.floats("image"), c, h * v, vae::IMAGE_CHANNELS);
    let mut g = Graph::new();
    let input = g.input("image", &[b, h, v, vae::IMAGE_CHANNELS]);
    let moments = vae::encode(&mut g, cfg, input);
    let out = run(exec, g, &[(vae::COMPONENT, w)], &[("image", &image)], &[("moments", moments)]);
    let (latent, plane) = (cfg.latent_channels, h * v / cfg.downscale().pow(2));
    let both = channels_first(&out[0], 2 * latent, plane);
    let images = || both.chunks_exact(2 * latent * plane).map(|m| m.split_at(latent * plane));
    let mean: Vec<f32> = images().flat_map(|m| m.0).copied().collect();
    let logvar: Vec<f32> = images().flat_map(|m| m.1).copied().collect();
    check.tensor(&format!("enc_mean{suffix}"), &mean);
    let clamped: Vec<f32> = logvar.iter().map(|v| v.clamp(-30.0, 20.0)).collect();
    check.tensor(&format!("enc_logvar{suffix}"), &clamped);
    if suffix.is_empty() {
        let mode: Vec<f32> = mean.iter().map(|m| (m - cfg.shift_factor) * cfg.scaling_factor).collect();
        check.optional("enc_latent_mode", &mode);
    }
}

#[test]
fn text_encoders_agree() {
    for path in folders("text", "model_type", "clip_text_model") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = clip::Config::from_value(&config, &path.display().to_string()).expect("a config");
        let eot = golden.json["vocab"]["eot"].as_u64().expect("vocab.eot") as u32;
        let modern = clip::Config { eos_token_id: eot, ..cfg.clone() };
        let &[b, t] = golden.shape("input_ids") else { panic!("input_ids are [B, T]") };
        let ids: Vec<u32> = golden.ints("input_ids").iter().map(|&i| i as u32).collect();
        for (suffix, weights) in [("", weights.clone()), ("_f16w", to_f16(&weights))] {
            for (name, mut exec) in executors("text encoder") {
                let mut check = Check::new(&golden, &name);
                let of_all =
                    |f: &dyn Fn(&[u32]) -> Vec<f32>| ids.chunks_exact(t).flat_map(f).collect::<Vec<f32>>();
                let embeds = of_all(&|ids| cfg.embed(&weights, ids).expect("embeddings"));
                for (cfg, pooled) in [(&cfg, "text_embeds"), (&modern, "text_embeds_modern_eos")] {
                    let picks = of_all(&|ids| cfg.pick(ids));
                    let mut g = Graph::new();
                    let (x, pick) = (g.input("embeds", &[b, t, cfg.hidden_size]), g.input("pick", &[b, t]));
                    let y = clip::encode(&mut g, cfg, "text_encoder", x, pick);
                    let out = run(
                        exec.as_mut(),
                        g,
                        &[("text_encoder", &weights)],
                        &[("embeds", &embeds), ("pick", &picks)],
                        &[("penultimate", y.penultimate), ("pooled", y.pooled)],
                    );
                    check.optional(&format!("penultimate{suffix}"), &out[0]);
                    check.optional(&format!("{pooled}{suffix}"), &out[1]);
                }
                check.finish();
            }
        }
    }
}

#[test]
fn image_encoders_agree_at_every_size() {
    for path in folders("dino", "model_type", "dinov2") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = dino::Config::from_value(&config, &path.display().to_string()).expect("a config");
        for (name, mut exec) in executors("image encoder") {
            let mut check = Check::new(&golden, &name);
            for size in golden.names().filter_map(|n| n.strip_suffix("_pixel_values")) {
                let pixels = format!("{size}_pixel_values");
                let &[b, c, h, w] = golden.shape(&pixels) else { panic!("pixels are [B, C, H, W]") };
                let data = channels_last(golden.floats(&pixels), c, h * w, c);
                let (mut g, mut constants) = (Graph::new(), Constants::new());
                let x = g.input("pixels", &[b, h, w, c]);
                let y = dino::encode(&mut g, &mut constants, &cfg, "reward", x);
                for (leaf, data) in constants.iter() {
                    exec.set_leaf(leaf, LeafData::F32(data)).expect("a constant");
                }
                let out = run(exec.as_mut(), g, &[("reward", &weights)], &[("pixels", &data)], &[("y", y)]);
                check.tensor(&format!("{size}_last_hidden_state"), &out[0]);
            }
            check.finish();
        }
    }
}

/// The released reward's path from pixels to encoder input.
#[test]
fn reward_images_are_prepared_as_released() {
    let Some(golden) = Golden::find("dino/preprocess") else { return };
    for (name, mut exec) in executors("reward images") {
        let mut check = Check::new(&golden, &name);
        for image in golden.names().filter_map(|n| n.strip_suffix("_reward_path")) {
            let &[h, w, 3] = golden.shape(&format!("{image}_u8")) else { panic!("images are [H, W, 3]") };
            let bytes = golden.ints(&format!("{image}_u8"));
            let image01: Vec<f32> = bytes.iter().map(|&b| b as f32 / 255.0).collect();
            let expected = format!("{image}_reward_path");
            let &[_, _, th, tw] = golden.shape(&expected) else { panic!("pixels are [1, 3, H, W]") };
            let (mut g, mut constants) = (Graph::new(), Constants::new());
            let x = g.input("x", &[1, h, w, 3]);
            let y = dino::preprocess(&mut g, &mut constants, x, [th, tw], &dino::Pixels::imagenet());
            for (leaf, data) in constants.iter() {
                exec.set_leaf(leaf, LeafData::F32(data)).expect("a constant");
            }
            let out = run(exec.as_mut(), g, &[], &[("x", &image01)], &[("y", y)]);
            check.tensor(&expected, &channels_first(&out[0], 3, th * tw));
        }
        check.finish();
    }
}

/// Resizing and normalising on the graph, against the definition.
#[test]
fn pixels_are_resized_and_normalised() {
    let pixels = dino::Pixels::imagenet();
    let image: Vec<f32> = (0..2 * 3 * 5 * 3).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
    let (ry, rx) = (pentimento::model::bicubic_matrix(3, 4), pentimento::model::bicubic_matrix(5, 2));
    let mut want = Vec::new();
    for (b, y, x, c) in (0..2 * 4 * 2 * 3).map(|i| (i / 24, i / 6 % 4, i / 3 % 2, i % 3)) {
        let all = (0..3).flat_map(|sy| (0..5).map(move |sx| (sy, sx)));
        let v: f32 = all
            .map(|(sy, sx)| ry[y * 3 + sy] * rx[x * 5 + sx] * image[((b * 3 + sy) * 5 + sx) * 3 + c])
            .sum();
        want.push((v - pixels.mean[c]) / pixels.std[c]);
    }
    for (name, mut exec) in executors("resizing") {
        let (mut g, mut constants) = (Graph::new(), Constants::new());
        let x = g.input("x", &[2, 3, 5, 3]);
        let y = dino::preprocess(&mut g, &mut constants, x, [4, 2], &pixels);
        for (leaf, data) in constants.iter() {
            exec.set_leaf(leaf, LeafData::F32(data)).expect("a constant");
        }
        let out = run(exec.as_mut(), g, &[], &[("x", &image)], &[("y", y)]);
        let tol = Tolerance { max_abs: 1e-5, rel_l2: 1e-5 };
        within(&out[0], &want, tol).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
