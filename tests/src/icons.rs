//! The default model, as tests of trainings use it.
use pentimento_trainer::references::{Reference, load_references};
use std::path::{Path, PathBuf};

/// Its folder.
pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons")
}

/// Two of its references, with captions.
pub fn references() -> Vec<Reference> {
    let mut all = load_references(&model().join("references/mono"), 64, 64).expect("references");
    all.truncate(2);
    all
}
