//! `SD3Transformer2DModel` forward.
use crate::common::{executors, model, run};
use pentimento::exec::Executor;
use pentimento::graph::{Graph, Id};
use pentimento::model::mmdit::{self, Lora};
use pentimento::model::{channels_first, channels_last};
use pentimento::weights::Weights;
use tests::fixture::{Check, Golden, folders, to_f16, within};

/// The transformer's inputs as the golden file has them, brought to the device's layout.
pub struct Inputs {
    pub latents: [usize; 4],
    pub values: Vec<(&'static str, Vec<f32>)>,
    pub shapes: Vec<Vec<usize>>,
}

impl Inputs {
    pub fn new(golden: &Golden) -> Self {
        let &[b, c, h, w] = golden.shape("hidden_states") else { panic!("hidden_states are [B, C, H, W]") };
        let time: Vec<f32> =
            golden.floats("timestep").iter().flat_map(|&t| mmdit::time_projection(t)).collect();
        let values = vec![
            ("latents", channels_last(golden.floats("hidden_states"), c, h * w, c)),
            ("time", time),
            ("pooled", golden.floats("pooled_projections").to_vec()),
            ("context", golden.floats("encoder_hidden_states").to_vec()),
        ];
        let shapes = vec![
            vec![b, h, w, c],
            vec![b, mmdit::TIME_CHANNELS],
            golden.shape("pooled_projections").to_vec(),
            golden.shape("encoder_hidden_states").to_vec(),
        ];
        Inputs { latents: [b, h, w, c], values, shapes }
    }
    pub fn ids(&self, g: &mut Graph) -> Vec<Id> {
        self.values.iter().zip(&self.shapes).map(|((name, _), shape)| g.input(*name, shape)).collect()
    }
    pub fn values(&self) -> Vec<(&str, &[f32])> {
        self.values.iter().map(|(name, data)| (*name, data.as_slice())).collect()
    }
    /// A device tensor in the latents' layout as the golden file stores it.
    pub fn stored(&self, data: &[f32]) -> Vec<f32> {
        let [_, h, w, c] = self.latents;
        channels_first(data, c, h * w)
    }
}

/// Velocity of a golden folder's inputs, in the file's layout.
pub fn sample(
    exec: &mut dyn Executor,
    cfg: &mmdit::Config,
    lora: Option<&Lora>,
    w: &Weights,
    inputs: &Inputs,
) -> Vec<f32> {
    let mut g = Graph::new();
    let ids = inputs.ids(&mut g);
    let y = mmdit::velocity(&mut g, cfg, lora, ids[0], ids[1], ids[2], ids[3], None);
    let out = run(exec, g, &[(mmdit::COMPONENT, w)], &inputs.values(), &[("y", y)]);
    inputs.stored(&out[0])
}

#[test]
fn transformers_predict_the_same_velocity() {
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::Config::from_value(&config, &path.display().to_string()).expect("a config");
        let inputs = Inputs::new(&golden);
        for (name, mut exec) in executors("transformer") {
            let mut check = Check::new(&golden, &name);
            check.optional("time_proj", &inputs.values[1].1);
            check.tensor("sample", &sample(exec.as_mut(), &cfg, None, &weights, &inputs));
            check.finish();
        }
        if golden.has("sample_f16w") {
            for (name, mut exec) in executors("transformer, f16 weights") {
                let mut check = Check::new(&golden, &name);
                check.tensor("sample_f16w", &sample(exec.as_mut(), &cfg, None, &to_f16(&weights), &inputs));
                check.finish();
            }
        }
    }
}

/// N equal context tokens and one with a key bias of ln N give the same velocity.
#[test]
fn repeated_context_tokens_can_be_one() {
    const N: usize = 7;
    for path in folders("transformer", "_class_name", "SD3Transformer2DModel") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = mmdit::Config::from_value(&config, "config.json").expect("a config");
        let with_zeros = |n: usize| {
            let mut inputs = Inputs::new(&golden);
            let &[_, t, j] = inputs.shapes[3].as_slice() else { panic!("context is [B, T, J]") };
            let rows = inputs.values[3].1.chunks_exact(t * j);
            inputs.values[3].1 = rows.flat_map(|r| r.iter().copied().chain(vec![0.0; n * j])).collect();
            inputs.shapes[3][1] = t + n;
            inputs
        };
        for (name, mut exec) in executors("repeated context tokens") {
            let many = sample(exec.as_mut(), &cfg, None, &weights, &with_zeros(N));
            let inputs = with_zeros(1);
            let [_, h, w, _] = inputs.latents;
            let bias = mmdit::key_bias(cfg.image_tokens(h, w), inputs.shapes[3][1], N);
            let mut g = Graph::new();
            let ids = inputs.ids(&mut g);
            let b = g.input("bias", &[bias.len()]);
            let y = mmdit::velocity(&mut g, &cfg, None, ids[0], ids[1], ids[2], ids[3], Some(b));
            let mut values = inputs.values();
            values.push(("bias", &bias));
            let one = &run(exec.as_mut(), g, &[(mmdit::COMPONENT, &weights)], &values, &[("y", y)])[0];
            let tol = golden.tolerance("sample");
            if let Err(e) = within(&inputs.stored(one), &many, tol) {
                panic!("{} on {name}: {e}", path.display());
            }
            let plain = sample(exec.as_mut(), &cfg, None, &weights, &inputs);
            assert!(within(&plain, &many, tol).is_err(), "{name}: the bias must matter");
        }
    }
}
