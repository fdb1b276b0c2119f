//! From prompt to image: text encoders, transformer and autoencoder of one diffusers folder on one executor.
mod adapter;
mod forget;
mod identity;
mod images;
mod texts;

pub use adapter::layers;
pub use images::Images;
pub use texts::Texts;

use crate::exec::{self, Executor, Home, LeafData, PlanId, Way, compile, upload_as};
use crate::folder::ModelFolder;
use crate::graph::{Graph, Id};
use crate::model::contents::{self, Contents, Needs};
use crate::model::lora::{self, Lora, Pairs};
use crate::model::{Constants, clip, mmdit, t5, vae};
use crate::rng::Philox;
use crate::schedule::Schedule;
pub use crate::text::Text;
use crate::text::{Clip, Layout, T5, T5_TOKENS, TextCache, TextEncoders};
use crate::weights::{Base, Weights};
use crate::{Error, Result, sampler};
use alloc::{boxed::Box, collections::BTreeMap, format, vec::Vec};

/// How prompts are encoded.
#[derive(Clone, Debug)]
pub struct TextSettings {
    /// T5 tokens of a prompt, or the zero tokens in their place where the model has no T5.
    pub t5_tokens: usize,
    /// Encoded prompts to use and to add to. With every prompt in it, the folder needs no text encoders.
    pub cache: Option<TextCache>,
}

impl Default for TextSettings {
    fn default() -> Self {
        TextSettings { t5_tokens: T5_TOKENS, cache: None }
    }
}

/// How an image is sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Euler steps.
    pub steps: usize,
    /// Classifier-free guidance, up to 100; 1 and less turn it off.
    pub guidance: f32,
    /// Pixels, a multiple of the model's patch side.
    pub width: usize,
    /// Pixels.
    pub height: usize,
}

/// A velocity computation of a fixed batch.
#[derive(Clone, Copy, Debug)]
pub struct Velocity {
    /// The plan; inputs `latents`, `time`, `pooled`, `context`, output `velocity`.
    pub plan: PlanId,
    /// Samples in a run, conditioned and unconditioned ones together.
    pub batch: usize,
}

/// One model folder on one executor.
pub struct Pipeline {
    /// Where it computes.
    pub exec: Box<dyn Executor>,
    /// `transformer/config.json`.
    pub mmdit: mmdit::MmditConfig,
    /// `vae/config.json`.
    pub vae: vae::VaeConfig,
    /// The scheduler.
    pub schedule: Schedule,
    /// The adapter whose parameters the transformer reads, if any.
    pub lora: Option<Lora>,
    /// What the matrices of the transformer's blocks become on the device ([`mmdit::quantised`]); without, what they are in the file. To be set
    /// before anything was computed.
    pub base: Option<Base>,
    /// Whether these matrices, and the autoencoder's weights, stay on the host and come to the device whenever a plan reads them: the same
    /// results from less of the device's memory, and later. To be set before anything was computed.
    pub stream: bool,
    encoders: Option<TextEncoders>,
    layout: Layout,
    cache: Option<TextCache>,
    transformer: Weights,
    autoencoder: Weights,
    sample_size: usize,
    velocities: BTreeMap<(usize, usize, usize), Velocity>,
    decoders: BTreeMap<(usize, usize, usize), PlanId>,
    image_encoders: BTreeMap<(usize, usize), PlanId>,
}

impl Pipeline {
    /// Reads a folder's configurations and maps its weights; nothing is uploaded before it is needed.
    ///
    /// # Errors
    /// A missing component, a configuration this runtime does not compute, a damaged file.
    pub fn open(folder: &ModelFolder, exec: Box<dyn Executor>) -> Result<Self> {
        Self::open_with(folder, exec, Pairs::new(), TextSettings::default())
    }

