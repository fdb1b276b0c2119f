//! The archive that `ffi/dist.sh` makes, as who unpacks it meets it: programs by pkg-config, by CMake and by hand, and what
//! the libraries show.
//!
//! It holds the libraries of the tests' own profile, or, with `PENTIMENTO_DIST=1`, those of the profile `dist`.
#![cfg(target_os = "linux")]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tests::built::{SELECTION, build, workspace};

/// Bytes of the shared library, at most.
const MOST: u64 = 10_000_000;

/// Standard output of what must succeed.
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let [said, errors] = [&output.stdout, &output.stderr].map(|t| String::from_utf8_lossy(t).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{said}{errors}", output.status);
    said
}

/// Whether a program is there; says what is left out where it is not.
fn there(program: &str, what: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("SKIPPED: {what} (no `{program}`)");
    }
    found
}

/// The unpacked archive, in a folder that it was not made for.
fn unpacked(scratch: &Path) -> PathBuf {
    let _ = std::fs::remove_dir_all(scratch);
    std::fs::create_dir_all(scratch.join("moved")).expect("a folder");
    let mut dist = Command::new(workspace().join("ffi/dist.sh"));
    dist.arg("--out").arg(scratch);
    if std::env::var_os("PENTIMENTO_DIST").is_none() {
        dist.arg("--libraries").arg(build("pentimento-ffi"));
    }
    let archive = PathBuf::from(succeeds(&mut dist).trim());
    let name = archive.file_name().and_then(|n| n.to_str()).expect("a name");
    let folder = name.strip_suffix(".tar.gz").expect("a .tar.gz");
    let expected = format!("pentimento-{}-{}-", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    assert!(folder.starts_with(&expected), "{name}");
    succeeds(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(scratch.join("moved")));
    scratch.join("moved").join(folder)
}

/// Names that a library shows to whoever links it.
fn shown(library: &Path, dynamic: bool) -> BTreeSet<String> {
    let mut nm = Command::new("nm");
    nm.args(if dynamic { &["-D"][..] } else { &[] }).args(["-g", "--defined-only", "-P"]).arg(library);
    let names = succeeds(&mut nm);
    names.lines().filter_map(|l| l.split_once(' ')).map(|(name, _)| name.to_owned()).collect()
}

/// What is shown and should not be, and what should be and is not.
fn differs(shown: &BTreeSet<String>, header: &BTreeSet<String>) -> Vec<String> {
    shown.symmetric_difference(header).cloned().collect()
}

/// Functions of the header.
fn declared(header: &str) -> BTreeSet<String> {
    let code = header.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words = code.flat_map(|line| line.split('(').rev().skip(1).collect::<Vec<_>>());
    let name =
        |before: &str| before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
    words.filter_map(name).filter(|name| name.starts_with("pmt_")).collect()
}

#[test]
fn an_archive_links_wherever_it_is_unpacked() {
    if !["cc", "ld", "objcopy", "tar"].iter().all(|program| there(program, "the archive for C programs")) {
        return;
    }
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    let root = unpacked(&scratch);
    let (lib, source) = (root.join("lib"), workspace().join("tests/c/package.c"));
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "include/pentimento.h", "examples/finetune.c"]
    {
        assert!(root.join(file).is_file(), "{file} is not in the archive");
    }
    let others = std::fs::read_to_string(root.join("THIRD-PARTY.txt")).expect("the licences of others");
    assert!(others.contains("\nwgpu v") && others.contains("Permission is hereby granted"), "no licences");
    assert!(!others.contains("\nclap v"), "the C library contains a parser of arguments");

    // What the libraries show: all functions of the header, and no other name.
    let shared = lib.join("libpentimento.so").canonicalize().expect("the shared library");
    let header = declared(&std::fs::read_to_string(root.join("include/pentimento.h")).expect("a header"));
    assert!(header.len() >= 18, "{header:?}");
    for (library, dynamic) in [(&shared, true), (&lib.join("libpentimento.a"), false)] {
        let shown = shown(library, dynamic);
        assert_eq!(differs(&shown, &header), [""; 0], "{} differs from the header", library.display());
    }
    let mut more = header.clone();
    more.insert("rust_eh_personality".into());
    assert_eq!(differs(&more, &header), ["rust_eh_personality"], "another name is not noticed");
    let bytes = shared.metadata().expect("a file").len();
    println!("{}: {bytes} bytes", shared.display());
    assert!(bytes <= MOST, "{} has {bytes} bytes, more than {MOST}", shared.display());
    if there("readelf", "the SONAME") {
        let text = succeeds(Command::new("readelf").args(["-d"]).arg(&shared));
        let abi = std::fs::read_to_string(root.join("include/pentimento.h")).expect("a header");
        let abi = abi.lines().find_map(|l| l.strip_prefix("#define PMT_ABI_VERSION ")).expect("its version");
        let soname = format!("Library soname: [libpentimento.so.{abi}]");
        assert!(text.contains(&soname), "no {soname:?} in {text}");
    }

    let runs = |program: &Path| {
        let said = succeeds(Command::new(program).env("LD_LIBRARY_PATH", &lib));
        assert_eq!(said, env!("CARGO_PKG_VERSION"), "{}", program.display());
    };
    let cc = |name: &str, args: &[&str]| {
        let program = scratch.join(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror"]).arg(&source).args(args).arg("-o").arg(&program);
        succeeds(&mut cc);
        runs(&program);
    };
    if there("pkg-config", "linking by pkg-config") {
        let ask = |args: &[&str]| {
            let path = lib.join("pkgconfig");
            succeeds(Command::new("pkg-config").args(args).arg("pentimento").env("PKG_CONFIG_PATH", path))
        };
        assert_eq!(ask(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
        let flags = ask(&["--cflags", "--libs"]);
        cc("pkg-config", &flags.split_whitespace().collect::<Vec<_>>());
        // Private libraries are those of the static one, which is named by its file.
        let flags = ask(&["--static", "--cflags", "--libs"]);
        let library = format!("{}/libpentimento.a", lib.display());
        let link = |flag| if flag == "-lpentimento" { library.as_str() } else { flag };
        cc("pkg-config-static", &flags.split_whitespace().map(link).collect::<Vec<_>>());
    }
    if there("cmake", "linking by CMake") {
        // The examples' own file, on a folder with our program.
        let sources = scratch.join("cmake");
        std::fs::create_dir_all(&sources).expect("a folder");
        std::fs::copy(root.join("examples/CMakeLists.txt"), sources.join("CMakeLists.txt")).expect("a copy");
        std::fs::copy(&source, sources.join("package.c")).expect("a copy");
        std::fs::copy(root.join("examples/finetune.c"), sources.join("finetune.c")).expect("a copy");
        for (folder, linked) in [("shared", "-DSTATIC=OFF"), ("static", "-DSTATIC=ON")] {
            let built = scratch.join("cmake").join(folder);
            let prefix = format!("-DCMAKE_PREFIX_PATH={}", root.display());
            succeeds(
                Command::new("cmake").arg("-S").arg(&sources).arg("-B").arg(&built).args([linked, &prefix]),
            );
            succeeds(Command::new("cmake").arg("--build").arg(&built));
            runs(&built.join("package"));
        }
        from_source(&scratch, &source, &runs);
    }
}

/// The same targets, built by Cargo.
fn from_source(scratch: &Path, source: &Path, runs: &dyn Fn(&Path)) {
    let (folder, target) = (scratch.join("source"), build("pentimento-ffi"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let profile = target.file_name().and_then(|n| n.to_str()).expect("a profile");
    let text = format!(
        "cmake_minimum_required(VERSION 3.18)\nproject(host LANGUAGES C)\nadd_subdirectory({}/ffi pentimento)\n\
         foreach(kind pentimento static)\nadd_executable(with_${{kind}} {})\n\
         target_link_libraries(with_${{kind}} PRIVATE pentimento::${{kind}})\nendforeach()\n",
        workspace().display(),
        source.display()
    );
    std::fs::write(folder.join("CMakeLists.txt"), text).expect("a file");
    let profile = if profile == "debug" { "dev" } else { profile };
    let mut cmake = Command::new("cmake");
    cmake.arg("-S").arg(&folder).arg("-B").arg(folder.join("built"));
    cmake.arg(format!("-DPENTIMENTO_TARGET_DIR={}", target.parent().expect("target").display()));
    cmake.arg(format!("-DPENTIMENTO_PROFILE={profile}"));
    cmake.arg(format!("-DPENTIMENTO_CARGO_FLAGS={}", SELECTION.join(";")));
    succeeds(&mut cmake);
    succeeds(Command::new("cmake").arg("--build").arg(folder.join("built")));
    for kind in ["with_pentimento", "with_static"] {
        runs(&folder.join("built").join(kind));
    }
}
