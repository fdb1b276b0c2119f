//! Tests of tensor files: every type, every way to be damaged, views under other names.
use super::*;
use alloc::string::String;
use alloc::vec;
use half::{bf16, f16};

/// A safetensors file from a literal header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn sample() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "b.weight":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]},
        "c":{"dtype":"BF16","shape":[],"data_offsets":[12,14]},
        "d":{"dtype":"I64","shape":[0,3],"data_offsets":[14,14]}}"#;
    let mut data = vec![];
    data.extend(1.5f32.to_le_bytes());
    data.extend((-2.0f32).to_le_bytes());
    data.extend(f16::from_f32(0.5).to_le_bytes());
    data.extend(f16::from_f32(65504.0).to_le_bytes());
    data.extend(bf16::from_f32(-3.0).to_le_bytes());
    file(header, &data)
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn reads_the_three_types() {
    let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
    assert_eq!((w.len(), w.total_bytes()), (4, 14));
    assert_eq!(w.get("a").unwrap().to_f32().unwrap(), [1.5, -2.0]);
    let b = w.expect("b.weight", &[1, 2]).unwrap();
    assert_eq!((b.to_f32().unwrap(), b.dtype, b.elements()), (vec![0.5, 65504.0], DType::F16, 2));
    let c = w.expect("c", &[]).unwrap();
    assert_eq!((c.to_f32().unwrap(), c.shape.len(), c.label), (vec![-3.0], 0, "m.safetensors"));
    assert_eq!(w.metadata("format"), Some("pt"));
    assert_eq!(w.names().collect::<Vec<_>>(), ["a", "b.weight", "c", "d"]);
}

#[test]
fn foreign_types_fail_only_when_fetched() {
    let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
    assert_eq!(w.shape("d"), Some(&[0, 3][..]));
    assert!(w.contains("d"));
    let text = message(w.get("d"));
    assert!(text.contains("`d`") && text.contains("I64") && text.contains("f16"), "{text}");
}

#[test]
fn a_missing_name_suggests_the_nearest() {
    let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
    let text = message(w.get("b.weights"));
    assert_eq!(text, "m.safetensors: missing tensor `b.weights`. The nearest name there is `b.weight`.");
    let empty = Weights::from_bytes("e", file("{}", &[])).unwrap();
    assert!(empty.is_empty() && message(empty.get("x")).contains("no tensors"));
}

#[test]
fn a_wrong_shape_is_a_sentence() {
    let w = Weights::from_bytes("m.safetensors", sample()).unwrap();
    let text = message(w.expect("b.weight", &[2, 2]));
    assert!(
        text.starts_with("m.safetensors: `b.weight`: expected shape [2, 2], found [1, 2] f16."),
        "{text}"
    );
}

#[test]
fn every_truncation_and_surplus_is_refused() {
    let whole = sample();
    for n in 0..whole.len() {
        let text = message(Weights::from_bytes("cut", whole[..n].to_vec()));
        assert!(text.starts_with("cut: expected"), "{n}: {text}");
    }
    let mut short = whole.clone();
    short.truncate(whole.len() - 3);
    let text = message(Weights::from_bytes("cut", short));
    assert!(text.contains("expected 14 bytes of tensor data, found 11 bytes"), "{text}");
    let mut long = whole.clone();
    long.push(0);
    assert!(message(Weights::from_bytes("long", long)).contains("found 15 bytes"));
}

