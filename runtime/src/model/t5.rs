//! The T5 v1.1 text encoder of SD3, run block by block from the mapped checkpoint.
//! Papers: Raffel et al. 2020 (arXiv 1910.10683), Shazeer 2020 (arXiv 2002.05202, gated GELU). Follows transformers
//! 5.23 `T5EncoderModel`. Forward only.
//!
//! Unlike most transformers it does not scale its logits, has no biases, normalises without subtracting the mean, and
//! knows positions only by a table of logits per distance and head, which all blocks share. SD3 passes no mask, so
//! padding is attended like any token.
//!
//! T tokens, C = `d_model`, H heads, D = `d_kv`.
use super::lora::{Layer, Lora, Pairs, device_rank, layers, leaves, target};
use super::{Fields, Names, columns, embedding};
use crate::exec::{Executor, LeafData, PlanId, compile, only_weights, set_tensor, upload};
use crate::graph::{Graph, Id, Leaf, Op};
use crate::op::attention::MAX_HEAD;
use crate::weights::{TensorView, Weights};
use crate::{Error, Result};
use alloc::{format, string::String, sync::Arc, vec, vec::Vec};
use pentimento_wgsl::kernel::Act;
use serde_json::Value;

/// `text_encoder_3/config.json`, with its field names.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct T5Config {
    pub vocab_size: usize,
    pub d_model: usize,
    /// Width of a head; heads together may be wider or narrower than `d_model`.
    pub d_kv: usize,
    pub d_ff: usize,
    pub num_layers: usize,
    pub num_heads: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub layer_norm_epsilon: f32,
}

impl T5Config {
    /// google/t5-v1_1-xxl, `text_encoder_3` of SD3.
    pub fn xxl() -> Self {
        T5Config {
            vocab_size: 32128,
            d_model: 4096,
            d_kv: 64,
            d_ff: 10240,
            num_layers: 24,
            num_heads: 64,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
        }
    }

