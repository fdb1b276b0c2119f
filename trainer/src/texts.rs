//! Encoded prompts kept in a file between runs: the second run needs no text encoder.
use crate::Result;
use crate::files::write_atomically;
use pentimento_runtime::file;
use pentimento_runtime::pipeline::Pipeline;
use pentimento_runtime::text::TextCache;
use std::path::Path;

/// Largest cache that is read, in bytes: some two thousand prompts of SD3.5.
const MAX_CACHE: u64 = 8 << 30;

/// Reads the cache at `path`; a file that does not exist is an empty cache, no path is none.
///
/// # Errors
/// A file that cannot be read or is no cache.
pub fn load(path: Option<&Path>) -> Result<Option<TextCache>> {
    let Some(path) = path else { return Ok(None) };
    match file::read_if_there(path, MAX_CACHE)? {
        Some(bytes) => TextCache::from_bytes(&path.display().to_string(), bytes).map(Some),
        None => Ok(Some(TextCache::new())),
    }
}

/// Writes the pipeline's cache to `path`, whole or not at all, if prompts were added to it since it was read or written.
///
/// # Errors
/// As [`write_atomically`].
pub fn save(pipeline: &mut Pipeline, path: Option<&Path>) -> Result<()> {
    let (Some(path), Some(cache)) = (path, pipeline.text_cache_mut()) else { return Ok(()) };
    if cache.is_changed() {
        let bytes = cache.to_bytes()?;
        write_atomically(path, &bytes)?;
        *cache = TextCache::from_bytes(&path.display().to_string(), bytes)?;
    }
    Ok(())
}
