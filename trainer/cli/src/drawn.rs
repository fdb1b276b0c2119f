//! What `generate` leaves: a file for each picture that says how it was made, and one of all.
use crate::page::{slug, within};
use pentimento_runtime::file;
use pentimento_runtime::pipeline::Sampling;
use pentimento_trainer::adapted::Source;
use pentimento_trainer::adapter;
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::images::{COLUMNS, Filter, GAP, Picture, contact_sheet};
use pentimento_trainer::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

/// Longer side of the sheet at most, pixels.
const SHEET: u32 = 4096;

/// How pictures are made, as AUTOMATIC1111's web interface writes it, which other tools read.
pub struct Recipe {
    /// Adapters behind the prompt.
    adapters: String,
    negative: String,
    steps: String,
    rest: String,
}

impl Recipe {
    pub fn new(model: &Path, adapters: &[Source], negative: &str, how: &Sampling) -> Self {
        let mut names = String::new();
        let mut hashes = Vec::new();
        for Source { path, strength } in adapters {
            // Tools take the name apart at these.
            let name = stem(path).replace([':', ','], "_");
            let _ = write!(names, " <lora:{name}:{strength}>"); // a String takes all
            hashes.extend(hash(path).map(|hash| format!("{name}: {hash}")));
        }
        let Sampling { steps, guidance, width, height } = how;
        let mut rest = format!("Size: {width}x{height}, Model: {}", value(&stem(model)));
        if !hashes.is_empty() {
            let _ = write!(rest, ", Lora hashes: {}", value(&hashes.join(", ")));
        }
        let _ = write!(rest, ", Version: pentimento {}", env!("CARGO_PKG_VERSION"));
        let steps = format!("Steps: {steps}, Sampler: Euler, CFG scale: {guidance}");
        Recipe { adapters: names, negative: negative.into(), steps, rest }
    }
    /// The parameters of one picture.
    fn text(&self, prompt: &str, seed: u64) -> String {
        let Recipe { adapters, negative, steps, rest } = self;
        let negative =
            if negative.is_empty() { String::new() } else { format!("Negative prompt: {negative}\n") };
        format!("{prompt}{adapters}\n{negative}{steps}, Seed: {seed}, {rest}")
    }
}

/// A value, in quotes where it would be taken for several.
fn value(text: &str) -> String {
    if text.contains([',', ':', '\n', '"']) { serde_json::Value::from(text).to_string() } else { text.into() }
}

/// A file's name without its ending, or a folder's: how tools name models and adapters.
fn stem(path: &Path) -> String {
    let name = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let name = if name.is_dir() { name.file_name() } else { name.file_stem() };
    name.map_or("model".into(), |name| name.to_string_lossy().replace(['<', '>', '\n'], "_"))
}

/// The short hash by which tools find an adapter again: SHA-256 of what follows a safetensors file's header.
fn hash(path: &Path) -> Option<String> {
    let (mut file, _) = file::open_if_there(&adapter::file(path).ok()?).ok()??;
    let mut header = [0; 8];
    file.read_exact(&mut header).ok()?;
    file.seek_relative(i64::try_from(u64::from_le_bytes(header)).ok()?).ok()?;
    let (mut sum, mut part) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut part).ok()? {
            0 => break,
            n => sum.update(&part[..n]),
        }
    }
    let hex = sum.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    hex.get(..12).map(String::from)
}

/// Pictures in a folder whose files are left alone.
pub struct Drawn<'a> {
    folder: &'a Path,
    /// Number of the next file.
    next: usize,
    columns: u32,
    /// Longer side of a picture in the sheet, pixels.
    side: u32,
    small: Vec<Picture>,
}

impl<'a> Drawn<'a> {
    /// `count` pictures of each prompt, `all` altogether.
    pub fn new(folder: &'a Path, count: usize, all: usize) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(folder.display().to_string(), "read", e.to_string());
        let names = fs::read_dir(folder).map_err(failed)?.flatten().map(|e| e.file_name());
        let next = names.filter_map(|name| number(name.to_str()?)).map(|n| n + 1).max().unwrap_or(0);
        // Prompts in rows of their own, where a row holds them.
        let most = COLUMNS as usize;
        let columns = if (2..=most).contains(&count) { count } else { all.min(most) }.max(1);
        let long = columns.max(all.div_ceil(columns)) as u32;
        let side = (SHEET / long.max(1)).saturating_sub(GAP).max(16);
        Ok(Drawn { folder, next, columns: columns as u32, side, small: Vec::new() })
    }
    /// Pictures that are kept.
    pub fn done(&self) -> usize {
        self.small.len()
    }

