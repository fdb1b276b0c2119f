//! A training as it is told: lines and bars for people, `metrics.jsonl` for programs, adapters on the way.
use crate::ask::Ask;
use crate::course::Course;
use crate::memory::time;
use crate::out::{ADAPTER, LOOKS, METRICS, Out, PREVIEW, STATE, WARM_START, iteration};
use crate::page::within;
use crate::progress::Phase;
use crate::stop::Stop;
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::images::{COLUMNS, Filter, GAP, Picture, contact_sheet};
use pentimento_trainer::stage::watch::{Look, Looked};
use pentimento_trainer::train::{Event, Metrics, Progress, Trainer};
use pentimento_trainer::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Least time from one adapter that is written in case of a crash to the next.
const SAVE: Duration = Duration::from_secs(30);

/// `metrics.jsonl`, rewritten whole with every line.
struct Log {
    path: PathBuf,
    text: String,
    start: Instant,
    /// Seconds until then, of the run that is gone on with.
    before: f64,
    /// What the lines say.
    course: Course,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        Log { path, text: String::new(), start: Instant::now(), before: 0.0, course: Course::default() }
    }
    /// Keeps the lines of what a run had come to when it was saved.
    fn go_on(&mut self, from: &Progress) -> Result<()> {
        (self.text, self.start) = (String::new(), Instant::now());
        let old = pentimento_runtime::file::text_if_there(&self.path, MOST_METRICS)?.unwrap_or_default();
        for line in old.lines() {
            let Ok(row) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let kept = |key: &str, most: Option<usize>| {
                row.get(key)
                    .and_then(serde_json::Value::as_u64)
                    .is_none_or(|n| most.is_some_and(|m| n <= m as u64))
            };
            if kept("warm", Some(from.warm))
                && kept("iteration", Some(from.iteration))
                && kept("watch", from.looked)
                && row.get("end").is_none()
            {
                self.course.take(&row);
                self.text.push_str(line);
                self.text.push('\n');
                self.before = row.get("elapsed").and_then(serde_json::Value::as_f64).unwrap_or(self.before);
            }
        }
        Ok(())
    }
    /// Adds an object, with the seconds so far; returns words for it where there is something new to say.
    fn add(&mut self, mut line: serde_json::Value) -> Result<Option<String>> {
        line["elapsed"] = json!(self.before + self.start.elapsed().as_secs_f64());
        self.text.push_str(&line.to_string());
        self.text.push('\n');
        write_atomically(&self.path, self.text.as_bytes())?;
        Ok(self.course.take(&line))
    }
}

/// A metrics file of that many bytes has lines of a million iterations.
const MOST_METRICS: u64 = 1 << 30;
/// A state is saved when so many times the time that it takes have passed: it costs less than a hundredth.
const COST: u32 = 100;

/// Saves the training's state, now and then.
struct Saver {
    path: PathBuf,
    every: Duration,
    /// What the file holds.
    last: Option<Progress>,
    at: Instant,
    /// How long it took.
    cost: Duration,
}

impl Saver {
    fn new(path: PathBuf, every: Duration) -> Self {
        Saver { path, every, last: None, at: Instant::now(), cost: Duration::ZERO }
    }
    /// Saves where there is something new and it is time.
    fn now_and_then(&mut self, trainer: &Trainer) -> Result<()> {
        let due = self.last.is_none() || self.at.elapsed() >= self.every.min(self.cost * COST);
        if due && trainer.saved() != self.last {
            self.save(trainer)?;
        }
        Ok(())
    }
    fn save(&mut self, trainer: &Trainer) -> Result<bool> {
        // What comes before training is done anew anyway.
        let worth = |p: &Progress| p.warm + p.iteration > 0;
        let Some(progress) = trainer.saved().filter(worth) else { return Ok(false) };
        let began = Instant::now();
        if self.last.as_ref() != Some(&progress) {
            write_atomically(&self.path, &trainer.save()?)?;
            (self.last, self.cost, self.at) = (Some(progress), began.elapsed(), Instant::now());
        }
        Ok(true)
    }
}

/// When and how the pictures of the contact sheet are drawn on the way.
pub struct Previews<'a> {
    /// After every so many iterations; 0: when asked.
    pub every: usize,
    pub ask: &'a Ask,
    pub draw: &'a dyn Fn(&mut Trainer) -> Result<Vec<Picture>>,
}

