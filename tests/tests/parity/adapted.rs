//! Adapters of every linear layer against models whose weights they are merged into, and every spelling of their files.
//!
//! A file of diffusers and PEFT that adapts all of them gives what they compute. The rest compares with ourselves: weights and
//! factors lie on grids on which the merged weights are exact, so in f64 both models are one, and what is
//! left is the rounding of each result to f32.
use crate::common::{executors, model, run};
use crate::text::{Parts, clip_config, clip_outputs, parts};
use crate::transformer::Inputs;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::layout::{Rename, module};
use pentimento_runtime::model::lora::{self, Layer, Layers, Lora, Pair, Pairs};
use pentimento_runtime::model::{clip, mmdit, t5};
use pentimento_runtime::rng::Philox;
use pentimento_runtime::text::TextEncoders;
use pentimento_runtime::weights::Weights;
use pentimento_trainer::adapter::Adapter;
use std::sync::Arc;
use tests::fixture::{Check, Golden, rewritten, safetensors};

/// Numbers n / 16, |n| <= 2.
fn draw(rng: &mut Philox, n: usize) -> Vec<f32> {
    (0..n).map(|_| (rng.below(5) as f32 - 2.0) / 16.0).collect()
}

/// A pair for every layer, of ranks 1 to 5.
fn pairs(layers: &Layers) -> Pairs {
    let mut rng = Philox::new(5, 0);
    let mut pair = |(i, (target, layer)): (usize, (&String, &Layer))| {
        let rank = 1 + i % 5;
        let (a, b) = (draw(&mut rng, rank * layer.inputs), draw(&mut rng, layer.outputs * rank));
        (target.clone(), Pair::new(rank, a, b, 1.0).expect("factors"))
    };
    layers.iter().enumerate().map(&mut pair).collect()
}

/// The checkpoint on a grid of 1 / 1024.
fn coarse(weights: &Weights) -> Weights {
    let bytes = |v: f32| ((v * 1024.0).round() / 1024.0).to_le_bytes().to_vec();
    rewritten(weights, "F32", |n| Some(n.into()), bytes)
}

/// A component's checkpoint with `B A` added to the weights of its layers.
fn merged(weights: &Weights, component: &str, layers: &Layers, pairs: &Pairs) -> Weights {
    let tensors = weights.names().map(|name| {
        let view = weights.get(name).expect("a tensor");
        let mut values = view.to_f32().expect("room");
        let module = name.strip_suffix(".weight").unwrap_or_default();
        let target =
            if component == mmdit::COMPONENT { module.into() } else { format!("{component}.{module}") };
        if let Some(pair) = pairs.get(&target) {
            let Layer { inputs, outputs, patch } = layers[&target];
            assert_eq!(values.len(), inputs * outputs, "{target}");
            let (pixels, channels) = (patch * patch, inputs / (patch * patch));
            for (o, i) in (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))) {
                // A patch's input has its channels last, a kernel has them first.
                let at = o * inputs + (i % channels) * pixels + i / channels;
                let delta: f64 = (0..pair.rank)
                    .map(|r| f64::from(pair.b[o * pair.rank + r]) * f64::from(pair.a[r * inputs + i]))
                    .sum();
                let sum = f64::from(values[at]) + delta;
                values[at] = sum as f32;
                assert!(f64::from(values[at]) == sum, "{target}: the merged weight is not exact");
            }
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.to_string(), view.shape.to_vec(), bytes)
    });
    Weights::from_bytes("merged", safetensors("F32", tensors)).expect("a checkpoint")
}

/// Whether two results are one but for `roundings` to f32 of numbers as large as their largest.
fn same(got: &[f32], want: &[f32], roundings: f32) -> bool {
    let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let limit = roundings * largest * f32::EPSILON;
    got.len() == want.len() && got.iter().zip(want).all(|(g, w)| (g - w).abs() <= limit)
}

struct Transformer {
    golden: Golden,
    cfg: mmdit::MmditConfig,
    weights: Weights,
    inputs: Inputs,
    layers: Layers,
}

