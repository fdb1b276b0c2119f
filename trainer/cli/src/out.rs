//! The folder a run writes to. One run at a time; the files in it are of one run; and nothing replaces an earlier run's adapter
//! but the result of a complete one.
use pentimento_trainer::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Held by the system for the process, so that a killed one leaves none; the file itself stays.
const LOCK: &str = ".pentimento.lock";
/// Inside the folder, where a run works while there is something to lose.
const UNFINISHED: &str = "unfinished";
/// What a run is for.
pub const ADAPTER: &str = "pytorch_lora_weights.safetensors";
/// The adapter before the adversarial part.
pub const WARM_START: &str = "warm_start.safetensors";
pub const BEFORE: &str = "before.png";
pub const AFTER: &str = "after.png";
pub const METRICS: &str = "metrics.jsonl";
pub const REFERENCES: &str = "references.txt";
/// What was set, for `--settings`.
pub const SETTINGS: &str = "settings.toml";
/// What the run was made from: versions, device, names and hashes.
pub const RUN: &str = "run.json";
/// All that the run is, to go on with.
pub const STATE: &str = "state.safetensors";

/// All of the above for a person.
pub const REPORT: &str = "report.html";
/// Small pictures of the references that were used, and how many of them there are at most, with their longer side in pixels.
pub const REFERENCE_PICTURES: &str = "references.png";
pub const SHOWN_REFERENCES: usize = 64;
pub const THUMB: u32 = 128;

/// A kind of contact sheet of which there is one after some iterations: what its names begin with, and the longer side of its pictures at most,
/// pixels.
pub struct Kind {
    stem: &'static str,
    pub side: u32,
}
/// The sheet's prompts, on the way.
pub const PREVIEW: Kind = Kind { stem: "iteration-", side: 512 };
/// What the training looked at.
pub const LOOKS: Kind = Kind { stem: "look-", side: 256 };
/// In the place of an iteration, for the model without an adapter.
const BASE: &str = "base";

impl Kind {
    /// The name of one; `None`: of the base model's pictures.
    pub fn name(&self, iteration: Option<usize>) -> String {
        let at = iteration.map_or(BASE.into(), |n| n.to_string());
        format!("{}{at}.png", self.stem)
    }
    /// The iteration in a name, if it is one of this kind.
    fn iteration(&self, name: &str) -> Option<Option<usize>> {
        let at = name.strip_prefix(self.stem)?.strip_suffix(".png")?;
        if at == BASE {
            return Some(None);
        }
        at.parse().ok().filter(|n: &usize| n.to_string() == at).map(Some)
    }
}

/// Contact sheets of a kind in a folder, in the training's order.
pub fn numbered_pictures(folder: &Path, kind: &Kind) -> Vec<(Option<usize>, String)> {
    let names = ours(folder).unwrap_or_default();
    let mut all: Vec<_> = names.into_iter().filter_map(|name| Some((kind.iteration(&name)?, name))).collect();
    all.sort();
    all
}

/// The adapter after an iteration.
pub fn iteration(n: usize) -> String {
    format!("iteration-{n}.safetensors")
}

/// Whether a file of that name may hold hours of work.
fn is_work(name: &str) -> bool {
    let n = name.strip_prefix("iteration-").and_then(|n| n.strip_suffix(".safetensors"));
    let numbered = n.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    numbered || [ADAPTER, WARM_START, STATE].contains(&name)
}

/// Whether a run writes files of that name.
fn is_ours(name: &str) -> bool {
    let pictures = [PREVIEW, LOOKS].iter().any(|kind| kind.iteration(name).is_some());
    let all = [BEFORE, AFTER, METRICS, REFERENCES, REFERENCE_PICTURES, SETTINGS, RUN, REPORT];
    is_work(name) || pictures || all.contains(&name)
}

fn failed(path: &Path, action: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::io(path.display().to_string(), action, e.to_string())
}

/// Creates a folder for results.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(failed(path, "create"))
}