    /// Reads `config.json`. `label` names the file in errors.
    ///
    /// # Errors
    /// Missing fields, values out of range, and settings that this runtime does not compute.
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let f = Fields::new(json, label)?;
        f.only("model_type", "t5".into())?;
        if f.word("feed_forward_proj", &["gated-gelu"])?.is_none() {
            return Err(f.missing("feed_forward_proj"));
        }
        f.only("dense_act_fn", "gelu_new".into())?;
        let or = |name: &str, default: usize| match f.get(name) {
            Some(value) => f.as_size(name, value),
            None => Ok(default),
        };
        let cfg = T5Config {
            vocab_size: f.size("vocab_size")?,
            d_model: f.size("d_model")?,
            d_kv: f.size("d_kv")?,
            d_ff: f.size("d_ff")?,
            num_layers: f.size("num_layers")?,
            num_heads: f.size("num_heads")?,
            relative_attention_num_buckets: or("relative_attention_num_buckets", 32)?,
            relative_attention_max_distance: or("relative_attention_max_distance", 128)?,
            layer_norm_epsilon: f.number("layer_norm_epsilon", Some(1e-6))? as f32,
        };
        let (buckets, farthest) = (cfg.relative_attention_num_buckets, cfg.relative_attention_max_distance);
        if !cfg.d_kv.is_multiple_of(4) || cfg.d_kv > MAX_HEAD {
            return Err(f.bad("d_kv", format!("a multiple of 4 up to {MAX_HEAD}"), cfg.d_kv));
        }
        if buckets < 4 || !buckets.is_multiple_of(2) {
            return Err(f.bad("relative_attention_num_buckets", "an even number from 4 on", buckets));
        }
        if farthest <= buckets / 4 {
            return Err(f.bad(
                "relative_attention_max_distance",
                format!("more than {}", buckets / 4),
                farthest,
            ));
        }
        if cfg.num_layers > 1024 || cfg.num_heads > 1024 {
            return Err(f.bad(
                "num_layers",
                "at most 1024 layers and heads",
                format!("{} and {}", cfg.num_layers, cfg.num_heads),
            ));
        }
        Ok(cfg)
    }

    /// Row of the position table for a key `distance` tokens after the query (before it: negative). Half of the rows
    /// are for later keys; in each half, near distances have a row each and far ones share rows by their logarithm.
    pub fn relative_bucket(&self, distance: i64) -> usize {
        let half = self.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let offset = if distance > 0 { half } else { 0 };
        let far = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
        if far < exact {
            return offset + far;
        }
        // In f32, as torch does: the truncation below makes the type matter.
        let ratio = libm::logf(far as f32 / exact as f32)
            / libm::log(self.relative_attention_max_distance as f64 / exact as f64) as f32;
        let step = (ratio * (half - exact) as f32) as usize;
        offset + exact.saturating_add(step).min(half - 1)
    }

    /// The position logits of `tokens` tokens, shared by all blocks: `[H, T, T]`, by head, query and key.
    ///
    /// # Errors
    /// A missing or mis-shaped table.
    pub fn position_bias(&self, weights: &Weights, tokens: usize) -> Result<Vec<f32>> {
        let heads = self.num_heads;
        let [(name, shape), _] = self.tables();
        let table = weights.expect(name, &shape)?;
        table.check_finite()?;
        let table = table.to_f32()?;
        let distance = |query: usize, key: usize| key as i64 - query as i64;
        let rows: Vec<usize> = (0..tokens * tokens)
            .map(|i| self.relative_bucket(distance(i / tokens, i % tokens)) * heads)
            .collect();
        Ok((0..heads).flat_map(|h| rows.iter().map(move |row| row + h)).map(|at| table[at]).collect())
    }

    /// The tables that the host reads: position logits by bucket, token embeddings.
    pub fn tables(&self) -> [(&'static str, [usize; 2]); 2] {
        let positions = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let buckets = [self.relative_attention_num_buckets, self.num_heads];
        [(positions, buckets), ("shared.weight", [self.vocab_size, self.d_model])]
    }

    /// Token embeddings, gathered on the host: `[T, C]` of one sequence.
    ///
    /// # Errors
    /// A missing or mis-shaped table, an id outside the vocabulary.
    pub fn embed(&self, weights: &Weights, ids: &[u32]) -> Result<Vec<f32>> {
        let [_, (name, shape)] = self.tables();
        let tied = "encoder.embed_tokens.weight";
        let table = weights.expect(if weights.contains(tied) { tied } else { name }, &shape)?;
        let mut out = Vec::with_capacity(ids.len() * self.d_model);
        for &id in ids {
            out.extend(embedding(&table, id)?);
        }
        Ok(out)
    }
}

/// Where the weights of the block at hand are in the graph: `<component>/block.<name inside a block>`.
const BLOCK: &str = "block";

/// One block. x: `[1, T, C]`; bias: `[H, T, T]`, see [`T5Config::position_bias`]. T5's states are known to overflow f16
/// (transformers keeps `wo` in f32), so nothing is rounded to it.
fn block(g: &mut Graph, w: &Names, cfg: &T5Config, x: Id, bias: Id) -> Id {
    let was = g.exact(true);
    let h = norm(g, &w.at("layer.0.layer_norm"), cfg, x);
    let h = attention(g, &w.at("layer.0.SelfAttention"), cfg, h, bias);
    let x = g.add(x, h);
    let h = norm(g, &w.at("layer.1.layer_norm"), cfg, x);
    let h = feed_forward(g, &w.at("layer.1.DenseReluDense"), cfg, h);
    let y = g.add(x, h);
    g.exact(was);
    y
}

/// The encoder as one graph, every block with its own weights. x: `[1, T, C]`; bias: `[H, T, T]`.
pub fn whole(g: &mut Graph, cfg: &T5Config, component: &str, mut x: Id, bias: Id) -> Id {
    let w = Names::new(component).at("encoder");
    for n in 0..cfg.num_layers {
        x = block(g, &w.at("block").at(n), cfg, x, bias);
    }
    norm(g, &w.at("final_layer_norm"), cfg, x)
}

