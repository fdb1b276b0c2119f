//! Checkpoint tensors as the device wants them: which a graph needs, whether one fits, and its numbers in the device's
//! order.
use crate::graph::{Graph, Layout, Leaf, Op};
use crate::room::room;
use crate::weights::{TensorView, Weights};
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};

/// A checkpoint tensor that a graph reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Its name in the checkpoint, under diffusers' names and without the component.
    pub name: String,
    /// Shape on the device.
    pub shape: Vec<usize>,
    /// How file and device differ.
    pub layout: Layout,
}

impl Need {
    /// Whether a stored tensor of this shape can serve.
    pub fn fits(&self, stored: &[usize]) -> bool {
        fits(stored, &self.shape, self.layout)
    }
    /// Shape in the checkpoint, as far as it is known: a convolution may have up to three input channels fewer.
    pub fn stored_shape(&self) -> Vec<usize> {
        match (self.layout, self.shape.as_slice()) {
            (Layout::Conv, &[o, kh, kw, c]) => vec![o, c, kh, kw],
            (Layout::Centre { side, .. }, &[_, c]) => vec![1, side * side, c],
            _ => self.shape.clone(),
        }
    }
}

/// The checkpoint tensors that a graph reads under a prefix such as `transformer/`, by name.
pub fn needs(graph: &Graph, prefix: &str) -> BTreeMap<String, Need> {
    let leaves = graph.nodes().iter().filter_map(|node| match &node.op {
        Op::Leaf { kind: Leaf::Weight(layout), name } => {
            let name = tensor(name.strip_prefix(prefix)?, *layout);
            Some((name.into(), Need { name: name.into(), shape: node.shape.clone(), layout: *layout }))
        }
        _ => None,
    });
    leaves.collect()
}

/// The checkpoint's name of a leaf without its prefix.
fn tensor(leaf: &str, layout: Layout) -> &str {
    let cut = || leaf.split_once('@').map(|(name, _)| name);
    if matches!(layout, Layout::Centre { .. }) { cut().unwrap_or(leaf) } else { leaf }
}

/// The checkpoint tensor of a leaf, checked.
pub(super) fn find<'a>(
    weights: &'a Weights,
    leaf: &str,
    device: &[usize],
    layout: Layout,
) -> Result<TensorView<'a>> {
    let name = tensor(leaf, layout);
    let t = weights.get(name)?;
    match layout {
        _ if fits(t.shape, device, layout) => Ok(t),
        Layout::Plain => weights.expect(name, device),
        Layout::Centre { side, .. } => {
            weights.expect(name, &[1, side * side, device.last().copied().unwrap_or(0)])
        }
        Layout::Conv | Layout::Patch => Err(Error::bad(
            format!("{}: `{name}`", t.label),
            format!("a convolution weight that fits {device:?} (output channels first, channels last)"),
            format!("{:?}", t.shape),
        )),
    }
}

fn fits(stored: &[usize], device: &[usize], layout: Layout) -> bool {
    match (layout, stored, device) {
        (Layout::Plain, _, _) => stored == device,
        (Layout::Centre { side, h, w }, &[1, n, c], &[rows, columns]) => {
            n == side * side && columns == c && rows == h * w && h <= side && w <= side
        }
        (Layout::Conv, &[o, c, kh, kw], _) => *device == [o, kh, kw, c.next_multiple_of(4)],
        (Layout::Patch, &[o, c, kh, kw], _) => *device == [o, kh * kw * c],
        _ => false,
    }
}

/// The numbers of a tensor that [`find`] returned, in the device's order.
pub(super) fn values(t: &TensorView<'_>, device: &[usize], layout: Layout) -> Result<Vec<f32>> {
    match layout {
        Layout::Plain => t.to_f32(),
        Layout::Centre { side, h, w } => centre(t, side, h, w),
        Layout::Conv | Layout::Patch => channels_last(t, device, layout),
    }
}

/// The centre of a square table, decoding only that.
fn centre(t: &TensorView<'_>, side: usize, h: usize, w: usize) -> Result<Vec<f32>> {
    let (top, left) = (side.saturating_sub(h) / 2, side.saturating_sub(w) / 2);
    let rows = (top..top + h).map(|y| t.rows(y * side + left, w));
    let rows = rows.collect::<Result<Vec<Option<Vec<f32>>>>>()?.into_iter().collect::<Option<Vec<_>>>();
    let rows = rows.ok_or_else(|| {
        let place = format!("{}: `{}`", t.label, t.name);
        Error::bad(place, format!("a table with rows of whole {} blocks", t.dtype), format!("{:?}", t.shape))
    })?;
    Ok(rows.concat())
}

/// `[O, C, KH, KW]` to `[O, KH, KW, C']`, zeros in the added channels.
fn channels_last(t: &TensorView<'_>, device: &[usize], layout: Layout) -> Result<Vec<f32>> {
    let &[o, c, kh, kw] = t.shape else { return Ok(Vec::new()) };
    let padded = if layout == Layout::Conv { c.next_multiple_of(4) } else { c };
    let data = t.to_f32()?;
    let len = device.iter().product();
    let mut out = room(len, format!("`{}` with channels last", t.name))?;
    out.resize(len, 0.0);
    for i in 0..o {
        for ch in 0..c {
            for y in 0..kh {
                for x in 0..kw {
                    out[((i * kh + y) * kw + x) * padded + ch] = data[((i * c + ch) * kh + y) * kw + x];
                }
            }
        }
    }
    Ok(out)
}