impl Transformer {
    fn open() -> Option<Self> {
        let golden = Golden::find("adapter")?;
        let (_, config, weights) = model(&golden.path.join("../transformer/sd35_medium"));
        let cfg = mmdit::MmditConfig::from_value(&config, "config.json").expect("a config");
        let inputs = Inputs::new(&golden);
        let mut g = Graph::new();
        let ids = inputs.ids(&mut g);
        mmdit::velocity(&mut g, &cfg, None, ids[0], ids[1], ids[2], ids[3], None);
        let layers = lora::layers(&g, mmdit::COMPONENT, cfg.patch_size);
        Some(Transformer { golden, cfg, weights, inputs, layers })
    }
    fn coarse() -> Option<Self> {
        let t = Self::open()?;
        Some(Transformer { weights: coarse(&t.weights), ..t })
    }
    fn velocity(&self, exec: &mut dyn Executor, weights: &Weights, pairs: &Pairs) -> Vec<f32> {
        let mut g = Graph::new();
        let ids = self.inputs.ids(&mut g);
        lora::upload(exec, pairs).expect("parameters");
        let lora = Lora::of(pairs);
        let y = mmdit::velocity(&mut g, &self.cfg, Some(&lora), ids[0], ids[1], ids[2], ids[3], None);
        let weights = [(mmdit::COMPONENT, weights)];
        run(exec, g, &weights, &self.inputs.values(), &[("y", y)]).swap_remove(0)
    }
}

/// What a checkpoint's shapes say are linear layers: matrices, and the kernel that covers its patches.
fn matrices(weights: &Weights) -> Vec<String> {
    let matrix =
        |n: &&str| n.ends_with(".weight") && matches!(weights.shape(n), Some(&[_, _] | &[_, _, _, _]));
    weights.names().filter(matrix).filter_map(|n| n.strip_suffix(".weight")).map(String::from).collect()
}

/// Every layer of transformer and CLIP encoders, as PEFT adapts and diffusers writes it.
#[test]
fn diffusers_computes_the_same() {
    let Some(t) = Transformer::open() else { return };
    let ids: Vec<Vec<u32>> = vec![t.golden.ints("input_ids").iter().map(|&id| id as u32).collect()];
    let clips = ["l", "g"].map(|x| {
        let path = t.golden.path.join(format!("../text/clip_{x}"));
        let (_, config, weights) = model(&path);
        (x, clip_config(&path, &config), weights)
    });
    let mut layers = t.layers.clone();
    for ((_, cfg, _), component) in clips.iter().zip(ENCODERS) {
        layers.extend(clip_layers(cfg, component));
    }
    let pairs = Adapter::load(&t.golden.path, &layers).expect("an adapter").pairs;
    assert!(layers.keys().all(|target| pairs.contains_key(target)), "every linear layer");
    for (name, mut exec) in executors("adapters of every layer") {
        let exec = exec.as_mut();
        let mut check = Check::new(&t.golden, &name);
        check.tensor("sample", &t.inputs.stored(&t.velocity(exec, &t.weights, &pairs)));
        for ((x, cfg, weights), component) in clips.iter().zip(ENCODERS) {
            let [states, pooled] = clip_outputs(exec, cfg, component, Some(&Lora::of(&pairs)), weights, &ids);
            check.tensor(&format!("penultimate_{x}"), &states);
            check.tensor(&format!("pooled_{x}"), &pooled);
        }
        check.complete(&[]);
        check.finish();
    }
}

#[test]
fn an_adapted_transformer_is_the_merged_one() {
    let Some(t) = Transformer::coarse() else { return };
    assert_eq!(t.layers.keys().cloned().collect::<Vec<_>>(), matrices(&t.weights), "every linear layer");
    let pairs = pairs(&t.layers);
    let want = t.velocity(
        &mut Cpu::double(),
        &merged(&t.weights, mmdit::COMPONENT, &t.layers, &pairs),
        &Pairs::new(),
    );
    assert!(same(&t.velocity(&mut Cpu::double(), &t.weights, &pairs), &want, 1.0));
    assert!(!same(&t.velocity(&mut Cpu::double(), &t.weights, &Pairs::new()), &want, 1.0));
    // No layer can be left out, but the last block's text queries, which feed nothing.
    let last = format!("transformer_blocks.{}.attn.add_q_proj", t.cfg.num_layers - 1);
    for target in pairs.keys() {
        let mut fewer = pairs.clone();
        fewer.remove(target);
        assert_eq!(
            same(&t.velocity(&mut Cpu::double(), &t.weights, &fewer), &want, 1.0),
            *target == last,
            "without {target}"
        );
    }
}

/// Prompts through CLIP-L, CLIP-G and T5, as the transformer reads them.
fn encode(parts: Parts, width: usize) -> Vec<f32> {
    let mut encoders = TextEncoders::new(parts.clips, Some(parts.t5), width, 5).expect("they fit");
    encoders.check().expect("whole encoders");
    let texts = encoders.encode(&mut Cpu::double(), &["a red fish"]).expect("a run");
    texts.into_iter().flat_map(|t| t.context.into_iter().chain(t.pooled)).collect()
}

