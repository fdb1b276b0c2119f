//! Prompts as SD3's transformer reads them: two CLIP encoders, T5 where there is one, and a store of results.
//!
//! Follows diffusers 0.42 `StableDiffusion3Pipeline.encode_prompt`: the CLIP states side by side on the channels, zeros up
//! to the transformer's text width, T5's states after them on the sequence axis.
use crate::exec::{self, Executor, PlanId, compile, upload};
use crate::fingerprint::Hash;
use crate::graph::Graph;
use crate::model::lora::{self, Lora, Pairs};
use crate::model::{clip, contents, t5};
use crate::tokenizer::{Tokenizer, Unigram};
use crate::weights::Weights;
use crate::{Error, Result};
use alloc::{format, string::String, sync::Arc, vec::Vec};

pub mod cache;
mod cut;
mod encoding;

pub use cache::TextCache;
pub use cut::Cut;
pub use encoding::Encoding;

/// T5 tokens of a prompt unless told otherwise (`max_sequence_length` of diffusers; the released trainer takes 128).
pub const T5_TOKENS: usize = 256;
/// Most T5 tokens of a prompt; the position logits grow with their square.
pub const MAX_T5_TOKENS: usize = 1024;
/// Folders of the encoders.
const COMPONENTS: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];

/// A prompt as the transformer reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    /// `[T, J]`: CLIP tokens, then T5's, or one zero token that stands for those of an absent T5.
    pub context: Vec<f32>,
    /// `[P]`.
    pub pooled: Vec<f32>,
}

/// Sizes of a [`Text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Context tokens T.
    pub tokens: usize,
    /// Context width J.
    pub width: usize,
    /// Pooled features P.
    pub pooled: usize,
    /// How many equal tokens the last one stands for; 1 unless T5 is absent.
    pub repeat: usize,
}

/// A CLIP encoder with its tokenizer.
#[derive(Clone, Debug)]
pub struct Clip {
    /// `text_encoder/config.json`.
    pub config: clip::ClipConfig,
    /// `tokenizer`.
    pub tokenizer: Tokenizer,
    /// Its checkpoint.
    pub weights: Weights,
    /// An adapter's corrections of its layers.
    pub pairs: Arc<Pairs>,
}

/// A T5 encoder with its tokenizer.
#[derive(Clone, Debug)]
pub struct T5 {
    /// `text_encoder_3/config.json`.
    pub config: t5::T5Config,
    /// `tokenizer_3`.
    pub tokenizer: Unigram,
    /// Its checkpoint.
    pub weights: Weights,
    /// An adapter's corrections of its layers.
    pub pairs: Arc<Pairs>,
}

/// The text encoders of a model. Weights go to the device when the first prompt is encoded.
pub struct TextEncoders {
    clips: Vec<(Clip, Option<PlanId>)>,
    t5: Option<(T5, Option<t5::Encoder>)>,
    /// The T5 block that is on the device.
    block: Option<usize>,
    width: usize,
    t5_tokens: usize,
}

impl TextEncoders {
    /// Joins encoders for a transformer whose text width is `width`. `t5_tokens` is the length of the T5 part, whether
    /// there is a T5 or not.
    ///
    /// # Errors
    /// Encoders whose features do not fit the width, or a length that is 0 or too large.
    pub fn new(clips: Vec<Clip>, t5: Option<T5>, width: usize, t5_tokens: usize) -> Result<Self> {
        let features: usize = clips.iter().map(|c| c.config.hidden_size).sum();
        let fits = features <= width && t5.as_ref().is_none_or(|t5| t5.config.d_model == width);
        if !fits || clips.is_empty() || clips.len() > 2 {
            let of_t5 = t5
                .as_ref()
                .map_or(String::from("no T5"), |t5| format!("T5 features of {}", t5.config.d_model));
            return Err(Error::bad(
                "text encoders",
                format!("one or two CLIP encoders with at most {width} features together, and none or {width} of T5"),
                format!("{} with {features} and {of_t5}", clips.len()),
            )
            .with_hint("Do text encoders and transformer belong together?"));
        }
        if !(1..=MAX_T5_TOKENS).contains(&t5_tokens) {
            let expected = format!("1 to {MAX_T5_TOKENS} T5 tokens");
            return Err(Error::bad("text encoders", expected, format!("{t5_tokens}")));
        }
        let clips = clips.into_iter().map(|clip| (clip, None)).collect();
        Ok(TextEncoders { clips, t5: t5.map(|t5| (t5, None)), block: None, width, t5_tokens })
    }

    /// Sizes of what [`TextEncoders::encode`] gives.
    pub fn layout(&self) -> Layout {
        let (t5, repeat) = if self.t5.is_some() { (self.t5_tokens, 1) } else { (1, self.t5_tokens) };
        Layout {
            tokens: self.clip_tokens() + t5,
            width: self.width,
            pooled: self.clips.iter().map(|(clip, _)| clip.config.projection_dim).sum(),
            repeat,
        }
    }
    fn clip_tokens(&self) -> usize {
        self.clips.iter().map(|(clip, _)| clip.config.max_position_embeddings).max().unwrap_or(0)
    }

