//! Frozen tokens that the reward head reads: DINOv2's, or those of a CLIP's image encoder, which know the prompt as well.
use super::pickscore::{self, SCALE};
use crate::{Error, Result};
use pentimento_runtime::exec::{Executor, Home, PlanId, Way, compile, upload_as};
use pentimento_runtime::folder::{open_component, tokenizer_folder};
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::{Constants, clip, clip_vision, dino};
use pentimento_runtime::tokenizer::Tokenizer;
use pentimento_runtime::weights::Weights;
use std::path::Path;

/// Prefix of the leaves.
const COMPONENT: &str = "reward";

enum Net {
    Dino(dino::DinoConfig),
    Clip(Box<Clip>),
}

/// What a CLIP has beside its weights.
struct Clip {
    vision: clip_vision::ClipVisionConfig,
    text: clip::ClipConfig,
    /// What a cosine is multiplied with.
    scale: f32,
    tokenizer: Tokenizer,
}

/// The frozen backbone.
pub struct Backbone {
    /// As [`pentimento_runtime::pipeline::Pipeline::stream`], for its own weights.
    pub stream: bool,
    net: Net,
    pixels: dino::Pixels,
    weights: Weights,
    constants: Constants,
}

impl Backbone {
    /// Opens a DINOv2 folder of transformers (`Dinov2Model`, `Dinov2WithRegistersModel`) or timm, or a `CLIPModel`'s with its
    /// tokenizer, PickScore for one.
    ///
    /// # Errors
    /// A missing or damaged file, or a configuration this runtime does not compute.
    pub fn open(path: &Path) -> Result<Self> {
        let component = open_component(path)?;
        let label = path.join("config.json").display().to_string();
        let json = component.config()?;
        if json.get("model_type").and_then(serde_json::Value::as_str) == Some("clip") {
            return Backbone::clip(path);
        }
        let config = dino::DinoConfig::from_value(&json, &label)?;
        let file = "preprocessor_config.json";
        let pixels = if component.has_file(file) {
            dino::Pixels::from_value(&component.json(file)?, &path.join(file).display().to_string())?
        } else {
            dino::Pixels::from_timm(&json, &label)?.unwrap_or(dino::Pixels::imagenet())
        };
        let weights = dino::transformers_names(&config, &component.weights()?)?;
        Ok(Backbone { net: Net::Dino(config), pixels, weights, constants: Constants::new(), stream: false })
    }
    fn clip(path: &Path) -> Result<Self> {
        let tokenizer = tokenizer_folder(path)?.tokenizer()?;
        let pickscore::Model { text, vision, pixels, weights, scale } = pickscore::Model::open(path)?;
        let net = Net::Clip(Box::new(Clip { vision, text, scale, tokenizer }));
        Ok(Backbone { net, pixels, weights, constants: Constants::new(), stream: false })
    }
    /// Names its weights.
    pub fn fingerprint(&self) -> String {
        self.weights.fingerprint()
    }
    /// Patches a side at the native size.
    pub fn grid(&self) -> usize {
        match &self.net {
            Net::Dino(c) => c.grid(),
            Net::Clip(c) => c.vision.image_size / c.vision.patch_size,
        }
    }
    /// Side of the images it was trained on, pixels.
    pub fn image_size(&self) -> usize {
        match &self.net {
            Net::Dino(c) => c.image_size,
            Net::Clip(c) => c.vision.image_size,
        }
    }
    /// The statistics its pixels are normalised with.
    pub fn pixels(&self) -> &dino::Pixels {
        &self.pixels
    }
    /// Tokens of an image, registers left out, and numbers in each.
    pub fn shape(&self) -> [usize; 2] {
        let width = match &self.net {
            Net::Dino(c) => c.hidden_size,
            Net::Clip(c) => c.vision.hidden_size,
        };
        [1 + self.grid() * self.grid(), width]
    }
    /// Numbers in the tokens of one image: `(1 + patches) * D`.
    pub fn token_numbers(&self) -> usize {
        self.shape().iter().product()
    }
    /// Tokens of images in 0 to 1, `[B, H, W, 3]`, resized to the native size on the device: `[B, 1 + N, D]`.
    pub fn tokens(&mut self, g: &mut Graph, image: Id) -> Id {
        let side = self.image_size();
        let x = dino::preprocess(g, &mut self.constants, image, [side, side], &self.pixels);
        self.tokens_of_pixels(g, x)
    }
    /// Tokens of normalised pixels, `[B, H, W, 3]`, whose sides are multiples of a patch's (CLIP's: of the native size):
    /// `[B, 1 + N, D]`. Register tokens are no patches and are left out; CLIP's last norm, which its model applies to the
    /// class token alone, is applied to all.
    pub fn tokens_of_pixels(&mut self, g: &mut Graph, pixels: Id) -> Id {
        match &self.net {
            Net::Dino(config) => {
                let x = dino::encode(g, &mut self.constants, config, COMPONENT, pixels);
                dino::without_registers(g, config, x)
            }
            Net::Clip(c) => clip_vision::tokens(g, &c.vision, COMPONENT, pixels),
        }
    }
    /// Uploads what a graph with [`Backbone::tokens`] needs.
    ///
    /// # Errors
    /// Missing or mis-shaped tensors.
    pub fn upload(&self, exec: &mut dyn Executor, g: &Graph) -> Result<()> {
        self.constants.upload(exec)?;
        let home = |_: &str| if self.stream { Home::Host } else { Home::Device };
        upload_as(exec, g, &format!("{COMPONENT}/"), &self.weights, &Way { base: &|_| None, home: &home })
    }
}

