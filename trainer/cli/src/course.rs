//! How a training goes, from its lines of `metrics.jsonl`: series of numbers, and words for a person. The same while it runs and
//! afterwards, from the file, whose lines may then hold anything.
use pentimento_runtime::shown::Shown;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a line of each kind is told by, and its numbers that are kept.
const KINDS: [(&str, &[&str]); 3] = [
    ("warm", &["loss"]),
    ("watch", &["silhouettes", "distance", "diversity"]),
    (
        "iteration",
        &[
            "reward_generated",
            "reward_reference",
            "reward_pathwise",
            "reward_spread",
            "head_loss",
            "head_accuracy",
            "advantage_spread",
            "clip_fraction",
            "agreement",
            "rate",
            "anchor_loss",
            "gradient_norm",
            "supervised_loss",
            "prior_loss",
            "kl",
            "seconds",
            "memory",
        ],
    ),
];
/// Most points of a series, and the largest numbers: beyond them nothing is drawn.
const MOST_POINTS: usize = 1_000_000;
const MOST_AT: f64 = 1e9;
const MOST_VALUE: f64 = 1e15;
/// Most words, and characters of a sentence that a file holds.
const MOST_WORDS: usize = 1000;
const MOST_TEXT: usize = 600;

/// The judge is ahead where so much of what it sees is on the right side, and behind where so little is, in the mean of as many iterations.
const AHEAD: f64 = 0.95;
const BEHIND: f64 = 0.6;
const JUDGED: usize = 3;
/// Pictures came nearer, or supervised losses fell, when they are below this part of what they were; and pictures stand still while distance
/// and diversity change by less, twice in a row.
const NEARER: f64 = 0.97;
/// They are going away beyond this many times the best distance.
const FURTHER: f64 = 1.1;
/// Iterations whose supervised losses are compared with as many before.
const LOSSES: usize = 5;

/// A look at the watched pictures.
#[derive(Clone, Copy)]
struct Glance {
    distance: f64,
    diversity: f64,
    /// Whether it shows what the one before did.
    still: bool,
}

/// How a run ended.
pub struct End {
    /// `complete`, `stopped` or `failed`.
    pub how: String,
    /// Which adapter is kept, and why.
    pub kept: Option<String>,
}

/// What is known of a training so far.
#[derive(Default)]
pub struct Course {
    series: BTreeMap<&'static str, Vec<(f64, f64)>>,
    /// What was said after which iteration.
    pub words: Vec<(f64, String)>,
    pub end: Option<End>,
    /// Seconds that the lines span.
    pub elapsed: f64,
    best: Option<f64>,
    last: Option<Glance>,
    /// What was said last of the judge, and of the pictures.
    said: [&'static str; 2],
}

impl Course {
    /// Takes in a line, and gives words for it where there is something new to say. `None` for an object of another kind as well; whether
    /// it was one says [`Course::knows`].
    pub fn take(&mut self, line: &Value) -> Option<String> {
        self.elapsed = number(line, "elapsed").unwrap_or(self.elapsed).max(self.elapsed);
        if let Some(how) = text(line, "end") {
            self.end = Some(End { how, kept: text(line, "kept") });
            return None;
        }
        let (kind, keys) = KINDS.iter().find(|(kind, _)| line.get(kind).is_some())?;
        let at = number(line, kind).filter(|at| (0.0..=MOST_AT).contains(at))?;
        for key in *keys {
            let points = self.series.entry(key).or_default();
            if let Some(value) = number(line, key).filter(|_| points.len() < MOST_POINTS) {
                points.push((at, value));
            }
        }
        let words = match *kind {
            "watch" => self.looked(line, at),
            "iteration" => self.judged(line).or_else(|| self.losses()),
            _ => None,
        }?;
        if self.words.len() < MOST_WORDS {
            self.words.push((at, words.clone()));
        }
        Some(words)
    }
    /// Whether a line is one of a training's.
    pub fn knows(line: &Value) -> bool {
        KINDS.iter().any(|(kind, _)| number(line, kind).is_some()) || line.get("end").is_some()
    }
    /// The points of a number over iterations, or over steps of the warm start; none where it is never anything but 0.
    pub fn points(&self, key: &str) -> &[(f64, f64)] {
        let points = self.series.get(key).map_or(&[][..], Vec::as_slice);
        if points.iter().all(|(_, y)| *y == 0.0) { &[] } else { points }
    }
    /// The last iteration or look.
    pub fn last(&self) -> usize {
        let at = ["seconds", "distance"].iter().filter_map(|key| self.series.get(key)?.last());
        at.fold(0.0, |most: f64, (at, _)| most.max(*at)) as usize
    }