    /// Whether the encoders have every tensor that encoding reads, from headers alone.
    ///
    /// # Errors
    /// A missing or mis-shaped tensor.
    pub fn check(&self) -> Result<()> {
        for ((clip, _), component) in self.clips.iter().zip(COMPONENTS) {
            exec::check(
                &contents::clip_graph(&clip.config, component),
                &format!("{component}/"),
                &clip.weights,
            )?;
            clip.config.tables().iter().try_for_each(|(t, shape)| clip.weights.expect(t, shape).map(drop))?;
        }
        let Some((t5, _)) = &self.t5 else { return Ok(()) };
        let component = COMPONENTS[2];
        exec::check(&contents::t5_graph(&t5.config, component), &format!("{component}/"), &t5.weights)?;
        let [(positions, shape), _] = t5.config.tables();
        t5.weights.expect(positions, &shape)?;
        t5.config.embed(&t5.weights, &[]).map(drop)
    }

    /// Names these encoders: equal for equal configurations, tokenizers, T5 lengths and weights. Of a large tensor a few
    /// hundred bytes are looked at, so that a checkpoint of gigabytes need not be read; any training changes those. An
    /// adapter of theirs adds a second part ([`cache::ADAPTED`]).
    pub fn fingerprint(&self) -> String {
        use core::fmt::Write;
        let mut hash = Hash::new();
        // Writing to a hash cannot fail.
        let _ = write!(hash, "{:?}", self.layout());
        for (clip, _) in &self.clips {
            let _ = write!(hash, "{:?} {:?}", clip.config, clip.tokenizer);
            hash.weights(&clip.weights);
        }
        if let Some((t5, _)) = &self.t5 {
            let _ = write!(hash, "{:?} {:?}", t5.config, t5.tokenizer);
            hash.weights(&t5.weights);
        }
        let clips = self.clips.iter().map(|(clip, _)| &clip.pairs);
        let pairs = clips.chain(self.t5.iter().map(|(t5, _)| &t5.pairs)).flat_map(|pairs| pairs.iter());
        let mut adapter = None;
        for (target, pair) in pairs {
            adapter.get_or_insert_with(Hash::new).pair(target, pair);
        }
        let adapter = adapter.map(|hash| format!("{}{}", cache::ADAPTED, hash.finish()));
        hash.finish() + &adapter.unwrap_or_default()
    }
}

impl TextEncoders {
    /// Gives the encoders other corrections; `take` hands out those of a component. Those whose corrections change let go of what the
    /// device holds of them; true where there are any.
    ///
    /// # Errors
    /// As [`TextEncoders::forget`].
    pub(crate) fn adapt(
        &mut self,
        exec: &mut dyn Executor,
        take: &mut dyn FnMut(&str) -> Arc<Pairs>,
    ) -> Result<bool> {
        let clips = self.clips.iter_mut().map(|(clip, _)| &mut clip.pairs);
        let all =
            clips.zip(COMPONENTS).chain(self.t5.iter_mut().map(|(t5, _)| (&mut t5.pairs, COMPONENTS[2])));
        let mut changed = false;
        for (pairs, component) in all {
            let new = take(component);
            changed |= *pairs != new;
            *pairs = new;
        }
        if changed {
            self.forget(exec)?;
        }
        Ok(changed)
    }
}

impl Clip {
    fn prepare(&self, exec: &mut dyn Executor, component: &str) -> Result<PlanId> {
        let mut g = Graph::new();
        let length = self.config.max_position_embeddings;
        let embeds = g.input("embeds", &[1, length, self.config.hidden_size]);
        let pick = g.input("pick", &[1, length]);
        let lora = Lora::of(&self.pairs);
        let out = clip::encode(&mut g, &self.config, component, Some(&lora), embeds, pick);
        g.check()?;
        lora::upload(exec, &self.pairs)?;
        upload(exec, &g, &format!("{component}/"), &self.weights)?;
        compile(exec, g, &[("penultimate", out.penultimate), ("pooled", out.pooled)])
    }

    fn write(&self, exec: &mut dyn Executor, plan: PlanId, prompt: &str) -> Result<()> {
        let ids = self.tokenizer.encode(prompt, self.config.max_position_embeddings);
        exec.write(plan, "embeds", &self.config.embed(&self.weights, &ids)?)?;
        exec.write(plan, "pick", &self.config.pick(&ids))
    }
    /// Puts a prompt's states into channels from `column` on, and appends its pooled features.
    fn read(
        &self,
        exec: &mut dyn Executor,
        plan: PlanId,
        width: usize,
        column: usize,
        text: &mut Text,
    ) -> Result<()> {
        let states = exec.read(plan, "penultimate")?;
        let c = self.config.hidden_size;
        for (to, from) in text.context.chunks_exact_mut(width).zip(states.chunks_exact(c)) {
            if let Some(to) = to.get_mut(column..column + c) {
                to.copy_from_slice(from);
            }
        }
        text.pooled.extend(exec.read(plan, "pooled")?);
        Ok(())
    }
}
