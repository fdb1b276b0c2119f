//! Tests of GGUF headers: a small writer, and every way to be damaged.
use super::*;
use crate::weights::Weights;
use alloc::vec;

/// Writes version 3 files.
struct Writer {
    metadata: Vec<u8>,
    entries: u64,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: Vec<u8>,
    version: u32,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    fn new() -> Self {
        Writer { metadata: vec![], entries: 0, tensors: vec![], data: vec![], version: 3 }
    }
    fn meta(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.metadata.extend([&string(key)[..], &kind.to_le_bytes(), value].concat());
        self.entries += 1;
        self
    }
    fn tensor(mut self, name: &str, dims: &[u64], kind: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.tensors.push((name.into(), dims.to_vec(), kind, self.data.len() as u64));
        self.data.extend(data);
        self
    }
    fn finish(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend(self.entries.to_le_bytes());
        out.extend(&self.metadata);
        for (name, dims, kind, offset) in &self.tensors {
            out.extend(string(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

fn sample() -> Writer {
    let array = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &string("a"), &string("b")].concat();
    let numbers = [&5u32.to_le_bytes()[..], &3u64.to_le_bytes(), &[0; 12]].concat();
    let floats: Vec<u8> = (0..6).flat_map(|v| (v as f32).to_le_bytes()).collect();
    let mut block = half::f16::from_f32(0.5).to_le_bytes().to_vec();
    block.extend((0..32).map(|v| v as u8));
    Writer::new()
        .meta("general.architecture", 8, &string("sd3"))
        .meta("names", 9, &array)
        .meta("numbers", 9, &numbers)
        .meta("flag", 7, &[1])
        .meta("general.alignment", 4, &32u32.to_le_bytes())
        .tensor("a", &[3, 2], 0, &floats)
        .tensor("odd", &[2], 16, &[])
        .tensor("q", &[32, 1], 8, &block)
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

fn open(writer: &Writer) -> Result<Weights> {
    Weights::from_bytes("m.gguf", writer.finish())
}

#[test]
fn reads_tensors_and_metadata() {
    let w = open(&sample()).unwrap();
    assert_eq!(w.expect("a", &[2, 3]).unwrap().to_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(w.expect("q", &[1, 32]).unwrap().to_f32().unwrap()[..3], [0.0, 0.5, 1.0]);
    assert_eq!((w.metadata("general.architecture"), w.len()), (Some("sd3"), 3));
    assert_eq!(w.type_name("odd").as_deref(), Some("GGML type 16"));
    let text = message(w.get("odd"));
    assert!(text.contains("`odd`") && text.contains("GGML type 16"), "{text}");
}

#[test]
fn every_truncation_is_refused() {
    let whole = sample().finish();
    for n in 4..whole.len() {
        let text = message(Weights::from_bytes("cut", whole[..n].to_vec()));
        assert!(text.starts_with("cut"), "{n}: {text}");
    }
}

#[test]
fn malformed_headers_are_refused() {
    let bad = |writer: Writer, part: &str| {
        let text = message(open(&writer));
        assert!(text.starts_with("m.gguf") && text.contains(part), "{part}: {text}");
    };
    bad(Writer { version: 1, ..sample() }, "version 1");
    bad(Writer { version: 3u32.swap_bytes(), ..sample() }, "little-endian");
    bad(Writer { entries: 1 << 40, ..sample() }, "metadata entries");
    bad(sample().tensor("a", &[1], 0, &[0; 4]), "a name used once");
    bad(sample().tensor("b", &[33], 8, &[0; 68]), "whole q8_0 blocks");
    bad(sample().tensor("b", &[16, 2], 8, &[0; 34]), "whole q8_0 blocks");
    bad(sample().tensor("b", &[1 << 40, 1 << 40], 0, &[]), "480 bytes can hold");
    bad(sample().tensor("b", &[1 << 63, 1 << 63, 0], 24, &[]), "bytes can hold");
    bad(sample().tensor("b", &[1 << 63], 24, &[]), "bytes can hold");
    bad(sample().tensor("b", &[1 << 40], 0, &[]), "Is the file complete?");
    bad(sample().tensor("b", &[1, 1, 1, 1, 1], 0, &[0; 4]), "at most 4 dimensions");
    bad(sample().meta("m", 13, &[]), "types 0 to 12");
    bad(sample().meta("general.alignment", 4, &33u32.to_le_bytes()), "a power of two");
    bad(sample().meta("m", 8, &u64::MAX.to_le_bytes()), "Is the file complete?");
    bad(sample().meta("m", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), "UTF-8");
    let wide = [&10u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat();
    bad(sample().meta("m", 9, &wide), "Is the file complete?");
    let deep: Vec<u8> =
        (0..9).flat_map(|_| [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat()).collect();
    bad(sample().meta("m", 9, &deep), "nested at most 4 deep");
    let mut far = sample();
    far.tensors[2].3 = u64::MAX;
    bad(far, "an aligned offset");
    let mut odd = sample();
    odd.tensors[2].3 = 33;
    bad(odd, "an aligned offset");
    let mut same = sample();
    same.tensors[2].3 = 0;
    bad(same, "bytes of its own");
}
