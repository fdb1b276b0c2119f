//! A training watches itself: every few iterations it draws the same few pictures with the averaged adapter and compares them
//! with the base model's and the references. Clearly worse twice in a row ends it, and the adapter that is handed out is the
//! best one seen when the last one is worse. The measures need no judge, and the head, their adversary, has no part in them.
//! Shapes that melt, darkness, noise and pictures that become alike are found; subjects that fade slowly are found in part.
mod silhouette;
mod tokens;
mod verdict;

pub use verdict::Look;

use super::{Stage, rollout};
use crate::archive::kept;
use crate::config::MOST_STEPS;
use crate::images::Picture;
use crate::machine::Machine;
use crate::optim::Tensors;
use crate::settings::field::{between, most};
use crate::settings::part::settings;
use crate::train::Event;
use crate::train::state::State;
use crate::{Error, Result};
use pentimento_runtime::exec::PlanId;
use pentimento_runtime::pipeline::{Text, Velocity};
use pentimento_runtime::rng::Philox;
use pentimento_runtime::sampler;
use std::sync::Arc;
use verdict::Verdict;

settings! {
    /// Settings of the watch.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Settings in "watch." {
        /// Iterations from one look to the next, the last of which is at the end; 0: none at all. The released schedule has none.
        every: usize = 10, most(MOST_STEPS), unit "iterations";
        /// Overlap of silhouettes with the base model's, 0 to 1, that is good enough; 92 % of the warm start's are enough, too.
        silhouettes: f32 = 0.72, between(0.0, 1.0);
    }
}

impl Settings {
    /// Those for a device; `slow` as for [`crate::config::Config::recipe`].
    pub fn of(slow: bool) -> Self {
        Settings { every: if slow { 5 } else { 10 }, ..Settings::default() }
    }
}

/// Pictures of a look.
const PICTURES: usize = 8;
/// Their noise has a stream of its own, so that training draws what it would draw without looks.
const STREAM: u64 = 0x100c;

/// What was seen so far.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub verdict: Verdict,
    /// Silhouettes of the base model's pictures.
    base: Vec<Vec<bool>>,
    /// The adapter of the best look.
    pub best: Tensors,
    /// The head's losses since the last look, their sum and how many.
    head_loss: (f64, usize),
    /// Duration of the last look.
    pub seconds: f64,
}

kept!(Seen { verdict, base, best, head_loss, seconds });

impl Seen {
    pub fn new(settings: &Settings) -> Self {
        Seen { verdict: Verdict::new(settings.silhouettes), ..Seen::default() }
    }
    /// Whether it is of a training's size.
    pub fn fits(&self, m: &Machine) -> bool {
        let pixels = m.pixels.0 * m.pixels.1;
        [0, PICTURES].contains(&self.base.len()) && self.base.iter().all(|s| s.len() == pixels)
    }
    /// Takes in an iteration.
    pub fn note(&mut self, head_loss: f32) {
        self.head_loss = (self.head_loss.0 + f64::from(head_loss), self.head_loss.1 + 1);
    }
    /// Whether it is time for another look.
    pub fn due(&self, every: usize, iteration: usize) -> bool {
        self.verdict.looked().is_some_and(|at| iteration >= at + every)
    }
}

/// The pictures of a look.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Complete iterations; `None`: the base model's pictures.
    pub iteration: Option<usize>,
    /// Each of the same prompt and noise in every look.
    pub pictures: Vec<Picture>,
}

/// Whose pictures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Base,
    Average,
}

/// One look. As many pictures a run as an iteration samples at once, at most; the device holds another adapter than the one in training
/// only during a run.
pub(crate) struct Watch {
    of: Of,
    sigmas: Vec<f32>,
    step: usize,
    /// First picture of this run.
    first: usize,
    rows: usize,
    /// Latents of all pictures.
    x: Vec<f32>,
    prompts: Vec<usize>,
    velocity: Option<Velocity>,
    /// Of the pictures that are described so far: silhouettes, and tokens.
    seen: (Vec<Vec<bool>>, Vec<Vec<f32>>),
    /// The same ones, to be shown.
    pictures: Vec<Picture>,
    /// Runs that were read.
    runs: usize,
    complete: bool,
    /// When it began, by the training's clock.
    began: f64,
}

