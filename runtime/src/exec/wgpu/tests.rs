use super::*;
use crate::exec::Executor;
use crate::exec::compile;
use alloc::collections::BTreeSet;
use pentimento_wgsl::Variant;

/// A plan of a few kernels, one of them used twice.
fn chain(noop: &mut Wgpu) -> PlanId {
    let mut g = Graph::new();
    let x = g.input("x", &[8, 8]);
    let a = g.matmul(x, x, false, false);
    let b = g.softmax(a, 1.0);
    let c = g.matmul(b, x, false, false);
    let d = g.permute(c, &[1, 0]);
    compile(noop, g, &[("d", d)]).expect("a plan")
}

#[test]
fn the_first_run_stops_at_every_new_variant() {
    let mut noop = Wgpu::noop().expect("noop");
    let plan = chain(&mut noop);
    let commands = noop.plan(plan).commands.clone();
    let distinct: BTreeSet<&str> = commands.iter().map(|c| c.variant.entry()).collect();
    assert!(distinct.len() >= 3 && commands.len() > distinct.len(), "{distinct:?}");
    let mut seen: Vec<Variant> = Vec::new();
    for c in &commands {
        if !seen.contains(&c.variant) {
            assert!(noop.slice(plan).expect("a slice"), "no stop at {:?}", c.variant);
            seen.push(c.variant);
            let ran = &commands[..noop.plans.get(plan).expect("a plan").cursor];
            assert!(
                ran.iter().all(|c| seen.contains(&c.variant))
                    && ran.last().map(|c| c.variant) == Some(c.variant)
            );
        }
    }
    // What is left, and every later run, is cut by work alone.
    while noop.plans.get(plan).expect("a plan").cursor < commands.len() {
        assert!(!noop.slice(plan).expect("a slice"));
    }
    noop.rewind(plan);
    assert!(!noop.slice(plan).expect("a slice"));
    assert_eq!(noop.plans.get(plan).expect("a plan").cursor, commands.len());
    // Another plan of the same kernels has nothing new.
    let again = chain(&mut noop);
    assert!(!noop.slice(again).expect("a slice"));
}

#[test]
fn steps_are_built_in_order_once() {
    let mut noop = Wgpu::noop().expect("noop");
    let plan = chain(&mut noop);
    let all = noop.plan(plan).commands.len();
    // As on an adapter, where preparing builds nothing.
    let own = &mut noop.plans.get_mut(plan).expect("a plan").own;
    own.steps.clear();
    own.next = (0, Stage::default());
    noop.slice(plan).expect("a slice");
    let built = noop.plans.get(plan).expect("a plan").own.steps.len();
    assert!((1..all).contains(&built), "{built} of {all}");
    noop.run(plan).expect("a run");
    noop.run(plan).expect("another");
    assert_eq!(noop.plans.get(plan).expect("a plan").own.steps.len(), all);
}
