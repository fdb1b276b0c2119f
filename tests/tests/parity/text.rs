//! Text encoders, one by one and as the pipeline joins them.
use crate::common::{executors, model, run};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, LeafData, Memory, PlanId};
use pentimento_runtime::folder::open_component;
use pentimento_runtime::graph::Graph;
use pentimento_runtime::model::lora::Lora;
use pentimento_runtime::model::{clip, t5};
use pentimento_runtime::plan::{Plan, Slot};
use pentimento_runtime::text::{Clip, T5, Text, TextEncoders};
use pentimento_runtime::weights::Weights;
use pentimento_wgsl::Stored;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::fixture::{Check, Golden, folders, to_f16};

/// Rows of token ids.
fn ids(golden: &Golden, name: &str) -> Vec<Vec<u32>> {
    let &[_, t] = golden.shape(name) else { panic!("{name} are [B, T]") };
    let all: Vec<u32> = golden.ints(name).iter().map(|&i| i as u32).collect();
    all.chunks_exact(t).map(<[u32]>::to_vec).collect()
}

pub fn clip_config(path: &Path, config: &Value) -> clip::ClipConfig {
    clip::ClipConfig::from_value(config, &path.display().to_string()).expect("a config")
}

/// Penultimate states and pooled features of all sequences.
pub fn clip_outputs(
    exec: &mut dyn Executor,
    cfg: &clip::ClipConfig,
    component: &str,
    lora: Option<&Lora>,
    weights: &Weights,
    ids: &[Vec<u32>],
) -> [Vec<f32>; 2] {
    let (b, t) = (ids.len(), ids[0].len());
    let embeds: Vec<f32> = ids.iter().flat_map(|i| cfg.embed(weights, i).expect("embeddings")).collect();
    let picks: Vec<f32> = ids.iter().flat_map(|i| cfg.pick(i)).collect();
    let mut g = Graph::new();
    let (x, pick) = (g.input("embeds", &[b, t, cfg.hidden_size]), g.input("pick", &[b, t]));
    let y = clip::encode(&mut g, cfg, component, lora, x, pick);
    let outputs = [("penultimate", y.penultimate), ("pooled", y.pooled)];
    let inputs: [(&str, &[f32]); 2] = [("embeds", &embeds), ("pick", &picks)];
    run(exec, g, &[(component, weights)], &inputs, &outputs).try_into().expect("two outputs")
}

/// Every output of a CLIP encoder on every executor, against the expectations with a suffix.
pub fn compare(golden: &Golden, cfg: &clip::ClipConfig, weights: &Weights, suffix: &str) {
    let ids = ids(golden, "input_ids");
    for (name, mut exec) in executors("CLIP") {
        let mut check = Check::new(golden, &name);
        let [states, features] = clip_outputs(exec.as_mut(), cfg, "text_encoder", None, weights, &ids);
        check.tensor(&format!("penultimate{suffix}"), &states);
        check.optional(&format!("text_embeds{suffix}"), &features);
        check.finish();
    }
}

#[test]
fn clip_encoders_agree() {
    for path in folders("text", "model_type", "clip_text_model") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = clip_config(&path, &config);
        let eot = golden.json["vocab"]["eot"].as_u64().expect("vocab.eot") as u32;
        let modern = clip::ClipConfig { eos_token_id: eot, ..cfg.clone() };
        let ids = ids(&golden, "input_ids");
        for (name, mut exec) in executors("CLIP") {
            let exec = exec.as_mut();
            let mut check = Check::new(&golden, &name);
            let embeds: Vec<f32> = ids.iter().flat_map(|i| cfg.embed(&weights, i).expect("ids")).collect();
            check.tensor("hidden_states_0", &embeds);
            // The state before the last of k + 1 layers is hidden state k.
            for k in 1..cfg.num_hidden_layers {
                let part = clip::ClipConfig { num_hidden_layers: k + 1, ..cfg.clone() };
                let [states, _] = clip_outputs(exec, &part, "text_encoder", None, &weights, &ids);
                check.optional(&format!("hidden_states_{k}"), &states);
            }
            for (suffix, weights) in [("", &weights), ("_f16w", &to_f16(&weights))] {
                let component = format!("text_encoder{suffix}");
                for (cfg, pooled) in [(&cfg, "text_embeds"), (&modern, "text_embeds_modern_eos")] {
                    let [states, features] = clip_outputs(exec, cfg, &component, None, weights, &ids);
                    check.tensor(&format!("penultimate{suffix}"), &states);
                    check.optional(&format!("{pooled}{suffix}"), &features);
                }
            }
            check.complete(&[("last_hidden_state", "SD3 uses one row of it, projected: text_embeds")]);
            check.finish();
        }
    }
}

