//! Random numbers drawn on the device.
use super::Lowered;
use crate::graph::{Graph, Id, Op};
use crate::rng::Philox;
use alloc::{format, vec};
use pentimento_wgsl::Call;
use pentimento_wgsl::kernel::philox::Params;

impl Graph {
    /// The words of a Philox stream, from a block on: the upper 24 bits of each over 2^24, uniform in [0, 1) and equal
    /// to [`Philox::uniform`], and its lower 8 bits; both exact. `state`: [`Philox::state`]. Has no gradient.
    pub fn philox(&mut self, state: Id, shape: &[usize]) -> (Id, Id) {
        if self.len(state) != Philox::STATE {
            let (found, want) = (self.shape(state).to_vec(), Philox::STATE);
            let bad = self.fail(format!("philox: expected a state of {want} numbers, found {found:?}"));
            return (bad, bad);
        }
        let upper = self.push(Op::Philox, vec![state], shape.to_vec());
        (upper, self.push(Op::Second, vec![upper], shape.to_vec()))
    }
}

pub(super) fn lower(g: &Graph, id: Id) -> Lowered {
    let n = g.len(id);
    // Ten rounds of about thirty integer operations make four words.
    Lowered::new(Call::Philox(Params { n: n as u32 }), &g.node(id).inputs, 75 * n as u64)
}
