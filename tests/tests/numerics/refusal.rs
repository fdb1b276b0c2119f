//! The comparison refuses what is wrong: for every kernel a changed parameter, number or shape.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_wgsl::kernel::attention::Call as Attention;
use pentimento_wgsl::kernel::conv::Call as Conv;
use pentimento_wgsl::kernel::copy::Call as Copy;
use pentimento_wgsl::kernel::elementwise::Call as Elementwise;
use pentimento_wgsl::kernel::group::Kernel as GroupKernel;
use pentimento_wgsl::kernel::norm::Kernel;
use pentimento_wgsl::kernel::sum;
use pentimento_wgsl::{Call, Class, Variant, kernels};
use std::collections::BTreeMap;
use tests::adapter::adapter;
use tests::cases::{all, kinds};
use tests::check::{Data, check, check_spoiled, compare};
use tests::draw::{Draw, Values};
use tests::real::Real;

/// Changes a parameter whose change alone must be noticed: the kernel's constant most easily got wrong, off by little.
fn spoil(call: &mut Call) {
    match call {
        // Another function; another part of the input, but never past its end.
        Call::Elementwise(Elementwise::Unary(p) | Elementwise::UnaryBackward(p)) => {
            p.op = if p.op == 18 { 22 } else { 18 };
        }
        Call::Elementwise(Elementwise::Binary(p)) => p.op = (p.op + 1) % 3,
        Call::Copy(Copy::Slice(p)) => p.start = p.start.saturating_sub(1),
        Call::Copy(Copy::Pad(p)) => p.start -= 1,
        Call::Copy(Copy::Concat(p)) => p.n -= 1,
        Call::Copy(Copy::Permute(p)) => p.strides[4] = 0,
        Call::Copy(Copy::Upsample(p)) => core::mem::swap(&mut p.w, &mut p.c),
        // Constants off by a part in a thousand or less.
        Call::Sum(p) => p.scale *= 1.001,
        Call::Norm(c) => match c.kernel {
            Kernel::LayerNorm | Kernel::LayerNormBackward | Kernel::RmsNorm | Kernel::RmsNormBackward => {
                c.params.eps *= 100.0;
            }
            Kernel::GroupNorm | Kernel::GroupNormBackward => c.params.eps *= 1000.0,
            Kernel::Softmax | Kernel::SoftmaxBackward => c.params.scale *= 1.001,
        },
        Call::Group(c) => match c.kernel {
            GroupKernel::Stats | GroupKernel::StatsBackward => c.params.part -= 1,
            GroupKernel::Apply | GroupKernel::ApplyBackward => c.params.eps = 0.1,
        },
        Call::Attention(Attention::Pass(_, p)) => p.block.scale *= 1.001,
        // One product fewer.
        Call::Attention(Attention::Stats(p)) => p.d -= 1,
        Call::Matmul(p) => p.k -= 1,
        // The last words, or numbers, are missing.
        Call::Blocks(c) => c.params.n -= 4,
        Call::Philox(p) => p.n -= 1,
        Call::Conv(Conv::Conv2d(p)) => p.pad = 1 - p.pad.min(1),
        Call::Conv(Conv::Conv2dDx(p)) => p.pad = 1 - p.pad.min(1),
    }
}

/// A row whose plan has a kernel, for each kernel: one that begins with it, where there is one (a sum's gradient also pads,
/// but only zeros).
fn examples() -> BTreeMap<&'static str, Draw> {
    let mut found: BTreeMap<&str, (bool, Draw)> = BTreeMap::new();
    for case in all() {
        let draw = Draw {
            case,
            class: Class::Gpu,
            weight: kinds(&case)[0],
            n: [6, 7, 8],
            values: Values::Normal,
            seed: 4,
            fold: false,
            split: false,
            cut: false,
            stage: false,
        };
        let (plan, _) = draw.plan(&mut Cpu::new(), &Caps::webgpu()).expect("a plan");
        let kernels: Vec<&str> = plan.commands.iter().map(|c| c.call.kernel()).collect();
        for (i, kernel) in kernels.into_iter().enumerate() {
            let (first, kept) = found.entry(kernel).or_insert((i == 0, draw));
            if i == 0 && !*first {
                (*first, *kept) = (true, draw);
            }
        }
    }
    found.into_iter().map(|(kernel, (_, draw))| (kernel, draw)).collect()
}

