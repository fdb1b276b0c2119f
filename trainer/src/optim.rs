//! Optimisers on the host: an adapter is small beside the work that makes its gradient, and host f32 arithmetic is
//! the same on every adapter.
use crate::archive::kept;
use crate::settings::Source;
use crate::settings::field::{COUNT, between, positive};
use crate::settings::part::settings;
use std::sync::Arc;

settings! {
    /// Settings of the adapter's optimiser.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "optim." {
        /// AdamW learning rate (released: 3e-4).
        rate: f32 = 2e-4, between(0.0, 1.0), from Source::Released;
        /// Agreement of the gradients from two halves of an iteration's images, a cosine, from which on the whole rate is used; below,
        /// the root of its running mean over this, at least a fifth, is the part that is. Adam makes steps of one size whatever the gradient is worth, and steps
        /// along chance alone are a random walk that ends off what the head knows. 0: always the whole rate (released).
        agreement: f32 = 0.0, between(0.0, 1.0);
        /// AdamW weight decay (released: 1e-4).
        weight_decay: f32 = 1e-4, between(0.0, 1.0), from Source::Released;
        /// Global gradient norm limit (released: 1).
        max_norm: f32 = 1.0, positive(1e6), from Source::Released;
        /// Highest decay of the averaged adapter, which is the one saved (released: 0.9).
        ema: f32 = 0.9, between(0.0, 1.0), from Source::Released;
        /// Samples in one training run; gradients are accumulated.
        micro_batch: usize = 16, COUNT, unit "images";
    }
}

impl Settings {
    /// The released ones.
    pub fn released() -> Self {
        Settings { rate: 3e-4, ..Settings::default() }
    }
}

/// AdamW (Loshchilov & Hutter 2019) over a list of tensors; with `weight_decay` 0 it is Adam (Kingma & Ba 2015).
#[derive(Clone, Debug)]
pub struct AdamW {
    beta1: f32,
    beta2: f32,
    eps: f32,
    weight_decay: f32,
    step: i32,
    m: Tensors,
    v: Tensors,
}
kept!(AdamW { step, m, v });

/// A list of tensors, shared by copies until one changes.
pub type Tensors = Arc<Vec<Vec<f32>>>;

impl AdamW {
    /// Zero moments for tensors of these lengths; eps is 1e-8.
    pub fn new(betas: (f32, f32), weight_decay: f32, lengths: impl Iterator<Item = usize>) -> Self {
        let m: Tensors = Arc::new(lengths.map(|n| vec![0.0; n]).collect());
        AdamW { beta1: betas.0, beta2: betas.1, eps: 1e-8, weight_decay, step: 0, v: m.clone(), m }
    }
    /// With another epsilon than 1e-8.
    pub fn with_eps(self, eps: f32) -> Self {
        AdamW { eps, ..self }
    }
    /// Whether its moments are those of these tensors.
    pub(crate) fn fits(&self, params: &[Vec<f32>]) -> bool {
        let like = |t: &[Vec<f32>]| t.iter().map(Vec::len).eq(params.iter().map(Vec::len));
        self.step >= 0 && like(&self.m) && like(&self.v)
    }
    /// One step with learning rate `rate`, in torch's order: decay first, then the bias-corrected update.
    pub fn update(&mut self, params: &mut [Vec<f32>], grads: &[Vec<f32>], rate: f32) {
        self.step += 1;
        let correct1 = 1.0 - f64::from(self.beta1).powi(self.step);
        let correct2 = (1.0 - f64::from(self.beta2).powi(self.step)).sqrt();
        let size = (f64::from(rate) / correct1) as f32;
        let (m, v) = (Arc::make_mut(&mut self.m), Arc::make_mut(&mut self.v));
        for ((p, g), (m, v)) in params.iter_mut().zip(grads).zip(m.iter_mut().zip(v)) {
            for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
                *p *= 1.0 - rate * self.weight_decay;
                *m += (g - *m) * (1.0 - self.beta1);
                *v = *v * self.beta2 + (1.0 - self.beta2) * g * g;
                *p -= size * *m / (v.sqrt() / correct2 as f32 + self.eps);
            }
        }
    }
}

