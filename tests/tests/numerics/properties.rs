//! What must hold whatever the numbers are.
use crate::common::{run, with_gradients};
use pentimento::exec::cpu::Cpu;
use pentimento::graph::Id;
use tests::cases::CASES;

#[test]
fn recomputed_blocks_give_the_same_bits() {
    for case in CASES {
        let n = [5, 3, 4];
        let mut results = Vec::new();
        for recompute in [false, true] {
            let (g, out) = with_gradients(case, n, recompute);
            let out: Vec<(&str, Id)> = out.iter().map(|(s, i)| (s.as_str(), *i)).collect();
            // The value itself may be fused where its parts are not kept; only gradients are promised.
            results.push(run(&mut Cpu::new(), &g, &out, 5).split_off(1));
        }
        assert_eq!(results[0], results[1], "{}", case.name);
    }
}
