//! Captions of a whole folder in one file: `metadata.jsonl` or `metadata.csv`, as Hugging Face's image folders have them.
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use pentimento_runtime::folder::is_plain_name;
use pentimento_runtime::{Error, Result, file, shown};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::survey::folded;

/// Largest file, in bytes.
const MAX_METADATA: u64 = 16 << 20;
/// Names of the field with the caption, best first.
const TEXTS: [&str; 3] = ["text", "caption", "prompt"];

/// Captions by image, of the sorted `images`. An image without a caption is left out or has an empty one.
pub(super) fn read(path: &Path, images: &[String]) -> Result<BTreeMap<String, String>> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let rows = match ending.as_deref() {
        Some("jsonl") => json_lines(path)?,
        Some("csv") => table(path)?,
        _ => {
            let found = "metadata in another form";
            return Err(Error::bad(
                path.display().to_string(),
                "captions in metadata.jsonl or metadata.csv",
                found,
            )
            .with_hint("Rename, convert or remove the file."));
        }
    };
    let alike: BTreeMap<String, &String> = images.iter().rev().map(|name| (folded(name), name)).collect();
    let mut captions = BTreeMap::new();
    for (line, name, caption) in rows {
        let place = format!("{}, line {line}", path.display());
        let Some(plain) = Some(name.strip_prefix("./").unwrap_or(&name)).filter(|name| is_plain_name(name))
        else {
            let found = format!("`{}`", shown(&name));
            return Err(Error::bad(place, "`file_name`, the plain name of a file in this folder", found));
        };
        let exact = images.binary_search_by(|known| known.as_str().cmp(plain)).ok().map(|i| &images[i]);
        let Some(image) = exact.or_else(|| alike.get(&folded(plain)).copied()) else {
            let folder = path.parent().unwrap_or(Path::new("")).display();
            let what = format!("the image `{}` in {folder}", shown(plain));
            return Err(Error::missing(place, what).with_hint("Add the file or remove the line."));
        };
        if captions.insert(image.clone(), caption).is_some() {
            return Err(Error::bad(place, "every image once", format!("`{}` again", shown(image))));
        }
    }
    Ok(captions)
}

/// Line, file name and caption of every row.
type Rows = Vec<(usize, String, String)>;

fn json_lines(path: &Path) -> Result<Rows> {
    let text = file::text(path, MAX_METADATA)?;
    let mut rows = Rows::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}, line {}", path.display(), i + 1);
        let parsed: serde_json::Result<Row> = serde_json::from_str(line);
        let row = parsed.map_err(|e| {
            Error::bad(place.as_str(), "a JSON object", format!("text that does not parse: {e}"))
        })?;
        let name = match row.name {
            Some(Field::Text(name)) => name,
            other => {
                let found = other.map_or("none".to_string(), |o| o.to_string());
                return Err(Error::bad(place, "`file_name`, the plain name of a file in this folder", found));
            }
        };
        let mut caption = String::new();
        for (key, field) in TEXTS.iter().zip(row.texts) {
            match field {
                None | Some(Field::Null) => {}
                Some(Field::Text(text)) if caption.is_empty() => caption = text,
                Some(Field::Text(_)) => {}
                Some(other) => {
                    return Err(Error::bad(place, format!("`{key}`, a string"), other.to_string()));
                }
            }
        }
        rows.push((i + 1, name, caption));
    }
    Ok(rows)
}

fn table(path: &Path) -> Result<Rows> {
    let text = file::text(path, MAX_METADATA)?;
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let bad = |e: csv::Error| {
        Error::bad(path.display().to_string(), "a table of comma-separated values", e.to_string())
    };
    let header = reader.headers().map_err(bad)?.clone();
    let column = |name: &str| header.iter().position(|h| h.trim().eq_ignore_ascii_case(name));
    let Some(name) = column("file_name") else {
        return Err(Error::missing(format!("{}, line 1", path.display()), "a column `file_name`"));
    };
    let Some(caption) = TEXTS.iter().find_map(|text| column(text)) else {
        let what = format!("a column with captions, one of {TEXTS:?}");
        return Err(Error::missing(format!("{}, line 1", path.display()), what));
    };
    let mut rows = Rows::new();
    for record in reader.into_records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, |p| p.line() as usize);
        let field = |i: usize| record.get(i).unwrap_or_default().trim().to_string();
        rows.push((line, field(name), field(caption)));
    }
    Ok(rows)
}

/// A line's fields, as far as they are read; whatever else there is takes no memory.
struct Row {
    name: Option<Field>,
    texts: [Option<Field>; 3],
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `file_name`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Row, A::Error> {
                let mut row = Row { name: None, texts: [None, None, None] };
                while let Some(key) = map.next_key::<String>()? {
                    match TEXTS.iter().position(|text| *text == key) {
                        Some(i) => row.texts[i] = Some(map.next_value()?),
                        None if key == "file_name" => row.name = Some(map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(row)
            }
        }
        d.deserialize_map(Fields)
    }
}

enum Field {
    Text(String),
    Null,
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Text(text) | Field::Other(text) => f.write_str(text),
            Field::Null => f.write_str("null"),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> std::result::Result<Field, E> {
                Ok(Field::Text(text.to_string()))
            }
            fn visit_string<E>(self, text: String) -> std::result::Result<Field, E> {
                Ok(Field::Text(text))
            }
            fn visit_unit<E>(self) -> std::result::Result<Field, E> {
                Ok(Field::Null)
            }
            fn visit_bool<E>(self, v: bool) -> std::result::Result<Field, E> {
                Ok(Field::Other(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> std::result::Result<Field, E> {
                Ok(Field::Other(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> std::result::Result<Field, E> {
                Ok(Field::Other(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> std::result::Result<Field, E> {
                Ok(Field::Other(v.to_string()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Field, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field::Other("a list".to_string()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Field, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field::Other("an object".to_string()))
            }
        }
        d.deserialize_any(Any)
    }
}
