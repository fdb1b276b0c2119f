//! Memory is known: what an executor says that it holds, one arena for all plans, plans and leaves that are forgotten, and devices that fail.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::null::{Null, Ran};
use pentimento_runtime::exec::wgpu::{Fault, Wgpu};
use pentimento_runtime::exec::{Executor, Home, Kinds, LeafData, PlanId, compile, kept};
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::graph::{Id, Leaf, Op};
use pentimento_runtime::model::mmdit;
use pentimento_runtime::pipeline::{Pipeline, Sampling};
use pentimento_runtime::rng::Philox;
use pentimento_runtime::{Error, Result};
use pentimento_trainer::config::Config;
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::train::{Event, Setup, Trainer};
use pentimento_wgsl::Stored;
use tests::adapter::adapter;
use tests::icons::{model, references};
use tests::tiny::{transformer, velocity_graph};

fn normals(seed: u64, len: usize) -> Vec<f32> {
    let mut data = vec![0.0; len];
    Philox::new(seed, 0).normals(&mut data);
    data.iter_mut().for_each(|v| *v *= 0.2);
    data
}

/// A plan of the small transformer, its leaves set, its inputs written.
fn prepare(exec: &mut dyn Executor, batch: usize, train: bool) -> Result<PlanId> {
    let (g, out) = velocity_graph(&transformer(3), batch, 4, 7, train, true);
    for (i, n) in g.nodes().iter().enumerate() {
        if let Op::Leaf { kind: Leaf::Weight(_) | Leaf::Param, name } = &n.op
            && !exec.has_leaf(name)
        {
            exec.set_leaf(name, LeafData::F32(&normals(i as u64, n.shape.iter().product())))?;
        }
    }
    let out: Vec<(&str, Id)> = out.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    let plan = compile(exec, g, &out)?;
    let inputs = exec.plan(plan).inputs.clone();
    for (i, input) in inputs.iter().enumerate() {
        exec.write(plan, &input.name, &normals(100 + i as u64, input.slot.len))?;
    }
    Ok(plan)
}

