//! Where the time of a transformer run goes: `cargo bench -p tests --bench step`. Needs an adapter.
use pentimento::exec::wgpu::Wgpu;
use pentimento::exec::{Executor, LeafData, PlanId, compile};
use pentimento::grad::gradients;
use pentimento::graph::{Graph, Leaf, Op};
use pentimento::model::lora::Lora;
use pentimento::model::mmdit::{Config, TIME_CHANNELS, velocity};

/// The default model's transformer with random weights; `train` adds the LoRA gradients.
fn plan(gpu: &mut Wgpu, batch: usize, train: bool) -> PlanId {
    let cfg = Config {
        patch_size: 1,
        num_layers: 5,
        num_attention_heads: 3,
        joint_attention_dim: 256,
        pooled_projection_dim: 192,
        pos_embed_max_size: 16,
        dual_attention_layers: vec![0, 1],
        ..Config::sd35_medium()
    };
    let mut g = Graph::new();
    let lora = Lora::joint(&cfg, 16, 1.0);
    let x = g.input("latents", &[batch, 8, 8, 16]);
    let time = g.input("time", &[batch, TIME_CHANNELS]);
    let pooled = g.input("pooled", &[batch, 192]);
    let context = g.input("context", &[batch, 25, 256]);
    let bias = g.input("key_bias", &[89]);
    let v = velocity(&mut g, &cfg, Some(&lora), x, time, pooled, context, Some(bias));
    let mut outputs = vec![("v".to_string(), v)];
    if train {
        let params: Vec<_> = (0..g.nodes().len())
            .filter_map(|i| match &g.nodes()[i].op {
                Op::Leaf { kind: Leaf::Param, name } => Some((name.clone(), g.nodes()[i].shape.clone())),
                _ => None,
            })
            .collect();
        let wrt: Vec<_> = params.iter().map(|(n, s)| g.param(n.clone(), s)).collect();
        // The last block's text queries feed nothing.
        let wrt: Vec<_> =
            wrt.into_iter().zip(&params).filter(|(_, p)| !p.0.contains("4.attn.add_q")).collect();
        let ids: Vec<_> = wrt.iter().map(|w| w.0).collect();
        let dy = g.input("dy", &[batch, 8, 8, 16]);
        let grads = gradients(&mut g, v, dy, &ids, false).expect("gradients");
        outputs.extend(grads.into_iter().enumerate().map(|(i, d)| (format!("d{i}"), d)));
    }
    for n in g.nodes() {
        if let Op::Leaf { kind: Leaf::Param | Leaf::Weight(_), name } = &n.op
            && !gpu.has_leaf(name)
        {
            let len = n.shape.iter().product::<usize>();
            let data: Vec<f32> = (0..len).map(|i| ((i % 31) as f32 - 15.0) * 0.01).collect();
            gpu.set_leaf(name, LeafData::F32(&data)).expect("a weight");
        }
    }
    let outputs: Vec<_> = outputs.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    compile(gpu, g, &outputs).expect("a plan")
}

fn main() {
    let mut gpu = match Wgpu::open(std::env::var("PENTIMENTO_ADAPTER").ok().as_deref()) {
        Ok(gpu) => gpu,
        Err(e) => return println!("SKIPPED: {e}"),
    };
    for (batch, train) in [(32, false), (16, true)] {
        let plan = plan(&mut gpu, batch, train);
        gpu.run(plan).and_then(|()| gpu.read(plan, "v")).expect("a run");
        let start = std::time::Instant::now();
        gpu.run(plan).and_then(|()| gpu.read(plan, "v")).expect("a run");
        let whole = start.elapsed().as_secs_f64();
        let spent = gpu.profile(plan).expect("a profile");
        let flops: u64 = spent.iter().map(|s| s.flops).sum();
        println!(
            "\n{}: batch {batch}, train {train}: {whole:.3} s, {:.2} GFLOP/s",
            gpu.name(),
            flops as f64 / whole / 1e9
        );
        for s in spent.iter().take(16) {
            let v = s.variant;
            println!(
                "{:>9.2} ms {:>4} x {:<20} {:<22} {:>8.2} GFLOP/s",
                s.seconds * 1e3,
                s.count,
                v.entry(),
                v.body(),
                s.flops as f64 / s.seconds / 1e9
            );
        }
    }
}
