//! GGUF files: the header of versions 2 and 3. Bytes in, checked positions out; the elements are decoded by
//! [`crate::weights::DType`].
//!
//! Format: ggml's `docs/gguf.md`. Everything is little-endian; dimensions are innermost first and come out reversed, as
//! torch has them.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::weights::DType;
use crate::weights::header::{Found, Header, MAX_NAME, MAX_TENSORS, Stored, elements};
use crate::{Error, Result};

/// Most metadata entries of a file, dimensions of a tensor, nested arrays.
const MAX_METADATA: u64 = 1 << 16;
const MAX_DIMENSIONS: u32 = 4;
const MAX_NESTING: usize = 4;

/// Whether a file begins as GGUF files do.
pub(crate) fn is_gguf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GGUF")
}

/// Parses and validates the header of a GGUF file.
pub(crate) fn header(label: &str, bytes: &[u8]) -> Result<Header> {
    let mut r = Reader { label, bytes, at: 4 };
    let version = r.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(Error::bad(label, "GGUF version 2 or 3, little-endian", format!("version {version}"))
            .with_hint("Convert the file with a current tool."));
    }
    let tensors = r.count("tensors", MAX_TENSORS as u64)?;
    let entries = r.count("metadata entries", MAX_METADATA)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = r.string("a metadata key")?;
        let kind = r.u32("a metadata type")?;
        if let Some(value) = r.value(kind, 0)? {
            metadata.insert(key, value);
        }
    }
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.push(r.info()?);
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(text) => text.parse::<usize>().ok().filter(|a| a.is_power_of_two()).ok_or_else(|| {
            Error::bad(format!("{label}: `general.alignment`"), "a power of two", text.as_str())
        })?,
    };
    let data = r.at.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    let mut found: Vec<Found> =
        infos.into_iter().map(|i| place(label, bytes, data, alignment, i)).collect::<Result<_>>()?;
    check_overlap(label, &mut found)?;
    Ok(Header { tensors: found, metadata })
}

