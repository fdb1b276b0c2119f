//! Several runs beside each other.
use super::album::Album;
use super::record::Record;
use super::{album_note, charts, picture, sections};
use maud::{Markup, html};
use std::collections::BTreeSet;

/// Longer side of a picture at most, pixels.
const SIDE: u32 = 320;

pub fn all(records: &[Record]) -> Markup {
    let named = names(records);
    let mut album = Album::default();
    let pictures = pictures(&mut album, &named);
    html! {
        h1 { (records.len()) " runs" }
        @for (i, (name, r)) in named.iter().enumerate() {
            h3 { span class=(format!("key k{i}")) { (name) } }
            p { (sections::outcome(r)) }
            ul .facts { @for (what, value) in sections::facts(r) { li { span { (what) } (value) } } }
            @if !r.notes.is_empty() { div .notes { @for note in &r.notes { p { (note) } } } }
        }
        h2 { "Curves" }
        (charts::of_many(&named))
        (pictures)
        (album_note(&album))
        (settings(&named))
        h2 { "Courses" }
        @for (name, r) in &named { h3 { (name) } (sections::words(r)) }
    }
}

/// Each with a name of its own.
fn names(records: &[Record]) -> Vec<(String, &Record)> {
    let mut taken = BTreeSet::new();
    let mut own = |r: &Record| {
        let numbered = (2..).map(|n| format!("{} ({n})", r.name));
        let free = core::iter::once(r.name.clone()).chain(numbered).find(|name| !taken.contains(name));
        let name = free.unwrap_or_default();
        taken.insert(name.clone());
        name
    };
    records.iter().map(|r| (own(r), r)).collect()
}

/// What each run draws of the first run's prompts, and the base model.
fn pictures(album: &mut Album, named: &[(String, &Record)]) -> Markup {
    let Some((_, first)) = named.first() else { return html! {} };
    let prompts = first.prompts();
    let mut row = |i: usize, prompt: &str| {
        let mut cells = vec![("before".to_string(), first.before.get(i))];
        for (name, r) in named {
            let at = if prompt.is_empty() { Some(i) } else { r.prompts().iter().position(|p| p == prompt) };
            cells.push((name.clone(), at.and_then(|at| r.after.get(at))));
        }
        let figures = cells.into_iter().map(|(name, of)| {
            let image = of.map_or(html! { span .none { "no picture" } }, |of| {
                picture(album, of, SIDE, &format!("{name}: {prompt}"))
            });
            html! { figure { (image) figcaption { (name) } } }
        });
        let figures: Vec<Markup> = figures.collect();
        let columns = format!(
            "grid-template-columns: repeat({}, minmax(0, 1fr)); max-width: {}rem",
            figures.len().min(5),
            11 * figures.len().min(5)
        );
        html! { p { (prompt) } div .beside style=(columns) { @for figure in figures { (figure) } } }
    };
    let count = named.iter().map(|(_, r)| r.after.len()).max().unwrap_or(0).max(first.before.len());
    let rows: Vec<Markup> = (0..count).map(|i| row(i, prompts.get(i).map_or("", String::as_str))).collect();
    html! {
        @if !rows.is_empty() {
            h2 { "Pictures" }
            @for row in rows { (row) }
        }
    }
}

/// The settings that are not the same in all.
fn settings(named: &[(String, &Record)]) -> Markup {
    let names: BTreeSet<&str> = named.iter().flat_map(|(_, r)| r.settings.iter().map(|s| s.name)).collect();
    let of = |r: &Record, name: &str| {
        r.settings.iter().find(|s| s.name == name).map_or("unknown".into(), |s| s.value.clone())
    };
    let rows =
        names.into_iter().map(|name| (name, named.iter().map(|(_, r)| of(r, name)).collect::<Vec<_>>()));
    let differ: Vec<_> = rows.filter(|(_, values)| values.windows(2).any(|w| w[0] != w[1])).collect();
    html! {
        h2 { "Settings that differ" }
        @if differ.is_empty() { p { "None." } }
        @else {
            table {
                tr { th { "setting" } @for (name, _) in named { th { (name) } } }
                @for (name, values) in differ { tr { td { code { (name) } } @for v in values { td { (v) } } } }
            }
        }
    }
}
