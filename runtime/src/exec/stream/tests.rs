//! Windows of a chain of products: where they begin, and what makes the checker fail.
use super::*;
use crate::caps::Caps;
use crate::graph::{Graph, Layout};
use alloc::string::{String, ToString};
use alloc::vec;

/// x through matrices of these names, one after the other; a name that comes again is the same matrix.
fn chain(names: &[&str]) -> Plan {
    let mut g = Graph::new();
    let mut x = g.input("x", &[8, 8]);
    let mut known = alloc::collections::BTreeMap::new();
    for &name in names {
        let w = *known.entry(name).or_insert_with(|| g.weight(name, &[8, 8], Layout::Plain));
        x = g.linear(x, w, None);
        x = g.softmax(x, 1.0);
    }
    Plan::new(g, &[("y", x)], &Caps::unlimited("test"), &|_| pentimento_wgsl::Stored::F32).unwrap()
}

/// All but those that begin with `r` are streamed; `L` is large.
fn streamed(name: &str) -> Option<u64> {
    match name.as_bytes()[0] {
        b'r' => None,
        b'L' => Some(1000),
        _ => Some(100),
    }
}

fn rules(window: u64) -> Rules<'static> {
    Rules { window, alignment: 64, streamed: &streamed }
}

/// Windows as the first command that reads of each, and the names and offsets in it.
fn windows(plan: &Plan, window: u64) -> Vec<(usize, Vec<(&str, u64)>)> {
    let stream = Stream::of(plan, &rules(window));
    stream.check(plan, &rules(window)).unwrap();
    let name = |load: &Load| (plan.leaves[load.leaf].name.as_str(), load.offset);
    stream.0.iter().map(|w| (w.start, w.loads.iter().map(name).collect())).collect()
}

/// The commands that read a leaf.
fn readers(plan: &Plan, name: &str) -> Vec<usize> {
    let reads = |c: &Command| read(c).any(|leaf| plan.leaves[leaf].name == name);
    plan.commands.iter().enumerate().filter(|(_, c)| reads(c)).map(|(i, _)| i).collect()
}

#[test]
fn windows_begin_where_the_last_is_full() {
    let plan = chain(&["a", "b", "r", "a", "c", "b"]);
    let at = |name, k: usize| readers(&plan, name)[k];
    // Everything in one; what is there already is not brought again.
    assert_eq!(windows(&plan, 1 << 20), [(at("a", 0), vec![("a", 0), ("b", 128), ("c", 256)])]);
    // Two in each: the third begins anew, and so does what it has pushed out.
    assert_eq!(
        windows(&plan, 256),
        [(at("a", 0), vec![("a", 0), ("b", 128)]), (at("c", 0), vec![("c", 0), ("b", 128)])]
    );
    // One at a time, however small the window: `a` twice, since `b` was in its place between.
    let one = windows(&plan, 1);
    let starts = [at("a", 0), at("b", 0), at("a", 1), at("c", 0), at("b", 1)];
    assert_eq!(one.iter().map(|w| w.0).collect::<Vec<_>>(), starts);
    assert!(one.iter().all(|w| w.1.len() == 1 && w.1[0].1 == 0));
}

#[test]
fn a_weight_larger_than_a_window_has_one_of_its_own() {
    let plan = chain(&["a", "L", "b"]);
    let found = windows(&plan, 256);
    assert_eq!(found.iter().map(|w| w.1.clone()).collect::<Vec<_>>(), [[("a", 0)], [("L", 0)], [("b", 0)]]);
    assert_eq!(Stream::of(&plan, &rules(256)).room(), 1008);
}

#[test]
fn a_command_knows_its_window() {
    let plan = chain(&["r", "a", "b", "c"]);
    let (stream, all) = (Stream::of(&plan, &rules(256)), plan.commands.len());
    let (a, c) = (readers(&plan, "a")[0], readers(&plan, "c")[0]);
    let leaf = |name: &str| plan.leaves.iter().position(|l| l.name == name).unwrap();
    assert!(stream.begins(0).is_none() && stream.until(0, all) == a);
    assert!(stream.begins(a).is_some() && stream.begins(a + 1).is_none());
    assert_eq!((stream.until(a, all), stream.until(c, all)), (c, all));
    assert_eq!(stream.offset(c - 1, leaf("b")), Some(128));
    assert_eq!(stream.offset(c, leaf("c")), Some(0));
    assert_eq!([stream.offset(0, leaf("r")), stream.offset(c, leaf("b"))], [None, None]);
    let none = Stream::of(&chain(&["r", "r2"]), &rules(256));
    assert_eq!((none.room(), none.until(0, 9)), (0, 9));
}

#[test]
fn broken_windows_are_refused() {
    let plan = chain(&["a", "b", "c"]);
    let whole = Stream::of(&plan, &rules(256));
    let refused = |broken: Stream| broken.check(&plan, &rules(256)).unwrap_err().to_string();
    let change = |by: &dyn Fn(&mut Vec<Window>)| {
        let mut stream = whole.clone();
        by(&mut stream.0);
        refused(stream)
    };
    let says = |text: String, what: &str| assert!(text.contains(what), "{text}");
    says(change(&|w| w[0].loads.truncate(1)), "reads `b`, which its window does not hold");
    says(change(&|w| w[1].start -= 2), "which its window does not hold");
    says(change(&|w| w.clear()), "reads `a`");
    says(change(&|w| w[0].loads[1].bytes = 50), "reads `b`");
    says(change(&|w| w[0].loads[1].offset = 64), "window 0 of streamed weights has one over another");
    says(change(&|w| w[0].loads[1].offset = 132), "where no binding may begin");
    says(change(&|w| w.swap(0, 1)), "begins before the one in front of it");
    says(change(&|w| w[1].start = 99), "past the last command");
}
