//! How long a dispatch may be for a host that wants its device back soon: as much as the device makes in that time, by a product of its
//! own that is measured. A strong GPU would idle at the end of each piece of what a weak one needs cut.
use super::Wgpu;
use crate::Result;
use crate::exec::{Executor, LeafData, PlanId, compile};
use crate::graph::{Graph, Layout};
use alloc::vec::Vec;
use core::time::Duration;
use pentimento_wgsl::{Class, Stored};

/// Floating-point operations that are cut to without a measurement: 2 ms of a device that makes 4 TFLOP/s.
const UNKNOWN: u64 = 8_000_000_000;
/// What is measured is believed between these: a device whose clock is low, or a clock that is wrong, must not decide alone.
const LEAST: u64 = 1_000_000_000;
const MOST: u64 = 200_000_000_000;
const WEIGHT: &str = "short/weight";
/// Sides of the product, 1.1 GFLOP: nothing that a frame would notice.
const SIDES: [usize; 3] = [512, 1024, 1024];
const RUNS: usize = 4;

impl Wgpu {
    /// Commands of more operations than the device makes in this time, or that move so much that it takes as long, become several
    /// dispatches in plans that are made from now on. Measures a small product, but on a driver that computes on the CPU, where dispatches
    /// are short in operations anyway.
    ///
    /// # Errors
    /// The device failed.
    pub fn keep_dispatches_below(&mut self, time: Duration) -> Result<()> {
        self.caps.longest = UNKNOWN;
        if self.caps.class == Class::Gpu {
            let made = self.plans.made();
            let rate = self.small_rate();
            self.plans.ids_since(made).into_iter().try_for_each(|plan| self.forget(plan))?;
            self.forget_leaves(WEIGHT)?;
            self.caps.longest = longest(rate?, time);
        }
        Ok(())
    }

    /// Operations per second of a small product.
    fn small_rate(&mut self) -> Result<f64> {
        let [m, n, k] = SIDES;
        let numbers: Vec<f32> = (0..n * k).map(|i| ((i * 7919 % 10007) as f32 - 5003.0) * 1e-4).collect();
        if self.caps.half_weights {
            let halves = numbers.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes());
            self.set_leaf(WEIGHT, LeafData::Packed(Stored::F16, &halves.collect::<Vec<u8>>()))?;
        } else {
            self.set_leaf(WEIGHT, LeafData::F32(&numbers))?;
        }
        let mut g = Graph::new();
        let (x, w) = (g.input("x", &[m, k]), g.weight(WEIGHT, &[n, k], Layout::Plain));
        let y = g.linear(x, w, None);
        let plan: PlanId = compile(self, g, &[("y", y)])?;
        self.write(plan, "x", &numbers[..m * k])?;
        let flops = self.plan(plan).flops as f64;
        let mut best = f64::INFINITY;
        for _ in 0..RUNS {
            let time = self.time(plan)?;
            best = best.min(time.device.filter(|&s| s > 0.0).unwrap_or(time.wall));
        }
        Ok(flops / best)
    }
}

/// Operations of a dispatch at most, at so many a second.
fn longest(rate: f64, time: Duration) -> u64 {
    let most = rate * time.as_secs_f64();
    if most.is_finite() { (most as u64).clamp(LEAST, MOST) } else { UNKNOWN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_believed_within_bounds() {
        let ms = Duration::from_millis;
        assert_eq!(longest(4e12, ms(2)), 8_000_000_000);
        assert_eq!(longest(1e9, ms(2)), LEAST);
        assert_eq!(longest(1e18, ms(2)), MOST);
        assert_eq!([f64::NAN, f64::INFINITY].map(|rate| longest(rate, ms(2))), [UNKNOWN; 2]);
    }

    /// Nothing of the measurement is left, and plans follow it.
    #[test]
    fn a_device_is_measured_and_left_as_it_was() {
        let mut noop = Wgpu::noop().expect("noop");
        let before = noop.memory().now;
        noop.keep_dispatches_below(Duration::from_millis(2)).expect("a measurement");
        assert!((LEAST..=MOST).contains(&noop.caps().longest));
        assert!(!noop.has_leaf(WEIGHT) && noop.memory().now == before);
    }
}
