//! Tests of adapter files: round trips, every source of the scale, every way to be wrong.
use super::*;
use crate::files::tests::Scratch;
use pentimento_runtime::weights::Weights;

const Q: &str = "transformer_blocks.0.attn.to_q";

/// Four layers from 3 to 4 numbers.
fn model() -> Layers {
    let layer = Layer { inputs: 3, outputs: 4, patch: 1 };
    let targets = ["to_q", "to_k", "to_v", "to_out.0"].map(|x| format!("transformer_blocks.0.attn.{x}"));
    targets.into_iter().map(|target| (target, layer)).collect()
}

fn sample() -> Adapter {
    let mut adapter = Adapter::default();
    for (i, x) in ["to_q", "to_k", "to_v", "to_out.0"].iter().enumerate() {
        let values = |n: usize| (0..n).map(|j| (i * 10 + j) as f32 * 0.25 - 1.0).collect::<Vec<_>>();
        let pair = Pair::new(2, values(6), values(8), 1.0).unwrap();
        adapter.pairs.insert(format!("transformer_blocks.0.attn.{x}"), pair);
    }
    adapter
}

/// A safetensors file of f32 tensors with constant values.
fn file(tensors: &[(&str, &[usize], f32)], metadata: Option<&str>) -> Vec<u8> {
    let data: Vec<_> = tensors
        .iter()
        .map(|(name, shape, value)| {
            let bytes: Vec<u8> = (0..shape.iter().product()).flat_map(|_| value.to_le_bytes()).collect();
            (name.to_string(), shape.to_vec(), bytes)
        })
        .collect();
    let views = data.iter().map(|(n, s, b)| (n.clone(), TensorView::new(Dtype::F32, s.clone(), b).unwrap()));
    let metadata =
        metadata.map(|m| [("lora_adapter_metadata".to_string(), m.to_string())].into_iter().collect());
    safetensors::serialize(views, metadata).unwrap()
}