#[test]
fn malformed_headers_are_refused() {
    let huge = u64::MAX / 8;
    let overflow = format!(
        r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}},
            "b":{{"dtype":"U8","shape":[8],"data_offsets":[{huge},8]}}}}"#
    );
    for (header, data) in [
        ("not json", 0),
        ("[1]", 0),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}"#, 4),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0),
        (overflow.as_str(), 8),
    ] {
        let text = message(Weights::from_bytes("bad", file(header, &vec![0; data])));
        assert!(text.starts_with("bad: ") && text.contains("expected"), "{header}: {text}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:".to_vec();
    assert!(message(Weights::from_bytes("w", pointer)).contains("found a git-lfs pointer"));
    assert!(message(Weights::from_bytes("w", b"\n<!DOCTYPE html>".to_vec())).contains("found a web page"));
    // A header of 0x3c20 bytes: its length begins with a space and `<`.
    let header = format!("{:<1$}", "{}", 0x3c20);
    assert!(Weights::from_bytes("w", file(&header, &[])).is_ok());
    let mut pickle = vec![0x80, 2, b'}', b'q', 0, b'(', b'X', 9];
    pickle.resize(64, 7);
    assert!(message(Weights::from_bytes("w.bin", pickle)).contains("Pickle"));
}

#[test]
fn shards_join_and_duplicates_are_refused() {
    let one = r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let two = r#"{"y":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let block = |label: &str, header: &str, v: f32| -> (String, Storage) {
        (label.to_string(), Arc::new(file(header, &v.to_le_bytes())))
    };
    let w = Weights::from_blocks(vec![block("1", one, 1.0), block("2", two, 2.0)]).unwrap();
    assert_eq!((w.get("y").unwrap().to_f32().unwrap(), w.label().as_str()), (vec![2.0], "1, 2"));
    let text = message(Weights::from_blocks(vec![block("1", one, 1.0), block("2", one, 2.0)]));
    assert!(text.contains("2: `x`") && text.contains("same name in 1"), "{text}");
    assert_eq!(Weights::from_blocks(vec![]).unwrap().label(), "no file");
}

#[test]
fn edit_distances() {
    for (a, b, d) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
        assert_eq!(edit_distance(a.as_bytes(), b.as_bytes()), d);
    }
}

/// Every bf16 number is the f32 with the same upper half: zeros and infinities of both signs, subnormals, NaN.
#[test]
fn every_bf16_and_f16_is_exact() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let data: Vec<u8> = all.iter().flat_map(|b| b.to_le_bytes()).collect();
    for dtype in ["BF16", "F16"] {
        let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[65536],"data_offsets":[0,131072]}}}}"#);
        let w = Weights::from_bytes("m", file(&header, &data)).unwrap();
        let (view, got) = (w.get("x").unwrap(), w.get("x").unwrap().to_f32().unwrap());
        for (&bits, &got) in all.iter().zip(&got) {
            if dtype == "BF16" {
                let want = f32::from_bits(u32::from(bits) << 16);
                assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:04x}");
            } else {
                let want = f16_by_hand(bits);
                assert!(got == want || (got.is_nan() && want.is_nan()), "{bits:04x}: {got} {want}");
                assert_eq!(got.is_sign_negative(), bits >> 15 == 1, "{bits:04x}");
            }
        }
        assert_eq!(view.rows(0, 1).unwrap().unwrap().len(), 65536);
        assert!(view.rows(1, 1).unwrap().is_none());
    }
}

