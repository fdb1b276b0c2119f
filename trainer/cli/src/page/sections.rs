//! The report of one run.
use super::album::Album;
use super::record::{Record, Strip};
use super::{album_note, charts, picture, time, usage};
use maud::{Markup, html};
use pentimento_trainer::images::Picture;

/// Longer sides at most: of pairs, thumbnails, and pictures in a strip, pixels.
const PAIR: u32 = 512;
const THUMB: u32 = 128;
const STRIP: u32 = 128;

pub fn all(r: &Record) -> Markup {
    let mut album = Album::default();
    let pairs = pairs(&mut album, r);
    let references = references(&mut album, r);
    let strips = strips(&mut album, r);
    html! {
        (head(r))
        (pairs)
        (references)
        (strips)
        (album_note(&album))
        h2 { "Curves" }
        @if r.course.last() == 0 && r.course.points("loss").is_empty() { p { "There are no metrics to draw." } }
        p .aside { "Over iterations, except for the warm start." }
        (charts::of_one(r))
        h2 { "Use the adapter" }
        (usage::all(r))
        (settings(r))
        (origin(r))
    }
}

/// How the run ended, in a sentence.
pub fn outcome(r: &Record) -> String {
    let iterations = match r.course.last() {
        0 => "after the warm start".to_string(),
        1 => "after 1 iteration".to_string(),
        n => format!("after {n} iterations"),
    };
    match r.course.end.as_ref().map(|e| (e.how.as_str(), &e.kept)) {
        Some((how @ ("complete" | "stopped" | "failed"), kept)) => {
            let how = if how == "failed" { "ended by an error" } else { how };
            let kept = kept.as_ref().map_or(String::new(), |kept| format!(" {kept}"));
            format!("The run is {how} {iterations}.{kept}").replace("is ended", "was ended")
        }
        _ => format!("Not known to have ended; its last line was written {iterations}."),
    }
}