fn message<T>(result: Result<T>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn round_trip_is_exact() {
    let adapter = sample();
    let bytes = adapter.write_bytes().unwrap();
    assert_eq!(bytes, adapter.write_bytes().unwrap(), "the same bytes every time");
    assert_eq!(Adapter::parse("a", bytes.clone(), None, &model()).unwrap(), adapter);
    let weights = Weights::from_bytes("a", bytes).unwrap();
    assert_eq!(weights.expect(&format!("transformer.{Q}.lora_A.weight"), &[2, 3]).unwrap().elements(), 6);
    assert_eq!(weights.expect(&format!("transformer.{Q}.lora_B.weight"), &[4, 2]).unwrap().elements(), 8);
    assert_eq!((weights.len(), weights.metadata("format")), (8, Some("pt")));

    let s = Scratch::new("adapter");
    adapter.save(&s.0.join(FILES[0])).unwrap();
    assert_eq!(Adapter::load(&s.0, &model()).unwrap(), adapter);
    assert_eq!(Adapter::load(&s.0.join(FILES[0]), &model()).unwrap(), adapter);
    assert!(message(adapter.save(&s.0.join("no/a.safetensors"))).contains("missing the folder"));
}

#[test]
fn bad_adapters_are_not_written() {
    assert!(message(Adapter::default().write_bytes()).contains("missing any adapted layer"));
    let mut lonely = sample();
    lonely.pairs.remove("transformer_blocks.0.attn.to_k");
    assert!(message(lonely.write_bytes()).contains("`transformer_blocks.0.attn.to_k` beside"));
    let mut nan = sample();
    nan.pairs.get_mut(Q).unwrap().b[3] = f32::NAN;
    assert!(message(nan.write_bytes()).contains("finite values, found NaN"));
    let mut odd = sample();
    odd.pairs.get_mut(Q).unwrap().a.pop();
    assert!(message(odd.write_bytes()).contains("multiples of rank 2, found 5 and 8"));
    for (rank, a, b) in [(0, 2, 2), (2, 3, 2), (2, 2, 0)] {
        assert!(Pair::new(rank, vec![0.0; a], vec![0.0; b], 1.0).is_err());
    }
}

#[test]
fn every_source_of_the_scale() {
    let read = |keys: [&str; 2], alpha: Option<&str>, metadata: Option<&str>, config: Option<&str>| {
        let mut tensors: Vec<(&str, &[usize], f32)> = vec![(keys[0], &[2, 3], 1.0), (keys[1], &[4, 2], 1.0)];
        tensors.extend(alpha.map(|key| (key, &[][..], 6.0)));
        Adapter::parse("a", file(&tensors, metadata), config, &model()).map(|a| a.pairs[Q].b[0])
    };
    let (a, b) = (format!("transformer.{Q}.lora_A.weight"), format!("transformer.{Q}.lora_B.weight"));
    let plain = [a.as_str(), b.as_str()];
    let (a, b) =
        (format!("base_model.model.{Q}.lora_A.weight"), format!("base_model.model.{Q}.lora_B.weight"));
    let peft = [a.as_str(), b.as_str()];
    let alpha = format!("transformer.{Q}.alpha");
    let metadata = r#"{"transformer.lora_alpha":8,"transformer.r":2}"#;
    assert_eq!(read(plain, None, None, None).unwrap(), 1.0);
    assert_eq!(read(plain, Some(&alpha), None, None).unwrap(), 3.0);
    assert_eq!(read(plain, Some(&alpha), Some(metadata), None).unwrap(), 3.0, "the tensor is nearest");
    assert_eq!(read(plain, None, Some(metadata), None).unwrap(), 4.0);
    assert_eq!(read(peft, None, None, Some(r#"{"lora_alpha":8,"r":2}"#)).unwrap(), 4.0);
    assert_eq!(
        read(peft, None, None, Some(r#"{"lora_alpha":8,"alpha_pattern":{"attn.to_q":2}}"#)).unwrap(),
        1.0
    );
    assert_eq!(read(peft, None, None, Some(r#"{"lora_alpha":8,"alpha_pattern":{"o_q":2}}"#)).unwrap(), 4.0);
    assert_eq!(read(peft, None, None, Some(r#"{"r":9,"rank_pattern":{"to_q":2}}"#)).unwrap(), 1.0);
    let rs = read(peft, None, None, Some(r#"{"lora_alpha":8,"use_rslora":true}"#)).unwrap();
    assert!((rs - 8.0 / 2f32.sqrt()).abs() <= 1e-6);
    for (config, part) in [
        (r#"{"r":4}"#, "expected rank 4, found 2"),
        (r#"{"use_dora":true}"#, "`use_dora`"),
        (r#"{"lora_alpha":"8"}"#, "`lora_alpha`"),
        (r#"{"alpha_pattern":{"to_q":null}}"#, "`alpha_pattern`"),
        (r#"{"alpha_pattern":{"^to_q":1}}"#, "Regular expressions"),
        ("[]", "a JSON object"),
        ("{", "a JSON object"),
    ] {
        let text = message(read(peft, None, None, Some(config)));
        assert!(text.contains("adapter_config.json") && text.contains(part), "{config}: {text}");
    }
}

#[test]
fn bad_files_name_the_key() {
    let key = |rest: &str| format!("transformer.{Q}{rest}");
    let (a, b) = (key(".lora_A.weight"), key(".lora_B.weight"));
    let parse =
        |tensors: &[(&str, &[usize], f32)]| message(Adapter::parse("f", file(tensors, None), None, &model()));
    let bare_a = format!("{Q}.lora_A.weight");
    for (tensors, part) in [
        (vec![], "missing any adapted layer"),
        (vec![(a.as_str(), &[2, 3][..], 1.0)], "missing its other half, lora_B"),
        (vec![(b.as_str(), &[4, 2], 1.0)], "missing its other half, lora_A"),
        (vec![(a.as_str(), &[2, 5], 1.0), (b.as_str(), &[4, 2], 1.0)], "expected shape [2, 3], found [2, 5]"),
        (vec![(a.as_str(), &[2, 3], 1.0), (b.as_str(), &[4, 3], 1.0)], "expected shape [4, 2], found [4, 3]"),
        (vec![(a.as_str(), &[], 1.0), (b.as_str(), &[4, 2], 1.0)], "shape [rank, 3], found []"),
        (vec![(a.as_str(), &[0, 3], 1.0), (b.as_str(), &[4, 0], 1.0)], "shape [rank, 3], found [0, 3]"),
        (vec![(a.as_str(), &[2, 3], f32::NAN), (b.as_str(), &[4, 2], 1.0)], "finite values"),
        (vec![(a.as_str(), &[2, 3], 1.0), (bare_a.as_str(), &[2, 3], 1.0)], "one tensor of this kind"),
        (
            vec![("transformer.transformer_blocks.9.attn.to_q.lora_A.weight", &[2, 3], 1.0)],
            "a linear layer of this model",
        ),
        (
            vec![("transformer.proj_out.weight", &[2, 3], 1.0)],
            "`transformer.proj_out.weight`. A full weight is not",
        ),
        (vec![("text_encoder.x.lora_A.weight", &[2, 3], 1.0)], "text encoders"),
        (vec![("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", &[2, 3], 1.0)], "lora_B"),
        (
            vec![("lora_unet_joint_blocks_0_y_block_attn_qkv.lora_down.weight", &[2, 3], 1.0)],
            "No linear layer of an SD3",
        ),
        (
            vec![("lora_unet_joint_blocks_0_x_block_mlp_fc1.lora_down.weight", &[2, 3], 1.0)],
            "`transformer_blocks.0.ff.net.0.proj`",
        ),
        (
            vec![("diffusion_model.joint_blocks.0.x_block.attn.kqv.lora_A.weight", &[2, 3], 1.0)],
            "No linear layer of an SD3",
        ),
        (vec![("lora_te1_x.lora_down.weight", &[2, 3], 1.0)], "text encoders"),
        (vec![(".lora_A.weight", &[2, 3], 1.0)], "`.lora_A.weight`"),
        (
            vec![("text_encoder.text_projection.lora_A.weight", &[2, 3], 1.0)],
            "This model has no `text_encoder`",
        ),
    ] {
        let text = parse(&tensors);
        assert!(text.starts_with('f') && text.contains(part), "{tensors:?}: {text}");
    }
    let alpha = key(".alpha");
    let text = parse(&[(&a, &[2, 3], 1.0), (&b, &[4, 2], 1.0), (&alpha, &[2], 1.0)]);
    assert!(text.contains("one number, found [2]"), "{text}");
    assert!(message(Adapter::parse("f", vec![1, 2, 3], None, &model())).contains("only 3 bytes"));
}

/// The reason is the method's own; a plain LoRA in a spelling that nobody uses is not called something else.
#[test]
fn other_methods_are_refused_by_name() {
    let parse = |key: &str| message(Adapter::parse("f", file(&[(key, &[2, 3], 1.0)], None), None, &model()));
    for (ending, method) in [
        (".dora_scale", "DoRA"),
        (".lora_magnitude_vector", "DoRA"),
        (".lora_magnitude_vector.default.weight", "DoRA"),
        (".lokr_w1", "LoKr"),
        (".lokr_t2", "LoKr"),
        (".hada_w1_a", "LoHa"),
        (".oft_R.weight", "OFT"),
        (".oft_blocks", "OFT"),
        (".boft_R", "BOFT"),
        (".ia3_l.weight", "IA3"),
        (".on_input", "IA3"),
        (".a1.weight", "GLoRA"),
        (".lora_mid.weight", "LoRA with a core tensor"),
        (".vera_lambda_b", "VeRA"),
        (".diff", "A full difference of a weight"),
        (".diff_b", "A full difference of a bias"),
        (".w_norm", "A difference of a norm"),
        (".lora_B.bias", "LoRA with biases"),
        (".lora_up.bias", "LoRA with biases"),
        (".weight", "A full weight"),
        (".bias", "A full weight"),
    ] {
        for module in [format!("transformer.{Q}"), "lora_unet_joint_blocks_0_x_block_attn_qkv".into()] {
            let text = parse(&format!("{module}{ending}"));
            assert!(text.contains(&format!("{module}{ending}`. {method}")), "{ending}: {text}");
        }
    }
    for key in [format!("transformer.{Q}.lora_Q.weight"), format!("transformer.{Q}.lora_A.weight.x")] {
        let text = parse(&key);
        assert!(text.contains("none of the endings of a plain LoRA") && !text.contains("DoRA"), "{text}");
    }
    assert!(parse("bundle_emb.x.string_to_param.*").contains("textual inversion"));
}

#[test]
fn numbers_that_are_not_numbers_are_named() {
    let key = |rest: &str| format!("transformer.{Q}{rest}");
    let (a, b, alpha) = (key(".lora_A.weight"), key(".lora_B.weight"), key(".alpha"));
    let parse = |a_is: f32, b_is: f32, alpha_is: f32, config: Option<&str>| {
        let mut all: Vec<(&str, &[usize], f32)> = vec![(&a, &[2, 3], a_is), (&b, &[4, 2], b_is)];
        if config.is_none() {
            all.push((&alpha, &[], alpha_is));
        }
        Adapter::parse("f", file(&all, None), config, &model())
    };
    for (result, key, part) in [
        (parse(f32::NAN, 1.0, 1.0, None), &a, "expected finite values, found NaN in row 0, column 0"),
        (parse(1.0, f32::INFINITY, 1.0, None), &b, "expected finite values, found inf"),
        (parse(1.0, 1.0, f32::NAN, None), &alpha, "expected a finite number, found NaN"),
        (parse(1.0, 1e10, 1e30, None), &b, "finite times alpha / rank"),
        (parse(1.0, 1e10, 0.0, Some(r#"{"lora_alpha":1e30}"#)), &b, "finite times alpha / rank"),
    ] {
        let text = message(result);
        assert!(text.contains(&format!("`{key}`")) && text.contains(part), "{text}");
    }
    let text = message(parse(1.0, 1.0, 0.0, Some(r#"{"lora_alpha":1e300}"#)));
    assert!(text.contains("adapter_config.json") && text.contains("within f32"), "{text}");
    assert!(parse(1.0, 1e10, 1e20, None).is_ok());

    let scaled = |by: f32| message(sample().scaled(by, "f:strength"));
    assert!(scaled(f32::NAN).contains("f:strength: strength: expected a finite number, found NaN"));
    let text = scaled(3e38);
    assert!(
        text.contains("f:strength: `transformer_blocks.0.attn.to_k`: expected values that are finite times"),
        "{text}"
    );
    assert_eq!(scaled(0.0), "");
}

#[test]
fn files_that_are_not_there() {
    let s = Scratch::new("noadapter");
    assert!(message(Adapter::load(&s.0, &model())).contains("pytorch_lora_weights.safetensors"));
    assert!(message(Adapter::load(&s.0.join("x.safetensors"), &model())).contains("cannot read"));
    s.write(FILES[1], sample().write_bytes().unwrap());
    let text = message(Adapter::load(&s.0, &model()));
    assert!(
        text.contains("missing `adapter_config.json` beside it"),
        "PEFT's scale is unknown without it: {text}"
    );
}

#[test]
fn goldens_of_peft_and_diffusers() {
    let Some(root) = std::env::var_os("PENTIMENTO_GOLDENS") else {
        println!("skipped: PENTIMENTO_GOLDENS is not set");
        return;
    };
    let root = Path::new(&root);
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("lora/golden.json")).unwrap()).unwrap();
    let base = json["checkpoint"][0].as_str().unwrap().split(' ').next().unwrap();
    let base =
        pentimento_runtime::folder::open_component(&root.join("lora").join(base)).unwrap().weights().unwrap();
    let layer = |name: &str| match *base.shape(name)? {
        [outputs, inputs] => {
            Some((name.strip_suffix(".weight")?.to_string(), Layer { inputs, outputs, patch: 1 }))
        }
        _ => None,
    };
    let layers: Layers = base.names().filter_map(layer).collect();
    let scaling = json["scaling"].as_f64().unwrap() as f32;
    let load = |name: &str| Adapter::load(&root.join("lora").join(name), &layers).unwrap();
    let (diffusers, bare, peft) = (load("diffusers"), load("diffusers_nometa"), load("peft"));
    assert_eq!(diffusers, peft, "metadata and adapter_config.json say the same");
    assert_eq!(diffusers.pairs.keys().collect::<Vec<_>>(), bare.pairs.keys().collect::<Vec<_>>());
    for (target, pair) in &diffusers.pairs {
        assert_eq!(pair.rank as u64, json["r"].as_u64().unwrap());
        let scaled: Vec<f32> = bare.pairs[target].b.iter().map(|v| v * scaling).collect();
        assert_eq!((&pair.a, &pair.b), (&bare.pairs[target].a, &scaled), "{target}");
    }
    let again = Adapter::parse("again", diffusers.write_bytes().unwrap(), None, &layers).unwrap();
    assert_eq!(again, diffusers);
    let fewer = layers.into_iter().filter(|(target, _)| target.ends_with(".to_q")).collect();
    assert!(message(Adapter::load(&root.join("lora/peft"), &fewer)).contains("a linear layer of this model"));
}

/// Rows 0..4, 4..8 and 8..12 of a fused B are those of q, k and v; A is shared.
#[test]
fn fused_layers_are_split() {
    for (keys, alpha) in [
        (
            [
                "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight",
                "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight",
            ],
            "lora_unet_joint_blocks_0_x_block_attn_qkv.alpha",
        ),
        (
            [
                "diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight",
                "diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_B.weight",
            ],
            "diffusion_model.joint_blocks.0.x_block.attn.qkv.alpha",
        ),
    ] {
        let numbers = |n: usize| (0..n).flat_map(|v| (v as f32).to_le_bytes()).collect::<Vec<u8>>();
        let (a, b, one) = (numbers(6), numbers(24), 4f32.to_le_bytes());
        let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
        let tensors = [(keys[0], view(&[2, 3], &a)), (keys[1], view(&[12, 2], &b)), (alpha, view(&[], &one))];
        let adapter =
            Adapter::parse("f", safetensors::serialize(tensors, None).unwrap(), None, &model()).unwrap();
        for (i, x) in ["to_q", "to_k", "to_v"].iter().enumerate() {
            let pair = &adapter.pairs[&format!("transformer_blocks.0.attn.{x}")];
            let want: Vec<f32> = (8 * i..8 * i + 8).map(|v| 2.0 * v as f32).collect();
            assert_eq!((pair.rank, &pair.b, pair.a[5]), (2, &want, 5.0), "{x}: scale 4 / 2");
        }
        let q = format!("transformer.{Q}.lora_A.weight");
        let q_b = format!("transformer.{Q}.lora_B.weight");
        let twice = [
            (keys[0], view(&[2, 3], &a)),
            (keys[1], view(&[12, 2], &b)),
            (&q, view(&[2, 3], &a)),
            (&q_b, view(&[4, 2], &b[..32])),
        ];
        let text = message(Adapter::parse("f", safetensors::serialize(twice, None).unwrap(), None, &model()));
        assert!(text.contains("a layer adapted once"), "{text}");
        let short = [(keys[0], view(&[2, 3], &a)), (keys[1], view(&[11, 2], &b[..88]))];
        let text = message(Adapter::parse("f", safetensors::serialize(short, None).unwrap(), None, &model()));
        assert!(text.contains(keys[1]) && text.contains("expected shape [12, 2], found [11, 2]"), "{text}");
    }
}

#[test]
fn peft_round_trip_is_exact() {
    let s = Scratch::new("peft");
    let mut adapter = sample();
    let odd = Pair::new(1, vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0, 7.0], 1.0).unwrap();
    adapter.pairs.insert("transformer_blocks.0.attn.to_out.0".into(), odd);
    adapter.save_peft(&s.0).unwrap();
    assert_eq!(Adapter::load(&s.0, &model()).unwrap(), adapter);
    let weights = Weights::from_bytes("a", adapter.write_peft().unwrap().0).unwrap();
    let layers = layers(&weights).unwrap();
    assert_eq!((layers.len(), layers[Q].inputs, layers[Q].outputs), (4, 3, 4));
    assert!(weights.names().all(|n| n.starts_with("base_model.model.transformer_blocks.0.attn.")));
}