impl Watch {
    /// Whether this training is watched: it has iterations and a backbone that describes pictures, and looks are wanted.
    pub fn wanted(m: &Machine) -> bool {
        m.config.watch.every > 0
            && m.critic.is_some()
            && (m.config.iterations > 0 || m.clock.deadline.is_some())
    }
    pub fn begin(m: &Machine, of: Of) -> Result<Self> {
        let rows = m.config.images().min(m.config.at_once.sample).clamp(1, PICTURES);
        let mut x = vec![0.0; PICTURES * m.per_image()];
        Philox::new(m.config.seed, STREAM).normals(&mut x);
        Ok(Watch {
            of,
            sigmas: rollout::sigmas(m)?,
            step: 0,
            first: 0,
            rows,
            x,
            prompts: m.known.distinct(PICTURES),
            velocity: None,
            seen: Default::default(),
            pictures: Vec::new(),
            runs: 0,
            complete: false,
            began: m.clock.now(),
        })
    }
    /// Whether all pictures are sampled.
    fn sampled(&self) -> bool {
        self.first >= PICTURES
    }
    /// Latents of one run; places that are left over repeat the last picture.
    fn run(&self, per: usize) -> (Vec<f32>, Vec<usize>) {
        let which = (self.first..self.first + self.rows).map(|i| i.min(PICTURES - 1));
        let x = which.clone().flat_map(|i| &self.x[i * per..][..per]).copied().collect();
        (x, which.map(|i| self.prompts[i % self.prompts.len()]).collect())
    }
    fn sample(&mut self, m: &mut Machine, s: &State) -> Result<PlanId> {
        match self.of {
            Of::Average => m.set_adapter(s.average())?,
            Of::Base => m.set_adapter(&s.values.iter().map(|v| vec![0.0; v.len()]).collect::<Vec<_>>())?,
        }
        let guided = m.config.rollout.guided();
        let velocity = m.pipeline.velocity(if guided { 2 * self.rows } else { self.rows }, m.size)?;
        self.velocity = Some(velocity);
        let (x, prompts) = self.run(m.per_image());
        let texts: Vec<&Text> = prompts.iter().map(|&p| &m.known.prompts[p]).collect();
        let null = guided.then_some(&m.known.null);
        m.pipeline.write_velocity(velocity, &x, self.sigmas[self.step], &texts, null)?;
        Ok(velocity.plan)
    }
    fn sampled_step(&mut self, m: &mut Machine, s: &State) -> Result<Event> {
        let (c, per) = (&m.config.rollout, m.per_image());
        let Some(velocity) = self.velocity else { return Ok(Event::Working) };
        let v = m.pipeline.read_velocity(velocity, c.guided().then_some(c.guidance))?;
        let x = sampler::euler(&self.run(per).0, &v, self.sigmas[self.step], self.sigmas[self.step + 1])?;
        let room = &mut self.x[self.first * per..];
        room.iter_mut().zip(x).for_each(|(room, x)| *room = x);
        self.step += 1;
        if self.step + 1 == self.sigmas.len() {
            (self.step, self.first) = (0, self.first + self.rows);
        }
        m.set_adapter(&s.values)?;
        Ok(self.progress(m))
    }
    /// How far it is, in runs.
    fn progress(&mut self, m: &Machine) -> Event {
        self.runs += 1;
        let sampled = PICTURES.div_ceil(self.rows) * (self.sigmas.len() - 1);
        Event::Looking(self.runs, sampled + PICTURES.div_ceil(m.config.at_once.describe))
    }
    /// Reads pictures that were described; measures them when they are all.
    fn described(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let ((width, height), left) = (m.pixels, PICTURES - self.seen.0.len());
        let (pipeline, critic) = m.judged()?;
        let [images, tokens] = ["image", "tokens"].map(|name| pipeline.exec.read(critic.describe, name));
        let (images, tokens, each) = (images?, tokens?, critic.backbone.token_numbers());
        for image in images.chunks_exact(3 * width * height).take(left) {
            self.seen.0.push(silhouette::silhouette(image, width));
            self.pictures.push(Picture::from_unit(width as u32, height as u32, image)?);
        }
        self.seen.1.extend(tokens.chunks_exact(each).take(left).map(<[f32]>::to_vec));
        if self.seen.0.len() < PICTURES { Ok(self.progress(m)) } else { self.measure(m, s) }
    }
    /// Measures the pictures.
    fn measure(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        self.complete = true;
        let (silhouettes, tokens) = core::mem::take(&mut self.seen);
        let iteration = (self.of == Of::Average).then_some(s.iteration);
        m.looked = Some(Looked { iteration, pictures: core::mem::take(&mut self.pictures) });
        if self.of == Of::Base {
            s.watch.base = silhouettes;
            return Ok(Event::Working);
        }
        let channels = m.judged()?.1.backbone.shape()[1];
        let references = tokens::Style::of(&m.known.tokens, channels);
        let (sum, count) = core::mem::take(&mut s.watch.head_loss);
        let mut look = Look {
            iteration: s.iteration,
            silhouettes: silhouette::overlap(&s.watch.base, &silhouettes),
            distance: tokens::Style::of(&tokens, channels).distance(&references),
            diversity: tokens::diversity(&tokens, channels),
            head_loss: (count > 0).then(|| (sum / count as f64) as f32),
            ..Look::default()
        };
        if s.watch.verdict.see(&mut look) {
            s.watch.best = Arc::new(s.average().to_vec());
        }
        s.watch.seconds = m.clock.now() - self.began;
        Ok(Event::Watch(look))
    }
}

impl Stage for Watch {
    fn launch(&mut self, m: &mut Machine, s: &mut State) -> Result<Option<PlanId>> {
        if self.complete {
            return Ok(None);
        }
        if !self.sampled() {
            return self.sample(m, s).map(Some);
        }
        let (rows, per) = (m.config.at_once.describe, m.per_image());
        let mut x: Vec<f32> = self.x.iter().skip(self.seen.0.len() * per).take(rows * per).copied().collect();
        x.resize(rows * per, 0.0);
        let (pipeline, critic) = m.judged()?;
        pipeline.exec.write(critic.describe, "latents", &x)?;
        Ok(Some(critic.describe))
    }
    fn collect(&mut self, m: &mut Machine, s: &mut State) -> Result<Event> {
        let done = if self.sampled() { self.described(m, s) } else { self.sampled_step(m, s) };
        match done {
            // An adapter whose pictures are no numbers is what a look is there to find.
            Err(Error::NotFinite { .. }) if self.of == Of::Average => {
                self.complete = true;
                m.set_adapter(&s.values)?;
                let mut look = Look { iteration: s.iteration, ..Look::default() };
                (look.distance, look.diversity) = (f32::NAN, f32::NAN);
                s.watch.verdict.see(&mut look);
                Ok(Event::Watch(look))
            }
            done => done,
        }
    }
}