fn graph_layers(component: &str, build: impl FnOnce(&mut Graph)) -> Layers {
    let mut g = Graph::new();
    build(&mut g);
    lora::layers(&g, component, 1)
}

fn clip_layers(cfg: &clip::ClipConfig, component: &str) -> Layers {
    graph_layers(component, |g| {
        let (x, pick) = (g.input("embeds", &[1, 1, cfg.hidden_size]), g.input("pick", &[1, 1]));
        clip::encode(g, cfg, component, None, x, pick);
    })
}

fn t5_layers(cfg: &t5::T5Config, component: &str) -> Layers {
    graph_layers(component, |g| {
        let x: Id = g.input("x", &[1, 1, cfg.d_model]);
        let bias = g.input("bias", &[cfg.num_heads, 1, 1]);
        t5::whole(g, cfg, component, x, bias);
    })
}

const ENCODERS: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];

#[test]
fn adapted_text_encoders_are_the_merged_ones() {
    let Some(golden) = Golden::find("text/encode_prompt") else { return };
    let &[_, _, width] = golden.shape("prompt_embeds") else { panic!("prompt_embeds are [B, T, C]") };
    let plain = parts(&golden);
    let mut layers = t5_layers(&plain.t5.config, ENCODERS[2]);
    for (clip, component) in plain.clips.iter().zip(ENCODERS) {
        layers.extend(clip_layers(&clip.config, component));
    }
    let pairs = pairs(&layers);
    let of = |pairs: &Pairs, component: &str| -> Pairs {
        let ours = |(target, _): &(&String, &Pair)| target.split('.').next() == Some(component);
        pairs.iter().filter(ours).map(|(t, p)| (t.clone(), p.clone())).collect()
    };
    // With the pairs merged into the weights, or beside them.
    let build = |merge: bool, pairs: &Pairs| {
        let Parts { mut clips, mut t5 } = parts(&golden);
        let one = |weights: &mut Weights, beside: &mut Arc<Pairs>, component: &str| {
            *weights = coarse(weights);
            if merge {
                *weights = merged(weights, component, &layers, pairs);
            } else {
                *beside = Arc::new(of(pairs, component));
            }
        };
        for (clip, component) in clips.iter_mut().zip(ENCODERS) {
            one(&mut clip.weights, &mut clip.pairs, component);
        }
        one(&mut t5.weights, &mut t5.pairs, ENCODERS[2]);
        encode(Parts { clips, t5 }, width)
    };
    let want = build(true, &pairs);
    // T5's states are rounded after every block, and the next ones enlarge that.
    let roundings = 16.0;
    assert!(same(&build(false, &pairs), &want, roundings));
    for target in pairs.keys() {
        let mut fewer = pairs.clone();
        fewer.remove(target);
        assert!(!same(&build(false, &fewer), &want, roundings), "without {target}");
    }
}

/// Modules of the original layout with the pair of each, A as the file has it; and the same by target.
struct Drawn {
    original: Vec<(String, Pair)>,
    targets: Pairs,
}

/// Pairs for all layers of a transformer, drawn for the original layout's modules; halved, as an alpha of half the rank does.
fn drawn(t: &Transformer) -> Drawn {
    let outer = [
        "x_embedder.proj",
        "t_embedder.mlp.0",
        "t_embedder.mlp.2",
        "y_embedder.mlp.0",
        "y_embedder.mlp.2",
        "context_embedder",
        "final_layer.linear",
        "final_layer.adaLN_modulation.1",
    ];
    let both = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"];
    let inner = ["x_block", "context_block"].into_iter().flat_map(|s| both.map(|m| format!("{s}.{m}")));
    let inner: Vec<String> =
        inner.chain(["attn2.qkv", "attn2.proj"].map(|m| format!("x_block.{m}"))).collect();
    let blocks =
        (0..t.cfg.num_layers).flat_map(|n| inner.iter().map(move |m| format!("joint_blocks.{n}.{m}")));
    let (mut original, mut targets, mut rng) = (Vec::new(), Pairs::new(), Philox::new(9, 0));
    for name in outer.map(String::from).into_iter().chain(blocks) {
        let rename = module(&name, Some(t.cfg.num_layers - 1)).expect("a module");
        let parts = match &rename {
            Rename::To(one) | Rename::Swap(one) => vec![one.clone()],
            Rename::Split(parts) => parts.to_vec(),
        };
        let Some(layer) = t.layers.get(&parts[0]).copied() else { continue };
        let (rank, outputs) = (3, layer.outputs * parts.len());
        let whole = Pair::new(rank, draw(&mut rng, rank * layer.inputs), draw(&mut rng, outputs * rank), 1.0);
        let whole = whole.expect("factors");
        let mut rows: Vec<Vec<f32>> = whole.b.chunks(layer.outputs * rank).map(<[f32]>::to_vec).collect();
        if let Rename::Swap(_) = rename {
            let (first, second) = rows[0].split_at(rows[0].len() / 2);
            rows[0] = [second, first].concat();
        }
        let pixels = layer.patch * layer.patch;
        let last = |i: usize| {
            let (r, i) = (i / layer.inputs, i % layer.inputs);
            let channels = layer.inputs / pixels;
            whole.a[r * layer.inputs + (i % channels) * pixels + i / channels]
        };
        let a: Vec<f32> = (0..whole.a.len()).map(last).collect();
        for (target, b) in parts.into_iter().zip(rows) {
            targets.insert(target, Pair::new(rank, a.clone(), b, 0.5).expect("factors"));
        }
        original.push((name, whole));
    }
    assert!(targets.keys().eq(t.layers.keys()), "every linear layer has an original one");
    Drawn { original, targets }
}

