//! What lies in a folder of reference images: pictures, their captions, and what is passed over.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use pentimento_runtime::{Error, Result, file, shown};
use unicode_normalization::UnicodeNormalization;

use super::metadata;

/// Endings of image files, in lower case.
const IMAGES: [&str; 6] = ["png", "jpg", "jpeg", "jfif", "jpe", "webp"];
/// Endings of caption files, in lower case, best first.
const CAPTIONS: [&str; 2] = ["txt", "caption"];
/// Largest caption file, in bytes.
const MAX_CAPTION: u64 = 64 << 10;
/// Most images in one folder, and most files of it that are looked at.
const MAX_IMAGES: usize = 100_000;
const MAX_FILES: usize = 1_000_000;
/// Names that a sentence gives.
const NAMED: usize = 3;

/// What a folder of reference images holds.
///
/// A caption stands beside `NAME.png` in `NAME.txt`, `NAME.png.txt`, `NAME.caption` or `NAME.png.caption`, or in
/// `metadata.jsonl` or `metadata.csv`; the first of these that is there counts. Names are compared without regard to case
/// where none is the same to the letter. Hidden files are not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Names of the image files, sorted.
    pub images: Vec<String>,
    /// Captions by image; empty ones are left out.
    pub captions: BTreeMap<String, String>,
    /// How many files were passed over, by their ending in lower case.
    pub passed_over: BTreeMap<String, usize>,
    /// Caption files of no image.
    pub stray: Vec<String>,
    /// Folders inside, which are not looked into.
    pub folders: usize,
}

impl Survey {
    /// Looks through `folder`.
    ///
    /// # Errors
    /// A folder that is missing or holds no image; a caption file that is not UTF-8 or too large; metadata of another form,
    /// with a line that does not parse, repeats a name, or names a file that is not an image of this folder.
    pub fn of(folder: &Path) -> Result<Self> {
        let mut survey = Survey::default();
        let mut texts = Texts::default();
        let mut metadata = Vec::new();
        for name in names(folder, &mut survey.folders)? {
            let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, ""));
            let lower = ending.to_lowercase();
            if stem.eq_ignore_ascii_case("metadata") {
                metadata.push(name);
            } else if IMAGES.contains(&lower.as_str()) {
                survey.images.push(name);
            } else if let Some(rank) = CAPTIONS.iter().position(|c| *c == lower) {
                texts.add(stem.to_string(), rank, name);
            } else {
                *survey.passed_over.entry(lower).or_default() += 1;
            }
        }
        if survey.images.len() > MAX_IMAGES {
            let place = folder.display().to_string();
            return Err(Error::bad(place, format!("at most {MAX_IMAGES} images"), "more"));
        }
        if survey.images.is_empty() {
            return Err(survey.no_images(folder));
        }
        survey.images.sort_unstable();
        for file in metadata {
            for (name, caption) in metadata::read(&folder.join(file), &survey.images)? {
                survey.captions.entry(name).or_insert(caption);
            }
        }
        for image in &survey.images {
            let Some(name) = texts.of(image) else { continue };
            let text = file::text(&folder.join(&name), MAX_CAPTION)?;
            survey.captions.insert(image.clone(), text);
        }
        survey.captions.retain(|_, caption| {
            *caption = caption.trim().to_string();
            !caption.is_empty()
        });
        survey.stray = texts.unused();
        Ok(survey)
    }

    /// Images without a caption.
    pub fn uncaptioned(&self) -> impl Iterator<Item = &str> + Clone {
        self.images.iter().map(String::as_str).filter(|name| !self.captions.contains_key(*name))
    }

    fn no_images(&self, folder: &Path) -> Error {
        let found = match self.others() {
            others if others.is_empty() => String::new(),
            others => format!(" Found there: {}.", others.join(", ")),
        };
        let what = "reference images (.png, .jpg, .jpeg, .jfif or .webp)";
        Error::missing(folder.display().to_string(), what)
            .with_hint(&format!("Put at least one into this folder; four to twenty work well.{found}"))
    }

    /// What is neither an image nor a caption of one.
    fn others(&self) -> Vec<String> {
        let kind = |(ending, n): (&String, &usize)| match ending.as_str() {
            "" => format!("{n} without an ending"),
            ending => format!("{n} .{}", shown(ending)),
        };
        let mut others: Vec<String> = self.passed_over.iter().map(kind).collect();
        if !self.stray.is_empty() {
            others.push(format!("captions of no image ({})", some(self.stray.iter().map(String::as_str))));
        }
        match self.folders {
            0 => {}
            1 => others.push("1 folder".to_string()),
            n => others.push(format!("{n} folders")),
        }
        others
    }
}