    /// As [`Pipeline::open`], with an adapter of any of the [`layers`] of transformer and text encoders, and a say in how
    /// prompts are encoded. A folder without text encoders is accepted when there is a cache.
    ///
    /// # Errors
    /// As [`Pipeline::open`]; an adapter of other layers; a cache of other text encoders, or of others' adapter.
    pub fn open_with(
        folder: &ModelFolder,
        mut exec: Box<dyn Executor>,
        mut adapter: Pairs,
        text: TextSettings,
    ) -> Result<Self> {
        adapter::check(folder, &adapter)?;
        let mmdit = adapter::config(folder, mmdit::COMPONENT, mmdit::MmditConfig::from_value)?;
        let config = folder.component_config("transformer")?;
        let sample_size = config.get("sample_size").and_then(|v| v.as_u64()).unwrap_or(128) as usize;
        let vae = vae::VaeConfig::from_value(&folder.component_config("vae")?, &folder.config_label("vae"))?;
        let mut cache = text.cache;
        let (encoders, layout) = match cache.as_ref().and_then(TextCache::layout) {
            Some(layout) if !has_encoders(folder) => {
                cache.as_ref().map_or(Ok(()), TextCache::believe)?;
                (None, layout)
            }
            _ => {
                let width = mmdit.joint_attention_dim;
                let encoders = text_encoders(folder, width, text.t5_tokens, &mut adapter)?;
                let layout = encoders.layout();
                if let Some(cache) = &mut cache {
                    cache.claim(&encoders.fingerprint(), layout)?;
                }
                (Some(encoders), layout)
            }
        };
        if layout.pooled != mmdit.pooled_projection_dim || layout.width != mmdit.joint_attention_dim {
            return Err(Error::bad(
                folder.config_label("transformer"),
                format!("text features of {} (pooled {}), as the prompts have", layout.width, layout.pooled),
                format!("{} (pooled {})", mmdit.joint_attention_dim, mmdit.pooled_projection_dim),
            ));
        }
        let transformer = all_read(folder, "transformer", contents::transformer(&mmdit)?)?;
        let autoencoder = all_read(folder, "vae", contents::autoencoder(&vae)?)?;
        lora::upload(&mut *exec, &adapter)?;
        Ok(Pipeline {
            exec,
            mmdit,
            vae,
            schedule: folder.schedule()?,
            lora: (!adapter.is_empty()).then(|| Lora::of(&adapter)),
            base: None,
            stream: false,
            encoders,
            layout,
            cache,
            transformer,
            autoencoder,
            sample_size,
            velocities: BTreeMap::new(),
            decoders: BTreeMap::new(),
            image_encoders: BTreeMap::new(),
        })
    }

    /// The resolution the model was trained at, pixels a side.
    pub fn native_size(&self) -> usize {
        self.sample_size.saturating_mul(self.vae.downscale())
    }
    /// Context tokens; an absent T5 counts as one.
    pub fn context_tokens(&self) -> usize {
        self.layout.tokens
    }
    /// Latent height and width of an image.
    ///
    /// # Errors
    /// Sides that are zero, too large or not multiples of the model's patch side.
    pub fn latent_size(&self, width: usize, height: usize) -> Result<[usize; 2]> {
        let unit = self.vae.downscale() * self.mmdit.patch_size;
        let most = self.mmdit.pos_embed_max_size * unit;
        let fits = |n: usize| n > 0 && n.is_multiple_of(unit) && n <= most;
        if !fits(width) || !fits(height) {
            let expected = format!("multiples of {unit} up to {most} pixels");
            return Err(Error::call("image size", expected, format!("{width} x {height}")));
        }
        Ok([height / self.vae.downscale(), width / self.vae.downscale()])
    }

