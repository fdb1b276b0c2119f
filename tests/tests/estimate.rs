//! What a training takes is known before: the estimate against what is then held, and caps that are met or refused.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::{Executor, Memory};
use pentimento_runtime::grad::Recompute;
use pentimento_runtime::pipeline::Sampling;
use pentimento_trainer::estimate::{Estimate, SHEET, estimate, fit};
use pentimento_trainer::train::{Event, Trainer};
use tests::adapter::adapter;
use tests::job::{ENOUGH, Job};

/// The whole training, pictures first and last, as the estimate has it.
fn used(trainer: &mut Trainer) -> Memory {
    let rows = trainer.config().at_once.sample.min(SHEET);
    let texts = trainer.encode(&["", "a cat"], &mut || true).expect("texts");
    let draw = |trainer: &mut Trainer| {
        let pipeline = trainer.pipeline();
        let side = pipeline.native_size();
        let how = Sampling { steps: 1, guidance: 4.5, width: side, height: side };
        let jobs: Vec<_> = (0..rows as u64).map(|seed| (&texts[1], seed)).collect();
        pipeline.generate(&jobs, &texts[0], &how, &mut |_, _| true).expect("pictures");
    };
    draw(trainer);
    let ends = (0..ENOUGH).any(|_| matches!(trainer.step().expect("a step"), Event::Done));
    assert!(ends);
    draw(trainer);
    trainer.memory()
}

fn within(e: &Estimate, used: &Memory, of: &str) {
    let (said, held) = (e.most() as f64, used.peak.total() as f64);
    println!("{of}: {said} bytes estimated, {held} held; {:?} and {:?}", e.peak, used.peak);
    assert!((said / held - 1.0).abs() <= 0.05, "{of}: {:?} estimated, {:?} held", e.peak, used.peak);
}

#[test]
fn an_estimate_is_what_is_then_held() {
    for (recipe, stream) in [
        ("pathwise", false),
        ("grpo", false),
        ("sft", false),
        ("released", false),
        ("pathwise", true),
        ("released", true),
    ] {
        let Some(gpu) = adapter("estimates") else { return };
        let mut job = Job::new(recipe);
        job.config.stream = stream;
        (job.config.head.warm, job.config.watch.every) = (1, job.config.watch.every.min(1));
        job.config.rollout.window_start = (recipe == "grpo").then_some(1);
        let estimate = estimate(gpu.caps(), &job.setup(), &job.config).expect("an estimate");
        let mut trainer = job.on(Box::new(gpu)).expect("a trainer");
        let used = used(&mut trainer);
        within(&estimate, &used, recipe);
        assert_eq!(estimate.most(), used.peak.total(), "{recipe}, streamed: {stream}");
        let crossed = estimate.streamed.iteration;
        assert!(
            (crossed > 0.0) == stream && (used.peak.window > 0) == stream,
            "{crossed} bytes an iteration"
        );
        let w = estimate.work;
        assert!(w.prepare > 0.0 && w.iteration > 0.0 && (w.warm > 0.0) == (recipe != "released"), "{w:?}");
        assert!(estimate.phases.len() > 2 && !estimate.when.is_empty() && estimate.state > 0);
    }
}

/// Each cap between the least and the most is met; what is below is refused, with the least that would do.
#[test]
fn caps_are_met_or_refused() {
    let mut job = Job::new("pathwise");
    (job.config.rollout.prompts, job.config.warm.batch) = (12, 8);
    (job.config.pathwise.images, job.config.pathwise.batch) = (8, 8);
    let caps = Caps::webgpu();
    let whole = estimate(&caps, &job.setup(), &job.config).expect("an estimate");
    let (same, _) = fit(&caps, &job.setup(), &job.config, whole.most()).expect("it fits as it is");
    assert_eq!((same.at_once, same.recompute), (job.config.at_once, Some(Recompute::Nothing)));
    let refused =
        fit(&caps, &job.setup(), &job.config, 1000).expect_err("nothing fits in a kilobyte").to_string();
    let least: u64 =
        refused.split("at least ").nth(1).and_then(|t| t.split(" MB").next()?.parse().ok()).expect(&refused);
    assert!(least * 1_000_000 < whole.most(), "{refused}, of {}", whole.most());
    let mut given_up = Vec::new();
    for cap in [whole.most() - 1, (least * 1_000_000).midpoint(whole.most()), least * 1_000_000] {
        let (config, estimate) = fit(&caps, &job.setup(), &job.config, cap).expect("it fits");
        assert!(estimate.most() <= cap && config != job.config, "{} of {cap}", estimate.most());
        given_up.push((config.recompute, config.at_once, config.stream));
    }
    println!("{given_up:?}");
    let all = given_up[2];
    assert!(given_up[0].1 != all.1, "the largest cap costs as much as the smallest");
    assert!(!all.2, "the smallest model's weights are smaller than a window");
    // A training that was fitted runs and ends.
    job.config = fit(&caps, &job.setup(), &job.config, least * 1_000_000).expect("it fits").0;
    let mut trainer = job.open();
    assert!(tests::job::run(&mut trainer, ENOUGH).1);
}
