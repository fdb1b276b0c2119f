//! One step along the flow: classifier-free guidance, Euler, Flow-CPS and Flow-SDE, in f32 on the host.
//!
//! `x` is the latent, `v = noise - x0` the predicted velocity, sigma the noise level of `x` and sigma' that of the
//! next latent `x'`. Every rule here is affine in `x` and `v`, so a rule is a few coefficients that the graph can use
//! as constants. Coefficients are computed in f64 and rounded once. All slices of one call have the same length.
use alloc::format;
use alloc::vec::Vec;

use crate::exec::finite;
use crate::{Error, Result};

/// Errors unless all lengths are equal.
fn same_length(what: &str, lengths: &[usize]) -> Result<()> {
    if lengths.windows(2).all(|w| w[0] == w[1]) {
        return Ok(());
    }
    Err(Error::bad(what, "slices of one length", format!("lengths {lengths:?}")))
}

/// Errors unless `1 >= sigma > sigma_next >= 0`.
fn falling(sigma: f32, sigma_next: f32) -> Result<()> {
    if sigma <= 1.0 && sigma > sigma_next && sigma_next >= 0.0 {
        return Ok(());
    }
    Err(Error::bad("sigmas of a step", "1 >= sigma > next >= 0", format!("sigma {sigma}, next {sigma_next}")))
}

/// Whether guidance takes part: as in diffusers, 1 and less mean none.
pub fn guides(guidance: f32) -> bool {
    guidance > 1.0
}

/// Accepts guidance that sampling can use.
///
/// # Errors
/// NaN, a negative number, or more than 100.
pub fn check_guidance(guidance: f32) -> Result<()> {
    if (0.0..=100.0).contains(&guidance) {
        return Ok(());
    }
    Err(Error::bad("guidance", "0 to 100 (1 or less: none)", format!("{guidance}")))
}

/// Accepts the latents of a step.
fn latents(x: Vec<f32>) -> Result<Vec<f32>> {
    finite("latents after a sampling step", &x)
        .map_err(|e| e.with_hint("They grew too large: use less guidance or a weaker adapter."))?;
    Ok(x)
}

/// Guidance: `uncond + guidance * (text - uncond)`.
///
/// # Errors
/// Lengths that differ.
pub fn cfg_combine(uncond: &[f32], text: &[f32], guidance: f32) -> Result<Vec<f32>> {
    same_length("cfg_combine", &[uncond.len(), text.len()])?;
    Ok(uncond.iter().zip(text).map(|(u, t)| u + guidance * (t - u)).collect())
}

/// Euler step: `x' = x + (sigma' - sigma) * v`.
///
/// # Errors
/// Lengths that differ; a result that is not finite.
pub fn euler(x: &[f32], v: &[f32], sigma: f32, sigma_next: f32) -> Result<Vec<f32>> {
    same_length("euler", &[x.len(), v.len()])?;
    let dt = sigma_next - sigma;
    latents(x.iter().zip(v).map(|(x, v)| x + dt * v).collect())
}

/// `mean_x * x + mean_v * v`, the mean of a stochastic step.
fn affine(x: &[f32], v: &[f32], mean_x: f32, mean_v: f32) -> Result<Vec<f32>> {
    same_length("step mean", &[x.len(), v.len()])?;
    Ok(x.iter().zip(v).map(|(x, v)| mean_x * x + mean_v * v).collect())
}

/// `mean + scale * z`.
fn perturbed(mean: &[f32], z: &[f32], scale: f32) -> Result<Vec<f32>> {
    same_length("step noise", &[mean.len(), z.len()])?;
    latents(mean.iter().zip(z).map(|(m, z)| m + scale * z).collect())
}

/// Mean of `(a - b)^2`, summed in f64; 0 for empty slices.
///
/// # Errors
/// Lengths that differ.
pub fn mean_square(a: &[f32], b: &[f32]) -> Result<f64> {
    same_length("log-probability", &[a.len(), b.len()])?;
    let square = |(a, b): (&f32, &f32)| {
        let d = f64::from(a - b);
        d * d
    };
    Ok(a.iter().zip(b).map(square).sum::<f64>() / a.len().max(1) as f64)
}

/// Flow-CPS: a step that keeps the noise level of `x'` at sigma' whatever the noise it adds.
///
/// With noise level eta: `std = sigma' sin(eta pi/2)`, `x0 = x - sigma v`, `x1 = x + (1 - sigma) v`,
/// `mean = (1 - sigma') x0 + sqrt(sigma'^2 - std^2) x1` (Wang and Yu 2025, "Coefficients-preserving sampling"; as in the
/// released Adv-GRPO code, `sde_step_with_logprob_new`). eta = 0 is [`euler`].
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct CpsCoefficients {
    /// Factor of `x` in the mean.
    pub mean_x: f32,
    /// Factor of `v` in the mean.
    pub mean_v: f32,
    /// Standard deviation of the noise added to the mean.
    pub std: f32,
}