type Spell = fn(&str) -> String;

/// A file of modules and pairs; the convolution's factors are kernels.
fn file(modules: &[(String, Pair)], spell: Spell, [a, b]: [&str; 2], alpha: Option<f32>) -> Vec<u8> {
    let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut tensors = Vec::new();
    for (module, pair) in modules {
        let (key, rank) = (spell(module), pair.rank);
        let kernel = module == "x_embedder.proj" || module == "pos_embed.proj";
        let (down, up) = if kernel {
            (vec![rank, pair.inputs() / 4, 2, 2], vec![pair.outputs(), rank, 1, 1])
        } else {
            (vec![rank, pair.inputs()], vec![pair.outputs(), rank])
        };
        tensors.push((format!("{key}{a}"), down, bytes(&pair.a)));
        tensors.push((format!("{key}{b}"), up, bytes(&pair.b)));
        tensors.extend(alpha.map(|v| (format!("{key}.alpha"), vec![], bytes(&[v]))));
    }
    safetensors("F32", tensors)
}

const LOWER: [&str; 2] = [".lora_down.weight", ".lora_up.weight"];
const UPPER: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

#[test]
fn every_spelling_means_the_same_layers() {
    let Some(t) = Transformer::open() else { return };
    assert_eq!(t.cfg.patch_size, 2);
    let Drawn { original, targets } = drawn(&t);
    let check = |what: &str, bytes: Vec<u8>| {
        let read = Adapter::parse(what, bytes, None, &t.layers).expect("an adapter").pairs;
        for (target, pair) in &targets {
            assert!(read.get(target) == Some(pair), "{what}: {target}");
        }
        assert_eq!(read.len(), targets.len(), "{what}");
    };
    let spellings: [(&str, Spell, [&str; 2]); 3] = [
        ("Kohya", |m| format!("lora_unet_{}", m.replace('.', "_")), LOWER),
        ("ComfyUI", |m| format!("diffusion_model.{m}"), UPPER),
        ("single file", |m| format!("model.diffusion_model.{m}"), [".lora.down.weight", ".lora.up.weight"]),
    ];
    for (what, spell, halves) in spellings {
        check(what, file(&original, spell, halves, Some(1.5)));
    }
    // diffusers' layers, with A of the convolution as it is stored.
    let first_last = |(target, pair): (&String, &Pair)| {
        let kernel =
            original.iter().find(|(name, _)| name == "x_embedder.proj" && target == "pos_embed.proj");
        let a = kernel.map_or_else(|| pair.a.clone(), |(_, whole)| whole.a.clone());
        (target.clone(), Pair { a, ..pair.clone() })
    };
    let modules: Vec<(String, Pair)> = targets.iter().map(first_last).collect();
    let spellings: [(&str, Spell, [&str; 2]); 9] = [
        ("diffusers", |m| format!("transformer.{m}"), UPPER),
        ("bare", str::to_string, UPPER),
        ("PEFT", |m| format!("base_model.model.{m}"), UPPER),
        ("PEFT, named", |m| format!("transformer.{m}"), [".lora_A.default.weight", ".lora_B.default.weight"]),
        ("PEFT in a prefix", |m| format!("transformer.base_model.model.{m}"), UPPER),
        ("down and up", |m| format!("transformer.{m}"), [".lora.down.weight", ".lora.up.weight"]),
        (
            "old diffusers",
            |m| format!("transformer.{m}"),
            [".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"],
        ),
        ("OneTrainer", |m| format!("lora_transformer_{}", m.replace('.', "_")), LOWER),
        ("LyCORIS", |m| format!("lycoris_{}", m.replace('.', "_")), LOWER),
    ];
    for (what, spell, halves) in spellings {
        check(what, file(&modules, spell, halves, None));
    }
}