    /// Writes a picture to a file of its own.
    pub fn keep(&mut self, recipe: &Recipe, prompt: &str, seed: u64, picture: &Picture) -> Result<()> {
        let png = picture.to_png_with(&[("parameters", &recipe.text(prompt, seed))])?;
        let name = slug(prompt);
        self.write(&png, |n| format!("{n:04}-{name}-{seed}.png"))?;
        let [width, height] = within([picture.width(), picture.height()], self.side);
        let small = if width == picture.width() && height == picture.height() {
            picture.clone()
        } else {
            picture.resized(width, height, Filter::Bilinear)?
        };
        self.small.push(small);
        Ok(())
    }
    /// Writes a sheet of all where there are several.
    pub fn sheet(&mut self) -> Result<Option<PathBuf>> {
        if self.small.len() < 2 {
            return Ok(None);
        }
        let png = contact_sheet(&self.small, self.columns, GAP)?.to_png()?;
        self.next = 1;
        let name = |n| if n == 1 { "contact.png".into() } else { format!("contact-{n}.png") };
        self.write(&png, name).map(Some)
    }
    /// Writes to the next name that nobody has, also where another process takes names in the same folder.
    fn write(&mut self, png: &[u8], name: impl Fn(usize) -> String) -> Result<PathBuf> {
        loop {
            let path = self.folder.join(name(self.next));
            self.next += 1;
            match File::create_new(&path) {
                Ok(_) => {
                    return write_atomically(&path, png).map(|()| path.clone()).inspect_err(|_| {
                        let _ = fs::remove_file(&path); // the empty one
                    });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(path.display().to_string(), "create", e.to_string())),
            }
        }
    }
}

/// The number that a picture's name begins with.
fn number(name: &str) -> Option<usize> {
    let digits = name.strip_suffix(".png")?.split('-').next()?;
    digits.parse().ok().filter(|n| *n < usize::MAX / 2 && digits.len() >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how() -> Sampling {
        Sampling { steps: 20, guidance: 4.5, width: 64, height: 32 }
    }

    #[test]
    fn parameters_are_as_other_tools_read_them() {
        let folder = std::env::temp_dir().join(format!("pentimento-drawn-hash-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let adapter = folder.join("i:n,k.safetensors");
        fs::write(&adapter, b"\x02\0\0\0\0\0\0\0{}abc").expect("a file");
        let source = Source { path: adapter, strength: 0.8 };
        let recipe = Recipe::new(Path::new("no/such,model.gguf"), &[source], "blurry", &how());
        // SHA-256 of `abc`.
        assert_eq!(
            recipe.text("a fox, red", 7),
            format!(
                "a fox, red <lora:i_n_k:0.8>\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, CFG scale: 4.5, Seed: 7, \
                 Size: 64x32, Model: \"such,model\", Lora hashes: \"i_n_k: ba7816bf8f01\", Version: pentimento {}",
                env!("CARGO_PKG_VERSION")
            )
        );
        let plain = Recipe::new(Path::new("icons"), &[], "", &how()).text("a fox", 7);
        assert!(
            plain.starts_with("a fox\nSteps: 20, ") && plain.contains("Model: icons, Version"),
            "{plain}"
        );
        fs::write(folder.join("bad.safetensors"), [0xff; 12]).expect("a file");
        assert!(hash(&folder.join("bad.safetensors")).is_none() && hash(&folder.join("none")).is_none());
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn nothing_is_replaced() {
        let folder = std::env::temp_dir().join(format!("pentimento-drawn-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        for name in ["0041-mine.png", "contact.png", "7.png", "99999999999999999999999-x.png"] {
            fs::write(folder.join(name), "mine").expect("a file");
        }
        let recipe = Recipe::new(Path::new("icons"), &[], "", &how());
        let picture = Picture::new(4, 2, vec![9; 24]).expect("a picture");
        let mut drawn = Drawn::new(&folder, 2, 2).expect("a folder");
        fs::write(folder.join("0043-a-fox-8.png"), "another process's").expect("a file");
        for seed in [7, 8] {
            drawn.keep(&recipe, "A fox!", seed, &picture).expect("kept");
        }
        assert_eq!(drawn.sheet().expect("a sheet"), Some(folder.join("contact-2.png")));
        for name in ["0042-a-fox-7.png", "0044-a-fox-8.png"] {
            let bytes = fs::read(folder.join(name)).expect(name);
            assert_eq!(Picture::decode(name, &bytes), Ok(picture.clone()));
        }
        assert_eq!(fs::read(folder.join("contact.png")).expect("mine"), b"mine");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
