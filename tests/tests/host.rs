//! Working beside a program that draws frames: paced, paused, cancelled and interrupted work ends with the bits of work that is left alone, and
//! no call of a frame waits for it.
use pentimento_runtime::exec::wgpu::{Fault, Wgpu};
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Pipeline, Sampling, TextSettings};
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::host::{Attached, Brief, Drawing, Host, Job, Keeping, News, Outcome, Phase};
use pentimento_trainer::settings::Settings;
use pentimento_trainer::train::{Event, Trainer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tests::adapter::adapter;
use tests::job;

const MS: Duration = Duration::from_millis(1);

fn host() -> Option<Host> {
    adapter("work on a thread of its own")?;
    let open = || adapter("a device").map(|gpu| (gpu, None)).ok_or(pentimento_trainer::Error::Cancelled);
    Some(Host::new(Box::new(open)).expect("a thread"))
}
fn brief(job: &job::Job) -> Brief {
    Brief {
        model: job.model.clone(),
        references: job.references.clone(),
        prompts: job.prompts.clone(),
        settings: Settings { config: job.config.clone(), ..Settings::default() },
        ..Brief::default()
    }
}
/// The same without a host.
fn alone(job: &job::Job, gpu: Wgpu) -> Vec<u8> {
    let mut trainer = Trainer::new(Box::new(gpu), &job.setup(), job.config.clone()).expect("a trainer");
    trainer.encode(&[], &mut || true).expect("texts");
    while !matches!(trainer.step().expect("a step"), Event::Done) {}
    bytes(&trainer.adapter().expect("an adapter"))
}
fn bytes(adapter: &Adapter) -> Vec<u8> {
    adapter.write_bytes().expect("bytes")
}
fn how() -> Sampling {
    Sampling { steps: 3, guidance: 2.0, width: 16, height: 16 }
}
/// Polls every few milliseconds until a job is over, or `more` has enough; the longest poll.
fn frames(host: &Host, job: &Job, gpu: Duration, mut more: impl FnMut(usize) -> bool) -> Duration {
    let mut longest = Duration::ZERO;
    for frame in 0.. {
        let before = Instant::now();
        host.pace().poll(gpu, 4 * MS);
        let over = job.progress().phase == Phase::Over;
        longest = longest.max(before.elapsed());
        if over || !more(frame) {
            break;
        }
        std::thread::sleep(2 * MS);
        assert!(frame < 200_000, "{:?}", job.progress());
    }
    longest
}

#[test]
fn paced_training_learns_the_same_bits() {
    let Some(host) = host() else { return };
    let job = job::Job::new("pathwise");
    let expected = alone(&job, adapter("the same alone").expect("an adapter"));
    let training = host.training(brief(&job)).expect("a training");
    let run = training.start().expect("a job");
    // Paused in the middle, drawn with, interrupted, cancelled and started again.
    frames(&host, &run, MS, |_| run.progress().phase != Phase::Warm);
    run.pause(true);
    std::thread::sleep(50 * MS);
    let (before, still) = (run.progress(), run.progress());
    assert_eq!((before.phase, before.done), (still.phase, still.done));
    let picture = training.draw(Drawing::new("a cat", 1, how())).expect("a drawing");
    frames(&host, &picture, 2 * MS, |_| true);
    assert_eq!(picture.outcome(), Outcome::Done);
    assert_eq!(picture.picture(0).expect("an image").pixels.len(), 16 * 16 * 3);
    // A drawing that is paused in the middle holds nobody up, and begins anew; one that is cancelled leaves nothing.
    let long = Sampling { steps: 200, ..how() };
    let draw = |seed| training.draw(Drawing::new("a dog", seed, long.clone())).expect("a drawing");
    let paused = draw(2);
    frames(&host, &paused, 2 * MS, |_| paused.progress().done < 3);
    paused.pause(true);
    run.pause(false);
    let before = run.progress().done;
    frames(&host, &run, 2 * MS, |_| run.progress().done == before);
    assert_eq!(paused.outcome(), Outcome::Running);
    paused.cancel();
    let dropped = draw(3);
    frames(&host, &dropped, 2 * MS, |_| dropped.progress().done < 3);
    dropped.cancel();
    assert_eq!([paused.wait(None), dropped.wait(None)], [Outcome::Cancelled, Outcome::Cancelled]);
    frames(&host, &run, 2 * MS, |_| run.progress().phase != Phase::Iterating);
    run.cancel();
    assert_eq!(run.wait(None), Outcome::Cancelled);
    let again = training.start().expect("a job");
    frames(&host, &again, 2 * MS, |_| true);
    assert_eq!(again.outcome(), Outcome::Done, "{:?}", again.progress());
    assert!(bytes(&training.adapter().expect("an adapter")) == expected, "other bits");
    let mut iterations = 0;
    while let Some(news) = again.news() {
        iterations += usize::from(matches!(news, News::Iteration(_)));
    }
    assert_eq!((iterations, again.progress().iteration), (2, 2));
    assert!(again.progress().metrics.expect("metrics").gradient_norm > 0.0);

    // A saved training goes on elsewhere.
    let state = training.state().expect("a state");
    let other =
        host.training(Brief { state: Some(("state".into(), state)), ..brief(&job) }).expect("a training");
    assert!(other.adapter().expect_err("it has not begun").to_string().contains("it has not begun"));
    assert_eq!(other.start().expect("a job").wait(None), Outcome::Done);
    assert!(bytes(&other.adapter().expect("an adapter")) == expected, "other bits after a state");
}

#[test]
fn nothing_is_done_without_polls_and_nothing_waits() {
    let Some(host) = host() else { return };
    let job = job::Job::new("sft");
    host.pace().poll(Duration::ZERO, Duration::ZERO);
    let training = host.training(brief(&job)).expect("a training");
    let run = training.start().expect("a job");
    frames(&host, &run, MS, |_| run.progress().phase != Phase::Warm);
    host.pace().poll(Duration::ZERO, Duration::ZERO);
    std::thread::sleep(100 * MS);
    let before = run.progress();
    std::thread::sleep(100 * MS);
    assert_eq!(run.progress().done, before.done, "it went on by itself");
    // What blocks is not held back by that.
    let began = Instant::now();
    assert!(training.adapter().is_ok() && began.elapsed() < Duration::from_secs(5));
    let longest = frames(&host, &run, MS, |_| true);
    println!("longest poll {longest:?}");
    assert_eq!(run.outcome(), Outcome::Done);
    drop(training);
    assert!(host.memory().expect("bytes").now.total() < 1 << 20, "what is dropped is freed");
}

#[test]
fn the_device_gets_no_more_work_than_polls_give_time() {
    let Some(host) = host() else { return };
    let job = job::Job::new("sft");
    let training = host.training(brief(&job)).expect("a training");
    assert_eq!(training.start().expect("a job").wait(None), Outcome::Done, "everything is built");
    let again = host.training(brief(&job)).expect("a training");
    let run = again.start().expect("a job");
    let (before, mut polls) = (host.pace().used(), 0);
    frames(&host, &run, MS, |_| {
        polls += 1;
        true
    });
    assert_eq!(run.outcome(), Outcome::Done);
    let used = host.pace().used();
    let (time, pieces) = (used.time - before.time, used.pieces - before.pieces);
    println!("{polls} polls of 1 ms: {pieces} pieces in {time:?}, the longest {:?}", used.longest);
    // Work that is under way when the last poll comes, and one piece that was longer than expected, may go beyond.
    assert!(pieces > 20 && time <= polls * MS + used.longest + 2 * MS, "{polls} polls");
}

#[test]
fn drawings_share_weights_and_change_adapters() {
    let Some(host) = host() else { return };
    let job = job::Job::new("sft");
    let model = || ModelFolder::open(&job.model).expect("a model");
    let mut alone = Pipeline::open(&model(), Box::new(adapter("the same alone").expect("an adapter")))
        .expect("a pipeline");
    let texts = alone.encode_all(&["a cat", "a dog", ""]).expect("texts");
    let expected = alone
        .generate(&[(&texts[0], 7), (&texts[1], 8)], &texts[2], &how(), &mut |_, _| true)
        .expect("images");
    let artist =
        host.artist(model(), Vec::new(), TextSettings::default(), Keeping::default()).expect("an artist");
    let images = vec![("a cat".to_string(), 7), ("a dog".to_string(), 8)];
    let draw = |d: Drawing| {
        let job = artist.draw(d).expect("a job");
        assert_eq!(job.wait(None), Outcome::Done);
        job
    };
    let both = Drawing { images: images.clone(), batch: 2, preview: 1, ..Drawing::new("", 0, how()) };
    let two = draw(both.clone());
    assert_eq!([0, 1].map(|i| two.picture(i).expect("an image").pixels.to_vec()).to_vec(), expected);
    let preview = two.preview().expect("a preview");
    assert!(preview.pixels.iter().all(|v| (0.0..=1.0).contains(v)) && *preview.pixels != expected[0]);
    let single = draw(Drawing { batch: 1, preview: 0, ..both.clone() });
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(off(&single.picture(1).expect("an image").pixels, &expected[1]) <= 1e-3);

    // Another artist of the same model needs little more.
    let one = host.memory().expect("bytes").now.leaves;
    let second =
        host.artist(model(), Vec::new(), TextSettings::default(), Keeping::default()).expect("an artist");
    assert_eq!(second.draw(both.clone()).expect("a job").wait(None), Outcome::Done);
    assert_eq!(host.memory().expect("bytes").now.leaves, one, "weights twice");
    drop(second);
    // Streamed weights are the same ones.
    let keeping = Keeping { stream: true, ..Keeping::default() };
    artist.unload().expect("unloaded");
    let streamed = host.artist(model(), Vec::new(), TextSettings::default(), keeping).expect("an artist");
    let drawn = streamed.draw(both.clone()).expect("a job");
    assert_eq!(drawn.wait(None), Outcome::Done);
    assert_eq!(*drawn.picture(0).expect("an image").pixels, expected[0]);
    assert!(host.memory().expect("bytes").now.leaves < one / 2, "they are on the device");
    drop((streamed, drawn));

    // Adapters come, change and go.
    let mut trainer = job.open();
    job::run(&mut trainer, job::ENOUGH);
    let adapter = Arc::new(trainer.adapter().expect("an adapter"));
    let attached = |strength| Attached { label: "style".into(), adapter: adapter.clone(), strength };
    let with = |list: Vec<Attached>| {
        artist.attach(list).expect("attached");
        draw(both.clone()).picture(0).expect("an image").pixels.to_vec()
    };
    let full = with(vec![attached(1.0)]);
    assert!(full != expected[0], "an adapter that does nothing");
    let halves = with(vec![attached(0.5), attached(0.5)]);
    assert!(off(&full, &halves) <= 1e-3, "two halves are one");
    assert!(off(&with(vec![attached(0.0)]), &expected[0]) <= 1e-3, "strength 0");
    assert_eq!(with(Vec::new()), expected[0], "none");
    assert_eq!(with(vec![attached(1.0)]), full, "back again");
    let mut wrong = Adapter::clone(&adapter);
    let pair = wrong.pairs.first_key_value().expect("a pair").1.clone();
    wrong.pairs.insert("no.such.layer".into(), pair);
    let error = artist
        .attach(vec![Attached { adapter: Arc::new(wrong), ..attached(1.0) }])
        .expect_err("another model's");
    assert!(error.to_string().contains("no.such.layer"), "{error}");
    assert_eq!(draw(both).picture(0).expect("an image").pixels.to_vec(), full, "the old one stays");
    artist.unload().expect("unloaded");
    assert!(host.memory().expect("bytes").now.leaves < one);
}

#[test]
fn work_keeps_to_a_limit_of_memory() {
    let Some(gpu) = adapter("limits of memory") else { return };
    drop(gpu);
    let job = job::Job::new("sft");
    let open = |stream| {
        let gpu = || adapter("a device").ok_or(pentimento_trainer::Error::Cancelled);
        let host = Host::new(Box::new(move || Ok((gpu()?.with_window(20_000), None)))).expect("a thread");
        let model = ModelFolder::open(&job.model).expect("a model");
        let keeping = Keeping { stream, ..Keeping::default() };
        let artist = host.artist(model, Vec::new(), TextSettings::default(), keeping).expect("an artist");
        (host, artist)
    };
    let draw = |artist: &pentimento_trainer::host::Artist| {
        let job = artist.draw(Drawing::new("a cat", 1, how())).expect("a job");
        match job.wait(None) {
            Outcome::Done => Ok(job.picture(0).expect("an image").pixels),
            Outcome::Failed(error) => Err(error),
            outcome => panic!("{outcome:?}"),
        }
    };
    let held = |host: &Host| host.memory().expect("bytes");
    let (whole, artist) = open(false);
    let expected = draw(&artist).expect("an image");
    let most = held(&whole).peak.total();
    let (streamed, artist) = open(true);
    assert!(draw(&artist).expect("an image") == expected);
    let least = held(&streamed).peak.total();
    assert!(least < most / 10 * 9, "{least} of {most}");
    let (host, artist) = open(false);
    let limit = u64::midpoint(least, most);
    host.set_memory(limit).expect("a limit");
    assert_eq!(host.memory_limit(), Some(limit));
    assert!(draw(&artist).expect("an image") == expected, "other bits");
    assert!(held(&host).now.total() <= limit, "{:?}", held(&host));
    // Nothing can be done with so little, and the host lives on.
    artist.unload().expect("unloaded");
    host.set_memory(least / 4).expect("a limit");
    let error = draw(&artist).expect_err("too little");
    assert!(error.is_out_of_memory() && error.to_string().contains("allowed"), "{error}");
    let training = host.training(brief(&job)).expect("a training");
    let Outcome::Failed(error) = training.start().expect("a job").wait(None) else { panic!("too little") };
    assert!(error.to_string().contains("at least"), "{error}");
    host.set_memory(u64::MAX).expect("no limit");
    assert!(draw(&artist).expect("an image") == expected && host.memory_limit().is_none());
    assert_eq!(training.start().expect("a job").wait(None), Outcome::Done);
}

#[test]
fn a_paused_drawing_is_not_mixed_up_with_the_next() {
    let Some(host) = host() else { return };
    let job = job::Job::new("sft");
    let model = ModelFolder::open(&job.model).expect("a model");
    let artist =
        host.artist(model, Vec::new(), TextSettings::default(), Keeping::default()).expect("an artist");
    let drawing = |seed| Drawing::new("a cat", seed, Sampling { steps: 30, ..how() });
    let pixels = |job: &Job| job.picture(0).expect("an image").pixels;
    let alone = [1, 2].map(|seed| {
        let job = artist.draw(drawing(seed)).expect("a job");
        assert_eq!(job.wait(None), Outcome::Done);
        pixels(&job)
    });
    let first = artist.draw(drawing(1)).expect("a job");
    frames(&host, &first, MS, |_| first.progress().done < 7);
    first.pause(true);
    let second = artist.draw(drawing(2)).expect("a job");
    assert_eq!(second.wait(Some(300 * MS)), Outcome::Running, "it went ahead of one that is under way");
    first.pause(false);
    assert_eq!([first.wait(None), second.wait(None)], [Outcome::Done, Outcome::Done]);
    assert!([pixels(&first), pixels(&second)] == alone, "mixed up");
}

/// A training that lost its device goes on by being started again, to the bits of one that did not; one whose memory ran out, with less at once.
#[test]
fn a_training_goes_on_after_its_device() {
    let Some(gpu) = adapter("devices that fail") else { return };
    let mut job = job::Job::new("pathwise");
    (job.config.iterations, job.config.watch.every) = (2, 0);
    let expected = alone(&job, gpu);
    for fault in [Fault::LostReading, Fault::OutOfMemory] {
        let (mut n, mut went_on) = (4, 0);
        loop {
            // The first device fails at some occasion, the second one early, while everything is made ready again, those after it do not.
            let mut fails = vec![4, n];
            let open = move || {
                let mut gpu = adapter("a device").ok_or(pentimento_trainer::Error::Cancelled)?;
                fails.pop().into_iter().for_each(|n| gpu.fail_at(fault, n));
                Ok((gpu, None))
            };
            let host = Host::new(Box::new(open)).expect("a thread");
            let training = host.training(brief(&job)).expect("a training");
            let first = training.start().expect("a job");
            let Outcome::Failed(error) = first.wait(None) else { break };
            let reached = first.progress();
            let began = reached.phase == Phase::Over && (reached.iteration > 0 || reached.warm_loss > 0.0);
            let adapter = training.adapter();
            let mut again = training.start().expect("a job");
            if fault == Fault::LostReading {
                assert!(
                    matches!(again.wait(None), Outcome::Failed(_)),
                    "{fault:?}: the second device fails, too"
                );
                again = training.start().expect("a job");
            }
            assert_eq!(again.wait(None), Outcome::Done, "{fault:?} at {n}, after {error}");
            let mut warmed = 0;
            while let Some(news) = again.news() {
                warmed += usize::from(matches!(news, News::Warm(..)));
            }
            assert!(reached.iteration == 0 || warmed == 0, "{fault:?} at {n}: it began from the beginning");
            assert!(!began || adapter.is_ok(), "what was learnt is there before it is started again");
            let learnt = bytes(&training.adapter().expect("an adapter"));
            // Runs of another size sum up in another order.
            assert!(learnt == expected || fault == Fault::OutOfMemory, "{fault:?} at {n}: other bits");
            went_on += usize::from(began);
            n = 2 * n + 3;
        }
        assert!(went_on > 0, "{fault:?}: it failed too early each time, the last at {n}");
    }
}

#[test]
fn what_goes_wrong_is_told_and_the_host_lives_on() {
    let Some(host) = host() else { return };
    let job = job::Job::new("sft");
    let none = Brief { references: Vec::new(), prompts: Vec::new(), ..brief(&job) };
    let training = host.training(none).expect("a training");
    let failed = training.start().expect("a job");
    let Outcome::Failed(error) = failed.wait(None) else { panic!("it cannot work") };
    assert!(error.to_string().contains("references"), "{error}");
    assert!(failed.done().is_err() && matches!(failed.news(), Some(News::Phase(Phase::Opening))));
    let model = ModelFolder::open(&job.model).expect("a model");
    let artist =
        host.artist(model, Vec::new(), TextSettings::default(), Keeping::default()).expect("an artist");
    let odd = Sampling { width: 7, ..how() };
    let Outcome::Failed(error) = artist.draw(Drawing::new("a cat", 1, odd)).expect("a job").wait(None) else {
        panic!("no such size")
    };
    assert!(error.to_string().contains("image size"), "{error}");
    assert!(matches!(error, pentimento_trainer::Error::Call { .. }), "no file is to blame: {error:?}");
    assert_eq!(artist.draw(Drawing::new("a cat", 1, how())).expect("a job").wait(None), Outcome::Done);
    // A job that nobody waits for ends when what it works on goes.
    host.pace().poll(Duration::ZERO, Duration::ZERO);
    let long = Sampling { steps: 500, ..how() };
    let left = artist.draw(Drawing::new("a cat", 1, long)).expect("a job");
    assert_eq!(left.wait(Some(Duration::ZERO)), Outcome::Running);
    drop(artist);
    assert_eq!(left.wait(None), Outcome::Cancelled);
}
