//! Encoded prompts kept in a safetensors file, so that a model can be used again without its text encoders.
//!
//! For every prompt the file holds `context.<prompt>` and `pooled.<prompt>`; its metadata name the encoders they came
//! from ([`TextEncoders::fingerprint`](super::TextEncoders::fingerprint)) and the sizes. A cache of other encoders is
//! refused, never silently used or replaced; a prompt that is not there is encoded and added. Where the encoders
//! themselves are absent, their name cannot be compared: the cache is then believed, and only its sizes are checked, unless
//! an adapter of the encoders had part in it.
use super::{Layout, Text};
use crate::weights::Weights;
use crate::{Error, Result};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use safetensors::tensor::TensorView;

/// The metadata entry that marks the files and says whose they are: the encoders' name and the four sizes.
/// A change of the files' meaning changes it.
const FORMAT: &str = "pentimento_text_1";

/// Stands in the encoders' name before that of an adapter of theirs.
pub const ADAPTED: char = '+';

/// Encoded prompts of one set of encoders.
#[derive(Clone, Debug, Default)]
pub struct TextCache {
    /// Whose prompts these are; not known before the first use of a new cache.
    key: Option<(String, Layout)>,
    label: String,
    stored: Option<Weights>,
    fresh: BTreeMap<String, Text>,
}

impl TextCache {
    /// A cache without prompts, for any encoders.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a cache; `label` names the file in errors.
    ///
    /// # Errors
    /// Bytes that are not a safetensors file with a cache's metadata.
    pub fn from_bytes(label: &str, bytes: Vec<u8>) -> Result<Self> {
        let stored = Weights::from_bytes(label, bytes)?;
        let key = stored.metadata(FORMAT).and_then(parse_key).ok_or_else(|| {
            Error::bad(label, "a cache of encoded prompts", "another safetensors file")
                .with_hint("Name a file that does not exist to begin a new cache.")
        })?;
        Ok(TextCache { key: Some(key), label: label.into(), stored: Some(stored), fresh: BTreeMap::new() })
    }

    /// The cache as the bytes of a safetensors file, the same for the same contents.
    ///
    /// # Errors
    /// A cache that was never used; prompts that do not fit the format.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let Some((encoders, layout)) = &self.key else {
            return Err(Error::missing("text cache", "any encoded prompt"));
        };
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
        let stored = self.stored.iter().flat_map(Weights::names).filter_map(|n| n.strip_prefix("context."));
        for prompt in stored.chain(self.fresh.keys().map(String::as_str)) {
            if let Some(text) = self.get(prompt)? {
                put(&mut tensors, layout, prompt, &text);
            }
        }
        let failed = |e| Error::bad("text cache", "tensors that fit the safetensors format", format!("{e}"));
        let views = tensors.iter().map(|(name, (shape, bytes))| {
            TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
        });
        let views = views.collect::<core::result::Result<Vec<_>, _>>().map_err(failed)?;
        let Layout { tokens, width, pooled, repeat } = layout;
        let key = format!("{encoders} {tokens} {width} {pooled} {repeat}");
        // One entry only: the order of several is not fixed, and equal caches are to be equal files.
        let metadata = [(FORMAT.to_string(), key)].into_iter().collect();
        safetensors::serialize(views, Some(metadata)).map_err(failed)
    }

    /// Whether it holds prompts that were not read from a file.
    pub fn is_changed(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Sizes of the prompts; `None` before the first use.
    pub fn layout(&self) -> Option<Layout> {
        self.key.as_ref().map(|key| key.1)
    }

    /// Whose prompts these are; `None` before the first use.
    pub fn encoders(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.0.as_str())
    }

    /// Says whose prompts these are to be.
    ///
    /// # Errors
    /// The cache already belongs to other encoders.
    pub fn claim(&mut self, encoders: &str, layout: Layout) -> Result<()> {
        match &self.key {
            None => self.key = Some((encoders.into(), layout)),
            Some((known, sizes)) if known == encoders && *sizes == layout => {}
            Some((known, sizes)) => {
                return Err(Error::bad(
                    self.label.as_str(),
                    format!("prompts of the encoders {encoders} with {layout:?}"),
                    format!("prompts of {known} with {sizes:?}"),
                )
                .with_hint(
                    "It belongs to another model, adapter or length of text; name another file or delete this one.",
                ));
            }
        }
        Ok(())
    }

    /// Whether the prompts can be believed where no encoders are: those of an adapter cannot.
    ///
    /// # Errors
    /// Prompts that were encoded with an adapter.
    pub fn believe(&self) -> Result<()> {
        match &self.key {
            Some((encoders, _)) if encoders.contains(ADAPTED) => Err(Error::bad(
                self.label.as_str(),
                "prompts of text encoders as they are",
                "prompts of adapted ones",
            )
            .with_hint("Only with the text encoders themselves can the adapter be compared.")),
            _ => Ok(()),
        }
    }

    /// A prompt's encoding, if it is there.
    ///
    /// # Errors
    /// A damaged file: tensors of other sizes than it says.
    pub fn get(&self, prompt: &str) -> Result<Option<Text>> {
        if let Some(text) = self.fresh.get(prompt) {
            return Ok(Some(text.clone()));
        }
        let (Some(stored), Some((_, layout))) = (&self.stored, &self.key) else { return Ok(None) };
        let name = format!("context.{prompt}");
        if !stored.contains(&name) {
            return Ok(None);
        }
        let context = stored.expect(&name, &[layout.tokens, layout.width])?;
        let pooled = stored.expect(&format!("pooled.{prompt}"), &[layout.pooled])?;
        context.check_finite()?;
        pooled.check_finite()?;
        let (context, pooled) = (context.to_f32()?, pooled.to_f32()?);
        Ok(Some(Text { context, pooled }))
    }

    /// Adds a prompt.
    pub fn insert(&mut self, prompt: &str, text: Text) {
        self.fresh.insert(prompt.into(), text);
    }
}

