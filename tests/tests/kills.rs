//! The command-line tool killed with SIGKILL at random moments, over and over, ends with the adapter and the metrics of a run that
//! nobody disturbed. PENTIMENTO_KILLS says how many times, see tests/kills.sh.
#![cfg(unix)]
use pentimento_runtime::rng::Philox;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::adapter::adapter;
use tests::built::{build, workspace};
use tests::scratch::Scratch;
use tests::tiny;

struct Job {
    program: PathBuf,
    folder: Scratch,
    model: PathBuf,
}

impl Job {
    fn new() -> Self {
        let folder = Scratch::new("kills");
        let references = folder.0.join("references");
        fs::create_dir(&references).expect("a folder");
        let icons = workspace().join("examples/models/icons/references/mono");
        for name in ["anchor", "dog"] {
            fs::copy(icons.join(format!("{name}.png")), references.join(format!("{name}.png")))
                .expect("a copy");
            fs::write(references.join(format!("{name}.txt")), name).expect("a file");
        }
        let program = build("pentimento-cli").join("pentimento");
        Job { program, model: tiny::model(&folder.0), folder }
    }
    fn command(&self, recipe: &str, out: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["personalize", "--resume", "--seed", "3", "--iterations", "2", "--rank", "2"]);
        command.args(["--recipe", recipe, "--warm-steps", if recipe == "released" { "0" } else { "12" }]);
        let folders = [("--model", self.model.as_path()), ("--out", out)];
        for (name, path) in folders {
            command.arg(name).arg(path);
        }
        command.arg("--references").arg(self.folder.0.join("references"));
        if let Ok(device) = std::env::var("PENTIMENTO_ADAPTER") {
            command.args(["--device", &device]);
        }
        command.env("PENTIMENTO_PIPELINE_CACHE", "off").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// The adapter, and the metrics without times and memory, which are each process's own.
fn came_to(out: &Path) -> (Vec<u8>, Vec<serde_json::Value>) {
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let row = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let own = ["seconds", "elapsed", "memory"];
        own.iter().for_each(|k| drop(row.as_object_mut().expect("an object").remove(*k)));
        row
    };
    (
        fs::read(out.join("pytorch_lora_weights.safetensors")).expect("an adapter"),
        metrics.lines().map(row).collect(),
    )
}

/// Starts the run again and again, each time killed after at most `most`, until one ends. Returns the kills.
fn kill(job: &Job, recipe: &str, out: &Path, most: Duration, rng: &mut Philox) -> usize {
    for kills in 0.. {
        let mut child = job.command(recipe, out).spawn().expect("the tool runs");
        sleep(most.mul_f32(rng.uniform()));
        if let Some(status) = child.try_wait().expect("a child") {
            let words = child.wait_with_output().map(|o| String::from_utf8_lossy(&o.stderr).into_owned());
            assert!(status.success(), "{recipe}, after {kills} kills: {words:?}");
            return kills;
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
    }
    unreachable!("a run ends")
}

#[test]
fn a_killed_run_goes_on_to_the_same_bits() {
    if adapter("killed runs").is_none() {
        return;
    }
    let wanted = std::env::var("PENTIMENTO_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let recipes =
        if wanted > 3 { &["pathwise", "grpo", "nft", "sft", "released"][..] } else { &["pathwise"] };
    let (job, mut rng, mut all) = (Job::new(), Philox::new(wanted as u64, 1), 0);
    for (i, recipe) in recipes.iter().enumerate() {
        let whole = job.folder.0.join(format!("{recipe}-whole"));
        let began = Instant::now();
        let output = job.command(recipe, &whole).output().expect("the tool runs");
        assert!(output.status.success(), "{recipe}: {}", String::from_utf8_lossy(&output.stderr));
        let (most, want) = (began.elapsed(), came_to(&whole));
        while all * recipes.len() < wanted * (i + 1) {
            let out = job.folder.0.join(format!("{recipe}-{all}"));
            all += kill(&job, recipe, &out, most, &mut rng);
            assert!(came_to(&out) == want, "{recipe}: after kill {all}");
        }
    }
    println!("{all} kills");
}
