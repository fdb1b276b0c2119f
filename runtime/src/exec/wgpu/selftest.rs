//! A few seconds' test of a device, for whoever wants to know whether it can be trusted: a small network with most of the kernels that a
//! training runs, forward and backward, command by command against the CPU twins.
use super::{Difference, Follow, Wgpu};
use crate::Result;
use crate::exec::{Executor, LeafData, compile};
use crate::grad::gradients;
use crate::graph::{Graph, Id, Layout, Leaf, Op};
use crate::rng::Philox;
use alloc::{collections::BTreeSet, format, string::String, vec, vec::Vec};
use half::f16;
use pentimento_wgsl::Stored;
use pentimento_wgsl::kernel::Act;

/// What a test found.
#[derive(Clone, Debug)]
pub struct Tested {
    /// Commands compared.
    pub commands: usize,
    /// Names of their kernels' entry points, each once.
    pub kernels: BTreeSet<&'static str>,
    /// The first that is wrong; nothing behind it was looked at.
    pub wrong: Option<Difference>,
}

/// Tokens, channels and heads of the network; the image has 16 pixels a side.
const TOKENS: usize = 256;
const WIDTH: usize = 128;
const HEADS: usize = 2;
const PREFIX: &str = "self-test/";

fn weight(g: &mut Graph, name: &str, shape: &[usize]) -> Id {
    g.weight(format!("{PREFIX}{name}"), shape, Layout::Plain)
}

/// An image through a convolution and a group norm to tokens, a block of attention and feed-forward with an adapter's factors, and the mean square
/// of what comes out; with the gradients of the image and the factors.
fn network() -> Result<(Graph, Vec<(String, Id)>)> {
    let mut g = Graph::new();
    let image = g.input("image", &[1, 16, 16, 4]);
    let (kernel, bias) = (weight(&mut g, "conv", &[WIDTH, 3, 3, 4]), weight(&mut g, "bias", &[WIDTH]));
    let x = g.conv2d(image, kernel, Some(bias), 1, 1, 0);
    let (scale, shift) = (weight(&mut g, "scale", &[WIDTH]), weight(&mut g, "shift", &[WIDTH]));
    let x = g.group_norm(x, scale, shift, 8, 1e-5);
    let x = g.act(Act::Silu, x);
    let x = g.reshape(x, &[1, TOKENS, WIDTH]);
    let normed = g.layer_norm(x, 1e-6);
    let [q, k, v] = ["q", "k", "v"].map(|name| {
        let w = weight(&mut g, name, &[WIDTH, WIDTH]);
        g.linear(normed, w, None)
    });
    let (down, up) = (g.input("down", &[8, WIDTH]), g.input("up", &[WIDTH, 8]));
    let low = g.linear(normed, down, None);
    let low = g.linear(low, up, None);
    let q = g.add(q, low);
    let rms = weight(&mut g, "rms", &[WIDTH]);
    let (q, k) = (g.rms_norm(q, rms, 1e-6), g.rms_norm(k, rms, 1e-6));
    let attended = g.attention(q, k, v, HEADS, None, false);
    let x = g.add(x, attended);
    let (first, second) =
        (weight(&mut g, "in", &[4 * WIDTH, WIDTH]), weight(&mut g, "out", &[WIDTH, 4 * WIDTH]));
    let hidden = g.linear(x, first, None);
    let hidden = g.act(Act::GeluTanh, hidden);
    let y = g.linear(hidden, second, None);
    let y = g.add(x, y);
    let p = g.softmax(y, 1.0);
    let dy = g.input("dy", &[1, TOKENS, WIDTH]);
    let square = g.mul(y, p);
    let loss = g.mean(square, 1);
    let mut outputs = Vec::from([("y".into(), y), ("loss".into(), loss)]);
    for (i, dx) in gradients(&mut g, y, dy, &[image, down, up], false)?.into_iter().enumerate() {
        outputs.push((format!("d{i}"), dx));
    }
    Ok((g, outputs))
}

fn normal(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut data = vec![0.0; len];
    Philox::new(seed, 0).normals(&mut data);
    data.iter_mut().for_each(|v| *v *= scale);
    data
}

impl Wgpu {
    /// Runs the small network. Takes a second or two, most of it for shaders; what it needs is freed.
    ///
    /// # Errors
    /// The device failed.
    pub fn self_test(&mut self) -> Result<Tested> {
        let before = self.plans.made();
        let tested = self.tested();
        self.plans.ids_since(before).into_iter().try_for_each(|plan| self.forget(plan))?;
        self.forget_leaves(PREFIX)?;
        tested
    }
    fn tested(&mut self) -> Result<Tested> {
        let (graph, outputs) = network()?;
        for (i, node) in graph.nodes().iter().enumerate() {
            let Op::Leaf { kind: Leaf::Weight(_), name } = &node.op else { continue };
            let numbers = normal(i as u64, node.shape.iter().product(), 0.1);
            // As checkpoints have them.
            if self.caps.half_weights && node.shape.len() == 2 {
                let words: Vec<u8> = numbers.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
                self.set_leaf(name, LeafData::Packed(Stored::F16, &words))?;
            } else {
                self.set_leaf(name, LeafData::F32(&numbers))?;
            }
        }
        let named: Vec<(&str, Id)> = outputs.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        let plan = compile(self, graph, &named)?;
        let inputs = self.plan(plan).inputs.clone();
        for (i, input) in inputs.iter().enumerate() {
            self.write(plan, &input.name, &normal(100 + i as u64, input.slot.len, 0.5))?;
        }
        let (mut commands, mut kernels) = (0, BTreeSet::new());
        let wrong = self.bisect(plan, None, Follow::Adapter, &mut |d| {
            commands += 1;
            kernels.insert(d.variant.entry());
        })?;
        Ok(Tested { commands, kernels, wrong })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_has_most_kernels() {
        let (graph, outputs) = network().expect("a network");
        let named: Vec<(&str, Id)> = outputs.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        let caps = crate::caps::Caps::webgpu();
        let plan = crate::plan::Plan::new(graph, &named, &caps, &|_| Stored::F16).expect("a plan");
        let kernels: BTreeSet<&str> = plan.commands.iter().map(|c| c.call.kernel()).collect();
        for kernel in [
            "matmul",
            "attention",
            "conv2d",
            "conv2d_dx",
            "layer_norm",
            "rms_norm",
            "softmax",
            "unary",
            "binary",
        ] {
            assert!(kernels.contains(kernel), "{kernel} is not among {kernels:?}");
        }
    }
}
