//! One error type for the whole runtime. Every message is a sentence: what, where, expected, found, what to do. Whatever a
//! message names is shown as [`Shown`] does: cut, on one line, without control characters.
use crate::shown::Shown;
use alloc::string::String;

/// Most characters of one part of a message.
const MOST: usize = 800;

fn part(text: &str) -> Shown<'_> {
    Shown { text, most: MOST }
}

/// What went wrong. The `Display` form is meant for people and stands on its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, tensor, configuration or image cannot be used as it is.
    #[error("{}: expected {}, found {}.{}", part(place), part(expected), part(found), part(hint))]
    Bad {
        /// File, tensor or field.
        place: String,
        /// What would have been right.
        expected: String,
        /// What was there.
        found: String,
        /// What to do about it; empty or starting with a space.
        hint: String,
    },
    /// What was asked for cannot be, whatever is in the files: a size, a setting, an order of calls.
    #[error("{}: expected {}, found {}.{}", part(place), part(expected), part(found), part(hint))]
    Call {
        /// Setting, size or call.
        place: String,
        /// What would have been right.
        expected: String,
        /// What it was.
        found: String,
        /// What to do about it; empty or starting with a space.
        hint: String,
    },
    /// Something that must be there is not.
    #[error("{}: missing {}.{}", part(place), part(what), part(hint))]
    Missing {
        /// Folder or file that was searched.
        place: String,
        /// The missing thing.
        what: String,
        /// What to do about it; empty or starting with a space.
        hint: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: cannot {}: {}.", part(place), part(action), part(reason))]
    Io {
        /// Path.
        place: String,
        /// "read", "write" ...
        action: String,
        /// The system's own words.
        reason: String,
    },
    /// A shape or op rule was broken while a graph was built.
    #[error("graph: {}.", part(_0))]
    Graph(String),
    /// Numbers that are NaN or infinite.
    #[error("{place}: expected finite numbers, found {found}.{hint}")]
    NotFinite {
        /// Tensor, output or setting.
        place: String,
        /// The first such number, where it is, and where it came from.
        found: String,
        /// What to do about it; empty or starting with a space.
        hint: String,
    },
    /// The adapter cannot run this, or failed while running it.
    #[error("device {}: {}.", part(device), part(reason))]
    Device {
        /// Adapter name.
        device: String,
        /// What happened.
        reason: String,
    },
    /// The adapter has too little memory left.
    #[error("device {}: out of memory: {}.{}", part(device), part(reason), part(hint))]
    Memory {
        /// Adapter name.
        device: String,
        /// What was asked for.
        reason: String,
        /// What to do about it; empty or starting with a space.
        hint: String,
    },
    /// The caller asked to stop.
    #[error("stopped on request.")]
    Cancelled,
}

/// `Result` with the runtime's [`Error`].
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// `place`: expected `expected`, found `found`.
    pub fn bad(place: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Error::Bad {
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
            hint: String::new(),
        }
    }
    /// [`Error::Call`]: at `place`, `expected` would have been right.
    pub fn call(place: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        let (place, expected, found) = (place.into(), expected.into(), found.into());
        Error::Call { place, expected, found, hint: String::new() }
    }
    /// `place`: missing `what`.
    pub fn missing(place: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Missing { place: place.into(), what: what.into(), hint: String::new() }
    }
    /// `place`: cannot `action`: `reason`.
    pub fn io(place: impl Into<String>, action: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Io { place: place.into(), action: action.into(), reason: reason.into() }
    }
    /// `place`: numbers that are none.
    pub fn not_finite(place: impl Into<String>, found: impl Into<String>) -> Self {
        Error::NotFinite { place: place.into(), found: found.into(), hint: String::new() }
    }
    /// The same at another place.
    pub fn at(mut self, name: impl Into<String>) -> Self {
        if let Error::Bad { place, .. }
        | Error::Call { place, .. }
        | Error::Missing { place, .. }
        | Error::NotFinite { place, .. } = &mut self
        {
            *place = name.into();
        }
        self
    }
    /// Whether less of everything could help: a smaller batch or picture, or plans and weights that are forgotten.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Error::Memory { .. })
    }
    /// Adds advice to [`Error::Bad`], [`Error::Call`], [`Error::Missing`], [`Error::NotFinite`] and [`Error::Memory`]; other kinds are returned unchanged.
    pub fn with_hint(mut self, advice: &str) -> Self {
        if let Error::Bad { hint, .. }
        | Error::Call { hint, .. }
        | Error::Missing { hint, .. }
        | Error::NotFinite { hint, .. }
        | Error::Memory { hint, .. } = &mut self
        {
            *hint = alloc::format!(" {advice}");
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn messages_are_short_lines() {
        let hostile = "\u{1b}[2J".to_string() + &"x".repeat(1 << 20) + "\n";
        let all = [
            Error::bad(&hostile, &hostile, &hostile).with_hint(&hostile),
            Error::missing(&hostile, &hostile).with_hint(&hostile),
            Error::io(&hostile, &hostile, &hostile),
            Error::Graph(hostile.clone()),
            Error::Device { device: hostile.clone(), reason: hostile.clone() },
            Error::Memory { device: hostile.clone(), reason: hostile.clone(), hint: String::new() },
        ];
        for error in all {
            let text = error.to_string();
            assert!(text.len() < 4 * (MOST + 60) && !text.contains(char::is_control), "{text}");
            assert!(text.contains("\\u{1b}[2Jxx") && text.contains("left out"), "{text}");
        }
    }
}
