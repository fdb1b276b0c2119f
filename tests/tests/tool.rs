//! The command-line tool as shells meet it: signals, pipes, full disks, and folders that hold earlier runs.
#![cfg(unix)]
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::adapter::adapter;
use tests::built::{build, workspace};
use tests::scratch::Scratch;
use tests::tiny;

/// Exit status of what a signal ended.
const STOPPED: Option<i32> = Some(130);

fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("pentimento-cli").join("pentimento"))
}

/// Whether whoever runs the tests, `nohup` perhaps, hands on that SIGHUP is ignored, which the tool respects.
fn hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 1 == 1)
}

fn pentimento(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    if hangup_ignored() {
        command = Command::new("env");
        command.arg("--default-signal=HUP").arg(program());
    }
    command.env("PENTIMENTO_PIPELINE_CACHE", "off"); // nothing in anybody's home
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
/// With the device under test.
fn working(args: &[&str]) -> Command {
    let mut command = pentimento(args);
    if let Ok(device) = std::env::var("PENTIMENTO_ADAPTER") {
        command.args(["--device", &device]);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
/// All that it said, and its exit status.
fn said(output: &Output) -> (String, Option<i32>) {
    (text(&output.stdout) + &text(&output.stderr), output.status.code())
}
fn ends(mut command: Command) -> (String, Option<i32>) {
    said(&command.output().expect("the tool runs"))
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "{name} was not sent");
}
/// Waits until a file is there; the tool must go on until then.
fn wait_for(path: &Path, child: &mut Child) {
    let start = Instant::now();
    while !path.exists() {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "it ended before {} was there: {ended:?}", path.display());
        assert!(start.elapsed() < Duration::from_secs(300), "no {}", path.display());
        sleep(Duration::from_millis(20));
    }
}
fn end_of(child: Child) -> (String, Option<i32>) {
    said(&child.wait_with_output().expect("it ends"))
}

/// Files of a folder with their bytes, the lock left out.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).expect("a folder").flatten().filter(|e| e.path().is_file());
    let read =
        |e: fs::DirEntry| (e.file_name().into_string().expect("a name"), fs::read(e.path()).expect("a file"));
    let mut all: Vec<_> = files.map(read).filter(|(name, _)| !name.starts_with('.')).collect();
    all.sort();
    all
}

