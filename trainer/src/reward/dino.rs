//! Frozen DINOv2 tokens: what the reward head reads.
use crate::{Error, Result};
use pentimento::exec::{Executor, upload};
use pentimento::folder::open_component;
use pentimento::graph::{Graph, Id};
use pentimento::model::{Constants, dino};
use pentimento::weights::Weights;
use std::path::Path;

/// The frozen backbone.
pub struct Backbone {
    config: dino::Config,
    pixels: dino::Pixels,
    weights: Weights,
    constants: Constants,
}

impl Backbone {
    /// Opens a DINOv2 folder of transformers (`Dinov2Model`, `Dinov2WithRegistersModel`) or timm.
    ///
    /// # Errors
    /// A missing or damaged file, or a configuration this runtime does not compute.
    pub fn open(path: &Path) -> Result<Self> {
        let component = open_component(path)?;
        let label = path.join("config.json").display().to_string();
        let json = component.config()?;
        if json.get("model_type").and_then(serde_json::Value::as_str) == Some("clip") {
            return Err(Error::bad(label, "a DINOv2 model", "a CLIP model")
                .with_hint("PickScore is a reward of the released schedule only: use `--recipe released`."));
        }
        let config = dino::Config::from_value(&json, &label)?;
        let file = "preprocessor_config.json";
        let pixels = if component.has_file(file) {
            dino::Pixels::from_value(&component.json(file)?, &path.join(file).display().to_string())?
        } else {
            dino::Pixels::from_timm(&json, &label)?.unwrap_or(dino::Pixels::imagenet())
        };
        let weights = dino::transformers_names(&config, &component.weights()?)?;
        Ok(Backbone { config, pixels, weights, constants: Constants::new() })
    }
    /// Patches a side at the native size.
    pub fn grid(&self) -> usize {
        self.config.grid()
    }
    /// Side of the images it was trained on, pixels.
    pub fn image_size(&self) -> usize {
        self.config.image_size
    }
    /// The statistics its pixels are normalised with.
    pub fn pixels(&self) -> &dino::Pixels {
        &self.pixels
    }
    /// Tokens of an image, registers left out, and numbers in each.
    pub fn shape(&self) -> [usize; 2] {
        [1 + self.grid() * self.grid(), self.config.hidden_size]
    }
    /// Numbers in the tokens of one image: `(1 + patches) * D`.
    pub fn token_numbers(&self) -> usize {
        self.shape().iter().product()
    }
    /// Tokens of images in 0 to 1, `[B, H, W, 3]`, resized to the native size on the device: `[B, 1 + N, D]`.
    pub fn tokens(&mut self, g: &mut Graph, image: Id) -> Id {
        let side = self.config.image_size;
        let x = dino::preprocess(g, &mut self.constants, image, [side, side], &self.pixels);
        self.tokens_of_pixels(g, x)
    }
    /// Tokens of normalised pixels, `[B, H, W, 3]`, whose sides are multiples of a patch's: `[B, 1 + N, D]`.
    /// Register tokens are no patches and are left out.
    pub fn tokens_of_pixels(&mut self, g: &mut Graph, pixels: Id) -> Id {
        let x = dino::encode(g, &mut self.constants, &self.config, "reward", pixels);
        dino::without_registers(g, &self.config, x)
    }
    /// Uploads what a graph with [`Backbone::tokens`] needs.
    ///
    /// # Errors
    /// Missing or mis-shaped tensors.
    pub fn upload(&self, exec: &mut dyn Executor, g: &Graph) -> Result<()> {
        self.constants.upload(exec)?;
        upload(exec, g, "reward/", &self.weights)
    }
}
