//! Graphs on the twins in f64: values, gradients of every intermediate value, and drawn inputs.
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::plan::Plan;
use pentimento_runtime::rng::Philox;
use pentimento_wgsl::Stored;
use std::collections::BTreeMap;

/// Tensors by name.
pub type Values = BTreeMap<String, Vec<f64>>;

/// Name of a leaf.
pub fn name(g: &Graph, id: Id) -> Option<&str> {
    match &g.node(id).op {
        Op::Leaf { name, .. } => Some(name),
        _ => None,
    }
}

/// Normal numbers for every leaf. Inputs are rounded to multiples of 2^-10 and moved by a quarter of that and more, each
/// leaf by its own part: no value is within 2e-4 of a kink at a multiple of 2^-10, nor within 9e-5 of a value of another
/// leaf (`max`), so central differences with smaller steps see smooth functions only. The input "zero" is zero, as its
/// name promises.
pub fn draw(g: &Graph, seed: u64) -> Values {
    let mut values = Values::new();
    for n in g.nodes() {
        let Op::Leaf { kind, name } = &n.op else { continue };
        let stream = values.len() as u64;
        let mut x = vec![0.0f32; n.shape.iter().product()];
        Philox::new(seed, stream).normals(&mut x);
        let columns = if n.shape.len() > 1 { n.shape.last().copied().unwrap_or(1) } else { 1 };
        // Weights and parameters keep the size of what passes through them.
        let scale = if *kind == Leaf::Input { 1.0 } else { 1.0 / (columns as f64).sqrt() };
        let offset = 0.25 + 0.1 * (stream % 6) as f64;
        let grid = |v: f32| ((f64::from(v) * 1024.0).round() + offset) / 1024.0 * scale;
        let x = x.into_iter().map(|v| if name == "zero" { 0.0 } else { grid(v) });
        values.insert(name.clone(), x.collect());
    }
    values
}

/// A plan on the twins in f64, with its leaves set; `fused` as users run it, else one command per operation.
pub fn plan(cpu: &mut Cpu<f64>, g: &Graph, outputs: &[(&str, Id)], values: &Values, fused: bool) -> PlanId {
    let caps = cpu.caps().clone();
    let f32s = |_: &str| Stored::F32;
    let made = if fused {
        Plan::new(g.clone(), outputs, &caps, &f32s)
    } else {
        Plan::unfused(g, outputs, &caps, &f32s)
    };
    let made = made.expect("a plan");
    for leaf in &made.leaves {
        cpu.set_leaf_real(&leaf.name, values[&leaf.name].clone()).expect("a leaf");
    }
    let names: Vec<String> = made.inputs.iter().map(|i| i.name.clone()).collect();
    let id = cpu.prepare(made).expect("a prepared plan");
    // What gradients add is the input "zero", which is zero.
    for name in names.into_iter().filter(|n| n != "zero") {
        cpu.write_real(id, &name, &values[&name]).expect("an input");
    }
    id
}

/// Values of `outputs`, in f64.
pub fn values(g: &Graph, outputs: &[Id], inputs: &Values, fused: bool) -> Vec<Vec<f64>> {
    let names: Vec<String> = (0..outputs.len()).map(|i| format!("o{i}")).collect();
    let named: Vec<(&str, Id)> = names.iter().map(String::as_str).zip(outputs.iter().copied()).collect();
    let mut cpu = Cpu::double();
    let id = plan(&mut cpu, g, &named, inputs, fused);
    cpu.run(id).expect("a run");
    names.iter().map(|n| cpu.read_real(id, n).expect("an output")).collect()
}

/// What `y` is computed from that depends on `wrt`, `wrt` included, `y` last.
pub fn path(g: &Graph, y: Id, wrt: &[Id]) -> Vec<Id> {
    fn visit(g: &Graph, id: Id, wrt: &[Id], seen: &mut BTreeMap<Id, bool>, out: &mut Vec<Id>) -> bool {
        if let Some(&found) = seen.get(&id) {
            return found;
        }
        let mut depends = wrt.contains(&id);
        for &x in &g.node(id).inputs {
            depends |= visit(g, x, wrt, seen, out);
        }
        seen.insert(id, depends);
        if depends {
            out.push(id);
        }
        depends
    }
    let mut out = Vec::new();
    visit(g, y, wrt, &mut BTreeMap::new(), &mut out);
    out
}