/// A tensor as the header lists it; the offset counts from the start of the data.
struct Info {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// Where a tensor lies in the file.
fn place(label: &str, bytes: &[u8], data: usize, alignment: usize, info: Info) -> Result<Found> {
    let Info { name, shape, kind, offset } = info;
    let bad = |expected: &str, found: String| Err(Error::bad(format!("{label}: `{name}`"), expected, found));
    let Some(elements) = elements(&shape, bytes.len()) else {
        return bad(&format!("a shape that {} bytes can hold", bytes.len()), format!("{shape:?}"))
            .map_err(|e| e.with_hint("Is the file complete? Download it again."));
    };
    let aligned = usize::try_from(offset).ok().filter(|o| o.is_multiple_of(alignment));
    let Some(start) = aligned.and_then(|o| o.checked_add(data)) else {
        return bad(&format!("an aligned offset, a multiple of {alignment},"), offset.to_string());
    };
    let dtype = match types(kind) {
        Ok(dtype) => dtype,
        // Its size is unknown, so it cannot be fetched; everything else can.
        Err(other) => return Ok(Found { name, dtype: Stored::Other(other), shape, start, end: start }),
    };
    let row = shape.last().copied().unwrap_or(1);
    let (Some(_), Some(size)) = (dtype.bytes(row), dtype.bytes(elements)) else {
        return bad(
            &format!("rows of whole {dtype} blocks ({} numbers)", dtype.block().0),
            format!("{shape:?}"),
        );
    };
    match start.checked_add(size).filter(|&end| end <= bytes.len()) {
        Some(end) => Ok(Found { name, dtype: Stored::Known(dtype), shape, start, end }),
        None => Err(Error::bad(
            format!("{label}: `{name}`"),
            format!("{size} bytes at {start}"),
            format!("a file of {} bytes", bytes.len()),
        )
        .with_hint("Is the file complete? Download it again.")),
    }
}

/// Tensors lie one after another, so that no two names mean the same bytes.
fn check_overlap(label: &str, found: &mut [Found]) -> Result<()> {
    found.sort_by_key(|t| t.start);
    for pair in found.windows(2) {
        if let [a, b] = pair
            && b.start < a.end
        {
            let place = format!("{label}: `{}`", b.name);
            return Err(Error::bad(place, "bytes of its own", format!("some of `{}`", a.name)));
        }
    }
    Ok(())
}

/// The element type behind a number of `enum ggml_type`, or its name.
fn types(kind: u32) -> core::result::Result<DType, String> {
    Ok(match kind {
        0 => DType::F32,
        1 => DType::F16,
        2 => DType::Q4_0,
        3 => DType::Q4_1,
        6 => DType::Q5_0,
        7 => DType::Q5_1,
        8 => DType::Q8_0,
        12 => DType::Q4_K,
        13 => DType::Q5_K,
        14 => DType::Q6_K,
        30 => DType::BF16,
        10 => return Err("q2_k".into()),
        11 => return Err("q3_k".into()),
        24 => return Err("i8".into()),
        25 => return Err("i16".into()),
        26 => return Err("i32".into()),
        27 => return Err("i64".into()),
        28 => return Err("f64".into()),
        other => return Err(format!("GGML type {other}")),
    })
}

/// Reads a header from front to back; every step is checked.
struct Reader<'a> {
    label: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            let found = format!("the end of the file after {} bytes", self.bytes.len());
            Error::bad(self.label, what, found).with_hint("Is the file complete? Download it again.")
        })?;
        self.at += n;
        Ok(taken)
    }
    fn word<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut word = [0; N];
        word.copy_from_slice(self.take(N, what)?);
        Ok(word)
    }
    fn u32(&mut self, what: &str) -> Result<u32> {
        self.word(what).map(u32::from_le_bytes)
    }
    fn u64(&mut self, what: &str) -> Result<u64> {
        self.word(what).map(u64::from_le_bytes)
    }
    fn count(&mut self, what: &str, most: u64) -> Result<u64> {
        let n = self.u64(what)?;
        if n <= most {
            Ok(n)
        } else {
            Err(Error::bad(self.label, format!("at most {most} {what}"), n.to_string()))
        }
    }
    fn string(&mut self, what: &str) -> Result<String> {
        let n = self.count("bytes in a name", MAX_NAME as u64)? as usize;
        self.text(n, what)
    }
    fn text(&mut self, n: usize, what: &str) -> Result<String> {
        let text = core::str::from_utf8(self.take(n, what)?);
        text.map(String::from).map_err(|e| Error::bad(self.label, format!("{what} in UTF-8"), e.to_string()))
    }

    /// A metadata value: text and whole numbers are kept as text, the rest is skipped.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<String>> {
        let what = "a metadata value";
        Ok(match kind {
            0 | 1 | 7 => self.take(1, what).map(|_| None)?,
            2 | 3 => self.take(2, what).map(|_| None)?,
            4 => Some(self.u32(what)?.to_string()),
            5 | 6 => self.take(4, what).map(|_| None)?,
            10 => Some(self.u64(what)?.to_string()),
            11 | 12 => self.take(8, what).map(|_| None)?,
            8 => {
                let n = self.u64(what)?;
                let n = usize::try_from(n).unwrap_or(usize::MAX);
                Some(self.text(n, what)?)
            }
            9 if depth < MAX_NESTING => self.array(depth)?,
            other => {
                let expected = format!("metadata of types 0 to 12, nested at most {MAX_NESTING} deep");
                return Err(Error::bad(self.label, expected, format!("type {other}")));
            }
        })
    }

    /// Skips an array. Every element takes at least a byte, so the loop ends with the file.
    fn array(&mut self, depth: usize) -> Result<Option<String>> {
        let kind = self.u32("an array's type")?;
        let n = self.u64("an array's length")?;
        let size: Option<u64> = match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        if let Some(size) = size {
            let bytes = n.checked_mul(size).and_then(|b| usize::try_from(b).ok()).unwrap_or(usize::MAX);
            self.take(bytes, "an array")?;
            return Ok(None);
        }
        for _ in 0..n {
            self.value(kind, depth + 1)?;
        }
        Ok(None)
    }

    fn info(&mut self) -> Result<Info> {
        let name = self.string("a tensor name")?;
        let n = self.u32("a number of dimensions")?;
        if n > MAX_DIMENSIONS {
            let place = format!("{}: `{name}`", self.label);
            return Err(Error::bad(place, format!("at most {MAX_DIMENSIONS} dimensions"), n.to_string()));
        }
        let mut shape = Vec::with_capacity(n as usize);
        for _ in 0..n {
            let d = self.u64("a dimension")?;
            let d = usize::try_from(d).map_err(|_| {
                Error::bad(format!("{}: `{name}`", self.label), "a size that can be addressed", d.to_string())
            })?;
            shape.push(d);
        }
        shape.reverse();
        let kind = self.u32("an element type")?;
        let offset = self.u64("an offset")?;
        Ok(Info { name, shape, kind, offset })
    }
}

#[cfg(test)]
mod tests;
