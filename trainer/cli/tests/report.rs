//! `pentimento report` on folders of runs: whole ones, damaged ones, and such as somebody wrote who means no good.
use pentimento_trainer::images::{COLUMNS, GAP, Picture, contact_sheet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"y";

/// Removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pentimento-report-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), bytes).expect("a file");
    }
    fn sheet(&self, name: &str, side: u32, count: u8) {
        let picture = |v| Picture::new(side, side, vec![v; (side * side * 3) as usize]).expect("a picture");
        let pictures: Vec<Picture> = (0..count).map(picture).collect();
        self.write(name, contact_sheet(&pictures, COLUMNS, GAP).and_then(|s| s.to_png()).expect("a sheet"));
    }
}
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A whole run, `caption` among its prompts and references.
fn run(name: &str, rate: &str, caption: &str) -> Folder {
    let folder = Folder::new(name);
    let iteration = |i: usize| {
        format!(
            "{{\"iteration\":{i},\"reward_generated\":{},\"reward_reference\":1.5,\"head_accuracy\":0.99,\"kl\":0.1,\"seconds\":2.5,\"elapsed\":{i}}}\n",
            i as f64 / 10.0
        )
    };
    let look = |i: usize| {
        format!("{{\"watch\":{i},\"distance\":{},\"diversity\":20,\"best\":{i}}}\n", 1.0 / (1 + i) as f64)
    };
    let mut metrics = "{\"warm\":1,\"loss\":0.5}\n".to_string() + &look(0);
    (1..5).for_each(|i| metrics += &(iteration(i) + &look(i)));
    folder
        .write("metrics.jsonl", metrics + "{\"end\":\"complete\",\"kept\":\"The last adapter is kept.\"}\n");
    folder.write("settings.toml", format!("recipe = \"pathwise\"\noptim.rate = {rate}\n"));
    let run = serde_json::json!({
        "pentimento": "0.1.0", "device": "a device", "model": "models/x", "t5": false, "slow": true,
        "sheet": {"prompts": [caption, "a dog"], "seed": 1000, "guidance": 4.5, "width": 16, "height": 16},
        "references": [{"name": "a.png", "caption": caption}],
        "made_from": {"the model's transformer": "0123abcd", "references": 3},
    });
    folder.write("run.json", run.to_string());
    [
        "before.png",
        "after.png",
        "look-base.png",
        "look-0.png",
        "look-4.png",
        "iteration-2.png",
        "references.png",
    ]
    .iter()
    .for_each(|name| folder.sheet(name, 16, 2));
    folder
}

/// Whether it succeeded, and all that it printed.
fn report(args: &[&Path]) -> (bool, String) {
    let out =
        Command::new(env!("CARGO_BIN_EXE_pentimento")).arg("report").args(args).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = text(&out.stdout) + &text(&out.stderr);
    assert!(!words.contains("panicked"), "{words}");
    (out.status.success(), words)
}
fn page(path: PathBuf) -> String {
    let page = fs::read_to_string(path).expect("a page");
    for outside in ["http:", "https:", "<script", "src=\"/", "url(", "@import"] {
        let own = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!own.contains(outside), "{outside} in the page");
    }
    assert!(page.contains("width=device-width") && page.ends_with("</html>"), "no whole page");
    page
}

#[test]
fn a_run_is_told() {
    let folder = run("whole", "0.0001", "a cat");
    let (ok, words) = report(&[&folder.0]);
    assert!(ok && words.contains("report: ") && words.lines().count() == 1, "{words}");
    let page = page(folder.0.join("report.html"));
    for part in [
        "The run is complete after 4 iterations. The last adapter is kept.",
        "the judge is ahead: it tells 99 % of what it sees",
        "learning: the pictures came nearer",
        "Before and after",
        "References",
        "and 2 more",
        "base model",
        "iteration 4",
        "distance 0.2",
        "Held-out style",
        "Judge's accuracy",
        "KL",
        "followed by the gradient",
        "Warm start",
        "Seconds",
        "optim.rate",
        "0.0002",
        "load_lora_weights",
        "text_encoder_3=None",
        "LoraLoaderModelOnly",
        "--lora-model-dir",
        "0123abcd",
        "prefers-color-scheme: dark",
    ] {
        // Nothing is followed where no line has it, and a name without points is not in a legend.
        assert_eq!(page.contains(part), part != "followed by the gradient", "{part}");
    }
    // Two pairs, a reference, two of each of four strips.
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 4 + 1 + 8);
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn runs_are_compared() {
    let (one, other) = (run("one", "0.0001", "a cat"), run("other", "0.0003", "a cat"));
    let out = one.0.join("both.html");
    let (ok, words) = report(&[&one.0, &other.0, Path::new("--out"), &out]);
    assert!(ok, "{words}");
    let page = page(out);
    for part in
        ["2 runs", "Settings that differ", "optim.rate", "0.0003", "Reward: generated", "key k1", "a dog"]
    {
        assert!(page.contains(part), "no {part}");
    }
    assert!(!page.contains("warm.rate"), "a setting that is the same");
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 2 * 3, "base, and both of each prompt");
    let many = vec![one.0.as_path(); 9];
    assert!(!report(&many).0, "more runs than colours");
}

