//! Noise levels, guidance and steps, against diffusers' scheduler and the released step functions.
use crate::common::executors;
use pentimento_runtime::exec::{Executor, LeafData, compile};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::Graph;
use pentimento_runtime::sampler::{CpsCoefficients, SdeCoefficients, cfg_combine, euler};
use pentimento_runtime::schedule::{DynamicShift, Schedule, TimeShift};
use pentimento_trainer::objective::grpo::{distance, step_mean};
use tests::fixture::{Check, Golden, within};

/// Number of steps and the rest of `{kind}_n10_shift3.0`.
fn parse<'a>(name: &'a str, kind: &str) -> Option<(usize, &'a str)> {
    let (steps, rest) = name.strip_prefix(kind)?.strip_prefix("_n")?.split_once('_')?;
    Some((steps.parse().ok()?, rest))
}

#[test]
fn noise_levels_are_those_of_diffusers() {
    let Some(golden) = Golden::find("sampler") else { return };
    let mut check = Check::new(&golden, "host");
    let usual = golden.json["shift"].as_f64().expect("a shift") as f32;
    let mut kinds = 0;
    for name in golden.names() {
        if let Some((steps, kind)) = parse(name, "sigmas") {
            check.tensor(name, &sigmas(steps, kind, usual));
            kinds += 1;
        } else if let Some((steps, kind)) = parse(name, "timesteps") {
            let schedule = Schedule::with_shift(usual);
            let all = sigmas(steps, kind, usual);
            let times = all[..steps].iter().map(|&s| schedule.timestep(s)).collect::<Vec<f32>>();
            check.tensor(name, &times);
        }
    }
    assert!(kinds > 0);
    if golden.has("init_sigma_min_max") {
        // The ends of the shifted table are the first and last sigma of a run that is not shifted again.
        let n = Schedule::with_shift(usual).num_train_timesteps;
        let end = |t: u32| {
            let u = [t as f32 / n as f32];
            Schedule::with_shift(usual).sigmas_from(&u, None).expect("a sigma")[0]
        };
        check.tensor("init_sigma_min_max", &[end(1), end(n)]);
    }
    check.finish();
}

fn sigmas(steps: usize, kind: &str, usual: f32) -> Vec<f32> {
    let number = |text: &str| text.parse::<f32>().expect("a number");
    if let Some(shift) = kind.strip_prefix("shift") {
        return Schedule::with_shift(number(shift)).sigmas(steps, None).expect("sigmas");
    }
    if kind == "custom_linspace" {
        let line = |i: usize| {
            let (first, last) = (1.0, 1.0 / steps as f64);
            let part = if steps > 1 { i as f64 / (steps - 1) as f64 } else { 0.0 };
            (first + (last - first) * part) as f32
        };
        let line: Vec<f32> = (0..steps).map(line).collect();
        return Schedule::with_shift(usual).sigmas_from(&line, None).expect("sigmas");
    }
    let (shift, mu) = kind.strip_prefix("dyn_").and_then(|k| k.split_once("_mu")).expect("a dynamic shift");
    let kind = match shift {
        "exponential" => TimeShift::Exponential,
        "linear" => TimeShift::Linear,
        other => panic!("dynamic shift {other}"),
    };
    let dynamic = DynamicShift {
        kind,
        base_shift: 0.5,
        max_shift: 1.15,
        base_image_seq_len: 256,
        max_image_seq_len: 4096,
    };
    let schedule = Schedule { dynamic: Some(dynamic), ..Schedule::with_shift(usual) };
    schedule.sigmas(steps, Some(number(mu))).expect("sigmas")
}

/// One step of either kind.
#[derive(Clone, Copy)]
enum Step {
    Cps(CpsCoefficients),
    Sde(SdeCoefficients),
}

