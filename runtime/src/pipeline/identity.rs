//! Which model it is.
use super::Pipeline;
use crate::text::TextCache;
use alloc::string::String;

impl Pipeline {
    /// Its parts with names of their contents, see [`crate::weights::Weights::fingerprint`]. Where text encoders are missing, the cache of
    /// encoded prompts says whose they are.
    pub fn fingerprints(&self) -> [(&'static str, String); 3] {
        let encoders = self.encoders.as_ref().map(|encoders| encoders.fingerprint());
        let text = encoders.or_else(|| self.cache.as_ref().and_then(TextCache::encoders).map(String::from));
        [
            ("transformer", self.transformer.fingerprint()),
            ("autoencoder", self.autoencoder.fingerprint()),
            ("text encoders", text.unwrap_or_default()),
        ]
    }
}
