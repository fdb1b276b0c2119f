//! Profiles count what the plan has, by every clock of the adapter.
use pentimento_runtime::exec::wgpu::Clock;
use pentimento_runtime::exec::{Executor, LeafData, compile, null};
use pentimento_runtime::graph::{Graph, Layout};
use pentimento_wgsl::Stored;
use tests::adapter::adapter;

#[test]
fn a_profile_is_of_the_plan() {
    let Some(mut gpu) = adapter("profile of a small plan") else { return };
    let half = gpu.caps().half_weights;
    let bytes = vec![0u8; 2 * 64 * 64];
    let weight = if half { LeafData::Packed(Stored::F16, &bytes) } else { LeafData::F32(&[0.0; 64 * 64]) };
    gpu.set_leaf("w", weight).expect("a weight");
    let mut g = Graph::new();
    let mut x = g.input("x", &[32, 64]);
    let w = g.weight("w", &[64, 64], Layout::Plain);
    for _ in 0..4 {
        x = g.linear(x, w, None);
        x = g.layer_norm(x, 1e-5);
    }
    let plan = compile(&mut gpu, g, &[("y", x)]).expect("a plan");
    let count = null::count(gpu.plan(plan));
    let best = gpu.clock();
    // The first one is the plan's first run, too.
    for clock in [Clock::Commands, Clock::Passes, Clock::Host] {
        let profile = gpu.profile_by(plan, clock).expect("a profile");
        assert_eq!((profile.clock, profile.commands.len()), (clock.min(best), count.dispatches));
        for (spent, c) in profile.commands.iter().zip(&gpu.plan(plan).commands) {
            assert_eq!((spent.variant, spent.flops, spent.count), (c.variant, c.flops, 1));
            assert!(spent.seconds.is_finite() && spent.seconds >= 0.0, "{spent:?}");
        }
        assert!(profile.seconds() > 0.0);
        // Operands and results: numbers of four bytes, weights in half precision of two.
        let weights = 4 * 64 * 64 * if half { 2 } else { 4 };
        let moved: u64 = profile.commands.iter().map(|c| c.bytes).sum();
        assert_eq!(moved, 8 * 2 * 4 * 32 * 64 + weights);
        let sums = profile.by_variant();
        assert_eq!(sums.iter().map(|s| s.count).sum::<usize>(), count.dispatches);
        assert_eq!(sums.iter().map(|s| s.flops).sum::<u64>(), count.flops);
        assert!(sums.windows(2).all(|s| s[0].seconds >= s[1].seconds));
        let whole = profile.whole;
        assert!(whole.wall > 0.0 && whole.wall.is_finite());
        assert_eq!(whole.device.is_some(), best != Clock::Host);
        assert!(whole.device.is_none_or(|s| s.is_finite() && s >= 0.0), "{whole:?}");
        println!("{clock:?}: {:.3} ms of {whole:?}", 1e3 * profile.seconds());
    }
}

/// As `pentimento devices --test` runs it: a good device agrees, and is left as it was.
#[test]
fn a_self_test_agrees_and_leaves_nothing() {
    let Some(mut gpu) = adapter("the self-test") else { return };
    let before = gpu.memory().now.leaves;
    let tested = gpu.self_test().expect("a test");
    assert!(tested.wrong.is_none(), "{}", tested.wrong.expect("a difference"));
    assert!(tested.commands > 20 && tested.kernels.len() > 10, "{tested:?}");
    assert_eq!(gpu.memory().now.leaves, before);
}
