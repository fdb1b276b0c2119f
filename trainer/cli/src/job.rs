//! A training of the command line's, from its first picture to its last, with less at a time where the device runs out of memory.
use crate::ask::Ask;
use crate::device::Keeper;
use crate::generate::{draw, say_cuts};
use crate::out::{ADAPTER, AFTER, BEFORE, Out, RUN, SETTINGS, SHOWN_REFERENCES, STATE};
use crate::page;
use crate::personalize::Args;
use crate::progress::Spinner;
use crate::report::{Previews, Report, save_sheet};
use crate::settings::toml;
use crate::stop::Stop;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Sampling, Text};
use pentimento_runtime::shown::shown;
use pentimento_trainer::config::Config;
use pentimento_trainer::estimate;
use pentimento_trainer::files::write_atomically;
use pentimento_trainer::images::{MAX_SIDE, Picture};
use pentimento_trainer::settings::Settings;
use pentimento_trainer::train::{Setup, Trainer};
use pentimento_trainer::{Error, Result};
use serde_json::json;
use std::time::Duration;

/// How pictures of a contact sheet are sampled.
const SHEET_STEPS: usize = 10;
const SHEET_GUIDANCE: f32 = 4.5;
const SHEET_SEED: u64 = 1000;
/// Largest state that is read, bytes.
const MOST_STATE: u64 = 1 << 36;

/// What a training is made from.
pub struct Job<'a> {
    pub args: &'a Args,
    pub setup: Setup<'a>,
    /// What is set.
    pub settings: Settings,
    /// Whether that is for slow devices.
    pub slow: bool,
    /// Prompts of the contact sheets.
    pub show: Vec<String>,
    /// Width and height of each picture, pixels.
    pub size: [usize; 2],
    pub stop: &'a Stop,
    /// Asks for previews.
    pub ask: &'a Ask,
}

/// A run's state and where it came from.
type State = (String, Vec<u8>);

/// How an attempt ended.
enum End {
    Complete,
    /// Out of the device's memory in a phase, with what there was to save.
    Short(&'static str, Option<State>, Error),
}

impl Job<'_> {
    /// Trains to the end, again with less at a time where the device's memory runs out.
    pub fn run(&self, device: (Box<dyn Executor>, Keeper), out: &mut Out) -> Result<()> {
        let (mut device, mut config, mut state) = (Some(device), self.settings.config.clone(), None);
        if out.resumes {
            let path = out.path(STATE);
            state = Some((path.display().to_string(), pentimento_runtime::file::read(&path, MOST_STATE)?));
        }
        let mut drawn = out.resumes && out.path(BEFORE).is_file();
        loop {
            let (exec, _keeper) = device.take().map_or_else(|| self.args.device.open(), Ok)?;
            let (phase, left, error) = match self.attempt(exec, &config, &state, &mut drawn, out)? {
                End::Complete => return Ok(()),
                End::Short(phase, left, error) => (phase, left, error),
            };
            if !estimate::less(&mut config, phase) {
                return Err(error);
            }
            println!("{error}");
            println!("going on with less at a time than in `{phase}`");
            state = left.or(state);
        }
    }

    fn attempt(
        &self,
        exec: Box<dyn Executor>,
        config: &Config,
        state: &Option<State>,
        drawn: &mut bool,
        out: &mut Out,
    ) -> Result<End> {
        let loading = Spinner::new("loading");
        let mut work = match Trainer::new(exec, &self.setup, config.clone()) {
            Err(e) if e.is_out_of_memory() => return Ok(End::Short(estimate::PREPARING, None, e)),
            work => work?,
        };
        if let Some(seconds) = self.settings.seconds {
            work.set_deadline(seconds);
        }
        let from = state.as_ref().map(|(label, bytes)| work.resume(label, bytes)).transpose()?;
        drop(loading);
        self.record(&mut work, config, out)?;
        if let Some(p) = &from {
            let (warm, iteration, seconds) = (p.warm, p.iteration, p.seconds);
            println!(
                "going on after {warm} warm-start steps and {iteration} iterations, {seconds:.0} s of training"
            );
        }
        let sheet = match self.before(&mut work, drawn, out) {
            Err(e) if e.is_out_of_memory() => return Ok(End::Short(estimate::DRAWING, None, e)),
            sheet => sheet?,
        };
        let iterations = self.settings.seconds.is_none().then(|| work.config().iterations);
        let every = Duration::from_secs_f64(60.0 * self.args.save_every);
        let draw = |work: &mut Trainer| self.draw(work, &sheet);
        let previews = Previews { every: self.args.preview, ask: self.ask, draw: &draw };
        let mut report = Report::new(out, self.args.keep, iterations, every, previews);
        from.map_or(Ok(()), |from| report.go_on(&from))?;
        let ended = report.train(&mut work, self.stop);
        let (trained, saved) = (report.trained, report.save(&work));
        let (kept, memory) = (work.verdict(), work.memory().peak.total());
        let noted = report.end(how(&ended), kept.as_deref(), memory);
        drop(report);
        let phase = work.phase().unwrap_or(estimate::PREPARING);
        match ended {
            Err(e) if e.is_out_of_memory() && estimate::less(&mut config.clone(), phase) => {
                let left = work.saved().map(|_| work.save()).transpose()?;
                Ok(End::Short(phase, left.map(|bytes| ("the run's state".into(), bytes)), e))
            }
            ended => {
                let finished = self.finish(&mut work, out, ended, trained, saved, &sheet);
                if trained {
                    tell(out);
                }
                finished.and(noted).map(|()| End::Complete)
            }
        }
    }

