//! What other packages build, for tests that run it.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The selection of packages in which everything they share has the features that this program was built with. Without ours
/// Cargo chooses fewer, and builds wgpu and all above it once more.
pub const SELECTION: [&str; 2] = ["-p", "tests"];

/// Builds a package in the profile of the running test; the folder that its libraries and programs are in.
pub fn build(package: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("this program");
    let folder = exe.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let profile = folder.file_name().and_then(OsStr::to_str).expect("a profile");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).args(["build", "--quiet"]).args(SELECTION).args([
        "-p",
        package,
        "--profile",
    ]);
    cargo.arg(if profile == "debug" { "dev" } else { profile });
    cargo.arg("--target-dir").arg(folder.parent().expect("target"));
    assert!(cargo.status().expect("cargo runs").success(), "{package} is built");
    folder.to_path_buf()
}
