//! The networks, one file each, in the order data flows. A network is a function over a [`Graph`]; its weights are
//! leaves named `"<component>/<tensor name in the checkpoint>"`, so a search for a tensor name finds its only use.
//!
//! Images and latents are channels last on the device; [`channels_last`] and [`channels_first`] convert on the host.
pub mod clip;
pub mod clip_vision;
pub mod contents;
pub mod dino;
pub mod lora;
pub mod mmdit;
mod resample;
pub mod t5;
pub mod vae;

pub use resample::{Cubic, bicubic, bicubic_matrix};

use crate::exec::{Executor, LeafData};
use crate::graph::{Graph, Id, Layout};
use crate::op::attention::MAX_HEAD;
use crate::weights::TensorView;
use crate::{Error, Result};
use alloc::{format, string::String, vec::Vec};
use core::fmt::Display;
use lora::Lora;
use serde_json::Value;

/// A place in a checkpoint: a component and the beginning of a tensor name; whether its tensors are trained; and which of its
/// linear layers an adapter corrects.
#[derive(Clone, Debug)]
struct Names<'a>(String, bool, Option<&'a Lora>);

impl<'a> Names<'a> {
    fn new(component: &str) -> Self {
        Names(format!("{component}/"), false, None)
    }
    /// The same place with an adapter.
    fn adapted(self, lora: Option<&'a Lora>) -> Self {
        Names(self.0, self.1, lora)
    }
    /// One level deeper.
    fn at(&self, part: impl Display) -> Self {
        Names(format!("{}{part}.", self.0), self.1, self.2)
    }
    /// The module's name in the component, as the reference library has it.
    fn module(&self) -> String {
        self.0.split_once('/').map_or(self.0.as_str(), |(_, module)| module).trim_end_matches('.').into()
    }
    /// The same place, its tensors parameters instead of frozen weights where `yes`.
    fn trained(self, yes: bool) -> Self {
        Names(self.0, yes, self.2)
    }
    /// A tensor as it is in the file.
    fn tensor(&self, g: &mut Graph, name: &str, shape: &[usize]) -> Id {
        let name = format!("{}{name}", self.0);
        if self.1 { g.param(name, shape) } else { g.weight(name, shape, Layout::Plain) }
    }
    /// `x w^T`; x: `[.., K]`, w: `[out, K]`.
    fn matmul(&self, g: &mut Graph, x: Id, out: usize) -> Id {
        let w = [out, columns(g, x)];
        let w = self.tensor(g, "weight", &w);
        self.apply(g, x, w, None)
    }
    /// `x w^T + b`; x: `[.., K]`, w: `[out, K]`, b: `[out]`.
    fn linear(&self, g: &mut Graph, x: Id, out: usize) -> Id {
        let w = [out, columns(g, x)];
        let (w, b) = (self.tensor(g, "weight", &w), self.tensor(g, "bias", &[out]));
        self.apply(g, x, w, Some(b))
    }
    /// Every linear layer is made here: with the adapter's correction where it has one for this place.
    fn apply(&self, g: &mut Graph, x: Id, w: Id, bias: Option<Id>) -> Id {
        let y = g.linear(x, w, bias);
        let Some(lora) = self.2 else { return y };
        let (component, _) = self.0.split_once('/').unwrap_or_default();
        let target = lora::target(component, &self.module());
        let (Some(rank), &[outputs, inputs]) = (lora.rank(&target), g.shape(w)) else { return y };
        let [a, b] = lora::leaves(&target);
        let (a, b) = (g.param(a, &[rank, inputs]), g.param(b, &[outputs, rank]));
        let low = g.linear(x, a, None);
        let low = if lora.scale == 1.0 { low } else { g.affine(low, lora.scale, 0.0) };
        let delta = g.linear(low, b, None);
        g.add(y, delta)
    }
    /// Layer norm with weight and bias over the last axis.
    fn layer_norm(&self, g: &mut Graph, x: Id, eps: f32) -> Id {
        let c = [columns(g, x)];
        let (w, b) = (self.tensor(g, "weight", &c), self.tensor(g, "bias", &c));
        g.layer_norm_affine(x, w, b, eps)
    }
    /// A convolution whose stride equals its kernel, as a linear layer over patches.
    /// x: `[B, H, W, C]`; result: `[B, H/p * W/p, out]`, rows of patches from the top.
    fn patch_embedding(&self, g: &mut Graph, x: Id, p: usize, out: usize) -> Id {
        let b = self.tensor(g, "bias", &[out]);
        self.patch_projection(g, x, p, out, Some(b))
    }
    /// As [`Names::patch_embedding`], with the bias given, if there is one.
    fn patch_projection(&self, g: &mut Graph, x: Id, p: usize, out: usize, bias: Option<Id>) -> Id {
        let x = patches(g, x, p);
        let w = [out, columns(g, x)];
        let w = g.weight(format!("{}weight", self.0), &w, Layout::Patch);
        self.apply(g, x, w, bias)
    }
}

