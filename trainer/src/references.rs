//! The reference images whose look is learnt: a folder of pictures, with captions where there are any.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pentimento::folder::is_plain_name;
use pentimento::{Error, Result};
use serde_json::Value;

use crate::images::Picture;

mod framing;

pub use framing::{Colour, Fit, Framing, summary};

/// Endings of image files, in lower case.
const IMAGES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Largest caption file, in bytes.
const MAX_CAPTION: u64 = 64 << 10;
/// Largest `metadata.jsonl`, in bytes.
const MAX_METADATA: u64 = 16 << 20;
/// Most images in one folder.
const MAX_IMAGES: usize = 100_000;

/// One reference image at the training resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// File name.
    pub name: String,
    /// What the image shows; `None` when there is no caption or an empty one.
    pub caption: Option<String>,
    /// Values in [0, 1], H x W x 3.
    pub pixels: Vec<f32>,
    /// Width and height of the picture it was made from, upright.
    pub size: [u32; 2],
    /// Whether the background shows through that picture.
    pub transparent: bool,
}

impl Reference {
    /// A reference from a picture of any size, squashed (not cropped) to `width` x `height` with PIL's bilinear filter,
    /// as the released code does.
    ///
    /// # Errors
    /// A size that [`Picture::resized`] refuses.
    pub fn new(
        name: &str,
        caption: Option<&str>,
        picture: &Picture,
        width: u32,
        height: u32,
    ) -> Result<Self> {
        Self::framed(name, caption, picture, [width, height], &SQUASHED)
    }

    /// A reference from a picture of any size, brought to `size`, width and height, as `framing` says.
    ///
    /// # Errors
    /// A size that [`Picture::resized`] refuses.
    pub fn framed(
        name: &str,
        caption: Option<&str>,
        picture: &Picture,
        [width, height]: [u32; 2],
        framing: &Framing,
    ) -> Result<Self> {
        let pixels = framing.apply(picture, width, height)?.to_unit();
        let caption = caption.map(str::trim).filter(|c| !c.is_empty()).map(String::from);
        let size = [picture.width(), picture.height()];
        Ok(Reference { name: name.to_string(), caption, pixels, size, transparent: false })
    }
}

/// As released.
const SQUASHED: Framing = Framing { fit: Fit::Squash, background: Colour::WHITE };

/// As [`load_framed`], cropped to cover and on white.
///
/// # Errors
/// As [`load_framed`].
pub fn load_references(folder: &Path, width: u32, height: u32) -> Result<Vec<Reference>> {
    load_framed(folder, width, height, &Framing::default())
}

/// Loads every PNG, JPEG and WebP file of `folder`, sorted by name, at `width` x `height`.
///
/// A caption comes from `NAME.txt` beside `NAME.png`, else from the line of `metadata.jsonl` whose `file_name` is the
/// image (its `text`). Hidden files, subfolders and files of other kinds are passed over.
///
/// # Errors
/// A folder that is missing or holds no image; an image that cannot be read; a caption file that is not UTF-8 or too
/// large; a metadata line that does not parse, repeats a name, or names a file that is not an image of this folder.
pub fn load_framed(folder: &Path, width: u32, height: u32, framing: &Framing) -> Result<Vec<Reference>> {
    let names = image_names(folder)?;
    let captions = read_metadata(folder, &names)?;
    let load = |name: &String| {
        let (picture, transparent) = Picture::open_on(&folder.join(name), framing.background.0)?;
        let beside = read_text(&folder.join(name).with_extension("txt"), MAX_CAPTION)?;
        let caption = beside.as_deref().or_else(|| captions.get(name).map(String::as_str));
        let made = Reference::framed(name, caption, &picture, [width, height], framing)?;
        Ok(Reference { transparent, ..made })
    };
    names.iter().map(load).collect()
}