/// Names in a folder of files that a run writes; none where there is no folder.
fn ours(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed(folder, "read"))?,
    };
    let names = entries.map(|e| Ok(e.map_err(failed(folder, "read"))?.file_name().into_string().ok()));
    Ok(names.collect::<Result<Vec<_>>>()?.into_iter().flatten().filter(|n| is_ours(n)).collect())
}

fn remove(folder: &Path, names: &[String]) -> Result<()> {
    let paths = names.iter().map(|n| folder.join(n));
    paths.into_iter().try_for_each(|p| fs::remove_file(&p).map_err(failed(&p, "remove")))
}

/// A folder that is this run's alone while this lives.
pub struct Out {
    folder: PathBuf,
    /// Where the run's files are until it is complete.
    work: PathBuf,
    /// Whether an earlier run is gone on with.
    pub resumes: bool,
    /// Whether one that is not complete could be.
    pub left: bool,
    _lock: Option<File>,
}

impl Out {
    /// Creates the folder where there is none. With `resume` the run is the one that left off there, if there is one.
    ///
    /// # Errors
    /// The references' own folder, one that another run is using, or one that cannot be written to.
    pub fn open(folder: &Path, references: &Path, resume: bool) -> Result<Self> {
        make_folder(folder)?;
        let place = folder.display().to_string();
        let real = |p: &Path| fs::canonicalize(p).ok();
        if real(folder).is_some_and(|folder| real(references) == Some(folder)) {
            return Err(Error::bad(place, "another folder than the references'", "the same one")
                .with_hint("Pictures that the run draws would be references of the next one."));
        }
        let lock = lock(folder)?;
        let last = left_off(folder);
        let left = last.as_ref().is_some_and(|work| !work.join(AFTER).exists());
        let last = last.filter(|_| resume);
        let (resumes, work) = (last.is_some(), last.map_or_else(|| workplace(folder), Ok)?);
        make_folder(&work)?;
        Ok(Out { folder: folder.to_path_buf(), work, resumes, left, _lock: lock })
    }

    /// Path of one of the run's files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }
    /// Whether the folder keeps an earlier run's files unless this run is complete.
    pub fn guards(&self) -> bool {
        self.work != self.folder
    }

    /// The run is complete: its files take the place of an earlier one's, the adapter last.
    ///
    /// # Errors
    /// A file that cannot be removed or moved.
    pub fn complete(&mut self) -> Result<()> {
        if !self.guards() {
            return Ok(());
        }
        let mut old = ours(&self.folder)?;
        old.retain(|name| name != ADAPTER);
        remove(&self.folder, &old)?;
        let mut new = ours(&self.work)?;
        new.sort_by_key(|name| name == ADAPTER);
        for name in new {
            let from = self.work.join(&name);
            fs::rename(&from, self.folder.join(&name)).map_err(failed(&from, "move"))?;
        }
        let _ = fs::remove_dir(&self.work); // somebody's own files may be in it
        self.work.clone_from(&self.folder);
        Ok(())
    }
}

/// The folder itself, or where adapters are in it, the first one within that has none. What is left there of a run that came
/// to none is removed.
fn workplace(folder: &Path) -> Result<PathBuf> {
    let (mut work, mut number) = (folder.to_path_buf(), 0);
    loop {
        let left = ours(&work)?;
        if !left.iter().any(|name| is_work(name)) {
            // The first file that a run writes tells its leavings from a person's pictures.
            if left.iter().any(|name| name == REFERENCES) {
                remove(&work, &left)?;
            }
            return Ok(work);
        }
        number += 1;
        work = unfinished(folder, number);
    }
}

/// The folder within where the `number`-th run works while there is something to lose.
fn unfinished(folder: &Path, number: usize) -> PathBuf {
    folder.join(if number == 1 { UNFINISHED.into() } else { format!("{UNFINISHED}-{number}") })
}

/// Where the last run of a folder left a state, if any did.
fn left_off(folder: &Path) -> Option<PathBuf> {
    let within = (1..).map(|number| unfinished(folder, number)).take_while(|work| work.is_dir());
    let changed = |work: &PathBuf| fs::metadata(work.join(STATE)).and_then(|m| m.modified()).ok();
    let states = core::iter::once(folder.to_path_buf()).chain(within);
    states.filter_map(|work| Some((changed(&work)?, work))).max_by_key(|(at, _)| *at).map(|(_, work)| work)
}

