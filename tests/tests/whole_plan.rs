//! Whole plans of SD3.5-medium without its weights: every pipeline is created and every dispatch validated by wgpu's noop
//! backend against the limits WebGPU guarantees. Tensors larger than a binding are cut there; smaller plans show that
//! cutting changes no bit.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::null::{Count, count, moved};
use pentimento_runtime::exec::wgpu::Wgpu;
use pentimento_runtime::exec::{Executor, LeafData, kept};
use pentimento_runtime::grad::{Recompute, gradients};
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::model::lora::Lora;
use pentimento_runtime::model::mmdit::{self, MmditConfig, TIME_CHANNELS, lora_targets, velocity};
use pentimento_runtime::model::{Constants, dino, vae};
use pentimento_runtime::plan::{Place, Plan, check_overlap};
use pentimento_runtime::rng::Philox;
use pentimento_runtime::weights::Base;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::{Act, Binary};
use std::collections::BTreeMap;
use tests::adapter::{adapter, with_matrices};

/// A graph and what is read of it.
struct Work {
    graph: Graph,
    outputs: Vec<(String, Id)>,
}

/// Velocity of `batch` latents of `side` x `side` pixels with a rank `r` adapter and, with `train`, the gradient of every
/// one of its matrices; blocks are recomputed as in training.
fn work(cfg: &MmditConfig, batch: usize, side: usize, tokens: usize, r: usize, train: bool) -> Work {
    step(cfg, batch, side, tokens, r, train.then_some(Recompute::All))
}
/// With another recomputation.
fn step(
    cfg: &MmditConfig,
    batch: usize,
    side: usize,
    tokens: usize,
    r: usize,
    train: Option<Recompute>,
) -> Work {
    let mut g = Graph::new();
    let x = g.input("latents", &[batch, side, side, cfg.in_channels]);
    let time = g.input("time", &[batch, TIME_CHANNELS]);
    let pooled = g.input("pooled", &[batch, cfg.pooled_projection_dim]);
    let context = g.input("context", &[batch, tokens, cfg.joint_attention_dim]);
    let v = velocity(&mut g, cfg, Some(&Lora::joint(cfg, r, 1.0)), x, time, pooled, context, None);
    let mut outputs = vec![("velocity".to_string(), v)];
    if let Some(how) = train {
        let dy = g.input("dy", &[batch, side, side, cfg.in_channels]);
        let matrices = lora_targets(cfg).into_iter().flat_map(|(t, i, o)| {
            [(format!("lora/{t}.lora_A.weight"), [r, i]), (format!("lora/{t}.lora_B.weight"), [o, r])]
        });
        let (names, wrt): (Vec<_>, Vec<_>) =
            matrices.map(|(n, s)| (format!("d {n}"), g.param(n, &s))).unzip();
        let grads = gradients(&mut g, v, dy, &wrt, how).expect("gradients");
        outputs.extend(names.into_iter().zip(grads));
    }
    Work { graph: g, outputs }
}

impl Work {
    fn plan(&self, caps: &Caps, weights: &dyn Fn(&str) -> Stored) -> pentimento_runtime::Result<Plan> {
        let outputs: Vec<(&str, Id)> = self.outputs.iter().map(|(n, i)| (n.as_str(), *i)).collect();
        Plan::new(self.graph.clone(), &outputs, caps, weights)
    }
    /// Every output, with seeded normal weights and inputs.
    fn run(&self, exec: &mut dyn Executor, caps: &Caps) -> Vec<Vec<f32>> {
        let plan = self.plan(caps, &|_| Stored::F32).expect("a plan");
        check_overlap(&plan).expect("no overlap");
        let normals = |i: usize, shape: &[usize]| {
            let mut data = vec![0.0; shape.iter().product()];
            Philox::new(1, i as u64).normals(&mut data);
            data
        };
        for (i, leaf) in plan.leaves.iter().enumerate() {
            let data: Vec<f32> = normals(i, &leaf.shape).iter().map(|v| 0.2 * v).collect();
            exec.set_leaf(&leaf.name, LeafData::F32(&data)).expect("a leaf");
        }
        let inputs = plan.inputs.clone();
        let id = exec.prepare(plan).expect("a plan");
        for (i, input) in inputs.iter().enumerate().filter(|i| i.1.name != "zero") {
            exec.write(id, &input.name, &normals(1000 + i, &input.shape)).expect("an input");
        }
        exec.run(id).expect("a run");
        self.outputs.iter().map(|(n, _)| exec.read(id, n).expect("an output")).collect()
    }
}

