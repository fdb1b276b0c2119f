//! The C interface as C programs meet it: header, example, promises.
//!
//! `PENTIMENTO_BLESS=1 cargo test -p tests --test ffi` rewrites include/pentimento.h.
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline;
use pentimento_trainer::adapted::{self, Source};
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::images::Picture;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::adapter::adapter;
use tests::built::workspace;
use tests::c::{Link, command, compile, libraries, output_of, run, succeeds};
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

fn device() -> String {
    std::env::var("PENTIMENTO_ADAPTER").unwrap_or_default()
}

#[test]
fn example_and_promises() {
    let device = device();
    let (model, folder) = (model(), scratch("programs"));
    let sources = ["examples/finetune.c", "tests/c/interface.c", "tests/c/working.c"];
    let compiled = |link| sources.map(|s| compile(s, &folder, link, &[]));
    let [Some(example), Some(interface), Some(working)] = compiled(Link::Shared) else { return };
    // Against the shared library: the example says how it is used, and all promises that need no GPU hold.
    assert_eq!(run(&example, &[]).status.code(), Some(2));
    succeeds(&interface, &[model.as_os_str()]);
    valgrind(&interface, &model);
    // The rest under sanitizers, where there are some.
    let [example, working] = match compiled(Link::Sanitised) {
        [Some(example), Some(interface), Some(working)] => {
            // They are really on: they see mistakes made inside the library and in the program.
            for (mistake, seen) in
                [("overflow", "heap-buffer-overflow"), ("undefined", "signed integer overflow")]
            {
                let output = run(&interface, &[OsStr::new(mistake)]);
                let text = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success() && text.contains(seen), "{mistake}: {text}");
            }
            succeeds(&interface, &[model.as_os_str()]);
            [example, working]
        }
        _ => [example, working],
    };
    if adapter("the C programs").is_some() {
        let saved = finetune(&example, &folder);
        succeeds(&working, &[model.as_os_str(), saved.as_os_str(), OsStr::new(&device)]);
        let folder = scratch("single");
        let single = tiny::model(&folder);
        std::fs::write(folder.join("pipelines"), "damaged").expect("a file");
        succeeds(&working, &[OsStr::new("away"), folder.as_os_str(), OsStr::new(&device)]);
        // All drivers are Vulkan's where C programs are compiled here.
        let kept = std::fs::read(folder.join("pipelines")).expect("built pipelines");
        assert!(kept.starts_with(b"pentimento pipelines "), "nothing was kept");
        succeeds(&working, &[OsStr::new("race"), single.as_os_str(), OsStr::new(&device)]);
    }
}

/// What needs no GPU once more, every access to memory looked at.
fn valgrind(interface: &Path, model: &Path) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("SKIPPED: the C interface under valgrind (not installed)");
    }
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]);
    // A driver's loader is not ours to judge: the part that opens no device.
    command.arg(interface).arg(model).env("LD_LIBRARY_PATH", libraries()).env("PENTIMENTO_NO_DEVICES", "1");
    output_of(&mut command);
}

#[test]
fn random_calls_end_in_statuses() {
    let folder = scratch("calls");
    let long = std::env::var("PENTIMENTO_CALLS").ok();
    let compiled = [Link::Sanitised, Link::Shared].map(|link| compile("tests/c/calls.c", &folder, link, &[]));
    let Some(program) = compiled.into_iter().flatten().next() else { return };
    if adapter("random calls").is_none() {
        return;
    }
    let model = folder.join("model");
    std::fs::create_dir_all(&model).expect("a folder");
    let model = tiny::model(&model);
    let count = long.as_deref().unwrap_or("4000");
    for seed in ["1", "2"] {
        let device = device();
        let args = [model.as_os_str(), OsStr::new(&device), OsStr::new(seed), OsStr::new(count)];
        let said = succeeds(&program, &args);
        println!("{said}");
        let seen = said.split("statuses:").nth(1).expect("statuses").split(';').next().expect("statuses");
        let seen: Vec<u64> = seen.split_whitespace().map(|n| n.parse().expect("a count")).collect();
        let grown: i64 =
            said.split("; ").last().and_then(|s| s.split(' ').next()?.parse().ok()).expect("KiB");
        assert!(grown < 256 << 10, "memory grows: {said}");
        // Right and wrong ones alike.
        assert!(
            seen[0] * 10 > seen.iter().sum::<u64>() && [1, 2, 3, 4, 9].iter().all(|&i| seen[i] > 0),
            "{said}"
        );
    }
}

