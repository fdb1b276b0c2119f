//! The planner: exact counts on the null executor, memory that never overlaps, validation on wgpu's noop backend, and
//! the core without std.
use pentimento_runtime::caps::{Caps, Class};
use pentimento_runtime::exec::wgpu::Wgpu;
use pentimento_runtime::exec::{Executor, LeafData, compile, null};
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::model::mmdit::MmditConfig;
use pentimento_runtime::plan::{Place, Plan, check_overlap};
use pentimento_wgsl::kernel::norm::Body;
use pentimento_wgsl::{Stored, Variant};
use tests::tiny::velocity_graph as graph;

fn small() -> MmditConfig {
    tests::tiny::transformer(3)
}

fn plan(cfg: &MmditConfig, caps: &Caps, batch: usize, side: usize, train: bool, recompute: bool) -> Plan {
    let (g, out) = graph(cfg, batch, side, 7, train, recompute);
    let out: Vec<(&str, Id)> = out.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    Plan::new(g, &out, caps, &|_| Stored::F32).expect("a plan")
}

#[test]
fn counts_are_exact() {
    let caps = Caps::webgpu();
    let forward = null::count(&plan(&small(), &caps, 2, 4, false, false));
    let train = null::count(&plan(&small(), &caps, 2, 4, true, false));
    let again = null::count(&plan(&small(), &caps, 2, 4, true, true));
    // Frozen weights get no gradient, so a linear's backward costs its forward again (and embeddings nothing), an
    // attention's 3.5 times: the whole stays well below the 3 times of training every weight.
    let ratio = train.flops as f64 / forward.flops as f64;
    assert!((1.7..2.3).contains(&ratio), "{ratio}");
    assert!(again.flops > train.flops && again.bytes < train.bytes, "{again:?} against {train:?}");
    assert_eq!(null::count(&plan(&small(), &caps, 2, 4, false, false)), forward);
}

#[test]
fn memory_never_overlaps_and_a_bad_plan_is_found() {
    for recompute in [false, true] {
        let plan = plan(&small(), &Caps::webgpu(), 3, 4, true, recompute);
        check_overlap(&plan).expect("no overlap");
        let mut bad = plan.clone();
        let c = bad
            .commands
            .iter_mut()
            .find(|c| matches!(c.args[0].place, Place::Arena { .. }))
            .expect("a command");
        let last = c.args.len() - 1;
        c.args[last].place = c.args[0].place;
        assert!(check_overlap(&bad).is_err());
    }
}

/// A plan that would find another one's numbers in a shared arena is refused: without any command whose result is read, and with an
/// output that nothing writes.
#[test]
fn a_plan_that_reads_what_it_did_not_write_is_found() {
    let whole = plan(&small(), &Caps::webgpu(), 2, 4, true, true);
    let mut bad = whole.clone();
    bad.outputs[0].slot.place = Place::Arena { slab: 0, offset: 1 << 40 };
    let error = check_overlap(&bad).expect_err("an output of nothing").to_string();
    assert!(error.contains("no command writes the output `velocity`"), "{error}");
    // Memory is used again and again, so only what is written for the first time is missed.
    let mut bad = whole.clone();
    bad.commands.remove(0);
    let error = check_overlap(&bad).expect_err("a result that is missing").to_string();
    assert!(error.contains("reads what no command before it wrote"), "{error}");
    let error = pentimento_runtime::exec::null::Null::new(Caps::webgpu())
        .prepare(bad)
        .expect_err("a leaf first")
        .to_string();
    assert!(error.contains("missing `"), "{error}");
}

#[test]
fn a_tensor_too_large_for_a_binding_is_a_sentence() {
    let caps = Caps { max_binding: 1 << 10, ..Caps::webgpu() };
    let (g, out) = graph(&small(), 2, 8, 7, false, false);
    let out: Vec<(&str, Id)> = out.iter().map(|(n, i)| (n.as_str(), *i)).collect();
    let error = Plan::new(g, &out, &caps, &|_| Stored::F32).expect_err("too large").to_string();
    assert!(error.contains("a binding") && error.contains("holds 1024"), "{error}");
}

/// A driver that ends loops gets a row shared among a workgroup, and a sentence where that is too long as well.
#[test]
fn loops_that_a_driver_would_end_are_avoided() {
    let caps = Caps { class: Class::Software, max_iterations: 1000, ..Caps::webgpu() };
    let plan = |columns: usize| {
        let mut g = Graph::new();
        let x = g.input("x", &[2, columns]);
        let y = g.softmax(x, 1.0);
        Plan::new(g, &[("y", y)], &caps, &|_| Stored::F32)
    };
    let body = |columns| match plan(columns).expect("a plan").commands[0].variant {
        Variant::Norm(v) => v.body,
        v => panic!("{v:?} is no norm"),
    };
    assert_eq!([body(333), body(334), body(21_312)], [Body::Serial, Body::Shared, Body::Shared]);
    let error = plan(21_313).expect_err("too long").to_string();
    assert!(error.contains("softmax would loop 63939 times") && error.contains("after 1000"), "{error}");
}

