//! Tokenizers from their folders.
use alloc::string::ToString;
use std::path::Path;

use super::{Component, ModelFolder};
use crate::Result;
use crate::tokenizer::{Tokenizer, TokenizerFiles, Unigram};

/// Opens a folder of tokenizer files, which has no `config.json`.
///
/// # Errors
/// No such folder.
pub fn tokenizer_folder(path: &Path) -> Result<Component> {
    Component::at(path)
}

impl ModelFolder {
    /// The CLIP tokenizer in component `name` (`tokenizer`, `tokenizer_2`).
    ///
    /// # Errors
    /// As [`ModelFolder::component`] and [`Component::tokenizer`].
    pub fn tokenizer(&self, name: &str) -> Result<Tokenizer> {
        self.component(name)?.tokenizer()
    }

    /// The T5 tokenizer in component `name` (`tokenizer_3`).
    ///
    /// # Errors
    /// As [`ModelFolder::component`] and [`Component::unigram_tokenizer`].
    pub fn unigram_tokenizer(&self, name: &str) -> Result<Unigram> {
        self.component(name)?.unigram_tokenizer()
    }
}

impl Component {
    /// The CLIP tokenizer whose files lie in this folder.
    ///
    /// # Errors
    /// Neither `vocab.json` and `merges.txt` nor `tokenizer.json`, and as [`Tokenizer::new`].
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.with_tokenizer_files(Tokenizer::new)
    }

    /// The T5 tokenizer whose files lie in this folder.
    ///
    /// # Errors
    /// As [`Unigram::new`].
    pub fn unigram_tokenizer(&self) -> Result<Unigram> {
        self.with_tokenizer_files(Unigram::new)
    }

    /// Reads the tokenizer files that are there and makes something of them.
    fn with_tokenizer_files<T>(
        &self,
        make: impl FnOnce(&str, &TokenizerFiles<'_>) -> Result<T>,
    ) -> Result<T> {
        let read = |file: &str| self.has_file(file).then(|| self.read_text(file)).transpose();
        let (vocab, merges) = (read("vocab.json")?, read("merges.txt")?);
        let (map, config, json) =
            (read("special_tokens_map.json")?, read("tokenizer_config.json")?, read("tokenizer.json")?);
        let files = TokenizerFiles {
            vocab: vocab.as_deref(),
            merges: merges.as_deref(),
            special_tokens_map: map.as_deref(),
            tokenizer_config: config.as_deref(),
            tokenizer_json: json.as_deref(),
        };
        make(&self.path.display().to_string(), &files)
    }
}