#[test]
fn cpp_and_a_game() {
    let (model, folder) = (model(), scratch("cpp"));
    let examples = ["examples/generate.c", "examples/finetune.cpp"];
    let strict = ["-fno-exceptions", "-fno-rtti"]; // the header does without
    let [generate, finetune] = [(examples[0], &[][..]), (examples[1], &strict[..])]
        .map(|(source, more)| compile(source, &folder, Link::Shared, more));
    let (Some(generate), Some(finetune)) = (generate, finetune) else { return };
    assert_eq!([run(&generate, &[]), run(&finetune, &[])].map(|o| o.status.code()), [Some(2); 2]);
    if adapter("C++ programs").is_none() {
        return;
    }
    let image = folder.join("apple.ppm");
    let said = succeeds(&generate, &[model.as_os_str(), image.as_os_str(), OsStr::new("icon of red apple")]);
    assert!(said.contains("step 28 of 28") || said.contains("of 28"), "{said}");
    assert!(std::fs::read(&image).expect("an image").starts_with(b"P6 64 64 255\n"));
    let small = folder.join("model");
    std::fs::create_dir_all(&small).expect("a folder");
    let (small, adapter) = (tiny::model(&small), folder.join("adapter.safetensors"));
    let words = ["an apple", "a dog"].map(OsStr::new);
    let args =
        [small.as_os_str(), adapter.as_os_str(), image.as_os_str(), words[0], image.as_os_str(), words[1]];
    let said = succeeds(&finetune, &args);
    assert!(said.contains("iteration 2: reward") && adapter.exists(), "{said}");
    game(&folder, &small);
}

/// The game for a few frames, on the smallest model: on a device of the library's, without a screen, and on one of its own, on a screen that nobody sees.
fn game(folder: &Path, model: &Path) {
    let sdl = |what: &str| Command::new("sdl2-config").arg(what).output();
    let (Ok(flags), Ok(libs)) = (sdl("--cflags"), sdl("--libs")) else {
        return println!("SKIPPED: the game (no SDL2)");
    };
    let text = [flags.stdout, b" ".to_vec(), libs.stdout].concat();
    let text = String::from_utf8(text).expect("flags");
    let more: Vec<&str> = text.split_whitespace().collect();
    let pictures = folder.join("pictures");
    std::fs::create_dir_all(&pictures).expect("a folder");
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, 99]));
    picture.save(pictures.join("apple.png")).expect("an image");
    std::fs::write(pictures.join("apple.txt"), "an apple").expect("a caption");
    if let Some(game) = compile("examples/game/main.cpp", folder, Link::Shared, &more) {
        let mut command = command(&game);
        command.env("SDL_VIDEODRIVER", "dummy");
        play(command, folder, model);
    }
    let screen = Command::new("xvfb-run").arg("--help").output().is_ok();
    if !screen || !Path::new("/usr/include/vulkan/vulkan.h").exists() {
        return println!("SKIPPED: the game on a Vulkan device of its own (no Xvfb or no Vulkan headers)");
    }
    let more = [more, vec!["-lvulkan"]].concat();
    if let Some(game) = compile("examples/game/vulkan.cpp", folder, Link::Shared, &more) {
        let mut command = command(OsStr::new("xvfb-run").as_ref());
        command.arg("-a").arg(game);
        play(command, folder, model);
    }
}
fn play(mut command: Command, folder: &Path, model: &Path) {
    let shot = folder.join("shot.bmp");
    let _ = std::fs::remove_file(&shot);
    command.arg(model).arg(folder.join("pictures")).args([
        "frames=400",
        "iterations=1",
        "warm.steps=8",
        "warm.batch=2",
        "watch.every=0",
        "rollout.prompts=1",
        "rollout.group=2",
        "rollout.steps=2",
        "pathwise.images=2",
        "head.warm=1",
        "budget=8000",
        "rank=2",
        "head.batch=2",
    ]);
    command.arg(format!("shot={}", shot.display()));
    let said = output_of(&mut command);
    println!("{said}");
    assert!(
        said.contains("frames without training: 200 frames") && said.contains("frames with training"),
        "{said}"
    );
    assert!(std::fs::metadata(&shot).is_ok_and(|m| m.len() > 1_000_000), "no screenshot");
}