#[test]
fn a_closed_pipe_is_no_error_and_a_full_disk_is_a_sentence() {
    let vae = workspace().join("tests/fixtures/vae");
    let vae = vae.to_str().expect("a path");
    for args in [&["inspect", vae][..], &["--help"], &["inspect", "--help"], &["--version"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (words, status) = said(&pentimento(args).stdout(writer).output().expect("the tool runs"));
        assert_eq!((words.as_str(), status), ("", Some(0)), "{args:?} into a closed pipe");
        if Path::new("/dev/full").exists() {
            let full = File::options().write(true).open("/dev/full").expect("a device");
            let (words, status) = said(&pentimento(args).stdout(full).output().expect("the tool runs"));
            assert!(
                words.starts_with("error: standard output: cannot write: ") && words.lines().count() == 1,
                "{args:?}: {words}"
            );
            assert_eq!(status, Some(1), "{args:?}");
        }
    }
    // What is wrong is still the exit status where nobody can read why.
    let (_, writer) = std::io::pipe().expect("a pipe");
    let mut command = pentimento(&["inspect", "no/such/model"]);
    let status = command.stdout(writer.try_clone().expect("a pipe")).stderr(writer).status();
    assert_eq!(status.expect("the tool runs").code(), Some(1));
    assert_eq!(ends(pentimento(&["no-such-command"])).1, Some(2));
}

#[test]
fn devices_have_an_index_and_nothing_else_is_printed() {
    if adapter("the list of devices").is_none() {
        return;
    }
    let mut command = pentimento(&["devices"]);
    let output = command.env_remove("XDG_RUNTIME_DIR").output().expect("the tool runs");
    let list = text(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let names: Vec<&str> = list.lines().filter(|l| !l.starts_with(' ')).collect();
    for (i, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{i}: ")), "{list}");
    }
    let folder = Scratch::new("tool-devices");
    let (model, out) = (tiny::model(&folder.0), folder.0.join("out"));
    let (model, out) = (model.to_str().expect("a path"), out.to_str().expect("a path"));
    let number = names.len().to_string();
    let (words, status) =
        ends(pentimento(&["generate", "--model", model, "--prompt", "x", "--out", out, "--device", &number]));
    let expected = format!("no adapter of index {number}");
    assert!(status == Some(1) && words.contains(&expected) && words.contains("0 "), "{words}");
}

#[test]
fn pictures_that_are_done_are_kept() {
    if adapter("drawing").is_none() {
        return;
    }
    let folder = Scratch::new("tool-generate");
    let (model, out, prompts) = (tiny::model(&folder.0), folder.0.join("out"), folder.0.join("prompts"));
    fs::write(&prompts, "a cat\n".repeat(64)).expect("a file");
    let [model, prompts, target] = [&model, &prompts, &out].map(|p| p.to_str().expect("a path"));
    let args = ["generate", "--model", model, "--prompts", prompts, "--steps", "30", "--out", target];
    for name in ["-INT", "-TERM", "-HUP"] {
        let _ = fs::remove_dir_all(&out);
        let mut child = working(&args).spawn().expect("the tool runs");
        wait_for(&out.join("0007-a-cat-7.png"), &mut child);
        signal(&child, name);
        let (words, status) = end_of(child);
        let kept = contents(&out).iter().filter(|(name, _)| name != "contact.png").count();
        assert!(out.join("contact.png").is_file(), "no sheet of those that are done");
        assert!(status == STOPPED && words.contains("stopped on request"), "{name}: {status:?} {words}");
        assert!(words.contains(&format!("{kept} of 64 images in ")), "{kept} are there, but: {words}");
        assert!(kept.is_multiple_of(8) && (8..64).contains(&kept), "{kept} pictures");
        assert!(words.contains("drawing\n"), "nothing tells what it does: {words}");
    }
    // Whoever started it with `nohup` wants it to outlive its terminal.
    let _ = fs::remove_dir_all(&out);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program());
    shell.args(["generate", "--model", model, "--prompt", "x", "--steps", "60", "--out", target]);
    shell.env("PENTIMENTO_PIPELINE_CACHE", "off");
    let mut child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
    wait_for(&out, &mut child);
    signal(&child, "-HUP");
    let (words, status) = end_of(child);
    assert!(status == Some(0) && contents(&out).len() == 1, "{status:?} {words}");
}

#[test]
fn pictures_say_how_they_were_made() {
    if adapter("drawing").is_none() {
        return;
    }
    let folder = Scratch::new("tool-parameters");
    let (model, out) = (tiny::model(&folder.0), folder.0.join("out"));
    let [path, target] = [&model, &out].map(|p| p.to_str().expect("a path"));
    let draw = |more: &[&str]| {
        let mut command = working(&["generate", "--model", path, "--steps", "2", "--out", target]);
        ends({
            command.args(more);
            command
        })
    };
    let two = ["--prompt", "A cat!", "two dogs", "--count", "2", "--batch", "3", "--seed", "5"];
    let (words, status) = draw(&two);
    assert!(status == Some(0) && words.contains("4 images in ") && words.contains("all in one: "), "{words}");
    assert!(words.contains("texts to read: 2, none too long"), "{words}");
    let (words, status) = draw(&[&two[..], &["--negative", "blur"]].concat());
    assert_eq!(status, Some(0), "{words}");
    let all = contents(&out);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let first = [
        "0000-a-cat-5.png",
        "0001-a-cat-6.png",
        "0002-two-dogs-7.png",
        "0003-two-dogs-8.png",
        "0004-a-cat-5.png",
    ];
    assert!(
        names.len() == 10 && names.starts_with(&first) && names.ends_with(&["contact-2.png", "contact.png"]),
        "{names:?}"
    );
    let picture =
        |i: usize| pentimento_trainer::images::Picture::decode(names[i], &all[i].1).expect("a picture");
    assert!(picture(0) != picture(1) && picture(0) != picture(4), "seed or negative prompt change nothing");
    let has = |i: usize, text: &str| text_of(&all[i].1).contains(text);
    assert!(has(
        0,
        "parameters\0A cat!\nSteps: 2, Sampler: Euler, CFG scale: 4.5, Seed: 5, Size: 16x16, Model: "
    ));
    assert!(has(4, "A cat!\nNegative prompt: blur\nSteps: 2"));
    let (words, status) = draw(&["--prompt", "x", "--negative", "y", "--guidance", "1"]);
    assert!(
        status == Some(1) && words.contains("--guidance beside --negative: expected more than 1"),
        "{words}"
    );
}
/// Bytes as they are, letter for letter.
fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

#[test]
fn built_pipelines_are_kept_where_the_user_says() {
    let Some(device) = adapter("kept pipelines") else { return };
    drop(device);
    let folder = Scratch::new("tool-pipelines");
    let (model, out) = (tiny::model(&folder.0), folder.0.join("out"));
    let (named, caches) = (folder.0.join("named"), folder.0.join("caches"));
    let [model, target, name] = [&model, &out, &named].map(|p| p.to_str().expect("a path"));
    let args = ["generate", "--model", model, "--prompt", "x", "--steps", "1", "--out", target];
    let draw = |more: &[&str], variable: Option<&str>| {
        let mut command = working(&args);
        command.args(more).env("XDG_CACHE_HOME", &caches).env_remove("PENTIMENTO_PIPELINE_CACHE");
        command.envs(variable.map(|value| ("PENTIMENTO_PIPELINE_CACHE", value)));
        let _ = fs::remove_dir_all(&out);
        let (words, status) = ends(command);
        assert_eq!(status, Some(0), "{words}");
        (fs::read(out.join("0000-x-0.png")).expect("a picture"), words)
    };
    let ours = || fs::read_dir(caches.join("pentimento")).map_or(0, Iterator::count);
    let (picture, _) = draw(&["--pipeline-cache", "off"], Some(name));
    assert!(!named.exists() && ours() == 0, "off, but something was written");
    draw(&[], Some("off"));
    assert!(ours() == 0, "off, but something was written");
    let (same, words) = draw(&[], Some(name));
    if !named.exists() {
        return println!("SKIPPED: kept pipelines (this driver keeps none)");
    }
    assert!(same == picture && !words.contains("kept"), "{words}");
    let whole = fs::read(&named).expect("what is kept");
    let (same, words) = draw(&["--pipeline-cache", name], None);
    assert!(same == picture && !words.contains("kept"), "{words}");
    assert!(ours() == 0, "a file was named, but another was written");
    for bad in [&b"damaged"[..], &whole[..whole.len() - 1], b""] {
        fs::write(&named, bad).expect("a file");
        let (same, words) = draw(&["--pipeline-cache", name], None);
        assert!(same == picture && words.contains("kept pipelines are not used: they are "), "{words}");
        assert!(fs::read(&named).is_ok_and(|now| now.len() >= whole.len()), "it was not replaced");
    }
    let (same, words) = draw(&["--pipeline-cache", "/dev/null"], None);
    assert!(same == picture && words.contains("are not kept: /dev/null: expected a regular file"), "{words}");
    draw(&[], None);
    assert_eq!(ours(), usize::from(cfg!(not(target_os = "macos"))), "the user's folder");
}

/// A model, two references with captions, and a folder for results.
struct Job {
    folder: Scratch,
    model: PathBuf,
}

impl Job {
    fn new(name: &str) -> Self {
        let folder = Scratch::new(name);
        let references = folder.0.join("references");
        fs::create_dir(&references).expect("a folder");
        let icons = workspace().join("examples/models/icons/references/mono");
        for name in ["anchor", "dog"] {
            let file = format!("{name}.png");
            fs::copy(icons.join(&file), references.join(&file)).expect("a copy");
            fs::write(references.join(format!("{name}.txt")), name).expect("a file");
        }
        Job { model: tiny::model(&folder.0), folder }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }
    fn train(&self, out: &str, seed: &str, warm_steps: &str) -> Command {
        let [model, references, out] =
            [&self.model, &self.path("references"), &self.path(out)].map(|p| p.display().to_string());
        let mut command = working(&["personalize", "--model", &model, "--references", &references]);
        command.args(["--out", &out, "--seed", seed, "--iterations", "0", "--warm-steps", warm_steps]);
        command
    }
}

/// A base in other bits gives another adapter, and another picture.
#[test]
fn a_model_is_quantised_where_that_is_asked_for() {
    if adapter("training").is_none() {
        return;
    }
    let job = Job::new("tool-base");
    let (model, drawn) = (job.model.display().to_string(), job.path("drawn").display().to_string());
    let mut seen = Vec::new();
    for base in [&[][..], &["--base", "q8"], &["--base", "q4"]] {
        let mut train = job.train("out", "1", "2");
        let (words, status) = ends({
            train.args(base);
            train
        });
        assert_eq!(status, Some(0), "{words}");
        let _ = fs::remove_dir_all(&drawn);
        let mut draw = working(&["generate", "--model", &model, "--prompt", "x", "--out", &drawn]);
        let (words, status) = ends({
            draw.args(base);
            draw
        });
        assert_eq!(status, Some(0), "{words}");
        let files = ["out/pytorch_lora_weights.safetensors", "drawn/0000-x-0.png"];
        let now = files.map(|file| fs::read(job.path(file)).expect("a file"));
        seen.push(now);
    }
    let [own, q8, q4] = &seen[..] else { panic!("three runs") };
    assert!(own[0] != q8[0] && own[1] != q8[1], "q8 changes nothing");
    assert_eq!(own, q4, "the file is in Q4_0 already");
    let (words, status) = ends({
        let mut train = job.train("out", "1", "2");
        train.args(["--base", "q5"]);
        train
    });
    assert!(status == Some(2) && words.contains("q8 or q4"), "{words}");
}

/// One folder through the lives of five runs.
#[test]
fn nothing_replaces_an_earlier_run_but_a_complete_one() {
    if adapter("training").is_none() {
        return;
    }
    let job = Job::new("tool-out");
    let (out, unfinished) = (job.path("out"), job.path("out/unfinished"));
    let (words, status) = ends(job.train("out", "1", "2"));
    assert_eq!(status, Some(0), "{words}");
    for part in ["training on", "2 references", "preparing", "warm start: 2 of 2, loss", "adapter: "] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    fs::write(out.join("iteration-7.safetensors"), "of the first run").expect("a file");
    fs::write(out.join("notes.txt"), "a person's").expect("a file");
    let first = contents(&out);
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "after.png",
            "before.png",
            "iteration-7.safetensors",
            "metrics.jsonl",
            "notes.txt",
            "pytorch_lora_weights.safetensors",
            "references.png",
            "references.txt",
            "report.html",
            "run.json",
            "settings.toml",
            "state.safetensors"
        ]
    );

    // A second run, stopped; while it goes on, a third is refused.
    let mut second = job.train("out", "2", "1000000").spawn().expect("the tool runs");
    wait_for(&unfinished.join("metrics.jsonl"), &mut second);
    let (words, status) = ends(job.train("out", "3", "2"));
    assert!(status == Some(1) && words.contains("found one that a run is using"), "{words}");
    signal(&second, "-USR1");
    wait_for(&unfinished.join("iteration-0.png"), &mut second);
    signal(&second, "-HUP");
    let (words, status) = end_of(second);
    let page = fs::read_to_string(unfinished.join("report.html")).expect("a page");
    assert!(
        page.contains("The run is stopped after the warm start.") && page.contains("Previews"),
        "{words}"
    );
    assert!(status == STOPPED && words.contains("adapter so far: "), "{status:?} {words}");
    assert!(words.contains("keeps an earlier run's files"), "{words}");
    assert!(unfinished.join("pytorch_lora_weights.safetensors").is_file() && contents(&out) == first);

    // A fourth, killed: it leaves no lock, and the stopped one's adapter stays as well.
    let stopped = contents(&unfinished);
    let mut fourth = job.train("out", "4", "1000000").spawn().expect("the tool runs");
    wait_for(&job.path("out/unfinished-2/state.safetensors"), &mut fourth);
    signal(&fourth, "-KILL");
    assert_eq!(fourth.wait().expect("it ends").signal(), Some(9));
    assert!(contents(&out) == first && contents(&unfinished) == stopped);

    // A fifth, complete: everything in the folder is its own.
    let (words, status) = ends(job.train("out", "5", "3"));
    assert_eq!(status, Some(0), "{words}");
    let last = contents(&out);
    let names: Vec<&str> = last.iter().map(|(name, _)| name.as_str()).collect();
    let all = ["after.png", "before.png", "metrics.jsonl", "notes.txt", "pytorch_lora_weights.safetensors"];
    let more =
        ["references.png", "references.txt", "report.html", "run.json", "settings.toml", "state.safetensors"];
    assert_eq!(names, [&all[..], &more].concat());
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).expect("a file");
    assert_eq!(metrics.lines().count(), 4, "{metrics}"); // and how it ended
    let adapter = |all: &[(String, Vec<u8>)]| all.iter().find(|(n, _)| n.starts_with("pytorch")).cloned();
    assert!(adapter(&last) != adapter(&first) && contents(&unfinished) == stopped);
    assert!(!job.path("out/unfinished-3").exists(), "its place of work stays");
    assert!(job.path("out/unfinished-2/state.safetensors").exists(), "what a killed run had come to");
}

