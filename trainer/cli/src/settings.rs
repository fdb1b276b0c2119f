//! What is set for a training, from least to most: a recipe or preset, `--settings FILE`, options of their own, `--set`. And
//! `pentimento settings`.
pub mod toml;

use clap::Args as ClapArgs;
use pentimento_trainer::recipe::{PRESETS, Recipe};
use pentimento_trainer::settings::{MOST_SECONDS, Settings};
use pentimento_trainer::{Error, Result};
use std::path::PathBuf;

/// Which recipe or preset to begin with.
#[derive(ClapArgs)]
pub struct Base {
    /// What is done, and in which order; with `released`, --iterations counts epochs, with `sft` tens of steps. `default` unless
    /// --settings says another.
    #[arg(long, value_parser = Recipe::NAMES, conflicts_with = "official")]
    recipe: Option<String>,
    /// The same as --recipe released.
    #[arg(long)]
    official: bool,
    /// Settings by purpose: `quick` for a first look, `balanced` is the default recipe, `thorough` trains longer, `official` is the released
    /// schedule. How long it takes is said before it begins.
    #[arg(long, value_parser = PRESETS.map(|p| p.name), conflicts_with_all = ["recipe", "official"])]
    pub preset: Option<String>,
}

impl Base {
    fn name(&self) -> Option<&str> {
        if self.official { Some("released") } else { self.recipe.as_deref() }
    }
    /// Its settings; `named` is the recipe that a file or --set names.
    fn settings(&self, named: Option<&str>, slow: bool) -> Result<Settings> {
        match (&self.preset, named) {
            (Some(_), Some(recipe)) => Err(Error::bad("--preset", "no recipe beside it", recipe)),
            (Some(preset), None) => Settings::preset(preset, slow),
            (None, named) => Settings::recipe(named.unwrap_or("default"), slow),
        }
    }
}

/// A setting's value as a person wrote it, and where.
pub struct Entry {
    /// File and line, or the option.
    pub place: String,
    pub name: String,
    pub text: String,
}

#[derive(ClapArgs)]
pub struct SettingArgs {
    #[command(flatten)]
    pub base: Base,
    /// File of settings, as `pentimento settings` prints them and a run leaves them in OUT; what it does not name is as in its recipe.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// A setting by its name, as in optim.rate=3e-4; may be given again. `pentimento settings` lists them.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Part of the reward, 0 to 1, that a CLIP's --reward-model gives for images that are what their prompts say.
    #[arg(long, value_parser = of("head.alignment"))]
    alignment: Option<String>,
    /// Train for about this long instead of a number of iterations.
    #[arg(long, conflicts_with = "iterations", value_parser = minutes)]
    minutes: Option<f64>,
    /// Iterations after the warm start.
    #[arg(long, value_parser = of("iterations"))]
    iterations: Option<String>,
    /// Supervised steps on the references before the first iteration.
    #[arg(long, value_parser = of("warm.steps"))]
    warm_steps: Option<String>,
    /// Iterations from one look at fixed pictures to the next, which may end the training or go back to an earlier adapter;
    /// 0: none.
    #[arg(long, value_parser = of("watch.every"))]
    watch_every: Option<String>,
    /// Everything random follows from it.
    #[arg(long, value_parser = of("seed"))]
    seed: Option<String>,
    /// LoRA rank; 16, or 32 with --recipe released, by default.
    #[arg(long, value_parser = of("rank"))]
    rank: Option<String>,
    /// Stay within so much of the device's memory, as in 6GB: by computing values again, then by fewer images at a time. By default what
    /// the device has.
    #[arg(long, value_name = "BYTES", value_parser = of("memory"))]
    memory: Option<String>,
    /// What to do with references that are not square: crop the centre, pad, or squash, which the released recipe always does.
    #[arg(long, value_name = "cover|pad|squash", value_parser = of("fit"))]
    fit: Option<String>,
    /// Colour behind transparent references and around padded ones; white by default.
    #[arg(long, value_name = "RRGGBB", value_parser = of("background"))]
    background: Option<String>,
    /// T5 tokens of a prompt; 256, or 128 with --recipe released, by default.
    #[arg(long, value_parser = of("text_tokens"))]
    text_tokens: Option<String>,
    /// Quantise the model's matrices to 8 or 4 bits while loading: half or a quarter of the memory, and an approximation of the model.
    #[arg(long = "base", value_name = "q8|q4", value_parser = of("base"))]
    base_bits: Option<String>,
    /// Values to compute again on the way back instead of keeping them: less memory, up to a third more work. `most` leaves attentions out. By
    /// default as few as the device's memory allows.
    #[arg(long, value_name = "none|most|all", value_parser = of("recompute"))]
    recompute: Option<String>,
    /// Keep the networks' weights in the host's memory, from where they come to the device for each pass: the same results in about 3 GB of
    /// the device's memory for SD3.5-medium at 512 pixels, and later. Done without a word where the device's memory asks for it.
    #[arg(long)]
    stream: bool,
}