/// IEEE 754 binary16 by its definition.
fn f16_by_hand(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, f32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction / 16_777_216.0,
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * libm::powf(2.0, f32::from(e) - 15.0),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

#[test]
fn block_sizes_fit_the_decoders() {
    for dtype in DType::ALL {
        let (elements, bytes) = dtype.block();
        assert_eq!(dtype.decode(&vec![0; 3 * bytes]).unwrap().len(), 3 * elements, "{dtype}");
        assert_eq!(dtype.bytes(elements * 2), Some(bytes * 2));
        assert_eq!(dtype.bytes(usize::MAX / elements * elements).is_some(), bytes <= elements, "{dtype}");
        assert_eq!(dtype.bytes(elements + 1), if elements == 1 { Some(2 * bytes) } else { None });
    }
}

#[test]
fn parts_swaps_and_shapes_under_other_names() {
    let header = r#"{"qkv":{"dtype":"F32","shape":[6,1],"data_offsets":[0,24]},
        "conv":{"dtype":"F32","shape":[2,1,1,1],"data_offsets":[24,32]}}"#;
    let data: Vec<u8> = (0..8).flat_map(|v| (v as f32).to_le_bytes()).collect();
    let w = Weights::from_bytes("m", file(header, &data)).unwrap();
    let mut v = w.view();
    v.present_part("k".into(), &w, "qkv", [1, 3]).unwrap();
    v.present_swapped("s".into(), &w, "qkv").unwrap();
    v.present("c".into(), &w, "conv", Some(2)).unwrap();
    v.present("t".into(), &w, "qkv", Some(3)).unwrap();
    v.add("m", "one", &[1, 1], &[1.0]).unwrap();
    assert_eq!(v.expect("k", &[2, 1]).unwrap().to_f32().unwrap(), [2.0, 3.0]);
    assert_eq!(v.expect("s", &[6, 1]).unwrap().to_f32().unwrap(), [3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
    assert_eq!(v.expect("c", &[2, 1]).unwrap().to_f32().unwrap(), [6.0, 7.0]);
    assert_eq!(v.expect("t", &[1, 6, 1]).unwrap().elements(), 6);
    assert_eq!((v.get("one").unwrap().to_f32().unwrap(), v.len(), v.label().as_str()), (vec![1.0], 5, "m"));
    assert_eq!(v.source("k"), Some("qkv"));
    let text = message(v.expect("k", &[3, 1]));
    assert!(text.starts_with("m: `qkv` (as `k`): expected shape [3, 1], found [2, 1] f32"), "{text}");
    let text = message(v.present("k".into(), &w, "conv", None));
    assert!(text.contains("a name used once"), "{text}");
    for parts in [[0, 4], [3, 3]] {
        assert!(message(v.present_part("z".into(), &w, "qkv", parts)).contains("equal parts"));
    }
    let scalar = file(r#"{"s":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}"#, &[0; 2]);
    let scalar = Weights::from_bytes("s", scalar).unwrap();
    assert!(message(scalar.view().present_part("z".into(), &scalar, "s", [0, 3])).contains("equal parts"));
    assert!(message(v.present("z".into(), &w, "none", None)).contains("tensor `none`"));
}

#[test]
fn every_fp8_code_is_exact() {
    let bytes = include_bytes!("../../../tests/fixtures/fp8/codes.safetensors");
    let w = Weights::from_bytes("codes", bytes).unwrap();
    for (name, dtype) in [("e4m3", DType::F8_E4M3), ("e5m2", DType::F8_E5M2)] {
        let t = w.expect(name, &[256]).unwrap();
        assert_eq!(t.dtype, dtype);
        let known = w.get(&alloc::format!("{name}.values")).unwrap().to_f32().unwrap();
        for (code, (found, known)) in t.to_f32().unwrap().into_iter().zip(known).enumerate() {
            let same = found.to_bits() == known.to_bits() || found.is_nan() && known.is_nan();
            assert!(same, "{name} {code:#x}: {found} instead of {known}");
            assert!(found.is_nan() || f16::from_f32(found).to_f32() == found, "{name} {code:#x} fits f16");
        }
    }
}

#[test]
fn headers_have_limits() {
    let entry = |i: usize| alloc::format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let many = |n: usize| alloc::format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","));
    assert_eq!(Weights::from_bytes("n", file(&many(1 << 16), &[])).unwrap().len(), 1 << 16);
    assert!(message(Weights::from_bytes("n", file(&many((1 << 16) + 1), &[]))).contains("65536 tensors"));
    let named =
        |name: &str| alloc::format!(r#"{{"{name}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}}}"#);
    let long = "x".repeat(1 << 20);
    let text = message(Weights::from_bytes("n", file(&named(&long), &[])));
    assert!(text.contains("65536 bytes in a name") && text.len() < 300, "{text}");
    for (shape, data) in [
        ("[1,1,1,1,1,1,1,1,1]", 4),
        ("[0,18446744073709551615,2]", 0),
        ("[4294967296,4294967296,0]", 0),
        ("[18446744073709551616]", 0),
    ] {
        let header = alloc::format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{data}]}}}}"#);
        assert!(Weights::from_bytes("n", file(&header, &vec![0; data])).is_err(), "{shape}");
    }
    let twice = r#"{"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(message(Weights::from_bytes("n", file(twice, &[]))).contains("a name used once"));
    for part in [
        r#""shape":[0],"data_offsets":[0,0]"#,
        r#""dtype":"F32","data_offsets":[0,0]"#,
        r#""dtype":"F32","shape":[0]"#,
    ] {
        let text = message(Weights::from_bytes("n", file(&alloc::format!(r#"{{"x":{{{part}}}}}"#), &[])));
        assert!(text.contains("`x` without"), "{text}");
    }
    assert!(message(Weights::from_bytes("n", file("{} {}", &[]))).contains("valid safetensors header"));
}

#[test]
fn names_cannot_act_on_a_terminal() {
    let header = r#"{"\u001b[2Jx":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let w = Weights::from_bytes("\u{1b}]0;file\u{7}", file(header, &[0; 4])).unwrap();
    for text in [message(w.get("y")), message(w.expect("\u{1b}[2Jx", &[2])), message(w.get("\u{9b}"))] {
        assert!(!text.contains(char::is_control) && text.contains("\\u{1b}[2Jx"), "{text}");
    }
}