    /// Writes what the run is made from, with which another can be told or made again.
    fn record(&self, work: &mut Trainer, config: &Config, out: &Out) -> Result<()> {
        let (version, device) = (env!("CARGO_PKG_VERSION"), work.pipeline().exec.caps().name.clone());
        let settings = Settings { config: config.clone(), ..self.settings.clone() };
        let head =
            format!("Settings of a run of pentimento {version} on {}, for --settings.", shown(&device));
        write_atomically(&out.path(SETTINGS), toml::write(&settings, self.slow, &head)?.as_bytes())?;
        let bad = |e: serde_json::Error| Error::bad("the run's identity", "JSON", e.to_string());
        let made_from: serde_json::Value = serde_json::from_str(&work.identity()).map_err(bad)?;
        let [width, height] = self.size;
        let references = self.setup.references.iter().take(SHOWN_REFERENCES);
        let references =
            references.map(|r| json!({ "name": r.name, "caption": r.caption })).collect::<Vec<_>>();
        let run = json!({
            "pentimento": version,
            "device": device,
            "model": self.setup.model.display().to_string(),
            "t5": ModelFolder::open_with(self.setup.model, self.setup.config)?.has("text_encoder_3").ok(),
            "slow": self.slow,
            "sheet": {
                "prompts": self.show, "seed": SHEET_SEED, "steps": SHEET_STEPS, "guidance": SHEET_GUIDANCE,
                "width": width, "height": height,
            },
            "references": references,
            "made_from": made_from,
        });
        let text = serde_json::to_string_pretty(&run).map_err(bad)?;
        write_atomically(&out.path(RUN), (text + "\n").as_bytes())
    }

    /// Reads the sheet's prompts, and draws the pictures before training where that is not done.
    fn before(&self, work: &mut Trainer, drawn: &mut bool, out: &Out) -> Result<Vec<Text>> {
        if !*drawn {
            let captions = self.setup.references.iter().filter_map(|r| r.caption.as_ref());
            let read = self.setup.prompts.iter().chain(&self.show).chain(captions);
            say_cuts(work.pipeline(), read.map(String::as_str));
        }
        let reading = Spinner::new("reading prompts");
        let shown = core::iter::once("").chain(self.show.iter().map(String::as_str));
        let sheet = work.encode(&shown.collect::<Vec<_>>(), &mut || !self.stop.asked())?;
        drop(reading);
        if !*drawn {
            save_sheet(&out.path(BEFORE), &self.draw(work, &sheet)?, MAX_SIDE)?;
            *drawn = true;
        }
        Ok(sheet)
    }

    /// Pictures of the same prompts and seeds, before and after. The texts are kept, so that the encoders are not needed again.
    fn draw(&self, work: &mut Trainer, sheet: &[Text]) -> Result<Vec<Picture>> {
        let [width, height] = self.size;
        let how = Sampling { steps: SHEET_STEPS, guidance: SHEET_GUIDANCE, width, height };
        let mut pictures = Vec::new();
        let rows = work.config().at_once.sample.min(estimate::SHEET);
        draw(work.pipeline(), sheet, rows, SHEET_SEED, &how, self.stop, &mut |_, picture| {
            pictures.push(picture);
            Ok(())
        })?;
        Ok(pictures)
    }

    /// Keeps what there is: in the folder where the run is complete, else where it worked.
    fn finish(
        &self,
        work: &mut Trainer,
        out: &mut Out,
        ended: Result<bool>,
        trained: bool,
        state: Result<bool>,
        sheet: &[Text],
    ) -> Result<()> {
        let complete = ended == Ok(true);
        let saved = if complete || trained {
            work.verdict().iter().for_each(|sentence| println!("{sentence}"));
            work.adapter().and_then(|adapter| adapter.save(&out.path(ADAPTER)))
        } else {
            println!("nothing was trained, so there is no adapter");
            Ok(())
        };
        if !complete {
            if trained && saved.is_ok() {
                println!("adapter so far: {}", out.path(ADAPTER).display());
            }
            if state == Ok(true) {
                println!("the same command with --resume goes on from here");
            }
            ended?;
            saved?;
            state?;
            return Err(Error::Cancelled);
        }
        saved?;
        let drawn = work.show_average(true).and_then(|()| self.draw(work, sheet));
        let drawn = drawn.and_then(|pictures| save_sheet(&out.path(AFTER), &pictures, MAX_SIDE));
        if trained || !out.guards() {
            out.complete()?;
        } else {
            println!("nothing was trained, so the earlier run's files stay");
        }
        println!("adapter: {}", out.path(ADAPTER).display());
        drawn?;
        println!("the device's memory held at most {}", estimate::megabytes(work.memory().peak.total()));
        println!("pictures: {} and {}", out.path(BEFORE).display(), out.path(AFTER).display());
        state.map(drop)
    }
}

/// Names an end.
fn how(ended: &Result<bool>) -> &'static str {
    match ended {
        Ok(true) => "complete",
        Ok(false) | Err(Error::Cancelled) => "stopped",
        Err(_) => "failed",
    }
}

/// Writes the run's report. Without one nothing is lost.
fn tell(out: &Out) {
    match page::write(&out.path("")) {
        Ok(path) => println!("report: {}", path.display()),
        Err(e) => eprintln!("no report was written: {e}"),
    }
}