/// No body is chosen that asks for more than an adapter has.
#[test]
fn what_a_body_needs_must_be_there() {
    let plan = |caps: &Caps| {
        let mut g = Graph::new();
        let x = g.input("x", &[7, 7]); // one body serves sides that are no multiples of four
        let y = g.matmul(x, x, false, false);
        Plan::new(g, &[("y", y)], caps, &|_| Stored::F32)
    };
    let needs = plan(&Caps::webgpu()).expect("a plan").commands[0].variant.needs();
    assert!(needs.workgroup_memory > 0 && needs.invocations > 64, "{needs:?}");
    let (memory, invocations) = (needs.workgroup_memory - 1, needs.invocations - 1);
    for caps in [Caps { workgroup_memory: memory, ..Caps::webgpu() }, Caps { invocations, ..Caps::webgpu() }]
    {
        let error = plan(&caps).expect_err("too little").to_string();
        assert!(error.contains("no body of matmul"), "{error}");
    }
}

#[test]
fn shape_errors_are_reported_not_panicked() {
    let mut g = Graph::new();
    let a = g.input("a", &[2, 3]);
    let b = g.input("b", &[4, 5]);
    let c = g.matmul(a, b, false, false);
    let d = g.add(c, a);
    let error = Plan::new(g, &[("d", d)], &Caps::webgpu(), &|_| Stored::F32).expect_err("shapes").to_string();
    assert!(error.contains("matmul") && error.contains("[2, 3]"), "{error}");
}

/// Pipelines, bindings and dispatches of forward and training plans, checked by wgpu without any driver.
#[test]
fn noop_backend_accepts_every_command() {
    let mut noop = match Wgpu::noop() {
        Ok(noop) => noop,
        Err(e) => return println!("SKIPPED: noop validation ({e})"),
    };
    for train in [false, true] {
        let (g, out) = graph(&small(), 2, 4, 7, train, true);
        for n in g.nodes() {
            if let Op::Leaf { kind: Leaf::Weight(_) | Leaf::Param, name } = &n.op
                && !noop.has_leaf(name)
            {
                let data = vec![0.0; n.shape.iter().product()];
                noop.set_leaf(name, LeafData::F32(&data)).expect("a weight");
            }
        }
        let out: Vec<(&str, Id)> = out.iter().map(|(n, i)| (n.as_str(), *i)).collect();
        let plan = compile(&mut noop, g, &out).expect("a valid plan");
        noop.run(plan).expect("a run");
    }
    assert_eq!(noop.caps().class, Class::Gpu);
}

/// The core links into a program that has no standard library.
#[test]
fn core_links_without_std() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/nostd/Cargo.toml");
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/nostd");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["build", "--release", "--quiet", "--manifest-path", manifest, "--target-dir", target])
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A slice of whole outermost entries lies in its parent where a binding may begin; the parent lives until its last view was
/// read.
#[test]
fn slices_of_outermost_entries_are_views() {
    let mut g = Graph::new();
    let x = g.input("x", &[4, 64]);
    let a = g.affine(x, 2.0, 1.0);
    let b = g.slice(a, 0, 1, 3);
    let c = g.slice(b, 0, 1, 2);
    let mut y = g.affine(x, 3.0, 0.0);
    for _ in 0..3 {
        y = g.affine(y, 3.0, 0.0);
    }
    let top = g.slice(y, 0, 0, 2);
    let sum = g.add(c, top);
    let first = g.slice(c, 1, 0, 8);
    let odd = g.reshape(a, &[256]);
    let odd = g.slice(odd, 0, 3, 64);
    let outputs = [("sum", sum), ("first", first), ("view", c), ("odd", odd)];
    let plan = Plan::new(g, &outputs, &Caps::webgpu(), &|_| Stored::F32).expect("a plan");
    check_overlap(&plan).expect("no overlap");
    let count = |kernel: &str| plan.commands.iter().filter(|c| c.variant.kernel() == kernel).count();
    // Copies are left for the inner axis and for an offset that no binding may have.
    assert_eq!((count("slice"), plan.commands.len()), (2, 8));
    let mut exec = pentimento_runtime::exec::cpu::Cpu::new();
    let id = exec.prepare(plan).expect("a prepared plan");
    let numbers: Vec<f32> = (0..256).map(|i| i as f32).collect();
    exec.write(id, "x", &numbers).expect("an input");
    exec.run(id).expect("a run");
    let mut read = |name: &str| exec.read(id, name).expect("an output");
    let a: Vec<f32> = numbers.iter().map(|x| 2.0 * x + 1.0).collect();
    assert_eq!(read("view"), a[128..256]);
    assert_eq!(read("odd"), a[3..67]);
    assert_eq!(read("first")[..], [&a[128..136], &a[192..200]].concat());
    let want: Vec<f32> = a[128..].iter().zip(&numbers).map(|(a, x)| a + 81.0 * x).collect();
    assert_eq!(read("sum"), want);
}
