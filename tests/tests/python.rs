//! The Python package as who installs its wheel meets it, with the library that this test was built with.
#![cfg(unix)]
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::adapter::adapter;
use tests::built::{build, workspace};
use tests::tiny;

/// What the tests need besides the wheel; the package's own `test` extra, and what builds it.
const NEEDED: [&str; 7] = ["cffi", "hatchling", "mypy", "numpy", "pillow", "pytest", "types-cffi"];

/// Standard output of a command, or why there is none.
fn tried(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| e.to_string())?;
    let [said, errors] = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t).into_owned());
    if output.status.success() { Ok(said) } else { Err(format!("{}\n{said}{errors}", output.status)) }
}

fn succeeds(command: &mut Command) -> String {
    tried(command).unwrap_or_else(|why| panic!("{command:?}: {why}"))
}

/// A virtual environment with what is needed, which is kept: from one run to the next only the wheel differs.
fn environment(folder: &Path) -> Result<PathBuf, String> {
    let (python, pip) = (folder.join("bin/python"), ["-m", "pip", "--disable-pip-version-check"]);
    if tried(Command::new(&python).arg("-V")).is_err() {
        tried(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))?;
    }
    let quick = ["install", "--quiet", "--retries", "1", "--timeout", "15"];
    tried(Command::new(&python).args(pip).args(quick).args(NEEDED))?;
    Ok(python)
}

#[test]
fn a_wheel_installs_and_works() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    std::fs::create_dir_all(&scratch).expect("a folder");
    let python = match environment(&scratch.join("venv")) {
        Ok(python) => python,
        Err(why) => {
            let line = why.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
            return println!("SKIPPED: the Python package (no python3 with venv, or no packages: {line})");
        }
    };
    let sources = workspace().join("python");
    let wheels = scratch.join("wheels");
    let _ = std::fs::remove_dir_all(&wheels);
    let pip = |args: &[&str], last: &Path| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", args[0], "--quiet", "--no-deps"])
            .args(&args[1..]);
        pip.arg(last).env("PENTIMENTO_LIBRARIES", build("pentimento-ffi"));
        succeeds(&mut pip);
    };
    pip(&["wheel", "--no-build-isolation", "--wheel-dir", &wheels.display().to_string()], &sources);
    let made = std::fs::read_dir(&wheels).expect("wheels").next().expect("one").expect("an entry").path();
    let name = made.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with(concat!("pentimento-", env!("CARGO_PKG_VERSION"), "-py3-none-")), "{name}");
    pip(&["install", "--force-reinstall"], &made);

    // From a folder without the sources, so that it is the wheel's.
    let inside = |program: &[&str]| {
        let mut command = Command::new(&python);
        command.args(program).current_dir(&scratch).env_remove("PYTHONPATH").env_remove("PENTIMENTO_LIBRARY");
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let where_it_is = succeeds(&mut inside(&["-c", "import pentimento; print(pentimento.__file__)"]));
    assert!(where_it_is.contains("site-packages"), "{where_it_is}");
    assert!(Path::new(where_it_is.trim()).with_file_name("py.typed").is_file(), "its types are hidden");
    let mut mypy = inside(&["-m", "mypy", "--strict", "--cache-dir"]);
    succeeds(mypy.arg(scratch.join("mypy")).current_dir(&sources));

    let model = scratch.join("model");
    let _ = std::fs::remove_dir_all(&model);
    std::fs::create_dir_all(&model).expect("a folder");
    let model = tiny::model(&model);
    let mut pytest = inside(&["-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"]);
    pytest.arg(sources.join("tests")).env("PENTIMENTO_TEST_MODEL", &model);
    if adapter("the Python package").is_none() {
        pytest.arg("--ignore").arg(sources.join("tests/test_work.py"));
    }
    println!("{}", succeeds(&mut pytest));
}
