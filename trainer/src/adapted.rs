//! A model with a finished adapter, ready to draw.
use std::path::Path;

use pentimento::exec::Executor;
use pentimento::folder::ModelFolder;
use pentimento::model::mmdit::{self, Lora, lora_targets};
use pentimento::pipeline::{Pipeline, TextSettings};

use crate::Result;
use crate::adapter::{Adapter, Pair};
use crate::objective::{Params, device_rank, recut};

/// Opens a diffusers folder or a single file with an adapter (a file, or a folder that holds one), or without any.
///
/// # Errors
/// As [`ModelFolder::open`] and [`open_with`].
pub fn open(model: &Path, adapter: Option<&Path>, exec: Box<dyn Executor>) -> Result<Pipeline> {
    open_with(&ModelFolder::open(model)?, adapter, exec, TextSettings::default())
}

/// As [`open`], for a model that is open already, with a say in how prompts are encoded.
///
/// # Errors
/// As [`Pipeline::open`] and [`Adapter::load`]: an adapter of which a part would not be used is refused.
pub fn open_with(
    model: &ModelFolder,
    adapter: Option<&Path>,
    exec: Box<dyn Executor>,
    text: TextSettings,
) -> Result<Pipeline> {
    let mut pipeline = Pipeline::open_with(model, exec, None, text)?;
    let Some(path) = adapter else { return Ok(pipeline) };
    let targets = lora_targets(&pipeline.mmdit);
    let sizes = |name: &str| targets.iter().find(|t| t.0 == name).map(|t| (t.1, t.2));
    let (lora, parameters) = parameters(&pipeline.mmdit, &Adapter::load(path, &sizes)?);
    for (name, data) in parameters {
        pipeline.set_param(&name, &data)?;
    }
    pipeline.lora = Some(lora);
    Ok(pipeline)
}

/// The transformer's parameters (leaf name and data) that have an adapter's effect: all of one rank, zeros where the
/// adapter has a smaller one or nothing.
pub fn parameters(cfg: &mmdit::Config, adapter: &Adapter) -> (Lora, Vec<(String, Vec<f32>)>) {
    let rank = device_rank(adapter.pairs.values().map(|p| p.rank).max().unwrap_or(0));
    let targets = lora_targets(cfg);
    let pairs = targets.iter().flat_map(|(name, i, o)| padded(adapter.pairs.get(name), rank, *i, *o));
    let leaves = Params::new(cfg, rank);
    let named = leaves.leaves().into_iter().zip(pairs).map(|((name, _), data)| (name, data));
    (Lora { rank, scale: 1.0 }, named.collect())
}

/// A `[rank, inputs]` and B `[outputs, rank]` with zeros where the pair has none, so that their product is the same.
fn padded(pair: Option<&Pair>, rank: usize, inputs: usize, outputs: usize) -> [Vec<f32>; 2] {
    match pair {
        Some(pair) => [recut(&pair.a, pair.a.len(), rank * inputs), recut(&pair.b, pair.rank, rank)],
        None => [vec![0.0; rank * inputs], vec![0.0; outputs * rank]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_keeps_the_product() {
        let pair = Pair::new(2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![1.0, 10.0, 2.0, 20.0], 1.0).unwrap();
        let [a, b] = padded(Some(&pair), 4, 3, 2);
        assert_eq!((a.len(), b.len()), (12, 8));
        let product = |r: usize, c: usize| (0..4).map(|k| b[r * 4 + k] * a[k * 3 + c]).sum::<f32>();
        assert_eq!([product(0, 0), product(0, 2), product(1, 1)], [41.0, 63.0, 104.0]);
        assert!(padded(None, 4, 3, 2).iter().flatten().all(|v| *v == 0.0));
    }
}