impl fmt::Display for Survey {
    /// Captions found and missing, and what is passed over: one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, found) = (self.images.len(), self.captions.len());
        match found {
            0 => write!(f, "captions: none")?,
            n if n == all => write!(f, "captions: all")?,
            n => write!(f, "captions: {n} of {all}, none for {}", some(self.uncaptioned()))?,
        }
        let others = self.others();
        if others.is_empty() { Ok(()) } else { write!(f, "; passed over: {}", others.join(", ")) }
    }
}

/// The first few names, and how many more there are.
fn some<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let first: Vec<String> = names.clone().take(NAMED).map(|name| format!("`{}`", shown(name))).collect();
    match names.count().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Names of the files in a folder that are not hidden; counts folders.
fn names(folder: &Path, folders: &mut usize) -> Result<BTreeSet<String>> {
    let place = folder.display().to_string();
    let io = |e: std::io::Error| Error::io(place.as_str(), "read", e.to_string());
    if !folder.exists() {
        let hint = "Is the path spelled right?";
        return Err(Error::missing(place, "the folder of reference images itself").with_hint(hint));
    }
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path: PathBuf = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            *folders += 1;
            continue;
        }
        let Some(name) = name.to_str() else {
            let found = name.to_string_lossy().into_owned();
            return Err(Error::bad(place, "file names in UTF-8", found).with_hint("Rename the file."));
        };
        names.insert(name.to_string());
        if names.len() > MAX_FILES {
            return Err(Error::bad(place, format!("at most {MAX_FILES} files"), "more"));
        }
    }
    Ok(names)
}

/// A name as it is compared where no other is the same to the letter: some systems store accents apart from their letters.
pub(super) fn folded(name: &str) -> String {
    name.nfc().flat_map(char::to_lowercase).collect()
}

/// Caption files by what they are captions of.
#[derive(Default)]
struct Texts {
    exact: BTreeMap<(String, usize), String>,
    folded: BTreeMap<(String, usize), (String, usize)>,
    used: BTreeSet<String>,
}

impl Texts {
    fn add(&mut self, stem: String, rank: usize, name: String) {
        let key = (folded(&stem), rank);
        self.folded.entry(key).or_insert_with(|| (stem.clone(), rank));
        self.exact.insert((stem, rank), name);
    }

    /// The caption file of an image.
    fn of(&mut self, image: &str) -> Option<String> {
        let stem = image.rsplit_once('.').map_or(image, |(stem, _)| stem);
        let ranks = 0..CAPTIONS.len();
        let found = ranks.flat_map(|rank| [stem, image].map(|of| (of, rank))).find_map(|(of, rank)| {
            let exact = self.exact.get(&(of.to_string(), rank));
            exact.or_else(|| self.exact.get(self.folded.get(&(folded(of), rank))?))
        });
        let found = found.cloned()?;
        self.used.insert(found.clone());
        Some(found)
    }