/// The lock, or none on a file system that has no locks.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let file = File::options().create(true).append(true).open(&path).map_err(failed(&path, "create"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(None),
        Err(TryLockError::Error(e)) => Err(failed(&path, "lock")(e)),
        Err(TryLockError::WouldBlock) => {
            let place = folder.display().to_string();
            Err(Error::bad(place, "a folder that no other run writes to", "one that a run is using")
                .with_hint("Wait for its end, or give another folder."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pentimento-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        path
    }
    fn open(folder: &Path) -> Out {
        Out::open(folder, Path::new("no/references"), false).expect("a folder of its own")
    }

    #[test]
    fn only_its_own_names_are_a_runs() {
        for name in ["iteration-12.safetensors", ADAPTER, WARM_START, STATE] {
            assert!(is_work(name) && is_ours(name), "{name}");
        }
        for name in ["iteration-.safetensors", "iteration-1x.safetensors", "a.safetensors", "before.png"] {
            assert!(!is_work(name), "{name}");
        }
        for name in [BEFORE, REPORT, "iteration-12.png", "look-base.png", "look-0.png"] {
            assert!(is_ours(name) && !is_work(name), "{name}");
        }
        for name in
            ["0000.png", "notes.txt", "iteration-01.png", "look-x.png", "iteration-1.jpg", "compare.html"]
        {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn leavings_without_an_adapter_make_room_and_adapters_do_not() {
        let folder = scratch("out-leavings");
        for name in [REFERENCES, METRICS, "notes.txt"] {
            fs::write(folder.join(name), name).expect("a file");
        }
        let out = open(&folder);
        assert!(!out.guards() && !folder.join(METRICS).exists() && folder.join("notes.txt").exists());
        assert!(Out::open(&folder, &folder, false).is_err(), "its own references");
        let busy = Out::open(&folder, Path::new("x"), false).err().expect("busy").to_string();
        assert!(busy.contains("one that a run is using"), "{busy}");
        fs::write(out.path(ADAPTER), "first").expect("a file");
        drop(out);
        let second = open(&folder);
        assert!(second.guards() && second.path(ADAPTER) == folder.join("unfinished").join(ADAPTER));
        fs::write(second.path(WARM_START), "second").expect("a file");
        drop(second);
        let mut third = open(&folder);
        assert_eq!(third.path("x"), folder.join("unfinished-2/x"));
        fs::write(third.path(ADAPTER), "third").expect("a file");
        third.complete().expect("moved");
        assert_eq!(fs::read(folder.join(ADAPTER)).expect("an adapter"), b"third");
        assert_eq!(third.path(ADAPTER), folder.join(ADAPTER));
        assert!(!folder.join("unfinished-2").exists() && folder.join("unfinished").join(WARM_START).exists());
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn the_last_run_that_left_a_state_is_gone_on_with() {
        let folder = scratch("out-resume");
        let resume = || Out::open(&folder, Path::new("x"), true).expect("a folder");
        let first = resume();
        assert!(!first.resumes && !first.guards());
        fs::write(first.path(STATE), "one").expect("a file");
        drop(first);
        let second = open(&folder);
        assert!(second.guards() && !second.resumes, "a state is not replaced by another run");
        fs::write(second.path(ADAPTER), "two").expect("a file");
        drop(second);
        let again = resume();
        assert!(again.resumes && !again.guards(), "only one of them has a state");
        drop(again);
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(folder.join("unfinished").join(STATE), "two").expect("a file");
        let mut last = resume();
        assert!(last.resumes && last.path(STATE) == folder.join("unfinished").join(STATE));
        last.complete().expect("moved");
        assert_eq!(fs::read(folder.join(STATE)).expect("a state"), b"two");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_persons_pictures_are_no_leavings() {
        let folder = scratch("out-pictures");
        fs::write(folder.join(BEFORE), "a holiday").expect("a file");
        open(&folder);
        assert!(folder.join(BEFORE).exists());
        fs::remove_dir_all(&folder).expect("removed");
    }
}