#[test]
fn every_spelling_of_text_encoders_means_the_same_layers() {
    let Some(golden) = Golden::find("text/encode_prompt") else { return };
    let Parts { clips, t5 } = parts(&golden);
    let all = [
        (clip_layers(&clips[0].config, ENCODERS[0]), "lora_te1_", "text_encoders.clip_l.transformer."),
        (clip_layers(&clips[1].config, ENCODERS[1]), "lora_te2_", "text_encoders.clip_g.transformer."),
        (t5_layers(&t5.config, ENCODERS[2]), "lora_te3_", "text_encoders.t5xxl.transformer."),
    ];
    for ((layers, kohya, comfy), encoder) in all.into_iter().zip(ENCODERS) {
        let targets = pairs(&layers);
        let bare = |(target, pair): (&String, &Pair)| (target[encoder.len() + 1..].to_string(), pair.clone());
        let modules: Vec<(String, Pair)> = targets.iter().map(bare).collect();
        let dotted = |prefix: &str| -> Vec<(String, Pair)> {
            modules.iter().map(|(m, p)| (format!("{prefix}{m}"), p.clone())).collect()
        };
        let flat: Vec<(String, Pair)> =
            modules.iter().map(|(m, p)| (format!("{kohya}{}", m.replace('.', "_")), p.clone())).collect();
        let old = |m: &str| {
            let new = m.replace("_proj", "").replace("self_attn.", "self_attn.to_");
            if new.contains("self_attn") { format!("{new}_lora") } else { format!("{m}.lora") }
        };
        let mut files = vec![
            file(&flat, str::to_string, LOWER, None),
            file(&dotted(comfy), str::to_string, UPPER, None),
            file(&dotted(&format!("{encoder}.")), str::to_string, UPPER, None),
        ];
        if encoder != ENCODERS[2] {
            let old: Vec<(String, Pair)> =
                modules.iter().map(|(m, p)| (format!("{encoder}.{}", old(m)), p.clone())).collect();
            files.push(file(&old, str::to_string, [".down.weight", ".up.weight"], None));
        }
        for (i, bytes) in files.into_iter().enumerate() {
            let adapter = Adapter::parse("f", bytes, None, &layers).expect("an adapter");
            assert!(adapter.pairs == targets, "{encoder}, spelling {i}");
            let again = Adapter::parse("again", adapter.write_bytes().expect("bytes"), None, &layers);
            assert!(again.expect("an adapter") == adapter, "{encoder}: written and read");
            assert!(adapter.write_peft().is_err());
        }
    }
}

/// Several adapters are what one merged from them is: ranks and layers differ.
#[test]
fn strengths_add_up() {
    let Some(t) = Transformer::coarse() else { return };
    let all = pairs(&t.layers);
    let some: Pairs =
        all.iter().step_by(3).map(|(target, p)| (target.clone(), p.clone().scaled(2.0))).collect();
    let mut sum = Adapter { pairs: all.clone() }.scaled(0.5, "a").expect("finite");
    sum.add(Adapter { pairs: some.clone() }.scaled(-0.25, "b").expect("finite")).expect("one model");
    // 0.5 B A - 0.25 (2 B A) is nothing where both are, so only every other layer is left.
    let left: Pairs = all.iter().filter(|(target, _)| !some.contains_key(*target)).map(halved).collect();
    assert!(sum.pairs.iter().any(|(target, p)| p.rank == 2 * all[target].rank));
    assert!(same(
        &t.velocity(&mut Cpu::double(), &t.weights, &sum.pairs),
        &t.velocity(&mut Cpu::double(), &t.weights, &left),
        1.0
    ));
    assert!(!same(
        &t.velocity(&mut Cpu::double(), &t.weights, &left),
        &t.velocity(&mut Cpu::double(), &t.weights, &all),
        1.0
    ));
}

fn halved((target, pair): (&String, &Pair)) -> (String, Pair) {
    (target.clone(), pair.clone().scaled(0.5))
}
