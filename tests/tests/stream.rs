//! Weights that stay on the host: the same bits as on the device, in windows of every size, whatever interrupts; the same memory counted as
//! held; trainings, and states that go on with the other way.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::null::Null;
use pentimento_runtime::exec::wgpu::{Follow, Wgpu};
use pentimento_runtime::exec::{Executor, LeafData, PlanId, compile, keeps};
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::model::mmdit::quantised;
use pentimento_runtime::rng::Philox;
use pentimento_runtime::weights::{Base, Shared, Storage, Weights};
use pentimento_wgsl::Stored;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tests::adapter::adapter;
use tests::job::{ENOUGH, Job, bytes, run};
use tests::tiny::{transformer, velocity_graph};

/// Windows: of one weight each, of some, of all.
const WINDOWS: [u64; 3] = [1, 200_000, 1 << 25];

fn normals(seed: u64, len: usize) -> Vec<f32> {
    let mut data = vec![0.0; len];
    Philox::new(seed, 0).normals(&mut data);
    data.iter_mut().for_each(|v| *v *= 0.2);
    data
}

/// A matrix as a file has it.
fn file(stored: Stored, numbers: &[f32]) -> Vec<u8> {
    match stored {
        Stored::Q8_0 => Base::Q8.quantise(numbers).expect("room"),
        Stored::Q4_0 => Base::Q4.quantise(numbers).expect("room"),
        Stored::F16 => numbers.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        _ => numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// A LoRA step of the small transformer with its matrices stored so; those of the blocks stay on the host with `stream`.
fn prepare(exec: &mut dyn Executor, batch: usize, stored: Stored, stream: bool) -> PlanId {
    let (g, out) = velocity_graph(&transformer(3), batch, 4, 7, true, true);
    set(exec, &g, stored, stream);
    let out: Vec<(&str, Id)> = out.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    let plan = compile(exec, g, &out).expect("a plan");
    let inputs = exec.plan(plan).inputs.clone();
    for (i, input) in inputs.iter().enumerate() {
        exec.write(plan, &input.name, &normals(100 + i as u64, input.slot.len)).expect("an input");
    }
    plan
}

fn set(exec: &mut dyn Executor, g: &Graph, stored: Stored, stream: bool) {
    for (i, n) in g.nodes().iter().enumerate() {
        let Op::Leaf { kind: kind @ (Leaf::Weight(_) | Leaf::Param), name } = &n.op else { continue };
        if exec.has_leaf(name) {
            continue;
        }
        let numbers = normals(i as u64, n.shape.iter().product());
        let matrix = matches!(kind, Leaf::Weight(_)) && quantised(name) && n.shape.len() == 2;
        let stored = if matrix && keeps(exec.caps(), &n.shape, stored) { stored } else { Stored::F32 };
        let bytes = file(stored, &numbers);
        let set = match stored {
            _ if matrix && stream => {
                let shared = Shared::own(stored.to_device(&bytes).expect("room").into_owned());
                exec.set_streamed(name, stored, numbers.len(), shared)
            }
            Stored::F32 => exec.set_leaf(name, LeafData::F32(&numbers)),
            _ => exec.set_leaf(name, LeafData::Packed(stored, &bytes)),
        };
        set.expect("a leaf");
    }
}

/// Bits of all outputs: the velocity and every gradient.
fn read(exec: &mut dyn Executor, plan: PlanId) -> Vec<u32> {
    let names: Vec<String> = exec.plan(plan).outputs.iter().map(|o| o.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    exec.peek_all(plan, &names).expect("results").concat().into_iter().map(f32::to_bits).collect()
}

fn computed(exec: &mut dyn Executor, plan: PlanId) -> Vec<u32> {
    exec.run(plan).expect("a run");
    read(exec, plan)
}

#[test]
fn streamed_weights_give_the_same_bits() {
    for stored in [Stored::F32, Stored::F16, Stored::Q8_0, Stored::Q4_0] {
        let mut cpu = Cpu::new();
        let plan = prepare(&mut cpu, 1, stored, false);
        let twins = computed(&mut cpu, plan);
        let mut cpu = Cpu::new();
        let plan = prepare(&mut cpu, 1, stored, true);
        assert!(computed(&mut cpu, plan) == twins, "{stored:?} on the twins");
        let Some(mut gpu) = adapter("streamed weights") else { return };
        let plan = prepare(&mut gpu, 2, stored, false);
        let want = computed(&mut gpu, plan);
        assert_eq!(gpu.streamed(), 0);
        let whole = gpu.memory().now;
        for window in WINDOWS {
            let mut gpu = adapter("streamed weights").expect("again").with_window(window);
            let plan = prepare(&mut gpu, 2, stored, true);
            for time in 1..=3 {
                assert!(computed(&mut gpu, plan) == want, "{stored:?}, {window} bytes, run {time}");
            }
            let now = gpu.memory().now;
            assert!(now.leaves < whole.leaves && now.window > 0, "{now:?} of {whole:?}");
            let (held, passed) = (now.leaves + now.window, gpu.streamed() / 3);
            println!(
                "{stored:?}, window {}: {held} of {} bytes, {passed} a run",
                now.window / 3,
                whole.leaves
            );
            // A weight that several commands read comes once where it can be kept that long.
            assert!(passed >= (whole.leaves - now.leaves) && (window > 1 || now.window / 3 < passed / 10));
        }
    }
}

#[test]
fn whatever_comes_between_the_bits_are_the_same() {
    let Some(mut gpu) = adapter("streamed weights with interruptions") else { return };
    let plan = prepare(&mut gpu, 1, Stored::Q8_0, false);
    let want = computed(&mut gpu, plan);
    let mut gpu = adapter("again").expect("again").with_window(50_000);
    let plan = prepare(&mut gpu, 1, Stored::Q8_0, true);
    let other = prepare(&mut gpu, 2, Stored::Q8_0, true);
    let known = computed(&mut gpu, other);
    // Command by command, which begins in the middle of windows; put back; another plan in the same room.
    while !gpu.one(plan).expect("a command") {}
    assert!(read(&mut gpu, plan) == want, "command by command");
    for n in [1, 40, 111] {
        gpu.rewind(plan);
        (0..n).for_each(|_| assert!(!gpu.one(plan).expect("a command")));
        gpu.rewind(plan);
        assert!(computed(&mut gpu, plan) == want, "put back after {n}");
        gpu.rewind(plan);
        (0..n).for_each(|_| assert!(!gpu.one(plan).expect("a command")));
        assert!(computed(&mut gpu, other) == known, "the other after {n}");
        while !gpu.advance(plan).expect("a slice") {}
        assert!(read(&mut gpu, plan) == want, "interrupted after {n}");
    }
    // Every command agrees with its twin, and the profile has them all.
    let found = gpu.bisect(plan, None, Follow::Adapter, &mut |_| {}).expect("no failure");
    assert!(found.is_none(), "{found:?}");
    assert!(read(&mut gpu, plan) == want, "bisected");
    let commands = gpu.plan(plan).commands.len();
    assert_eq!(gpu.profile(plan).expect("a profile").commands.len(), commands);
    assert!(read(&mut gpu, plan) == want, "profiled");
    // The room grows and shrinks with the plans.
    let (window, large) = (gpu.memory().now.window, prepare(&mut gpu, 4, Stored::Q8_0, true));
    computed(&mut gpu, large);
    gpu.forget(large).expect("forgotten");
    gpu.forget(other).expect("forgotten");
    assert!(computed(&mut gpu, plan) == want, "after growth and shrinking");
    assert_eq!(gpu.memory().now.window, window);
    gpu.forget(plan).expect("forgotten");
    gpu.forget_leaves("transformer/").expect("forgotten");
    assert_eq!((gpu.memory().now.window, gpu.has_leaf("transformer/proj_out.weight")), (0, false));
}

/// An argument that stays on the host is read there; a weight is set anew where it is.
#[test]
fn hosted_leaves_are_read_and_set() {
    let Some(gpu) = adapter("streamed weights, read back") else { return };
    let caps = gpu.caps().clone();
    let all: [Box<dyn Executor>; 3] = [Box::new(gpu), Box::new(Cpu::new()), Box::new(Null::new(caps))];
    for mut exec in all {
        let exec = &mut *exec;
        let plan = prepare(exec, 1, Stored::Q8_0, true);
        let before = computed(exec, plan);
        let name = "transformer/transformer_blocks.1.attn.to_q.weight";
        let command = exec.plan(plan).commands.iter().find_map(|c| {
            let leaves = &exec.plan(plan).leaves;
            let at = leaves.iter().position(|leaf| leaf.name == name)?;
            c.args.iter().copied().find(|slot| slot.place == pentimento_runtime::plan::Place::Leaf(at))
        });
        let slot = command.expect("a reader");
        let is = exec.argument(plan, &slot).expect("numbers");
        assert!(is.len() == 128 * 128);
        let new = Base::Q8.quantise(&normals(77, 128 * 128)).expect("room");
        exec.set_leaf(name, LeafData::Packed(Stored::Q8_0, &new)).expect("set anew");
        let counts = exec.work() > 0;
        assert!(
            counts
                || exec.argument(plan, &slot).expect("numbers")
                    == Base::Q8.rounded(&normals(77, 128 * 128)).expect("room")
        );
        assert!(counts || computed(exec, plan) != before, "on {}", exec.caps().name);
        if exec.memory().now.window > 0 {
            let resident = "transformer/proj_out.bias";
            let refused = exec.set_streamed(resident, Stored::F32, 16, Shared::own(vec![0; 64]));
            let text = refused.expect_err("it is on the device").to_string();
            assert!(text.contains("proj_out.bias` ") || text.contains("on the device"), "{text}");
        }
    }
}

/// The same steps on both; what they hold and held is the same after each.
#[test]
fn counting_holds_what_streaming_holds() {
    for window in WINDOWS {
        let Some(gpu) = adapter("counted windows") else { return };
        let (mut null, mut gpu) =
            (Null::new(gpu.caps().clone()).with_window(window), gpu.with_window(window));
        let alike = |a: &dyn Executor, b: &dyn Executor, what: &str| {
            assert_eq!(
                (a.memory().now, a.memory().peak),
                (b.memory().now, b.memory().peak),
                "{window}: {what}"
            );
            assert_eq!((a.components(), a.streamed()), (b.components(), b.streamed()), "{window}: {what}");
        };
        let both: [&mut dyn Executor; 2] = [&mut gpu, &mut null];
        let [a, b] = both;
        let mut step = |what: &str, step: &mut dyn FnMut(&mut dyn Executor) -> Option<PlanId>| {
            let plans = [step(a), step(b)];
            assert_eq!(plans[0], plans[1], "{what}");
            alike(a, b, what);
            plans[0]
        };
        let small = step("a plan", &mut |e| Some(prepare(e, 1, Stored::Q8_0, true))).expect("a plan");
        step("run", &mut |e| e.run(small).ok().map(|()| small));
        step("again", &mut |e| e.run(small).ok().map(|()| small));
        let large = step("a larger", &mut |e| Some(prepare(e, 3, Stored::Q8_0, true))).expect("a plan");
        step("run that", &mut |e| e.run(large).ok().map(|()| large));
        step("some commands", &mut |e| {
            e.rewind(small);
            (0..50).for_each(|_| drop(e.one(small)));
            Some(small)
        });
        step("and the rest", &mut |e| e.run(small).ok().map(|()| small));
        step("one goes", &mut |e| e.forget(large).ok().map(|()| large));
        step("what is left", &mut |e| e.run(small).ok().map(|()| small));
        step("all goes", &mut |e| e.forget(small).and_then(|()| e.forget_leaves("")).ok().map(|()| small));
        assert_eq!(null.memory().now.total(), null.memory().now.staging);
    }
}

/// A storage that is gone when it is told so.
struct Fleeting(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Fleeting {
    fn as_ref(&self) -> &[u8] {
        if self.1.load(Ordering::Relaxed) { &[] } else { &self.0 }
    }
}

/// Weights are read from their file for each run: one that changes meanwhile is a sentence, and the device goes on.
#[test]
fn a_file_that_changes_is_a_sentence() {
    let Some(mut gpu) = adapter("a file that changes") else { return };
    let mut bytes = br#"{"w":{"dtype":"F32","shape":[8,8],"data_offsets":[0,256]}}"#.to_vec();
    let length = (bytes.len() as u64).to_le_bytes();
    bytes.splice(0..0, length);
    bytes.extend(normals(1, 64).iter().flat_map(|v| v.to_le_bytes()));
    let gone = Arc::new(AtomicBool::new(false));
    let storage: Storage = Arc::new(Fleeting(bytes, gone.clone()));
    let weights = Weights::from_blocks(vec![("model.safetensors".into(), storage)]).expect("a file");
    let mut g = Graph::new();
    let x = g.input("x", &[8, 8]);
    let w = g.weight("part/w", &[8, 8], pentimento_runtime::graph::Layout::Plain);
    let y = g.linear(x, w, None);
    gpu.set_streamed("part/w", Stored::F32, 64, weights.shared("w").expect("a tensor")).expect("a leaf");
    let plan = compile(&mut gpu, g, &[("y", y)]).expect("a plan");
    gpu.write(plan, "x", &normals(2, 64)).expect("an input");
    let want = computed(&mut gpu, plan);
    gone.store(true, Ordering::Relaxed);
    let text = gpu.run(plan).expect_err("the file is gone").to_string();
    assert!(
        text.contains("`part/w`: expected the bytes seen on opening") && text.contains("Leave"),
        "{text}"
    );
    gone.store(false, Ordering::Relaxed);
    assert!(computed(&mut gpu, plan) == want);
    let short = gpu.set_streamed("part/v", Stored::F32, 64, Shared::own(vec![0; 60])).expect_err("too few");
    assert!(short.to_string().contains("expected 256 bytes, found 60 bytes"), "{short}");
}

/// A whole training on an executor, with a window of a few weights.
fn trained(job: &Job, exec: Box<dyn Executor>) -> [Vec<u8>; 2] {
    let gpu = exec.caps().name != "cpu";
    let mut trainer = job.on(exec).expect("a trainer");
    assert!(run(&mut trainer, ENOUGH).1);
    assert_eq!(trainer.pipeline().exec.streamed() > 0, gpu && job.config.stream);
    bytes(&trainer)
}

#[test]
fn a_training_that_streams_learns_the_same_bits() {
    let gpu = || adapter("trainings that stream").map(|gpu| Box::new(gpu.with_window(30_000)));
    for recipe in ["pathwise", "grpo", "sft", "released"] {
        let Some(exec) = gpu() else { return };
        let mut job = Job::new(recipe);
        let want = trained(&job, exec);
        job.config.stream = true;
        assert!(trained(&job, gpu().expect("again")) == want, "{recipe}");
        job.config.base = Some(Base::Q8);
        if recipe == "pathwise" {
            let streamed = trained(&job, gpu().expect("again"));
            job.config.stream = false;
            assert!(trained(&job, gpu().expect("again")) == streamed && streamed != want, "{recipe}, q8");
        }
    }
}

/// A state goes on with the other way, to the same end.
#[test]
fn states_do_not_know_where_weights_are() {
    let want = trained(&Job::new("pathwise"), Box::new(Cpu::new()));
    for stream in [true, false] {
        let mut job = Job::new("pathwise");
        job.config.stream = stream;
        let mut trainer = job.open();
        while trainer.saved().is_none_or(|s| s.iteration < 1) {
            trainer.step().expect("a step");
        }
        let state = trainer.save().expect("a state");
        job.config.stream = !stream;
        let mut other = job.resumed(&state).expect("the same run");
        assert!(run(&mut other, ENOUGH).1);
        assert!(bytes(&other) == want, "from {stream}");
    }
}

/// On noop every binding into the window is validated against WebGPU's limits.
#[test]
fn windows_bind_within_webgpus_limits() {
    let mut noop = match Wgpu::noop() {
        Ok(noop) => noop.with_window(100_000),
        Err(e) => return println!("SKIPPED: windows on noop ({e})"),
    };
    assert_eq!(noop.caps().alignment, Caps::webgpu().alignment);
    for stored in [Stored::F32, Stored::F16, Stored::Q8_0, Stored::Q4_0] {
        let plan = prepare(&mut noop, 2, stored, true);
        noop.run(plan).expect("a run");
        noop.forget(plan).expect("forgotten");
        noop.forget_leaves("").expect("forgotten");
    }
}
