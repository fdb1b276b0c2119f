//! What values settings have, and how they are written: every text that [`Field::text`] makes is read back to the same value.
use crate::advantage::Spread;
use crate::objective::grpo::Credit;
use crate::objective::pathwise::From;
use crate::recipe::Recipe;
use crate::references::{Colour, Fit};
use crate::{Error, Result};
use core::fmt;
use core::str::FromStr;
use pentimento_runtime::grad::Recompute;
use pentimento_runtime::weights::Base;

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// A whole number.
    Whole,
    /// `true` or `false`.
    Switch,
    /// One of these names.
    Name(&'static [&'static str]),
    /// A text of a form that this describes.
    Text(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Number => f.write_str("a number"),
            Kind::Whole => f.write_str("a whole number"),
            Kind::Switch => f.write_str("true or false"),
            Kind::Text(form) => f.write_str(form),
            Kind::Name(names) => match names {
                [first @ .., last] if !first.is_empty() => write!(f, "{} or {last}", first.join(", ")),
                _ => f.write_str(&names.concat()),
            },
        }
    }
}

/// Numbers that a setting accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
    /// Whether the least itself is left out.
    pub above: bool,
}

impl Range {
    /// Whether a number is in it; NaN is not.
    pub fn contains(&self, number: f64) -> bool {
        number <= self.high && if self.above { number > self.low } else { number >= self.low }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { low, high, above } = self;
        if *above { write!(f, "above {low}, at most {high}") } else { write!(f, "{low} to {high}") }
    }
}

/// Values that have no order, or all of a type.
pub(crate) const ANY: Option<Range> = None;
/// 1 to 4096.
pub(crate) const COUNT: Option<Range> = between(1.0, 4096.0);

/// From the one to the other.
pub(crate) const fn between(low: f64, high: f64) -> Option<Range> {
    Some(Range { low, high, above: false })
}
/// 0 to a limit.
pub(crate) const fn most(limit: usize) -> Option<Range> {
    between(0.0, limit as f64)
}
/// Above 0, up to a limit.
pub(crate) const fn positive(limit: f64) -> Option<Range> {
    Some(Range { low: 0.0, high: limit, above: true })
}

/// A value with a text.
pub(crate) trait Field {
    /// What it may be.
    fn kind() -> Kind
    where
        Self: Sized;
    /// As [`Field::read`] takes it.
    fn text(&self) -> String;
    /// Takes a text's value; false, and nothing else, where it has none of this kind.
    fn read(&mut self, text: &str) -> bool;
    /// Numbers that are to be in the setting's range.
    fn numbers(&self) -> Vec<f64> {
        Vec::new()
    }
}

fn read<T: FromStr>(into: &mut T, text: &str) -> bool {
    text.parse().map(|value| *into = value).is_ok()
}

macro_rules! numbers {
    ($($type:ty: $kind:ident),*) => { $(impl Field for $type {
        fn kind() -> Kind {
            Kind::$kind
        }
        fn text(&self) -> String {
            format!("{self:?}") // as few digits as tell it from all others
        }
        fn read(&mut self, text: &str) -> bool {
            read(self, text)
        }
        fn numbers(&self) -> Vec<f64> {
            vec![*self as f64]
        }
    })* };
}
numbers!(u64: Whole, usize: Whole, i64: Whole, f32: Number);

/// A number or `none`.
macro_rules! perhaps {
    ($($type:ty: $form:literal),*) => { $(impl Field for Option<$type> {
        fn kind() -> Kind {
            Kind::Text($form)
        }
        fn text(&self) -> String {
            self.map_or("none".into(), |value| format!("{value:?}"))
        }
        fn read(&mut self, text: &str) -> bool {
            match text {
                "none" => *self = None,
                _ => match text.parse() {
                    Ok(value) => *self = Some(value),
                    Err(_) => return false,
                },
            }
            true
        }
        fn numbers(&self) -> Vec<f64> {
            self.iter().map(|value| *value as f64).collect()
        }
    })* };
}
perhaps!(usize: "a whole number or none", f64: "a number or none");

impl Field for bool {
    fn kind() -> Kind {
        Kind::Switch
    }
    fn text(&self) -> String {
        self.to_string()
    }
    fn read(&mut self, text: &str) -> bool {
        read(self, text)
    }
}

/// Values with names, all of them.
macro_rules! names {
    ($($type:ty { $($name:literal ($($value:tt)*)),* })*) => { $(impl Field for $type {
        fn kind() -> Kind {
            Kind::Name(&[$($name),*])
        }
        fn text(&self) -> String {
            match self {
                $($($value)* => $name.into(),)*
            }
        }
        fn read(&mut self, text: &str) -> bool {
            match text {
                $($name => *self = $($value)*,)*
                _ => return false,
            }
            true
        }
    })* };
}
names! {
    Option<Base> { "none" (None), "q8" (Some(Base::Q8)), "q4" (Some(Base::Q4)) }
    Option<Recompute> {
        "auto" (None),
        "none" (Some(Recompute::Nothing)),
        "most" (Some(Recompute::Most)),
        "all" (Some(Recompute::All))
    }
    Spread { "global" (Spread::Global), "within" (Spread::Within), "group" (Spread::Group) }
    Fit { "cover" (Fit::Cover), "pad" (Fit::Pad), "squash" (Fit::Squash) }
}