impl CpsCoefficients {
    /// Coefficients of the step from `sigma` to `sigma_next` at noise level `eta` in [0, 1].
    ///
    /// # Errors
    /// Sigmas that do not fall within [0, 1]; eta outside [0, 1].
    pub fn new(sigma: f32, sigma_next: f32, eta: f32) -> Result<Self> {
        falling(sigma, sigma_next)?;
        if !(0.0..=1.0).contains(&eta) {
            return Err(Error::bad("Flow-CPS noise level", "a number in [0, 1]", format!("{eta}")));
        }
        let (s, next) = (f64::from(sigma), f64::from(sigma_next));
        let angle = f64::from(eta) * core::f64::consts::FRAC_PI_2;
        // sqrt(sigma'^2 - std^2) without the cancellation.
        let kept = if eta == 1.0 { 0.0 } else { next * libm::cos(angle) };
        Ok(CpsCoefficients {
            mean_x: (1.0 - next + kept) as f32,
            mean_v: (kept * (1.0 - s) - (1.0 - next) * s) as f32,
            std: (next * libm::sin(angle)) as f32,
        })
    }

    /// Mean of `x'`.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn mean(&self, x: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        affine(x, v, self.mean_x, self.mean_v)
    }

    /// `x' = mean + std * z` for standard normal `z`.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn next(&self, mean: &[f32], z: &[f32]) -> Result<Vec<f32>> {
        perturbed(mean, z, self.std)
    }

    /// `-mean((x' - mean)^2)` over one image: the released form, without variance and constants.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn log_prob(&self, next: &[f32], mean: &[f32]) -> Result<f32> {
        Ok(-mean_square(next, mean)? as f32)
    }
}

/// Flow-SDE: the reverse-time SDE with the marginals of the flow (Flow-GRPO, arXiv 2505.05470, eq. 12).
///
/// `std = eta sqrt(sigma / (1 - sigma))`, with `sigmas[1]` in place of a sigma of 1 in the denominator;
/// `mean = x (1 + std^2/(2 sigma) dt) + v (1 + std^2 (1 - sigma)/(2 sigma)) dt`, `dt = sigma' - sigma`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SdeCoefficients {
    /// Factor of `x` in the mean.
    pub mean_x: f32,
    /// Factor of `v` in the mean.
    pub mean_v: f32,
    /// Diffusion coefficient per unit of time (the released code's `std_dev_t`).
    pub std: f32,
    /// Standard deviation of the noise added to the mean: `std * sqrt(-dt)`.
    pub noise: f32,
}

impl SdeCoefficients {
    /// Coefficients of step `step` of a run that visits `sigmas`, at noise level `eta`.
    ///
    /// # Errors
    /// A step that `sigmas` does not have; sigmas that do not fall within [0, 1]; a negative or non-finite eta.
    pub fn new(sigmas: &[f32], step: usize, eta: f32) -> Result<Self> {
        let pair = step.checked_add(1).and_then(|end| sigmas.get(step..=end));
        let (Some(&[sigma, next]), Some(&second)) = (pair, sigmas.get(1)) else {
            let expected = format!("a step below {}", sigmas.len().saturating_sub(1));
            return Err(Error::bad("Flow-SDE", expected, format!("step {step}")));
        };
        falling(sigma, next)?;
        if !(eta >= 0.0 && eta.is_finite()) {
            return Err(Error::bad("Flow-SDE noise level", "a finite number >= 0", format!("{eta}")));
        }
        let (s, dt) = (f64::from(sigma), f64::from(next) - f64::from(sigma));
        let below_one = if sigma == 1.0 { f64::from(second) } else { s };
        let variance = f64::from(eta) * f64::from(eta) * s / (1.0 - below_one);
        let std = libm::sqrt(variance);
        Ok(SdeCoefficients {
            mean_x: (1.0 + variance / (2.0 * s) * dt) as f32,
            mean_v: ((1.0 + variance * (1.0 - s) / (2.0 * s)) * dt) as f32,
            std: std as f32,
            noise: (std * libm::sqrt(-dt)) as f32,
        })
    }

