//! Low-rank adapters: any linear layer becomes `W x + b + scale * B (A x)` (Hu et al. 2021, eq. 3). The weights stay as
//! they are.
//!
//! A layer's *target* is its module's name in the transformer (`transformer_blocks.0.attn.to_q`); in a text encoder that
//! name behind the encoder's (`text_encoder.text_model...`). A: parameter `lora/<target>.lora_A.weight` `[rank, in]`, B:
//! `lora/<target>.lora_B.weight` `[out, rank]`.
use super::mmdit;
use crate::exec::{Executor, LeafData};
use crate::graph::{Graph, Layout, Leaf, Op};
use crate::{Error, Result};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A linear layer of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Width of its input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
    /// Side of the kernel where it is stored as a convolution over patches, whose stride is its side; 1 elsewhere. Its
    /// input is the pixels of a patch, row by row, channels last.
    pub patch: usize,
}

/// Linear layers by target.
pub type Layers = BTreeMap<String, Layer>;

/// The linear layers of a graph's component; `patch`: the kernel side of its patch embedding.
pub fn layers(g: &Graph, component: &str, patch: usize) -> Layers {
    let weights =
        g.nodes().iter().filter(|n| matches!(n.op, Op::Matmul { .. })).filter_map(|n| n.inputs.get(1));
    let layer = |&id| {
        let Op::Leaf { kind: Leaf::Weight(layout), name } = &g.node(id).op else { return None };
        let module = name.strip_prefix(component)?.strip_prefix('/')?.strip_suffix(".weight")?;
        let &[outputs, inputs] = g.shape(id) else { return None };
        let patch = if *layout == Layout::Patch { patch } else { 1 };
        Some((target(component, module), Layer { inputs, outputs, patch }))
    };
    weights.filter_map(layer).collect()
}

/// The target of a component's module.
pub(super) fn target(component: &str, module: &str) -> String {
    if component == mmdit::COMPONENT { module.to_string() } else { format!("{component}.{module}") }
}

/// Leaf names of a target's A and B.
pub fn leaves(target: &str) -> [String; 2] {
    [format!("lora/{target}.lora_A.weight"), format!("lora/{target}.lora_B.weight")]
}

/// How the leaves of a component's targets begin; the transformer's have no component in their names.
pub(crate) fn leaf_prefix(component: &str) -> String {
    format!("lora/{component}.")
}

/// Which layers a graph adapts.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    ranks: BTreeMap<String, usize>,
    /// Factor of every correction, alpha / r; 1 where it is folded into B.
    pub scale: f32,
}

impl Lora {
    /// Layers by target with their ranks.
    pub fn new(ranks: impl IntoIterator<Item = (String, usize)>, scale: f32) -> Self {
        Lora { ranks: ranks.into_iter().collect(), scale }
    }
    /// What is trained: the projections of all joint attentions.
    pub fn joint(cfg: &mmdit::MmditConfig, rank: usize, scale: f32) -> Self {
        Self::new(mmdit::lora_targets(cfg).into_iter().map(|(target, _, _)| (target, rank)), scale)
    }
    /// The layers of pairs that [`upload`] brings to the device.
    pub fn of(pairs: &Pairs) -> Self {
        Self::new(pairs.iter().map(|(target, pair)| (target.clone(), device_rank(pair.rank))), 1.0)
    }
    /// Rank of a layer's correction, if it has one.
    pub fn rank(&self, target: &str) -> Option<usize> {
        self.ranks.get(target).copied()
    }
}

/// Sets the parameters of a graph that adapts [`Lora::of`] these pairs.
///
/// # Errors
/// The device failed.
pub fn upload(exec: &mut dyn Executor, pairs: &Pairs) -> Result<()> {
    for (target, pair) in pairs {
        for (leaf, data) in leaves(target).iter().zip(pair.padded(device_rank(pair.rank))) {
            exec.set_leaf(leaf, LeafData::F32(&data))?;
        }
    }
    Ok(())
}

/// Pairs by target.
pub type Pairs = BTreeMap<String, Pair>;

/// The two factors of one layer's correction `B A`; any scale is already in `b`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pair {
    /// Rank r.
    pub rank: usize,
    /// Down projection A, [r, in], row-major.
    pub a: Vec<f32>,
    /// Up projection B, [out, r], row-major, times alpha / r.
    pub b: Vec<f32>,
}

impl Pair {
    /// Factors of rank `rank`, with `scale` (alpha / r) folded into `b`.
    ///
    /// # Errors
    /// A rank of 0, or lengths that are not multiples of it.
    pub fn new(rank: usize, a: Vec<f32>, b: Vec<f32>, scale: f32) -> Result<Self> {
        let pair = Pair { rank, a, b };
        pair.check("LoRA factors")?;
        Ok(pair.scaled(scale))
    }