/// Tells of a training and keeps what it makes.
pub struct Report<'a> {
    out: &'a Out,
    /// Keep the adapter of every iteration.
    keep: bool,
    previews: Previews<'a>,
    log: Log,
    phase: Phase,
    /// What the phase is.
    label: &'static str,
    saved: Instant,
    state: Saver,
    /// Iterations done, and all of them where time does not decide.
    iteration: usize,
    iterations: Option<usize>,
    /// Whether there is anything in the adapter.
    pub trained: bool,
}

impl<'a> Report<'a> {
    pub fn new(
        out: &'a Out,
        keep: bool,
        iterations: Option<usize>,
        every: Duration,
        previews: Previews<'a>,
    ) -> Self {
        let label = "preparing";
        let (log, phase) = (Log::new(out.path(METRICS)), Phase::new(label, 1));
        let (saved, iteration, trained) = (Instant::now(), 0, false);
        let state = Saver::new(out.path(STATE), every);
        Report { out, keep, previews, log, phase, label, saved, state, iteration, iterations, trained }
    }
    /// Goes on with what was told of a run until it was saved.
    pub fn go_on(&mut self, from: &Progress) -> Result<()> {
        self.iteration = from.iteration;
        self.trained = from.warm + from.iteration > 0;
        self.log.go_on(from)
    }
    /// Saves all that the run is, whatever it costs; false when there is nothing to save.
    pub fn save(&mut self, trainer: &Trainer) -> Result<bool> {
        self.state.save(trainer)
    }

    /// Steps until done; false when stopped before.
    pub fn train(&mut self, trainer: &mut Trainer, stop: &Stop) -> Result<bool> {
        while !stop.asked() {
            let event = trainer.step()?;
            if matches!(event, Event::Done) {
                return Ok(true);
            }
            if let Some(looked) = trainer.take_looked() {
                self.look(&looked)?;
            }
            self.tell(trainer, event)?;
            self.state.now_and_then(trainer)?;
        }
        Ok(false)
    }

    /// True when a phase of that name begins.
    fn begins(&mut self, label: &'static str, all: usize) -> bool {
        let begins = self.label != label;
        if begins {
            self.label = label;
            self.phase = Phase::new(label, all);
        }
        begins
    }

    /// Keeps what a look saw.
    fn look(&self, looked: &Looked) -> Result<()> {
        save_sheet(&self.out.path(&LOOKS.name(looked.iteration)), &looked.pictures, LOOKS.side)
    }
    /// Draws a preview where one is due, between two steps that need nothing of each other.
    fn preview(&mut self, trainer: &mut Trainer, iteration: Option<usize>) -> Result<()> {
        let every = self.previews.every;
        let due = iteration.is_some_and(|n| every > 0 && n.is_multiple_of(every));
        if !(self.previews.ask.taken() || due) {
            return Ok(());
        }
        let path = self.out.path(&PREVIEW.name(iteration.or(Some(0))));
        trainer.show_average(true)?;
        let drawn = (self.previews.draw)(trainer);
        trainer.show_average(false)?;
        match drawn {
            Err(Error::Cancelled) => return Ok(()), // who stopped it stops the training
            drawn => save_sheet(&path, &drawn?, PREVIEW.side)?,
        }
        self.phase.say(format_args!("preview: {}", path.display()));
        Ok(())
    }
    /// How the run ended, for whoever reads the metrics.
    pub fn end(&mut self, how: &str, kept: Option<&str>, memory: u64) -> Result<()> {
        self.log.add(json!({"end": how, "kept": kept, "memory": memory})).map(drop)
    }
    /// Adds a line to the metrics, and says what it means.
    fn log(&mut self, line: serde_json::Value) -> Result<()> {
        let words = self.log.add(line)?;
        words.iter().for_each(|words| self.phase.say(format_args!("     {words}")));
        Ok(())
    }

