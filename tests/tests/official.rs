//! The released schedules on the default model, in small: whose turn it is, what moves, and that runs repeat.
use pentimento_trainer::config::Config;
use pentimento_trainer::images::Picture;
use pentimento_trainer::recipe::released::ReleasedSchedule;
use pentimento_trainer::references::{Reference, load_references};
use pentimento_trainer::train::{Event, Metrics, Setup, Trainer};
use std::path::{Path, PathBuf};
use tests::adapter::adapter;
use tests::scratch::pickscore;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn icons() -> Vec<Reference> {
    let folder = here("../examples/models/icons/references/mono");
    let mut references = load_references(&folder, 64, 64).expect("references");
    references.truncate(2);
    references
}
fn grey() -> Vec<Reference> {
    let picture = Picture::new(64, 64, vec![128; 64 * 64 * 3]).expect("a picture");
    ["a cat", "a dog"].map(|c| Reference::new(c, Some(c), &picture, 64, 64).expect("a reference")).into()
}

/// Settings of a small run.
fn small(schedule: &ReleasedSchedule, epochs: usize) -> Config {
    let released = schedule.clone();
    let mut config = Config { rank: 6, iterations: epochs, seed: 3, released, ..Config::released() };
    (config.rollout.prompts, config.rollout.group) = (2, 2);
    (config.rollout.steps, config.rollout.window) = (3, 2);
    config.optim.micro_batch = 2;
    config
}

/// Adapter after each epoch, and the reports.
fn train(
    reward: Option<&Path>,
    references: &[Reference],
    schedule: &ReleasedSchedule,
    epochs: usize,
) -> Option<(Vec<Vec<u8>>, Vec<Metrics>)> {
    let gpu = adapter("the released schedule")?;
    let model = here("../examples/models/icons");
    let setup = Setup { model: &model, config: None, reward, references, prompts: &[], text_cache: None };
    let mut run = Trainer::new(Box::new(gpu), &setup, small(schedule, epochs)).expect("a run");
    let (mut adapters, mut reports) = (Vec::new(), Vec::new());
    loop {
        match run.step().expect("a step") {
            Event::Iteration(report) => {
                reports.push(report);
                // The average follows late; what trains is asked for.
                adapters.push(run.trained().and_then(|a| a.write_bytes()).expect("an adapter"));
            }
            Event::Done => break,
            _ => {}
        }
    }
    // A run goes on from its own adapter, of a rank that is padded on the device.
    let last = run.trained().expect("an adapter");
    run.start_from(&last).expect("an adapter that fits");
    assert!(run.trained().expect("an adapter") == last, "the adapter was changed on its way");
    assert!(last.pairs.values().all(|pair| pair.rank == 6), "another rank than was asked for");
    assert_eq!(reports.len(), epochs);
    assert!(matches!(run.step(), Ok(Event::Done)), "the end is not the end");
    Some((adapters, reports))
}

#[test]
fn head_and_generator_take_turns() {
    let schedule = ReleasedSchedule { d_times: 2, ..ReleasedSchedule::default() };
    let Some((adapters, reports)) = train(None, &icons(), &schedule, 4) else { return };
    for (e, report) in reports.iter().enumerate() {
        assert_eq!(report.head_steps == 1, e % 2 == 0, "epoch {e}: {report:?}");
        assert_eq!(report.updates == 0, e % 2 == 0, "epoch {e}: {report:?}");
    }
    assert!(
        adapters[0] != adapters[1] && adapters[1] == adapters[2],
        "only the generator's epochs move the adapter"
    );
    let Some((again, _)) = train(None, &icons(), &schedule, 2) else { return };
    assert!(adapters[..2] == again, "two runs with one seed differ");
}

#[test]
fn pickscore_learns_when_references_score_lower() {
    let folder = pickscore("pickscore");
    // The fixture scores grey below what is generated; a large rate, so that turns change within a few epochs.
    let schedule = ReleasedSchedule { tune_rate: 3e-3, ..ReleasedSchedule::default() };
    let Some((adapters, reports)) = train(Some(&folder.0), &grey(), &schedule, 4) else { return };
    for (e, report) in reports.iter().enumerate() {
        let (due, learned) = (report.reward_reference < report.reward_generated, report.head_steps == 1);
        assert_eq!(learned, due, "epoch {e}: {report:?}");
        let before = e.checked_sub(1).map(|b| &adapters[b]);
        assert_eq!(before == Some(&adapters[e]), due && e > 0, "epoch {e}: {report:?}");
        assert!(report.head_loss.is_finite() && (0.0..=1.0).contains(&report.head_accuracy), "{report:?}");
    }
    assert!(reports.iter().any(|r| r.head_steps == 1), "PickScore never learned: {reports:?}");
    assert!(reports.iter().any(|r| r.updates > 0), "the generator never learned: {reports:?}");
}

#[test]
fn a_pickscore_without_tokenizer_is_refused() {
    let Some(gpu) = adapter("PickScore without a tokenizer") else { return };
    let (model, reward) = (here("../examples/models/icons"), here("fixtures/clip_reward"));
    let references = load_references(&model.join("references/mono"), 64, 64).expect("references");
    let setup = Setup {
        model: &model,
        config: None,
        reward: Some(&reward),
        references: &references[..1],
        prompts: &[],
        text_cache: None,
    };
    let error = match Trainer::new(Box::new(gpu), &setup, Config::released()) {
        Ok(_) => panic!("accepted"),
        Err(e) => e.to_string(),
    };
    assert!(error.contains("clip_reward") && error.contains("vocab.json"), "{error}");
}
