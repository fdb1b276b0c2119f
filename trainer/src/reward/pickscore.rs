//! PickScore as a reward that learns: CLIP's similarity of prompt and image, whose last image layers are tuned to tell
//! references from generated images of the same prompt. Released as `train_sd3_fast_pickscore.py`.
use super::{HeadStep, Learned};
use crate::{Error, Result};
use pentimento_runtime::exec::{Executor, LeafData, PlanId, compile, upload};
use pentimento_runtime::folder::open_component;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::model::{Constants, clip, clip_vision, dino};
use pentimento_runtime::weights::Weights;
use std::path::Path;

/// Prefix of the leaves.
pub const COMPONENT: &str = "pickscore";
/// Scaled similarities are divided by this to make a reward (released).
pub const SCALE: f32 = 26.0;

/// A `CLIPModel` folder.
pub struct Model {
    /// Text encoder.
    pub text: clip::ClipConfig,
    /// Image encoder.
    pub vision: clip_vision::ClipVisionConfig,
    /// Statistics that pixels are normalised with.
    pub pixels: dino::Pixels,
    /// All tensors.
    pub weights: Weights,
    /// What a cosine is multiplied with: `exp(logit_scale)`.
    pub scale: f32,
}

impl Model {
    /// Opens a folder.
    ///
    /// # Errors
    /// A missing or damaged file, or a configuration this runtime does not compute.
    pub fn open(path: &Path) -> Result<Self> {
        let component = open_component(path)?;
        let label = path.join("config.json").display().to_string();
        let (vision, text) = clip_vision::ClipVisionConfig::from_value(&component.config()?, &label)?;
        let file = "preprocessor_config.json";
        let pixels = if component.has_file(file) {
            dino::Pixels::from_value(&component.json(file)?, &path.join(file).display().to_string())?
        } else {
            dino::Pixels::clip()
        };
        let weights = component.weights()?;
        let scale = weights.expect("logit_scale", &[])?.to_f32()?.first().map_or(f32::NAN, |s| s.exp());
        if !scale.is_finite() {
            return Err(Error::bad(format!("{label}: `logit_scale`"), "a small number", scale.to_string()));
        }
        Ok(Model { text, vision, pixels, weights, scale })
    }
}

/// The reward and its optimiser, for a fixed number of prompts at a time.
pub struct PickScore {
    model: Model,
    batch: usize,
    rate: f32,
    names: Vec<String>,
    learned: Learned,
    text_plan: PlanId,
    hidden_plan: PlanId,
    score_plan: PlanId,
    step_plan: PlanId,
}

impl PickScore {
    /// Plans for `batch` prompts; the image layers `layers[tune_layer:]` are trained (released: -1, rate 5e-6, Adam
    /// with betas 0.5 and 0.999).
    ///
    /// # Errors
    /// Missing or mis-shaped tensors, a layer that does not exist, a device that refuses the plans.
    pub fn new(
        exec: &mut dyn Executor,
        model: Model,
        batch: usize,
        tune_layer: i64,
        rate: f32,
    ) -> Result<Self> {
        if batch == 0 {
            return Err(Error::bad("PickScore", "at least one prompt", "0"));
        }
        let from = model.vision.first_of(tune_layer)?;
        let (names, params) = parameters(&model, from)?;
        for (name, data) in names.iter().zip(&params) {
            exec.set_leaf(name, LeafData::F32(data))?;
        }
        let text_plan = text_plan(exec, &model)?;
        let hidden_plan = hidden_plan(exec, &model, batch, from)?;
        let score_plan = tail_plan(exec, &model, batch, from, &[])?;
        let step_plan = tail_plan(exec, &model, 2 * batch, from, &names)?;
        Ok(PickScore {
            model,
            batch,
            rate,
            names,
            learned: Learned::new(params, 0),
            text_plan,
            hidden_plan,
            score_plan,
            step_plan,
        })
    }
    /// The model it was made from.
    pub fn model(&self) -> &Model {
        &self.model
    }
    /// Trained tensors: leaf names and values.
    pub fn params(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.names.iter().map(String::as_str).zip(self.learned.params.iter().map(Vec::as_slice))
    }