fn refuses(exec: &mut dyn Executor) {
    let examples = examples();
    for kernel in kernels() {
        let draw = examples.get(kernel).unwrap_or_else(|| panic!("no row has {kernel}"));
        let caps = exec.caps().clone();
        let (plan, data) = draw.plan(exec, &caps).expect("a plan");
        check(exec, plan.clone(), &data).unwrap_or_else(|e| panic!("{draw}: {e}"));
        let spoiled = check_spoiled(exec, plan, &data, |plan| {
            let c = plan.commands.iter_mut().find(|c| c.call.kernel() == kernel).expect("the kernel");
            spoil(&mut c.call);
        });
        let e = spoiled.expect_err(&format!("{kernel} with a wrong parameter passes ({draw})"));
        assert!(e.contains("command"), "{e}");
    }
}

#[test]
fn wrong_parameters_are_refused() {
    refuses(&mut Cpu::new());
    if let Some(mut gpu) = adapter("refusal of wrong parameters") {
        refuses(&mut gpu);
    }
}

#[test]
fn wrong_numbers_are_refused() {
    let v = Variant::Sum(sum::Variant);
    let limits = [vec![Real { v: 1.0, e: 1e-6 }; 2]];
    let with = |got: &[f32]| compare(v, &[vec![1.0, 1.0]], &[got], Some(&limits));
    assert!(with(&[1.0, 1.000_000_5]).is_ok_and(|s| s.worst > 0.3));
    for wrong in [&[1.0, 1.000_002][..], &[1.0, f32::NAN], &[f32::INFINITY, 1.0], &[1.0], &[1.0; 3], &[]] {
        assert!(with(wrong).is_err(), "{wrong:?}");
    }
    // A limit that is NaN promises nothing; it must show in the count, not as a pass.
    let free = [vec![Real { v: 1.0, e: f64::NAN }]];
    assert_eq!(compare(v, &[vec![1.0]], &[&[2.0]], Some(&free)).expect("free").free, 1);
    // An input that is not finite has to show.
    let lost = [vec![Real { v: f64::NAN, e: f64::NAN }]];
    assert!(compare(v, &[vec![f32::NAN]], &[&[0.0]], Some(&lost)).is_err());
    // The formula and the twin have to agree too.
    assert!(compare(v, &[vec![1.1, 1.0]], &[&[1.1, 1.0]], Some(&limits)).is_err());
    // Copies: every bit.
    assert!(compare(v, &[vec![0.0]], &[&[-0.0]], None).is_err());
    assert!(compare(v, &[vec![f32::NAN]], &[&[f32::NAN]], None).is_ok());
}

/// A plan whose commands read the wrong memory differs from its wide form.
#[test]
fn wrong_memory_is_refused() {
    let draw: Draw = "layer_norm_affine:f32:gpu:6,7,8:normal:4".parse().expect("a draw");
    let mut cpu = Cpu::new();
    let caps = cpu.caps().clone();
    let (plan, data) = draw.plan(&mut cpu, &caps).expect("a plan");
    let spoiled = check_spoiled(&mut cpu, plan, &data, |plan| {
        let c = plan.commands.iter_mut().find(|c| c.call.kernel() == "layer_norm").expect("the kernel");
        c.args.swap(1, 2);
    });
    assert!(spoiled.is_err());
    assert!(check(&mut cpu, draw.plan(&mut Cpu::new(), &caps).expect("a plan").0, &Data::new()).is_err());
}

#[test]
fn draws_survive_their_text_form() {
    for text in
        ["linear_weight:f16:gpu:3,65,17:huge:42", "silu:f32:software:1,1,1:special:0:fold:split:cut:unstaged"]
    {
        assert_eq!(text.parse::<Draw>().expect("a draw").to_string(), text);
    }
    for text in [
        "",
        "linear",
        "no_such:f32:gpu:1,1,1:normal:1",
        "silu:f32:gpu:1,1:normal:1",
        "silu:f32:gpu:1,1,1:big:1",
    ] {
        assert!(text.parse::<Draw>().is_err(), "{text}");
    }
}
