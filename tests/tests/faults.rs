//! A device that is lost, or out of memory, at any moment of a training costs what was done since the last moment between two stages: the
//! trainer says what happened, stays readable, saves its state, and goes on with it on a new device to the same bits.
//! PENTIMENTO_FAULTS=1 tries every allocation, submit and readback, 10 every tenth; otherwise a few of each.
use pentimento_runtime::exec::wgpu::{Fault, Wgpu};
use pentimento_trainer::Result;
use pentimento_trainer::estimate::less;
use pentimento_trainer::train::{Event, Trainer};
use tests::adapter::adapter;
use tests::job::{ENOUGH, Job, bytes, run};

fn small(recipe: &str) -> Job {
    let mut job = Job::new(recipe);
    (job.config.warm.steps, job.config.iterations, job.config.watch.every) = (2, 1, 0);
    job
}

/// Runs on a device that meets a fault at the `n`-th occasion; `None` when the run was over before.
fn broken(job: &Job, fault: Fault, n: u64) -> Option<(String, Option<Trainer>)> {
    let mut gpu: Wgpu = adapter("faults")?;
    gpu.fail_at(fault, n);
    let mut trainer = match job.on(Box::new(gpu)) {
        Ok(trainer) => trainer,
        Err(e) => return Some((e.to_string(), None)),
    };
    for _ in 0..ENOUGH {
        match trainer.step() {
            Ok(Event::Done) => return None,
            Ok(_) => {}
            Err(e) => {
                assert_eq!(trainer.step().map(drop), Err(e.clone()), "another error the second time");
                return Some((e.to_string(), Some(trainer)));
            }
        }
    }
    unreachable!("a run ends")
}

/// Goes on from what is left, on a new device; the adapters at the end.
fn rescued(job: &Job, left: &Option<Trainer>) -> Result<[Vec<u8>; 2]> {
    let mut trainer = job.on(Box::new(adapter("faults").expect("it was there")))?;
    if let Some(left) = left {
        left.adapter()?;
        if left.saved().is_some() {
            trainer.resume("state", &left.save()?)?;
        }
    }
    assert!(run(&mut trainer, ENOUGH).1);
    Ok(bytes(&trainer))
}

#[test]
fn a_device_that_fails_costs_no_more_than_a_stage() {
    if adapter("faults").is_none() {
        return;
    }
    let step: Option<u64> = std::env::var("PENTIMENTO_FAULTS").ok().and_then(|v| v.parse().ok());
    let job = small("pathwise");
    let mut whole = job.on(Box::new(adapter("faults").expect("a device"))).expect("a trainer");
    assert!(run(&mut whole, ENOUGH).1);
    let want = bytes(&whole);
    for fault in [Fault::LostAllocating, Fault::LostSubmitting, Fault::LostReading, Fault::OutOfMemory] {
        let (mut n, mut tried, mut gone_on) = (1, 0, 0);
        // Ever further apart, where nothing else is wanted.
        while let Some((words, left)) = broken(&job, fault, n) {
            let expected = if matches!(fault, Fault::OutOfMemory) { "out of memory" } else { "lost" };
            assert!(words.contains(expected), "{fault:?} at {n}: {words}");
            gone_on += usize::from(left.as_ref().is_some_and(|t| t.saved().is_some()));
            assert!(rescued(&job, &left).expect("it goes on") == want, "{fault:?} at {n}");
            tried += 1;
            n += step.unwrap_or(5 + n * 3 / 5).max(1);
        }
        println!("{fault:?}: {tried} tried, until the {n}th did not come; {gone_on} with a state");
        assert!(tried > 2 && gone_on > 0, "{fault:?}: {tried} tried, {gone_on} with a state");
    }
}

/// Out of memory with much at a time, a training goes on with less.
#[test]
fn out_of_memory_goes_on_with_less() {
    let Some(mut gpu) = adapter("faults") else { return };
    let mut job = small("pathwise");
    (job.config.rollout.prompts, job.config.warm.batch) = (6, 4);
    gpu.fail_at(Fault::OutOfMemory, 1500);
    let mut trainer = job.on(Box::new(gpu)).expect("a trainer");
    let error = (0..ENOUGH).find_map(|_| trainer.step().err()).expect("it runs out");
    assert!(error.is_out_of_memory() && error.to_string().contains("out of memory"), "{error}");
    let (phase, before) = (trainer.phase().expect("a phase"), job.config.clone());
    assert!(less(&mut job.config, phase) && job.config != before, "nothing to give up in `{phase}`");
    let state = trainer.save().expect("a state");
    let mut trainer = job.on(Box::new(adapter("faults").expect("a device"))).expect("a trainer");
    let from = trainer.resume("state", &state).expect("the same run with less at a time");
    assert!(from.warm > 0 && run(&mut trainer, ENOUGH).1);
}