/// Context tokens of the published pipeline: 77 of CLIP, 256 of T5. Rank of its adapters in the released code.
const TOKENS: usize = 77 + 256;
const RANK: usize = 32;

fn whole(side: usize, train: bool) -> Option<(Plan, Count)> {
    let mut noop = match Wgpu::noop() {
        Ok(noop) => noop,
        Err(e) => {
            println!("SKIPPED: whole plans on noop ({e})");
            return None;
        }
    };
    // Two images: a prompt and its unconditional partner, as guidance runs them.
    let work = work(&MmditConfig::sd35_medium(), 2, side, TOKENS, RANK, train);
    noop.declare_leaves(&work.graph, &|_| Stored::F16).expect("room");
    let caps = noop.caps().clone();
    assert_eq!((caps.max_binding, caps.alignment), (128 << 20, 256));
    let plan = work.plan(&caps, &|name| noop.stored(name)).expect("a plan");
    check_overlap(&plan).expect("no overlap");
    let id = noop.prepare(plan.clone()).expect("valid pipelines and bindings");
    noop.run(id).expect("valid dispatches");
    let c = count(&plan);
    println!(
        "SD3.5-medium {0} x {0}, batch 2, {1}: {2} dispatches, {3:.2} TFLOP, {4:.2} GB beside the weights",
        8 * side,
        if train { "LoRA step" } else { "forward" },
        c.dispatches,
        c.flops as f64 * 1e-12,
        c.bytes as f64 * 1e-9
    );
    Some((plan, c))
}

#[test]
fn sd35_medium_at_512_is_valid() {
    whole(64, false);
    whole(64, true);
}

/// Dispatches, and bytes that all commands read and write, of SD3.5-medium at 512 x 512, batch 2, rank 32, on a GPU with cooperative
/// matrices. Each dispatch costs some 2 us, and the time in which a GPU empties and fills again; memory is most of what is not a product:
/// neither may grow unseen.
#[test]
fn dispatches_and_bytes_do_not_grow() {
    let caps = with_matrices();
    for (train, commands, dispatches, gigabytes) in [(false, 1215, 423, 26.9), (true, 4659, 2069, 99.6)] {
        let work = work(&MmditConfig::sd35_medium(), 2, 64, 333, 32, train);
        let plan = work.plan(&caps, &|_| Stored::F16).expect("a plan");
        let bytes: u64 = plan.commands.iter().map(|c| moved(&plan, c, &|_| Stored::F16)).sum();
        let (n, few, gb) = (plan.commands.len(), plan.dispatches(), bytes as f64 * 1e-9);
        println!("train {train}: {n} commands in {few} dispatches, {gb:.1} GB");
        assert!(n <= commands && few <= dispatches && gb <= gigabytes);
        assert!(n * 10 > commands * 9 && few * 10 > dispatches * 9, "far fewer: lower the limit");
    }
}

