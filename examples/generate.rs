//! Draws a few images with the default model: `cargo run --release -p examples --example generate -- OUT.png PROMPT...`
use pentimento_runtime::exec::wgpu::Wgpu;
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Pipeline, Sampling};
use pentimento_trainer::images::{Picture, contact_sheet};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let out = args.next().ok_or("usage: generate OUT.png PROMPT...")?;
    let prompts: Vec<String> = args.collect();

    let folder = ModelFolder::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/icons"))?;
    let mut pipeline = Pipeline::open(&folder, Box::new(Wgpu::open(None)?))?;
    let null = pipeline.encode("")?;
    let texts = prompts.iter().map(|p| pipeline.encode(p)).collect::<Result<Vec<_>, _>>()?;
    let jobs: Vec<_> = texts.iter().enumerate().map(|(i, t)| (t, i as u64)).collect();

    let side = pipeline.native_size();
    let how = Sampling { steps: 20, guidance: 4.5, width: side, height: side };
    let images = pipeline.generate(&jobs, &null, &how, &mut |_, _| true)?;
    let pictures = images
        .iter()
        .map(|i| Picture::from_unit(side as u32, side as u32, i))
        .collect::<Result<Vec<_>, _>>()?;
    std::fs::write(out, contact_sheet(&pictures, 8, 2)?.to_png()?)?;
    Ok(())
}
