//! `AutoencoderKL` both ways.
use crate::common::{executors, model, run};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::{channels_first, channels_last, vae};
use pentimento_runtime::plan::Plan;
use pentimento_runtime::weights::Weights;
use pentimento_wgsl::Stored;
use tests::fixture::{Check, Golden, folders, to_f16, within};

#[test]
fn autoencoders_decode_and_encode() {
    for path in folders("vae", "_class_name", "AutoencoderKL") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = vae::VaeConfig::from_value(&config, &path.display().to_string()).expect("a config");
        for (suffix, weights) in [("", weights.clone()), ("_f16w", to_f16(&weights))] {
            for (name, mut exec) in executors("VAE") {
                let mut check = Check::new(&golden, &name);
                decode(exec.as_mut(), &cfg, &weights, &golden, &mut check, suffix, usize::MAX);
                encode(exec.as_mut(), &cfg, &weights, &golden, &mut check, suffix, usize::MAX);
                check.finish();
            }
        }
    }
}

/// The module whose output an expectation of a golden folder is.
fn module(expectation: &str) -> Option<String> {
    let (side, part) = expectation.split_once('_')?;
    let side = match side {
        "dec" => "decoder",
        "enc" => "encoder",
        _ => return None,
    };
    let part = match part {
        "mid_attn" => "mid_block.attentions.0".into(),
        "conv_in" | "mid_block" | "conv_norm_out" => part.to_string(),
        _ => {
            let (blocks, n) = part.split_at(part.find(|c: char| c.is_ascii_digit())?);
            format!("{blocks}s.{}", n.parse::<usize>().ok()?)
        }
    };
    Some(format!("{side}.{part}"))
}

/// Intermediate values, in order of execution, so that the first one that differs is named.
#[test]
fn autoencoders_agree_module_by_module() {
    for path in folders("vae", "_class_name", "AutoencoderKL") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = vae::VaeConfig::from_value(&config, &path.display().to_string()).expect("a config");
        let expected = || golden.expectations().filter_map(|e| Some((e, module(e)?)));
        for (name, mut exec) in executors("VAE, intermediate values") {
            let mut check = Check::new(&golden, &name);
            for side in ["decoder", "encoder"] {
                let mut g = Graph::new();
                let (input, data) =
                    if side == "decoder" { latents(&mut g, &cfg, &golden) } else { image(&mut g, &golden) };
                if side == "decoder" {
                    vae::decode(&mut g, &cfg, input)
                } else {
                    vae::encode(&mut g, &cfg, input)
                };
                let taps = g.taps().to_vec();
                let wanted: Vec<(&str, Id)> = taps
                    .iter()
                    .filter_map(|(tap, id)| Some((expected().find(|(_, m)| m == tap)?.0, *id)))
                    .collect();
                let shapes: Vec<Vec<usize>> = wanted.iter().map(|(_, id)| g.shape(*id).to_vec()).collect();
                let out = run(exec.as_mut(), g, &[(vae::COMPONENT, &weights)], &[("x", &data)], &wanted);
                for (((name, _), shape), values) in wanted.iter().zip(shapes).zip(out) {
                    check.tensor(name, &channels_first(&values, shape[3], shape[1] * shape[2]));
                }
            }
            let outer: Vec<(&str, &str)> = golden
                .expectations()
                .filter(|e| module(e).is_none())
                .map(|e| (e, "compared whole"))
                .collect();
            check.complete(&outer);
            check.finish();
        }
    }
}

/// Numbers in the largest tensor of one of the golden images.
fn widest(cfg: &vae::VaeConfig, golden: &Golden, name: &str, scale: usize) -> usize {
    let shape = golden.shape(name);
    cfg.widest([shape[2] * scale, shape[3] * scale])
}

/// In bands, images come out within the limits of whole ones, f32 rounding.
#[test]
fn bands_have_no_seams() {
    for path in folders("vae", "_class_name", "AutoencoderKL") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = vae::VaeConfig::from_value(&config, &path.display().to_string()).expect("a config");
        for (name, mut exec) in executors("VAE in bands") {
            let mut check = Check::new(&golden, &name);
            for parts in [2, 3, 7] {
                let most = widest(&cfg, &golden, "latents", cfg.downscale()) / parts;
                decode(exec.as_mut(), &cfg, &weights, &golden, &mut check, "", most);
                let most = widest(&cfg, &golden, "image", 1) / parts;
                encode(exec.as_mut(), &cfg, &weights, &golden, &mut check, "", most);
            }
            check.finish();
        }
    }
}

/// Tiles decoded on their own, however large their margin, are not the image: their norms see other pixels.
#[test]
fn separate_tiles_are_another_image() {
    for path in folders("vae", "_class_name", "AutoencoderKL") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = vae::VaeConfig::from_value(&config, &path.display().to_string()).expect("a config");
        let &[_, c, h, w] = golden.shape("latents") else { panic!("latents are [B, C, h, w]") };
        // Less than the whole image, however few rows that has.
        let tile = (h.div_ceil(2) + 1).min(h.saturating_sub(1));
        if tile == 0 {
            println!("SKIPPED: no tiles in one row of {}", path.display());
            continue;
        }
        let z =
            golden.floats("latents")[..c * h * w].iter().map(|z| z / cfg.scaling_factor + cfg.shift_factor);
        let z = channels_last(&z.collect::<Vec<f32>>(), c, h * w, c);
        let mut g = Graph::new();
        let input = g.input("z", &[1, tile, w, c]);
        let y = vae::decode(&mut g, &cfg, input);
        let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
        let z = [("z", &z[..tile * w * c])];
        let out = run(&mut exec, g, &[(vae::COMPONENT, &weights)], &z, &[("y", y)]);
        let d = cfg.downscale();
        let rows = w * d * d * (h / 2);
        let whole = channels_last(&golden.floats("decoded")[..3 * h * w * d * d], 3, h * w * d * d, 3);
        let same = within(&out[0][..rows * 3], &whole[..rows * 3], golden.tolerance("decoded"));
        assert!(same.is_err(), "{}: the upper half of a tile", path.display());
    }
}