/// Device memory of SD3.5-medium's LoRA step at 512 x 512, batch 2, rank 32, blocks recomputed: weights and all that a plan has.
#[test]
fn a_step_fits_small_cards() {
    let work = work(&MmditConfig::sd35_medium(), 2, 64, 333, 32, true);
    let caps = with_matrices();
    for (name, base, most) in [("f16", None, 5.4), ("q8", Some(Base::Q8), 3.3), ("q4", Some(Base::Q4), 2.2)] {
        let asked = |leaf: &str| base.filter(|_| mmdit::quantised(leaf)).map_or(Stored::F16, Base::stored);
        let stored = kept(&caps, &work.graph, &asked);
        let leaves = work.graph.nodes().iter().zip(stored).filter_map(|(node, stored)| match &node.op {
            Op::Leaf { kind: Leaf::Weight(_) | Leaf::Param, name } => {
                Some((name.clone(), (stored, stored.bytes(node.shape.iter().product()))))
            }
            _ => None,
        });
        let leaves: BTreeMap<String, (Stored, usize)> = leaves.collect();
        let weights = leaves.values().map(|l| l.1).sum::<usize>() as f64 * 1e-9;
        let plan = work.plan(&caps, &|name| leaves[name].0).expect("a plan");
        let gb = |bytes: u64| bytes as f64 * 1e-9;
        let all = weights + gb(plan.bytes());
        println!(
            "{name}: {all:.2} GB: {weights:.2} of weights, {:.2} of activations, {:.3} for an unpacked weight; {} dispatches",
            gb(plan.bytes() - plan.unpacked),
            gb(plan.unpacked),
            plan.dispatches()
        );
        assert!(all <= most, "{name}: {all} GB");
    }
}

/// What is computed again costs work instead of memory. At 1024 x 1024 attention is a third of the work.
#[test]
fn recomputation_trades_memory_for_work() {
    for side in [64, 128] {
        let costs = [Recompute::Nothing, Recompute::Most, Recompute::All].map(|how| {
            let work = step(&MmditConfig::sd35_medium(), 2, side, 333, 32, Some(how));
            let plan = work.plan(&with_matrices(), &|_| Stored::F16).expect("a plan");
            check_overlap(&plan).expect("no overlap");
            let (gb, tera) = (plan.bytes() as f64 * 1e-9, plan.flops as f64 * 1e-12);
            let pixels = 8 * side;
            println!(
                "{pixels} x {pixels}, {how:?}: {gb:.2} GB, {tera:.1} TFLOP, {} dispatches",
                plan.dispatches()
            );
            [gb, tera]
        });
        let [nothing, most, all] = costs;
        assert!(nothing[0] > 4.0 * most[0] && most[0] > 1.5 * all[0], "{costs:?}");
        assert!(most[1] > 1.1 * nothing[1] && all[1] > 1.05 * most[1], "{costs:?}");
    }
}

/// What a host with frames asks for: no dispatch of more than 8 GFLOP, or of more bytes than take as long, but for a workgroup's, with the
/// bits of uncut ones.
#[test]
fn long_dispatches_are_cut() {
    let longest = 8_000_000_000;
    let caps = Caps { longest, ..with_matrices() };
    let real = [(2, 64, false), (2, 64, true), (2, 128, true)]
        .map(|(batch, side, train)| work(&MmditConfig::sd35_medium(), batch, side, 333, 32, train));
    for (work, name) in
        real.iter().chain([&seen(64, usize::MAX, true)]).zip(["forward", "step", "1024", "seen"])
    {
        let plan = work.plan(&caps, &|_| Stored::F16).expect("a plan");
        let whole = work.plan(&with_matrices(), &|_| Stored::F16).expect("a plan");
        check_overlap(&plan).expect("no overlap");
        let most = |plan: &Plan| plan.commands.iter().map(|c| c.flops).max().unwrap_or(0);
        let (before, now) = (most(&whole), most(&plan));
        assert!(now <= longest + longest / 8, "{name}: a dispatch of {now} operations");
        println!(
            "{name}: {} dispatches instead of {}, the longest of {:.1} GFLOP instead of {:.0}",
            plan.dispatches(),
            whole.dispatches(),
            now as f64 * 1e-9,
            before as f64 * 1e-9
        );
    }
    let small = work(&tests::tiny::transformer(2), 2, 8, 5, 4, true);
    let caps = Caps::unlimited("uncut");
    let whole = small.run(&mut Cpu::new(), &caps);
    let cut = Caps { longest: 100_000, ..caps.clone() };
    let [few, many] =
        [&caps, &cut].map(|caps| small.plan(caps, &|_| Stored::F32).expect("a plan").commands.len());
    assert!(many > few + few / 4, "{many} dispatches instead of {few}");
    assert!(whole == small.run(&mut Cpu::new(), &cut), "other bits");
}

