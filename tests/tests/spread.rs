//! A training on more than one machine is the training of one: on the CPU's twins, with the smallest model, to the bit.
use pentimento_trainer::train::{Event, Metrics, Trainer};
use tests::job::{self, ENOUGH, Job};

fn small(recipe: &str) -> Job {
    let mut job = Job::new(recipe);
    // Pictures go through the transformer one by one, so that pieces of any size cut the work at the same places.
    (job.config.at_once.sample, job.config.rollout.prompts) = (1, 3);
    if matches!(recipe, "grpo" | "flow-grpo") {
        // Two optimiser steps in an iteration, the second from the first one's adapter.
        (job.config.rollout.window, job.config.rollout.steps, job.config.grpo.updates) = (2, 3, 2);
        job.config.grpo.beta = 0.1;
    }
    job
}
/// What an iteration did, but for its seconds.
fn told(m: &Metrics) -> String {
    format!("{:?}", Metrics { seconds: 0.0, ..m.clone() })
}
fn piece(worker: &mut Trainer, shared: &[u8], piece: usize) -> Vec<u8> {
    worker.work("shared", shared, piece).expect("a piece");
    assert!(job::run(worker, ENOUGH).1, "it does not end");
    worker.take_made().expect("a piece")
}

/// Trains with `pieces` made by `carry`, which gets what is waited for and how many pieces there are.
fn spread(
    trainer: &mut Trainer,
    pieces: usize,
    mut carry: impl FnMut(&mut Trainer, &[u8], usize),
) -> Vec<String> {
    trainer.spread(pieces).expect("a recipe with pieces");
    let mut all = Vec::new();
    for _ in 0..ENOUGH {
        match trainer.step().expect("a step") {
            Event::Done => return all,
            Event::Iteration(m) => all.push(told(&m)),
            Event::Wanted => {
                let wanted = trainer.wanted().expect("something is waited for");
                let (shared, pieces) = (wanted.shared.to_vec(), wanted.pieces);
                carry(trainer, &shared, pieces);
            }
            _ => {}
        }
    }
    panic!("it does not end");
}
fn alone(trainer: &mut Trainer) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match trainer.step().expect("a step") {
            Event::Done => return all,
            Event::Iteration(m) => all.push(told(&m)),
            Event::Wanted => panic!("nobody asked for pieces"),
            _ => {}
        }
    }
}

#[test]
fn one_machine_and_several_learn_the_same_bits() {
    for (recipe, workers, pieces) in [("pathwise", 2, 5), ("grpo", 2, 2), ("nft", 1, 3)] {
        let job = small(recipe);
        let mut whole = job.open();
        let expected = alone(&mut whole);
        assert_eq!(expected.len(), 2);
        let mut others: Vec<Trainer> = (0..workers).map(|_| job.open()).collect();
        let (mut trainer, mut most) = (job.open(), 0);
        let found = spread(&mut trainer, pieces, |trainer, shared, pieces| {
            most = most.max(pieces);
            // The last piece first: order does not matter.
            for i in (0..pieces).rev() {
                let made = piece(&mut others[i % workers], shared, i);
                assert_eq!(trainer.give(i, &made).expect("given"), i);
            }
        });
        assert_eq!(found, expected, "{recipe} in {pieces} pieces by {workers}");
        assert!(job::bytes(&trainer) == job::bytes(&whole), "{recipe} in {pieces} pieces: another adapter");
        assert_eq!(most, pieces.min(3), "{recipe}");
    }
}