    /// Prompts in one run.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Embedding of a prompt's token ids, not normalised: `[P]`. What follows the end of the text does not matter.
    ///
    /// # Errors
    /// As [`PickScore::begin_text`].
    pub fn text(&self, exec: &mut dyn Executor, ids: &[u32]) -> Result<Vec<f32>> {
        let plan = self.begin_text(exec, ids)?;
        exec.run(plan)?;
        self.end_text(exec)
    }
    /// Writes a prompt's token ids and returns the plan.
    ///
    /// # Errors
    /// No ids, too many, or ids outside the vocabulary; the device failed.
    pub fn begin_text(&self, exec: &mut dyn Executor, ids: &[u32]) -> Result<PlanId> {
        write_text(exec, self.text_plan, &self.model.text, &self.model.weights, ids)?;
        Ok(self.text_plan)
    }
    /// Reads a finished run's embedding.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_text(&self, exec: &mut dyn Executor) -> Result<Vec<f32>> {
        exec.read(self.text_plan, "pooled")
    }

    /// States of images before the trained layers, `[1 + N, C]` each; they never change. `pixels`: normalised, of the
    /// model's side, `[side, side, 3]` each.
    ///
    /// # Errors
    /// Images of another size; the device failed.
    pub fn hidden(&self, exec: &mut dyn Executor, pixels: &[&[f32]]) -> Result<Vec<Vec<f32>>> {
        let mut out = Vec::with_capacity(pixels.len());
        for part in pixels.chunks(self.batch) {
            let plan = self.begin_hidden(exec, part)?;
            exec.run(plan)?;
            out.extend(self.end_hidden(exec, part.len())?);
        }
        Ok(out)
    }
    /// Writes up to [`PickScore::batch`] images; returns the plan.
    ///
    /// # Errors
    /// As [`PickScore::hidden`].
    pub fn begin_hidden(&self, exec: &mut dyn Executor, pixels: &[&[f32]]) -> Result<PlanId> {
        let side = self.model.vision.image_size;
        exec.write(self.hidden_plan, "pixels", &joined("image", pixels, side * side * 3, self.batch)?)?;
        Ok(self.hidden_plan)
    }
    /// Reads the states of a finished run's first images.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_hidden(&self, exec: &mut dyn Executor, images: usize) -> Result<Vec<Vec<f32>>> {
        let cfg = &self.model.vision;
        let states = exec.read(self.hidden_plan, "hidden")?;
        let each = states.chunks_exact(cfg.tokens() * cfg.hidden_size);
        Ok(each.take(images).map(<[f32]>::to_vec).collect())
    }

    /// Rewards: `exp(logit_scale) cos(prompt, image) / 26` of each image, from [`PickScore::hidden`], and its prompt,
    /// from [`PickScore::text`].
    ///
    /// # Errors
    /// Lists of different lengths; the device failed.
    pub fn scores(&self, exec: &mut dyn Executor, hidden: &[&[f32]], texts: &[&[f32]]) -> Result<Vec<f32>> {
        if hidden.len() != texts.len() {
            let found = format!("{} images and {} prompts", hidden.len(), texts.len());
            return Err(Error::bad("PickScore", "one prompt per image", found));
        }
        let mut out = Vec::with_capacity(hidden.len());
        for (images, texts) in hidden.chunks(self.batch).zip(texts.chunks(self.batch)) {
            let plan = self.begin_scores(exec, images, texts)?;
            exec.run(plan)?;
            out.extend(self.end_scores(exec, images.len())?);
        }
        Ok(out)
    }
    /// Writes up to [`PickScore::batch`] images and their prompts; returns the plan.
    ///
    /// # Errors
    /// Lengths that do not fit; the device failed.
    pub fn begin_scores(
        &self,
        exec: &mut dyn Executor,
        hidden: &[&[f32]],
        texts: &[&[f32]],
    ) -> Result<PlanId> {
        self.write_pairs(exec, self.score_plan, self.batch, hidden, texts)?;
        Ok(self.score_plan)
    }
    /// Reads the rewards of a finished run's first images.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_scores(&self, exec: &mut dyn Executor, images: usize) -> Result<Vec<f32>> {
        let logits = exec.read(self.score_plan, "logits")?;
        Ok(logits.iter().take(images).map(|l| l / SCALE).collect())
    }
    fn write_pairs(
        &self,
        exec: &mut dyn Executor,
        plan: PlanId,
        batch: usize,
        images: &[&[f32]],
        texts: &[&[f32]],
    ) -> Result<()> {
        let cfg = &self.model.vision;
        let x = joined("image", images, cfg.tokens() * cfg.hidden_size, batch)?;
        let mut t = joined("prompt", texts, cfg.projection_dim, batch)?;
        t.chunks_exact_mut(cfg.projection_dim).for_each(unit);
        exec.write(plan, "hidden", &x)?;
        exec.write(plan, "text", &t)
    }

    /// Loss, accuracy and gradients of one adversarial step: cross entropy of (reference, generated image) given the
    /// prompt, the reference being the right answer; mean over 1 to `batch` prompts with an image of each kind.
    ///
    /// # Errors
    /// Another number of images or prompts; the device failed.
    pub fn gradients(
        &self,
        exec: &mut dyn Executor,
        real: &[&[f32]],
        fake: &[&[f32]],
        texts: &[&[f32]],
    ) -> Result<(HeadStep, Vec<Vec<f32>>)> {
        let plan = self.begin_step(exec, real, fake, texts)?;
        exec.run(plan)?;
        let step = self.seed_step(exec, texts.len())?;
        exec.run(plan)?;
        Ok((step, self.read_gradients(exec)?))
    }
    /// Writes the inputs of an adversarial step and returns its plan, which runs twice: the loss is a function of few
    /// logits, so the host differentiates it. One run for them, then [`PickScore::seed_step`], one with the seed.
    ///
    /// # Errors
    /// As [`PickScore::gradients`].
    pub fn begin_step(
        &self,
        exec: &mut dyn Executor,
        real: &[&[f32]],
        fake: &[&[f32]],
        texts: &[&[f32]],
    ) -> Result<PlanId> {
        let n = texts.len();
        if n == 0 || n > self.batch || [real.len(), fake.len()] != [n; 2] {
            let found = format!("{}, {} and {}", real.len(), fake.len(), texts.len());
            let expected = format!("1 to {} references, generated images and prompts each", self.batch);
            return Err(Error::bad("PickScore step", expected, found));
        }
        let (images, texts) = ([real, fake].concat(), [texts, texts].concat());
        self.write_pairs(exec, self.step_plan, 2 * self.batch, &images, &texts)?;
        Ok(self.step_plan)
    }
    /// Between the two runs of a step over `n` prompts: loss and accuracy.
    ///
    /// # Errors
    /// The device failed.
    pub fn seed_step(&self, exec: &mut dyn Executor, n: usize) -> Result<HeadStep> {
        let logits = exec.read(self.step_plan, "logits")?;
        let (step, mut seed) = cross_entropy(logits.get(..2 * n).unwrap_or_default());
        seed.resize(2 * self.batch, 0.0);
        exec.write(self.step_plan, "seed", &seed)?;
        Ok(step)
    }
    fn read_gradients(&self, exec: &mut dyn Executor) -> Result<Vec<Vec<f32>>> {
        let names: Vec<&str> = self.names.iter().map(AsRef::as_ref).collect();
        exec.read_all(self.step_plan, &names)
    }
    /// After the second run: moves the trained layers.
    ///
    /// # Errors
    /// The device failed.
    pub fn end_step(&mut self, exec: &mut dyn Executor) -> Result<()> {
        let grads = self.read_gradients(exec)?;
        self.learned.step(&grads, self.rate);
        self.upload(exec)
    }
    fn upload(&self, exec: &mut dyn Executor) -> Result<()> {
        self.params().try_for_each(|(name, data)| exec.set_leaf(name, LeafData::F32(data)))
    }
    /// What it has learnt.
    pub(crate) fn learned(&self) -> &Learned {
        &self.learned
    }
    /// Goes on from what another one has learnt.
    ///
    /// # Errors
    /// Other lengths; the device failed.
    pub(crate) fn learn_from(&mut self, exec: &mut dyn Executor, learned: Learned) -> Result<()> {
        self.learned.go_on(learned)?;
        self.upload(exec)
    }
    /// One adversarial step; returns loss and accuracy before it.
    ///
    /// # Errors
    /// As [`PickScore::gradients`].
    pub fn step(
        &mut self,
        exec: &mut dyn Executor,
        real: &[&[f32]],
        fake: &[&[f32]],
        texts: &[&[f32]],
    ) -> Result<HeadStep> {
        let plan = self.begin_step(exec, real, fake, texts)?;
        exec.run(plan)?;
        let step = self.seed_step(exec, texts.len())?;
        exec.run(plan)?;
        self.end_step(exec)?;
        Ok(step)
    }
}

