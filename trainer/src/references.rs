//! The reference images whose look is learnt: a folder of pictures, with captions where there are any.
use std::path::Path;

use pentimento_runtime::{Error, Result};

use crate::images::Picture;

mod framing;
mod metadata;
mod survey;

pub use framing::{Colour, Fit, Framing, summary};
pub use survey::Survey;

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

/// Loads every PNG, JPEG and WebP file of `folder`, sorted by name, at `width` x `height`, with the captions that
/// [`Survey::of`] finds.
///
/// # Errors
/// As [`Survey::of`]; an image that cannot be read.
pub fn load_framed(folder: &Path, width: u32, height: u32, framing: &Framing) -> Result<Vec<Reference>> {
    let (references, unread) = load(folder, &Survey::of(folder)?, width, height, framing);
    unread.into_iter().next().map_or(Ok(references), Err)
}

/// As [`load_framed`], of a folder that was looked through before: the images that can be read, and why others cannot.
pub fn load(
    folder: &Path,
    survey: &Survey,
    width: u32,
    height: u32,
    framing: &Framing,
) -> (Vec<Reference>, Vec<Error>) {
    let load = |name: &String| {
        let (picture, transparent) = Picture::open_on(&folder.join(name), framing.background.0)?;
        let caption = survey.captions.get(name).map(String::as_str);
        let made = Reference::framed(name, caption, &picture, [width, height], framing)?;
        Ok(Reference { transparent, ..made })
    };
    let (mut references, mut unread) = (Vec::new(), Vec::new());
    for read in survey.images.iter().map(load) {
        read.map_or_else(|e| unread.push(e), |r| references.push(r));
    }
    (references, unread)
}

/// The images of a folder, as [`load_framed`], or the one of a file. `caption` is what all of them show; without it they have
/// those that stand beside them.
///
/// # Errors
/// As [`load_framed`].
pub fn load_from(
    path: &Path,
    caption: Option<&str>,
    [width, height]: [u32; 2],
    framing: &Framing,
) -> Result<Vec<Reference>> {
    let (folder, file) = if path.is_file() { (path.parent(), path.file_name()) } else { (Some(path), None) };
    let folder = folder.unwrap_or(path);
    let mut survey = match (file, caption) {
        (Some(_), Some(_)) => Survey::default(), // whatever else lies there is of no concern
        _ => Survey::of(folder)?,
    };
    if let Some(file) = file {
        survey.images = vec![file.to_string_lossy().into_owned()];
    }
    if let Some(caption) = caption {
        survey.captions = survey.images.iter().map(|name| (name.clone(), caption.to_string())).collect();
    }
    let (references, unread) = load(folder, &survey, width, height, framing);
    unread.into_iter().next().map_or(Ok(references), Err)
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
    fn one_file_has_the_caption_beside_it_or_the_given_one() {
        let s = Scratch::new("onefile");
        image(&s, "a.png", 3, 3, 51);
        image(&s, "b.png", 3, 3, 51);
        s.write("b.txt", "a bear");
        let load = |path: &Path, caption| load_from(path, caption, [3, 3], &Framing::default());
        let seen = |path: &Path, caption| -> Vec<(String, Option<String>)> {
            load(path, caption).unwrap().into_iter().map(|r| (r.name, r.caption)).collect()
        };
        let one = |name: &str, caption: Option<&str>| (name.to_string(), caption.map(String::from));
        assert_eq!(seen(&s.0.join("b.png"), None), [one("b.png", Some("a bear"))]);
        assert_eq!(seen(&s.0, None), [one("a.png", None), one("b.png", Some("a bear"))]);
        assert_eq!(seen(&s.0, Some("x")), [one("a.png", Some("x")), one("b.png", Some("x"))]);
        s.write("b.txt", [0xff, 0xfe]); // not looked at where a caption is given
        assert_eq!(seen(&s.0.join("b.png"), Some("x")), [one("b.png", Some("x"))]);
        assert!(message(load(&s.0.join("c.png"), None)).contains("c.png: missing"));
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
        s.write("x.txt", vec![b'a'; (64 << 10) + 1]);
        assert!(message(load_references(&s.0, 8, 8)).contains("at most 64 KiB"));
    }

    #[test]
    fn bad_metadata_names_the_line() {
        let s = Scratch::new("badmeta");
        image(&s, "x.png", 3, 3, 1);
        for (line, part) in [
            ("{", "a JSON object"),
            ("[]", "a JSON object"),
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
