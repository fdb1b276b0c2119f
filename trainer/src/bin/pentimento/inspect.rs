//! `pentimento inspect`.
use clap::Args as ClapArgs;
use pentimento::folder::{Component, ModelFolder, open_component};
use pentimento::model::{clip, dino, mmdit, vae};
use pentimento::weights::Weights;
use pentimento_trainer::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
pub struct Args {
    /// A model folder, a component folder or an adapter file.
    path: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    let path = &args.path;
    let place = path.display().to_string();
    if path.is_file() {
        return file(path);
    }
    if !path.is_dir() {
        return Err(Error::io(place, "read", "no such file or folder"));
    }
    if path.join("model_index.json").is_file() {
        return pipeline(path);
    }
    if path.join("config.json").is_file() {
        return component(path, &open_component(path)?);
    }
    Err(Error::missing(place, "model_index.json or config.json")
        .with_hint("Give a diffusers pipeline folder, a component folder or an adapter file."))
}

fn pipeline(path: &Path) -> Result<()> {
    let folder = ModelFolder::open(path)?;
    for name in ["transformer", "vae", "text_encoder", "text_encoder_2"] {
        component(&path.join(name), &folder.component(name)?)?;
    }
    for name in ["tokenizer", "tokenizer_2"] {
        println!("{name}: {} tokens", folder.tokenizer(name)?.vocab_size());
    }
    println!("scheduler: {:?}", folder.schedule()?);
    if folder.has("text_encoder_3")? {
        println!("text_encoder_3: present, not used: its tokens count as absent (zeros)");
    }
    if path.join("reward/config.json").is_file() {
        component(&path.join("reward"), &open_component(&path.join("reward"))?)?;
    }
    Ok(())
}

/// Reads the configuration as the runtime would, so that what cannot be computed is said here.
fn component(path: &Path, component: &Component) -> Result<()> {
    let label = path.join("config.json").display().to_string();
    let config = component.config()?;
    let field = |name: &str| config.get(name);
    let kind = field("_class_name").or(field("model_type")).or(field("architecture"));
    let kind = kind.and_then(|v| v.as_str()).unwrap_or("unknown");
    match kind {
        "SD3Transformer2DModel" => mmdit::Config::from_value(&config, &label).map(|_| ())?,
        "AutoencoderKL" => vae::Config::from_value(&config, &label).map(|_| ())?,
        "clip_text_model" => clip::Config::from_value(&config, &label).map(|_| ())?,
        "dinov2" | "dinov2_with_registers" => dino::Config::from_value(&config, &label).map(|_| ())?,
        // timm names an architecture instead of a type of model.
        _ if field("architecture").is_some() => dino::Config::from_value(&config, &label).map(|_| ())?,
        other => {
            let known = "SD3Transformer2DModel, AutoencoderKL, clip_text_model or dinov2";
            return Err(Error::bad(label, known, other));
        }
    }
    println!("{}: {kind}, {}", path.display(), contents(&component.weights()?)?);
    Ok(())
}

/// Tensors, parameters and element types.
fn contents(weights: &Weights) -> Result<String> {
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    let mut numbers = 0;
    for name in weights.names() {
        let tensor = weights.get(name)?;
        *types.entry(tensor.dtype.to_string()).or_default() += 1;
        numbers += tensor.elements();
    }
    let types: Vec<String> = types.iter().map(|(t, n)| format!("{n} {t}")).collect();
    Ok(format!(
        "{:.2} M parameters in {} tensors ({})",
        numbers as f64 / 1e6,
        weights.len(),
        types.join(", ")
    ))
}

fn file(path: &Path) -> Result<()> {
    let place = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Error::io(&place, "read", e.to_string()))?;
    let weights = Weights::from_bytes(place.clone(), bytes)?;
    let lora = weights.names().filter(|n| n.contains("lora_")).count();
    if lora == 0 {
        return Err(Error::bad(place, "LoRA factors (names with lora_A and lora_B)", contents(&weights)?)
            .with_hint("For a checkpoint give its folder."));
    }
    // Sizes as the file has them: any consistent adapter passes here, a model checks them on loading.
    let sizes = |target: &str| -> Option<(usize, usize)> {
        let factor = |which: &str| weights.names().find(|n| n.contains(target) && n.contains(which));
        let side = |name: Option<&str>, axis: usize| weights.shape(name?)?.get(axis).copied();
        Some((side(factor("lora_A"), 1)?, side(factor("lora_B"), 0)?))
    };
    let adapter = pentimento_trainer::adapter::Adapter::load(path, &sizes)?;
    let mut ranks: Vec<usize> = adapter.pairs.values().map(|p| p.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    println!(
        "{place}: LoRA adapter, {} layers, rank {ranks:?}, {}",
        adapter.pairs.len(),
        contents(&weights)?
    );
    for target in adapter.pairs.keys() {
        println!("  {target}");
    }
    Ok(())
}