/// The largest training batches that fit WebGPU's limits; the next ones exceed a buffer, and the error says so.
#[test]
fn batches_end_at_the_size_of_a_buffer() {
    for (side, batch) in [(64, 8), (128, 2)] {
        let plan = |batch| {
            let work = work(&MmditConfig::sd35_medium(), batch, side, TOKENS, RANK, true);
            work.plan(&Caps::webgpu(), &|_| Stored::F16)
        };
        plan(batch).expect("a plan");
        let error = plan(2 * batch).expect_err("too large").to_string();
        assert!(error.contains("a buffer holds 268419072") && error.contains("smaller batch"), "{error}");
    }
}

/// Hidden states of the feed-forward layers take 201 MB here and are cut; everything else fits a binding.
#[test]
fn sd35_medium_at_1024_is_valid() {
    for train in [false, true] {
        let Some((plan, c)) = whole(128, train) else { return };
        let uncut = work(&MmditConfig::sd35_medium(), 2, 128, TOKENS, RANK, train)
            .plan(&Caps::unlimited("null"), &|_| Stored::F32)
            .expect("a plan");
        assert!(c.dispatches > count(&uncut).dispatches);
        let limit = Caps::webgpu().max_binding;
        assert!(uncut.commands.iter().flat_map(|c| &c.args).any(|s| 4 * s.len as u64 > limit));
        let bound = plan.commands.iter().flat_map(|c| c.args.iter().zip(c.variant.bindings()));
        let largest = bound.map(|(s, b)| b.1.bytes(s.len) as u64);
        assert!(largest.max().expect("commands") <= limit);
    }
}

/// The check above would notice: uncut, the same plan is refused by wgpu, and so is an offset that is not aligned.
#[test]
fn noop_refuses_what_exceeds_the_limits() {
    let Ok(mut noop) = Wgpu::noop() else { return println!("SKIPPED: refusals of noop") };
    let work = work(&MmditConfig::sd35_medium(), 2, 128, TOKENS, RANK, false);
    noop.declare_leaves(&work.graph, &|_| Stored::F16).expect("room");
    let weights = |name: &str| noop.stored(name);
    let caps = Caps { max_binding: 1 << 30, ..Caps::webgpu() };
    let uncut = work.plan(&caps, &weights).expect("a plan");
    let mut crooked = work.plan(&Caps::webgpu(), &weights).expect("a plan");
    let error = noop.prepare(uncut).expect_err("beyond a binding").to_string();
    assert!(error.contains("134217728"), "{error}");
    let slots = crooked.commands.iter_mut().flat_map(|c| &mut c.args);
    for slot in slots.chain(crooked.outputs.iter_mut().map(|o| &mut o.slot)) {
        if let Place::Arena { offset, .. } = &mut slot.place {
            *offset += 16;
        }
    }
    crooked.slabs.iter_mut().for_each(|size| *size += 16);
    let error = noop.prepare(crooked).expect_err("not aligned").to_string();
    assert!(error.contains("256") && error.contains("offset"), "{error}");
}

/// DINOv2's tokens of the picture that SD3's autoencoder makes of one latent of `side` x `side`, and their gradient by it.
fn seen(side: usize, most: usize, recompute: bool) -> Work {
    let (mut g, mut constants) = (Graph::new(), Constants::new());
    let vae = vae::VaeConfig::sd3();
    let z = g.input("latents", &[1, side, side, vae.latent_channels]);
    let image = vae::decode_within(&mut g, &vae, z, most);
    let image = g.affine(image, 0.5, 0.5);
    let pixels = dino::preprocess(&mut g, &mut constants, image, [518, 518], &dino::Pixels::imagenet());
    let y = dino::encode(&mut g, &mut constants, &dino::DinoConfig::base(), "reward", pixels);
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    let dz = gradients(&mut g, y, dy, &[z], recompute).expect("a gradient");
    Work { graph: g, outputs: vec![("tokens".into(), y), ("dz".into(), dz[0])] }
}