/// Scales gradients so that their joint 2-norm is at most `limit`; returns the norm before.
/// As torch's `clip_grad_norm_`: factor `limit / (norm + 1e-6)`, at most 1.
pub fn clip_norm(grads: &mut [Vec<f32>], limit: f32) -> f32 {
    let norm = grads.iter().flatten().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
    let factor = (f64::from(limit) / (norm + 1e-6)).min(1.0) as f32;
    grads.iter_mut().flatten().for_each(|g| *g *= factor);
    norm as f32
}

/// Moving average of parameters: `average += (1 - decay) * (params - average)`, decay `min(limit, (1 + n) / (10 + n))`.
#[derive(Clone, Debug)]
pub struct Ema {
    limit: f32,
    n: u32,
    /// The averaged parameters.
    pub average: Tensors,
}
kept!(Ema { limit, n, average });
/// One that a file's fills.
impl Default for Ema {
    fn default() -> Self {
        Ema::new(0.0, &[])
    }
}

impl Ema {
    /// Starts at `params`.
    pub fn new(limit: f32, params: &[Vec<f32>]) -> Self {
        Ema { limit, n: 0, average: Arc::new(params.to_vec()) }
    }
    /// `min(limit, (1 + n) / (10 + n))`.
    pub fn decay(&self, n: u32) -> f32 {
        self.limit.min((1.0 + n as f32) / (10.0 + n as f32))
    }
    /// Takes in the current parameters; n counts these calls, from 1.
    pub fn update(&mut self, params: &[Vec<f32>]) {
        self.n = self.n.saturating_add(1);
        self.blend(params, self.decay(self.n));
    }
    /// The released schedule: n is the caller's step, and only every `interval`-th step takes the parameters in.
    /// True when it did.
    pub fn step(&mut self, params: &[Vec<f32>], n: u32, interval: u32) -> bool {
        let due = n.checked_add(1).is_some_and(|n| n.is_multiple_of(interval));
        if due {
            self.blend(params, self.decay(n));
        }
        due
    }
    fn blend(&mut self, params: &[Vec<f32>], decay: f32) {
        for (a, p) in Arc::make_mut(&mut self.average).iter_mut().zip(params) {
            a.iter_mut().zip(p).for_each(|(a, p)| *a += (1.0 - decay) * (p - *a));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_reaches_the_bottom_of_a_bowl() {
        let mut p = vec![vec![3.0, -2.0]];
        let mut adam = AdamW::new((0.9, 0.999), 0.0, [2].into_iter());
        for _ in 0..2000 {
            let g = vec![p[0].iter().map(|v| 2.0 * v).collect()];
            adam.update(&mut p, &g, 0.01);
        }
        assert!(p[0].iter().all(|v| v.abs() <= 1e-2), "{p:?}");
    }
    #[test]
    fn first_step_is_the_rate() {
        // m / sqrt(v) is the sign of the gradient at step 1, whatever its size.
        let mut p = vec![vec![1.0, 1.0]];
        AdamW::new((0.9, 0.999), 0.0, [2].into_iter()).update(&mut p, &[vec![1e-3, -50.0]], 0.1);
        assert!((p[0][0] - 0.9).abs() <= 1e-4 && (p[0][1] - 1.1).abs() <= 1e-4, "{p:?}");
    }
    #[test]
    fn clipping_keeps_short_gradients() {
        let mut g = vec![vec![0.3], vec![0.4]];
        assert!((clip_norm(&mut g, 1.0) - 0.5).abs() <= 1e-6);
        assert_eq!(g, [[0.3], [0.4]]);
        assert!((clip_norm(&mut g, 0.05) - 0.5).abs() <= 1e-6);
        assert!((g[1][0] - 0.04).abs() <= 1e-6);
    }
}