#[test]
fn texts_of_others_stay_texts() {
    let folder = run("hostile", "0.0001", HOSTILE);
    folder.write("settings.toml", format!("\"{}\" = 1\n", HOSTILE.replace('"', "\\\"")));
    let mut metrics = fs::read(folder.0.join("metrics.jsonl")).expect("metrics");
    metrics.extend(format!("{{\"end\":{},\"kept\":{0}}}\n", serde_json::json!(HOSTILE)).bytes());
    folder.write("metrics.jsonl", metrics);
    let (ok, words) = report(&[&folder.0]);
    assert!(ok && words.contains("settings.toml is left out"), "{words}");
    let page = page(folder.0.join("report.html"));
    assert!(page.contains("&lt;script&gt;") && !page.contains("\" onload=\""), "not escaped");
}

#[test]
fn whatever_is_damaged_or_missing_is_said_and_left_out() {
    let (bomb, long) =
        ("[".repeat(100_000), format!("{{\"iteration\":1,\"x\":\"{}\"}}", "a".repeat(1 << 20)));
    let lines = [
        "{\"iteration\":1,\"seconds\":2",
        bomb.as_str(),
        long.as_str(),
        "{\"iteration\":1e999}",
        "{\"iteration\":\"one\"}",
        "{\"other\":1}",
        "\u{0}",
        "{\"iteration\":5,\"seconds\":-1e308,\"rate\":1e308,\"head_accuracy\":null,\"reward_generated\":1e14}",
        "{\"iteration\":6,\"reward_generated\":-1e14}",
    ];
    for name in [
        "metrics.jsonl",
        "settings.toml",
        "run.json",
        "before.png",
        "after.png",
        "references.png",
        "look-0.png",
        "iteration-2.png",
    ] {
        let whole = run("damaged", "0.0001", "a cat");
        let bytes = fs::read(whole.0.join(name)).expect("a file");
        for content in [&bytes[..bytes.len() / 2], b"", &[0xff; 4096], b"[]", lines.join("\n").as_bytes()] {
            whole.write(name, content);
            let (ok, words) = report(&[&whole.0]);
            assert!(ok, "{name}: {words}");
            page(whole.0.join("report.html"));
        }
        fs::remove_file(whole.0.join(name)).expect("removed");
        assert!(report(&[&whole.0]).0, "without {name}");
        page(whole.0.join("report.html"));
    }
    let folder = run("lines", "0.0001", "a cat");
    folder.write("metrics.jsonl", lines.join("\n"));
    let (ok, words) = report(&[&folder.0]);
    assert!(ok && words.contains("7 lines of metrics.jsonl are no metrics"), "{words}");
    for size in ["0", "4294967295", "17", "\"x\""] {
        let run = format!("{{\"sheet\":{{\"width\":{size},\"height\":16}},\"references\":[1,{{}}]}}");
        folder.write("run.json", run);
        assert!(report(&[&folder.0]).0, "{size}");
        page(folder.0.join("report.html"));
    }

    let empty = Folder::new("empty");
    let (ok, words) = report(&[&empty.0]);
    assert!(!ok && words.contains("missing anything that a run writes"), "{words}");
    let (ok, words) = report(&[Path::new("no/such/run")]);
    assert!(!ok && words.contains("missing the run's folder itself"), "{words}");
    let (ok, words) = report(&[&folder.0, Path::new("--out"), Path::new("no/such/folder/x.html")]);
    assert!(!ok && words.contains("missing the folder itself"), "{words}");
}

/// As a browser lays it out: nothing is wider than a telephone.
#[test]
fn a_telephone_shows_all_of_it() {
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()));
    let Some(browser) = browser else { return println!("SKIPPED: the page in a browser (no chromium)") };
    let folder = run("browser", "0.0001", &"a very long caption without an end ".repeat(9).replace(' ', "_"));
    assert!(report(&[&folder.0]).0);
    let page = fs::read_to_string(folder.0.join("report.html")).expect("a page");
    // The page as it is, within a frame of a telephone's width, which says how wide it is inside.
    let wide = |more: &str| {
        let inner = page.replace("default-src 'none'", "script-src 'unsafe-inline'");
        let script =
            "<script>document.title = 'wide ' + document.documentElement.scrollWidth</script></body>";
        folder.write("probe.html", inner.replace("</body>", &format!("{more}{script}")));
        folder.write(
            "frame.html",
            "<body style='margin:0'><iframe id=f src=probe.html style='width:360px;height:800px;border:0'></iframe>\
             <script>f.onload = () => document.title = f.contentDocument.title</script>",
        );
        let profile = format!("--user-data-dir={}", folder.0.join("profile").display());
        let url = format!("file://{}", folder.0.join("frame.html").display());
        let mut command = Command::new(browser);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--allow-file-access-from-files",
        ]);
        let dom = command.args([&profile, &url]).output().expect("it runs").stdout;
        let dom = String::from_utf8_lossy(&dom).into_owned();
        dom.split("<title>wide ").nth(1).and_then(|t| t.split('<').next()?.parse::<u32>().ok())
    };
    assert!(wide("").is_some_and(|w| w <= 360), "it scrolls sideways");
    assert!(wide("<p style='width:700px'>x</p>").is_some_and(|w| w > 700), "the check finds nothing");
}
