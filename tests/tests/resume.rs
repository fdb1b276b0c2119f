//! A training that is cut off anywhere and goes on in another process ends with the same adapter, bit for bit, as one that nobody
//! disturbed; and what it cannot go on with is refused by name. On the CPU's twins, with the smallest model.
use pentimento_runtime::grad::Recompute;
use pentimento_runtime::rng::Philox;
use pentimento_trainer::train::Event;
use tests::job::{ENOUGH, Job, bytes, run};

const RECIPES: [&str; 6] = ["pathwise", "grpo", "flow-grpo", "nft", "sft", "released"];

/// States that a run can be saved in, and random ones one after the other; all states and recipes where PENTIMENTO_CUTS is set.
#[test]
fn a_run_that_was_cut_off_ends_with_the_same_bits() {
    let mut cuts = 0;
    let all = std::env::var_os("PENTIMENTO_CUTS").is_some();
    for recipe in RECIPES.into_iter().filter(|r| all || !["flow-grpo", "nft"].contains(r)) {
        let job = Job::new(recipe);
        let mut whole = job.open();
        let (mut states, mut last) = (Vec::new(), None);
        let steps = (0..ENOUGH).take_while(|_| {
            !matches!(whole.step().expect("a step"), Event::Done) && {
                let now = whole.saved().map(|_| whole.save().expect("a state"));
                if now.is_some() && now != last {
                    states.extend(now.clone());
                    last = now;
                }
                true
            }
        });
        let steps = steps.count();
        let want = bytes(&whole);
        assert!(states.len() >= 4, "{recipe}: {} states", states.len());
        let every = if all { 1 } else { states.len().div_ceil(2) };
        for (i, state) in states.iter().enumerate().skip(1).step_by(every) {
            let mut trainer = job.resumed(state).expect("a state that fits");
            assert!(run(&mut trainer, ENOUGH).1);
            assert!(bytes(&trainer) == want, "{recipe}: cut at state {i} of {}", states.len());
            cuts += 1;
        }
        // One cut after another, each wherever it falls.
        let mut rng = Philox::new(9, 0);
        let mut state: Option<Vec<u8>> = None;
        let end = loop {
            let mut trainer = state.as_ref().map_or_else(|| job.open(), |s| job.resumed(s).expect("a state"));
            if run(&mut trainer, rng.below(2 * steps as u32 / 3) as usize).1 {
                break bytes(&trainer);
            }
            state = trainer.saved().map(|_| trainer.save().expect("a state")).or(state);
            cuts += 1;
        };
        assert!(end == want, "{recipe}: after several cuts");
    }
    println!("{cuts} cuts");
}

/// More iterations go on where a complete run ended.
#[test]
fn a_complete_run_can_go_on() {
    let mut job = Job::new("pathwise");
    job.config.watch.every = 0;
    let mut short = job.open();
    assert!(run(&mut short, ENOUGH).1);
    let state = short.save().expect("a state");
    job.config.iterations += 1;
    let (mut whole, mut more) = (job.open(), job.resumed(&state).expect("more of it"));
    assert!(run(&mut whole, ENOUGH).1 && run(&mut more, ENOUGH).1);
    assert!(bytes(&whole) == bytes(&more) && bytes(&whole) != bytes(&short));
}

#[test]
fn another_run_s_state_is_refused_by_name() {
    let mut job = Job::new("grpo");
    let mut trainer = job.open();
    assert!(trainer.save().expect_err("nothing yet").to_string().contains("anything to save yet"));
    while trainer.saved().is_none_or(|s| s.iteration < 1) {
        trainer.step().expect("a step");
    }
    let state = trainer.save().expect("a state");
    assert!(trainer.resume("state", &state).expect_err("begun").to_string().contains("has not begun"));
    let check = |what: &str, change: fn(&mut Job)| {
        let mut other = Job::new("grpo");
        change(&mut other);
        let text = other.refused(&state);
        assert!(text.contains(what), "{what}: {text}");
    };
    check("optim.rate: expected 0.0002, found 0.1", |j| j.config.optim.rate = 0.1);
    check("seed: expected 3, found 4", |j| j.config.seed = 4);
    check("prompts", |j| drop(j.prompts.pop()));
    check("reference 2: expected", |j| drop(j.references.pop()));
    check("reference 2", |j| j.references[1].caption = None);
    check("reference 1", |j| j.references[0].pixels[5] += 0.01);
    check("recipe", |j| j.config.recipe = pentimento_trainer::recipe::Recipe::Pathwise);
    job.config.iterations += 5;
    job.config.recompute = Some(Recompute::All);
    assert!(job.resumed(&state).is_ok(), "how long and how is not what is learnt");
}

/// Whatever a file holds, it is a sentence or a training that goes on.
#[test]
fn damaged_states_are_sentences() {
    let job = Job::new("grpo");
    let mut trainer = job.open();
    while trainer.saved().is_none_or(|s| s.iteration < 1) {
        trainer.step().expect("a step");
    }
    let state = trainer.save().expect("a state");
    let mut rng = Philox::new(4, 4);
    for cut in [0, 1, 8, 100, state.len() / 2, state.len() - 1] {
        job.refused(&state[..cut]);
    }
    let header = 8 + u64::from_le_bytes(state[..8].try_into().expect("eight bytes")) as usize;
    let mut taken = 0;
    for i in 0..120 {
        let mut bad = state.clone();
        // Half of the changes in the header, half in the numbers.
        let at = if i % 2 == 0 {
            rng.below(header as u32) as usize
        } else {
            header + rng.below((state.len() - header) as u32) as usize
        };
        bad[at] ^= 1 << rng.below(8);
        if let Ok(mut trainer) = job.resumed(&bad) {
            taken += 1;
            // Numbers that are none may end it, with an error.
            (0..40).try_for_each(|_| trainer.step().map(drop)).ok();
        }
    }
    assert!(taken > 10 && taken < 110, "{taken} of 120 were taken");
}
