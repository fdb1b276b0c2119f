//! Every linked variant parses and validates with no more than WebGPU guarantees, its bindings are those of the table, and
//! its entry point exists. `tests/tests/shaders.rs` takes them on to the drivers' languages.
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pentimento_wgsl::{Binding, Class, Kernel, Variant, link, variants};

/// What WebGPU guarantees of a compute stage: storage buffers, sampled textures, bytes of workgroup memory, invocations.
const GUARANTEED: (usize, usize, u32, u32) = (8, 16, 16384, 256);

fn check(v: &Variant, source: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    // unpack2x16float is core WGSL; naga wants it named.
    Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
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
    let textures = v.bindings().iter().filter(|b| b.1 == Binding::Texture).count();
    let storage = v.bindings().len() - textures;
    let memory = module.global_variables.iter().filter(|(_, g)| g.space == naga::AddressSpace::WorkGroup);
    let memory: u32 = memory.map(|(_, g)| module.types[g.ty].inner.size(module.to_ctx())).sum();
    let invocations =
        module.entry_points.iter().map(|e| e.workgroup_size.iter().product()).max().unwrap_or(0);
    let most = GUARANTEED;
    if storage > most.0 || textures > most.1 || memory > most.2 || invocations > most.3 {
        return Err(format!(
            "{storage} storage buffers, {textures} textures, {memory} bytes of workgroup memory, {invocations} invocations; WebGPU guarantees {most:?}"
        ));
    }
    Ok(())
}

#[test]
fn every_variant_validates() {
    let all = variants();
    for v in &all {
        check(v, &link(v)).unwrap_or_else(|e| panic!("{v:?}: {e}"));
    }
    assert!(all.len() > 300);
    println!("{} variants validate", all.len());
}

#[test]
fn a_broken_shader_is_refused() {
    let v = Variant::plain(Kernel::Sum, Class::Gpu);
    assert!(check(&v, &link(&v).replace("scale: f32", "scale: vec3<f32>")).is_err());
    assert!(check(&v, &link(&v).replace("fn sum(", "fn summ(")).is_err());
    assert!(check(&v, &link(&v).replace("= linear(", "= linnear(")).is_err());
    // Beyond the guarantees: half-precision arithmetic, subgroups, and more invocations.
    assert!(check(&v, &format!("enable f16;\nvar<private> h: f16;\n{}", link(&v))).is_err());
    assert!(check(&v, &link(&v).replace("y[i] = p.scale * total", "y[i] = subgroupAdd(total)")).is_err());
    assert!(check(&v, &link(&v).replace("const WORKGROUP = 64u", "const WORKGROUP = 512u")).is_err());
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