/// Decoder, resizing and DINOv2 forward and back at 512 x 512: what recomputation saves, and, in bands, within WebGPU's limits.
#[test]
fn a_gradient_through_a_picture_is_valid() {
    let bytes = [false, true].map(|recompute| {
        let work = seen(64, usize::MAX, recompute);
        let c = count(&work.plan(&Caps::unlimited("null"), &|_| Stored::F32).expect("a plan"));
        let (n, gb, tera) = (c.dispatches, c.bytes as f64 * 1e-9, c.flops as f64 * 1e-12);
        let how = if recompute { "recomputed" } else { "stored" };
        println!(
            "latents to tokens and back at 512 x 512, {how}: {n} dispatches, {tera:.2} TFLOP, {gb:.2} GB"
        );
        c.bytes
    });
    assert!(bytes[1] < bytes[0], "{bytes:?}");
    let mut noop = match Wgpu::noop() {
        Ok(noop) => noop,
        Err(e) => return println!("SKIPPED: a gradient through a picture on noop ({e})"),
    };
    let caps = noop.caps().clone();
    let work = seen(64, caps.max_binding as usize / 4, true);
    noop.declare_leaves(&work.graph, &|_| Stored::F16).expect("room");
    let plan = work.plan(&caps, &|name| noop.stored(name)).expect("a plan");
    check_overlap(&plan).expect("no overlap");
    let id = noop.prepare(plan.clone()).expect("valid pipelines and bindings");
    noop.run(id).expect("valid dispatches");
    let c = count(&plan);
    println!("the same in bands: {} dispatches, {:.2} GB", c.dispatches, c.bytes as f64 * 1e-9);
}

/// Builds a value; returns it and what gradients are asked for.
type Build = fn(&mut Graph) -> (Id, Vec<Id>);

/// Forward value and all gradients of `build`'s result.
fn of(build: Build) -> Work {
    let mut graph = Graph::new();
    let (y, wrt) = build(&mut graph);
    let shape = graph.shape(y).to_vec();
    let dy = graph.input("dy", &shape);
    let grads = gradients(&mut graph, y, dy, &wrt, false).expect("gradients");
    let outputs = core::iter::once(y).chain(grads).enumerate().map(|(i, id)| (format!("y{i}"), id)).collect();
    Work { graph, outputs }
}

