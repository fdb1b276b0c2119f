//! Tests of configurations and shape rules.
use super::*;

#[test]
fn targets_leave_out_what_does_not_exist() {
    let cfg = MmditConfig { num_layers: 2, ..MmditConfig::sd35_medium() };
    let targets = lora_targets(&cfg);
    assert_eq!(targets.len(), 15);
    assert_eq!(targets[3], ("transformer_blocks.0.attn.to_out.0".into(), 1536, 1536));
    assert!(targets.iter().all(|t| t.0 != "transformer_blocks.1.attn.to_add_out"));
}

#[test]
fn unsupported_settings_are_named() {
    let base = r#""in_channels":16,"num_layers":2,"num_attention_heads":2,"attention_head_dim":16,
        "joint_attention_dim":8,"pooled_projection_dim":8,"pos_embed_max_size":4"#;
    let text = |more: &str| {
        let json: Value = serde_json::from_str(&format!("{{{base},{more}}}")).unwrap();
        MmditConfig::from_value(&json, "config.json").map_or_else(|e| format!("{e}"), |_| "fine".into())
    };
    assert_eq!(text(r#""patch_size":2,"qk_norm":null,"caption_projection_dim":32"#), "fine");
    assert!(text(r#""patch_size":3"#).contains("`patch_size`: expected 1 or 2, found 3"));
    assert!(text(r#""patch_size":2,"qk_norm":"layer_norm""#).contains("`qk_norm`"));
    assert!(text(r#""patch_size":2,"dual_attention_layers":[2]"#).contains("layers below 2"));
    assert!(text(r#""patch_size":2,"caption_projection_dim":64"#).contains("expected 32, found 64"));
    assert!(
        text(r#""patch_size":2,"_class_name":"FluxTransformer2DModel""#).contains("another kind of model")
    );
}

#[test]
fn broken_shapes_are_sentences() {
    let cfg = MmditConfig { num_layers: 1, pos_embed_max_size: 4, ..MmditConfig::sd3_medium() };
    let mut g = Graph::new();
    let latents = g.input("latents", &[1, 16, 16, 16]);
    let (time, pooled) = (g.input("time", &[1, 256]), g.input("pooled", &[1, 2048]));
    let context = g.input("context", &[1, 5, 4096]);
    velocity(&mut g, &cfg, None, latents, time, pooled, context, None);
    assert!(format!("{}", g.check().unwrap_err()).contains("sides up to 8 that"));
    let good: [&[usize]; 4] = [&[1, 4, 4, 16], &[1, 256], &[1, 2048], &[1, 5, 4096]];
    for wrong in [&[][..], &[3], &[1, 2, 3], &[1, 3, 3, 16], &[1, 2, 2, 3], &[1, 0, 4, 16], &[2, 256]] {
        for at in 0..4 {
            let shapes: [&[usize]; 4] = core::array::from_fn(|i| if i == at { wrong } else { good[i] });
            let mut g = Graph::new();
            let ids: [Id; 4] = core::array::from_fn(|i| g.input(format!("{i}"), shapes[i]));
            velocity(&mut g, &cfg, None, ids[0], ids[1], ids[2], ids[3], None);
            assert!(g.check().is_err(), "input {at}: {wrong:?}");
        }
    }
}