/// Length of the last axis.
fn columns(g: &Graph, x: Id) -> usize {
    g.shape(x).last().copied().unwrap_or(0)
}

/// One token's row of an embedding table `[V, C]`.
fn embedding(table: &TensorView<'_>, id: u32) -> Result<Vec<f32>> {
    let rows = table.shape.first().copied().unwrap_or(0);
    let place = || format!("{}: `{}`", table.label, table.name);
    let row = usize::try_from(id).ok().filter(|&row| row < rows).ok_or_else(|| {
        Error::bad(place(), format!("token ids below {rows}"), format!("{id}"))
            .with_hint("Does the tokenizer belong to this text encoder?")
    })?;
    let row =
        table.rows(row, 1)?.ok_or_else(|| Error::bad(place(), "rows that are whole blocks", "others"))?;
    if crate::exec::wild(&row).is_some() {
        table.check_finite()?;
    }
    Ok(row)
}

/// The four sides of an image tensor; a broken rule of the graph when there are not four.
fn image_shape(g: &mut Graph, x: Id, what: &str) -> [usize; 4] {
    if let &[b, h, w, c] = g.shape(x) {
        return [b, h, w, c];
    }
    let message = format!("{what}: expected [B, H, W, C], found {:?}", g.shape(x));
    g.fail(message);
    [0; 4]
}

/// `[B, H, W, C]` -> `[B, H/p * W/p, p * p * C]`.
fn patches(g: &mut Graph, x: Id, p: usize) -> Id {
    let [b, h, w, c] = image_shape(g, x, "patches");
    if !h.is_multiple_of(p) || !w.is_multiple_of(p) {
        return g.fail(format!(
            "patches of {p} x {p} from {h} x {w} pixels: both sides must be multiples of {p}"
        ));
    }
    let x = g.reshape(x, &[b, h / p, p, w / p, p * c]);
    let x = if p == 1 { x } else { g.permute(x, &[0, 1, 3, 2, 4]) };
    g.reshape(x, &[b, (h / p) * (w / p), p * p * c])
}

/// `[B, h * w, p * p * C]` -> `[B, h * p, w * p, C]`, the inverse of [`patches`].
fn unpatch(g: &mut Graph, x: Id, p: usize, h: usize, w: usize) -> Id {
    let (b, c) = (g.shape(x)[0], columns(g, x) / (p * p));
    let x = g.reshape(x, &[b, h, w, p, p * c]);
    let x = if p == 1 { x } else { g.permute(x, &[0, 1, 3, 2, 4]) };
    g.reshape(x, &[b, h * p, w * p, c])
}

/// Tensors that a graph needs besides its checkpoint: small tables known when it is built.
/// Set them with `Executor::set_leaf` before the plan is prepared.
#[derive(Clone, Debug, Default)]
pub struct Constants(Vec<(String, Vec<f32>)>);

impl Constants {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }
    /// Leaf names and contents.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.0.iter().map(|(name, data)| (name.as_str(), data.as_slice()))
    }
    /// Sets those that an executor lacks.
    ///
    /// # Errors
    /// The device failed.
    pub fn upload(&self, exec: &mut dyn Executor) -> Result<()> {
        for (name, data) in &self.0 {
            if !exec.has_leaf(name) {
                exec.set_leaf(name, LeafData::F32(data))?;
            }
        }
        Ok(())
    }
    /// A constant; equal names must mean equal contents.
    fn tensor(
        &mut self,
        g: &mut Graph,
        name: String,
        shape: &[usize],
        data: impl FnOnce() -> Vec<f32>,
    ) -> Id {
        let name = format!("constant/{name}");
        if self.0.iter().all(|(known, _)| *known != name) {
            self.0.push((name.clone(), data()));
        }
        g.weight(name, shape, Layout::Plain)
    }
    /// A short vector, named by its contents.
    fn vector(&mut self, g: &mut Graph, data: &[f32]) -> Id {
        self.tensor(g, format!("{data:?}"), &[data.len()], || data.to_vec())
    }
}

/// `[B, C, H, W]` -> `[B, H, W, C']` with zeros in channels C..C'. `data` holds `B * C * plane` numbers.
pub fn channels_last(data: &[f32], c: usize, plane: usize, padded: usize) -> Vec<f32> {
    let images = data.chunks_exact((c * plane).max(1));
    let pixels = images.flat_map(|image| (0..plane).map(move |p| (image, p)));
    pixels
        .flat_map(|(image, p)| (0..padded).map(move |i| if i < c { image[i * plane + p] } else { 0.0 }))
        .collect()
}

/// `[B, H, W, C]` -> `[B, C, H, W]`. `data` holds `B * plane * C` numbers.
pub fn channels_first(data: &[f32], c: usize, plane: usize) -> Vec<f32> {
    let images = data.chunks_exact((c * plane).max(1));
    images.flat_map(|image| (0..c * plane).map(move |i| image[(i % plane) * c + i / plane])).collect()
}

/// Reads a `config.json`; every error names the file and the field.
struct Fields<'a> {
    json: &'a Value,
    label: &'a str,
}