/// `T5LayerNorm`, a root-mean-square norm.
fn norm(g: &mut Graph, w: &Names, cfg: &T5Config, x: Id) -> Id {
    let c = [columns(g, x)];
    let weight = w.tensor(g, "weight", &c);
    g.rms_norm(x, weight, cfg.layer_norm_epsilon)
}

fn attention(g: &mut Graph, w: &Names, cfg: &T5Config, x: Id, bias: Id) -> Id {
    let inner = cfg.num_heads * cfg.d_kv;
    let q = w.at("q").matmul(g, x, inner);
    let k = w.at("k").matmul(g, x, inner);
    let v = w.at("v").matmul(g, x, inner);
    // T5 leaves the logits as they are; this undoes the 1 / sqrt(D) of the op.
    let q = g.affine(q, libm::sqrtf(cfg.d_kv as f32), 0.0);
    let y = g.attention(q, k, v, cfg.num_heads, Some(bias), false);
    w.at("o").matmul(g, y, cfg.d_model)
}

/// `wo(gelu_new(wi_0 x) * wi_1 x)`.
fn feed_forward(g: &mut Graph, w: &Names, cfg: &T5Config, x: Id) -> Id {
    let gate = w.at("wi_0").matmul(g, x, cfg.d_ff);
    let gate = g.act(Act::GeluTanh, gate);
    let y = w.at("wi_1").matmul(g, x, cfg.d_ff);
    let y = g.mul(gate, y);
    w.at("wo").matmul(g, y, cfg.d_model)
}

/// A tensor of one block: its leaf, its name inside a block, its shape, and whether it may stay packed.
struct BlockTensor {
    leaf: String,
    name: String,
    shape: Vec<usize>,
    packs: bool,
}

/// The encoder on an executor: the plan of one block, whose weights every block takes in turn. The device holds one
/// block (T5-XXL in f16: 386 MB), the position logits and the states of one prompt, whatever the depth.
pub struct Encoder {
    config: T5Config,
    length: usize,
    plan: PlanId,
    tensors: Vec<BlockTensor>,
    adapter: BlockAdapter,
}

impl Encoder {
    /// Plans one block for sequences of `length` tokens. `component` is the folder's name, such as `text_encoder_3`; `pairs`
    /// are corrections of its layers.
    ///
    /// # Errors
    /// Missing or mis-shaped tensors in any block, or the device refuses the plan.
    pub fn new(
        exec: &mut dyn Executor,
        config: &T5Config,
        component: &str,
        weights: &Weights,
        pairs: Arc<Pairs>,
        length: usize,
    ) -> Result<Self> {
        let adapter = BlockAdapter::new(config, component, pairs);
        let lora =
            Lora::new(adapter.layers.iter().map(|l| (target(component, &in_block(&l.name)), l.rank)), 1.0);
        let mut g = Graph::new();
        let x = g.input("x", &[1, length, config.d_model]);
        let bias = g.input("bias", &[config.num_heads, length, length]);
        let names = Names::new(component).adapted(Some(&lora));
        let y = block(&mut g, &names.at(BLOCK), config, x, bias);
        let last = norm(&mut g, &names.at("encoder.final_layer_norm"), config, y);
        g.check()?;
        let tensors = block_tensors(&g, &format!("{component}/{BLOCK}."), config, weights)?;
        load(exec, &tensors, weights, 0)?;
        adapter.load(exec, 0)?;
        upload(exec, &g, &format!("{component}/"), weights)?;
        let plan = compile(exec, g, &[("y", y), ("last", last)])?;
        exec.write(plan, "bias", &config.position_bias(weights, length)?)?;
        Ok(Encoder { config: config.clone(), length, plan, tensors, adapter })
    }