    /// True when this was not said last of the judge (0) or the pictures (1).
    fn news(&mut self, of: usize, what: &'static str) -> bool {
        self.said.get_mut(of).is_some_and(|said| core::mem::replace(said, what) != what)
    }

    fn judged(&mut self, line: &Value) -> Option<String> {
        number(line, "head_accuracy")?;
        let seen = self.points("head_accuracy");
        let last = seen.get(seen.len().checked_sub(JUDGED)?..)?;
        let mean = last.iter().map(|(_, y)| y).sum::<f64>() / JUDGED as f64;
        let what = match mean {
            m if m >= AHEAD => "ahead",
            m if m <= BEHIND => "behind",
            _ => "even",
        };
        let before = self.said[0];
        if !self.news(0, what) {
            return None;
        }
        let part = format!("{:.0} % of what it sees", 100.0 * mean);
        match what {
            "ahead" => Some(format!("the judge is ahead: it tells {part} from references")),
            "behind" => Some(format!("the judge can hardly tell pictures from references ({part})")),
            _ if before.is_empty() => None,
            _ => Some(format!("judge and pictures are even again: it tells {part} from references")),
        }
    }

    /// Where nothing judges.
    fn losses(&mut self) -> Option<String> {
        let losses = self.points("supervised_loss");
        let last: Vec<f64> = losses.iter().rev().take(2 * LOSSES).map(|(_, y)| *y).collect();
        let (now, then) = last.split_at_checked(LOSSES).filter(|(_, then)| then.len() == LOSSES)?;
        let [now, then] = [now, then].map(|part| part.iter().sum::<f64>() / LOSSES as f64);
        let learning = now < NEARER * then;
        let news = self.news(1, if learning { "learning" } else { "still" });
        (news && learning).then(|| format!("learning: the loss falls ({now:.3}, before {then:.3})"))
    }

