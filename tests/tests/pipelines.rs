//! Pipelines: built on threads, and kept between runs.
use pentimento_runtime::exec::wgpu::{Limits, Options, Wgpu};
use pentimento_runtime::exec::{Executor, compile};
use pentimento_runtime::graph::Graph;
use pentimento_runtime::rng::Philox;
use pentimento_runtime::{Error, Result};
use pentimento_trainer::pipeline_cache::{self, Place};
use std::fs;
use tests::adapter::adapter;
use tests::scratch::Scratch;

/// The adapter under test again; [`adapter`] said that it is there.
fn open(options: &Options) -> Wgpu {
    let choice = std::env::var("PENTIMENTO_ADAPTER").ok();
    Wgpu::open_with(choice.as_deref(), options).expect("the adapter again")
}

/// Bits of a plan of several kernels.
fn bits(exec: &mut dyn Executor) -> Vec<u32> {
    let mut g = Graph::new();
    let (x, w) = (g.input("x", &[1, 36, 64]), g.input("w", &[64, 64]));
    let q = g.matmul(x, w, false, false);
    let y = g.attention(q, x, x, 1, None, false);
    let y = g.softmax(y, 3.0);
    let y = g.permute(y, &[0, 2, 1]);
    let plan = compile(exec, g, &[("y", y)]).expect("a plan");
    for (name, len) in [("x", 36 * 64), ("w", 64 * 64)] {
        let mut data = vec![0.0; len];
        Philox::new(len as u64, 0).normals(&mut data);
        exec.write(plan, name, &data).expect("an input");
    }
    exec.run(plan).expect("a run");
    exec.read(plan, "y").expect("an output").into_iter().map(f32::to_bits).collect()
}

#[test]
fn threads_change_no_bit() {
    if adapter("pipelines built on threads").is_none() {
        return;
    }
    let with = |threads| bits(&mut open(&Options { threads: Some(threads), ..Options::default() }));
    let alone = with(0);
    assert!(alone.iter().any(|b| *b != alone[0]), "a result without contents");
    for threads in [1, 4, 4, 4] {
        assert!(with(threads) == alone, "{threads} threads");
    }
}

#[test]
fn bytes_survive_a_round_trip_and_bad_ones_are_noted() {
    if adapter("kept pipelines").is_none() {
        return;
    }
    // What is given, what comes out, the bits in between, and what was noted.
    let run = |given: Result<Option<Vec<u8>>>| {
        let load = |name: &str| {
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name} is no file's name");
            given.clone()
        };
        let mut exec = open(&Options { cache: Some(&load), ..Options::default() });
        let (notes, cache) = (exec.notes().to_vec(), exec.pipeline_cache());
        let bits = bits(&mut exec);
        drop(exec); // what was built can be kept later, too
        (cache.and_then(|cache| cache.bytes()), bits, notes)
    };
    let (Some(first), bits, notes) = run(Ok(None)) else {
        return println!("SKIPPED: kept pipelines (this driver keeps none)");
    };
    assert!(notes.is_empty(), "{notes:?}");
    let (again, same, notes) = run(Ok(Some(first.clone())));
    assert!(again.is_some() && same == bits && notes.is_empty(), "{notes:?}");
    let text = first.iter().position(|b| *b == b'"').expect("the adapter's name");
    let changed = |at: usize| {
        let mut bytes = first.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (bad, why) in [
        (Ok(Some(Vec::new())), "something else"),
        (Ok(Some(changed(0))), "something else"),
        (Ok(Some(changed(text + 1))), "another adapter's, driver's or version's"),
        (Ok(Some(changed(first.len() - 1))), "damaged"),
        (Ok(Some(first[..first.len() - 1].to_vec())), "damaged"),
        (Err(Error::io("there", "read", "no")), "there: cannot read: no"),
    ] {
        let (after, same, notes) = run(bad);
        assert!(matches!(&notes[..], [note] if note.contains(why)), "{why}: {notes:?}");
        assert!(after.is_some() && same == bits, "{why}");
    }
    let none = open(&Options { limits: Limits::WebGpu, cache: Some(&|_| Ok(None)), ..Options::default() });
    assert!(none.pipeline_cache().is_none(), "WebGPU has no such thing");
    assert!(open(&Options::default()).pipeline_cache().is_none(), "nobody asked for it");
}

#[test]
fn a_file_is_written_when_there_is_something_new() {
    let Some(device) = adapter("kept pipelines") else { return };
    drop(device);
    let choice = std::env::var("PENTIMENTO_ADAPTER").ok();
    let scratch = Scratch::new("kept-pipelines");
    let open = |place: &Place| {
        pipeline_cache::open(choice.as_deref(), Limits::Adapter, Some(place)).expect("the adapter again")
    };
    let folder = Place::Folder(scratch.0.join("a/b"));
    let (mut exec, Some(mut kept)) = open(&folder) else {
        return println!("SKIPPED: kept pipelines (this driver keeps none)");
    };
    assert!(!scratch.0.join("a").exists(), "a folder before there is anything to keep");
    bits(&mut exec);
    kept.save().expect("a file");
    let file =
        fs::read_dir(scratch.0.join("a/b")).expect("a folder").flatten().next().expect("a file").path();
    let first = fs::read(&file).expect("the file");
    // Read again and unchanged, it is left alone.
    let old = std::time::SystemTime::UNIX_EPOCH;
    let age = || fs::File::options().write(true).open(&file).and_then(|f| f.set_modified(old));
    age().expect("an old file");
    kept.save().expect("nothing to do");
    assert_eq!(fs::metadata(&file).and_then(|m| m.modified()).expect("a time"), old);
    // A folder that is not there is a sentence where the file was named.
    let (_exec, kept) = open(&Place::File(scratch.0.join("none/file")));
    let text = kept.expect("a cache").save().expect_err("no folder").to_string();
    assert!(text.contains("missing the folder itself"), "{text}");
    // A damaged one is replaced.
    fs::write(&file, &first[..40]).expect("a damaged file");
    let (mut exec, kept) = open(&Place::File(file.clone()));
    assert!(exec.notes().iter().any(|note| note.contains("kept pipelines are not used")));
    bits(&mut exec);
    kept.expect("a cache").save().expect("a file");
    assert!(fs::read(&file).expect("the file").len() >= first.len());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(scratch.0.join("a/b")).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may look into it");
    }
}