/// Takes what a setting takes.
fn of(name: &'static str) -> impl Fn(&str) -> Result<String> + Clone {
    move |text| Settings::default().set(name, text).map(|()| text.into())
}
fn pair(text: &str) -> core::result::Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a setting's name, =, and its value")?;
    Ok((name.trim().into(), value.trim().into()))
}
fn minutes(text: &str) -> core::result::Result<f64, &'static str> {
    let of = text.parse().ok().filter(|m| *m > 0.0 && 60.0 * *m <= MOST_SECONDS);
    of.ok_or("a positive number of minutes")
}

impl SettingArgs {
    /// Options that have a setting's name.
    fn options(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("head.alignment", &self.alignment),
            ("iterations", &self.iterations),
            ("warm.steps", &self.warm_steps),
            ("watch.every", &self.watch_every),
            ("seed", &self.seed),
            ("rank", &self.rank),
            ("memory", &self.memory),
            ("fit", &self.fit),
            ("background", &self.background),
            ("text_tokens", &self.text_tokens),
            ("base", &self.base_bits),
            ("recompute", &self.recompute),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text.as_deref()?)))
        .chain(self.stream.then_some(("stream", "true")))
    }

    /// All settings of a run; `slow` as for [`Settings::recipe`].
    ///
    /// # Errors
    /// A file that cannot be read; names and values that no setting has.
    pub fn resolve(&self, slow: bool) -> Result<Settings> {
        let file = self.settings.as_deref().map_or(Ok(Vec::new()), toml::read)?;
        let set = self.set.iter().map(|(name, text)| Entry {
            place: format!("--set {name}"),
            name: name.clone(),
            text: text.clone(),
        });
        let set: Vec<Entry> = set.collect();
        let recipe = |of: &[Entry]| of.iter().rfind(|e| e.name == "recipe").map(|e| e.text.clone());
        let named = recipe(&set).or_else(|| self.base.name().map(String::from)).or_else(|| recipe(&file));
        let mut settings = self.base.settings(named.as_deref(), slow)?;
        take(&mut settings, &file)?;
        if self.iterations.is_some() {
            settings.seconds = None;
        }
        settings.seconds = self.minutes.map(|m| 60.0 * m).or(settings.seconds);
        self.options().try_for_each(|(name, text)| settings.set(name, text))?;
        take(&mut settings, &set)?;
        settings.check()?;
        Ok(settings)
    }
}

/// Sets all but the recipe, which was begun with.
fn take(settings: &mut Settings, entries: &[Entry]) -> Result<()> {
    let mut others = entries.iter().filter(|e| e.name != "recipe");
    others.try_for_each(|e| settings.set(&e.name, &e.text).map_err(|error| error.at(&e.place)))
}

/// `pentimento settings`.
#[derive(ClapArgs)]
pub struct Args {
    #[command(flatten)]
    base: Base,
    /// As on devices on which an iteration takes many seconds, such as CPU drivers, and for large models.
    #[arg(long)]
    slow: bool,
}