/// Numbers that tell most, with their names.
pub fn facts(r: &Record) -> Vec<(&'static str, String)> {
    let ends = |key: &str| {
        let points = r.course.points(key);
        let [first, last] = [points.first()?, points.last()?].map(|p| super::curves::tidy(p.1));
        Some(if points.len() == 1 { last } else { format!("{first} → {last}") })
    };
    let text = |key: &str| Some(r.text(key)).filter(|t| !t.is_empty());
    let spent = Some(r.course.elapsed).filter(|s| *s > 0.0).map(time);
    let all = [
        ("iterations", Some(r.course.last().to_string())),
        ("time", spent),
        ("reward of generated", ends("reward_generated")),
        ("distance from the references", ends("distance")),
        ("diversity", ends("diversity")),
        ("model", text("model")),
        ("device", text("device")),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn head(r: &Record) -> Markup {
    html! {
        h1 { (r.name) }
        p .lead { (outcome(r)) }
        ul .facts { @for (name, value) in facts(r) { li { span { (name) } (value) } } }
        @if !r.notes.is_empty() { div .notes { @for note in &r.notes { p { (note) } } } }
        (words(r))
    }
}

/// What was said while it trained.
pub fn words(r: &Record) -> Markup {
    const FIRST: usize = 12;
    let line = |(at, words): &(f64, String)| html! { li { strong { "iteration " (at) } ": " (words) } };
    html! {
        @if !r.course.words.is_empty() {
            ul .words { @for word in r.course.words.iter().take(FIRST) { (line(word)) } }
            @if r.course.words.len() > FIRST {
                details { summary { "all of the course" } ul .words { @for word in r.course.words.iter().skip(FIRST) { (line(word)) } } }
            }
        }
    }
}

/// The pictures that stand beside those before: after the run, or of one that did not come to its end the last preview. And what they are.
fn latest(r: &Record) -> (&[Picture], &str) {
    let preview = r.previews.iter().rfind(|s| !s.pictures.is_empty()).filter(|_| r.after.is_empty());
    preview.map_or((&r.after, "after"), |s| (&s.pictures, &s.label))
}

fn pairs(album: &mut Album, r: &Record) -> Markup {
    let ((after, when), prompts) = (latest(r), r.prompts());
    let mut side = |of: Option<&Picture>, class: &str, when: &str, prompt: &str| {
        let Some(of) = of else { return html! {} };
        let image = picture(album, of, PAIR, &format!("{when}: {prompt}"));
        html! { figure class=(class) { (image) figcaption { (when) } } }
    };
    let mut pair = |i: usize| {
        let prompt = prompts.get(i).map_or("", String::as_str);
        let before = side(r.before.get(i), "before", "before", prompt);
        let after = side(after.get(i), "after", when, prompt);
        html! {
            label .pair {
                input type="checkbox" aria-label="swap";
                div .two { (before) (after) }
                span { (prompt) }
            }
        }
    };
    let pairs: Vec<Markup> = (0..r.before.len().max(after.len())).map(&mut pair).collect();
    html! {
        @if !pairs.is_empty() {
            h2 { "Before and after" }
            p .aside { "The same prompt and noise. They change places under the pointer, when tapped, and when focused." }
            div .pairs { @for pair in pairs { (pair) } }
        }
    }
}

fn references(album: &mut Album, r: &Record) -> Markup {
    if r.references.is_empty() {
        return html! {};
    }
    let one = |(of, name, caption): &(Option<_>, String, String)| {
        let image = of.as_ref().map_or(html! {}, |of| picture(album, of, THUMB, name));
        html! { figure { (image) figcaption { @if caption.is_empty() { (name) } @else { (caption) } } } }
    };
    let figures: Vec<Markup> = r.references.iter().map(one).collect();
    let more = r.all_references().saturating_sub(figures.len());
    html! {
        h2 { "References" }
        div .thumbs { @for figure in figures { (figure) } }
        @if more > 0 { p .aside { "and " (more) " more" } }
    }
}

fn strips(album: &mut Album, r: &Record) -> Markup {
    let mut strip = |label: &str, note: &str, pictures: &[_]| {
        let images: Vec<Markup> = pictures.iter().map(|p| picture(album, p, STRIP, label)).collect();
        html! { div .strip { p { (label) br; span .aside { (note) } } div { @for image in images { (image) } } } }
    };
    let mut of = |strips: &[Strip]| -> Vec<Markup> {
        strips
            .iter()
            .filter(|s| !s.pictures.is_empty())
            .map(|s| strip(&s.label, &s.note, &s.pictures))
            .collect()
    };
    let (looks, previews) = (of(&r.looks), of(&r.previews));
    html! {
        @if !looks.is_empty() || !previews.is_empty() { h2 { "Pictures over iterations" } }
        @if !looks.is_empty() {
            p .aside { "What the training looked at: always the same prompts and noise." }
            @for s in looks { (s) }
        }
        @if !previews.is_empty() {
            p .aside { "Previews, of the prompts and noise of before and after." }
            @for s in previews { (s) }
        }
    }
}

fn settings(r: &Record) -> Markup {
    let own = r.settings.iter().filter(|s| s.value != s.usual);
    let rest = r.settings.iter().filter(|s| s.value == s.usual);
    let recipe = r.settings.iter().find(|s| s.name == "recipe").map_or("", |s| s.value.as_str());
    html! {
        @if !r.settings.is_empty() {
            h2 { "Settings" }
            @if own.clone().next().is_none() { p { "All are the recipe’s (" code { (recipe) } ")." } }
            @else {
                p .aside { "Those that differ from the recipe’s (" code { (recipe) } "):" }
                table {
                    tr { th { "setting" } th { "here" } th { "usually" } }
                    @for s in own { tr { td title=(s.about) { code { (s.name) } } td .differs { (s.value) } td { (s.usual) } } }
                }
            }
            details {
                summary { "all others" }
                table { @for s in rest { tr { td { code { (s.name) } } td { (s.value) } td .aside { (s.about) } } } }
            }
        }
    }
}

fn origin(r: &Record) -> Markup {
    let mut rows =
        vec![("pentimento".to_string(), r.text("pentimento")), ("device".into(), r.text("device"))];
    rows.extend(r.hashes());
    html! {
        h2 { "Made from" }
        table { @for (name, value) in rows.iter().filter(|(_, v)| !v.is_empty()) { tr { td { (name) } td { code { (value) } } } } }
        p .aside { "settings.toml makes the run again with " code { "personalize --settings" } "; run.json has every name and hash." }
    }
}