/// Small graphs of every op that the planner can cut, one or two kernels each. B, S, C: 3 images, 64 rows, 64 columns.
const CUT: [(&str, Build); 11] = [
    ("unary", |g| {
        let x = g.input("x", &[3, 64, 64]);
        (g.act(Act::Gelu, x), vec![x])
    }),
    ("binary", |g| {
        let (x, y) = (g.input("x", &[3, 64, 64]), g.input("y", &[3, 64, 64]));
        let (row, image) = (g.input("row", &[64]), g.input("image", &[3, 1, 64]));
        let one = g.input("one", &[1]);
        let z = g.mul(x, y);
        let z = g.sub(z, row);
        let z = g.binary(Binary::Scale1, z, image);
        (g.mul(z, one), vec![x, y])
    }),
    ("norms", |g| {
        let x = g.input("x", &[3, 64, 64]);
        let (w, b) = (g.input("w", &[64]), g.input("b", &[64]));
        let y = g.layer_norm_affine(x, w, b, 1e-5);
        let y = g.rms_norm(y, w, 1e-5);
        (g.layer_norm(y, 1e-5), vec![x])
    }),
    ("modulated norm", |g| {
        let x = g.input("x", &[3, 64, 64]);
        let (scale, shift) = (g.input("scale", &[3, 1, 64]), g.input("shift", &[3, 1, 64]));
        let y = g.layer_norm(x, 1e-5);
        let y = g.binary(Binary::Scale1, y, scale);
        (g.add(y, shift), vec![])
    }),
    ("linear", |g| {
        let (x, w, b) = (g.input("x", &[3, 64, 64]), g.input("w", &[64, 64]), g.input("b", &[64]));
        let (gate, r) = (g.input("gate", &[3, 1, 64]), g.input("r", &[3, 64, 64]));
        let y = g.linear(x, w, Some(b));
        let y = g.act(Act::GeluTanh, y);
        let y = g.mul(y, gate);
        (g.add(r, y), vec![x])
    }),
    ("copies", |g| {
        let (x, y) = (g.input("x", &[3, 64, 64]), g.input("y", &[3, 16, 64]));
        let z = g.concat(x, y, 1);
        (g.slice(z, 1, 8, 48), vec![x, y])
    }),
    ("sum", |g| {
        let x = g.input("x", &[3, 64, 64]);
        (g.sum(x, 3 * 64, 4, 16, 0.5, &[3, 64, 16]), vec![])
    }),
    ("attention", |g| {
        let [q, k, v] = ["q", "k", "v"].map(|n| g.input(n, &[3, 64, 64]));
        (g.attention(q, k, v, 4, None, false), vec![q, k, v])
    }),
    ("convolution", |g| {
        let (x, k) = (g.input("x", &[3, 8, 8, 64]), g.input("k", &[64, 1, 1, 64]));
        (g.conv2d(x, k, None, 1, 0, 0), vec![x])
    }),
    ("group norm, softmax", |g| {
        let (x, w, b) = (g.input("x", &[3, 8, 8, 64]), g.input("w", &[64]), g.input("b", &[64]));
        let y = g.group_norm(x, w, b, 4, 1e-5);
        (g.softmax(y, 0.5), vec![x])
    }),
    ("upsampling", |g| {
        let x = g.input("x", &[3, 4, 4, 64]);
        (g.upsample(x), vec![x])
    }),
];

/// The same commands in pieces give the same bits, on the twins and on the adapter.
#[test]
fn cutting_changes_no_bit() {
    let mut gpu = adapter("commands cut to fit bindings");
    for (name, build) in CUT {
        let w = of(build);
        let check = |exec: &mut dyn Executor| {
            let caps = exec.caps().clone();
            let want = w.run(exec, &caps);
            // 33 000 bytes hold two images, 21 000 one and 5 000 a third of one.
            let commands = |max_binding: u64| {
                let plan = w.plan(&Caps { max_binding, ..caps.clone() }, &|_| Stored::F32);
                plan.map(|p| p.commands.len())
            };
            let whole = commands(1 << 20).expect("a plan");
            for limit in [33_000, 21_000, 5_000] {
                match commands(limit) {
                    Ok(n) => assert!(n > whole, "{name}: {whole} commands for {limit} bytes"),
                    Err(e) => {
                        // Weights, whole images of attention and gradients of weights cannot be cut.
                        assert!(limit < 21_000 && e.to_string().contains("a binding of"), "{name}: {e}");
                        continue;
                    }
                }
                let got = w.run(exec, &Caps { max_binding: limit, ..caps.clone() });
                assert!(got.iter().flatten().any(|v| *v != 0.0) && got == want, "{name} in {limit} bytes");
            }
        };
        check(&mut Cpu::new());
        if let Some(gpu) = &mut gpu {
            check(gpu);
        }
    }
}

/// What cannot be cut is refused in a sentence: here the queries, keys and values of one image.
#[test]
fn what_cannot_be_cut_is_refused() {
    let w = of(CUT[7].1);
    let error = w.plan(&Caps { max_binding: 5_000, ..Caps::webgpu() }, &|_| Stored::F32);
    let error = error.expect_err("too large").to_string();
    assert!(error.contains("a binding of attention holds 5000"), "{error}");
}