/// Bits of all outputs.
fn read(exec: &mut dyn Executor, plan: PlanId) -> Result<Vec<u32>> {
    let names: Vec<String> = exec.plan(plan).outputs.iter().map(|o| o.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(exec.peek_all(plan, &names)?.concat().into_iter().map(f32::to_bits).collect())
}

/// The same steps on both executors; what they hold is the same after each, kind by kind, and was at most the same.
fn alike(a: &mut dyn Executor, b: &mut dyn Executor, what: &str) {
    assert_eq!(a.memory().now, b.memory().now, "{what}");
    assert_eq!(a.memory().peak, b.memory().peak, "the peak, {what}");
    assert_eq!(a.components(), b.components(), "{what}");
}

/// Every way in which memory comes and goes, step by step on two executors that should hold the same.
fn story(a: &mut dyn Executor, b: &mut dyn Executor) {
    let mut both = |what: &str, step: &mut dyn FnMut(&mut dyn Executor) -> Option<PlanId>| {
        let plans = [step(a), step(b)];
        assert_eq!(plans[0], plans[1], "{what}");
        alike(a, b, what);
        (plans[0], a.memory())
    };
    let plan = |p: (Option<PlanId>, _)| p.0.expect("a plan");
    both("empty", &mut |_| None);
    let small = plan(both("a forward plan", &mut |e| prepare(e, 1, false).ok()));
    let run = |p: PlanId| move |e: &mut dyn Executor| -> Option<PlanId> { e.run(p).ok().map(|()| p) };
    let first = both("run", &mut run(small)).1;
    both("run again", &mut run(small));
    both("read", &mut |e| read(e, small).ok().map(|_| small));
    let large = both("a larger one", &mut |e| prepare(e, 4, true).ok());
    assert!(large.1.now.arena > first.now.arena && large.1.now.readback > first.now.readback);
    let large = plan(large);
    both("run the larger", &mut run(large));
    both("and read it", &mut |e| read(e, large).ok().map(|_| large));
    both("a number anew", &mut |e| {
        let name = e.plan(large).leaves[0].name.clone();
        let len = e.plan(large).leaves[0].shape.iter().product();
        e.set_leaf(&name, LeafData::F32(&normals(1, len))).ok().map(|()| large)
    });
    both("command by command", &mut |e| {
        e.rewind(large);
        (0..5).for_each(|_| drop(e.one(large)));
        Some(large)
    });
    both("the small one between", &mut run(small));
    let third = plan(both("another of that size", &mut |e| prepare(e, 4, true).ok()));
    both("one of two goes", &mut |e| e.forget(large).ok().map(|()| large));
    assert!(both("a forgotten plan", &mut |e| e.run(large).ok().map(|()| large)).0.is_none());
    let fourth = plan(both("one more", &mut |e| prepare(e, 2, false).ok()));
    both("run it", &mut run(fourth));
    let refused = both("leaves in use", &mut |e| e.forget_leaves("transformer/").ok().map(|()| small));
    assert!(refused.0.is_none());
    both("all plans but one go", &mut |e| {
        [third, fourth].into_iter().for_each(|id| e.forget(id).expect("forgotten"));
        None
    });
    let shrunk = both("what is left runs", &mut run(small)).1;
    assert_eq!((shrunk.now.arena, shrunk.now.readback), (first.now.arena, first.now.readback));
    both("the last goes", &mut |e| e.forget(small).ok().map(|()| small));
    let none = both("so do the leaves", &mut |e| {
        e.forget_leaves("").expect("nobody reads them");
        None
    });
    assert_eq!(none.1.now, Kinds { staging: none.1.now.staging, ..Kinds::default() });
    assert!(none.1.peak.total() > none.1.total());
}

#[test]
fn counting_holds_what_wgpu_holds() {
    if let Some(mut gpu) = adapter("counted memory") {
        let mut null = Null::new(gpu.caps().clone());
        story(&mut gpu, &mut null);
        println!("{}: {:?} of its own memory", gpu.name(), gpu.caps().memory);
    }
    let mut noop = match Wgpu::noop() {
        Ok(noop) => noop,
        Err(e) => return println!("SKIPPED: counted memory on noop ({e})"),
    };
    let mut null = Null::new(noop.caps().clone());
    story(&mut noop, &mut null);
}

/// Executors of every kind that computes.
fn computing(what: &str) -> Vec<Box<dyn Executor>> {
    let mut all: Vec<Box<dyn Executor>> = vec![Box::new(Cpu::new())];
    all.extend(adapter(what).map(|gpu| Box::new(gpu) as Box<dyn Executor>));
    all
}

/// What a plan computes does not depend on who ran before, in between or with which numbers; nobody gets another plan's.
#[test]
fn plans_in_turn_do_not_disturb_each_other() {
    for mut exec in computing("plans that share memory") {
        let exec = &mut *exec;
        let small = prepare(exec, 1, true).expect("a plan");
        exec.run(small).expect("a run");
        let want = read(exec, small).expect("results");
        let large = prepare(exec, 2, false).expect("a plan");
        exec.run(large).expect("a run");
        let other = read(exec, large).expect("results");
        assert!(want.iter().any(|b| *b != 0) && other.iter().any(|b| *b != 0));
        // Overwritten results are a sentence.
        let gone = read(exec, small).expect_err("overwritten").to_string();
        assert!(gone.contains("output `velocity`") && gone.contains("since"), "{gone}");
        let command = exec.plan(small).commands[0].clone();
        let slot = command.args.last().expect("a result");
        assert!(exec.argument(small, slot).is_err() && read(exec, large).expect("still there") == other);
        // Interrupted at every third command, a plan begins anew, with the same bits.
        exec.rewind(small);
        for _ in 0..3 {
            for _ in 0..7 {
                assert!(!exec.one(small).expect("a command"));
            }
            exec.run(large).expect("a run");
            assert!(read(exec, large).expect("results") == other);
        }
        while !exec.advance(small).expect("a slice") {}
        assert!(read(exec, small).expect("results") == want, "other bits on {}", exec.caps().name);
        // So it does when another plan's memory is full of numbers that are none.
        let input = exec.plan(large).inputs[0].clone();
        exec.write(large, &input.name, &vec![f32::NAN; input.slot.len]).expect("an input");
        exec.run(large).expect("a run");
        assert!(read(exec, large).expect("results").iter().any(|b| f32::from_bits(*b).is_nan()));
        exec.run(small).expect("a run");
        assert!(read(exec, small).expect("results") == want, "NaN came over on {}", exec.caps().name);
        // And after growth and shrinking.
        let largest = prepare(exec, 4, true).expect("a plan");
        assert!(read(exec, small).is_err(), "the arena was made anew");
        exec.run(largest).expect("a run");
        exec.run(small).expect("a run");
        assert!(read(exec, small).expect("results") == want);
        exec.forget(largest).expect("forgotten");
        exec.forget(large).expect("forgotten");
        exec.run(small).expect("a run");
        assert!(read(exec, small).expect("results") == want);
    }
}

#[test]
fn what_is_forgotten_is_a_sentence() {
    let mut all = computing("plans that are forgotten");
    all.push(Box::new(Null::new(Caps::webgpu())));
    for mut exec in all {
        let exec = &mut *exec;
        let old = prepare(exec, 1, false).expect("a plan");
        exec.run(old).expect("a run");
        let name = exec.plan(old).leaves[0].name.clone();
        let refused = exec.forget_leaves("transformer/").expect_err("in use").to_string();
        assert!(
            refused.contains("one that reads `transformer/") && refused.contains("Forget the plans"),
            "{refused}"
        );
        assert!(exec.has_leaf(&name), "refused, they stay");
        let slot = exec.plan(old).outputs[0].slot;
        exec.forget(old).expect("forgotten");
        let new = prepare(exec, 1, false).expect("a plan");
        assert!(new != old && exec.plan(old).commands.is_empty());
        exec.rewind(old);
        let errors = [
            exec.forget(old).err(),
            exec.run(old).err(),
            exec.one(old).err(),
            exec.write(old, "latents", &[]).err(),
            exec.read(old, "velocity").err(),
            exec.peek(old, "velocity").err(),
            exec.argument(old, &slot).err(),
        ];
        for error in errors {
            let text = error.expect("an error").to_string();
            assert!(text.contains("missing plan 0, which was forgotten"), "{text}");
        }
        exec.run(new).expect("a run");
        exec.forget(new).expect("forgotten");
        exec.forget_leaves("transformer/").expect("forgotten");
        assert!(!exec.has_leaf(&name) && !exec.components().contains_key("transformer"));
        assert!(exec.components().contains_key("lora") && exec.memory().now.arena == 0);
        let again = prepare(exec, 1, false).expect("leaves anew");
        exec.run(again).expect("a run");
    }
}

/// A pipeline draws the same after it has parted with what it can part with, and holds less in between.
#[test]
fn a_pipeline_forgets_and_draws_the_same() {
    let Some(gpu) = adapter("a pipeline that forgets") else { return };
    let folder = ModelFolder::open(&model()).expect("a folder");
    let mut p = Pipeline::open(&folder, Box::new(gpu)).expect("a pipeline");
    let how = Sampling { steps: 1, guidance: 1.0, width: 64, height: 64 };
    let draw = |p: &mut Pipeline| {
        let text = p.encode("icon of pear").expect("a text");
        let encoder = p.image_encoder(64, 64).expect("a plan");
        p.exec.write(encoder, "image", &normals(3, 64 * 64 * 4)).expect("an image");
        p.exec.run(encoder).expect("a run");
        let z = p.exec.read(encoder, "z").expect("latents");
        let image =
            p.generate(&[(&text, 1)], &text, &how, &mut |_, _| true).expect("an image").swap_remove(0);
        (text, z, image)
    };
    let first = draw(&mut p);
    let full = (p.exec.memory().now, p.exec.components());
    p.forget_texts().expect("forgotten");
    let texts = p.exec.components();
    assert!(!texts.keys().any(|k| k.starts_with("text_encoder")), "{texts:?}");
    p.forget_image_encoder().expect("forgotten");
    let vae = p.exec.components()["vae"];
    assert!(vae < full.1["vae"] && vae > 0);
    p.forget_plans(&|_, _| false).expect("forgotten");
    let now = p.exec.memory().now;
    assert!(now.leaves < full.0.leaves && now.arena == 0 && now.readback == 0 && now.inputs == 0, "{now:?}");
    // In the middle of encoding as well.
    let mut job = p.begin_texts(&["icon of pear", "icon of owl"]).expect("texts");
    while let Some(plan) = p.launch_texts(&mut job).expect("a launch") {
        p.exec.run(plan).expect("a run");
        p.collect_texts(&mut job).expect("a text");
        p.forget_texts().expect("forgotten");
        assert!(p.collect_texts(&mut job).is_err(), "nothing was launched");
    }
    assert!(p.finish_texts(job).expect("texts")[0] == first.0);
    let second = draw(&mut p);
    assert!(second == first, "another picture");
    let again = p.exec.memory().now;
    assert_eq!((again.leaves, again.arena), (full.0.leaves, full.0.arena));
    p.forget_plans(&|_, size| size == [8, 8]).expect("nothing to do");
    assert_eq!(p.exec.memory().now.inputs, again.inputs);
}

/// The estimate is what wgpu's allocator has for us, up to what it needs itself.
#[test]
fn the_allocator_agrees() {
    let Some(mut gpu) = adapter("memory as the allocator reports it") else { return };
    let Some(before) = gpu.reported() else { return println!("SKIPPED: no allocator report") };
    let small = prepare(&mut gpu, 1, false).expect("a plan");
    let large = prepare(&mut gpu, 8, true).expect("a plan");
    gpu.run(large).expect("a run");
    read(&mut gpu, large).expect("results");
    let close = |gpu: &Wgpu, what: &str| {
        let (known, reported) =
            (gpu.memory().total() as f64, (gpu.reported().expect("a report") - before) as f64);
        println!("{what}: {known} bytes known, {reported} reported");
        assert!(
            reported >= 0.99 * known - 1e5 && reported <= 1.1 * known + 2e6,
            "{what}: {known} {reported}"
        );
    };
    close(&gpu, "two plans");
    let most = gpu.memory();
    gpu.forget(large).expect("forgotten");
    gpu.run(small).expect("a run");
    read(&mut gpu, small).expect("results");
    close(&gpu, "the smaller one");
    assert!(gpu.memory().total() < most.total() && gpu.memory().peak == most.peak);
}

/// A device that is lost, wherever that happens, is a sentence from then on; memory that runs out is another, and the next try may succeed.
#[test]
fn devices_that_fail_are_sentences() {
    for fault in [Fault::LostAllocating, Fault::LostSubmitting, Fault::LostReading] {
        for n in 1..4 {
            let Some(mut gpu) = adapter("devices that fail") else { return };
            gpu.fail_at(fault, n);
            let go = |gpu: &mut Wgpu| {
                let plan = prepare(gpu, 1, false)?;
                gpu.run(plan)?;
                read(gpu, plan)?;
                read(gpu, plan)?;
                read(gpu, plan)
            };
            let error = go(&mut gpu).expect_err("a loss");
            assert!(
                matches!(error, Error::Device { .. }) && !error.is_out_of_memory(),
                "{fault:?} {n}: {error}"
            );
            assert!(error.to_string().contains("the device was lost"), "{error}");
            for _ in 0..2 {
                assert!(go(&mut gpu).expect_err("it stays lost").to_string().contains("the device was lost"));
            }
            let _ = gpu.forget_leaves("");
        }
    }
    // A leaf whose numbers did not arrive does not count as set.
    let Some(mut gpu) = adapter("devices without memory") else { return };
    for n in [1, 2] {
        gpu.fail_at(Fault::OutOfMemory, n);
        let error = gpu.set_leaf("a/b", LeafData::F32(&[1.0; 99])).expect_err("no memory");
        assert!(error.is_out_of_memory() && !gpu.has_leaf("a/b"), "{error}");
        assert_eq!(gpu.memory().now.leaves, 0);
    }
    gpu.set_leaf("a/b", LeafData::F32(&[1.0; 99])).expect("room again");
    // The room for a larger plan, what it is told, its textures.
    let Some(mut gpu) = adapter("devices without memory") else { return };
    let small = prepare(&mut gpu, 1, false).expect("a plan");
    gpu.run(small).expect("a run");
    let (want, before) = (read(&mut gpu, small).expect("results"), gpu.memory().now);
    for n in 1..20 {
        gpu.fail_at(Fault::OutOfMemory, n);
        let mut go = || -> Result<PlanId> {
            let plan = prepare(&mut gpu, 2, true)?;
            gpu.run(plan).map(|()| plan)
        };
        match go() {
            Ok(plan) => {
                gpu.fail_at(Fault::OutOfMemory, 0);
                gpu.forget(plan).expect("forgotten");
            }
            Err(error) => {
                assert!(error.is_out_of_memory(), "{n}: {error}");
                assert!(error.to_string().contains("out of memory: Not enough memory left. Use"), "{error}");
            }
        }
        gpu.run(small).expect("there is room for the small one");
        assert!(read(&mut gpu, small).expect("results") == want, "{n}");
    }
    assert!(gpu.memory().now.leaves == before.leaves);
}

/// A LoRA step of SD3.5-medium, counted without a weight: as much as wgpu gets for it, and every operation once a run.
#[test]
fn a_large_model_is_counted_without_its_weights() {
    let mut noop = match Wgpu::noop() {
        Ok(noop) => noop,
        Err(e) => return println!("SKIPPED: counting a large model ({e})"),
    };
    let mut null = Null::new(noop.caps().clone());
    let (g, out) = velocity_graph(&mmdit::MmditConfig::sd35_medium(), 2, 16, 77, true, true);
    noop.declare_leaves(&g, &|_| Stored::F16).expect("room");
    for (n, stored) in g.nodes().iter().zip(kept(null.caps(), &g, &|_| Stored::F16).clone()) {
        if let Op::Leaf { kind: Leaf::Weight(_) | Leaf::Param, name } = &n.op {
            assert!(null.declare(name, stored, n.shape.iter().product(), Home::Device).expect("a leaf"));
        }
    }
    let out: Vec<(&str, Id)> = out.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    let plan = compile(&mut null, g.clone(), &out).expect("a plan");
    compile(&mut noop, g, &out).expect("a plan");
    null.run(plan).expect("a run");
    let (known, counted) = (noop.memory().now, null.memory().now);
    assert_eq!(Kinds { staging: 0, ..known }, Kinds { staging: 0, ..counted });
    assert!(counted.leaves > 4_400_000_000 && counted.leaves < 5_500_000_000, "{counted:?}");
    let (once, commands) = (null.ran(plan).expect("a plan"), null.plan(plan).commands.clone());
    let flops: u64 = commands.iter().map(|c| c.flops).sum();
    assert_eq!((once, null.flops()), (Ran { runs: 1, flops }, flops));
    null.run(plan).expect("a run");
    null.rewind(plan);
    null.one(plan).expect("a command");
    let twice = Ran { runs: 2, flops: 2 * flops + commands[0].flops };
    assert_eq!((null.ran(plan).expect("a plan"), null.flops()), (twice, twice.flops));
    println!("SD3.5-medium, LoRA step: {:?}", counted.each());
}

/// A pipeline holds on the counting executor what it holds on an adapter, without having read a weight.
#[test]
fn weights_are_not_read_to_be_counted() {
    let Some(gpu) = adapter("a counted pipeline") else { return };
    let caps = gpu.caps().clone();
    let hold = |exec: Box<dyn Executor>| {
        let folder = ModelFolder::open(&model()).expect("a folder");
        let mut p = Pipeline::open(&folder, exec).expect("a pipeline");
        let text = p.encode("icon of pear").expect("a text");
        let how = Sampling { steps: 1, guidance: 2.0, width: 64, height: 64 };
        p.generate(&[(&text, 1)], &text, &how, &mut |_, _| true).expect("an image");
        (p.exec.components(), p.exec.memory())
    };
    assert_eq!(hold(Box::new(gpu)), hold(Box::new(Null::new(caps))));
    // A damaged weight is named by every other executor.
    let broken = tests::scratch::icons("null-damaged");
    let file = broken.0.join("transformer/diffusion_pytorch_model.safetensors");
    let mut bytes = std::fs::read(&file).expect("a file");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    bytes[header..].fill(0xff);
    std::fs::write(&file, bytes).expect("written");
    let draw = |exec: Box<dyn Executor>| {
        let mut p = Pipeline::open(&ModelFolder::open(&broken.0)?, exec)?;
        p.velocity(1, [8, 8]).map(|_| ())
    };
    assert!(draw(Box::new(Cpu::new())).is_err());
    draw(Box::new(Null::new(Caps::webgpu()))).expect("nobody looks");
}

/// A whole training on the counting executor.
#[test]
fn a_training_is_counted() {
    for recipe in [Recipe::default(), Recipe::Grpo] {
        let mut c = Config { recipe, rank: 4, iterations: 2, ..Config::default() };
        (c.warm.steps, c.warm.batch) = (1, 2);
        (c.rollout.prompts, c.rollout.group) = (1, 2);
        (c.rollout.steps, c.rollout.window) = (2, 1);
        (c.head.warm, c.head.batch) = (2, 2);
        c.optim.micro_batch = 2;
        c.watch.every = 1;
        let (model, references) = (model(), references());
        let setup = Setup {
            model: &model,
            config: None,
            reward: None,
            references: &references,
            prompts: &[],
            text_cache: None,
        };
        let null = Null::new(Caps::webgpu());
        let mut trainer = Trainer::new(Box::new(null), &setup, c).expect("a trainer");
        let mut iterations = 0;
        for step in 0.. {
            match trainer.step().expect("a step") {
                Event::Done => break,
                Event::Iteration(_) => iterations += 1,
                _ => assert!(step < 10_000, "it does not end"),
            }
        }
        assert_eq!(iterations, 2);
        let memory = trainer.pipeline().exec.memory();
        println!("{:?}\n{:?}", memory.now.each(), trainer.pipeline().exec.components());
        assert!(memory.now.leaves > 0 && memory.now.arena > 0);
    }
}
