//! Trainings learn what they are to learn: rewards that do not learn themselves rise, losses fall, the head tells images it
//! has not seen. All is measured on fixed noises before and after. A small random model serves where a policy only has to
//! move; what is seen in pictures is asked of the default model.
//!
//! Errors made by hand, each seen failing the named test, with the rise in units of its noise (12.1 and 11.6 without):
//!
//! | error | test | rise |
//! | --- | --- | --- |
//! | sign of the advantage | `grpo_by_patches_raises_a_fixed_reward` | -11.4 |
//! | sign of the clipped loss | the same | -11.4 |
//! | old and new exchanged in the ratio | the same | -11.4 |
//! | mean of the group not subtracted | the same | 0.0 |
//! | learning rate 0 | the same | none |
//! | sign of the pathwise seed | `the_pathwise_gradient_raises_a_frozen_head` | -5.0 |
use pentimento_runtime::exec::{Executor, PlanId};
use pentimento_runtime::graph::Graph;
use pentimento_runtime::pipeline::{Sampling, Text, encoder_pixels, noise};
use pentimento_trainer::config::Config;
use pentimento_trainer::objective::grpo::Credit;
use pentimento_trainer::recipe::Recipe;
use pentimento_trainer::references::{Reference, load_references};
use pentimento_trainer::reward::backbone::Backbone;
use pentimento_trainer::reward::head::{Head, Patches, Shape, rewards};
use pentimento_trainer::reward::host::{Drawn, HostReward};
use pentimento_trainer::stage::rollout;
use pentimento_trainer::train::{Event, Setup, Trainer};
use std::path::{Path, PathBuf};
use tests::adapter::adapter;
use tests::scratch::pickscore;

/// Pixels of a latent position's side, and of a patch of [`less`].
const PATCH: usize = 8;
/// Images in one run.
const BATCH: usize = 8;
const PROMPT: &str = "icon of pear";

/// A pipeline, its reward network and the side of its images, pixels.
struct Model {
    folder: PathBuf,
    reward: PathBuf,
    side: usize,
}

fn icons() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/icons");
    Model { reward: folder.join("reward"), folder, side: 64 }
}
fn small() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trace/kl");
    Model { reward: folder.join("dino"), folder: folder.join("pipeline"), side: 48 }
}
/// The default model at a lower resolution.
fn drawing() -> Model {
    Model { side: 32, ..icons() }
}
fn references(model: &Model, count: usize) -> Vec<Reference> {
    let (folder, side) = (icons().folder.join("references/mono"), model.side as u32);
    let mut all = load_references(&folder, side, side).expect("references");
    all.truncate(count);
    all
}

/// A training of [`PROMPT`] that ends soon: one group, four steps.
fn quick(base: Config) -> Config {
    let mut c = Config { seed: 3, rank: 4, text_tokens: 8, iterations: 12, ..base };
    (c.warm.steps, c.warm.batch) = (0, 2);
    (c.rollout.prompts, c.rollout.group, c.rollout.steps) = (1, BATCH, 3);
    (c.optim.rate, c.optim.micro_batch) = (3e-3, BATCH);
    c.rollout.guidance = 1.0;
    c
}
/// With one more change.
fn with(mut config: Config, change: impl FnOnce(&mut Config)) -> Config {
    change(&mut config);
    config
}

struct Run {
    trainer: Trainer,
    model: Model,
}