    fn looked(&mut self, line: &Value, at: f64) -> Option<String> {
        let kept = || match number(line, "best") {
            Some(0.0) => "adapter of the warm start kept".to_string(),
            Some(best) => format!("adapter of {best:.0} kept"),
            None => "no look found a usable adapter".to_string(),
        };
        if text(line, "stop").is_some() {
            return Some(format!("collapsing: stopped at {at:.0}, {}", kept()));
        }
        let (distance, diversity) = (number(line, "distance")?, number(line, "diversity")?);
        let best = self.best.map_or(distance, |best| best.min(distance));
        self.best = Some(best);
        let near = |now: f64, then: f64| (now - then).abs() <= (1.0 - NEARER) * then.abs();
        let before = self.last;
        let still = before.is_some_and(|b| near(distance, b.distance) && near(diversity, b.diversity));
        self.last = Some(Glance { distance, diversity, still });
        let before = before?;
        let numbers = format!("distance {distance:.2}, before {:.2}", before.distance);
        if distance > FURTHER * best {
            self.news(1, "further");
            return Some(format!("the pictures go away from the references ({numbers}; best {best:.2})"));
        }
        if still && before.still {
            return self.news(1, "still").then(|| format!("the pictures stopped changing ({numbers})"));
        }
        if distance < NEARER * before.distance {
            self.news(1, "learning");
            return Some(format!("learning: the pictures came nearer to the references ({numbers})"));
        }
        self.news(1, "");
        None
    }
}

fn number(line: &Value, key: &str) -> Option<f64> {
    line.get(key).and_then(Value::as_f64).filter(|v| v.abs() <= MOST_VALUE)
}
fn text(line: &Value, key: &str) -> Option<String> {
    let text = line.get(key).and_then(Value::as_str)?;
    Some(Shown { text, most: MOST_TEXT }.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn look(at: usize, distance: f64, diversity: f64) -> Value {
        json!({"watch": at, "distance": distance, "diversity": diversity, "best": at})
    }
    /// What is said of each line; empty for nothing.
    fn said(lines: &[Value]) -> Vec<String> {
        let mut course = Course::default();
        lines.iter().map(|line| course.take(line).unwrap_or_default()).collect()
    }

    #[test]
    fn looks_are_put_into_words() {
        let mut end = look(50, 3.0, 2.0);
        (end["stop"], end["best"]) = (json!("why"), json!(20));
        let words =
            said(&[look(0, 0.8, 20.0), look(10, 0.6, 19.0), look(20, 0.4, 19.0), look(30, 0.6, 19.0), end]);
        let expected = [
            "",
            "learning: ",
            "learning: ",
            "the pictures go away",
            "collapsing: stopped at 50, adapter of 20 kept",
        ];
        assert!(
            words.iter().zip(expected).all(|(w, e)| w.starts_with(e) && w.is_empty() == e.is_empty()),
            "{words:?}"
        );
        let still: Vec<Value> = (0..5).map(|i| look(i, 0.5 + 0.001 * i as f64, 20.0)).collect();
        let words = said(&still);
        assert_eq!(
            words.iter().map(|w| !w.is_empty()).collect::<Vec<_>>(),
            [false, false, true, false, false],
            "{words:?}"
        );
        assert!(words[2].starts_with("the pictures stopped changing"));
    }

    #[test]
    fn the_judge_is_told_of_once() {
        let of = |accuracy: f64| json!({"iteration": 1, "head_accuracy": accuracy, "seconds": 1.0});
        let words = said(&[0.99, 0.99, 0.98, 0.99, 0.5, 0.8, 0.8, 0.4, 0.4, 0.4].map(of));
        assert!(words[2].starts_with("the judge is ahead: it tells 99 %"), "{words:?}");
        assert!(words[4].starts_with("judge and pictures are even"), "{words:?}");
        assert!(words[8].starts_with("the judge can hardly"), "{words:?}");
        assert_eq!(words.iter().filter(|w| !w.is_empty()).count(), 3, "{words:?}");
    }

    #[test]
    fn losses_are_told_of_where_nothing_judges() {
        let of = |i: usize| json!({"iteration": i, "supervised_loss": 1.0 / (1.0 + i as f64), "head_accuracy": null});
        let words = said(&(1..20).map(of).collect::<Vec<_>>());
        assert_eq!(
            words.iter().filter(|w| w.starts_with("learning: the loss falls")).count(),
            1,
            "{words:?}"
        );
    }

    #[test]
    fn lines_may_hold_anything() {
        let mut course = Course::default();
        for line in [
            json!(null),
            json!([1]),
            json!("x"),
            json!({}),
            json!({"iteration": "x"}),
            json!({"iteration": -1, "seconds": 1}),
            json!({"iteration": 1e300, "seconds": 1}),
            json!({"iteration": 3, "seconds": 1e300, "head_accuracy": {}, "rate": [1]}),
            json!({"watch": 1, "distance": null, "stop": 7}),
            json!({"end": 3}),
        ] {
            assert_eq!(course.take(&line), None, "{line}");
        }
        assert!(
            course.end.is_none()
                && course.points("seconds").is_empty()
                && course.points("nothing").is_empty()
        );
        course.take(&json!({"end": "stopped", "kept": "\u{1b}[2J".repeat(900)}));
        let end = course.end.expect("an end");
        assert!(end.how == "stopped" && end.kept.is_some_and(|k| k.len() < 3000 && !k.contains('\u{1b}')));
    }
}