/// What a run was set to stands beside its adapter, and makes the same adapter again.
#[test]
fn settings_are_set_by_name_and_written_where_the_adapter_is() {
    if adapter("training").is_none() {
        return;
    }
    let job = Job::new("tool-settings");
    let train = |out: &str, more: &[&str]| {
        let mut command = job.train(out, "1", "2");
        command.args(more);
        ends(command)
    };
    let written = |out: &str| fs::read_to_string(job.path(out).join("settings.toml")).expect("settings");
    let made =
        |out: &str| fs::read(job.path(out).join("pytorch_lora_weights.safetensors")).expect("an adapter");
    let (words, status) = train("plain", &[]);
    assert_eq!(status, Some(0), "{words}");
    let (words, status) = train("set", &["--set", "warm.rate=5e-4", "--set", "warm.steps=3"]);
    assert!(status == Some(0) && words.contains("warm start: 3 of 3"), "{words}");
    let (plain, set) = (written("plain"), written("set"));
    assert!(plain.contains("\nwarm.rate = 0.001\n") && plain.contains("\nwarm.steps = 2\n"), "{plain}");
    assert!(set.contains("\nwarm.rate = 0.0005\n") && set.contains("\nwarm.steps = 3\n"), "{set}");
    assert!(made("plain") != made("set"), "it was set, but not used");

    let file = job.path("set/settings.toml").display().to_string();
    let own = |out: &str, more: &[&str]| {
        let [model, references, out] =
            [&job.model, &job.path("references"), &job.path(out)].map(|p| p.display().to_string());
        let mut command = working(&["personalize", "--model", &model, "--references", &references]);
        command.args(["--out", &out, "--settings", &file]).args(more);
        ends(command)
    };
    let (words, status) = own("again", &[]);
    assert_eq!(status, Some(0), "{words}");
    assert!(made("again") == made("set") && written("again") == set, "not the same run");
    let (words, status) = train("quick", &["--preset", "quick"]);
    assert!(status == Some(0) && words.contains("preset quick: A first look"), "{words}");
    assert!(words.contains(" it takes about ") && written("quick").contains("\niterations = 0\n"), "{words}");
    let (words, status) = own("again", &["--resume", "--set", "optim.rate=0.5"]);
    assert!(status == Some(1) && words.contains("optim.rate: expected 0.0002, found 0.5"), "{words}");
    assert_eq!(written("again"), set, "a run that was refused wrote its settings");
    let run = fs::read_to_string(job.path("again/run.json")).expect("what it was made from");
    let run: serde_json::Value = serde_json::from_str(&run).expect("JSON");
    assert!(run["device"].is_string() && run["pentimento"].is_string(), "{run}");
    assert_eq!(run["made_from"]["warm.steps"], "3");
    assert!(
        run["made_from"]["reference 1"].is_string() && run["made_from"]["the reward's network"].is_string(),
        "{run}"
    );

    let (words, status) = own("never", &["--set", "optim.rat=1e-3"]);
    assert!(status == Some(1) && words.contains("Did you mean optim.rate?"), "{words}");
    fs::write(&file, "optim.rate = 1e-3\nhed.steady = 1\n").expect("a file");
    let (words, status) = own("never", &[]);
    assert!(status == Some(1) && words.contains("line 2: hed.steady"), "{words}");
    assert!(words.contains("Did you mean head.steady?") && !job.path("never").exists(), "{words}");
}