    /// Mean of `x'`.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn mean(&self, x: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        affine(x, v, self.mean_x, self.mean_v)
    }

    /// `x' = mean + noise * z` for standard normal `z`.
    ///
    /// # Errors
    /// Lengths that differ.
    pub fn next(&self, mean: &[f32], z: &[f32]) -> Result<Vec<f32>> {
        perturbed(mean, z, self.noise)
    }

    /// Gaussian log-density per element, averaged over one image:
    /// `-(x' - mean)^2 / (2 noise^2) - ln(noise) - ln(2 pi)/2`.
    ///
    /// # Errors
    /// Lengths that differ, or a step without noise, whose density does not exist.
    pub fn log_prob(&self, next: &[f32], mean: &[f32]) -> Result<f32> {
        if self.noise <= 0.0 {
            return Err(Error::bad("Flow-SDE log-probability", "a noise level above 0", "0"));
        }
        let noise = f64::from(self.noise);
        let constant = libm::log(noise) + 0.5 * libm::log(core::f64::consts::TAU);
        Ok((-mean_square(next, mean)? / (2.0 * noise * noise) - constant) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    extern crate std;

    /// The golden's bound: both limits must hold. Written so that NaN fails.
    fn close(name: &str, got: &[f32], want: &[f32], max_abs: f32, rel_l2: f64) {
        assert_eq!(got.len(), want.len(), "{name}");
        let worst = got.iter().zip(want).fold(0.0, |m: f32, (a, b)| {
            let d = (a - b).abs();
            if d <= m { m } else { d }
        });
        let l2 = |f: &dyn Fn(usize) -> f64| libm::sqrt((0..want.len()).map(|i| f(i) * f(i)).sum());
        let error = l2(&|i| f64::from(got[i]) - f64::from(want[i]));
        let size = l2(&|i| f64::from(want[i]));
        assert!(worst <= max_abs, "{name}: max error {worst}");
        assert!(error <= rel_l2 * size + 1e-12, "{name}: relative error {}", error / size);
    }

    #[test]
    fn the_checker_can_fail() {
        let fails =
            |got: &'static [f32]| std::panic::catch_unwind(|| close("x", got, &[1.0], 1e-3, 1e-3)).is_err();
        assert!(fails(&[1.01]) && fails(&[f32::NAN]) && fails(&[1.0, 1.0]) && !fails(&[1.0001]));
    }

    #[test]
    fn without_noise_cps_is_euler() {
        let c = CpsCoefficients::new(0.7, 0.4, 0.0).unwrap();
        assert_eq!((c.mean_x, c.std), (1.0, 0.0));
        let (x, v) = ([0.3, -1.0], [0.5, 2.0]);
        close("cps", &c.mean(&x, &v).unwrap(), &euler(&x, &v, 0.7, 0.4).unwrap(), 1e-6, 1e-6);
    }

    #[test]
    fn cps_matches_its_definition() {
        let (s, n, eta, x, v) = (0.9f64, 0.65f64, 0.8f64, 0.37f64, -1.2f64);
        let c = CpsCoefficients::new(s as f32, n as f32, eta as f32).unwrap();
        let std = n * libm::sin(eta * core::f64::consts::FRAC_PI_2);
        let mean = (1.0 - n) * (x - s * v) + libm::sqrt(n * n - std * std) * (x + (1.0 - s) * v);
        close("mean", &c.mean(&[x as f32], &[v as f32]).unwrap(), &[mean as f32], 1e-6, 1e-6);
        close("std", &[c.std], &[std as f32], 1e-7, 1e-7);
        let next = c.next(&[1.0, 2.0], &[1.0, -1.0]).unwrap();
        close("logp", &[c.log_prob(&next, &[1.0, 2.0]).unwrap()], &[-(std * std) as f32], 1e-6, 1e-6);
        assert_eq!(CpsCoefficients::new(0.5, 0.0, 0.8).unwrap().std, 0.0, "the last step adds no noise");
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(cfg_combine(&[1.0], &[], 1.0).is_err());
        assert!(euler(&[1.0], &[1.0, 2.0], 1.0, 0.5).is_err());
        for (s, n, eta) in
            [(0.5, 0.5, 0.1), (0.5, 0.7, 0.1), (1.1, 0.5, 0.1), (0.5, -0.1, 0.1), (f32::NAN, 0.1, 0.1)]
        {
            assert!(CpsCoefficients::new(s, n, eta).is_err(), "{s} {n}");
            assert!(SdeCoefficients::new(&[s, n], 0, eta).is_err(), "{s} {n}");
        }
        for eta in [-0.1, 1.1, f32::NAN] {
            assert!(CpsCoefficients::new(0.5, 0.1, eta).is_err());
        }
        assert!(SdeCoefficients::new(&[0.5, 0.1], 0, f32::INFINITY).is_err());
        for (sigmas, step) in [(&[1.0, 0.5, 0.0][..], 2), (&[1.0], 0), (&[], 0), (&[1.0, 0.0], usize::MAX)] {
            assert!(SdeCoefficients::new(sigmas, step, 0.7).unwrap_err().to_string().contains("step"));
        }
        let c = SdeCoefficients::new(&[1.0, 0.5, 0.0], 0, 0.0).unwrap();
        assert!(c.log_prob(&[1.0], &[1.0]).is_err(), "no density without noise");
        assert!(c.next(&[1.0], &[]).is_err() && c.mean(&[], &[1.0]).is_err());
    }
}
