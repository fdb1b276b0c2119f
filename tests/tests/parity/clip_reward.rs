//! PickScore: both encoders, the reward, and its adversarial steps as released.
use crate::common::{executors, run};
use pentimento_runtime::exec::Executor;
use pentimento_runtime::graph::Graph;
use pentimento_runtime::model::{channels_first, channels_last, clip_vision};
use pentimento_trainer::images::Picture;
use pentimento_trainer::preprocess;
use pentimento_trainer::reward::pickscore::{COMPONENT, Model, PickScore};
use tests::fixture::{Check, Golden, Tolerance, within};

/// What the golden folder holds.
struct Case {
    golden: Golden,
    /// `[side, side, 3]` of each image, the real ones first.
    pixels: Vec<Vec<f32>>,
    ids: Vec<Vec<u32>>,
    tune_layer: i64,
    rate: f32,
}

impl Case {
    fn open() -> Option<Case> {
        let golden = Golden::find("clip_reward")?;
        let &[_, c, h, w] = golden.shape("pixel_values") else { panic!("pixel values are [B, C, H, W]") };
        let pixels = channels_last(golden.floats("pixel_values"), c, h * w, c);
        let pixels = pixels.chunks_exact(c * h * w).map(<[f32]>::to_vec).collect();
        let &[_, t] = golden.shape("input_ids") else { panic!("ids are [B, T]") };
        let ids = golden.ints("input_ids").chunks_exact(t);
        let ids = ids.map(|row| row.iter().map(|&i| i as u32).collect()).collect();
        let train = &golden.json["train"];
        assert_eq!(train["betas"], serde_json::json!([0.5, 0.999]));
        let tune_layer = train["tune_layer"].as_i64().expect("train.tune_layer");
        let rate = train["lr"].as_f64().expect("train.lr") as f32;
        Some(Case { golden, pixels, ids, tune_layer, rate })
    }
    fn model(&self) -> Model {
        Model::open(&self.golden.path).expect("a CLIP model")
    }
}

#[test]
fn images_are_prepared_as_released() {
    let Some(case) = Case::open() else { return };
    let (mut check, model) = (Check::new(&case.golden, "host"), case.model());
    let side = model.vision.image_size as u32;
    let mut got = Vec::new();
    for i in 0..case.pixels.len() {
        let name = format!("image{i}_u8");
        let &[h, w, 3] = case.golden.shape(&name) else { panic!("images are [H, W, 3]") };
        let rgb = case.golden.ints(&name).iter().map(|&b| b as u8).collect();
        let picture = Picture::new(w as u32, h as u32, rgb).expect("an image");
        let pixels = preprocess::clip_pixels(&picture, side, &model.pixels).expect("pixels");
        got.extend(channels_first(&pixels, 3, pixels.len() / 3));
    }
    // These are inputs, so they carry no limits of their own: rounding of one division.
    let tol = Tolerance { max_abs: 1e-6, rel_l2: 1e-6 };
    check.against("pixel_values", &got, case.golden.floats("pixel_values"), tol);
    check.finish();
}

#[test]
fn image_encoders_agree_layer_by_layer() {
    let Some(case) = Case::open() else { return };
    let model = case.model();
    let cfg = &model.vision;
    let batch = case.golden.shape("vision_hidden_0")[0];
    let pixels = case.pixels[..batch].concat();
    for (name, mut exec) in executors("CLIP images") {
        let mut check = Check::new(&case.golden, &name);
        let mut g = Graph::new();
        let x = g.input("pixels", &[batch, cfg.image_size, cfg.image_size, 3]);
        let names: Vec<String> = (0..=cfg.num_hidden_layers).map(|n| format!("vision_hidden_{n}")).collect();
        let mut outputs: Vec<(&str, pentimento_runtime::graph::Id)> = Vec::new();
        for (n, name) in names.iter().enumerate() {
            outputs.push((name, clip_vision::hidden(&mut g, cfg, COMPONENT, x, n)));
        }
        let last = outputs[cfg.num_hidden_layers].1;
        let raw = clip_vision::embed(&mut g, cfg, COMPONENT, last, cfg.num_hidden_layers, false);
        outputs.push(("image_embeds_raw", raw));
        let weights = [(COMPONENT, &model.weights)];
        let out = run(exec.as_mut(), g, &weights, &[("pixels", &pixels)], &outputs);
        for ((name, _), got) in outputs.iter().zip(&out) {
            check.tensor(name, got);
        }
        check.finish();
    }
}

#[test]
fn pickscore_scores_and_learns_as_released() {
    let Some(case) = Case::open() else { return };
    for (name, mut exec) in executors("PickScore") {
        let exec: &mut dyn Executor = exec.as_mut();
        let mut check = Check::new(&case.golden, &name);
        let batch = case.ids.len();
        let mut score = PickScore::new(exec, case.model(), batch, case.tune_layer, case.rate).expect("plans");
        let texts: Vec<Vec<f32>> =
            case.ids.iter().map(|ids| score.text(exec, ids).expect("a text")).collect();
        check.tensor("text_embeds_raw", &texts.concat());
        let pixels: Vec<&[f32]> = case.pixels.iter().map(Vec::as_slice).collect();
        let hidden = score.hidden(exec, &pixels).expect("images");
        let hidden: Vec<&[f32]> = hidden.iter().map(Vec::as_slice).collect();
        let texts: Vec<&[f32]> = texts.iter().map(Vec::as_slice).collect();
        let (real, fake) = hidden.split_at(batch);
        let before = score.scores(exec, real, &texts).expect("scores");
        check.tensor("scores", &before);
        let changed =
            within(&before, case.golden.floats("scores_after2"), case.golden.tolerance("scores_after2"));
        assert!(changed.is_err(), "two steps must move the scores");
        for step in 1..=2 {
            let names: Vec<String> = score.params().map(|(name, _)| stored(name)).collect();
            let (found, grads) = score.gradients(exec, real, fake, &texts).expect("gradients");
            check.tensor(&format!("loss_step{step}"), &[found.loss]);
            for (name, grad) in names.iter().zip(&grads) {
                check.optional(&format!("grad{step}.{name}"), grad);
            }
            score.step(exec, real, fake, &texts).expect("a step");
            for (name, value) in score.params() {
                check.tensor(&format!("after{step}.{}", stored(name)), value);
            }
            let trained = case.golden.names().filter(|n| n.starts_with(&format!("after{step}."))).count();
            assert_eq!(trained, names.len(), "all trained tensors, and no others");
        }
        check.tensor("scores_after2", &score.scores(exec, real, &texts).expect("scores"));
        check.finish();
        let wrong = score.step(exec, real, fake, &texts[1..]).expect_err("a prompt is missing").to_string();
        assert!(wrong.starts_with("PickScore step: expected"), "{wrong}");
    }
}

/// The checkpoint's name of a leaf.
fn stored(leaf: &str) -> String {
    leaf.trim_start_matches(COMPONENT).trim_start_matches('/').to_string()
}
