//! What a file says about its tensors, whatever its format; and how safetensors says it.
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::DType;
use crate::{Error, Result};

/// Largest header that is parsed, in bytes (the limit of the safetensors format itself).
const MAX_HEADER: usize = 100_000_000;

/// An element type as stored: one that is decoded, or the name of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    Known(DType),
    Other(String),
}

/// One tensor of a file: bytes `start..end` of the whole file, which lie inside it and fit type and shape.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub name: String,
    pub dtype: Stored,
    pub shape: Vec<usize>,
    pub start: usize,
    pub end: usize,
}

/// Tensors and metadata of a file.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub tensors: Vec<Found>,
    pub metadata: BTreeMap<String, String>,
}

/// Parses and validates the header of a safetensors file.
pub(crate) fn safetensors(label: &str, bytes: &[u8]) -> Result<Header> {
    let expected = "a safetensors or GGUF file";
    let hint = "Is the file complete? Download it again.";
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::bad(label, expected, format!("only {} bytes in all", bytes.len())).with_hint(hint));
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&n| n <= MAX_HEADER);
    let Some(length) = length else {
        return Err(Error::bad(label, expected, "no valid header length in its first 8 bytes")
            .with_hint("Pickle (.bin, .ckpt, .pt) files are not read; convert them to safetensors."));
    };
    let Some((header, data)) = rest.split_at_checked(length) else {
        let found = format!("{} bytes", rest.len());
        return Err(Error::bad(label, format!("a header of {length} bytes"), found).with_hint(hint));
    };
    // This also checks that offsets are gapless, ordered and as long as shape and type demand.
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|e| Error::bad(label, "a valid safetensors header", e.to_string()).with_hint(hint))?;
    if metadata.data_len() != data.len() {
        let found = format!("{} bytes of tensor data", data.len());
        let expected = format!("{} bytes of tensor data", metadata.data_len());
        return Err(Error::bad(label, expected, found).with_hint(hint));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let dtype = match info.dtype {
            Dtype::F32 => Stored::Known(DType::F32),
            Dtype::F16 => Stored::Known(DType::F16),
            Dtype::BF16 => Stored::Known(DType::BF16),
            other => Stored::Other(format!("{other:?}")),
        };
        // The header covers exactly the bytes after it, so these sums are in bounds.
        let (start, end) = (8 + length + info.data_offsets.0, 8 + length + info.data_offsets.1);
        Found { name, dtype, shape: info.shape.clone(), start, end }
    });
    let strings = metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    Ok(Header { tensors: tensors.collect(), metadata: strings.collect() })
}
