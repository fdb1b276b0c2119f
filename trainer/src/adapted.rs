//! A model with finished adapters, ready to draw.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use pentimento_runtime::exec::Executor;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{self, Pipeline, TextSettings};

use crate::adapter::Adapter;
use crate::{Error, Result};

/// An adapter to draw with: where it is, and how strongly it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// A file, or a folder that holds one.
    pub path: PathBuf,
    /// Factor of its corrections; 1: as trained. Any finite number: negative ones take away what it has learnt.
    pub strength: f32,
}

impl Source {
    /// At full strength.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Source { path: path.into(), strength: 1.0 }
    }

    /// Reads `PATH` or `PATH:STRENGTH`. What exists under the whole name is meant as it is, so names and drives with a colon
    /// need nothing special.
    ///
    /// # Errors
    /// A strength that is not finite; text behind the colon of an existing path that is no number.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let whole = Path::new(text);
        let parts = text.to_str().and_then(|t| t.rsplit_once(':')).filter(|(path, _)| !path.is_empty());
        let Some((path, strength)) = parts.filter(|_| !whole.exists()) else { return Ok(Self::new(whole)) };
        match strength.parse::<f32>() {
            Ok(strength) if strength.is_finite() => Ok(Source { path: path.into(), strength }),
            Err(_) if !Path::new(path).exists() => Ok(Self::new(whole)),
            _ => Err(Error::bad(format!("{path}: strength"), "a finite number", format!("`{strength}`"))
                .with_hint("Write it as in FILE:0.8.")),
        }
    }
}

/// Opens a diffusers folder or a single file with adapters, which add up, or without any.
///
/// # Errors
/// As [`ModelFolder::open`] and [`open_with`].
pub fn open(model: &Path, adapters: &[Source], exec: Box<dyn Executor>) -> Result<Pipeline> {
    open_with(&ModelFolder::open(model)?, adapters, exec, TextSettings::default())
}

/// As [`open`], for a model that is open already, with a say in how prompts are encoded. What can be told before drawing is
/// told here.
///
/// # Errors
/// As [`Pipeline::open_with`], [`Pipeline::check`] and [`sum`].
pub fn open_with(
    model: &ModelFolder,
    adapters: &[Source],
    exec: Box<dyn Executor>,
    text: TextSettings,
) -> Result<Pipeline> {
    let pipeline = Pipeline::open_with(model, exec, sum(model, adapters)?.pairs, text)?;
    pipeline.check()?;
    Ok(pipeline)
}

/// Adapters for a model at their strengths, as one.
///
/// # Errors
/// As [`Adapter::load`] and [`Adapter::scaled`]: an adapter of which a part would not be used is refused.
pub fn sum(model: &ModelFolder, adapters: &[Source]) -> Result<Adapter> {
    let mut sum = Adapter::default();
    if adapters.is_empty() {
        return Ok(sum);
    }
    let layers = pipeline::layers(model)?;
    for Source { path, strength } in adapters {
        sum.add(Adapter::load(path, &layers)?.scaled(*strength, &path.display().to_string())?)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;

    #[test]
    fn colons_are_strengths_only_behind_what_exists_not_as_a_whole() {
        let s = Scratch::new("source");
        let file = |name: &str| s.write(name, "").display().to_string();
        let parse = |text: &str| Source::parse(OsStr::new(text)).map_err(|e| e.to_string());
        let is = |text: &str, path: &str, strength| {
            assert_eq!(parse(text), Ok(Source { path: path.into(), strength }), "{text}");
        };
        let plain = file("a.safetensors");
        is(&plain, &plain, 1.0);
        is(&format!("{plain}:0.8"), &plain, 0.8);
        is(&format!("{plain}:-1e-1"), &plain, -0.1);
        is(r"C:\models\a.safetensors", r"C:\models\a.safetensors", 1.0);
        is(r"C:\models\a.safetensors:0.5", r"C:\models\a.safetensors", 0.5);
        is("not/there:x", "not/there:x", 1.0);
        is(":0.5", ":0.5", 1.0);
        for strength in ["nan", "inf", "1e39", "", "0,8"] {
            let text = parse(&format!("{plain}:{strength}")).unwrap_err();
            assert!(
                text.contains("strength: expected a finite number") && text.contains("FILE:0.8"),
                "{text}"
            );
        }
        #[cfg(unix)]
        {
            let colon = file("b:0.5");
            is(&colon, &colon, 1.0);
            is(&format!("{colon}:2"), &colon, 2.0);
        }
    }
}
