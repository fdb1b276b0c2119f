//! How many images go through the device at once changes how sums are cut, not what is learnt. On the CPU's twins, with the smallest model.
use pentimento_trainer::config::AtOnce;
use pentimento_trainer::train::{Event, Metrics};
use tests::job::{ENOUGH, Job};

/// What a run did, iteration by iteration, the losses of its warm start, and its adapter.
fn run(recipe: &str, at_once: AtOnce) -> (Vec<Metrics>, Vec<f32>, Vec<f32>) {
    let mut job = Job::new(recipe);
    job.config.at_once = at_once;
    (job.config.warm.batch, job.config.iterations) = (3, 1);
    job.config.optim.agreement = 0.0; // halves of the images are other ones
    let mut trainer = job.open();
    let (mut all, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..ENOUGH {
        match trainer.step().expect("a step") {
            Event::Iteration(m) => all.push(m),
            Event::Warm(_, _, loss) => losses.push(loss),
            Event::Done => break,
            Event::Working
            | Event::Encoded(..)
            | Event::Part(..)
            | Event::Looking(..)
            | Event::Watch(_)
            | Event::Wanted => {}
        }
    }
    let pairs = trainer.adapter().expect("an adapter").pairs;
    (all, losses, pairs.into_values().flat_map(|p| p.b).collect())
}

/// Largest difference, as a part of the largest number.
fn off(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn fewer_images_at_once_learn_the_same() {
    for recipe in ["pathwise", "grpo", "nft", "sft"] {
        let (whole, losses, adapter) = run(recipe, AtOnce::default());
        for few in if recipe == "pathwise" { &[1, 2][..] } else { &[2] } {
            let few = *few;
            let (parts, other, moved) = run(recipe, AtOnce { train: few, sample: few, describe: few });
            let numbers = |m: &[Metrics]| -> Vec<f32> {
                let each = |m: &Metrics| {
                    [
                        m.reward_generated,
                        m.reward_reference,
                        m.head_loss,
                        m.gradient_norm,
                        m.anchor_loss,
                        m.prior_loss,
                    ]
                };
                m.iter().flat_map(each).collect()
            };
            let off = [off(&numbers(&whole), &numbers(&parts)), off(&losses, &other), off(&adapter, &moved)];
            println!(
                "{recipe}, {few} at once: metrics {:.1e}, losses {:.1e}, adapter {:.1e}",
                off[0], off[1], off[2]
            );
            // Adam divides by a gradient's own size, so where that is nearly nothing its rounding counts.
            assert!(off[0] <= 1e-4 && off[1] <= 1e-5 && off[2] <= 1e-2, "{recipe}, {few} at once: {off:?}");
        }
    }
}
