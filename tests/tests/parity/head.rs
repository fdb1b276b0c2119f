//! The reward head: losses, gradients, Adam steps and rewards as released.
use crate::common::executors;
use pentimento_runtime::weights::Weights;
use pentimento_trainer::reward::head::{Head, NAMES, Patches, Settings, Shape, rewards};
use tests::fixture::{Check, Golden, within};

/// What the golden folder says about the head.
struct Case {
    golden: Golden,
    config: Settings,
    shape: Shape,
    steps: usize,
    start: Vec<Vec<f32>>,
}

impl Case {
    fn open() -> Option<Case> {
        let golden = Golden::find("head")?;
        let train = &golden.json["train"];
        let number = |name: &str| train[name].as_f64().unwrap_or_else(|| panic!("train.{name}"));
        let bytes = std::fs::read(golden.path.join("head.safetensors")).expect("the head's weights");
        let weights = Weights::from_bytes("head.safetensors", bytes).expect("a safetensors file");
        let tensor = |name: &&str| weights.get(&stored(name)).expect("a tensor").to_f32().expect("room");
        let start: Vec<Vec<f32>> = NAMES.iter().map(tensor).collect();
        let &[steps, head_batch, tokens, width] = golden.shape("real_features") else {
            panic!("features are [steps, B, 1 + N, D]")
        };
        let config = Settings {
            batch: head_batch,
            rate: number("lr") as f32,
            patch_loss: number("patch_loss_weight") as f32,
            class_weight: number("cls_weight") as f32,
            ..Settings::released()
        };
        let shape = Shape { tokens, width, hidden: start[1].len() };
        assert_eq!(train["betas"], serde_json::json!([0.5, 0.999]));
        Some(Case { config, shape, steps, start, golden })
    }
    /// Tokens of each image of a step.
    fn features(&self, name: &str, step: usize) -> Vec<&[f32]> {
        let per = self.shape.tokens * self.shape.width;
        let all = self.golden.floats(name).chunks_exact(per);
        all.skip(step * self.config.batch).take(self.config.batch).collect()
    }
    /// Patch indices of each image of a step.
    fn picked(&self, name: &str, step: usize) -> Vec<Vec<u32>> {
        let per = *self.golden.shape(name).last().expect("indices");
        let all = self.golden.ints(name).chunks_exact(per);
        let step = all.skip(step * self.config.batch).take(self.config.batch);
        step.map(|list| list.iter().map(|&i| i as u32).collect()).collect()
    }
    fn both(&self, step: usize) -> Vec<Vec<u32>> {
        [self.picked("idx_real", step), self.picked("idx_fake", step)].concat()
    }
}

/// The name in a state dict: `head/0.weight` is `layers.0.weight`.
fn stored(leaf: &str) -> String {
    leaf.replacen("head/", "layers.", 1)
}

#[test]
fn heads_train_and_reward_as_released() {
    let Some(case) = Case::open() else { return };
    for (name, mut exec) in executors("head") {
        let exec = exec.as_mut();
        let mut check = Check::new(&case.golden, &name);
        let mut head = Head::new(exec, case.shape, &case.config, 0, 4).expect("a head");
        head.set_params(exec, case.start.clone()).expect("the same shapes");
        reward(&case, exec, &mut head, "before", &mut check);
        let logits = |scores: Vec<Vec<f32>>| scores.iter().map(|h| h[0]).collect::<Vec<f32>>();
        for side in ["real", "fake"] {
            let tokens = case.features(&format!("{side}_features"), 0);
            let scores = head.score(exec, &tokens, false).expect("scores");
            check.tensor(&format!("step0_logits_{side}_cls"), &logits(scores));
        }
        for step in 0..case.steps {
            let (real, fake) = (case.features("real_features", step), case.features("fake_features", step));
            let picked = case.both(step);
            let plan = head.begin_step(exec, &real, &fake, Patches::Picked(&picked)).expect("inputs");
            exec.run(plan).expect("a run");
            for (leaf, grad) in NAMES.iter().zip(head.gradients(exec).expect("gradients")) {
                check.optional(&format!("step{step}_grad.{}", stored(leaf)), &grad);
            }
            let report = head.end_step(exec).expect("a step");
            check.tensor(&format!("step{step}_d_loss"), &[report.loss]);
            check.tensor(&format!("step{step}_acc"), &[report.accuracy]);
            for (leaf, data) in NAMES.iter().zip(head.params()) {
                check.optional(&format!("step{step}_after.{}", stored(leaf)), data);
            }
        }
        reward(&case, exec, &mut head, "after", &mut check);
        check.finish();
    }
}

/// Rewards of the first step's generated images, and their parts.
fn reward(
    case: &Case,
    exec: &mut dyn pentimento_runtime::exec::Executor,
    head: &mut Head,
    when: &str,
    check: &mut Check,
) {
    let scores = head.score(exec, &case.features("fake_features", 0), true).expect("scores");
    let picked = case.picked("idx_reward", 0);
    let weight = case.config.class_weight;
    let all = rewards(&scores, weight, Patches::Picked(&picked)).expect("rewards");
    check.tensor(&format!("{when}_reward"), &all);
    let class: Vec<f32> = scores.iter().map(|h| h[0]).collect();
    check.tensor(&format!("{when}_cls_score"), &class);
    let patches = scores.iter().zip(&picked);
    let patches = patches.flat_map(|(h, list)| list.iter().map(|&i| h[1 + i as usize]).collect::<Vec<_>>());
    check.tensor(&format!("{when}_patch_scores"), &patches.collect::<Vec<f32>>());
    // Tokens as they are, or all patches where patches count, give other rewards.
    let name = format!("{when}_reward");
    let differs =
        |got: Vec<f32>| within(&got, case.golden.floats(&name), case.golden.tolerance(&name)).is_err();
    assert!(weight == 1.0 || differs(rewards(&scores, weight, Patches::All).expect("rewards")));
    let raw = head.score(exec, &case.features("fake_features", 0), false).expect("scores");
    assert!(differs(rewards(&raw, weight, Patches::Picked(&picked)).expect("rewards")));
}

#[test]
fn wrong_patches_are_refused() {
    let shape = Shape { tokens: 5, width: 8, hidden: 4 };
    let config = Settings { batch: 1, ..Settings::default() };
    let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
    let mut head = Head::new(&mut exec, shape, &config, 0, 2).expect("a head");
    let image = vec![0.5; shape.tokens * shape.width];
    let mut begin = |lists: &[Vec<u32>]| {
        head.begin_step(&mut exec, &[&image], &[&image], Patches::Picked(lists)).map(|_| ())
    };
    assert!(begin(&[vec![0, 3], vec![1, 1]]).is_ok());
    for lists in [vec![vec![0, 4], vec![0, 0]], vec![vec![0]], vec![vec![], vec![]]] {
        let text = begin(&lists).expect_err("indices that do not fit").to_string();
        assert!(text.starts_with("patch indices: expected"), "{text}");
    }
}