impl Run {
    /// None without an adapter.
    fn open(
        model: Model,
        references: &[Reference],
        config: Config,
        reward: Option<HostReward>,
    ) -> Option<Run> {
        let gpu = Box::new(adapter("what trainings learn")?);
        let (prompts, side) = ([PROMPT.to_string()], model.side);
        let config = Config { width: side, height: side, ..config };
        let setup = Setup {
            model: &model.folder,
            config: None,
            reward: Some(&model.reward),
            references,
            prompts: &prompts,
            text_cache: None,
        };
        let trainer = match reward {
            Some(reward) => Trainer::with_reward(gpu, &setup, config, reward),
            None => Trainer::new(gpu, &setup, config),
        };
        Some(Run { trainer: trainer.expect("a trainer"), model })
    }
    /// Steps until an event that is `wanted`, or the end.
    fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        for _ in 0..10_000 {
            let event = self.trainer.step().expect("a step");
            if wanted(&event) || matches!(event, Event::Done) {
                return;
            }
        }
        panic!("the trainer does not end");
    }
    fn finish(&mut self) {
        self.until(|_| false);
    }
    /// Latent height and width.
    fn latents(&self) -> [usize; 2] {
        [self.model.side / PATCH; 2]
    }
    fn text(&mut self, prompt: &str) -> Text {
        self.trainer.pipeline().encode(prompt).expect("a text")
    }
    /// `count` images of prompts in turn, each from its own fixed noise, by the adapter in training.
    fn draw(&mut self, prompts: &[&str], count: u64, guidance: f32) -> Vec<Vec<f32>> {
        let texts: Vec<Text> = prompts.iter().map(|p| self.text(p)).collect();
        let null = self.text("");
        let how = Sampling { steps: 4, guidance, width: self.model.side, height: self.model.side };
        let rows: Vec<(&Text, u64)> = texts.iter().cycle().zip(1000..1000 + count).collect();
        let draw = |rows: &[_]| {
            self.trainer.pipeline().generate(rows, &null, &how, &mut |_, _| true).expect("images")
        };
        rows.chunks(BATCH).flat_map(draw).collect()
    }
    /// Velocities at `latents`, as many as fit one run, for one noise level.
    fn velocity(&mut self, latents: &[f32], sigma: f32, texts: &[&Text]) -> Vec<f32> {
        let size = self.latents();
        let pipeline = self.trainer.pipeline();
        let v = pipeline.velocity(texts.len(), size).expect("a plan");
        pipeline.write_velocity(v, latents, sigma, texts, None).expect("inputs");
        pipeline.exec.run(v.plan).expect("a run");
        pipeline.read_velocity(v, None).expect("velocities")
    }
    /// Latents of an image.
    fn encode(&mut self, pixels: &[f32]) -> Vec<f32> {
        let side = self.model.side;
        let pipeline = self.trainer.pipeline();
        let plan = pipeline.image_encoder(side, side).expect("a plan");
        pipeline.exec.write(plan, "image", &encoder_pixels(pixels)).expect("an input");
        pipeline.exec.run(plan).expect("a run");
        pipeline.exec.read(plan, "z").expect("latents")
    }
}

/// Mean over images and its standard error.
fn mean(x: &[f32]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let square = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (square / n).sqrt())
}
/// Whether a value of each image rose by more than `times` its noise, the standard error of the images' differences.
fn rose(what: &str, before: &[f32], after: &[f32], times: f64) -> bool {
    let differences: Vec<f32> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    let ((rise, noise), (start, _), (_, spread)) = (mean(&differences), mean(before), mean(before));
    println!(
        "{what}: {start:.4} rose by {rise:.4}, {:.1} times its noise, {:.1} times that of images",
        rise / noise,
        rise / spread
    );
    before.len() == after.len() && 0.0 < rise && times * noise <= rise
}

#[test]
fn what_does_not_rise_is_noticed() {
    let before = [0.1, 0.4, 0.2, 0.3];
    let moved = |by: [f32; 4]| std::array::from_fn::<f32, 4, _>(|i| before[i] + by[i]);
    assert!(rose("all", &before, &moved([0.1, 0.2, 0.1, 0.15]), 4.0));
    for by in [[0.0; 4], [-0.1; 4], [0.5, -0.4, 0.3, -0.2], [f32::NAN; 4]] {
        assert!(!rose("none", &before, &moved(by), 4.0), "{by:?}");
    }
}

/// Minus the mean over an image and over each patch of what is seen in a pixel.
fn less(image: &Drawn<'_>, of: fn(&[f32]) -> f32) -> Vec<f32> {
    let (width, grid) = (image.size.0, image.size.0 / PATCH);
    let mut all = vec![0.0; 1 + grid * grid];
    for (i, pixel) in image.pixels.chunks_exact(3).enumerate() {
        let at = i / width / PATCH * grid + i % width / PATCH;
        all[1 + at] -= of(pixel) / (PATCH * PATCH) as f32;
    }
    all[0] = all[1..].iter().sum::<f32>() / (grid * grid) as f32;
    all
}
fn light(pixel: &[f32]) -> f32 {
    pixel.iter().sum::<f32>() / 3.0
}
fn chroma(pixel: &[f32]) -> f32 {
    let most = pixel.iter().fold(0.0f32, |a, &b| a.max(b));
    most - pixel.iter().fold(1.0f32, |a, &b| a.min(b))
}

