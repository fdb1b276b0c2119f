//! How a struct of settings says what it has: its definition is the only list.
use super::Setting;
use super::field::Field;
use crate::{Error, Result};

/// A struct of settings. All three lists have one order.
pub(crate) trait Part {
    /// Adds what is known of each.
    fn list(into: &mut Vec<Setting>);
    /// Adds their values.
    fn fields<'a>(&'a self, into: &mut Vec<&'a dyn Field>);
    /// Adds their values, to be changed.
    fn fields_mut<'a>(&'a mut self, into: &mut Vec<&'a mut dyn Field>);
}

/// All settings of a part with their values.
pub(crate) fn rows<P: Part>(part: &P) -> impl Iterator<Item = (Setting, &dyn Field)> {
    let (mut settings, mut fields) = (Vec::new(), Vec::new());
    P::list(&mut settings);
    part.fields(&mut fields);
    settings.into_iter().zip(fields)
}

/// Refuses numbers beyond their ranges.
///
/// # Errors
/// A sentence with the first one's name.
pub(crate) fn check<P: Part>(part: &P) -> Result<()> {
    rows(part).try_for_each(|(setting, field)| accept(&setting, field))
}

/// Refuses a number beyond its range.
pub(crate) fn accept(setting: &Setting, field: &dyn Field) -> Result<()> {
    match setting.range {
        Some(range) if !field.numbers().iter().all(|number| range.contains(*number)) => {
            Err(Error::call(setting.name, setting.expected(), field.text()))
        }
        _ => Ok(()),
    }
}

/// Defines a struct of settings: its fields with documentation, type, default, range and, where there is one, unit and source;
/// then the parts that it is composed of. `in "optim."` begins the names.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $type:ident in $prefix:literal {
            $( $(#[doc = $doc:literal])+
               $field:ident: $kind:ty = $default:expr, $range:expr
               $(, unit $unit:literal)? $(, from $source:expr)?; )*
            $(parts { $( $(#[doc = $about:literal])+ $part:ident: $of:ty; )+ })?
        }
    ) => {
        $(#[$attribute])*
        pub struct $type {
            $( $(#[doc = $doc])+ pub $field: $kind, )*
            $($( $(#[doc = $about])+ pub $part: $of, )+)?
        }
        impl Default for $type {
            fn default() -> Self {
                $type { $($field: $default,)* $($($part: Default::default(),)+)? }
            }
        }
        impl $crate::settings::part::Part for $type {
            fn list(into: &mut Vec<$crate::settings::Setting>) {
                $(into.push($crate::settings::Setting {
                    name: concat!($prefix, stringify!($field)),
                    kind: <$kind as $crate::settings::field::Field>::kind(),
                    range: $range,
                    unit: concat!($($unit)?),
                    about: concat!($($doc),+).trim_ascii_start(),
                    source: [$($source,)? $crate::settings::Source::Ours][0],
                });)*
                $($(<$of as $crate::settings::part::Part>::list(into);)+)?
            }
            fn fields<'a>(&'a self, into: &mut Vec<&'a dyn $crate::settings::field::Field>) {
                $(into.push(&self.$field);)*
                $($($crate::settings::part::Part::fields(&self.$part, into);)+)?
            }
            fn fields_mut<'a>(&'a mut self, into: &mut Vec<&'a mut dyn $crate::settings::field::Field>) {
                $(into.push(&mut self.$field);)*
                $($($crate::settings::part::Part::fields_mut(&mut self.$part, into);)+)?
            }
        }
    };
}
pub(crate) use settings;