fn t5_config(path: &Path, config: &Value) -> t5::T5Config {
    t5::T5Config::from_value(config, &path.display().to_string()).expect("a config")
}

#[test]
fn t5_agrees_block_by_block() {
    for path in folders("text", "model_type", "t5") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = t5_config(&path, &config);
        for (name, mut exec) in executors("T5") {
            let exec = exec.as_mut();
            let mut check = Check::new(&golden, &name);
            for prefix in golden.names().filter_map(|n| n.strip_suffix("input_ids")) {
                let ids = ids(&golden, &format!("{prefix}input_ids"));
                for (suffix, weights) in [("", &weights), ("_f16w", &to_f16(&weights))] {
                    let component = format!("text_encoder_3{suffix}");
                    let encoder =
                        t5::Encoder::new(exec, &cfg, &component, weights, Arc::default(), ids[0].len())
                            .expect("a plan");
                    let states = ids.iter().map(|i| cfg.embed(weights, i));
                    let mut states = states.collect::<Result<Vec<_>, _>>().expect("ids of the vocabulary");
                    for block in 0..cfg.num_layers {
                        check.optional(&format!("{prefix}hidden_{block}{suffix}"), &states.concat());
                        encoder.advance(exec, weights, block, &mut states).expect("a run");
                    }
                    check.tensor(&format!("{prefix}last_hidden_state{suffix}"), &states.concat());
                    let whole = encoder.encode(exec, weights, &ids).expect("a run");
                    assert!(whole == states, "{name}: the second run differs from the first");
                }
            }
            let buckets = golden.ints("relative_positions").iter().map(|&d| cfg.relative_bucket(d) as i64);
            check.exact("relative_buckets", &buckets.collect::<Vec<_>>(), golden.ints("relative_buckets"));
            check.complete(&[]);
            check.finish();
        }
    }
}

/// Another epsilon, table or activation would be noticed: the comparison fails when a weight is off by a hundredth.
#[test]
fn a_changed_block_is_noticed() {
    for path in folders("text", "model_type", "t5") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let right = t5_config(&path, &config);
        let farthest = 2 * right.relative_attention_max_distance;
        let cfg = t5::T5Config { relative_attention_max_distance: farthest, ..right.clone() };
        for prefix in golden.names().filter_map(|n| n.strip_suffix("input_ids")) {
            let ids = ids(&golden, &format!("{prefix}input_ids"));
            if (0..ids[0].len() as i64).all(|d| cfg.relative_bucket(d) == right.relative_bucket(d)) {
                continue; // nothing is that far
            }
            let mut exec = Cpu::new();
            let encoder = t5::Encoder::new(&mut exec, &cfg, "t5", &weights, Arc::default(), ids[0].len())
                .expect("a plan");
            let states = encoder.encode(&mut exec, &weights, &ids).expect("a run");
            let name = format!("{prefix}last_hidden_state");
            let (want, tol) = (golden.floats(&name), golden.tolerance(&name));
            assert!(tests::fixture::within(&states.concat(), want, tol).is_err(), "{name}");
        }
    }
}

/// Remembers how many numbers each leaf holds.
struct Counting(Cpu, BTreeMap<String, usize>);