/// Mean over prompts of `ln(1 + exp(fake - real))`, the part in which the real one is larger, and the loss's derivatives.
/// `logits`: all real ones, then all fake ones.
fn cross_entropy(logits: &[f32]) -> (HeadStep, Vec<f32>) {
    let n = logits.len() / 2;
    let (real, fake) = logits.split_at(n);
    let mut seed = vec![0.0; 2 * n];
    let mut loss = 0.0;
    for (i, (real, fake)) in real.iter().zip(fake).enumerate() {
        let d = f64::from(*fake) - f64::from(*real);
        // ln(1 + e^d) without overflow.
        loss += (d.max(0.0) + (-d.abs()).exp().ln_1p()) / n as f64;
        let slope = (1.0 / (1.0 + (-d).exp()) / n as f64) as f32;
        (seed[i], seed[n + i]) = (-slope, slope);
    }
    let right = real.iter().zip(fake).filter(|(real, fake)| real > fake).count();
    (HeadStep { loss: loss as f32, accuracy: right as f32 / n.max(1) as f32 }, seed)
}

/// `x / |x|`, in place.
pub(crate) fn unit(x: &mut [f32]) {
    let norm = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    if norm > 0.0 {
        x.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

/// Rows one after another, each of `width` numbers; the first one again up to `rows` rows, because a row of zeros may have
/// no direction.
fn joined(what: &str, list: &[&[f32]], width: usize, rows: usize) -> Result<Vec<f32>> {
    if let Some(wrong) = list.iter().find(|x| x.len() != width) {
        let expected = format!("{width} numbers for each {what}");
        return Err(Error::bad("PickScore", expected, wrong.len().to_string()));
    }
    let rest = rows.saturating_sub(list.len());
    Ok([list.concat(), list.first().copied().unwrap_or_default().repeat(rest)].concat())
}

/// Trained tensors: leaf names and values in the checkpoint.
fn parameters(model: &Model, from: usize) -> Result<(Vec<String>, Vec<Vec<f32>>)> {
    let mut g = Graph::new();
    let x = g.input("hidden", &[1, model.vision.tokens(), model.vision.hidden_size]);
    clip_vision::embed(&mut g, &model.vision, COMPONENT, x, from, true);
    g.check()?;
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for node in g.nodes() {
        let Op::Leaf { kind: Leaf::Param, name } = &node.op else { continue };
        let stored = name.strip_prefix(COMPONENT).and_then(|n| n.strip_prefix('/')).unwrap_or(name);
        let tensor = model.weights.expect(stored, &node.shape)?;
        tensor.check_finite()?;
        values.push(tensor.to_f32()?);
        names.push(name.clone());
    }
    Ok((names, values))
}

fn text_plan(exec: &mut dyn Executor, model: &Model) -> Result<PlanId> {
    let mut g = Graph::new();
    let pooled = encode_text(&mut g, &model.text, COMPONENT);
    finish(exec, model, g, &[("pooled", pooled)])
}

/// Embedding of one prompt, `[1, P]`, not normalised; inputs as [`write_text`] writes them.
pub(super) fn encode_text(g: &mut Graph, cfg: &clip::ClipConfig, component: &str) -> Id {
    let t = cfg.max_position_embeddings;
    let (x, pick) = (g.input("embeds", &[1, t, cfg.hidden_size]), g.input("pick", &[1, t]));
    clip::encode(g, cfg, component, None, x, pick).pooled
}

/// Writes a prompt's token ids for [`encode_text`].
pub(super) fn write_text(
    exec: &mut dyn Executor,
    plan: PlanId,
    cfg: &clip::ClipConfig,
    weights: &Weights,
    ids: &[u32],
) -> Result<()> {
    let Some(&last) = ids.last() else {
        return Err(Error::bad("PickScore", "a prompt's token ids", "none"));
    };
    let mut all = ids.to_vec();
    all.resize(cfg.max_position_embeddings.max(ids.len()), last);
    exec.write(plan, "embeds", &cfg.embed(weights, &all)?)?;
    exec.write(plan, "pick", &cfg.pick(&all))
}

fn hidden_plan(exec: &mut dyn Executor, model: &Model, batch: usize, layers: usize) -> Result<PlanId> {
    let (side, mut g) = (model.vision.image_size, Graph::new());
    let pixels = g.input("pixels", &[batch, side, side, 3]);
    let x = clip_vision::hidden(&mut g, &model.vision, COMPONENT, pixels, layers);
    finish(exec, model, g, &[("hidden", x)])
}

/// From states before the trained layers to scaled similarities, with gradients of the parameters in `names`.
fn tail_plan(
    exec: &mut dyn Executor,
    model: &Model,
    batch: usize,
    from: usize,
    names: &[String],
) -> Result<PlanId> {
    let (cfg, mut g, mut constants) = (&model.vision, Graph::new(), Constants::new());
    let x = g.input("hidden", &[batch, cfg.tokens(), cfg.hidden_size]);
    let text = g.input("text", &[batch, cfg.projection_dim]);
    let image = clip_vision::embed(&mut g, cfg, COMPONENT, x, from, true);
    let cosine = clip_vision::cosine(&mut g, &mut constants, image, text);
    let logits = g.affine(cosine, model.scale, 0.0);
    let mut outputs = vec![("logits", logits)];
    if !names.is_empty() {
        g.check()?;
        let seed = g.input("seed", &[batch]);
        let params: Vec<Id> = names.iter().filter_map(|name| param(&mut g, name)).collect();
        let grads = gradients(&mut g, logits, seed, &params, false)?;
        outputs.extend(names.iter().map(String::as_str).zip(grads));
    }
    constants.upload(exec)?;
    finish(exec, model, g, &outputs)
}

/// The parameter of that name in a graph.
fn param(g: &mut Graph, name: &str) -> Option<Id> {
    let is = |op: &Op| matches!(op, Op::Leaf { kind: Leaf::Param, name: known } if known == name);
    let shape = g.nodes().iter().find(|n| is(&n.op))?.shape.clone();
    Some(g.param(name, &shape))
}

fn finish(exec: &mut dyn Executor, model: &Model, g: Graph, outputs: &[(&str, Id)]) -> Result<PlanId> {
    g.check()?;
    upload(exec, &g, &format!("{COMPONENT}/"), &model.weights)?;
    compile(exec, g, outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_the_logistic_loss() {
        let (HeadStep { loss, accuracy }, seed) = cross_entropy(&[1.0, 2.0, 1.0, -1.0]);
        assert_eq!(accuracy, 0.5);
        let want = (2.0f64.ln() + (1.0 + (-3.0f64).exp()).ln()) / 2.0;
        assert!((f64::from(loss) - want).abs() <= 1e-6, "{loss}");
        assert!((seed[0] + 0.25).abs() <= 1e-6 && (seed[2] - 0.25).abs() <= 1e-6, "{seed:?}");
        // Steep differences neither overflow nor vanish.
        let (step, seed) = cross_entropy(&[-500.0, 500.0]);
        assert!((step.loss - 1000.0).abs() <= 1e-3 && (seed[1] - 1.0).abs() <= 1e-6);
        let (step, seed) = cross_entropy(&[500.0, -500.0]);
        assert_eq!((step.loss, seed[1]), (0.0, 0.0));
    }
}