/// The published autoencoder at published sizes, within the bindings that WebGPU guarantees.
#[test]
fn large_images_fit_small_bindings() {
    let (cfg, caps) = (vae::VaeConfig::sd3(), Caps::webgpu());
    let most = (caps.max_binding / 4) as usize;
    let fits = |g: Graph, y: Id| Plan::new(g, &[("y", y)], &caps, &|_| Stored::F32).map(|_| ());
    for (batch, h, w) in [(1, 128, 128), (4, 128, 128), (1, 96, 168), (1, 256, 256)] {
        for (most, expected) in [(most, true), (usize::MAX, false)] {
            let mut g = Graph::new();
            let z = g.input("z", &[batch, h, w, cfg.latent_channels]);
            let y = vae::decode_within(&mut g, &cfg, z, most);
            assert_eq!(g.shape(y), [batch, 8 * h, 8 * w, 3]);
            let plan = fits(g, y);
            assert_eq!(plan.is_ok(), expected, "decode {batch} x {h} x {w}: {plan:?}");
            let mut g = Graph::new();
            let x = g.input("x", &[batch, 8 * h, 8 * w, vae::IMAGE_CHANNELS]);
            let y = vae::encode_within(&mut g, &cfg, x, most);
            assert_eq!(g.shape(y), [batch, h, w, 2 * cfg.latent_channels]);
            let plan = fits(g, y);
            assert_eq!(plan.is_ok(), expected, "encode {batch} x {h} x {w}: {plan:?}");
        }
    }
}

/// The golden latents as the autoencoder wants them: input `x` and its numbers.
fn latents(g: &mut Graph, cfg: &vae::VaeConfig, golden: &Golden) -> (Id, Vec<f32>) {
    let &[b, c, h, w] = golden.shape("latents") else { panic!("latents are [B, C, h, w]") };
    let z = golden.floats("latents").iter().map(|z| z / cfg.scaling_factor + cfg.shift_factor);
    let z = channels_last(&z.collect::<Vec<f32>>(), c, h * w, c);
    (g.input("x", &[b, h, w, c]), z)
}

/// The golden image: input `x` and its numbers.
fn image(g: &mut Graph, golden: &Golden) -> (Id, Vec<f32>) {
    let &[b, c, h, w] = golden.shape("image") else { panic!("images are [B, C, H, W]") };
    let image = channels_last(golden.floats("image"), c, h * w, vae::IMAGE_CHANNELS);
    (g.input("x", &[b, h, w, vae::IMAGE_CHANNELS]), image)
}

pub fn decode(
    exec: &mut dyn Executor,
    cfg: &vae::VaeConfig,
    w: &Weights,
    golden: &Golden,
    check: &mut Check,
    suffix: &str,
    most: usize,
) {
    let mut g = Graph::new();
    let (input, z) = latents(&mut g, cfg, golden);
    let y = vae::decode_within(&mut g, cfg, input, most);
    let [_, height, width, _] = g.shape(y).try_into().expect("[B, H, W, 3]");
    let out = run(exec, g, &[(vae::COMPONENT, w)], &[("x", &z)], &[("y", y)]);
    let image = channels_first(&out[0], 3, height * width);
    check.tensor(&format!("decoded{suffix}"), &image);
    if suffix.is_empty() {
        let image01: Vec<f32> = image.iter().map(|x| (x / 2.0 + 0.5).clamp(0.0, 1.0)).collect();
        check.optional("image01", &image01);
    }
}

pub fn encode(
    exec: &mut dyn Executor,
    cfg: &vae::VaeConfig,
    w: &Weights,
    golden: &Golden,
    check: &mut Check,
    suffix: &str,
    most: usize,
) {
    let mut g = Graph::new();
    let (input, pixels) = image(&mut g, golden);
    let moments = vae::encode_within(&mut g, cfg, input, most);
    let [_, h, v, _] = g.shape(moments).try_into().expect("[B, h, w, C]");
    let out = run(exec, g, &[(vae::COMPONENT, w)], &[("x", &pixels)], &[("moments", moments)]);
    let (latent, plane) = (cfg.latent_channels, h * v);
    let both = channels_first(&out[0], 2 * latent, plane);
    let images = || both.chunks_exact(2 * latent * plane).map(|m| m.split_at(latent * plane));
    let mean: Vec<f32> = images().flat_map(|m| m.0).copied().collect();
    let logvar: Vec<f32> = images().flat_map(|m| m.1).copied().collect();
    check.tensor(&format!("enc_mean{suffix}"), &mean);
    let clamped: Vec<f32> = logvar.iter().map(|v| v.clamp(-30.0, 20.0)).collect();
    check.tensor(&format!("enc_logvar{suffix}"), &clamped);
    if suffix.is_empty() {
        let mode: Vec<f32> = mean.iter().map(|m| (m - cfg.shift_factor) * cfg.scaling_factor).collect();
        check.optional("enc_latent_mode", &mode);
    }
}