/// Pictures on the way, words, and a page at the end; which the tool makes again, the same to the byte.
#[test]
fn a_run_shows_what_it_does() {
    if adapter("training").is_none() {
        return;
    }
    let job = Job::new("tool-shows");
    let [model, references, out] =
        [&job.model, &job.path("references"), &job.path("out")].map(|p| p.display().to_string());
    let mut command =
        working(&["personalize", "--model", &model, "--references", &references, "--out", &out]);
    command.args(["--warm-steps", "2", "--iterations", "2", "--watch-every", "1", "--preview", "2"]);
    let (words, status) = ends(command);
    assert_eq!(status, Some(0), "{words}");
    for part in ["texts to read: ", "preview: ", "report: ", "looking", "captions: all"] {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    let names = [
        "look-base.png",
        "look-0.png",
        "look-1.png",
        "look-2.png",
        "iteration-2.png",
        "references.png",
        "report.html",
    ];
    names.iter().for_each(|name| assert!(job.path("out").join(name).is_file(), "no {name}: {words}"));
    assert!(!job.path("out/iteration-1.png").exists());
    let page = || fs::read_to_string(job.path("out/report.html")).expect("a page");
    let first = page();
    for part in
        ["The run is complete after 2 iterations", "Pictures over iterations", "Previews", "Reward", "anchor"]
    {
        assert!(first.contains(part), "no {part:?} in the page");
    }
    assert!(!first.contains("is left out"), "something of it could not be read");
    let (words, status) = ends(pentimento(&["report", &out]));
    assert!(status == Some(0) && page() == first, "{words}");
}

#[test]
fn all_settings_are_printed() {
    let (words, status) = ends(pentimento(&["settings", "--recipe", "grpo"]));
    assert_eq!(status, Some(0), "{words}");
    for part in
        ["\nrecipe = \"grpo\"\n", "\noptim.rate = 0.0002\n", "default 0.0002", "source: released code"]
    {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    let (words, status) = ends(pentimento(&["settings", "--preset", "official"]));
    assert!(status == Some(0) && words.contains("\nrecipe = \"released\"\n"), "{words}");
}

#[test]
fn a_run_that_comes_to_nothing_leaves_no_adapter_and_takes_no_pictures_of_its_own() {
    if adapter("training").is_none() {
        return;
    }
    let job = Job::new("tool-nothing");
    fs::write(job.path("references/half.png"), b"\x89PNG\r\n\x1a\n").expect("written");
    let mut child = job.train("out", "1", "2").spawn().expect("the tool runs");
    wait_for(&job.path("out/references.txt"), &mut child);
    signal(&child, "-TERM");
    let (words, status) = end_of(child);
    assert!(status == STOPPED && words.contains("stopped on request"), "{status:?} {words}");
    assert!(words.contains("passed over: ") && words.contains("half.png"), "{words}");
    assert!(!job.path("out/pytorch_lora_weights.safetensors").exists(), "{words}");
    let (words, status) = ends(job.train("references/../references", "1", "2"));
    assert!(status == Some(1) && words.contains("another folder than the references'"), "{words}");
    assert_eq!(contents(&job.path("references")).len(), 5, "something was written among the references");
}
