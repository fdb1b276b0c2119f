//! Text encoders.
use crate::common::{executors, model, run};
use pentimento::graph::Graph;
use pentimento::model::clip;
use pentimento::weights::Weights;
use tests::fixture::{Check, Golden, folders, to_f16};

#[test]
fn text_encoders_agree() {
    for path in folders("text", "model_type", "clip_text_model") {
        let golden = Golden::open(&path);
        let (_, config, weights) = model(&path);
        let cfg = clip::Config::from_value(&config, &path.display().to_string()).expect("a config");
        compare(&golden, &cfg, &weights, "");
        compare(&golden, &cfg, &to_f16(&weights), "_f16w");
    }
}

/// Every output of a text encoder on every executor, against the expectations with a suffix.
pub fn compare(golden: &Golden, cfg: &clip::Config, weights: &Weights, suffix: &str) {
    let eot = golden.json["vocab"]["eot"].as_u64().expect("vocab.eot") as u32;
    let modern = clip::Config { eos_token_id: eot, ..cfg.clone() };
    let &[b, t] = golden.shape("input_ids") else { panic!("input_ids are [B, T]") };
    let ids: Vec<u32> = golden.ints("input_ids").iter().map(|&i| i as u32).collect();
    for (name, mut exec) in executors("text encoder") {
        let mut check = Check::new(golden, &name);
        let of_all = |f: &dyn Fn(&[u32]) -> Vec<f32>| ids.chunks_exact(t).flat_map(f).collect::<Vec<f32>>();
        let embeds = of_all(&|ids| cfg.embed(weights, ids).expect("embeddings"));
        for (cfg, pooled) in [(cfg, "text_embeds"), (&modern, "text_embeds_modern_eos")] {
            let picks = of_all(&|ids| cfg.pick(ids));
            let mut g = Graph::new();
            let (x, pick) = (g.input("embeds", &[b, t, cfg.hidden_size]), g.input("pick", &[b, t]));
            let y = clip::encode(&mut g, cfg, "text_encoder", x, pick);
            let out = run(
                exec.as_mut(),
                g,
                &[("text_encoder", weights)],
                &[("embeds", &embeds), ("pick", &picks)],
                &[("penultimate", y.penultimate), ("pooled", y.pooled)],
            );
            check.optional(&format!("penultimate{suffix}"), &out[0]);
            check.optional(&format!("{pooled}{suffix}"), &out[1]);
        }
        check.finish();
    }
}
