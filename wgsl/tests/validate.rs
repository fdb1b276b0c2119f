//! Every linked variant parses and validates with no more than WebGPU guarantees or what it says it needs, its bindings are those of the table, and
//! its entry point exists. `tests/tests/shaders.rs` takes them on to the drivers' languages.
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pentimento_wgsl::kernel::{
    Features, attention, blocks, conv, elementwise, group, matmul, norm, philox, sum,
};
use pentimento_wgsl::together::shareable;
use pentimento_wgsl::{Binding, Variant, kernels, link, link_together, variants};

/// What WebGPU guarantees of a compute stage: storage buffers, storage textures, bytes of workgroup memory, invocations.
const GUARANTEED: (usize, usize, u32, u32) = (8, 4, 16384, 256);

/// What naga may allow a shader that asks for these features.
fn capabilities(features: Features) -> Capabilities {
    let Features { f16, subgroups, matrix } = features;
    let asked = [
        (f16, Capabilities::SHADER_FLOAT16),
        (subgroups, Capabilities::SUBGROUP),
        (matrix, Capabilities::COOPERATIVE_MATRIX),
    ];
    // unpack2x16float is core WGSL; naga wants it named.
    let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    asked.into_iter().filter(|c| c.0).fold(core, |some, c| some | c.1)
}

fn check(v: &Variant, source: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    Validator::new(ValidationFlags::all(), capabilities(v.needs().features))
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
    let needs = v.needs();
    if (memory, invocations) != (needs.workgroup_memory, needs.invocations) {
        return Err(format!(
            "{memory} bytes of workgroup memory, {invocations} invocations; it asks for {needs:?}"
        ));
    }
    let most = GUARANTEED;
    let beyond = storage > most.0 || textures > most.1 || memory > most.2 || invocations > most.3;
    if beyond && needs.features == Features::NONE {
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
    assert!(all.len() > 300 && kernels().len() > 20);
    let distinct: std::collections::HashSet<&Variant> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    println!("{} variants validate", all.len());
}

/// Calls that share a dispatch have a bind group each and one workgroup memory.
#[test]
fn calls_together_validate() {
    let mut count = 0;
    for v in variants().iter().filter(|v| shareable(v).is_some()) {
        let counts: &[u32] = if count % 20 == 0 { &[2, 6] } else { &[2] };
        for &together in counts {
            let source = link_together(v, together);
            check(v, &source).unwrap_or_else(|e| panic!("{together} of {v:?}: {e}"));
            let module = naga::front::wgsl::parse_str(&source).expect("a module");
            let groups = |g| {
                module.global_variables.iter().filter(move |(_, v)| v.binding.is_some_and(|b| b.group == g))
            };
            let own = groups(0).count();
            assert!(own > v.bindings().len() && (1..together).all(|g| groups(g).count() == own), "{v:?}");
            assert_eq!(groups(together).count(), 0);
        }
        count += 1;
    }
    println!("{count} variants validate together");
}

/// Fields of a variant's uniform block; `None` for the copies, whose shader has one block for all of them.
fn fields(v: &Variant) -> Option<&'static [(&'static str, &'static str)]> {
    use elementwise::{Kernel, Variant as Elementwise};
    Some(match v {
        Variant::Elementwise(Elementwise { kernel: Kernel::Unary | Kernel::UnaryBackward, .. }) => {
            elementwise::Map::FIELDS
        }
        Variant::Elementwise(Elementwise { kernel: Kernel::Binary, .. }) => elementwise::Pair::FIELDS,
        Variant::Sum(_) => sum::Params::FIELDS,
        Variant::Copy(_) => return None,
        Variant::Norm(_) => norm::Params::FIELDS,
        Variant::Matmul(_) => matmul::Params::FIELDS,
        Variant::Group(_) => group::Params::FIELDS,
        Variant::Blocks(_) => blocks::Params::FIELDS,
        Variant::Attention(
            attention::Variant::Stream { .. }
            | attention::Variant::Tile { .. }
            | attention::Variant::Coop { .. },
        ) => attention::Block::FIELDS,
        Variant::Attention(attention::Variant::Stats) => attention::Stats::FIELDS,
        Variant::Conv(conv::Variant { kernel: conv::Kernel::Conv2d, .. }) => conv::Params::FIELDS,
        Variant::Conv(conv::Variant { kernel: conv::Kernel::Conv2dDx, .. }) => conv::Dx::FIELDS,
        Variant::Philox(_) => philox::Params::FIELDS,
    })
}

#[test]
fn uniform_blocks_have_the_fields_of_their_structs() {
    for v in variants() {
        let Some(fields) = fields(&v) else { continue };
        let module = naga::front::wgsl::parse_str(&link(&v)).expect("a module");
        let block = module.global_variables.iter().find(|(_, g)| g.space == naga::AddressSpace::Uniform);
        let naga::TypeInner::Struct { members, .. } = &module.types[block.expect("a block").1.ty].inner
        else {
            panic!("{v:?}: the uniform block is no struct");
        };
        let kind = |m: &naga::StructMember| match module.types[m.ty].inner {
            naga::TypeInner::Scalar(naga::Scalar::F32) => "f32",
            _ => "u32",
        };
        let found: Vec<(&str, &str)> =
            members.iter().map(|m| (m.name.as_deref().unwrap_or_default(), kind(m))).collect();
        assert_eq!(found, fields, "{v:?}");
    }
}

#[test]
fn a_broken_shader_is_refused() {
    let v = Variant::Sum(sum::Variant);
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
    let v = Variant::Sum(sum::Variant);
    let line = link(&v).lines().position(|l| l.starts_with("fn sum(")).expect("the entry") + 1;
    let (part, at) = pentimento_wgsl::link::origin(&v, line);
    assert_eq!(part, "sum.wgsl");
    let (_, text) = pentimento_wgsl::link::parts(&v).into_iter().find(|p| p.0 == part).expect("the part");
    assert!(text.lines().nth(at - 1).expect("a line").starts_with("fn sum("));
}