impl Step {
    fn new(run: &str, sigmas: &[f32], i: usize, eta: f32) -> Step {
        if run.starts_with("cps") {
            Step::Cps(CpsCoefficients::new(sigmas[i], sigmas[i + 1], eta).expect("a step"))
        } else {
            Step::Sde(SdeCoefficients::new(sigmas, i, eta).expect("a step"))
        }
    }
    fn mean(&self, x: &[f32], v: &[f32]) -> Vec<f32> {
        match self {
            Step::Cps(c) => c.mean(x, v),
            Step::Sde(c) => c.mean(x, v),
        }
        .expect("a mean")
    }
    fn next(&self, mean: &[f32], z: &[f32]) -> Vec<f32> {
        match self {
            Step::Cps(c) => c.next(mean, z),
            Step::Sde(c) => c.next(mean, z),
        }
        .expect("a step")
    }
    fn std(&self) -> f32 {
        match self {
            Step::Cps(c) => c.std,
            Step::Sde(c) => c.std,
        }
    }
    /// Factor of the noise in the next latents.
    fn noise(&self) -> f32 {
        match self {
            Step::Cps(c) => c.std,
            Step::Sde(c) => c.noise,
        }
    }
    /// Of each of `batch` images.
    fn log_prob(&self, next: &[f32], mean: &[f32], batch: usize) -> Vec<f32> {
        let per = next.len() / batch;
        let images = next.chunks_exact(per).zip(mean.chunks_exact(per));
        let log = |(n, m): (&[f32], &[f32])| match self {
            Step::Cps(c) => c.log_prob(n, m),
            Step::Sde(c) => c.log_prob(n, m),
        };
        images.map(log).collect::<Result<_, _>>().expect("log-probabilities")
    }
    /// Factors of x and v in the mean, and that of the mean squared distance in the log-probability.
    fn factors(&self) -> [f32; 3] {
        match self {
            Step::Cps(c) => [c.mean_x, c.mean_v, -1.0],
            Step::Sde(c) => [c.mean_x, c.mean_v, (-0.5 / f64::from(c.noise).powi(2)) as f32],
        }
    }
}

/// The golden file's latents, velocities and noises.
struct Inputs<'a> {
    golden: &'a Golden,
    size: usize,
    batch: usize,
    steps: usize,
    sigmas: Vec<f32>,
}

impl<'a> Inputs<'a> {
    fn new(golden: &'a Golden) -> Self {
        let steps = golden.json["num_steps"].as_u64().expect("num_steps") as usize;
        let shift = golden.json["shift"].as_f64().expect("shift") as f32;
        let sigmas = Schedule::with_shift(shift).sigmas(steps, None).expect("sigmas");
        let shape = golden.shape("x_init");
        Inputs { golden, size: shape.iter().product(), batch: shape[0], steps, sigmas }
    }
    fn at(&self, name: &str, step: usize) -> &'a [f32] {
        &self.golden.floats(name)[step * self.size..(step + 1) * self.size]
    }
    /// The other velocity under which a step's result is judged again.
    fn perturbed(&self, step: usize) -> Vec<f32> {
        self.at("model_output", step).iter().map(|v| v * 1.01 + 0.003).collect()
    }
}

#[test]
fn steps_and_log_probabilities_are_the_released_ones() {
    let Some(golden) = Golden::find("sampler") else { return };
    let mut check = Check::new(&golden, "host");
    let inputs = Inputs::new(&golden);
    for name in golden.names().filter(|n| n.starts_with("cfg_gs")) {
        let guidance: f32 = name["cfg_gs".len()..].parse().expect("a guidance");
        let (u, c) = (golden.floats("cfg_uncond"), golden.floats("cfg_text"));
        check.tensor(name, &cfg_combine(u, c, guidance).expect("one length"));
    }
    let (mut x, mut trajectory) = (golden.floats("x_init").to_vec(), Vec::new());
    for i in 0..inputs.steps {
        x = euler(&x, inputs.at("model_output", i), inputs.sigmas[i], inputs.sigmas[i + 1]).expect("a step");
        trajectory.extend_from_slice(&x);
    }
    check.tensor("euler_latents", &trajectory);
    let mut runs = 0;
    for run in golden.names().filter_map(|n| n.strip_suffix("_prev")) {
        trajectory_of(&inputs, run, &mut check);
        runs += 1;
    }
    assert!(runs > 0);
    check.finish();
}

fn noise_level(run: &str) -> f32 {
    run.split_once("nl").and_then(|(_, eta)| eta.parse().ok()).expect("a noise level")
}