/// How far a CLIP finds an image to be what its prompt says: PickScore's reward.
impl Backbone {
    /// Numbers in the embedding of an image or a prompt; `None` for networks that know no prompts.
    pub fn aligned(&self) -> Option<usize> {
        match &self.net {
            Net::Dino(_) => None,
            Net::Clip(c) => Some(c.vision.projection_dim),
        }
    }
    /// `exp(logit_scale) cos(image, prompt) / 26` of images, from their tokens `[B, 1 + N, D]`, and prompts' unit vectors
    /// `[B, P]`: `[B]`.
    pub fn alignment(&mut self, g: &mut Graph, tokens: Id, text: Id) -> Id {
        let Net::Clip(c) = &self.net else { return g.fail("alignment: this network knows no prompts") };
        let image = clip_vision::project(g, &c.vision, COMPONENT, tokens);
        let cosine = clip_vision::cosine(g, &mut self.constants, image, text);
        g.affine(cosine, c.scale / SCALE, 0.0)
    }
    /// The plan that encodes one prompt.
    ///
    /// # Errors
    /// A network that knows no prompts; missing tensors; a device that refuses the plan.
    pub fn prompt_plan(&self, exec: &mut dyn Executor) -> Result<PlanId> {
        let (c, mut g) = (self.known()?, Graph::new());
        let y = pickscore::encode_text(&mut g, &c.text, COMPONENT);
        g.check()?;
        self.upload(exec, &g)?;
        compile(exec, g, &[("pooled", y)])
    }
    /// Writes a prompt for [`Backbone::prompt_plan`].
    ///
    /// # Errors
    /// As there.
    pub fn write_prompt(&self, exec: &mut dyn Executor, plan: PlanId, prompt: &str) -> Result<()> {
        let c = self.known()?;
        let ids = c.tokenizer.encode(prompt, c.text.max_position_embeddings);
        pickscore::write_text(exec, plan, &c.text, &self.weights, &ids)
    }
    fn known(&self) -> Result<&Clip> {
        match &self.net {
            Net::Clip(c) => Ok(c),
            Net::Dino(_) => Err(Error::bad("reward model", "a CLIP, which knows prompts", "a DINOv2 model")
                .with_hint("Set `head.alignment` to 0 or give a CLIPModel folder.")),
        }
    }
}
