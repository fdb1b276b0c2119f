//! Scaled fp8 checkpoints: a matrix in eight bits, and a tensor beside it with the factor of all of it or of each row.
//!
//! The factor becomes part of the matrix when a file is opened, so that nothing that reads it can forget it. Names:
//! ComfyUI's `scale_weight`, and `weight_scale` of its newer files, compressed-tensors and ModelOpt. The factors of a layer's
//! input only serve products of eight-bit numbers, which are not made here.
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::header::Stored;
use super::{DType, Weights};
use crate::{Error, Result, shown};

/// What a tensor's name ends in, after its module and a dot.
const FACTORS: [&str; 2] = ["scale_weight", "weight_scale"];
/// For products that are not made here, and the mark of ComfyUI's files.
const NEEDLESS: [&str; 4] = ["scale_input", "input_scale", "scaled_fp8", "activation_scale"];
/// ComfyUI's description of a layer, JSON in bytes; with these formats it says no more than type and factor do.
const DESCRIPTION: &str = "comfy_quant";
const DESCRIBED: [&str; 2] = ["float8_e4m3fn", "float8_e5m2"];
/// Parts of quantisations that are not read: of blocks, of 4 bits, of bitsandbytes, of GPTQ and AWQ.
const FOREIGN: [&str; 12] = [
    "weight_scale_inv",
    "weight_scale_2",
    "weight_zero_point",
    "weight_scale_per_channel",
    "absmax",
    "quant_map",
    "nested_absmax",
    "nested_quant_map",
    "qweight",
    "qzeros",
    "SCB",
    "weight_format",
];

/// The last part of a name.
fn last(name: &str) -> (&str, &str) {
    name.rsplit_once('.').map_or(("", name), |(_, last)| (&name[..name.len() - last.len()], last))
}

/// Takes the factors out of a set of tensors and into the matrices they belong to.
pub(super) fn fold(weights: &mut Weights) -> Result<()> {
    let known = |name: &&String| {
        let last = last(name).1;
        FACTORS.contains(&last) || NEEDLESS.contains(&last) || last == DESCRIPTION || FOREIGN.contains(&last)
    };
    let found: Vec<String> = weights.entries.keys().filter(known).cloned().collect();
    for name in found {
        let (module, part) = last(&name);
        match part {
            DESCRIPTION => described(weights, &name)?,
            part if FACTORS.contains(&part) => factor(weights, &name, module)?,
            part if NEEDLESS.contains(&part) => {}
            _ => {
                return Err(Error::bad(
                    place(weights, &name),
                    "plain numbers or scaled fp8",
                    "another quantisation",
                )
                .with_hint("Convert the checkpoint to f16, to fp8 or to GGUF."));
            }
        }
        weights.entries.remove(&name);
    }
    Ok(())
}

fn place(weights: &Weights, name: &str) -> String {
    weights.entries.get(name).map(|entry| weights.place(name, entry)).unwrap_or_default()
}

fn factor(weights: &mut Weights, name: &str, module: &str) -> Result<()> {
    let matrix = format!("{module}weight");
    let here = place(weights, name);
    let scale = weights.get(name)?.to_f32()?;
    let hint = "Nothing tells whether the factor is applied already; convert the checkpoint anew, to f16 or to scaled fp8.";
    let Some(entry) = weights.entries.get_mut(&matrix) else {
        return Err(Error::missing(here, format!("`{}`, which it scales", shown(&matrix))));
    };
    if !matches!(entry.dtype, Stored::Known(DType::F8_E4M3 | DType::F8_E5M2)) {
        let found = match &entry.dtype {
            Stored::Known(dtype) => dtype.to_string(),
            Stored::Other(other) => other.clone(),
        };
        return Err(Error::bad(here, "a matrix in fp8 beside it", found).with_hint(hint));
    }
    let rows = entry.shape.first().copied().unwrap_or(1);
    if scale.len() != 1 && scale.len() != rows || !entry.scale.is_empty() {
        let expected = format!("one factor, or one for each of {rows} rows");
        return Err(Error::bad(here, expected, format!("{} numbers", scale.len()))
            .with_hint("Factors of blocks are not read; convert the checkpoint to f16."));
    }
    if let Some(bad) = scale.iter().find(|s| !s.is_finite()) {
        return Err(Error::bad(here, "finite factors", bad.to_string()));
    }
    entry.scale = scale;
    Ok(())
}

