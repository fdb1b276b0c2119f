//! `pentimento report`: a run's folder, or several beside each other, as one page that needs nothing else. What is in the files may
//! be anybody's: maud escapes all of it, and sizes are bounded.
mod album;
mod charts;
mod compare;
mod curves;
mod record;
mod sections;
mod usage;

pub use album::within;
pub use usage::slug;

use crate::out::REPORT;
use album::Album;
use clap::Args as ClapArgs;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::{Error, Result};
use record::Record;
use std::path::{Path, PathBuf};

/// Name of a comparison, in the folder where the tool runs.
const COMPARISON: &str = "compare.html";
const STYLE: &str = include_str!("page/style.css");

#[derive(ClapArgs)]
pub struct Args {
    /// Folders of runs, what `personalize` had as --out: one for its report, two to eight for a comparison.
    #[arg(required = true, num_args = 1..=curves::LINES)]
    folders: Vec<PathBuf>,
    /// File to write; report.html in the run's folder, or for a comparison compare.html here, by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let records = args.folders.iter().map(|folder| open(folder)).collect::<Result<Vec<_>>>()?;
    let (markup, usual) = match &records[..] {
        [one] => (page(&one.name, sections::all(one)), args.folders.first().map(|f| f.join(REPORT))),
        all => (page("Comparison", compare::all(all)), None),
    };
    let out = args.out.clone().or(usual).unwrap_or_else(|| COMPARISON.into());
    write_atomically(&out, markup.into_string().as_bytes())?;
    records
        .iter()
        .flat_map(|r| r.notes.iter().map(move |note| (r, note)))
        .for_each(|(r, n)| eprintln!("{}: {n}", r.name));
    println!("report: {}", out.display());
    Ok(())
}

/// Writes the report of a run's folder there.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let (record, path) = (open(folder)?, folder.join(REPORT));
    write_atomically(&path, page(&record.name, sections::all(&record)).into_string().as_bytes())?;
    Ok(path)
}

fn open(folder: &Path) -> Result<Record> {
    let place = folder.display().to_string();
    if !folder.is_dir() {
        return Err(Error::missing(place, "the run's folder itself")
            .with_hint("Give what `personalize` had as --out."));
    }
    let record = Record::read(folder);
    if record.is_empty() {
        let within = folder.join("unfinished").is_dir();
        let hint = if within {
            "Is it the folder `unfinished` in it?"
        } else {
            "Give what `personalize` had as --out."
        };
        return Err(Error::missing(place, "anything that a run writes").with_hint(hint));
    }
    Ok(record)
}

fn page(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
                title { (title) " – pentimento" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

/// A picture with its words, or an empty place where the page is full.
fn picture(album: &mut Album, of: &pentimento_trainer::images::Picture, side: u32, words: &str) -> Markup {
    match album.embed(of, side) {
        Some(uri) => html! { img src=(uri) alt=(words) title=(words); },
        None => html! { span .none title=(words) { "–" } },
    }
}

/// What the pictures' size did to them.
fn album_note(album: &Album) -> Markup {
    html! {
        @if let Some((was, is)) = album.reduced { p .aside { "Pictures are shown smaller here than they are, the largest with " (is) " pixels a side instead of " (was) "." } }
        @if album.left_out > 0 { p .aside { (album.left_out) " pictures are left out, to keep this page below 11 MB." } }
    }
}

/// Seconds, as people say them.
fn time(seconds: f64) -> String {
    crate::memory::time(seconds)
}