#[test]
fn lost_late_and_wrong_pieces_do_no_harm() {
    let job = small("pathwise");
    let mut whole = job.open();
    let expected = alone(&mut whole);
    let (mut first, mut second) = (job.open(), job.open());
    let mut other = small("pathwise");
    other.config.seed = 4;
    let mut stranger = other.open();
    let (mut old, mut rounds, mut saved) = (Vec::new(), 0, Vec::new());
    let mut trainer = job.open();
    let found = spread(&mut trainer, 2, |trainer, shared, pieces| {
        rounds += 1;
        assert_eq!(pieces, 2);
        // The first worker is lost in the middle, and another takes its place.
        first.work("shared", shared, 0).expect("a piece");
        for _ in 0..3 {
            first.step().expect("a step");
        }
        let zero = piece(&mut second, shared, 0);
        // One that was given up makes another one instead.
        let one = piece(&mut first, shared, 1);
        let refused = |trainer: &mut Trainer, i: usize, bytes: &[u8]| {
            trainer.give(i, bytes).expect_err("refused").to_string()
        };
        for (i, bytes, why) in [
            (0, &one[..], "piece 0 of"),
            (2, &one, "0 to 1"),
            (1, &one[..one.len() - 3], "damaged"),
            (1, &b"nothing"[..], "safetensors"),
            (1, &saved, if saved.is_empty() { "safetensors" } else { "another file" }),
        ] {
            let error = refused(trainer, i, bytes);
            assert!(error.contains(why), "{error}");
        }
        if !old.is_empty() {
            assert!(refused(trainer, 1, &old).contains("earlier iteration"));
        }
        // Numbers that are none are not taken in.
        let mut wild = one.clone();
        // Among the gradients, which are most of it.
        let header = u64::from_le_bytes(wild[..8].try_into().expect("8 bytes")) as usize;
        let middle = 8 + header + (wild.len() - header) / 8 * 4;
        wild[middle..middle + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = refused(trainer, 1, &wild);
        assert!(error.contains("NaN"), "{error}");
        let error = stranger.work("shared", shared, 0).expect_err("another training").to_string();
        assert!(error.contains("other inputs: seed"), "{error}");
        assert!(
            first.work("shared", shared, 2).expect_err("no such piece").to_string().contains("less than 2")
        );
        assert!(
            first.work("shared", &shared[..shared.len() / 2], 0).is_err()
                && first.work("shared", &one, 0).is_err()
        );
        // It waits, and can be saved and drawn from meanwhile.
        assert!(matches!(trainer.step().expect("a step"), Event::Wanted));
        saved = trainer.save().expect("a state");
        let how = pentimento_runtime::pipeline::Sampling { width: 16, height: 16, steps: 2, guidance: 4.0 };
        if rounds == 2 {
            trainer.draw("a cat", 1, &how, &mut |_, _| true).expect("an image");
        }
        assert_eq!(trainer.give(1, &one).expect("given"), 1);
        assert_eq!(trainer.give(1, &one).expect("given twice"), 1);
        assert_eq!(trainer.give(0, &zero).expect("given"), 0);
        old = one;
    });
    assert_eq!((found, rounds), (expected, 4));
    assert!(job::bytes(&trainer) == job::bytes(&whole));
    assert!(trainer.give(0, &old).expect_err("nothing is waited for").to_string().contains("none now"));
    // From the state of the last wait on, on one machine.
    let mut resumed = job.resumed(&saved).expect("a training");
    job::run(&mut resumed, ENOUGH);
    assert!(job::bytes(&resumed) == job::bytes(&whole), "a state that was saved while it waited");
}

#[test]
fn who_trains_does_not_work_for_others() {
    for recipe in ["sft", "released"] {
        let error = Job::new(recipe).open().spread(2).expect_err("no pieces").to_string();
        assert!(error.contains("pathwise, grpo"), "{error}");
    }
    let job = small("grpo");
    let (mut trainer, mut worker) = (job.open(), job.open());
    let mut shared = Vec::new();
    trainer.spread(2).expect("pieces");
    while shared.is_empty() {
        trainer.step().expect("a step");
        shared = trainer.wanted().map(|w| w.shared.to_vec()).unwrap_or_default();
    }
    let error = trainer.work("shared", &shared, 0).expect_err("it trains").to_string();
    assert!(error.contains("trains nothing"), "{error}");
    piece(&mut worker, &shared, 0);
    assert!(worker.take_made().is_none() && worker.saved().is_none() && worker.wanted().is_none());
    assert!(matches!(worker.step().expect("a step"), Event::Done), "it trains by itself");
    // Runs of another size would be other runs.
    let mut few = small("grpo");
    few.config.at_once.train = 1;
    let error = few.open().work("shared", &shared, 0).expect_err("other runs").to_string();
    assert!(error.contains("at_once.train"), "{error}");
}

#[test]
fn damaged_bytes_are_a_sentence() {
    let job = small("pathwise");
    let (mut trainer, mut worker) = (job.open(), job.open());
    trainer.spread(2).expect("pieces");
    let mut rng = pentimento_runtime::rng::Philox::new(11, 0);
    // A byte of the header changed, a stretch of it doubled or left out, an end cut off.
    let mut damaged = |bytes: &[u8]| {
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
        let (mut bytes, at) = (bytes.to_vec(), rng.below(header as u32) as usize);
        let end = (at + 1 + rng.below(40) as usize).min(header);
        match rng.below(4) {
            0 => bytes[at] ^= 1 + rng.below(255) as u8,
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            _ => bytes.truncate(rng.below(bytes.len() as u32) as usize),
        }
        bytes
    };
    let mut refused = 0;
    for _ in 0..2 {
        while trainer.wanted().is_none() {
            trainer.step().expect("a step");
        }
        let shared = trainer.wanted().expect("pieces").shared.to_vec();
        for _ in 0..150 {
            refused += usize::from(worker.work("shared", &damaged(&shared), 0).is_err());
        }
        let pieces = [0, 1].map(|i| piece(&mut worker, &shared, i));
        for _ in 0..150 {
            refused += usize::from(trainer.give(0, &damaged(&pieces[0])).is_err());
        }
        for (i, piece) in pieces.iter().enumerate() {
            trainer.give(i, piece).expect("the whole piece");
        }
        trainer.step().expect("a step");
    }
    assert!(refused > 560, "{refused} of 600 were refused");
}