fn described(weights: &Weights, name: &str) -> Result<()> {
    let text = weights.bytes(name).unwrap_or_default();
    let json: serde_json::Value =
        serde_json::from_slice(text.get(..4096).unwrap_or(text)).unwrap_or_default();
    if json["format"].as_str().is_some_and(|format| DESCRIBED.contains(&format)) {
        return Ok(());
    }
    let found = shown(&json["format"].to_string()).to_string();
    Err(Error::bad(place(weights, name), format!("one of the formats {DESCRIBED:?}"), found)
        .with_hint("Convert the checkpoint to f16, to fp8 or to GGUF."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// A safetensors file of (name, type, shape, bytes).
    fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
        let (mut header, mut data) = (Vec::new(), Vec::new());
        for (name, dtype, shape, bytes) in tensors {
            let (start, end) = (data.len(), data.len() + bytes.len());
            header.push(format!(
                r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
            ));
            data.extend(bytes);
        }
        let header = format!("{{{}}}", header.join(","));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    }
    fn open(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Result<Weights> {
        Weights::from_bytes("m", file(tensors))
    }
    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
    fn message<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    /// 1, 2, 3, 4 in e4m3.
    const CODES: [u8; 4] = [0x38, 0x40, 0x44, 0x48];

    #[test]
    fn factors_become_part_of_their_matrix() {
        for name in ["a.scale_weight", "a.weight_scale"] {
            for shape in [&[][..], &[1], &[1, 1]] {
                let w = open(&[
                    ("a.weight", "F8_E4M3", &[2, 2], CODES.to_vec()),
                    (name, "F32", shape, f32s(&[0.5])),
                    ("a.scale_input", "F32", &[], f32s(&[3.0])),
                    ("scaled_fp8", "F8_E4M3", &[2], vec![0; 2]),
                    ("b.comfy_quant", "U8", &[27], br#"{"format": "float8_e4m3fn"}"#.to_vec()),
                ]);
                let w = w.unwrap();
                assert_eq!(w.names().collect::<Vec<_>>(), ["a.weight"]);
                let t = w.get("a.weight").unwrap();
                assert_eq!(
                    (t.to_f32().unwrap(), t.rows(1, 1).unwrap()),
                    (vec![0.5, 1.0, 1.5, 2.0], Some(vec![1.5, 2.0]))
                );
            }
        }
    }

    #[test]
    fn rows_keep_their_factors_under_other_names() {
        for shape in [&[4][..], &[4, 1]] {
            let w = open(&[
                ("a.weight", "F8_E5M2", &[4, 1], vec![0x3c; 4]),
                ("a.weight_scale", "F32", shape, f32s(&[1.0, 2.0, 3.0, 4.0])),
            ]);
            let w = w.unwrap();
            assert_eq!(w.get("a.weight").unwrap().to_f32().unwrap(), [1.0, 2.0, 3.0, 4.0]);
            let mut v = w.view();
            v.present_part("second".into(), &w, "a.weight", [1, 2]).unwrap();
            v.present_swapped("swapped".into(), &w, "a.weight").unwrap();
            assert_eq!(v.get("second").unwrap().to_f32().unwrap(), [3.0, 4.0]);
            assert_eq!(v.get("second").unwrap().rows(1, 1).unwrap(), Some(vec![4.0]));
            assert_eq!(v.get("swapped").unwrap().to_f32().unwrap(), [3.0, 4.0, 1.0, 2.0]);
        }
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let scaled = |dtype: &str, bytes: Vec<u8>, name: &str, factors: &[f32]| {
            message(open(&[
                ("a.weight", dtype, &[2, 2], bytes),
                (name, "F32", &[factors.len()], f32s(factors)),
            ]))
        };
        let fp8 = |name: &str, factors: &[f32]| scaled("F8_E4M3", CODES.to_vec(), name, factors);
        assert!(
            fp8("b.scale_weight", &[1.0])
                .contains("m: `b.scale_weight`: missing `b.weight`, which it scales")
        );
        assert!(
            fp8("a.scale_weight", &[1.0, 2.0, 3.0])
                .contains("one factor, or one for each of 2 rows, found 3")
        );
        assert!(fp8("a.scale_weight", &[f32::NAN]).contains("finite factors"));
        for foreign in FOREIGN {
            assert!(fp8(&format!("a.{foreign}"), &[1.0]).contains("another quantisation"), "{foreign}");
        }
        let half = scaled("F16", vec![0; 8], "a.scale_weight", &[0.25]);
        assert!(
            half.contains("a matrix in fp8 beside it, found f16") && half.contains("applied already"),
            "{half}"
        );
        let twice = open(&[
            ("a.weight", "F8_E4M3", &[2, 2], CODES.to_vec()),
            ("a.scale_weight", "F32", &[], f32s(&[1.0])),
            ("a.weight_scale", "F32", &[], f32s(&[1.0])),
        ]);
        assert!(message(twice).contains("one factor"));
        for text in ["{\"format\": \"nvfp4\"}", "{}", "\u{1b}"] {
            let described = open(&[("a.comfy_quant", "U8", &[text.len()], text.as_bytes().to_vec())]);
            assert!(message(described).contains("one of the formats"), "{text}");
        }
    }
}