    /// The plan of the block at hand.
    pub fn plan(&self) -> PlanId {
        self.plan
    }
    /// Puts the states of all prompts (`[T, C]` each) through block `index`, and through the final norm after the last.
    ///
    /// # Errors
    /// No such block, states of another length, or the device failed.
    pub fn advance(
        &self,
        exec: &mut dyn Executor,
        weights: &Weights,
        index: usize,
        states: &mut [Vec<f32>],
    ) -> Result<()> {
        self.load(exec, weights, index)?;
        for state in states {
            let plan = self.write(exec, state)?;
            exec.run(plan)?;
            *state = self.read(exec, index)?;
        }
        Ok(())
    }
    /// Overwrites the device's block with the weights of block `index`.
    ///
    /// # Errors
    /// No such block, or the device failed.
    pub fn load(&self, exec: &mut dyn Executor, weights: &Weights, index: usize) -> Result<()> {
        load(exec, &self.tensors, weights, index)?;
        self.adapter.load(exec, index)
    }
    /// Writes one prompt's states, `[T, C]`; returns the plan that puts them through the block.
    ///
    /// # Errors
    /// States of another length.
    pub fn write(&self, exec: &mut dyn Executor, state: &[f32]) -> Result<PlanId> {
        exec.write(self.plan, "x", state)?;
        Ok(self.plan)
    }
    /// Reads the states after block `index`, through the final norm after the last.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self, exec: &mut dyn Executor, index: usize) -> Result<Vec<f32>> {
        exec.read(self.plan, if index + 1 == self.config.num_layers { "last" } else { "y" })
    }
    /// States before the first block, `[T, C]` for each sequence of ids.
    ///
    /// # Errors
    /// A sequence of another length, or an id outside the vocabulary.
    pub fn embed(&self, weights: &Weights, prompts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        if let Some(ids) = prompts.iter().find(|ids| ids.len() != self.length) {
            let expected = format!("{} tokens", self.length);
            return Err(Error::bad("text encoder", expected, format!("{}", ids.len())));
        }
        prompts.iter().map(|ids| self.config.embed(weights, ids)).collect()
    }

    /// Last hidden states, `[T, C]` for each sequence of ids. Every block is uploaded once, however many prompts there
    /// are: encode them together.
    ///
    /// # Errors
    /// A sequence of another length, an id outside the vocabulary, or the device failed.
    pub fn encode(
        &self,
        exec: &mut dyn Executor,
        weights: &Weights,
        prompts: &[Vec<u32>],
    ) -> Result<Vec<Vec<f32>>> {
        let mut states = self.embed(weights, prompts)?;
        for index in 0..self.config.num_layers {
            self.advance(exec, weights, index, &mut states)?;
        }
        Ok(states)
    }
}

/// Name of a tensor of block `index` in the checkpoint.
fn stored_name(index: usize, name: &str) -> String {
    format!("encoder.block.{index}.{name}")
}

/// The tensors a block needs; checks that every block has them, so that a run cannot fail halfway.
fn block_tensors(g: &Graph, prefix: &str, config: &T5Config, weights: &Weights) -> Result<Vec<BlockTensor>> {
    let mut tensors = vec![];
    for (node, only) in g.nodes().iter().zip(only_weights(g)) {
        let Op::Leaf { kind: Leaf::Weight(_), name: leaf } = &node.op else { continue };
        let Some(name) = leaf.strip_prefix(prefix) else { continue };
        let views: Vec<TensorView<'_>> = (0..config.num_layers)
            .map(|index| weights.expect(&stored_name(index, name), &node.shape))
            .collect::<Result<_>>()?;
        // A leaf has one type for its whole life; published f16 checkpoints keep some tensors in f32.
        let kind = |t: &TensorView<'_>| (t.dtype, t.scale.is_empty());
        let alike = views.windows(2).all(|pair| kind(&pair[0]) == kind(&pair[1]));
        let packs = alike && only;
        tensors.push(BlockTensor { leaf: leaf.clone(), name: name.into(), shape: node.shape.clone(), packs });
    }
    Ok(tensors)
}

/// Overwrites the block's leaves with the weights of block `index`.
fn load(exec: &mut dyn Executor, tensors: &[BlockTensor], weights: &Weights, index: usize) -> Result<()> {
    for t in tensors {
        set_tensor(exec, &t.leaf, &weights.expect(&stored_name(index, &t.name), &t.shape)?, t.packs)?;
    }
    Ok(())
}