    /// Adds the transformer to a graph; inputs are named `<prefix>latents`, `<prefix>time`, `<prefix>pooled`,
    /// `<prefix>context` and, shared where T5 is absent, `key_bias`. Returns (latents, velocity).
    pub fn velocity_graph(
        &self,
        g: &mut Graph,
        prefix: &str,
        batch: usize,
        size: [usize; 2],
        latents: Option<Id>,
    ) -> (Id, Id) {
        let m = &self.mmdit;
        let tokens = self.context_tokens();
        let x = latents.unwrap_or_else(|| {
            g.input(format!("{prefix}latents"), &[batch, size[0], size[1], m.in_channels])
        });
        let time = g.input(format!("{prefix}time"), &[batch, mmdit::TIME_CHANNELS]);
        let pooled = g.input(format!("{prefix}pooled"), &[batch, m.pooled_projection_dim]);
        let context = g.input(format!("{prefix}context"), &[batch, tokens, m.joint_attention_dim]);
        let keys = m.image_tokens(size[0], size[1]) + tokens;
        let bias = (self.layout.repeat > 1).then(|| g.input("key_bias", &[keys]));
        let v = mmdit::velocity(g, m, self.lora.as_ref(), x, time, pooled, context, bias);
        (x, v)
    }

    /// Whether the model has every tensor that drawing reads, from headers alone.
    ///
    /// # Errors
    /// A missing or mis-shaped tensor; parts that do not fit together.
    pub fn check(&self) -> Result<()> {
        let mut g = Graph::new();
        let side = self.mmdit.patch_size;
        let (latents, _) = self.velocity_graph(&mut g, "", 1, [side; 2], None);
        self.decode_graph(&mut g, latents);
        g.check()?;
        exec::check(&g, "transformer/", &self.transformer)?;
        exec::check(&g, "vae/", &self.autoencoder)?;
        self.encoders.as_ref().map_or(Ok(()), TextEncoders::check)
    }

    /// Uploads what a graph lacks, plans it and sets its key bias.
    ///
    /// # Errors
    /// Missing or mis-shaped tensors; the device refuses the plan.
    pub fn compile(&mut self, g: Graph, outputs: &[(&str, Id)], size: [usize; 2]) -> Result<PlanId> {
        let tokens = self.context_tokens();
        let bias = mmdit::key_bias(self.mmdit.image_tokens(size[0], size[1]), tokens, self.layout.repeat);
        g.check()?;
        let base = |leaf: &str| self.base.filter(|_| mmdit::quantised(leaf));
        let streams = |leaf: &str| self.stream && mmdit::quantised(leaf);
        let home = |leaf: &str| if streams(leaf) { Home::Host } else { Home::Device };
        let way = Way { base: &base, home: &home };
        upload_as(&mut *self.exec, &g, "transformer/", &self.transformer, &way)?;
        let home = |_: &str| if self.stream { Home::Host } else { Home::Device };
        upload_as(&mut *self.exec, &g, "vae/", &self.autoencoder, &Way { base: &|_| None, home: &home })?;
        let uses_bias = g
            .nodes()
            .iter()
            .any(|n| matches!(&n.op, crate::graph::Op::Leaf { name, .. } if name == "key_bias"));
        let plan = compile(&mut *self.exec, g, outputs)?;
        if uses_bias {
            self.exec.write(plan, "key_bias", &bias)?;
        }
        Ok(plan)
    }

    /// The velocity plan of a batch, made on first use.
    ///
    /// # Errors
    /// As [`Pipeline::compile`].
    pub fn velocity(&mut self, batch: usize, size: [usize; 2]) -> Result<Velocity> {
        let key = (batch, size[0], size[1]);
        if let Some(&v) = self.velocities.get(&key) {
            return Ok(v);
        }
        let mut g = Graph::new();
        let (_, v) = self.velocity_graph(&mut g, "", batch, size, None);
        let velocity = Velocity { plan: self.compile(g, &[("velocity", v)], size)?, batch };
        self.velocities.insert(key, velocity);
        Ok(velocity)
    }