/// Trains with a reward that does not learn; it must rise on noises that were not trained.
fn raises(what: &str, config: Config, of: fn(&[f32]) -> f32) {
    let guidance = config.rollout.guidance;
    let Some(mut run) = Run::open(drawing(), &[], config, Some(Box::new(move |i| less(i, of)))) else {
        return;
    };
    let start = std::time::Instant::now();
    let measure = |run: &mut Run| -> Vec<f32> {
        let images = run.draw(&[PROMPT], 2 * BATCH as u64, guidance);
        images
            .iter()
            .map(|pixels| {
                less(&Drawn { prompt: PROMPT, pixels, size: (drawing().side, drawing().side) }, of)[0]
            })
            .collect()
    };
    let before = measure(&mut run);
    run.finish();
    let after = measure(&mut run);
    println!("{what}: {:.0} s", start.elapsed().as_secs_f64());
    assert!(rose(what, &before, &after, RISE), "{what}");
}
const RISE: f64 = 4.0;

fn released() -> Config {
    quick(Config { recipe: Recipe::Grpo, ..Config::released() })
}

#[test]
fn grpo_by_patches_raises_a_fixed_reward() {
    raises("default objective, patches", quick(Config::grpo(true)), light);
}
#[test]
fn grpo_by_images_raises_a_fixed_reward() {
    let config = with(quick(Config::grpo(true)), |c| c.grpo.credit = Credit::Image);
    raises("default objective, images", config, chroma);
}
#[test]
fn the_released_objective_raises_a_fixed_reward() {
    raises(
        "released objective, images, guided",
        with(released(), |c| (c.rollout.guidance, c.iterations) = (4.5, 8)),
        light,
    );
}
#[test]
fn the_released_objective_by_patches_raises_a_fixed_reward() {
    raises("released objective, patches", with(released(), |c| c.grpo.credit = Credit::Patch(0.7)), chroma);
}

/// Describes images as the reward sees them.
struct Eye {
    backbone: Backbone,
    plan: PlanId,
}

impl Eye {
    fn open(run: &mut Run) -> Eye {
        let mut backbone = Backbone::open(&run.model.reward).expect("a backbone");
        let mut g = Graph::new();
        let image = g.input("image", &[BATCH, run.model.side, run.model.side, 3]);
        let tokens = backbone.tokens(&mut g, image);
        let size = run.latents();
        let pipeline = run.trainer.pipeline();
        backbone.upload(&mut *pipeline.exec, &g).expect("weights");
        let plan = pipeline.compile(g, &[("tokens", tokens)], size).expect("a plan");
        Eye { backbone, plan }
    }
    fn tokens(&self, exec: &mut dyn Executor, images: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut all = Vec::new();
        for part in images.chunks_exact(BATCH) {
            exec.write(self.plan, "image", &part.concat()).expect("an input");
            exec.run(self.plan).expect("a run");
            let tokens = exec.read(self.plan, "tokens").expect("tokens");
            all.extend(tokens.chunks_exact(self.backbone.token_numbers()).map(<[f32]>::to_vec));
        }
        all
    }
}
fn slices(x: &[Vec<f32>]) -> Vec<&[f32]> {
    x.iter().map(Vec::as_slice).collect()
}

/// The gradient through decoder, backbone and a random head that stays as it is.
#[test]
fn the_pathwise_gradient_raises_a_frozen_head() {
    let mut config = quick(Config { rollout: rollout::Settings::plain(BATCH), ..Config::pathwise(true) });
    (config.rollout.prompts, config.rollout.group) = (BATCH, 1);
    (config.pathwise.images, config.iterations) = (BATCH, 10);
    (config.head.warm, config.head.steps) = (0, 0);
    let references = references(&drawing(), 1);
    let Some(mut run) = Run::open(drawing(), &references, config.clone(), None) else { return };
    let eye = Eye::open(&mut run);
    // The same random head: it follows from the seed.
    let (shape, exec) = (Shape::of(&eye.backbone), &mut *run.trainer.pipeline().exec);
    let mut head = Head::new(exec, shape, &config.head, config.seed, 2 * BATCH).expect("a head");
    let mut measure = |run: &mut Run| -> Vec<f32> {
        let images = run.draw(&[PROMPT], 2 * BATCH as u64, config.rollout.guidance);
        let exec = &mut *run.trainer.pipeline().exec;
        let tokens = eye.tokens(exec, &images);
        let scores = head.score(exec, &slices(&tokens), false).expect("scores");
        rewards(&scores, config.head.class_weight, Patches::All).expect("rewards")
    };
    let before = measure(&mut run);
    run.finish();
    let after = measure(&mut run);
    assert!(rose("pathwise", &before, &after, RISE));
}

