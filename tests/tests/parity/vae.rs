//! `AutoencoderKL` both ways.
use crate::common::{executors, model, run};
use pentimento::exec::Executor;
use pentimento::graph::Graph;
use pentimento::model::{channels_first, channels_last, vae};
use pentimento::weights::Weights;
use tests::fixture::{Check, Golden, folders, to_f16};

#[test]
fn autoencoders_decode_and_encode() {
    for path in folders("vae", "_class_name", "AutoencoderKL") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = vae::Config::from_value(&config, &path.display().to_string()).expect("a config");
        for (suffix, weights) in [("", weights.clone()), ("_f16w", to_f16(&weights))] {
            for (name, mut exec) in executors("VAE") {
                let mut check = Check::new(&golden, &name);
                decode(exec.as_mut(), &cfg, &weights, &golden, &mut check, suffix);
                encode(exec.as_mut(), &cfg, &weights, &golden, &mut check, suffix);
                check.finish();
            }
        }
    }
}

pub fn decode(
    exec: &mut dyn Executor,
    cfg: &vae::Config,
    w: &Weights,
    golden: &Golden,
    check: &mut Check,
    suffix: &str,
) {
    let &[b, c, h, v] = golden.shape("latents") else { panic!("latents are [B, C, h, w]") };
    let z = golden.floats("latents").iter().map(|z| z / cfg.scaling_factor + cfg.shift_factor);
    let z = channels_last(&z.collect::<Vec<f32>>(), c, h * v, c);
    let mut g = Graph::new();
    let input = g.input("z", &[b, h, v, c]);
    let y = vae::decode(&mut g, cfg, input);
    let out = run(exec, g, &[(vae::COMPONENT, w)], &[("z", &z)], &[("y", y)]);
    let d = cfg.downscale();
    let image = channels_first(&out[0], 3, h * v * d * d);
    check.tensor(&format!("decoded{suffix}"), &image);
    if suffix.is_empty() {
        let image01: Vec<f32> = image.iter().map(|x| (x / 2.0 + 0.5).clamp(0.0, 1.0)).collect();
        check.optional("image01", &image01);
    }
}

pub fn encode(
    exec: &mut dyn Executor,
    cfg: &vae::Config,
    w: &Weights,
    golden: &Golden,
    check: &mut Check,
    suffix: &str,
) {
    let &[b, c, h, v] = golden.shape("image") else { panic!("images are [B, C, H, W]") };
    let image = channels_last(golden.floats("image"), c, h * v, vae::IMAGE_CHANNELS);
    let mut g = Graph::new();
    let input = g.input("image", &[b, h, v, vae::IMAGE_CHANNELS]);
    let moments = vae::encode(&mut g, cfg, input);
    let out = run(exec, g, &[(vae::COMPONENT, w)], &[("image", &image)], &[("moments", moments)]);
    let (latent, plane) = (cfg.latent_channels, h * v / cfg.downscale().pow(2));
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
