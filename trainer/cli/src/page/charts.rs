//! Which numbers are drawn, and what they mean.
use super::curves::{LINES, chart};
use super::record::Record;
use maud::{Markup, PreEscaped, html};

/// A chart of numbers that belong together, with their names where there are several.
struct Plot {
    title: &'static str,
    about: &'static str,
    keys: &'static [(&'static str, &'static str)],
    /// What a number is divided by.
    unit: f64,
}

const fn plot(
    title: &'static str,
    about: &'static str,
    keys: &'static [(&'static str, &'static str)],
) -> Plot {
    Plot { title, about, keys, unit: 1.0 }
}

const PLOTS: [Plot; 18] = [
    plot(
        "Reward",
        "what the judge gives generated pictures and references; they meet where it cannot tell them apart",
        &[
            ("reward_generated", "generated"),
            ("reward_reference", "references"),
            ("reward_pathwise", "followed by the gradient"),
        ],
    ),
    plot(
        "Held-out style",
        "distance of the watched pictures from the references in the backbone's features; no part of training, lower is nearer",
        &[("distance", "")],
    ),
    plot(
        "Diversity",
        "mean distance between two watched pictures; half of the first one is a collapse",
        &[("diversity", "")],
    ),
    plot(
        "Silhouettes",
        "overlap of the watched pictures' shapes with the base model's",
        &[("silhouettes", "")],
    ),
    plot(
        "Judge's accuracy",
        "part of what it sees that it puts on the right side; 0.5 is chance",
        &[("head_accuracy", "")],
    ),
    plot("Judge's loss", "hinge loss of its last step", &[("head_loss", "")]),
    plot("Advantage spread", "root mean square of the advantages", &[("advantage_spread", "")]),
    plot("Reward spread", "deviation of rewards within groups", &[("reward_spread", "")]),
    plot("Gradient norm", "before clipping", &[("gradient_norm", "")]),
    plot("Agreement of gradients", "cosine between two halves of the pictures", &[("agreement", "")]),
    plot("Learning rate", "of the last step", &[("rate", "")]),
    plot("Clip fraction", "part of ratios outside the clip range", &[("clip_fraction", "")]),
    plot("KL", "distance from the base model's steps", &[("kl", "")]),
    plot("Anchor", "distance from the warm start where noise is high", &[("anchor_loss", "")]),
    plot(
        "Supervised loss",
        "and, where it is measured, distance from the base model on its own pictures",
        &[("supervised_loss", "references"), ("prior_loss", "base model")],
    ),
    plot("Seconds", "of an iteration", &[("seconds", "")]),
    Plot {
        title: "Memory",
        about: "most that the device held so far, GB",
        keys: &[("memory", "")],
        unit: 1e9,
    },
    plot("Warm start", "supervised loss over its steps", &[("loss", "")]),
];

/// A chart's box; nothing where there are no lines. One that has no points keeps its colour from others.
fn figure(title: &str, about: &str, lines: Vec<(String, Vec<(f64, f64)>)>) -> Markup {
    let (names, points): (Vec<_>, Vec<_>) = lines.into_iter().take(LINES).unzip();
    let Some(svg) = chart(title, &points) else { return html! {} };
    let drawn =
        names.iter().enumerate().zip(&points).filter(|((_, n), points)| !n.is_empty() && !points.is_empty());
    let drawn = drawn.map(|(name, _)| name);
    html! {
        figure .chart {
            figcaption { strong { (title) } " " span .aside { (about) } }
            (PreEscaped(svg))
            p .legend { @for (i, name) in drawn { span class=(format!("key k{i}")) { (name) } " " } }
        }
    }
}

/// All charts of a run.
pub fn of_one(record: &Record) -> Markup {
    let figures = PLOTS.iter().map(|p| {
        let lines = p.keys.iter().map(|(key, name)| (name.to_string(), points(record, key, p.unit)));
        figure(p.title, p.about, lines.collect())
    });
    html! { div .charts { @for f in figures { (f) } } }
}

/// The same numbers of several runs over each other.
pub fn of_many(records: &[(String, &Record)]) -> Markup {
    let all = PLOTS.iter().flat_map(|p| p.keys.iter().map(move |key| (p, key)));
    let figures = all.map(|(p, (key, name))| {
        let lines = records.iter().map(|(run, record)| (run.clone(), points(record, key, p.unit)));
        let title = if name.is_empty() { p.title.to_string() } else { format!("{}: {name}", p.title) };
        figure(&title, p.about, lines.collect())
    });
    html! { div .charts { @for f in figures { (f) } } }
}

fn points(record: &Record, key: &str, unit: f64) -> Vec<(f64, f64)> {
    record.course.points(key).iter().map(|(x, y)| (*x, y / unit)).collect()
}
