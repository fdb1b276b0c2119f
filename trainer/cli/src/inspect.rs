//! `pentimento inspect`: what a file or folder holds, compared with what the networks read.
use clap::Args as ClapArgs;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::folder::{Component, ModelFolder, open_component, open_tensors};
use pentimento_runtime::model::contents::{self, Contents};
use pentimento_runtime::pipeline::TextSettings;
use pentimento_runtime::shown;
use pentimento_trainer::adapted::{self, Source};
use pentimento_trainer::adapter::{self, Adapter, is_adapter, layers};
use pentimento_trainer::{Error, Result};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(ClapArgs)]
pub struct Args {
    /// A model folder, a component folder, a single safetensors or GGUF file, or an adapter (as `generate` takes it, so with
    /// a strength behind a colon, too).
    path: OsString,
    /// For an adapter: the model to draw with. Says whether `generate` would take both.
    #[arg(long)]
    model: Option<PathBuf>,
    /// For a single file: a diffusers folder with what it lacks (tokenizers, configurations, other components).
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Parts of a pipeline that hold weights, and those without which nothing can be drawn.
const NETWORKS: [&str; 5] = ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"];
const TOKENIZERS: [&str; 3] = ["tokenizer", "tokenizer_2", "tokenizer_3"];
/// The one of T5, which may be absent.
const UNIGRAM: &str = "tokenizer_3";
/// Names that are printed of each list; the rest is counted.
const SHOWN: usize = 10;

pub fn run(args: &Args) -> Result<()> {
    let source = Source::parse(&args.path)?;
    let path = source.path.as_path();
    if args.model.is_some() {
        return adapter(args, &source);
    }
    if path.is_file() {
        return file(args, &source);
    }
    if path.join("model_index.json").is_file() {
        return Findings::default()
            .pipeline(&ModelFolder::open_with(path, args.config.as_deref())?, true)
            .finish();
    }
    if ["adapter_config.json", "pytorch_lora_weights.safetensors"].iter().any(|f| path.join(f).is_file()) {
        return adapter(args, &source);
    }
    if path.join("config.json").is_file() {
        let mut report = Findings::default();
        let place = path.display().to_string();
        report.component(&place, &path.join("config.json").display().to_string(), &open_component(path)?);
        return report.finish();
    }
    if !path.is_dir() {
        return open_tensors(path).map(drop); // which says what there is instead
    }
    Err(Error::missing(path.display().to_string(), "model_index.json or config.json")
        .with_hint("Give a diffusers pipeline folder, a component folder, a single file or an adapter."))
}

/// Everything wrong is kept, so that one look shows all of it; the first is the reason of the failure.
#[derive(Default)]
struct Findings {
    wrong: Vec<Error>,
}

impl Findings {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.wrong.push(e)).ok()
    }

    fn finish(self) -> Result<()> {
        for e in self.wrong.iter().skip(1) {
            println!("unusable: {e}");
        }
        self.wrong.into_iter().next().map_or(Ok(()), Err)
    }

    /// `whole`: what is not there is an error, not only noted.
    fn pipeline(mut self, folder: &ModelFolder, whole: bool) -> Self {
        for name in NETWORKS {
            match (self.note(folder.has(name)), name) {
                (Some(false), "text_encoder_3") => {
                    println!("text_encoder_3: absent; its tokens count as zeros")
                }
                (Some(false), _) if !whole => println!("{name}: not in this file; give --config DIR"),
                (None, _) => {}
                _ => {
                    if let Some(component) = self.note(folder.component(name)) {
                        self.component(name, &folder.config_label(name), &component);
                    }
                }
            }
        }
        for name in TOKENIZERS {
            if folder.has(name) == Ok(false) {
                if !whole {
                    println!("{name}: in no single file; give --config DIR");
                    continue;
                } else if name == UNIGRAM {
                    continue;
                }
            }
            let size = if name == UNIGRAM {
                folder.unigram_tokenizer(name).map(|t| t.vocab_size())
            } else {
                folder.tokenizer(name).map(|t| t.vocab_size())
            };
            if let Some(size) = self.note(size) {
                println!("{name}: {size} tokens");
            }
        }
        if let Some(schedule) = self.note(folder.schedule()) {
            let shift = if schedule.dynamic.is_some() {
                "dynamic shift".into()
            } else {
                format!("shift {}", schedule.shift)
            };
            println!("scheduler: {shift}, {} training timesteps", schedule.num_train_timesteps);
        }
        let reward = folder.beside().join("reward");
        if reward.join("config.json").is_file()
            && let Some(component) = self.note(open_component(&reward))
        {
            let label = reward.join("config.json").display().to_string();
            self.component("reward", &label, &component);
        }
        if let Some(single) = folder.single_file() {
            list("tensors of no component", single.unknown());
        }
        self
    }

    /// Reads the configuration as the runtime would, so that what cannot be computed is said here.
    fn component(&mut self, name: &str, label: &str, component: &Component) {
        let Some(config) = self.note(component.config()) else { return };
        let Some(weights) = self.note(component.weights()) else { return };
        let kind = contents::kind(&config);
        let Some(needs) = self.note(contents::of(&config, label)) else { return };
        let Some(weights) = self.note(contents::named(&config, label, &weights)) else { return };
        let found = Contents::of(&weights, Some(&needs));
        println!("{}: {kind}, {}", name, count(&found));
        list("missing", &found.missing);
        list("wrong", &found.wrong);
        list("unknown", &found.unknown);
        list("not read by any network", &found.unused);
        self.note(found.usable(&weights.label()));
    }
}