fn trajectory_of(inputs: &Inputs, run: &str, check: &mut Check) {
    let mut all: [Vec<f32>; 6] = Default::default();
    let mut x = inputs.golden.floats("x_init").to_vec();
    let mut silent = true;
    for i in 0..inputs.steps {
        let step = Step::new(run, &inputs.sigmas, i, noise_level(run));
        silent &= step.noise() == 0.0;
        let mean = step.mean(&x, inputs.at("model_output", i));
        let next = step.next(&mean, inputs.at("noise", i));
        let other = step.mean(&x, &inputs.perturbed(i));
        all[0].extend_from_slice(&next);
        all[1].extend_from_slice(&mean);
        all[2].push(step.std());
        all[3].extend(step.log_prob(&next, &mean, inputs.batch));
        all[4].extend(step.log_prob(&next, &step.mean(&x, inputs.at("model_output", i)), inputs.batch));
        all[5].extend(step.log_prob(&next, &other, inputs.batch));
        x = next;
    }
    let parts = ["prev", "mean", "std", "logp", "logp_recomputed", "logp_perturbed"];
    for (part, got) in parts.iter().zip(&all) {
        check.tensor(&format!("{run}_{part}"), got);
        check.optional(&format!("{run}_{part}_f32"), got);
    }
    // One step's noise left out is noticed, where a step has any: the last one of Flow-CPS has not.
    let name = format!("{run}_prev");
    let same = within(&all[1], inputs.golden.floats(&name), inputs.golden.tolerance(&name)).is_ok();
    assert_eq!(same, silent, "{name}");
}

/// Gradients of log-probabilities through the training graph.
#[test]
fn log_probabilities_have_the_released_gradients() {
    let Some(golden) = Golden::find("sampler") else { return };
    let inputs = Inputs::new(&golden);
    let shape = golden.shape("x_init").to_vec();
    for (name, mut exec) in executors("log-probability") {
        let exec: &mut dyn Executor = exec.as_mut();
        let mut check = Check::new(&golden, &name);
        let mut g = Graph::new();
        let ones = [inputs.batch, 1, 1, 1];
        let (x, v) = (g.input("x", &shape), g.param("v", &shape));
        let (mean_x, mean_v) = (g.input("mean_x", &ones), g.input("mean_v", &ones));
        let mean = step_mean(&mut g, x, v, mean_x, mean_v);
        let next = g.input("next", &shape);
        let y = distance(&mut g, next, mean, 1);
        let seed = g.input("seed", &[inputs.batch]);
        let d = gradients(&mut g, y, seed, &[v], false).expect("a gradient");
        exec.set_leaf("v", LeafData::F32(golden.floats("x_init"))).expect("a parameter");
        let plan = compile(exec, g, &[("d", d[0])]).expect("a plan");
        for run in golden.names().filter_map(|n| n.strip_suffix("_grad_perturbed")) {
            let mut all = Vec::new();
            for i in 0..inputs.steps {
                let step = Step::new(run, &inputs.sigmas, i, noise_level(run));
                exec.set_leaf("v", LeafData::F32(&inputs.perturbed(i))).expect("a parameter");
                // Only next - mean_x x matters. The last steps add so little that f32 latents round it away, so x is
                // made as small as the noise; without noise (such steps are never trained) it is 0.
                let x: Vec<f32> = golden.floats("x_init").iter().map(|x| x * step.noise()).collect();
                let next = step.next(&step.mean(&x, inputs.at("model_output", i)), inputs.at("noise", i));
                let [mean_x, mean_v, factor] = step.factors().map(|f| vec![f; inputs.batch]);
                for (name, data) in
                    [("x", &x), ("next", &next), ("mean_x", &mean_x), ("mean_v", &mean_v), ("seed", &factor)]
                {
                    exec.write(plan, name, data).expect("an input");
                }
                exec.run(plan).expect("a run");
                all.extend(exec.read(plan, "d").expect("an output"));
            }
            check.tensor(&format!("{run}_grad_perturbed"), &all);
        }
        check.finish();
    }
}