    /// The decoder plan of a batch: input `latents` as sampled, output `image` `[B, H, W, 3]` in 0 to 1.
    ///
    /// # Errors
    /// As [`Pipeline::compile`].
    pub fn decoder(&mut self, batch: usize, size: [usize; 2]) -> Result<PlanId> {
        let key = (batch, size[0], size[1]);
        if let Some(&plan) = self.decoders.get(&key) {
            return Ok(plan);
        }
        let mut g = Graph::new();
        let x = g.input("latents", &[batch, size[0], size[1], self.vae.latent_channels]);
        let (image, level) = self.decode_graph(&mut g, x);
        let plan = self.compile(g, &[("image", image), ("finite/image", level)], size)?;
        self.decoders.insert(key, plan);
        Ok(plan)
    }

    /// Numbers in the largest tensor that the device can bind.
    fn most_numbers(&self) -> usize {
        usize::try_from(self.exec.caps().max_binding / 4).unwrap_or(usize::MAX)
    }
    /// Latents to an image in 0 to 1, on a graph, and its mean before it was clamped, which lets no NaN or infinity through:
    /// `[B]`, see [`Executor::read`]. Images too large for the device's bindings are decoded in bands.
    pub fn decode_graph(&self, g: &mut Graph, latents: Id) -> (Id, Id) {
        let z = g.affine(latents, 1.0 / self.vae.scaling_factor, self.vae.shift_factor);
        let image = vae::decode_within(g, &self.vae, z, self.most_numbers());
        let image = g.affine(image, 0.5, 0.5);
        let level = g.mean(image, 1);
        (g.unary(pentimento_wgsl::kernel::Unary::Clamp(0.0, 1.0), image), level)
    }

    /// The plan that encodes one image, made on first use: input `image` (see [`encoder_pixels`]), output `z`, the mean of
    /// the encoder's distribution, scaled as the transformer expects it.
    ///
    /// # Errors
    /// As [`Pipeline::compile`], or a size the model cannot draw.
    pub fn image_encoder(&mut self, width: usize, height: usize) -> Result<PlanId> {
        let size = self.latent_size(width, height)?;
        if let Some(&plan) = self.image_encoders.get(&(width, height)) {
            return Ok(plan);
        }
        let mut g = Graph::new();
        let x = g.input("image", &[1, height, width, vae::IMAGE_CHANNELS]);
        let moments = vae::encode_within(&mut g, &self.vae, x, self.most_numbers());
        let mean = g.slice(moments, 3, 0, self.vae.latent_channels);
        let z = g.affine(mean, self.vae.scaling_factor, -self.vae.shift_factor * self.vae.scaling_factor);
        let plan = self.compile(g, &[("z", z)], size)?;
        self.image_encoders.insert((width, height), plan);
        Ok(plan)
    }

    /// Sets an adapter parameter.
    ///
    /// # Errors
    /// The device failed, or another length than before.
    pub fn set_param(&mut self, name: &str, data: &[f32]) -> Result<()> {
        self.exec.set_leaf(name, LeafData::F32(data))
    }
    /// Sets a model's constants (resampling matrices and the like).
    ///
    /// # Errors
    /// The device failed.
    pub fn set_constants(&mut self, constants: &Constants) -> Result<()> {
        constants.upload(&mut *self.exec)
    }