impl Field for Recipe {
    fn kind() -> Kind {
        Kind::Name(&Recipe::NAMES)
    }
    fn text(&self) -> String {
        self.name().into()
    }
    fn read(&mut self, text: &str) -> bool {
        Recipe::named(text).map(|recipe| *self = recipe).is_some()
    }
}

impl Field for Credit {
    fn kind() -> Kind {
        Kind::Text("image, or patch: and the patches' part, as in patch:0.7")
    }
    fn text(&self) -> String {
        match self {
            Credit::Image => "image".into(),
            Credit::Patch(part) => format!("patch:{part:?}"),
        }
    }
    fn read(&mut self, text: &str) -> bool {
        let patch = || text.strip_prefix("patch:")?.parse().ok().map(Credit::Patch);
        let value = if text == "image" { Some(Credit::Image) } else { patch() };
        value.map(|value| *self = value).is_some()
    }
    fn numbers(&self) -> Vec<f64> {
        match self {
            Credit::Image => Vec::new(),
            Credit::Patch(part) => vec![(*part).into()],
        }
    }
}

impl Field for From {
    fn kind() -> Kind {
        Kind::Text("last-step, or noised: and two rising noise levels, as in noised:0.1..0.8")
    }
    fn text(&self) -> String {
        match self {
            From::LastStep => "last-step".into(),
            From::Noised(low, high) => format!("noised:{low:?}..{high:?}"),
        }
    }
    fn read(&mut self, text: &str) -> bool {
        let noised = || {
            let (low, high) = text.strip_prefix("noised:")?.split_once("..")?;
            Some(From::Noised(low.parse().ok()?, high.parse().ok()?))
        };
        let value = if text == "last-step" { Some(From::LastStep) } else { noised() };
        value.map(|value| *self = value).is_some()
    }
    fn numbers(&self) -> Vec<f64> {
        match self {
            From::LastStep => Vec::new(),
            From::Noised(low, high) => vec![(*low).into(), (*high).into()],
        }
    }
}

impl Field for Colour {
    fn kind() -> Kind {
        Kind::Text("a colour in six hexadecimal digits, as in #ffffff")
    }
    fn text(&self) -> String {
        let [r, g, b] = self.0;
        format!("#{r:02x}{g:02x}{b:02x}")
    }
    fn read(&mut self, text: &str) -> bool {
        read(self, text)
    }
}

/// Bytes, as people write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Larger ones first: what is a whole number of one is written in it.
const UNITS: [(&str, u64); 5] =
    [("GB", 1_000_000_000), ("GiB", 1 << 30), ("MB", 1_000_000), ("MiB", 1 << 20), ("B", 1)];
const SIZE: &str = "a number with MB, GB, MiB or GiB, as in 6GB";

impl FromStr for Bytes {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::call("memory", SIZE, text);
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "m" => "mb".into(),
            "g" => "gb".into(),
            unit => unit.to_owned(),
        };
        let (_, unit) =
            UNITS.into_iter().find(|(name, _)| unit == name.to_ascii_lowercase()).ok_or_else(bad)?;
        // Whole numbers stay exact.
        let whole = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        let parts = || number.parse::<f64>().ok().map(|n| n * unit as f64);
        let bytes = whole.or_else(|| parts().filter(|n| *n < MOST_BYTES as f64).map(|n| n as u64));
        bytes.filter(|n| (1..MOST_BYTES).contains(n)).map(Bytes).ok_or_else(bad)
    }
}
const MOST_BYTES: u64 = 1_000_000_000_000_000_000;

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) =
            UNITS.into_iter().find(|(_, unit)| self.0.is_multiple_of(*unit)).unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl Field for Option<Bytes> {
    fn kind() -> Kind {
        Kind::Text("a number with MB, GB, MiB or GiB, as in 6GB, or none")
    }
    fn text(&self) -> String {
        self.map_or("none".into(), |bytes| bytes.to_string())
    }
    fn read(&mut self, text: &str) -> bool {
        let value = if text == "none" { Some(None) } else { text.parse().ok().map(Some) };
        value.map(|value| *self = value).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_people_do() {
        let of = |text: &str| text.parse::<Bytes>().map(|b| b.0).ok();
        assert_eq!(
            [of("6GB"), of("1.5 gb"), of("512MiB"), of("2g"), of("7b")].map(Option::unwrap),
            [6_000_000_000, 1_500_000_000, 536_870_912, 2_000_000_000, 7]
        );
        for bad in ["", "6", "GB", "-1GB", "6TB", "1e9GB", "0GB", "..GB", "99999999999GB"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        for bytes in [1, 999, 1 << 20, 1_500_000_000, MOST_BYTES - 1, 3 << 30] {
            assert_eq!(of(&Bytes(bytes).to_string()), Some(bytes));
        }
    }
}