impl Executor for Counting {
    fn caps(&self) -> &Caps {
        self.0.caps()
    }
    fn has_leaf(&self, name: &str) -> bool {
        self.0.has_leaf(name)
    }
    fn stored(&self, name: &str) -> Stored {
        self.0.stored(name)
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> pentimento_runtime::Result<()> {
        let len = match data {
            LeafData::F32(d) => d.len(),
            LeafData::Packed(kind, bytes) => kind.numbers(bytes.len()),
        };
        self.1.insert(name.into(), len);
        self.0.set_leaf(name, data)
    }
    fn memory(&self) -> Memory {
        self.0.memory()
    }
    fn components(&self) -> BTreeMap<String, u64> {
        self.0.components()
    }
    fn forget(&mut self, plan: PlanId) -> pentimento_runtime::Result<()> {
        self.0.forget(plan)
    }
    fn forget_leaves(&mut self, prefix: &str) -> pentimento_runtime::Result<()> {
        self.0.forget_leaves(prefix)
    }
    fn prepare(&mut self, plan: Plan) -> pentimento_runtime::Result<PlanId> {
        self.0.prepare(plan)
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> pentimento_runtime::Result<()> {
        self.0.write(plan, input, data)
    }
    fn rewind(&mut self, plan: PlanId) {
        self.0.rewind(plan);
    }
    fn advance(&mut self, plan: PlanId) -> pentimento_runtime::Result<bool> {
        self.0.advance(plan)
    }
    fn peek(&mut self, plan: PlanId, output: &str) -> pentimento_runtime::Result<Vec<f32>> {
        self.0.peek(plan, output)
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        self.0.plan(plan)
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> pentimento_runtime::Result<Vec<f32>> {
        self.0.argument(plan, slot)
    }
    fn one(&mut self, plan: PlanId) -> pentimento_runtime::Result<bool> {
        self.0.one(plan)
    }
}

#[test]
fn t5_keeps_one_block_on_the_device() {
    for path in folders("text", "model_type", "t5") {
        let (_, config, weights) = model(&path);
        let cfg = t5_config(&path, &config);
        let mut exec = Counting(Cpu::new(), BTreeMap::new());
        let encoder = t5::Encoder::new(&mut exec, &cfg, "t5", &weights, Arc::default(), 7).expect("a plan");
        encoder.encode(&mut exec, &weights, &[vec![1; 7]]).expect("a run");
        let size = |name: &str| weights.shape(name).map_or(0, |s| s.iter().product::<usize>());
        let last = format!("encoder.block.{}.", cfg.num_layers - 1);
        // The table of positions, which the first block holds, stays on the host.
        let block =
            weights.names().filter(|n| n.starts_with(&last) && !n.contains("relative_attention_bias"));
        let block: usize = block.map(size).sum();
        let held: usize = exec.1.values().sum();
        assert_eq!(held, block + cfg.d_model, "one block and the final norm: {:?}", exec.1);

        let deeper = t5::T5Config { num_layers: cfg.num_layers + 1, ..cfg.clone() };
        let error = t5::Encoder::new(&mut Cpu::new(), &deeper, "t5", &weights, Arc::default(), 7)
            .err()
            .expect("refused");
        assert!(error.to_string().contains(&format!("encoder.block.{}.", cfg.num_layers)), "{error}");
        let error = encoder.encode(&mut exec, &weights, &[vec![1; 6]]).expect_err("refused").to_string();
        assert!(error.contains("expected 7 tokens, found 6"), "{error}");
        let wild = [vec![cfg.vocab_size as u32; 7]];
        let error = encoder.encode(&mut exec, &weights, &wild).expect_err("refused").to_string();
        assert!(error.contains("token ids below"), "{error}");
    }
}

/// The parts an `encode_prompt` folder names: two CLIP encoders, T5, and the folder of tokenizers.
pub struct Parts {
    pub clips: Vec<Clip>,
    pub t5: T5,
}

pub fn parts(golden: &Golden) -> Parts {
    let names = golden.json["checkpoint"].as_array().expect("checkpoint").iter();
    let names: Vec<&str> = names.map(|n| n.as_str().expect("a path")).collect();
    let [encoders @ .., tokenizers] = names.as_slice() else { panic!("encoders and tokenizers") };
    let tokenizers = golden.path.join(tokenizers.trim_end_matches('*'));
    let paths: Vec<PathBuf> = encoders.iter().map(|name| golden.path.join(name)).collect();
    let tokenizer = |path: &Path| {
        let folder = tokenizers.join(path.file_name().expect("a name"));
        pentimento_runtime::folder::tokenizer_folder(&folder).expect("a tokenizer folder")
    };
    let clips = paths[..2].iter().map(|path| {
        let (_, config, weights) = model(path);
        let tokenizer = tokenizer(path).tokenizer().expect("a tokenizer");
        Clip { config: clip_config(path, &config), tokenizer, weights, pairs: Arc::default() }
    });
    let path = &paths[2];
    let (_, config, weights) = model(path);
    let unigram = tokenizer(path).unigram_tokenizer().expect("a tokenizer");
    Parts {
        clips: clips.collect(),
        t5: T5 { config: t5_config(path, &config), tokenizer: unigram, weights, pairs: Arc::default() },
    }
}

#[test]
fn prompts_are_joined_as_diffusers_joins_them() {
    let Some(golden) = Golden::find("text/encode_prompt") else { return };
    let prompts = golden.json["prompts"].as_array().expect("prompts").iter();
    let prompts: Vec<&str> = prompts.map(|p| p.as_str().expect("a text")).collect();
    let (&[_, _, width], &[_, t5_tokens]) = (golden.shape("prompt_embeds"), golden.shape("ids_t5")) else {
        panic!("prompt_embeds are [B, T, C], ids_t5 [B, T]")
    };
    for (name, mut exec) in executors("prompts") {
        let exec = exec.as_mut();
        let mut check = Check::new(&golden, &name);
        let Parts { clips, t5 } = parts(&golden);
        let ids = |f: &dyn Fn(&str) -> Vec<u32>| -> Vec<i64> {
            prompts.iter().flat_map(|p| f(p)).map(i64::from).collect()
        };
        for (key, clip) in ["ids_clip_l", "ids_clip_g"].iter().zip(&clips) {
            let length = clip.config.max_position_embeddings;
            check.exact(key, &ids(&|p| clip.tokenizer.encode(p, length)), golden.ints(key));
        }
        check.exact("ids_t5", &ids(&|p| t5.tokenizer.encode(p, t5_tokens)), golden.ints("ids_t5"));
        for (key, t5) in [("prompt_embeds", Some(t5)), ("prompt_embeds_no_t5", None)] {
            let mut encoders = TextEncoders::new(clips.clone(), t5, width, t5_tokens).expect("they fit");
            let layout = encoders.layout();
            let texts = encoders.encode(exec, &prompts).expect("a run");
            // The last token of an absent T5 stands for all of them.
            let whole = |text: &Text| {
                let last = &text.context[text.context.len() - width..];
                [text.context.as_slice(), &last.repeat(layout.repeat - 1)].concat()
            };
            check.tensor(key, &texts.iter().flat_map(whole).collect::<Vec<_>>());
            let pooled: Vec<f32> = texts.iter().flat_map(|t| t.pooled.iter().copied()).collect();
            check.tensor("pooled_prompt_embeds", &pooled);
            let one = encoders.encode(exec, &prompts[..1]).expect("a run");
            assert!(one == texts[..1], "{name}: a prompt alone is encoded otherwise");
            assert!(encoders.encode(exec, &[]).expect("nothing to do").is_empty());
            // A host may have another prompt encoded between any two runs.
            let mut job = encoders.begin(&prompts);
            while let Some(plan) = encoders.launch(exec, &mut job).expect("inputs") {
                exec.run(plan).expect("a run");
                encoders.collect(exec, &mut job).expect("outputs");
                if job.done() % 5 == 3 {
                    encoders.encode(exec, &prompts[..1]).expect("a run");
                }
            }
            assert!(job.into_texts() == texts, "{name}: interleaved prompts are encoded otherwise");
        }
        check.complete(&[]);
        check.finish();
    }
}

#[test]
fn encoders_that_do_not_fit_are_refused_and_told_apart() {
    let Some(golden) = Golden::find("text/encode_prompt") else { return };
    let Parts { clips, t5 } = parts(&golden);
    let width = t5.config.d_model;
    let new = |clips: &[Clip], t5: Option<&T5>, width, tokens| {
        TextEncoders::new(clips.to_vec(), t5.cloned(), width, tokens)
    };
    for (width, tokens, t5) in
        [(width + 4, 8, Some(&t5)), (8, 8, None), (width, 0, Some(&t5)), (width, 1 << 20, Some(&t5))]
    {
        let error = new(&clips, t5, width, tokens).err().expect("refused").to_string();
        assert!(error.starts_with("text encoders: expected"), "{error}");
    }
    assert!(new(&[], Some(&t5), width, 8).is_err());
    let print = |clips: &[Clip], t5, tokens| new(clips, t5, width, tokens).expect("fits").fingerprint();
    let first = print(&clips, Some(&t5), 8);
    assert_eq!(first, print(&clips, Some(&t5), 8));
    let rounded = T5 { weights: to_f16(&t5.weights), ..t5.clone() };
    let mut other = clips.clone();
    other[1].config.eos_token_id += 1;
    let mut swapped = clips.clone();
    swapped[0].tokenizer = clips[1].tokenizer.clone();
    let all = [
        first,
        print(&clips, Some(&t5), 9),
        print(&clips, None, 8),
        print(&clips, Some(&rounded), 8),
        print(&other, Some(&t5), 8),
        print(&swapped, Some(&t5), 8),
    ];
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
}

/// Not a test of numbers: a model folder without a config is no component, a tokenizer folder needs none.
#[test]
fn tokenizer_folders_need_no_config() {
    for path in folders("text", "model_type", "t5") {
        let tokenizers = path.join("../tiny_tokenizers/t5");
        if tokenizers.is_dir() {
            assert!(open_component(&tokenizers).is_err());
            assert!(pentimento_runtime::folder::tokenizer_folder(&tokenizers).is_ok());
        }
    }
}