/// Names of the image files in `folder`, sorted.
fn image_names(folder: &Path) -> Result<Vec<String>> {
    let place = folder.display().to_string();
    let io = |e: std::io::Error| Error::io(place.as_str(), "read", e.to_string());
    if !folder.exists() {
        let hint = "Is the path spelled right?";
        return Err(Error::missing(place, "the folder of reference images itself").with_hint(hint));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if !ending.is_some_and(|e| IMAGES.contains(&e.as_str())) || !path.is_file() {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            return Err(
                Error::bad(place, "file names in UTF-8", format!("{name:?}")).with_hint("Rename the file.")
            );
        };
        if !name.starts_with('.') {
            names.push(name.to_string());
        }
        if names.len() > MAX_IMAGES {
            return Err(Error::bad(place, format!("at most {MAX_IMAGES} images"), "more"));
        }
    }
    if names.is_empty() {
        return Err(Error::missing(place, "reference images (.png, .jpg, .jpeg or .webp)")
            .with_hint("Put at least one into this folder; four to twenty work well."));
    }
    names.sort_unstable();
    Ok(names)
}

/// Captions by file name from `metadata.jsonl`; empty when there is no such file.
fn read_metadata(folder: &Path, names: &[String]) -> Result<BTreeMap<String, String>> {
    let path = folder.join("metadata.jsonl");
    let mut captions = BTreeMap::new();
    let Some(text) = read_text(&path, MAX_METADATA)? else { return Ok(captions) };
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{}, line {}", path.display(), number + 1);
        let parsed: serde_json::Result<Value> = serde_json::from_str(line);
        let entry = parsed.map_err(|e| {
            Error::bad(place.as_str(), "a JSON object", format!("text that does not parse: {e}"))
        })?;
        let Some(name) = entry["file_name"].as_str().filter(|name| is_plain_name(name)) else {
            let found = entry.get("file_name").map_or("none".to_string(), Value::to_string);
            return Err(Error::bad(place, "`file_name`, the plain name of a file in this folder", found));
        };
        if names.binary_search_by(|known| known.as_str().cmp(name)).is_err() {
            let what = format!("the image `{name}` in {}", folder.display());
            return Err(Error::missing(place, what).with_hint("Add the file or remove the line."));
        }
        let text = match &entry["text"] {
            Value::Null => "",
            Value::String(text) => text,
            other => return Err(Error::bad(place, "`text`, a string", other.to_string())),
        };
        if captions.insert(name.to_string(), text.to_string()).is_some() {
            return Err(Error::bad(place, "every image once", format!("`{name}` again")));
        }
    }
    Ok(captions)
}