/// Reads the metadata entry.
fn parse_key(text: &str) -> Option<(String, Layout)> {
    let (encoders, sizes) = text.split_once(' ')?;
    let size = |n: &str| n.parse().ok().filter(|n| (1..=1 << 20).contains(n));
    let sizes: Option<Vec<usize>> = sizes.split(' ').map(size).collect();
    let &[tokens, width, pooled, repeat] = sizes?.as_slice() else { return None };
    Some((encoders.into(), Layout { tokens, width, pooled, repeat }))
}

fn put(tensors: &mut BTreeMap<String, (Vec<usize>, Vec<u8>)>, layout: &Layout, prompt: &str, text: &Text) {
    let bytes = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let shape = [layout.tokens, layout.width].into();
    tensors.insert(format!("context.{prompt}"), (shape, bytes(&text.context)));
    tensors.insert(format!("pooled.{prompt}"), ([layout.pooled].into(), bytes(&text.pooled)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const SIZES: Layout = Layout { tokens: 2, width: 3, pooled: 1, repeat: 256 };

    fn text(v: f32) -> Text {
        Text { context: vec![v; 6], pooled: vec![-v] }
    }

    fn filled() -> TextCache {
        let mut cache = TextCache::new();
        cache.claim("abc", SIZES).unwrap();
        cache.insert("", text(1.0));
        cache.insert("a \"cat\"\n", text(2.0));
        cache
    }

    #[test]
    fn prompts_survive_a_file() {
        let cache = filled();
        assert!(cache.is_changed());
        let bytes = cache.to_bytes().unwrap();
        assert_eq!(bytes, cache.to_bytes().unwrap());
        let mut back = TextCache::from_bytes("t", bytes).unwrap();
        assert!(!back.is_changed() && back.layout() == Some(SIZES));
        back.claim("abc", SIZES).unwrap();
        assert_eq!(back.get("a \"cat\"\n").unwrap(), Some(text(2.0)));
        assert_eq!((back.get("").unwrap(), back.get("dog").unwrap()), (Some(text(1.0)), None));
        back.insert("dog", text(3.0));
        let more = TextCache::from_bytes("t", back.to_bytes().unwrap()).unwrap();
        assert_eq!((more.get("").unwrap(), more.get("dog").unwrap()), (Some(text(1.0)), Some(text(3.0))));
    }

    #[test]
    fn other_encoders_are_refused() {
        let mut cache = TextCache::from_bytes("t", filled().to_bytes().unwrap()).unwrap();
        let error = cache.claim("xyz", SIZES).unwrap_err().to_string();
        assert!(
            error.starts_with("t: expected prompts of the encoders xyz") && error.contains("abc"),
            "{error}"
        );
        assert!(cache.claim("abc", Layout { tokens: 3, ..SIZES }).is_err());
    }

    #[test]
    fn damaged_files_are_sentences() {
        assert!(TextCache::new().to_bytes().is_err());
        let bytes = filled().to_bytes().unwrap();
        for n in [0, 7, 40, bytes.len() - 1] {
            assert!(TextCache::from_bytes("t", bytes[..n].to_vec()).is_err(), "{n}");
        }
        let plain = |header: &str| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            TextCache::from_bytes("t", bytes).unwrap_err().to_string()
        };
        assert!(plain("{}").contains("another safetensors file"));
        for key in
            ["", "abc", "abc 2 3 1", "abc 2 3 1 0", "abc 2 3 1 -1", "abc 2 3 1 99999999999", "abc 2 3 1 1 1"]
        {
            let meta = format!(r#"{{"__metadata__":{{"{FORMAT}":"{key}"}}}}"#);
            assert!(plain(&meta).contains("another safetensors file"), "{key}");
        }
        let wrong = format!(
            r#"{{"__metadata__":{{"{FORMAT}":"abc 2 3 1 1"}},
                "context.x":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}}}"#
        );
        let mut bytes = (wrong.len() as u64).to_le_bytes().to_vec();
        bytes.extend(wrong.as_bytes());
        let error = TextCache::from_bytes("t", bytes).unwrap().get("x").unwrap_err().to_string();
        assert!(error.contains("`context.x`: expected shape [2, 3]"), "{error}");
    }
}
