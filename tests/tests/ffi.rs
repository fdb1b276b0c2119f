//! The C interface as C programs meet it: header, example, promises.
//!
//! `PENTIMENTO_BLESS=1 cargo test -p tests --test ffi` rewrites include/pentimento.h.
use pentimento::exec::cpu::Cpu;
use pentimento::folder::ModelFolder;
use pentimento::pipeline;
use pentimento_trainer::adapted::{self, Source};
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::images::Picture;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tests::adapter::adapter;
use tests::built::{build, workspace};
use tests::tiny;

fn model() -> PathBuf {
    workspace().join("examples/models/icons")
}

/// A fresh folder beside the test's own build products.
fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ffi-{name}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

#[test]
fn header_is_fresh() {
    let path = workspace().join("include/pentimento.h");
    let config = cbindgen::Config::from_file(workspace().join("ffi/cbindgen.toml")).expect("cbindgen.toml");
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_src(workspace().join("ffi/src/lib.rs"))
        .with_config(config)
        .generate()
        .expect("a header")
        .write(&mut header);
    if std::env::var_os("PENTIMENTO_BLESS").is_some() {
        std::fs::write(&path, &header).expect("include/pentimento.h is written");
    }
    let known = std::fs::read(&path).unwrap_or_default();
    assert!(
        known == header,
        "{} is stale; refresh it with: PENTIMENTO_BLESS=1 cargo test -p tests --test ffi",
        path.display()
    );
}

#[test]
fn every_function_is_guarded() {
    let files = std::fs::read_dir(workspace().join("ffi/src")).expect("ffi/src");
    let source = |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).expect("a source");
    let sources: Vec<String> = files.map(|file| source(file.expect("an entry"))).collect();
    let mut names = Vec::new();
    for function in sources.iter().flat_map(|source| source.split("#[unsafe(no_mangle)]").skip(1)) {
        let name = function.split("fn ").nth(1).and_then(|f| f.split('(').next()).expect("a name");
        let body = function.split_once(") {").or_else(|| function.split_once(" {")).expect("a body").1;
        let body = function.split_once(" {\n").map_or(body, |b| b.1);
        let constant = ["pmt_version", "pmt_abi_version"].contains(&name);
        // A count needs a place before the guard; nothing else does.
        let start = body.trim_start().trim_start_matches("let mut whole = 0;").trim_start();
        assert!(constant || start.starts_with("guard!("), "{name} does not begin with guard!");
        names.push(name);
    }
    let header = std::fs::read_to_string(workspace().join("include/pentimento.h")).expect("the header");
    for name in &names {
        assert!(name.starts_with("pmt_") && header.contains(&format!("{name}(")), "{name}");
    }
    assert!(names.len() >= 45, "{names:?}");
}

/// The folder with the libraries.
fn libraries() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("pentimento-ffi"))
}

/// How a C program is linked.
#[derive(Clone, Copy, PartialEq)]
enum Link {
    Shared,
    /// The static library under AddressSanitizer.
    Sanitised,
}

/// Compiles a C program; `None`, with a word why, where there is no C compiler.
fn compile(source: &str, out: &Path, link: Link) -> Option<PathBuf> {
    if cfg!(not(target_os = "linux")) || Command::new("cc").arg("--version").output().is_err() {
        println!("SKIPPED: {source} (no `cc` on Linux)");
        return None;
    }
    let name = Path::new(source).file_stem().and_then(OsStr::to_str).expect("a name");
    let program = out.join(format!("{name}-{}", if link == Link::Shared { "shared" } else { "sanitised" }));
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g"]).arg(workspace().join(source));
    cc.arg("-I").arg(workspace().join("include")).arg("-o").arg(&program);
    match link {
        Link::Shared => cc.arg("-L").arg(libraries()).args(["-lpentimento", "-lm", "-lpthread"]),
        Link::Sanitised => cc.arg("-fsanitize=address").arg(libraries().join("libpentimento.a")).args([
            "-lm",
            "-ldl",
            "-lpthread",
        ]),
    };
    let output = cc.output().expect("cc runs");
    let text = String::from_utf8_lossy(&output.stderr);
    if link == Link::Sanitised && text.contains("cannot find") && text.contains("asan") {
        println!("SKIPPED: {source} under AddressSanitizer (not installed)");
        return None;
    }
    assert!(output.status.success(), "cc {source}: {text}");
    Some(program)
}