/// A text file without its byte-order mark; `None` when there is no such file.
fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let place = path.display().to_string();
    let io = |e: std::io::Error| Error::io(place.as_str(), "read", e.to_string());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(Error::bad(place, format!("at most {} KiB of text", limit >> 10), "more"));
    }
    let text =
        String::from_utf8(bytes).map_err(|e| Error::bad(place, "UTF-8 text", e.utf8_error().to_string()))?;
    Ok(Some(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), String::from)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;

    fn message<T>(result: Result<T>) -> String {
        result.err().map(|e| e.to_string()).unwrap_or_default()
    }

    fn image(s: &Scratch, name: &str, w: u32, h: u32, value: u8) {
        let picture = Picture::new(w, h, vec![value; (w * h * 3) as usize]).unwrap();
        s.write(name, picture.to_png().unwrap());
    }

    #[test]
    fn loads_sorted_with_captions() {
        let s = Scratch::new("refs");
        image(&s, "b.png", 9, 4, 255);
        image(&s, "a.PNG", 3, 3, 51);
        image(&s, "c.jpg", 3, 3, 0); // a PNG by content: content decides
        image(&s, ".hidden.png", 3, 3, 0);
        s.write("notes.md", "not an image");
        std::fs::create_dir(s.0.join("folder.png")).unwrap();
        s.write("b.txt", "\u{feff} a bear \n");
        s.write(
            "metadata.jsonl",
            "{\"file_name\":\"a.PNG\",\"text\":\"an ant\"}\n\n{\"file_name\":\"b.png\",\"text\":\"no\"}\n{\"file_name\":\"c.jpg\"}\n",
        );
        let references = load_references(&s.0, 5, 4).unwrap();
        let seen: Vec<_> = references.iter().map(|r| (r.name.as_str(), r.caption.as_deref())).collect();
        assert_eq!(seen, [("a.PNG", Some("an ant")), ("b.png", Some("a bear")), ("c.jpg", None)]);
        assert_eq!(references[0].pixels, vec![51.0 / 255.0; 5 * 4 * 3]);
        assert_eq!(references[1].pixels, vec![1.0; 5 * 4 * 3]);
    }

    #[test]
    fn folders_are_framed_as_asked() {
        use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
        let s = Scratch::new("framed");
        let mut bytes = Vec::new();
        // Three pixels: solid black, half black, nothing.
        let rgba = [0, 0, 0, 255, 0, 0, 0, 128, 0, 0, 0, 0];
        PngEncoder::new(&mut bytes).write_image(&rgba, 3, 1, ExtendedColorType::Rgba8).unwrap();
        s.write("a.png", bytes);
        image(&s, "b.png", 2, 2, 0);
        let load = |fit, background| {
            let framing = Framing { fit, background: Colour(background) };
            let references = load_framed(&s.0, 1, 1, &framing).unwrap();
            let red = |r: &Reference| (r.pixels[0] * 255.0).round() as u8;
            (red(&references[0]), red(&references[1]), summary(&references, &framing, 1, 1))
        };
        let said =
            |what: &str, on: &str| format!("2 references: 1 {what} (the widest 3x1), 1 transparent on {on}");
        assert_eq!(load(Fit::Cover, [255; 3]), (127, 0, said("cropped to cover", "white")));
        assert_eq!(load(Fit::Squash, [255; 3]), (127, 0, said("squashed", "white")));
        assert_eq!(load(Fit::Cover, [0; 3]), (0, 0, said("cropped to cover", "#000000")));
        let cover = load_references(&s.0, 1, 1).unwrap();
        assert_eq!((cover[0].size, cover[0].transparent, cover[1].transparent), ([3, 1], true, false));
    }

    #[test]
    fn bad_folders_are_sentences() {
        let s = Scratch::new("badrefs");
        assert!(
            message(load_references(&s.0.join("absent"), 8, 8))
                .contains("missing the folder of reference images")
        );
        assert!(message(load_references(&s.0, 8, 8)).contains("missing reference images (.png"));
        let file = s.write("x.png", "hello");
        let text = message(load_references(&s.0, 8, 8));
        assert!(text.contains("x.png: expected a PNG, JPEG or WebP image"), "{text}");
        assert!(message(load_references(&file, 8, 8)).contains("cannot read"));
        image(&s, "x.png", 3, 3, 1);
        assert!(message(load_references(&s.0, 0, 8)).contains("sides of 1 to"));
        s.write("x.txt", [0xff, 0xfe]);
        assert!(message(load_references(&s.0, 8, 8)).contains("x.txt: expected UTF-8"));
        s.write("x.txt", vec![b'a'; MAX_CAPTION as usize + 1]);
        assert!(message(load_references(&s.0, 8, 8)).contains("at most 64 KiB"));
    }

    #[test]
    fn bad_metadata_names_the_line() {
        let s = Scratch::new("badmeta");
        image(&s, "x.png", 3, 3, 1);
        for (line, part) in [
            ("{", "a JSON object"),
            ("[]", "found none"),
            (r#"{"text":"x"}"#, "found none"),
            (r#"{"file_name":3}"#, "found 3"),
            (r#"{"file_name":"../x.png"}"#, "the plain name"),
            (r#"{"file_name":"/x.png"}"#, "the plain name"),
            (r#"{"file_name":"y.png"}"#, "missing the image `y.png`"),
            (r#"{"file_name":"x.png","text":3}"#, "`text`, a string"),
            ("{\"file_name\":\"x.png\"}\n{\"file_name\":\"x.png\"}", "every image once"),
        ] {
            s.write("metadata.jsonl", format!("\n{line}\n"));
            let text = message(load_references(&s.0, 8, 8));
            assert!(text.contains("metadata.jsonl, line ") && text.contains(part), "{line}: {text}");
        }
    }
}
