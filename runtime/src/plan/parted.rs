//! Commands that become two because one workgroup for each tile, or for each row, would leave a GPU idle: the first one makes a part's
//! numbers each, the second one puts them together in a fixed order.
use super::{Command, Planner, Slot, choose};
use crate::{Error, Result};
use alloc::vec::Vec;
use pentimento_wgsl::kernel::{Operand, norm, sum};
use pentimento_wgsl::{Call, Stored, Variant};

/// How a call is made in two.
struct Parted {
    first: Call,
    /// How many of the call's inputs the first one reads.
    reads: usize,
    /// Numbers in between.
    between: usize,
    second: Call,
    /// Whether the second one reads the call's inputs too.
    again: bool,
}

impl Parted {
    fn of(call: &Call, v: &Variant) -> Option<Parted> {
        match (call, v) {
            (Call::Matmul(product), Variant::Matmul(body)) => {
                let first = product.parted(body)?;
                let (parts, len) = (first.parts(), product.m * product.n);
                let sum = sum::Params { outputs: len, n: parts, inner: len, scale: 1.0 };
                let between = (parts * len) as usize;
                let first = Call::Matmul(first);
                Some(Parted { first, reads: usize::MAX, between, second: Call::Sum(sum), again: false })
            }
            (Call::Norm(norm), Variant::Norm(body)) => {
                let [stats, apply] = norm.parted(body)?;
                let reads = if norm.kernel == norm::Kernel::GroupNorm { 1 } else { usize::MAX };
                let (between, first) = (stats.stats(), Call::Group(stats));
                Some(Parted { first, reads, between, second: Call::Group(apply), again: true })
            }
            _ => None,
        }
    }
}

impl Planner<'_> {
    /// The two commands, where there are two and no argument of theirs exceeds a binding.
    pub(super) fn parted(&mut self, whole: &Command) -> Result<Option<[Command; 2]>> {
        let Some(parted) = Parted::of(&whole.call, &whole.variant) else { return Ok(None) };
        let scratch = self.scratch(parted.between);
        let (out, inputs) = whole.args.split_last().ok_or_else(|| Error::Graph("no output".into()))?;
        let mut first: Vec<Slot> = inputs.iter().copied().take(parted.reads).collect();
        first.push(scratch);
        let mut second = if parted.again { inputs.to_vec() } else { Vec::new() };
        second.extend([scratch, *out]);
        let commands = [
            self.part(whole, parted.first, first, whole.flops)?,
            self.part(whole, parted.second, second, parted.between as u64)?,
        ];
        let fits = |c: &Command| {
            let kinds = c.variant.bindings();
            c.args.iter().zip(&kinds).all(|(s, (_, kind))| kind.bytes(s.len) as u64 <= self.caps.max_binding)
        };
        Ok(commands.iter().all(fits).then_some(commands))
    }

    fn part(&self, whole: &Command, call: Call, args: Vec<Slot>, flops: u64) -> Result<Command> {
        let variant = match call {
            Call::Matmul(_) => whole.variant,
            _ => {
                let plain = |s: &Slot| Operand { len: s.len, stored: Stored::F32, frozen: false };
                let operands: Vec<Operand> = args.iter().map(plain).collect();
                choose::body(&call, &operands, self.caps, true)?
            }
        };
        Ok(Command { call, variant, args, flops, ..whole.clone() })
    }
}
