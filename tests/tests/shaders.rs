//! Every linked shader in the languages that drivers read: SPIR-V (checked by `spirv-val` where it is installed), MSL, HLSL
//! and GLSL ES 3.10, written by naga with the options that the product uses. `wgsl/tests/validate.rs` validates the sources.
use naga::ShaderStage;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use pentimento_wgsl::kernel::{Features, norm, sum};
use pentimento_wgsl::{Binding, Variant, link, variants};
use std::path::Path;
use std::process::Command;
use tests::scratch::Scratch;

/// Storage buffers that OpenGL ES 3.1 guarantees a compute shader (table 20.45 of its specification).
const ES_STORAGE: usize = 4;

/// A validated module and its variant.
struct Shader {
    variant: Variant,
    module: naga::Module,
    info: ModuleInfo,
}

fn read(variant: Variant, source: &str) -> Result<Shader, String> {
    read_with(variant, source, Capabilities::SHADER_FLOAT16_IN_FLOAT32)
}

fn read_with(variant: Variant, source: &str, capabilities: Capabilities) -> Result<Shader, String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    Ok(Shader { variant, module, info })
}

/// The kernels prove their own bounds, so the product compiles without run-time checks.
fn unchecked() -> BoundsCheckPolicies {
    let none = BoundsCheckPolicy::Unchecked;
    BoundsCheckPolicies { index: none, buffer: none, image_load: none, binding_array: none }
}

impl Shader {
    fn entry(&self) -> String {
        self.variant.entry().into()
    }
    fn stage(&self) -> Option<(ShaderStage, String)> {
        Some((ShaderStage::Compute, self.entry()))
    }

    /// SPIR-V 1.3, that of Vulkan 1.1; cooperative matrices come with drivers that read 1.4.
    fn spirv(&self) -> Result<Vec<u32>, String> {
        let options = spv::Options {
            lang_version: if self.variant.needs().features.matrix { (1, 4) } else { (1, 3) },
            bounds_check_policies: unchecked(),
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            ..spv::Options::default()
        };
        let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: self.entry() };
        spv::write_vec(&self.module, &self.info, &options, Some(&entry)).map_err(|e| e.to_string())
    }
    fn msl(&self) -> Result<String, String> {
        let options = msl::Options {
            lang_version: (2, 0),
            fake_missing_bindings: true,
            bounds_check_policies: unchecked(),
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..msl::Options::default()
        };
        let entry = msl::PipelineOptions { entry_point: self.stage(), ..msl::PipelineOptions::default() };
        let written = msl::write_string(&self.module, &self.info, &options, &entry);
        let (text, translation) = written.map_err(|e| e.to_string())?;
        translation
            .entry_point_names
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.to_string())?;
        Ok(text)
    }
    fn hlsl(&self, shader_model: hlsl::ShaderModel) -> Result<String, String> {
        let options = hlsl::Options {
            shader_model,
            zero_initialize_workgroup_memory: false,
            restrict_indexing: false,
            force_loop_bounding: false,
            ..hlsl::Options::default()
        };
        let entry = hlsl::PipelineOptions { entry_point: self.stage() };
        let mut text = String::new();
        let mut writer = hlsl::Writer::new(&mut text, &options, &entry);
        let written = writer.write(&self.module, &self.info, None).map_err(|e| e.to_string())?;
        written.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        Ok(text)
    }
    fn glsl(&self) -> Result<String, String> {
        let options = glsl::Options {
            version: glsl::Version::new_gles(310),
            zero_initialize_workgroup_memory: false,
            ..glsl::Options::default()
        };
        let entry = glsl::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: self.entry(),
            multiview: None,
        };
        let mut text = String::new();
        let writer = glsl::Writer::new(&mut text, &self.module, &self.info, &options, &entry, unchecked());
        writer.map_err(|e| e.to_string())?.write().map_err(|e| e.to_string())?;
        Ok(text)
    }
}

/// The shaders of every device. Those with optional features are for some drivers only: see below, and `validate.rs`.
fn all() -> impl Iterator<Item = Shader> {
    let everywhere = variants().into_iter().filter(|v| v.needs().features == Features::NONE);
    everywhere.map(|v| read(v, &link(&v)).unwrap_or_else(|e| panic!("{v:?}: {e}")))
}