/// Prints all settings as a file that `--settings` takes.
pub fn run(args: &Args) -> Result<()> {
    let settings = args.base.settings(args.base.name(), args.slow)?;
    let head = "Settings of `pentimento personalize`, for --settings FILE or --set NAME=VALUE.";
    let text = toml::write(&settings, args.slow, head)?;
    text.lines().for_each(|line| println!("{line}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::fs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        own: SettingArgs,
    }
    fn resolve(args: &[&str]) -> core::result::Result<Settings, String> {
        let line = Line::try_parse_from(["x"].iter().chain(args)).map_err(|e| e.to_string())?;
        line.own.resolve(true).map_err(|e| e.to_string())
    }
    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pentimento-{name}-{}.toml", std::process::id()));
        fs::write(&path, text).expect("a file");
        path
    }

    #[test]
    fn what_is_printed_gives_the_same_settings() {
        for slow in [true, false] {
            for name in Recipe::NAMES {
                let own = Settings::recipe(name, slow).expect("a recipe");
                let path = file("printed", &toml::write(&own, slow, "A head.").expect("a text"));
                assert_eq!(resolve(&["--settings", path.to_str().expect("a path")]), Ok(own));
                fs::remove_file(path).expect("removed");
            }
        }
        for preset in PRESETS {
            let own = resolve(&["--preset", preset.name]).expect(preset.name);
            let path = file("preset", &toml::write(&own, true, "A head.").expect("a text"));
            assert_eq!(resolve(&["--settings", path.to_str().expect("a path")]), Ok(own));
        }
    }

    #[test]
    fn what_is_said_last_and_closest_wins() {
        let path = file("order", "iterations = 7\nseconds = 9\n[optim]\nrate = 1e-3\nema=0.5\n");
        let path = path.to_str().expect("a path");
        let own = resolve(&["--settings", path]).expect("settings");
        let (rate, ema) = (own.config.optim.rate, own.config.optim.ema);
        assert_eq!((own.config.iterations, own.seconds, rate, ema), (7, Some(9.0), 1e-3, 0.5));
        let own = resolve(&["--settings", path, "--iterations", "8"]).expect("settings");
        assert_eq!((own.config.iterations, own.seconds), (8, None));
        let sets = ["--set", "iterations=9", "--set", "optim.ema = 0.25", "--iterations", "8"];
        let own = resolve(&[&["--settings", path], &sets[..]].concat()).expect("settings");
        assert_eq!((own.config.iterations, own.config.optim.ema), (9, 0.25));
        let own = resolve(&["--set", "recipe=grpo", "--minutes", "2"]).expect("settings");
        let grpo = Settings::recipe("grpo", true).expect("a recipe");
        assert_eq!(own, Settings { seconds: Some(120.0), ..grpo });
        assert_eq!(resolve(&["--official"]), resolve(&["--preset", "official"]));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let path = file("mistakes", "# mine\niterations = 7\n\noptim.rat = 1e-3\n");
        let error = resolve(&["--settings", path.to_str().expect("a path")]).expect_err("a name");
        assert!(error.contains("mistakes") && error.contains("line 4: optim.rat"), "{error}");
        assert!(error.contains("Did you mean optim.rate?"), "{error}");
        for (args, what) in [
            (&["--set", "optim.rate=2"][..], "--set optim.rate: expected a number, 0 to 1, found 2.0"),
            (&["--set", "optim.rate"], "a setting's name, =, and its value"),
            (&["--base", "q5"], "none, q8 or q4"),
            (
                &["--preset", "quick", "--set", "recipe=nft"],
                "--preset: expected no recipe beside it, found nft",
            ),
            (&["--preset", "fast"], "quick, balanced, thorough, official"),
            (&["--recipe", "released", "--fit", "pad"], "fit: expected squash"),
            (&["--minutes", "0"], "a positive number of minutes"),
            (&["--recipe", "grpo", "--set", "rollout.window=9"], "rollout.window: expected"),
        ] {
            let error = resolve(args).expect_err(what);
            assert!(error.contains(what), "{error}");
        }
        for (text, what) in [
            ("a = [1]", "line 1: a: expected a number, true, false or a text in quotes, found array"),
            ("\noptim = 1\n", "line 2: optim: expected the name of a setting"),
            ("iterations = ", "line 1"),
            ("seed = 1\nseed = 2", "line 2"),
        ] {
            let path = file("bad", text);
            let error = resolve(&["--settings", path.to_str().expect("a path")]).expect_err(what);
            assert!(error.contains(what), "{error}");
        }
    }
}
