//! Every linked variant parses and validates, its bindings are those of the table, and its entry point exists.
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pentimento_wgsl::kernel::{KERNELS, MatmulBody};
use pentimento_wgsl::{Binding, Class, Kernel, Variant, WeightType, link};

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for class in [Class::Gpu, Class::Software] {
        for kernel in KERNELS {
            let plain = Variant::plain(kernel, class);
            match kernel {
                Kernel::Matmul => {
                    for weight in [WeightType::F32, WeightType::F16, WeightType::BF16] {
                        for body in [MatmulBody::Naive, MatmulBody::Tile] {
                            all.push(Variant { weight, body, ..plain });
                        }
                    }
                    for body in [MatmulBody::TextureNt, MatmulBody::TextureNn, MatmulBody::TextureTn] {
                        all.push(Variant { body, ..plain });
                    }
                }
                Kernel::Attention | Kernel::AttentionDq | Kernel::AttentionDkv => {
                    for (head, textures) in [(4, false), (64, false), (128, false), (64, true)] {
                        all.push(Variant { head, textures, ..plain });
                    }
                }
                Kernel::Conv2d => all.extend([plain, Variant { textures: true, ..plain }]),
                _ => all.push(plain),
            }
        }
    }
    all
}

fn check(v: &Variant, source: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    Validator::new(ValidationFlags::all(), Capabilities::default() | Capabilities::SHADER_FLOAT16_IN_FLOAT32)
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    if !module.entry_points.iter().any(|e| e.name == v.entry()) {
        return Err(format!("no entry point {}", v.entry()));
    }
    for (number, kind) in v.bindings() {
        let global = module
            .global_variables
            .iter()
            .find(|(_, g)| g.binding.as_ref().is_some_and(|b| b.binding == number))
            .ok_or_else(|| format!("binding {number} is not declared"))?
            .1;
        let image = matches!(module.types[global.ty].inner, naga::TypeInner::Image { .. });
        if image != (kind == Binding::Texture) {
            return Err(format!("binding {number} is {kind:?} in the table only"));
        }
    }
    let storage = v.bindings().iter().filter(|b| b.1 != Binding::Texture).count();
    if storage > 8 {
        return Err(format!("{storage} storage buffers, WebGPU guarantees 8"));
    }
    Ok(())
}

#[test]
fn every_variant_validates() {
    let all = variants();
    for v in &all {
        check(v, &link(v)).unwrap_or_else(|e| panic!("{v:?}: {e}"));
    }
    assert!(all.len() > 60);
}

#[test]
fn a_broken_shader_is_refused() {
    let v = Variant::plain(Kernel::Sum, Class::Gpu);
    assert!(check(&v, &link(&v).replace("scale: f32", "scale: vec3<f32>")).is_err());
    assert!(check(&v, &link(&v).replace("fn sum(", "fn summ(")).is_err());
    assert!(check(&v, &link(&v).replace("= linear(", "= linnear(")).is_err());
}

#[test]
fn lines_lead_back_to_their_part() {
    let v = Variant::plain(Kernel::Sum, Class::Gpu);
    let line = link(&v).lines().position(|l| l.starts_with("fn sum(")).expect("the entry") + 1;
    let (part, at) = pentimento_wgsl::link::origin(&v, line);
    assert_eq!(part, "sum.wgsl");
    let (_, text) = pentimento_wgsl::link::parts(&v).into_iter().find(|p| p.0 == part).expect("the part");
    assert!(text.lines().nth(at - 1).expect("a line").starts_with("fn sum("));
}