#[test]
fn every_variant_is_written_in_every_language() {
    let (mut count, mut beyond) = (0, Vec::new());
    for s in all() {
        let name = s.variant;
        let fail = |language: &str, e: String| panic!("{name:?} in {language}: {e}");
        let text = s.msl().unwrap_or_else(|e| fail("MSL", e));
        assert!(text.contains("kernel void"), "{name:?}");
        for model in [hlsl::ShaderModel::V5_1, hlsl::ShaderModel::V6_0] {
            let text = s.hlsl(model).unwrap_or_else(|e| fail("HLSL", e));
            assert!(text.contains("[numthreads("), "{name:?}");
        }
        let text = s.glsl().unwrap_or_else(|e| fail("GLSL ES 3.10", e));
        assert!(text.starts_with("#version 310 es") && text.contains("void main()"), "{name:?}");
        let storage = name.bindings().iter().filter(|b| b.1 != Binding::Texture).count();
        if storage > ES_STORAGE && !beyond.contains(&name.entry()) {
            beyond.push(name.entry());
        }
        count += 1;
    }
    println!("{count} variants in MSL 2.0, HLSL 5.1 and 6.0, GLSL ES 3.10");
    // GLES 3.1 has the language; its least devices lack the bindings. Adapters that offer 8 can run them all.
    println!(
        "more than the {ES_STORAGE} storage buffers of the least GLES 3.1 device: {}",
        beyond.join(", ")
    );
    assert!(beyond.contains(&"matmul_tile") && !beyond.contains(&"unary"));
}

/// naga's SPIR-V writer panics at expressions of cooperative matrices that have no name; its validator lets them pass.
#[test]
fn shaders_with_features_are_written_as_spirv() {
    let mut count = 0;
    for v in variants().into_iter().filter(|v| v.needs().features != Features::NONE) {
        let s = read_with(v, &link(&v), Capabilities::all()).unwrap_or_else(|e| panic!("{v:?}: {e}"));
        s.spirv().unwrap_or_else(|e| panic!("{v:?}: {e}"));
        count += 1;
    }
    println!("{count} variants with optional features in SPIR-V");
}

fn spirv_val(file: &Path) -> std::io::Result<Result<(), String>> {
    let out = Command::new("spirv-val").args(["--target-env", "vulkan1.1"]).arg(file).output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    Ok(if out.status.success() { Ok(()) } else { Err(text) })
}

fn store(folder: &Scratch, words: &[u32]) -> std::path::PathBuf {
    let file = folder.0.join("shader.spv");
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(&file, bytes).expect("a scratch file");
    file
}

#[test]
fn every_variant_passes_spirv_val() {
    let folder = Scratch::new("spirv");
    let mut count = 0;
    for s in all() {
        let words = s.spirv().unwrap_or_else(|e| panic!("{:?}: {e}", s.variant));
        match spirv_val(&store(&folder, &words)) {
            Ok(Ok(())) => count += 1,
            Ok(Err(text)) => panic!("{:?}: {text}", s.variant),
            Err(e) => return println!("SKIPPED: spirv-val ({e}; Debian: apt-get install spirv-tools)"),
        }
    }
    println!("{count} variants pass spirv-val for Vulkan 1.1");
}

/// What a broken shader would look like to these checks.
#[test]
fn broken_modules_are_refused() {
    let v = Variant::Sum(sum::Variant);
    assert!(read(v, &link(&v).replace("x[base + k", "x[bass + k")).is_err());
    // Half-precision arithmetic is beyond WebGPU's guarantees and beyond GLSL ES.
    let half = format!("enable f16;\nvar<private> h: f16;\n{}", link(&v));
    assert!(read(v, &half).is_err());
    let good = read(v, &link(&v)).expect("a shader");
    let softmax = norm::Variant { kernel: norm::Kernel::Softmax, body: norm::Body::Shared };
    let softmax = Variant::Norm(softmax);
    let other = Shader { variant: softmax, ..good };
    assert!(other.msl().is_err() && other.glsl().is_err() && other.spirv().is_err());
    assert!(other.hlsl(hlsl::ShaderModel::V5_1).is_err());
    let folder = Scratch::new("broken-spirv");
    let mut words = read(v, &link(&v)).and_then(|s| s.spirv()).expect("SPIR-V");
    assert_eq!(words.pop(), Some(0x0001_0038), "the last instruction is OpFunctionEnd");
    match spirv_val(&store(&folder, &words)) {
        Ok(result) => assert!(result.is_err(), "spirv-val accepts a function without an end"),
        Err(e) => println!("SKIPPED: a broken module through spirv-val ({e})"),
    }
}
