//! What a driver built, kept between runs: bytes that a host keeps where it likes, and that are foreign when they come back.
//!
//! A driver believes what it is given, so bytes reach it only behind a header of ours that says whose they are and that none
//! changed. That finds accidents, not attacks: they belong where nobody else writes.
use super::fault::Failure;
use crate::Result;
use crate::fingerprint::Hash;
use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use std::sync::Arc;

/// Largest bytes of a cache that are taken or given, header included.
pub const MOST: u64 = 256 << 20;

/// Gives what an earlier [`PipelineCache::bytes`] gave on an adapter, by a name for the adapter that may be a file's.
pub type Load<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>> + 'a;

/// The pipelines of a device, as its driver can use them again. Lives as long as it is wanted, beyond its executor too.
#[derive(Clone)]
pub struct PipelineCache {
    raw: wgpu::PipelineCache,
    name: String,
    owner: Arc<str>,
}

impl PipelineCache {
    pub(super) fn raw(&self) -> wgpu::PipelineCache {
        self.raw.clone()
    }
    /// A name for the adapter: letters, digits, `_`.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// All that was built so far, and what the cache began with; `None` when the driver gives nothing, or more than [`MOST`].
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let data = self.raw.get_data()?;
        Some(seal(&self.owner, &data)).filter(|bytes| bytes.len() as u64 <= MOST)
    }

    /// For a device that has the feature. What `load` gives and cannot be used is noted.
    pub(super) fn open(
        device: &wgpu::Device,
        error: &Failure,
        info: &wgpu::AdapterInfo,
        load: &Load<'_>,
        notes: &mut Vec<String>,
    ) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let name = wgpu::util::pipeline_cache_key(info)?;
        let owner: Arc<str> = owner(&name, info).into();
        let create = |data: Option<&[u8]>| {
            let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: true };
            // SAFETY: the data are `get_data`'s on this adapter with this driver, as far as `unseal` can tell.
            error.caught(|| unsafe { device.create_pipeline_cache(&descriptor) })
        };
        let made = |raw| PipelineCache { raw, name: name.clone(), owner: owner.clone() };
        let kept = load(&name).map_err(|e| format!("{e}"));
        let used = kept.and_then(|kept| match &kept {
            Some(bytes) => create(Some(unseal(&owner, bytes)?)).map(|raw| Some(made(raw))),
            None => Ok(None),
        });
        match used {
            Ok(Some(cache)) => Some(cache),
            Ok(None) => create(None).ok().map(made),
            Err(why) => {
                let why = why.trim_end_matches('.');
                notes.push(format!("kept pipelines are not used: {why}; they are built anew"));
                create(None).ok().map(made)
            }
        }
    }
}

/// Whose a cache is: adapter, driver and version of ours, in one line.
fn owner(name: &str, info: &wgpu::AdapterInfo) -> String {
    let wgpu::AdapterInfo { name: adapter, driver, driver_info, .. } = info;
    format!("{name} {adapter:?} {driver:?} {driver_info:?} {}", env!("CARGO_PKG_VERSION"))
}

/// The first line of a file.
const MAGIC: &str = "pentimento pipelines 1\n";
/// Of the data, behind their owner's line.
const HASH: usize = 32;

/// Data behind a header.
fn seal(owner: &str, data: &[u8]) -> Vec<u8> {
    [MAGIC.as_bytes(), owner.as_bytes(), b"\n", hash(data).as_bytes(), b"\n", data].concat()
}

/// The data, or why they are not to be used.
fn unseal<'a>(owner: &str, bytes: &'a [u8]) -> core::result::Result<&'a [u8], String> {
    let no = |why: &str| Err(why.to_owned());
    if bytes.len() as u64 > MOST {
        return no("they are too large");
    }
    let Some(rest) = bytes.strip_prefix(MAGIC.as_bytes()) else { return no("they are something else") };
    let theirs = rest.strip_prefix(owner.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
    let Some(rest) = theirs else {
        return no("they are another adapter's, driver's or version's");
    };
    match rest.split_at_checked(HASH + 1) {
        Some((line, data)) if line.strip_suffix(b"\n") == Some(hash(data).as_bytes()) => Ok(data),
        _ => no("they are damaged"),
    }
}

fn hash(data: &[u8]) -> String {
    let mut hash = Hash::new();
    hash.bytes(data);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_data_of_the_same_owner_are_used() {
        for data in [&b""[..], b"\n", b"data\n\0"] {
            let kept = seal("me", data);
            assert_eq!(unseal("me", &kept), Ok(data));
            for owner in ["you", "", "m", "me 2"] {
                assert!(unseal(owner, &kept).is_err_and(|why| why.contains("another adapter's")));
            }
            for cut in 0..kept.len() {
                assert!(unseal("me", &kept[..cut]).is_err(), "cut to {cut}");
            }
            for at in 0..kept.len() {
                let mut changed = kept.clone();
                changed[at] ^= 1;
                assert!(unseal("me", &changed).is_err(), "changed at {at}");
            }
            assert!(unseal("me", &[&kept[..], b"x"].concat()).is_err_and(|why| why == "they are damaged"));
        }
        assert!(unseal("me", b"PNG").is_err_and(|why| why == "they are something else"));
    }
}