impl<'a> Fields<'a> {
    fn new(json: &'a Value, label: &'a str) -> Result<Self> {
        if json.is_object() {
            Ok(Fields { json, label })
        } else {
            Err(Error::bad(label, "a JSON object", "another value"))
        }
    }
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.json.get(name).filter(|v| !v.is_null())
    }
    fn bad(&self, name: &str, expected: impl Into<String>, found: impl Display) -> Error {
        Error::bad(format!("{}: `{name}`", self.label), expected, format!("{found}"))
    }
    fn missing(&self, name: &str) -> Error {
        Error::missing(self.label, format!("field `{name}`"))
            .with_hint("Is this the configuration of another model?")
    }
    /// A count of at least 1, small enough that products of a few do not overflow.
    fn size(&self, name: &str) -> Result<usize> {
        let value = self.get(name).ok_or_else(|| self.missing(name))?;
        self.as_size(name, value)
    }
    fn as_size(&self, name: &str, value: &Value) -> Result<usize> {
        let size = value.as_u64().filter(|&v| (1..=1 << 20).contains(&v));
        size.map(|v| v as usize).ok_or_else(|| self.bad(name, "a whole number from 1 to 1048576", value))
    }
    fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let value = self.get(name).ok_or_else(|| self.missing(name))?;
        let list = value.as_array().filter(|l| !l.is_empty() && l.len() <= 64);
        let list = list.ok_or_else(|| self.bad(name, "a list of 1 to 64 whole numbers", value))?;
        list.iter().map(|v| self.as_size(name, v)).collect()
    }
    fn number(&self, name: &str, default: Option<f64>) -> Result<f64> {
        match (self.get(name), default) {
            (Some(v), _) => v.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.bad(name, "a number", v)),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(name)),
        }
    }
    fn flag(&self, name: &str, default: bool) -> Result<bool> {
        let Some(v) = self.get(name) else { return Ok(default) };
        v.as_bool().ok_or_else(|| self.bad(name, "true or false", v))
    }
    /// One of a few words, or nothing.
    fn word(&self, name: &str, known: &[&str]) -> Result<Option<&'a str>> {
        let Some(v) = self.get(name) else { return Ok(None) };
        let word = v.as_str().filter(|w| known.contains(w));
        word.map(Some).ok_or_else(|| self.bad(name, format!("one of {known:?}"), v))
    }
    /// `num_attention_heads` that the attention kernels can run.
    fn heads(&self, channels: usize, heads: usize) -> Result<()> {
        let width = channels / heads.max(1);
        if width * heads == channels && width.is_multiple_of(4) && (4..=MAX_HEAD).contains(&width) {
            return Ok(());
        }
        let expected = format!("heads whose width is a multiple of 4 up to {MAX_HEAD}");
        Err(self.bad("num_attention_heads", expected, format!("{heads} heads over {channels} channels")))
    }
    /// An `image_size` of whole patches.
    fn patches(&self, image: usize, patch: usize) -> Result<()> {
        if patch > 0 && image.is_multiple_of(patch) {
            return Ok(());
        }
        Err(self.bad("image_size", format!("a multiple of {patch}"), image))
    }
    fn at_most(&self, name: &str, value: usize, most: usize) -> Result<()> {
        if value <= most { Ok(()) } else { Err(self.bad(name, format!("at most {most}"), value)) }
    }
    /// A field that must have one value where it is present at all.
    fn only(&self, name: &str, expected: Value) -> Result<()> {
        match self.get(name) {
            Some(v) if *v != expected => Err(self
                .bad(name, format!("{expected}"), v)
                .with_hint("Other values are not supported; is this another kind of model?")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_inverse() {
        let data: Vec<f32> = (0..2 * 3 * 4).map(|v| v as f32).collect();
        let last = channels_last(&data, 3, 4, 3);
        assert_eq!(last[..4], [0.0, 4.0, 8.0, 1.0]);
        assert_eq!(channels_first(&last, 3, 4), data);
        assert_eq!(channels_last(&data, 3, 4, 4)[..8], [0.0, 4.0, 8.0, 0.0, 1.0, 5.0, 9.0, 0.0]);
    }

    #[test]
    fn config_errors_name_file_and_field() {
        let json: Value = serde_json::from_str(r#"{"a":0,"b":"x","c":null}"#).unwrap();
        let f = Fields::new(&json, "m/config.json").unwrap();
        let text = |r: Result<usize>| format!("{}", r.unwrap_err());
        assert!(text(f.size("a")).starts_with("m/config.json: `a`: expected a whole number"));
        assert!(text(f.size("c")).starts_with("m/config.json: missing field `c`"));
        assert!(f.word("b", &["y"]).is_err() && f.word("c", &["y"]).unwrap().is_none());
        assert!(f.only("b", Value::from("y")).is_err() && f.only("z", Value::from("y")).is_ok());
        assert!(Fields::new(&Value::from(1), "x").is_err());
    }
}