fn run(program: &Path, args: &[&OsStr]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env("LD_LIBRARY_PATH", libraries());
    // Drivers keep memory until the end, and loaders unload what a leak report would have to name.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command.output().expect("the program runs")
}

/// Standard output of a program that must succeed.
fn succeeds(program: &Path, args: &[&OsStr]) -> String {
    let output = run(program, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {}\n{text}{errors}", program.display(), output.status);
    text
}

/// Runs `examples/finetune.c` on two references with tiny settings; checks what it wrote. The adapter's path.
fn finetune(program: &Path, out: &Path) -> PathBuf {
    for name in ["anchor", "dog"] {
        let file = model().join(format!("references/mono/{name}.png"));
        let picture = Picture::open(&file).expect("a reference");
        let mut ppm = format!("P6 {} {} 255\n", picture.width(), picture.height()).into_bytes();
        ppm.extend_from_slice(picture.rgb());
        std::fs::write(out.join(format!("{name}.ppm")), ppm).expect("a file");
        std::fs::write(out.join(format!("{name}.txt")), format!("icon of {name}\n")).expect("a file");
    }
    let model = model();
    let tiny = [
        "rank=3",
        "warm.steps=2",
        "warm.batch=2",
        "iterations=1",
        "rollout.prompts=1",
        "rollout.group=2",
        "rollout.steps=2",
        "optim.micro_batch=2",
        "pathwise.images=2",
        "head.warm=2",
        "head.batch=2",
        "watch.every=0",
    ];
    let mut args = vec![model.as_os_str(), out.as_os_str(), OsStr::new("icon of red apple")];
    args.extend(tiny.iter().map(OsStr::new));
    let said = succeeds(program, &args);
    for part in ["device ", "warm start step 2: loss ", "iteration 1: reward ", "wrote "] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let image = std::fs::read(out.join("image.ppm")).expect("an image");
    let pixels = image.strip_prefix(b"P6 64 64 255\n").expect("a PPM of 64 x 64");
    assert_eq!(pixels.len(), 64 * 64 * 3);
    let (low, high) = (pixels.iter().min(), pixels.iter().max());
    assert!(high > low.map(|v| v.saturating_add(50)).as_ref(), "an empty image: {low:?} to {high:?}");
    let saved = out.join("adapter.safetensors");
    let pipeline = adapted::open(&model, &[Source::new(&saved)], Box::new(Cpu::new()))
        .expect("the adapter fits the model");
    let layers = pipeline::layers(&ModelFolder::open(&model).expect("a model")).expect("its layers");
    let adapter = Adapter::load(&saved, &layers).expect("an adapter");
    assert_eq!(pipeline.lora.map(|lora| lora.scale), Some(1.0));
    assert!(adapter.pairs.values().all(|pair| pair.rank == 3), "another rank than was asked for");
    saved
}

#[test]
fn example_and_promises() {
    let device = std::env::var("PENTIMENTO_ADAPTER").unwrap_or_default();
    let (model, folder) = (model(), scratch("programs"));
    let sources = ["examples/finetune.c", "tests/c/interface.c"];
    let [Some(example), Some(interface)] = sources.map(|s| compile(s, &folder, Link::Shared)) else { return };
    // Against the shared library: the example says how it is used, and all promises that need no GPU hold.
    assert_eq!(run(&example, &[]).status.code(), Some(2));
    succeeds(&interface, &[model.as_os_str()]);
    // The rest under AddressSanitizer, where there is one.
    let [example, interface] = match sources.map(|s| compile(s, &folder, Link::Sanitised)) {
        [Some(example), Some(interface)] => {
            // It is really on: it sees a mistake made inside the library.
            let output = run(&interface, &[OsStr::new("overflow")]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("heap-buffer-overflow"), "{text}");
            succeeds(&interface, &[model.as_os_str()]);
            [example, interface]
        }
        _ => [example, interface],
    };
    if adapter("the C programs").is_some() {
        let saved = finetune(&example, &folder);
        succeeds(&interface, &[model.as_os_str(), saved.as_os_str(), OsStr::new(&device)]);
        let folder = scratch("single");
        tiny::model(&folder);
        std::fs::write(folder.join("pipelines"), "damaged").expect("a file");
        succeeds(&interface, &[OsStr::new("away"), folder.as_os_str(), OsStr::new(&device)]);
        // All drivers are Vulkan's where C programs are compiled here.
        let kept = std::fs::read(folder.join("pipelines")).expect("built pipelines");
        assert!(kept.starts_with(b"pentimento pipelines "), "nothing was kept");
    }
}