    fn unused(self) -> Vec<String> {
        self.exact.into_values().filter(|name| !self.used.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;

    /// Images, which need no content here, and caption files.
    fn folder(name: &str, files: &[(&str, &str)]) -> (Scratch, Result<Survey>) {
        let s = Scratch::new(name);
        files.iter().for_each(|(name, text)| drop(s.write(name, text)));
        let survey = Survey::of(&s.0);
        (s, survey)
    }
    fn captions(name: &str, files: &[(&str, &str)]) -> Vec<(String, String)> {
        folder(name, files).1.unwrap().captions.into_iter().collect()
    }
    fn pair(name: &str, caption: &str) -> (String, String) {
        (name.to_string(), caption.to_string())
    }

    #[test]
    fn captions_have_many_forms() {
        let lemon = vec![pair("a.png", "a lemon")];
        for file in
            ["a.txt", "a.TXT", "a.caption", "a.Caption", "a.png.txt", "a.png.caption", "A.txt", "A.PNG.TXT"]
        {
            assert_eq!(captions("forms", &[("a.png", ""), (file, "\u{feff} a lemon\r\n")]), lemon, "{file}");
        }
        for (key, line) in [
            ("metadata.jsonl", r#"{"file_name":"a.png","text":"a lemon"}"#),
            ("metadata.jsonl", "\u{feff}{\"file_name\":\"./a.png\",\"caption\":\"a lemon\"}\r\n"),
            ("Metadata.JSONL", r#"{"prompt":"a lemon","file_name":"A.PNG"}"#),
            ("metadata.csv", "file_name,text\na.png,a lemon\n"),
            ("metadata.csv", "\u{feff}Caption,other,File_Name\r\n\"a lemon\",\"x,\"\"y\"\"\",a.png\r\n"),
        ] {
            assert_eq!(captions("meta", &[("a.png", ""), (key, line)]), lemon, "{key} {line}");
        }
        // é as one character, and as two.
        let line = "{\"file_name\":\"\u{e9}.png\",\"text\":\"a lemon\"}";
        let found = captions("accents", &[("e\u{301}.png", ""), ("metadata.jsonl", line)]);
        assert_eq!(found, [pair("e\u{301}.png", "a lemon")]);
    }

    #[test]
    fn the_nearest_caption_counts() {
        let all = [
            ("a.png", ""),
            ("A.jpg", ""),
            (
                "metadata.jsonl",
                "{\"file_name\":\"a.png\",\"text\":\"line\"}\n{\"file_name\":\"A.jpg\",\"text\":\"line\"}",
            ),
            ("a.png.caption", "4"),
            ("a.caption", "3"),
            ("a.png.txt", "2"),
            ("a.txt", "1"),
        ];
        for (left, seen) in [(7, "1"), (6, "2"), (5, "3"), (4, "4"), (3, "line")] {
            let found = captions("nearest", &all[..left]);
            assert_eq!(found[1], pair("a.png", seen));
        }
        let both =
            captions("letters", &[("a.png", ""), ("A.png", ""), ("a.txt", "small"), ("A.txt", "large")]);
        assert_eq!(both, [pair("A.png", "large"), pair("a.png", "small")]);
    }

    #[test]
    fn what_is_missing_and_passed_over_is_said() {
        let say = |files: &[(&str, &str)]| folder("said", files).1.unwrap().to_string();
        assert_eq!(say(&[("a.jfif", ""), ("a.txt", "x")]), "captions: all");
        assert_eq!(say(&[("a.JPE", ""), ("a.txt", " ")]), "captions: none");
        let many = [
            ("a.png", ""),
            ("b.png", ""),
            ("c.png", ""),
            ("d.png", ""),
            ("e\u{1b}.webp", ""),
            ("a.txt", "x"),
            ("f.bmp", ""),
            ("g.BMP", ""),
            ("h.heic", ""),
            ("z.txt", ""),
            ("notes", ""),
            (".hidden.gif", ""),
        ];
        assert_eq!(
            say(&many),
            "captions: 1 of 5, none for `b.png`, `c.png`, `d.png` and 1 more; passed over: 1 without an ending, 2 .bmp, \
             1 .heic, captions of no image (`z.txt`)"
        );
        let (s, survey) = folder("none", &[("a.heic", ""), ("b.bmp", "")]);
        let text = survey.unwrap_err().to_string();
        assert!(text.contains("missing reference images") && text.contains("1 .bmp, 1 .heic"), "{text}");
        std::fs::create_dir(s.0.join("train")).unwrap();
        assert!(Survey::of(&s.0).unwrap_err().to_string().contains("1 folder."));
    }

    #[test]
    fn other_metadata_is_named() {
        for name in ["metadata.json", "metadata.json1", "metadata.parquet", "metadata.txt", "METADATA"] {
            let text = folder("other", &[("a.png", ""), (name, "{}")]).1.unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("metadata.jsonl or metadata.csv"), "{text}");
        }
    }
}
