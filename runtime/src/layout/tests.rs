//! Tests of the original layout: names, splitting, what is refused.
use super::*;
use alloc::vec;

/// A safetensors file of f32 tensors whose elements count up.
fn file(tensors: &[(&str, &[usize])]) -> Weights {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, shape) in tensors {
        let start = data.len();
        (0..shape.iter().product()).for_each(|i: usize| data.extend((i as f32).to_le_bytes()));
        let info = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.to_string(), info);
    }
    let header = serde_json::Value::Object(header).to_string();
    Weights::from_bytes("f", [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat())
        .unwrap()
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

/// Every module under both layouts' names, with dots and with underscores, and nothing else.
#[test]
fn underscores_may_stand_for_dots() {
    for (name, to) in [
        ("context_embedder", Rename::To("context_embedder".into())),
        ("t_embedder.mlp.0", Rename::To("time_text_embed.timestep_embedder.linear_1".into())),
        (
            "time_text_embed.text_embedder.linear_2",
            Rename::To("time_text_embed.text_embedder.linear_2".into()),
        ),
        ("final_layer.adaLN_modulation.1", Rename::Swap("norm_out.linear".into())),
        ("norm_out.linear", Rename::To("norm_out.linear".into())),
        (
            "joint_blocks.3.context_block.adaLN_modulation.1",
            Rename::Swap("transformer_blocks.3.norm1_context.linear".into()),
        ),
        ("joint_blocks.12.x_block.mlp.fc1", Rename::To("transformer_blocks.12.ff.net.0.proj".into())),
        (
            "transformer_blocks.12.ff_context.net.2",
            Rename::To("transformer_blocks.12.ff_context.net.2".into()),
        ),
        ("transformer_blocks.0.attn2.to_out.0", Rename::To("transformer_blocks.0.attn2.to_out.0".into())),
        (
            "joint_blocks.1.x_block.attn2.qkv",
            Rename::Split(["to_q", "to_k", "to_v"].map(|x| format!("transformer_blocks.1.attn2.{x}"))),
        ),
    ] {
        assert_eq!(any_module(name, Some(3)), Some(to.clone()), "{name}");
        assert_eq!(any_module(&name.replace('.', "_"), Some(3)), Some(to), "{name}");
    }
    for none in [
        "",
        "joint_blocks",
        "joint_blocks_3",
        "joint_blocks_3_y_block_mlp_fc1",
        "transformer_blocks.0",
        "single_transformer_blocks.0.attn.to_q",
        "transformer_blocks.0.attn.to_qq",
        "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    ] {
        assert_eq!(any_module(none, None), None, "{none}");
    }
}

#[test]
fn names_follow_the_reference() {
    let one = |name: &str, to: &str| assert_eq!(module(name, Some(3)), Some(Rename::To(to.into())), "{name}");
    one("x_embedder.proj", "pos_embed.proj");
    one("joint_blocks.3.x_block.mlp.fc1", "transformer_blocks.3.ff.net.0.proj");
    one("joint_blocks.2.context_block.adaLN_modulation.1", "transformer_blocks.2.norm1_context.linear");
    let swapped =
        |name: &str, to: &str| assert_eq!(module(name, Some(3)), Some(Rename::Swap(to.into())), "{name}");
    swapped("joint_blocks.3.context_block.adaLN_modulation.1", "transformer_blocks.3.norm1_context.linear");
    swapped("final_layer.adaLN_modulation.1", "norm_out.linear");
    let fused = ["to_q", "to_k", "to_v"].map(|x| format!("transformer_blocks.11.attn2.{x}"));
    assert_eq!(module("joint_blocks.11.x_block.attn2.qkv", None), Some(Rename::Split(fused)));
    for none in [
        "",
        "x_embedder",
        "joint_blocks.x",
        "joint_blocks.01.x_block.mlp.fc1",
        "joint_blocks.5000.x_block.mlp.fc1",
        "joint_blocks.1.x_block.mlp",
        "joint_blocks.-1.x_block.mlp.fc1",
        "joint_blocks.99999999999999999999.x_block.mlp.fc1",
    ] {
        assert_eq!(module(none, None), None, "{none}");
    }
    let vae = |name: &str| {
        names::vae(name).map(|r| match r {
            Rename::To(name) => name,
            other => format!("{other:?}"),
        })
    };
    for (from, to) in [
        ("encoder.norm_out.bias", "encoder.conv_norm_out.bias"),
        ("encoder.mid.attn_1.proj_out.weight", "encoder.mid_block.attentions.0.to_out.0.weight"),
        ("decoder.mid.block_2.norm1.weight", "decoder.mid_block.resnets.1.norm1.weight"),
        ("encoder.down.1.block.0.nin_shortcut.bias", "encoder.down_blocks.1.resnets.0.conv_shortcut.bias"),
        ("encoder.down.0.downsample.conv.bias", "encoder.down_blocks.0.downsamplers.0.conv.bias"),
        ("decoder.up.3.upsample.conv.bias", "decoder.up_blocks.3.upsamplers.0.conv.bias"),
        ("decoder.conv_in.weight", "decoder.conv_in.weight"),
    ] {
        assert_eq!(vae(from).as_deref(), Some(to));
    }
    assert_eq!((vae("encoder.mid.attn_1.z.weight"), vae("loss.x")), (None, None));
}

#[test]
fn a_file_is_split_into_components() {
    let w = file(&[
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.bias", &[6]),
        ("model.diffusion_model.final_layer.adaLN_modulation.1.bias", &[4]),
        ("model.diffusion_model.pos_embed", &[4, 2]),
        ("first_stage_model.decoder.up.0.block.0.norm1.bias", &[1]),
        ("first_stage_model.decoder.up.1.block.0.norm1.bias", &[2]),
        ("first_stage_model.encoder.mid.attn_1.q.weight", &[2, 2, 1, 1]),
        ("text_encoders.clip_l.transformer.text_model.final_layer_norm.weight", &[2]),
        ("text_encoders.clip_l.logit_scale", &[1]),
    ]);
    let s = SingleFile::split(&w).unwrap();
    assert_eq!(s.components().collect::<Vec<_>>(), ["text_encoder", "transformer", "vae"]);
    assert_eq!(s.unknown(), ["text_encoders.clip_l.logit_scale"]);
    let values = |part: &str, name: &str, shape: &[usize]| {
        s.component(part).unwrap().expect(name, shape).unwrap().to_f32().unwrap()
    };
    assert_eq!(values("transformer", "transformer_blocks.0.attn.to_v.bias", &[2]), [4.0, 5.0]);
    assert_eq!(values("transformer", "norm_out.linear.bias", &[4]), [2.0, 3.0, 0.0, 1.0]);
    assert_eq!(values("transformer", "pos_embed.pos_embed", &[1, 4, 2]).len(), 8);
    assert_eq!(values("vae", "decoder.up_blocks.0.resnets.0.norm1.bias", &[2]).len(), 2);
    assert_eq!(values("vae", "decoder.up_blocks.1.resnets.0.norm1.bias", &[1]).len(), 1);
    assert_eq!(values("vae", "encoder.mid_block.attentions.0.to_q.weight", &[2, 2])[3], 3.0);
    assert_eq!(values("text_encoder", "text_projection.weight", &[2, 2]), [1.0, 0.0, 0.0, 1.0]);
    assert!(message(s.config("text_encoder_2")).contains("component `text_encoder_2`"));
    assert!(message(s.config("transformer")).contains("missing tensor `pos_embed.proj.weight`"));
}

#[test]
fn files_that_are_none_are_refused() {
    assert!(message(SingleFile::split(&file(&[("unet.x", &[1])]))).contains("found `unet.x` and the like"));
    assert!(message(SingleFile::split(&file(&[]))).contains("no tensors"));
    let fused = "joint_blocks.0.x_block.attn.qkv.weight";
    assert!(
        message(SingleFile::split(&file(&[(fused, &[7, 2])])))
            .contains("rows in 3 equal parts, found [7, 2]")
    );
    assert!(
        message(SingleFile::split(&file(&[("final_layer.adaLN_modulation.1.bias", &[3])])))
            .contains("2 equal parts")
    );
    let twice = [("pos_embed", &[1, 4, 2][..]), ("model.diffusion_model.pos_embed", &[1, 4, 2])];
    assert!(message(SingleFile::split(&file(&twice))).contains("a name used once"));
}

#[test]
fn a_decoder_in_diffusers_layout_keeps_its_levels() {
    let w = file(&[
        ("decoder.up_blocks.0.resnets.0.norm1.bias", &[3]),
        ("decoder.up_blocks.1.resnets.0.norm1.bias", &[4]),
    ]);
    let s = SingleFile::split(&w).unwrap();
    assert_eq!(s.component("vae").unwrap().shape("decoder.up_blocks.1.resnets.0.norm1.bias"), Some(&[4][..]));
    assert_eq!(vec!["vae"], s.components().collect::<Vec<_>>());
}

/// What shapes do not tell is asked for instead of guessed.
#[test]
fn shapes_that_do_not_tell_are_refused() {
    let vae = [
        ("first_stage_model.encoder.down.0.block.0.conv1.weight", &[48, 4, 3, 3][..]),
        ("first_stage_model.decoder.conv_in.weight", &[48, 16, 3, 3]),
    ];
    let s = SingleFile::split(&file(&vae)).unwrap();
    assert!(message(s.config("vae")).contains("multiples of 32 channels"));
    let clip = [
        ("text_model.embeddings.token_embedding.weight", &[4, 48][..]),
        ("text_model.embeddings.position_embedding.weight", &[4, 48]),
        ("text_model.encoder.layers.0.mlp.fc1.weight", &[4, 48]),
        ("text_projection.weight", &[48, 48]),
    ];
    let clip = clip.map(|(n, s)| (format!("text_encoders.clip_g.transformer.{n}"), s));
    let clip: Vec<(&str, &[usize])> = clip.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    let s = SingleFile::split(&file(&clip)).unwrap();
    let text = message(s.config("text_encoder_2"));
    assert!(text.contains("a multiple of 64 channels") && text.contains("--config DIR"), "{text}");
}
