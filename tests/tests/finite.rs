//! Numbers that are none end a drawing or a training with a sentence that names the first of them; what was learnt before
//! stays.
use pentimento_runtime::folder::ModelFolder;
use pentimento_runtime::pipeline::{Pipeline, Sampling};
use pentimento_runtime::{Error, Result};
use pentimento_trainer::config::Config;
use pentimento_trainer::train::{Event, Setup, Trainer};
use std::path::Path;
use tests::adapter::adapter;
use tests::icons::{model, references};
use tests::scratch::icons;

/// Makes number `at` of a stored half-precision tensor a NaN.
fn poison(file: &Path, tensor: &str, at: usize) {
    let mut bytes = std::fs::read(file).expect("a file");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let entry = &header[tensor];
    assert_eq!(entry["dtype"], "F16", "{tensor}");
    let place = 8 + length + entry["data_offsets"][0].as_u64().expect("an offset") as usize + 2 * at;
    bytes[place..place + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    std::fs::write(file, bytes).expect("written");
}

fn draw(model: &Path, guidance: f32) -> Option<Result<Vec<f32>>> {
    let gpu = adapter("pictures of finite numbers")?;
    let folder = ModelFolder::open(model).expect("a folder");
    let mut pipeline = Pipeline::open(&folder, Box::new(gpu)).expect("a pipeline");
    let how = Sampling { steps: 2, guidance, width: 64, height: 64 };
    let image = pipeline.encode("icon of pear").and_then(|text| {
        let null = pipeline.encode("")?;
        Ok(pipeline.generate(&[(&text, 1)], &null, &how, &mut |_, _| true)?.swap_remove(0))
    });
    Some(image)
}

/// Of every component, also where its numbers reach the picture through a clamp or a table on the host.
#[test]
fn a_weight_that_is_no_number_is_named() {
    for (part, file, tensor, at) in [
        ("transformer", "diffusion_pytorch_model", "transformer_blocks.1.attn.to_k.weight", 70),
        ("transformer", "diffusion_pytorch_model", "proj_out.bias", 3),
        ("vae", "diffusion_pytorch_model", "decoder.conv_out.weight", 5),
        ("text_encoder", "model", "text_model.final_layer_norm.bias", 9),
        ("text_encoder_2", "model", "text_model.embeddings.position_embedding.weight", 2),
    ] {
        let broken = icons(&format!("nan-{part}-{at}"));
        poison(&broken.0.join(part).join(format!("{file}.safetensors")), tensor, at);
        let Some(image) = draw(&broken.0, 4.5) else { return };
        let error = image.expect_err(tensor);
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        let (say, place) = (error.to_string(), format!("NaN at number {at}"));
        assert!(say.contains(tensor) && say.contains(part) && say.contains(&place), "{say}");
    }
}

#[test]
fn guidance_that_draws_no_picture_is_refused() {
    for guidance in [f32::NAN, f32::INFINITY, -1.0, 1e30] {
        let Some(image) = draw(&model(), guidance) else { return };
        let say = image.expect_err("guidance").to_string();
        assert!(say.contains("guidance") && say.contains("0 to 100"), "{say}");
    }
    // As in diffusers, 1 and less mean none.
    let Some(one) = draw(&model(), 1.0) else { return };
    assert!(one.is_ok() && draw(&model(), 0.0).is_some_and(|zero| zero == one));
}

/// A training in whose second iteration a weight on the device goes bad: the adapter of the first stays, and the error, too.
#[test]
fn a_training_that_fails_keeps_what_it_had() {
    let mut config = Config { rank: 4, iterations: 3, ..Config::grpo(true) };
    (config.warm.steps, config.warm.batch, config.watch.every) = (1, 2, 0);
    (config.rollout.prompts, config.rollout.group, config.rollout.steps) = (1, 2, 2);
    (config.rollout.window, config.head.warm, config.head.batch) = (1, 1, 2);
    let Some(gpu) = adapter("a training that fails") else { return };
    let (model, references) = (model(), references());
    let setup = Setup {
        model: &model,
        config: None,
        reward: None,
        references: &references,
        prompts: &[],
        text_cache: None,
    };
    let mut trainer = Trainer::new(Box::new(gpu), &setup, config).expect("a trainer");
    while !matches!(trainer.step().expect("a step"), Event::Iteration(_)) {}
    let bytes = |t: &Trainer| t.adapter().and_then(|a| a.write_bytes()).expect("an adapter");
    let good = bytes(&trainer);
    let (name, numbers) = ("transformer/proj_out.bias", 16);
    trainer.pipeline().set_param(name, &vec![f32::NAN; numbers]).expect("a leaf");
    let error = loop {
        match trainer.step() {
            Ok(Event::Done) => panic!("it ends well"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NotFinite { .. }) && error.to_string().contains(name), "{error}");
    for _ in 0..3 {
        assert_eq!(trainer.step().expect_err("again"), error);
    }
    assert!(bytes(&trainer) == good, "another adapter than before");
    assert!(trainer.verdict().is_some_and(|v| v.contains("diverged")), "{:?}", trainer.verdict());
    // The model still draws where it can.
    let how = Sampling { steps: 1, guidance: 1.0, width: 64, height: 64 };
    assert!(trainer.draw("icon of pear", 1, &how, &mut |_, _| true).is_err());
    trainer.pipeline().set_param(name, &vec![0.0; numbers]).expect("a leaf");
    let image = trainer.draw("icon of pear", 1, &how, &mut |_, _| true).expect("an image");
    assert!(image.iter().all(|v| v.is_finite()));
}