/// The gradient through decoder and CLIP: prompts and images that a PickScore finds alike.
#[test]
fn the_pathwise_gradient_raises_a_pickscore() {
    let folder = pickscore("pathwise_pickscore");
    let model = || Model { reward: folder.0.clone(), ..drawing() };
    let mut config = quick(Config { rollout: rollout::Settings::plain(BATCH), ..Config::pathwise(true) });
    (config.pathwise.images, config.iterations, config.head.alignment) = (BATCH, 10, 1.0);
    let references = references(&drawing(), 1);
    let Some(mut run) = Run::open(model(), &references, config.clone(), None) else { return };
    let mut clip = Backbone::open(&folder.0).expect("a CLIP");
    let (size, side) = (run.latents(), run.model.side);
    let pipeline = run.trainer.pipeline();
    let mut g = Graph::new();
    let image = g.input("image", &[BATCH, side, side, 3]);
    let text = g.input("text", &[BATCH, clip.aligned().expect("a space")]);
    let tokens = clip.tokens(&mut g, image);
    let alignment = clip.alignment(&mut g, tokens, text);
    clip.upload(&mut *pipeline.exec, &g).expect("weights");
    let plan = pipeline.compile(g, &[("alignment", alignment)], size).expect("a plan");
    let exec = &mut *pipeline.exec;
    let prompt = clip.prompt_plan(exec).expect("a plan");
    clip.write_prompt(exec, prompt, PROMPT).expect("an input");
    exec.run(prompt).expect("a run");
    let mut text = exec.read(prompt, "pooled").expect("an embedding");
    let length = text.iter().map(|x| x * x).sum::<f32>().sqrt();
    text.iter_mut().for_each(|x| *x /= length);
    exec.write(plan, "text", &text.repeat(BATCH)).expect("an input");
    let measure = |run: &mut Run| -> Vec<f32> {
        let images = run.draw(&[PROMPT], 2 * BATCH as u64, config.rollout.guidance);
        let exec = &mut *run.trainer.pipeline().exec;
        let mut all = Vec::new();
        for part in images.chunks_exact(BATCH) {
            exec.write(plan, "image", &part.concat()).expect("an input");
            exec.run(plan).expect("a run");
            all.extend(exec.read(plan, "alignment").expect("alignments"));
        }
        all
    };
    let before = measure(&mut run);
    run.finish();
    let after = measure(&mut run);
    assert!(rose("PickScore", &before, &after, RISE));
}

/// References in each half.
const HALF: usize = 2 * BATCH;

/// Trained on one half of references and base images, a head knows the other half.
#[test]
fn a_head_tells_images_it_has_not_seen() {
    let all = references(&icons(), 2 * HALF);
    let Some(mut run) = Run::open(icons(), &all[..1], quick(Config::default()), None) else { return };
    let eye = Eye::open(&mut run);
    let captions: Vec<&str> = all.iter().filter_map(|r| r.caption.as_deref()).collect();
    let made = run.draw(&captions, all.len() as u64, 1.0);
    // Through the autoencoder, so that its traces tell nothing.
    let latents: Vec<Vec<f32>> = all.iter().map(|r| run.encode(&r.pixels)).collect();
    let (size, side) = (run.latents(), run.model.side);
    let pipeline = run.trainer.pipeline();
    let decoder = pipeline.decoder(BATCH, size).expect("a plan");
    let exec = &mut *pipeline.exec;
    let mut known = Vec::new();
    for part in latents.chunks_exact(BATCH) {
        exec.write(decoder, "latents", &part.concat()).expect("an input");
        exec.run(decoder).expect("a run");
        let images = exec.read(decoder, "image").expect("images");
        known.extend(images.chunks_exact(side * side * 3).map(<[f32]>::to_vec));
    }
    let (known, made) = (eye.tokens(exec, &known), eye.tokens(exec, &made));
    for steady in [0.0, 1.0] {
        let settings =
            with(Config::default(), |c| (c.head.steady, c.head.batch, c.head.rate) = (steady, HALF, 1e-3))
                .head;
        let mut head = Head::new(exec, Shape::of(&eye.backbone), &settings, 1, 2 * HALF).expect("a head");
        let (real, fake) = (slices(&known), slices(&made));
        for _ in 0..100 {
            let plan = head.begin_step(exec, &real[..HALF], &fake[..HALF], Patches::All).expect("inputs");
            exec.run(plan).expect("a run");
            head.end_step(exec).expect("a step");
        }
        let unseen = [&real[HALF..], &fake[HALF..]].concat();
        let scores = head.score(exec, &unseen, false).expect("scores");
        let right =
            scores.iter().enumerate().filter(|(i, h)| if *i < HALF { h[0] > 0.0 } else { h[0] < 0.0 });
        let accuracy = right.count() as f32 / unseen.len() as f32;
        println!("head, steady {steady}: {accuracy} of unseen images");
        assert!(accuracy >= 0.9, "steady {steady}: {accuracy} of unseen images");
    }
}