    /// Width of the layer's input.
    pub fn inputs(&self) -> usize {
        self.a.len() / self.rank.max(1)
    }
    /// Width of the layer's output.
    pub fn outputs(&self) -> usize {
        self.b.len() / self.rank.max(1)
    }

    /// Whether lengths and rank belong together; `place` is for the error.
    ///
    /// # Errors
    /// A rank of 0, or lengths that are not multiples of it.
    pub fn check(&self, place: &str) -> Result<()> {
        let Pair { rank, a, b } = self;
        let fits = |n: usize| *rank > 0 && n > 0 && n.is_multiple_of(*rank);
        if fits(a.len()) && fits(b.len()) {
            return Ok(());
        }
        let expected = format!("factor lengths that are multiples of rank {rank}");
        Err(Error::bad(place, expected, format!("{} and {}", a.len(), b.len())))
    }

    /// The correction times a number.
    pub fn scaled(mut self, by: f32) -> Self {
        if by != 1.0 {
            self.b.iter_mut().for_each(|v| *v *= by);
        }
        self
    }

    /// The sum of two corrections of one layer: their factors side by side, so the ranks add up.
    ///
    /// # Errors
    /// Corrections of layers with other widths.
    pub fn add(&mut self, other: &Pair) -> Result<()> {
        let widths = |p: &Pair| (p.inputs(), p.outputs());
        if widths(self) != widths(other) {
            let [expected, found] = [self, other].map(|p| format!("{} to {}", p.inputs(), p.outputs()));
            return Err(Error::bad("LoRA factors", format!("a layer from {expected} numbers"), found));
        }
        self.a.extend_from_slice(&other.a);
        let rows = self.b.chunks_exact(self.rank).zip(other.b.chunks_exact(other.rank));
        self.b = rows.flat_map(|(ours, theirs)| ours.iter().chain(theirs).copied()).collect();
        self.rank += other.rank;
        Ok(())
    }

    /// A `[rank, in]` and B `[out, rank]` with zeros where the pair has none, so that their product is the same.
    pub fn padded(&self, rank: usize) -> [Vec<f32>; 2] {
        [recut(&self.a, self.a.len(), rank * self.inputs()), recut(&self.b, self.rank, rank)]
    }
}

/// The rank that an adapter of rank `rank` has on the device: kernels that read four numbers at a time want it so.
pub fn device_rank(rank: usize) -> usize {
    rank.next_multiple_of(4)
}

/// Rows of `row` numbers as rows of `to`: cut off, or continued with zeros.
pub fn recut(data: &[f32], row: usize, to: usize) -> Vec<f32> {
    let rows = data.chunks_exact(row.max(1));
    // A gradient of a large model is 19 M numbers, after every run: whole rows, not number by number.
    let mut out = Vec::with_capacity(rows.len() * to);
    if row == to {
        out.extend_from_slice(&data[..rows.len() * row]);
        return out;
    }
    for row in rows {
        let end = out.len() + to;
        out.extend_from_slice(&row[..to.min(row.len())]);
        out.resize(end, 0.0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// B A, row by row.
    fn product(p: &Pair) -> Vec<f32> {
        let (r, k) = (p.rank, p.inputs());
        let cell = |o: usize, i: usize| (0..r).map(|j| p.b[o * r + j] * p.a[j * k + i]).sum::<f32>();
        (0..p.outputs()).flat_map(|o| (0..k).map(move |i| (o, i))).map(|(o, i)| cell(o, i)).collect()
    }
    fn pair() -> Pair {
        Pair::new(2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![1.0, 10.0, 2.0, 20.0], 1.0).unwrap()
    }

    #[test]
    fn padding_keeps_the_product() {
        let [a, b] = pair().padded(4);
        assert_eq!((a.len(), b.len()), (12, 8));
        assert_eq!(product(&Pair { rank: 4, a, b }), product(&pair()));
        assert_eq!(product(&pair()), [41.0, 52.0, 63.0, 82.0, 104.0, 126.0]);
    }

    #[test]
    fn sums_of_different_ranks_add_up() {
        let one = Pair::new(1, vec![1.0, -1.0, 2.0], vec![3.0, 5.0], 2.0).unwrap();
        let mut sum = pair().scaled(-0.5);
        sum.add(&one).unwrap();
        assert_eq!((sum.rank, sum.inputs(), sum.outputs()), (3, 3, 2));
        let want: Vec<f32> = product(&pair()).iter().zip(product(&one)).map(|(p, q)| -0.5 * p + q).collect();
        assert_eq!(product(&sum), want);
        let narrow = Pair::new(1, vec![1.0], vec![1.0, 1.0], 1.0).unwrap();
        assert!(sum.add(&narrow).unwrap_err().to_string().contains("from 3 to 2 numbers, found 1 to 2"));
        assert!(
            Pair::new(0, vec![], vec![], 1.0).is_err()
                && Pair::new(2, vec![0.0; 3], vec![0.0; 2], 1.0).is_err()
        );
    }
}