fn list(what: &str, names: &[String]) {
    if names.is_empty() {
        return;
    }
    println!("  {what}: {}", names.len());
    names.iter().take(SHOWN).for_each(|name| println!("    {}", shown(name)));
    if names.len() > SHOWN {
        println!("    and {} more", names.len() - SHOWN);
    }
}

/// Tensors, parameters and element types.
fn count(found: &Contents) -> String {
    let tensors: usize = found.types.values().map(|t| t.0).sum();
    let types: Vec<String> =
        found.types.iter().map(|(t, (n, numbers))| format!("{n} {t}: {numbers}")).collect();
    format!("{} parameters in {tensors} tensors ({})", found.parameters, types.join(", "))
}

fn file(args: &Args, source: &Source) -> Result<()> {
    if is_adapter(&open_tensors(&source.path)?) {
        return adapter(args, source);
    }
    let folder = ModelFolder::open_with(&source.path, args.config.as_deref())?;
    Findings::default().pipeline(&folder, args.config.is_some()).finish()
}

/// With a model, by the same calls as `generate`.
fn adapter(args: &Args, source: &Source) -> Result<()> {
    let place = source.path.display();
    let weights = open_tensors(&adapter::file(&source.path)?)?;
    let model = match (&args.model, &args.config) {
        (Some(model), config) => Some(ModelFolder::open_with(model, config.as_deref())?),
        (None, Some(model)) => Some(ModelFolder::open(model)?),
        (None, None) => None,
    };
    let sources = core::slice::from_ref(source);
    let adapter = match &model {
        Some(model) => adapted::sum(model, sources)?,
        // Sizes as the file has them: any consistent adapter passes.
        None => {
            Adapter::load(&source.path, &layers(&weights)?)?.scaled(source.strength, &place.to_string())?
        }
    };
    let mut ranks: Vec<usize> = adapter.pairs.values().map(|p| p.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let found = count(&Contents::of(&weights, None));
    let ranks = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    println!("{place}: LoRA adapter, {} layers, rank {ranks}, {found}", adapter.pairs.len());
    for target in adapter.pairs.keys() {
        println!("  {}", shown(target));
    }
    let Some(model) = model else {
        println!("give --model MODEL to see whether it fits one");
        return Ok(());
    };
    adapted::open_with(&model, sources, Box::new(Cpu::new()), TextSettings::default())?;
    println!("fits {}", model.path().display());
    Ok(())
}
