//! The ways of an image into the networks that judge it.
use crate::common::{executors, run};
use pentimento_runtime::graph::Graph;
use pentimento_runtime::model::{Constants, Cubic, bicubic, bicubic_matrix, channels_first, dino};
use pentimento_trainer::images::{Filter, Picture};
use pentimento_trainer::preprocess;
use tests::fixture::{Check, Golden, Tolerance, within};

/// An 8-bit image `[H, W, 3]` of the golden file.
fn picture(golden: &Golden, name: &str) -> Picture {
    let &[h, w, 3] = golden.shape(name) else { panic!("images are [H, W, 3]") };
    let rgb = golden.ints(name).iter().map(|&b| b as u8);
    Picture::new(w as u32, h as u32, rgb.collect()).expect("an image")
}

/// Pixels `[H, W, 3]` as the file has them, `[1, 3, H, W]`.
fn stored(pixels: &[f32]) -> Vec<f32> {
    channels_first(pixels, 3, pixels.len() / 3)
}

#[test]
fn pictures_are_prepared_as_released() {
    let Some(golden) = Golden::find("dino/preprocess") else { return };
    let mut check = Check::new(&golden, "host");
    let side = golden.json["size"].as_u64().expect("size") as u32;
    for image in golden.names().filter_map(|n| n.strip_suffix("_u8")) {
        if !golden.has(&format!("{image}_d_path")) {
            continue;
        }
        let source = picture(&golden, &format!("{image}_u8"));
        for (kind, filter) in [("bicubic", Filter::Bicubic), ("bilinear", Filter::Bilinear)] {
            let name = format!("{image}_pil_{kind}_u8");
            let want = picture(&golden, &name);
            let got = source.resized(want.width(), want.height(), filter).expect("a size");
            check.exact(&name, got.rgb(), want.rgb());
        }
        let d = preprocess::head_pixels(&source, side, &dino::Pixels::imagenet()).expect("pixels");
        check.tensor(&format!("{image}_d_path"), &stored(&d));
        let clip = preprocess::clip_pixels(&source, side, &dino::Pixels::clip()).expect("pixels");
        check.tensor(&format!("{image}_clip_path"), &stored(&clip));
    }
    quantised(&golden, &mut check);
    check.finish();
}

/// The table and the image that show how floats become bytes.
fn quantised(golden: &Golden, check: &mut Check) {
    let table: Vec<f32> = (0..=255u8).map(|k| f32::from(k) / 255.0).collect();
    let grey: Vec<f32> = table.iter().flat_map(|&v| [v; 3]).collect();
    let round = preprocess::head_picture(256, 1, &grey).expect("an image");
    let got: Vec<i64> = round.rgb().iter().step_by(3).map(|&b| b.into()).collect();
    check.exact("u8_roundtrip", &got, golden.ints("u8_roundtrip"));
    // Rounding instead of cutting off would keep every level: the table notices.
    let rounded: Vec<i64> = (0..256).collect();
    assert_ne!(rounded, golden.ints("u8_roundtrip"));
    let &[_, c, h, w] = golden.shape("quant_in") else { panic!("quant_in is [1, C, H, W]") };
    let signed = pentimento_runtime::model::channels_last(golden.floats("quant_in"), c, h * w, c);
    let got: Vec<i64> = signed.iter().map(|&v| preprocess::truncated(v).into()).collect();
    check.exact("quant_u8", &got, golden.ints("quant_u8"));
}

/// The released reward's path, and torch's antialiased resizing, on the device.
#[test]
fn reward_images_are_prepared_as_released() {
    let Some(golden) = Golden::find("dino/preprocess") else { return };
    for (name, mut exec) in executors("reward images") {
        let mut check = Check::new(&golden, &name);
        for image in golden.names().filter_map(|n| n.strip_suffix("_reward_path")) {
            let source = picture(&golden, &format!("{image}_u8"));
            let (h, w) = (source.height() as usize, source.width() as usize);
            let reward = format!("{image}_reward_path");
            let smooth = format!("{image}_torch_bicubic_antialias");
            let size = |name: &str| [golden.shape(name)[2], golden.shape(name)[3]];
            let (mut g, mut constants) = (Graph::new(), Constants::new());
            let x = g.input("x", &[1, h, w, 3]);
            let pixels = dino::Pixels::imagenet();
            let y = dino::preprocess(&mut g, &mut constants, x, size(&reward), &pixels);
            let mut outputs = vec![(reward.as_str(), y)];
            if golden.has(&smooth) {
                let [h, w] = size(&smooth);
                outputs.push((&smooth, bicubic(&mut g, &mut constants, x, h, w, Cubic::Antialiased)));
            }
            constants.upload(exec.as_mut()).expect("constants");
            let out = run(exec.as_mut(), g, &[], &[("x", &source.to_unit())], &outputs);
            for ((name, _), got) in outputs.iter().zip(&out) {
                check.tensor(name, &stored(got));
            }
            // The head's path is another one, unless nothing is resized.
            let d = format!("{image}_d_path");
            let native = size(&reward) == [h, w];
            assert!(
                native || within(&stored(&out[0]), golden.floats(&d), golden.tolerance(&d)).is_err(),
                "{d}"
            );
        }
        check.finish();
    }
}

/// Resizing and normalising on the graph, against the definition.
#[test]
fn pixels_are_resized_and_normalised() {
    let pixels = dino::Pixels::imagenet();
    let image: Vec<f32> = (0..2 * 3 * 5 * 3).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
    let (ry, rx) = (bicubic_matrix(3, 4, Cubic::Plain), bicubic_matrix(5, 2, Cubic::Plain));
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
        constants.upload(exec.as_mut()).expect("constants");
        let out = run(exec.as_mut(), g, &[], &[("x", &image)], &[("y", y)]);
        let tol = Tolerance { max_abs: 1e-5, rel_l2: 1e-5 };
        within(&out[0], &want, tol).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}
