//! What a driver has to compute right before its cooperative matrices are used: drivers are known that offer them and return
//! wrong numbers (see the issues named in `ARCHITECTURE.md`), and one that does gets the kernels in f32 instead.
use super::Wgpu;
use crate::Result;
use crate::exec::cpu::Cpu;
use crate::exec::{Executor, LeafData, compile};
use crate::grad::gradients;
use crate::graph::{Graph, Id, Layout};
use crate::rng::Philox;
use alloc::{format, string::String, vec, vec::Vec};
use pentimento_wgsl::{Class, Stored};

/// A small computation: a graph, its outputs, its numbers, and how far a result may be from the twins' as a share of its norm.
struct Trial {
    what: &'static str,
    graph: Graph,
    outputs: Vec<(&'static str, Id)>,
    numbers: fn(u64, usize) -> Vec<f32>,
    tolerance: f64,
}

/// Whole numbers so small that every rounding and every sum is exact.
fn whole(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = Philox::new(seed, 0);
    (0..len).map(|_| rng.below(17) as f32 - 8.0).collect()
}

fn normal(seed: u64, len: usize) -> Vec<f32> {
    let mut data = vec![0.0; len];
    Philox::new(seed, 0).normals(&mut data);
    data
}

/// A layer whose sides are no multiples of a tile's, and its input's gradient: both orientations. The same layer of another input shares its
/// dispatch.
fn product() -> Trial {
    let mut g = Graph::new();
    let (x, w) = (g.input("x", &[150, 200]), g.weight("trial/w", &[136, 200], Layout::Plain));
    let bias = g.input("bias", &[136]);
    let y = g.linear(x, w, Some(bias));
    let dy = g.input("dy", &[150, 136]);
    let dx = gradients(&mut g, y, dy, &[x], false).map(|d| d[0]).unwrap_or(y);
    let other = g.input("other", &[70, 200]);
    let outputs = vec![("y", y), ("dx", dx), ("other y", g.linear(other, w, Some(bias)))];
    Trial { what: "a matrix product", graph: g, outputs, numbers: whole, tolerance: 0.0 }
}

/// Attention and its gradients. Half precision leaves an error of 2^-11 in each of some factors.
fn attention() -> Trial {
    let mut g = Graph::new();
    let shape = [1, 140, 128];
    let [q, k, v, dy] = ["q", "k", "v", "dy"].map(|name| g.input(name, &shape));
    let y = g.attention(q, k, v, 2, None, false);
    let grads = gradients(&mut g, y, dy, &[q, k, v], false).unwrap_or_else(|_| vec![y; 3]);
    let outputs = vec![("y", y), ("dq", grads[0]), ("dk", grads[1]), ("dv", grads[2])];
    Trial { what: "attention", graph: g, outputs, numbers: normal, tolerance: 1e-2 }
}

impl Wgpu {
    /// Gives up cooperative matrices unless they compute what the twins do. Says why in [`Wgpu::notes`].
    pub(super) fn try_matrices(&mut self) {
        if self.caps.matrix.is_none() || self.caps.class != Class::Gpu {
            return;
        }
        let wrong = [product(), attention()].into_iter().find_map(|trial| match self.attempt(&trial) {
            Ok(true) => None,
            Ok(false) => Some(format!("{} came out wrong", trial.what)),
            Err(e) => Some(format!("{} failed: {e}", trial.what)),
        });
        self.clear();
        if let Some(why) = wrong {
            self.caps.matrix = None;
            self.notes.push(format!(
                "{} offers cooperative matrices, but {why}; slower kernels in f32 are used instead",
                self.caps.name
            ));
        }
    }

    fn attempt(&mut self, trial: &Trial) -> Result<bool> {
        let (got, want) = (results(self, trial)?, results(&mut Cpu::new(), trial)?);
        Ok(close(&got, &want, trial.tolerance))
    }

    /// What was found out when the device was opened, in sentences; empty when all is well.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Whether every output is as long as it should be and its error's norm within `tolerance` times its own. A NaN is never.
fn close(got: &[Vec<f32>], want: &[Vec<f32>], tolerance: f64) -> bool {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let one = |(got, want): (&Vec<f32>, &Vec<f32>)| {
        let norm: f64 = want.iter().copied().map(square).sum();
        let error: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
        error <= tolerance * tolerance * norm && got.len() == want.len()
    };
    got.len() == want.len() && got.iter().zip(want).all(one)
}

/// The outputs of a trial on an executor, its weights in half precision where they are kept so.
fn results(exec: &mut dyn Executor, trial: &Trial) -> Result<Vec<Vec<f32>>> {
    let weight = (trial.numbers)(1, 136 * 200);
    if exec.caps().half_weights && exec.caps().matrix.is_some() {
        let words: Vec<u8> = weight.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
        exec.set_leaf("trial/w", LeafData::Packed(Stored::F16, &words))?;
    } else {
        exec.set_leaf("trial/w", LeafData::F32(&weight))?;
    }
    let plan = compile(exec, trial.graph.clone(), &trial.outputs)?;
    let inputs: Vec<(String, usize)> =
        exec.plan(plan).inputs.iter().map(|i| (i.name.clone(), i.slot.len)).collect();
    for (i, (name, len)) in inputs.into_iter().enumerate() {
        exec.write(plan, &name, &(trial.numbers)(2 + i as u64, len))?;
    }
    exec.run(plan)?;
    trial.outputs.iter().map(|(name, _)| exec.peek(plan, name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver that gets one number of one output wrong, or returns none, does not pass; right ones do.
    #[test]
    fn wrong_matrices_are_noticed() {
        for trial in [product(), attention()] {
            let want = results(&mut Cpu::new(), &trial).expect("twins");
            assert!(want.iter().all(|y| y.iter().any(|v| *v != 0.0)), "{}: a result of zeros", trial.what);
            assert!(close(&want, &want, trial.tolerance));
            for i in 0..want.len() {
                let spoiled = |by: fn(&mut Vec<f32>)| {
                    let mut got = want.clone();
                    by(&mut got[i]);
                    close(&got, &want, trial.tolerance)
                };
                assert!(!spoiled(|y| y[0] = f32::NAN) && !spoiled(|y| y.truncate(1)));
                // Twice the result is what a driver was once seen to return; a tile of zeros is another one's.
                assert!(!spoiled(|y| y.iter_mut().for_each(|v| *v *= 2.0)));
                assert!(!spoiled(|y| y.iter_mut().take(256).for_each(|v| *v = 0.0)), "{} {i}", trial.what);
            }
        }
    }
}