    fn tell(&mut self, trainer: &mut Trainer, event: Event) -> Result<()> {
        match event {
            Event::Working | Event::Wanted | Event::Done => {}
            Event::Encoded(done, all) => self.phase.set(done, all, ""),
            Event::Warm(done, all, loss) => {
                self.trained = true;
                self.begins("warm start", all);
                self.phase.set(done, all, format_args!(", loss {loss:.4}"));
                self.log(json!({"warm": done, "loss": loss}))?;
                self.preview(trainer, None)?;
            }
            Event::Looking(done, all) => {
                self.begins("looking", all);
                self.phase.set(done, all, "");
            }
            Event::Part(done, all) => {
                if self.begins("training", all) && self.iteration == 0 {
                    // What the warm start alone gives, for comparison.
                    trainer.average()?.save(&self.out.path(WARM_START))?;
                }
                let now = done.min(all.saturating_sub(1));
                match self.iterations {
                    Some(n) => self.phase.set(self.iteration * all + now, n * all, " parts"),
                    None => {
                        self.phase.set(now, all, format_args!(" parts of iteration {}", self.iteration + 1))
                    }
                }
            }
            Event::Iteration(m) => {
                self.trained = true;
                self.iteration = m.iteration;
                self.phase.say(summary(&m));
                // The first one builds shaders.
                if let (2, Some(left)) =
                    (m.iteration, self.iterations.and_then(|n| n.checked_sub(2)).filter(|n| *n > 0))
                {
                    let rest = time(left as f64 * m.seconds);
                    self.phase.say(format_args!("{left} iterations like this one take {rest}"));
                }
                self.log(record(&m, trainer.memory().peak.total()))?;
                if self.keep {
                    trainer.average()?.save(&self.out.path(&iteration(m.iteration)))?;
                }
                if self.saved.elapsed() >= SAVE {
                    trainer.adapter()?.save(&self.out.path(ADAPTER))?;
                    self.saved = Instant::now();
                }
                self.preview(trainer, Some(m.iteration))?;
            }
            Event::Watch(look) => {
                self.phase.say(glance(&look));
                self.log(looked(&look))?;
            }
        }
        Ok(())
    }
}

/// Writes a contact sheet of pictures that are at most `side` pixels a side.
pub fn save_sheet(path: &Path, pictures: &[Picture], side: u32) -> Result<()> {
    let smaller = |p: &Picture| match within([p.width(), p.height()], side) {
        [w, h] if [w, h] == [p.width(), p.height()] => Ok(p.clone()),
        [w, h] => p.resized(w, h, Filter::Bilinear),
    };
    let pictures = pictures.iter().map(smaller).collect::<Result<Vec<_>>>()?;
    write_atomically(path, &contact_sheet(&pictures, COLUMNS, GAP)?.to_png()?)
}

fn summary(m: &Metrics) -> String {
    if m.supervised_loss > 0.0 {
        let Metrics { iteration, supervised_loss, prior_loss, gradient_norm, seconds, .. } = m;
        return format!(
            "{iteration:>3}  loss {supervised_loss:.4} prior {prior_loss:.4}  gradient {gradient_norm:.3}  {seconds:.1} s"
        );
    }
    format!(
        "{:>3}  reward {:+.3} (references {:+.3})  head loss {:.3} accuracy {:.2}  gradient {:.3}  {:.1} s",
        m.iteration,
        m.reward_generated,
        m.reward_reference,
        m.head_loss,
        m.head_accuracy,
        m.gradient_norm,
        m.seconds
    )
}

fn glance(look: &Look) -> String {
    let shapes = look.silhouettes.map_or("without silhouettes".into(), |s| format!("silhouettes {s:.2}"));
    let (distance, diversity) = (look.distance, look.diversity);
    let end = look.stop.as_ref().map_or(String::new(), |why| format!("\n{why}"));
    format!("{:>3}  {shapes}  distance {distance:.3}  diversity {diversity:.1}{end}", look.iteration)
}

fn looked(look: &Look) -> serde_json::Value {
    json!({
        "watch": look.iteration,
        "silhouettes": look.silhouettes,
        "distance": look.distance,
        "diversity": look.diversity,
        "head_loss": look.head_loss,
        "best": look.best,
        "stop": look.stop,
    })
}

fn record(m: &Metrics, memory: u64) -> serde_json::Value {
    json!({
        "iteration": m.iteration,
        "reward_generated": m.reward_generated,
        "reward_reference": m.reward_reference,
        "reward_spread": m.reward_spread,
        "head_loss": m.head_loss,
        "head_accuracy": m.head_accuracy,
        "advantage_spread": m.advantage_spread,
        "clip_fraction": m.clip_fraction,
        "kl": m.kl,
        "agreement": m.agreement,
        "rate": m.rate,
        "reward_pathwise": m.reward_pathwise,
        "anchor_loss": m.anchor_loss,
        "gradient_norm": m.gradient_norm,
        "supervised_loss": m.supervised_loss,
        "prior_loss": m.prior_loss,
        "seconds": m.seconds,
        "memory": memory,
    })
}
