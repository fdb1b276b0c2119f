//! All that a host can choose for a training, each under one name: the path of its field in [`Config`], as in `optim.rate`, or its own for
//! what a run has besides. What each may be, its default and its source stand at the field; [`list`] says it to programs.
pub(crate) mod field;
pub(crate) mod part;

pub use field::{Bytes, Kind, Range};

use crate::config::Config;
use crate::recipe::Recipe;
use crate::references::{Fit, Framing};
use crate::{Error, Result};
use field::{ANY, positive};
use part::{Part, accept, rows, settings};
use std::sync::LazyLock;

/// Where a setting comes from; its description says what the released code has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Adv-GRPO paper (arXiv 2511.20256) or its released code.
    Released,
    /// Another paper, by its number on arXiv.
    Paper(&'static str),
    /// This project.
    Ours,
}

impl core::fmt::Display for Source {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Source::Released => f.write_str("released code"),
            Source::Paper(number) => write!(f, "arXiv {number}"),
            Source::Ours => f.write_str("ours"),
        }
    }
}

/// What is known of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Its name, as in `optim.rate`.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its numbers' range; `None`: all of the kind.
    pub range: Option<Range>,
    /// What its numbers count; empty where they have no unit.
    pub unit: &'static str,
    /// What it is, in a sentence or a few.
    pub about: &'static str,
    /// Where it comes from.
    pub source: Source,
}

impl Setting {
    /// Its text in a recipe; see [`Settings::recipe`].
    ///
    /// # Errors
    /// No such recipe.
    pub fn default(&self, recipe: &str, slow: bool) -> Result<String> {
        Settings::recipe(recipe, slow)?.get(self.name).ok_or_else(|| unknown(self.name))
    }
    /// What it may be, with its range.
    pub fn expected(&self) -> String {
        let range = self.range.map_or(String::new(), |range| format!(", {range}"));
        format!("{}{range}", self.kind)
    }
}

settings! {
    /// All that a host can choose for a training.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "" {
        /// Train for about this long instead of a number of iterations; a run that is gone on with counts what it spent.
        seconds: Option<f64> = None, positive(MOST_SECONDS), unit "seconds";
        /// Most of the device's memory that is used, as in 6GB; values are computed again, then fewer images go through at a time, to stay
        /// within it. `none`: what the device has.
        memory: Option<Bytes> = None, ANY, unit "bytes";
        parts {
            /// How references are brought to the training's shape.
            framing: Framing;
            /// What is trained, and how.
            config: Config;
        }
    }
}

/// A hundred years.
pub const MOST_SECONDS: f64 = 3600.0 * 24.0 * 36525.0;

/// All settings, in the order of their definitions.
pub fn list() -> &'static [Setting] {
    static LIST: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let mut all = Vec::new();
        Settings::list(&mut all);
        all
    });
    &LIST
}

/// A setting by its name.
///
/// # Errors
/// There is none of that name: a sentence with the nearest one.
pub fn find(name: &str) -> Result<&'static Setting> {
    list().iter().find(|s| s.name == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    let hint = format!("Did you mean {}?", nearest(name).join(" or "));
    Error::call(name, "the name of a setting", "none of that name").with_hint(&hint)
}

/// The names that are nearest, up to three; of what is written without a part, by their ends.
fn nearest(name: &str) -> Vec<&'static str> {
    let far = |setting: &&Setting| {
        let end = setting.name.rsplit_once('.').map_or(setting.name, |(_, end)| end);
        let whole = strsim::damerau_levenshtein(name, setting.name);
        if name.contains('.') { whole } else { whole.min(strsim::damerau_levenshtein(name, end)) }
    };
    let least = list().iter().map(|s| far(&s)).min();
    list().iter().filter(|s| Some(far(s)) == least).map(|s| s.name).take(3).collect()
}

impl Settings {
    /// Those of a recipe by its name among [`Recipe::NAMES`]; `slow` for devices on which an iteration takes many seconds, see
    /// [`Config::recipe`].
    ///
    /// # Errors
    /// Another name.
    pub fn recipe(name: &str, slow: bool) -> Result<Self> {
        Ok(Settings::of(Config::recipe(name, slow)?))
    }
    /// With what a run has besides as the recipe wants it: the released schedule squashes references.
    pub(crate) fn of(config: Config) -> Self {
        let released = config.recipe == Recipe::Released;
        let fit = if released { Fit::Squash } else { Fit::default() };
        Settings { framing: Framing { fit, ..Framing::default() }, config, ..Settings::default() }
    }

    /// Takes a text for a setting: numbers, `true` and `false`, names, sizes such as `6GB`, colours such as `#ffffff`, `none`. Setting the
    /// recipe leaves all others as they are; [`Settings::recipe`] begins with its own.
    ///
    /// # Errors
    /// No setting of that name; a text or number that it does not take. Nothing is changed then.
    pub fn set(&mut self, name: &str, text: &str) -> Result<()> {
        let setting = find(name)?;
        let mut next = self.clone();
        let mut fields = Vec::new();
        next.fields_mut(&mut fields);
        let found = list().iter().zip(fields).find(|(s, _)| s.name == name);
        let (_, field) = found.ok_or_else(|| unknown(name))?;
        if !field.read(text.trim()) {
            return Err(Error::call(name, setting.expected(), format!("`{text}`")));
        }
        accept(setting, field)?;
        *self = next;
        Ok(())
    }

    /// A setting's text, which [`Settings::set`] takes for the same value; `None` for a name that no setting has.
    pub fn get(&self, name: &str) -> Option<String> {
        rows(self).find(|(setting, _)| setting.name == name).map(|(_, field)| field.text())
    }

    /// Rejects settings that cannot run together, or are beyond their ranges.
    ///
    /// # Errors
    /// A sentence naming the setting and what it may be.
    pub fn check(&self) -> Result<()> {
        part::check(self)?;
        if self.config.recipe == Recipe::Released && self.framing.fit != Fit::Squash {
            let found = self.get("fit").unwrap_or_default();
            return Err(Error::call("fit", "squash, as the released schedule does", found));
        }
        self.config.check()
    }
}

#[cfg(test)]
mod tests;
