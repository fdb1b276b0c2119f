//! Settings as a TOML file, with what is known of each as comments.
use crate::settings::Entry;
use pentimento_runtime::file;
use pentimento_trainer::settings::{Settings, list};
use pentimento_trainer::{Error, Result};
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Largest file that is read, bytes.
const MOST: u64 = 1 << 20;
/// Characters of a line of comments, about.
const WIDE: usize = 110;

/// A file's entries, in its order.
///
/// # Errors
/// It cannot be read, or is no TOML of numbers, texts, `true` and `false`.
pub fn read(path: &Path) -> Result<Vec<Entry>> {
    let label = path.display().to_string();
    let text = file::text(path, MOST)?;
    let line = |span: Range<usize>| {
        let before = text.as_bytes().iter().take(span.start);
        format!("{label}, line {}", 1 + before.filter(|b| **b == b'\n').count())
    };
    let table = DeTable::parse(&text).map_err(|e| {
        let place = e.span().map_or_else(|| label.clone(), line);
        Error::bad(place, "settings in TOML, as in optim.rate = 3e-4", e.message())
    })?;
    let mut all = Vec::new();
    flatten("", table.get_ref(), &mut all);
    all.sort_by_key(|(_, span, _)| span.start);
    let entry = |(name, span, value): (String, Range<usize>, &DeValue<'_>)| {
        let place = format!("{}: {name}", line(span));
        let expected = "a number, true, false or a text in quotes";
        let text = text_of(value).ok_or_else(|| Error::bad(&place, expected, value.type_str()))?;
        Ok(Entry { place, name, text })
    };
    all.into_iter().map(entry).collect()
}

/// `a.b` for what is nested.
fn flatten<'a>(at: &str, table: &'a DeTable<'a>, into: &mut Vec<(String, Range<usize>, &'a DeValue<'a>)>) {
    for (name, value) in table {
        let path = format!("{at}{}", name.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&format!("{path}."), inner, into),
            other => into.push((path, name.span(), other)),
        }
    }
}

/// As a setting takes it.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(n) if n.radix() == 10 => Some(n.as_str().into()),
        DeValue::Integer(n) => Some(n.to_string()),
        DeValue::Float(n) => Some(n.as_str().into()),
        DeValue::Boolean(is) => Some(is.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// All settings, each behind its description, what it may be, its recipe's default and its source.
///
/// # Errors
/// None, for a recipe of the library's.
pub fn write(settings: &Settings, slow: bool, head: &str) -> Result<String> {
    let usual = Settings::recipe(settings.config.recipe.name(), slow)?;
    let mut out = String::new();
    comment(&mut out, head);
    for setting in list() {
        let of = |settings: &Settings| settings.get(setting.name).unwrap_or_default();
        out.push('\n');
        comment(&mut out, setting.about);
        let unit = if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) };
        let source = setting.source;
        comment(&mut out, &format!("{}{unit}; default {}; source: {source}", setting.expected(), of(&usual)));
        let _ = writeln!(out, "{} = {}", setting.name, value(&of(settings))); // a String takes all
    }
    Ok(out)
}

/// A text as a value of TOML, whose numbers are integers of 64 bits with a sign, or have a point or an exponent.
fn value(text: &str) -> String {
    let float = text.contains(['.', 'e'])
        && text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let bare =
        text.parse::<i64>().is_ok() || float && text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok();
    if bare { text.into() } else { format!("{text:?}") }
}

/// Lines of a comment.
fn comment(out: &mut String, text: &str) {
    let mut room = 0;
    for word in text.split_whitespace() {
        if word.len() >= room {
            out.push_str(if out.is_empty() || out.ends_with('\n') { "#" } else { "\n#" });
            room = WIDE;
        }
        out.push(' ');
        out.push_str(word);
        room = room.saturating_sub(word.len() + 1);
    }
    out.push('\n');
}
