//! What a run left in its folder. Any file may be missing, damaged or somebody else's: what cannot be read is said and left out.
use super::album::within;
use crate::course::Course;
use crate::out::{
    AFTER, BEFORE, LOOKS, METRICS, PREVIEW, REFERENCE_PICTURES, RUN, SETTINGS, SHOWN_REFERENCES, THUMB,
    numbered_pictures,
};
use crate::settings::toml;
use pentimento_runtime::file;
use pentimento_runtime::shown::Shown;
use pentimento_trainer::Result;
use pentimento_trainer::images::{GAP, Picture, cells};
use pentimento_trainer::settings::{Settings, list};
use serde_json::Value;
use std::path::Path;

/// Largest files that are read, and longest lines, bytes.
const MOST_METRICS: u64 = 256 << 20;
const MOST_LINE: usize = 64 << 10;
const MOST_RUN: u64 = 16 << 20;
/// Characters of a text that are shown.
const MOST_TEXT: usize = 400;
/// Strips of pictures over iterations that are shown, evenly.
const STRIPS: usize = 20;
/// Pictures of a sheet that are shown.
const PICTURES: usize = 16;

/// A setting of the run.
pub struct Set {
    pub name: &'static str,
    pub value: String,
    /// What its recipe has.
    pub usual: String,
    pub about: &'static str,
}

/// Pictures at a moment of the training.
pub struct Strip {
    pub label: String,
    /// What the look measured.
    pub note: String,
    pub pictures: Vec<Picture>,
}

/// A run.
#[derive(Default)]
pub struct Record {
    /// The folder's name.
    pub name: String,
    pub course: Course,
    pub settings: Vec<Set>,
    /// What `run.json` holds.
    run: Value,
    pub before: Vec<Picture>,
    pub after: Vec<Picture>,
    /// Pictures of references, as far as there are any, with names and captions.
    pub references: Vec<(Option<Picture>, String, String)>,
    /// Pictures of the sheet's prompts, and those that the training looked at.
    pub previews: Vec<Strip>,
    pub looks: Vec<Strip>,
    /// What is missing or damaged, sentences.
    pub notes: Vec<String>,
}

impl Record {
    /// Reads a folder.
    pub fn read(folder: &Path) -> Self {
        let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
        let name = real.file_name().map_or("run".into(), |name| name.to_string_lossy().into_owned());
        let mut record = Record { name: Shown { text: &name, most: 80 }.to_string(), ..Record::default() };
        record.read_metrics(folder);
        record.run = record.noted(read_run(folder), RUN).unwrap_or_default();
        record.settings =
            record.noted(read_settings(&folder.join(SETTINGS), record.slow()), SETTINGS).unwrap_or_default();
        let size = record.size();
        let shown = record.prompts().len();
        (record.before, record.after) =
            (record.sheet(folder, BEFORE, size, shown), record.sheet(folder, AFTER, size, shown));
        record.read_references(folder, size);
        record.read_strips(folder, size);
        record
    }
    /// Whether there is anything of a run.
    pub fn is_empty(&self) -> bool {
        let no_pictures = self.before.is_empty() && self.after.is_empty();
        no_pictures && self.run.is_null() && self.settings.is_empty() && self.course.last() == 0
    }

    /// What was read; a sentence among the notes where nothing was.
    fn noted<T>(&mut self, read: Result<Option<T>>, name: &str) -> Option<T> {
        match read {
            Ok(Some(value)) => return Some(value),
            Ok(None) => self.notes.push(format!("There is no {name}: what it holds is left out.")),
            Err(e) => self.notes.push(format!("{name} is left out: {e}.")),
        }
        None
    }