    /// Writes a velocity run's inputs: `latents` `[n, ..]` at `sigma`, for the given texts; with `null`, each sample
    /// runs twice, first unconditioned. The batch must fit exactly.
    ///
    /// # Errors
    /// Lengths that do not fit the plan.
    pub fn write_velocity(
        &mut self,
        v: Velocity,
        latents: &[f32],
        sigma: f32,
        texts: &[&Text],
        null: Option<&Text>,
    ) -> Result<()> {
        let time = mmdit::time_projection(self.schedule.timestep(sigma));
        let doubled: Vec<&Text> = match null {
            Some(null) => core::iter::repeat_n(null, texts.len()).chain(texts.iter().copied()).collect(),
            None => texts.to_vec(),
        };
        let x = if null.is_some() { [latents, latents].concat() } else { latents.to_vec() };
        let all = |f: &dyn Fn(&Text) -> &[f32]| doubled.iter().map(|t| f(t)).collect::<Vec<_>>().concat();
        self.exec.write(v.plan, "latents", &x)?;
        self.exec.write(v.plan, "time", &time.repeat(v.batch))?;
        self.exec.write(v.plan, "pooled", &all(&|t| &t.pooled))?;
        self.exec.write(v.plan, "context", &all(&|t| &t.context))
    }
    /// Reads a velocity run, combined by guidance when it ran doubled.
    ///
    /// # Errors
    /// The device failed.
    pub fn read_velocity(&mut self, v: Velocity, guidance: Option<f32>) -> Result<Vec<f32>> {
        let out = self.exec.read(v.plan, "velocity")?;
        match guidance {
            Some(guidance) => {
                let (uncond, cond) = out.split_at(out.len() / 2);
                sampler::cfg_combine(uncond, cond, guidance)
            }
            None => Ok(out),
        }
    }

    /// Runs a plan; `more` is asked before every submit and may stop it by returning false.
    fn run_while(&mut self, plan: PlanId, more: &mut dyn FnMut() -> bool) -> Result<()> {
        self.exec.rewind(plan);
        while more() {
            if self.exec.advance(plan)? {
                return Ok(());
            }
        }
        Err(Error::Cancelled)
    }
}

/// Whether any text encoder is in the folder.
fn has_encoders(folder: &ModelFolder) -> bool {
    ["text_encoder", "text_encoder_2", "text_encoder_3"].iter().any(|name| folder.has(name).unwrap_or(false))
}

/// The weights of a component, none of which would be ignored.
fn all_read(folder: &ModelFolder, name: &str, needs: Needs) -> Result<Weights> {
    let weights = folder.component_weights(name)?;
    Contents::of(&weights, Some(&needs)).all_read(&weights.label())?;
    Ok(weights)
}

/// Opens the text encoders of a folder; T5 may be absent. Takes their part of an adapter.
fn text_encoders(
    folder: &ModelFolder,
    width: usize,
    t5_tokens: usize,
    adapter: &mut Pairs,
) -> Result<TextEncoders> {
    let mut clips = Vec::new();
    for (encoder, tokenizer) in [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")] {
        let config = adapter::config(folder, encoder, clip::ClipConfig::from_value)?;
        let weights = all_read(folder, encoder, contents::text_encoder(&config)?)?;
        let tokenizer = folder.tokenizer(tokenizer)?;
        clips.push(Clip { config, tokenizer, weights, pairs: adapter::take(adapter, encoder) });
    }
    let encoder = "text_encoder_3";
    let t5 = if folder.has(encoder)? {
        let config = adapter::config(folder, encoder, t5::T5Config::from_value)?;
        let tokenizer = folder.unigram_tokenizer("tokenizer_3")?;
        let weights = all_read(folder, encoder, contents::t5_encoder(&config)?)?;
        Some(T5 { config, tokenizer, weights, pairs: adapter::take(adapter, encoder) })
    } else {
        None
    };
    TextEncoders::new(clips, t5, width, t5_tokens)
}

/// An image in 0 to 1, `[H, W, 3]`, as [`Pipeline::image_encoder`] takes it: -1 to 1, a fourth channel of zeros.
pub fn encoder_pixels(image: &[f32]) -> Vec<f32> {
    let unit = |v: f32| 2.0 * v - 1.0;
    image.chunks_exact(3).flat_map(|p| [unit(p[0]), unit(p[1]), unit(p[2]), 0.0]).collect()
}

/// The initial noise of an image: a function of its seed alone.
pub fn noise(seed: u64, out: &mut [f32]) {
    Philox::new(seed, 0).normals(out);
}
