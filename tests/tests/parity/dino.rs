//! The reward backbone and the way of an image into it.
use crate::common::{executors, model, run};
use pentimento::exec::LeafData;
use pentimento::graph::Graph;
use pentimento::model::{Constants, channels_first, channels_last, dino};
use tests::fixture::{Check, Golden, Tolerance, folders, within};

#[test]
fn image_encoders_agree_at_every_size() {
    for path in folders("dino", "model_type", "dinov2") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = dino::Config::from_value(&config, &path.display().to_string()).expect("a config");
        for (name, mut exec) in executors("image encoder") {
            let mut check = Check::new(&golden, &name);
            for size in golden.names().filter_map(|n| n.strip_suffix("_pixel_values")) {
                let pixels = format!("{size}_pixel_values");
                let &[b, c, h, w] = golden.shape(&pixels) else { panic!("pixels are [B, C, H, W]") };
                let data = channels_last(golden.floats(&pixels), c, h * w, c);
                let (mut g, mut constants) = (Graph::new(), Constants::new());
                let x = g.input("pixels", &[b, h, w, c]);
                let y = dino::encode(&mut g, &mut constants, &cfg, "reward", x);
                for (leaf, data) in constants.iter() {
                    exec.set_leaf(leaf, LeafData::F32(data)).expect("a constant");
                }
                let out = run(exec.as_mut(), g, &[("reward", &weights)], &[("pixels", &data)], &[("y", y)]);
                check.tensor(&format!("{size}_last_hidden_state"), &out[0]);
            }
            check.finish();
        }
    }
}

/// The released reward's path from pixels to encoder input.
#[test]
fn reward_images_are_prepared_as_released() {
    let Some(golden) = Golden::find("dino/preprocess") else { return };
    for (name, mut exec) in executors("reward images") {
        let mut check = Check::new(&golden, &name);
        for image in golden.names().filter_map(|n| n.strip_suffix("_reward_path")) {
            let &[h, w, 3] = golden.shape(&format!("{image}_u8")) else { panic!("images are [H, W, 3]") };
            let bytes = golden.ints(&format!("{image}_u8"));
            let image01: Vec<f32> = bytes.iter().map(|&b| b as f32 / 255.0).collect();
            let expected = format!("{image}_reward_path");
            let &[_, _, th, tw] = golden.shape(&expected) else { panic!("pixels are [1, 3, H, W]") };
            let (mut g, mut constants) = (Graph::new(), Constants::new());
            let x = g.input("x", &[1, h, w, 3]);
            let y = dino::preprocess(&mut g, &mut constants, x, [th, tw], &dino::Pixels::imagenet());
            for (leaf, data) in constants.iter() {
                exec.set_leaf(leaf, LeafData::F32(data)).expect("a constant");
            }
            let out = run(exec.as_mut(), g, &[], &[("x", &image01)], &[("y", y)]);
            check.tensor(&expected, &channels_first(&out[0], 3, th * tw));
        }
        check.finish();
    }
}

/// Resizing and normalising on the graph, against the definition.
#[test]
fn pixels_are_resized_and_normalised() {
    let pixels = dino::Pixels::imagenet();
    let image: Vec<f32> = (0..2 * 3 * 5 * 3).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
    let (ry, rx) = (pentimento::model::bicubic_matrix(3, 4), pentimento::model::bicubic_matrix(5, 2));
    let mut want = Vec::new();
    for (b, y, x, c) in (0..2 * 4 * 2 * 3).map(|i| (i / 24, i / 6 % 4, i / 3 % 2, i % 3)) {
        let all = (0..3).flat_map(|sy| (0..5).map(move |sx| (sy, sx)));
        let v: f32 = all
            .map(|(sy, sx)| ry[y * 3 + sy] * rx[x * 5 + sx] * image[((b * 3 + sy) * 5 + sx) * 3 + c])
            .sum();
        want.push((v - pixels.mean[c]) / pixels.std[c]);
    }
    for (name, mut exec) in executors("resizing") {
        let (mut g, mut constants) = (Graph::new(), Constants::new());
        let x = g.input("x", &[2, 3, 5, 3]);
        let y = dino::preprocess(&mut g, &mut constants, x, [4, 2], &pixels);
        for (leaf, data) in constants.iter() {
            exec.set_leaf(leaf, LeafData::F32(data)).expect("a constant");
        }
        let out = run(exec.as_mut(), g, &[], &[("x", &image)], &[("y", y)]);
        let tol = Tolerance { max_abs: 1e-5, rel_l2: 1e-5 };
        within(&out[0], &want, tol).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