/// Terms in the sums of an operation.
fn terms(g: &Graph, id: Id) -> usize {
    let node = g.node(id);
    let last = |id: Id| g.shape(id).last().copied().unwrap_or(1);
    match node.op {
        Op::Matmul { a_t: false, .. } => last(node.inputs[0]),
        Op::Matmul { a_t: true, .. } => g.len(node.inputs[0]) / last(node.inputs[0]).max(1),
        Op::Sum { n, .. } => n,
        Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Softmax { .. } => last(id),
        Op::GroupNorm { groups, .. } => g.len(id) / (g.shape(id)[0] * groups).max(1),
        Op::Conv2d { kernel, .. } => kernel * kernel * last(node.inputs[0]),
        Op::Attention { heads, .. } => last(id) / heads + g.shape(node.inputs[1])[1],
        _ => 1,
    }
}

pub fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// How much roundings move `phi = <y, dy>`, to first order, per unit of roundoff.
pub struct Sensitivity {
    /// Root of the sum of squares, over the values v on the path, of (terms + 4) |v| |dphi/dv|: for values whose own sums
    /// are rounded as well, one rounding a term. Four stands for the operation itself and its elementary functions. Norms
    /// and squares, because roundings of different elements and of different operations are independent.
    pub sums: f64,
    /// Sum over the computed values of the elements' |v_i dphi/dv_i|: for values each rounded once, whatever the signs.
    pub stores: f64,
}

/// The sensitivity of `<y, dy>` to every value that depends on `wrt`. `dy` is the input of that name.
pub fn sensitivity(g: &Graph, y: Id, dy: Id, wrt: &[Id], inputs: &Values) -> Sensitivity {
    let ids = path(g, y, wrt);
    let mut g = g.clone();
    let grads = gradients(&mut g, y, dy, &ids, false).expect("gradients of intermediate values");
    let all: Vec<Id> = ids.iter().chain(&grads).copied().collect();
    let found = values(&g, &all, inputs, false);
    let mut total = Sensitivity { sums: 0.0, stores: 0.0 };
    for (i, &id) in ids.iter().enumerate() {
        let (v, d) = (&found[i], &found[ids.len() + i]);
        total.sums = total.sums.hypot((terms(&g, id) + 4) as f64 * norm(v) * norm(d));
        if !matches!(g.node(id).op, Op::Leaf { .. } | Op::Reshape | Op::Detach) {
            total.stores += v.iter().zip(d).map(|(v, d)| (v * d).abs()).sum::<f64>();
        }
    }
    total
}

/// A small transformer of two blocks (the first with a second attention) with LoRA: velocity, `dy`, what to
/// differentiate by (latents, text, LoRA matrices).
pub fn transformer(rank: usize, side: usize, tokens: usize) -> (Graph, Id, Id, Vec<Id>) {
    use pentimento_runtime::model::lora::Lora;
    use pentimento_runtime::model::mmdit::{MmditConfig, TIME_CHANNELS, lora_targets, velocity};
    let cfg = MmditConfig {
        attention_head_dim: 16,
        joint_attention_dim: 12,
        pooled_projection_dim: 8,
        ..tests::tiny::transformer(2)
    };
    let mut g = Graph::new();
    let x = g.input("latents", &[2, side, side, cfg.in_channels]);
    let time = g.input("time", &[2, TIME_CHANNELS]);
    let pooled = g.input("pooled", &[2, cfg.pooled_projection_dim]);
    let context = g.input("context", &[2, tokens, cfg.joint_attention_dim]);
    let bias = g.input("key_bias", &[side * side + tokens]);
    let lora = Lora::joint(&cfg, rank, 2.0);
    let y = velocity(&mut g, &cfg, Some(&lora), x, time, pooled, context, Some(bias));
    let dy = g.input("dy", &[2, side, side, cfg.in_channels]);
    let mut wrt = vec![x, time, pooled, context];
    for (target, i, o) in lora_targets(&cfg) {
        for (letter, shape) in [("A", [rank, i]), ("B", [o, rank])] {
            // The last block's text queries feed nothing.
            if !target.contains("blocks.1.attn.add_q") {
                wrt.push(g.param(format!("lora/{target}.lora_{letter}.weight"), &shape));
            }
        }
    }
    (g, y, dy, wrt)
}