    fn read_metrics(&mut self, folder: &Path) {
        let Some(bytes) = self.noted(file::read_if_there(&folder.join(METRICS), MOST_METRICS), METRICS)
        else {
            return;
        };
        let mut unread = 0;
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let parsed =
                if line.len() > MOST_LINE { None } else { serde_json::from_slice::<Value>(line).ok() };
            match parsed.filter(Course::knows) {
                Some(line) => drop(self.course.take(&line)),
                None => unread += 1,
            }
        }
        if unread > 0 {
            self.notes.push(format!("{unread} lines of {METRICS} are no metrics and are left out."));
        }
    }

    /// A text of `run.json` as it may be shown; empty where there is none.
    pub fn text(&self, key: &str) -> String {
        self.run.get(key).and_then(Value::as_str).map(shown).unwrap_or_default()
    }
    /// Names and hashes of what the run was made from.
    pub fn hashes(&self) -> Vec<(String, String)> {
        let made = self.run.get("made_from").and_then(Value::as_object);
        let of = |(key, value): (&String, &Value)| {
            let hash = key.starts_with("the ").then(|| value.as_str())??;
            Some((shown(key), shown(hash)))
        };
        made.into_iter().flatten().filter_map(of).take(20).collect()
    }
    /// Prompts of the contact sheets.
    pub fn prompts(&self) -> Vec<String> {
        let prompts = self.run.pointer("/sheet/prompts").and_then(Value::as_array);
        prompts
            .into_iter()
            .flatten()
            .take(PICTURES)
            .map(|p| p.as_str().map(shown).unwrap_or_default())
            .collect()
    }
    /// A number of how the contact sheets were drawn.
    pub fn drawn(&self, key: &str) -> Option<f64> {
        self.run.get("sheet")?.get(key)?.as_f64()
    }
    /// Whether the model has the third text encoder; `None` where that is unknown.
    pub fn has_t5(&self) -> Option<bool> {
        self.run.get("t5")?.as_bool()
    }
    fn slow(&self) -> bool {
        self.run.get("slow").and_then(Value::as_bool).unwrap_or(true)
    }
    /// Width and height of a picture, from `run.json`, also of versions that wrote it among the settings only.
    pub fn size(&self) -> Option<[u32; 2]> {
        let side = |key: &str| {
            let of = self.run.get("sheet").and_then(|s| s.get(key)).and_then(Value::as_u64);
            let set = || self.run.get("made_from")?.get(key)?.as_str()?.parse().ok();
            u32::try_from(of.or_else(set)?).ok().filter(|n| *n > 0)
        };
        Some([side("width")?, side("height")?])
    }

    /// The pictures of a contact sheet, at most `most` where that is known; none, and a note, where there is none.
    fn sheet(&mut self, folder: &Path, name: &str, size: Option<[u32; 2]>, most: usize) -> Vec<Picture> {
        let path = folder.join(name);
        if !path.exists() {
            self.notes.push(format!("There is no {name}."));
            return Vec::new();
        }
        let Some(size) = size else {
            self.notes.push(format!("{name} is left out: {RUN} does not say how large its pictures are."));
            return Vec::new();
        };
        let most = if most == 0 { PICTURES } else { most };
        let read = Picture::open(&path).and_then(|sheet| cells(&sheet, size, GAP, most)).map(Some);
        self.noted(read, name).unwrap_or_default()
    }

    fn read_references(&mut self, folder: &Path, size: Option<[u32; 2]>) {
        let known = self.run.get("references").and_then(Value::as_array).cloned().unwrap_or_default();
        if known.is_empty() {
            return;
        }
        let size = size.map(|size| within(size, THUMB));
        let mut pictures = self.sheet(folder, REFERENCE_PICTURES, size, SHOWN_REFERENCES).into_iter();
        for one in known.iter().take(SHOWN_REFERENCES) {
            let text = |key: &str| one.get(key).and_then(Value::as_str).map(shown).unwrap_or_default();
            self.references.push((pictures.next(), text("name"), text("caption")));
        }
    }
    /// How many references there were.
    pub fn all_references(&self) -> usize {
        let made = self.run.get("made_from").and_then(|m| m.get("references")).and_then(Value::as_u64);
        made.and_then(|n| usize::try_from(n).ok()).unwrap_or(0).max(self.references.len())
    }

    fn read_strips(&mut self, folder: &Path, size: Option<[u32; 2]>) {
        let Some(size) = size else { return };
        for (kind, looks) in [(&PREVIEW, false), (&LOOKS, true)] {
            let names = thinned(numbered_pictures(folder, kind));
            let mut strips = Vec::new();
            for (at, name) in names {
                let pictures = self.sheet(folder, &name, Some(within(size, kind.side)), PICTURES);
                let label = match at {
                    None => "base model".to_string(),
                    Some(0) => "warm start".to_string(),
                    Some(n) => format!("iteration {n}"),
                };
                let note = at.filter(|_| looks).map_or(String::new(), |at| self.measured(at));
                strips.push(Strip { label, note, pictures });
            }
            *(if looks { &mut self.looks } else { &mut self.previews }) = strips;
        }
    }
    /// What the look after an iteration measured.
    fn measured(&self, at: usize) -> String {
        let of = |key: &str| {
            self.course.points(key).iter().rfind(|p| p.0 == at as f64).map(|p| (key.to_string(), p.1))
        };
        let all = ["distance", "diversity", "silhouettes"].into_iter().filter_map(of);
        all.map(|(key, v)| format!("{key} {}", super::curves::tidy(v))).collect::<Vec<_>>().join(", ")
    }
}

fn shown(text: impl AsRef<str>) -> String {
    Shown { text: text.as_ref(), most: MOST_TEXT }.to_string()
}

/// Some of many, evenly, the first and the last among them.
fn thinned<T>(all: Vec<T>) -> Vec<T> {
    let last = all.len().saturating_sub(1);
    if last < STRIPS {
        return all;
    }
    let wanted: Vec<usize> = (0..STRIPS).map(|i| i * last / (STRIPS - 1)).collect();
    all.into_iter().enumerate().filter(|(i, _)| wanted.binary_search(i).is_ok()).map(|(_, one)| one).collect()
}

fn read_run(folder: &Path) -> Result<Option<Value>> {
    let path = folder.join(RUN);
    let Some(text) = file::text_if_there(&path, MOST_RUN)? else { return Ok(None) };
    let bad = |e: serde_json::Error| {
        pentimento_runtime::Error::bad(path.display().to_string(), "JSON", e.to_string())
    };
    serde_json::from_str(&text).map(Some).map_err(bad)
}

/// All settings, those that differ from their recipe's first.
fn read_settings(path: &Path, slow: bool) -> Result<Option<Vec<Set>>> {
    if !path.exists() {
        return Ok(None);
    }
    let entries = toml::read(path)?;
    let recipe = entries.iter().find(|e| e.name == "recipe").map_or("default", |e| e.text.as_str());
    let usual = Settings::recipe(recipe, slow)?;
    let mut own = usual.clone();
    entries.iter().try_for_each(|e| own.set(&e.name, &e.text).map_err(|error| error.at(&e.place)))?;
    let of = |settings: &Settings, name: &str| settings.get(name).unwrap_or_default();
    let mut all: Vec<Set> = list()
        .iter()
        .map(|s| Set { name: s.name, value: of(&own, s.name), usual: of(&usual, s.name), about: s.about })
        .collect();
    all.sort_by_key(|set| set.value == set.usual);
    Ok(Some(all))
}