/// Corrections of the block at hand: all blocks share one graph, so where any block has one, all do, of one rank.
struct BlockAdapter {
    component: String,
    pairs: Arc<Pairs>,
    layers: Vec<BlockLayer>,
}

/// An adapted layer: its name inside a block, and the largest rank of any block's.
struct BlockLayer {
    name: String,
    layer: Layer,
    rank: usize,
}

impl BlockAdapter {
    fn new(config: &T5Config, component: &str, pairs: Arc<Pairs>) -> Self {
        let mut g = Graph::new();
        let x = g.input("x", &[1, 1, config.d_model]);
        let bias = g.input("bias", &[config.num_heads, 1, 1]);
        block(&mut g, &Names::new(component).at(BLOCK), config, x, bias);
        let prefix = target(component, &in_block(""));
        let adapted = layers(&g, component, 1).into_iter().filter_map(|(name, layer)| {
            let name: String = name.strip_prefix(&prefix)?.into();
            let pair = |n| pairs.get(&target(component, &stored_name(n, &name)));
            let rank = (0..config.num_layers).filter_map(pair).map(|p| p.rank).max()?;
            Some(BlockLayer { name, layer, rank: device_rank(rank) })
        });
        let layers = adapted.collect();
        BlockAdapter { component: component.into(), pairs, layers }
    }
    /// Overwrites the corrections with those of block `index`; zeros where it has none.
    fn load(&self, exec: &mut dyn Executor, index: usize) -> Result<()> {
        for BlockLayer { name, layer, rank } in &self.layers {
            let pair = self.pairs.get(&target(&self.component, &stored_name(index, name)));
            let none = || [layer.inputs, layer.outputs].map(|n| vec![0.0; n * rank]);
            let data = pair.map_or_else(none, |p| p.padded(*rank));
            for (leaf, data) in leaves(&target(&self.component, &in_block(name))).iter().zip(data) {
                exec.set_leaf(leaf, LeafData::F32(&data))?;
            }
        }
        Ok(())
    }
}

/// A module of the block at hand.
fn in_block(name: &str) -> String {
    format!("{BLOCK}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_the_paper() {
        let cfg = T5Config::xxl();
        let bucket = |d: i64| cfg.relative_bucket(d);
        assert_eq!((bucket(0), bucket(-1), bucket(1), bucket(-7), bucket(7)), (0, 1, 17, 7, 23));
        // 8 * 16^(i / 8) begins a new row: 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5.
        let firsts = [-8, -12, -16, -23, -32, -46, -64, -91];
        assert!(firsts.iter().zip(8..).all(|(&d, row)| bucket(d) == row && bucket(d + 1) == row - 1));
        assert_eq!((bucket(-128), bucket(i64::MIN), bucket(i64::MAX)), (15, 15, 31));
    }

    #[test]
    fn configurations_of_other_models_are_refused() {
        let json = |change: &str| {
            let text = format!(
                r#"{{"model_type":"t5","feed_forward_proj":"gated-gelu","vocab_size":32128,"d_model":4096,
                    "d_kv":64,"d_ff":10240,"num_layers":24,"num_heads":64{change}}}"#
            );
            T5Config::from_value(&serde_json::from_str(&text).unwrap(), "config.json")
        };
        assert_eq!(json("").unwrap(), T5Config::xxl());
        for (change, part) in [
            (r#","feed_forward_proj":"relu""#, "feed_forward_proj"),
            (r#","feed_forward_proj":null"#, "feed_forward_proj"),
            (r#","dense_act_fn":"relu""#, "dense_act_fn"),
            (r#","model_type":"umt5""#, "model_type"),
            (r#","d_kv":66"#, "d_kv"),
            (r#","relative_attention_num_buckets":31"#, "buckets"),
            (r#","relative_attention_max_distance":8"#, "max_distance"),
            (r#","num_layers":2000"#, "1024"),
        ] {
            let text = format!("{}", json(change).unwrap_err());
            assert!(text.contains(part), "{change}: {text}");
        }
    }
}
