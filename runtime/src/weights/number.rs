//! Tensors that hold one number, such as an adapter's alpha, which trainers store in whatever type it had.
use super::Weights;
use super::header::Stored;
use crate::{Error, Result};
use alloc::format;

impl Weights {
    /// The one number of a tensor of any plain type, integers too.
    ///
    /// # Errors
    /// As [`Weights::get`]; more than one number, or none.
    pub fn number(&self, name: &str) -> Result<f64> {
        let entry = self.entries.get(name);
        let bytes = entry.and_then(|e| (*self.blocks[e.block].storage).as_ref().get(e.start..e.end));
        let wide = match (entry.map(|e| &e.dtype), bytes) {
            (Some(Stored::Other(kind)), Some(bytes)) => decode(kind, bytes),
            _ => None,
        };
        if let Some(number) = wide {
            return Ok(number);
        }
        let view = self.get(name)?;
        match (view.elements() == 1).then(|| view.to_f32()).transpose()?.as_deref() {
            Some(&[number]) => Ok(f64::from(number)),
            _ => Err(Error::bad(
                format!("{}: `{name}`", view.label),
                "one number",
                format!("{:?}", view.shape),
            )),
        }
    }
}

/// One number of a type that tensors are not read in.
fn decode(kind: &str, bytes: &[u8]) -> Option<f64> {
    Some(match kind {
        "F64" => f64::from_le_bytes(bytes.try_into().ok()?),
        "I64" => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        "U64" => u64::from_le_bytes(bytes.try_into().ok()?) as f64,
        "I32" => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        "U32" => f64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        "I16" => f64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        "U16" => f64::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        "I8" => f64::from(i8::from_le_bytes(bytes.try_into().ok()?)),
        "U8" => f64::from(u8::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn open(kind: &str, shape: &[usize], bytes: &[u8]) -> Weights {
        let end = bytes.len();
        let header = format!(r#"{{"x":{{"dtype":"{kind}","shape":{shape:?},"data_offsets":[0,{end}]}}}}"#);
        let mut file: Vec<u8> = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(bytes);
        Weights::from_bytes("f", file).unwrap()
    }

    #[test]
    fn one_number_of_any_type() {
        for (kind, bytes) in [
            ("F64", &6.5f64.to_le_bytes()[..]),
            ("F32", &6.5f32.to_le_bytes()),
            ("F16", &0x4680u16.to_le_bytes()),
            ("BF16", &0x40d0u16.to_le_bytes()),
        ] {
            assert_eq!(open(kind, &[1], bytes).number("x"), Ok(6.5), "{kind}");
        }
        for (kind, bytes) in
            [("I64", &8i64.to_le_bytes()[..]), ("I32", &8i32.to_le_bytes()), ("U8", &[8]), ("I8", &[8])]
        {
            assert_eq!(open(kind, &[], bytes).number("x"), Ok(8.0), "{kind}");
        }
        let text = |w: Weights| w.number("x").unwrap_err().to_string();
        assert_eq!(text(open("F32", &[2], &[0; 8])), "f: `x`: expected one number, found [2].");
        assert_eq!(text(open("F32", &[0], &[])), "f: `x`: expected one number, found [0].");
        assert!(text(open("I64", &[2], &[0; 16])).contains("I64"));
        assert!(open("F32", &[0], &[]).number("y").is_err());
    }
}