#[test]
fn the_warm_start_lowers_its_loss() {
    let all = references(&small(), BATCH);
    let config = with(quick(Config::default()), |c| {
        (c.warm.steps, c.warm.batch, c.iterations) = (40, 4, 0);
    });
    let Some(mut run) = Run::open(small(), &all, config, None) else { return };
    let latents: Vec<f32> = all.iter().flat_map(|r| run.encode(&r.pixels)).collect();
    let texts: Vec<Text> = all.iter().map(|r| run.text(r.caption.as_deref().unwrap_or_default())).collect();
    let texts: Vec<&Text> = texts.iter().collect();
    let mut eps = vec![0.0; latents.len()];
    noise(7, &mut eps);
    // Minus the loss of each image at each of a few noise levels.
    let measure = |run: &mut Run| -> Vec<f32> {
        let mut all = Vec::new();
        for sigma in [0.3, 0.6, 0.9] {
            let noisy: Vec<f32> =
                latents.iter().zip(&eps).map(|(x, e)| (1.0 - sigma) * x + sigma * e).collect();
            let v = run.velocity(&noisy, sigma, &texts);
            let off: Vec<f32> =
                v.iter().zip(latents.iter().zip(&eps)).map(|(v, (x, e))| v - (e - x)).collect();
            let per = off.len() / texts.len();
            all.extend(off.chunks_exact(per).map(|d| -d.iter().map(|d| d * d).sum::<f32>() / per as f32));
        }
        all
    };
    let before = measure(&mut run);
    run.finish();
    let after = measure(&mut run);
    assert!(rose("minus the warm loss", &before, &after, RISE));
}

/// From one warm start, the same training with and without the distance from the model without its adapter.
#[test]
fn the_kl_term_pulls_back() {
    let all = references(&small(), 2);
    let mut eps = vec![0.0; BATCH * (small().side / PATCH).pow(2) * 16];
    noise(9, &mut eps);
    let distance = |a: &[f32], b: &[f32]| {
        let square: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (square / a.len() as f64).sqrt()
    };
    let measured = |beta: f32| -> Option<[f64; 2]> {
        let config = with(quick(Config::flow_grpo(true)), |c| {
            (c.warm.steps, c.iterations, c.grpo.beta) = (12, 8, beta);
            (c.rollout.window_start, c.optim.rate) = (Some(0), 1e-3);
        });
        let reward: HostReward = Box::new(|i| less(i, light));
        let mut run = Run::open(small(), &all, config, Some(reward))?;
        let text = run.text(PROMPT);
        let texts = [&text; BATCH];
        let base = run.velocity(&eps, 1.0, &texts);
        run.until(|event| matches!(event, Event::Warm(12, ..)));
        let start = run.velocity(&eps, 1.0, &texts);
        run.finish();
        let end = run.velocity(&eps, 1.0, &texts);
        Some([distance(&start, &base), distance(&end, &base)])
    };
    let Some([start, free]) = measured(0.0) else { return };
    let Some([same, held]) = measured(100.0) else { return };
    println!("distance from the base model: {start:.4}, without the term {free:.4}, with it {held:.4}");
    assert!(start == same && start > 0.0, "not one start: {start} and {same}");
    assert!(
        held <= 0.8 * start && held <= 0.8 * free,
        "from {start}: {free} without the term, {held} with it"
    );
}
