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

/// Softmaxes of inputs of their own, several to a dispatch, and one of their sum.
fn together(noop: &mut Wgpu) -> PlanId {
    let mut g = Graph::new();
    let inputs: Vec<_> = (0..5).map(|i| g.input(format!("x{i}"), &[8, 8])).collect();
    let all: Vec<_> = inputs.into_iter().map(|x| g.softmax(x, 1.0)).collect();
    let sum = all.into_iter().reduce(|a, b| g.add(a, b)).expect("some");
    compile(noop, g, &[("sum", sum)]).expect("a plan")
}

/// Under a pace as without, a run that wants one command gets one; a piece takes a dispatch whole.
#[test]
fn one_command_is_one_and_a_dispatch_is_whole() {
    let mut noop = Wgpu::noop().expect("noop");
    let plan = together(&mut noop);
    noop.run(plan).expect("a run");
    let commands = noop.plan(plan).commands.clone();
    assert!(commands.iter().any(|c| c.together > 1), "nothing is shared");
    let pace = Pace::default();
    noop.set_pace(pace.clone());
    for budget in [core::time::Duration::from_nanos(2), core::time::Duration::from_secs(100)] {
        pace.poll(budget, budget);
        let _hurry = pace.hurry();
        noop.rewind(plan);
        for at in 1..=commands.len() {
            assert_eq!(noop.one(plan).expect("a command"), at == commands.len());
            assert_eq!(noop.plans.get(plan).expect("a plan").cursor, at);
        }
        noop.rewind(plan);
        loop {
            noop.slice(plan).expect("a slice");
            let cursor = noop.plans.get(plan).expect("a plan").cursor;
            let Some(next) = commands.get(cursor) else { break };
            assert!(next.together > 0, "a slice ended before command {cursor}, in the middle of a dispatch");
        }
    }
}
