//! Quantised weights. A body that reads a matrix once reads its blocks; for all others they are written out by a command of
//! their own, right before the product: in f16 where the product rounds to it anyway, so that nothing is lost, else in f32. Forward and
//! backward do the same, and one room serves all weights of a plan.
use super::{Command, Place, Planner, Slot, choose};
use crate::Result;
use alloc::vec;
use pentimento_wgsl::kernel::blocks::{self, Unpacked};
use pentimento_wgsl::kernel::{Operand, Rounding};
use pentimento_wgsl::{Call, Stored};

impl Planner<'_> {
    /// Writes out a product's second factor where it has to be; returns where, which is taken until the product is done.
    pub(super) fn unpack(
        &mut self,
        call: &Call,
        inputs: &mut [Slot],
        operands: &mut [Operand],
        exact: bool,
    ) -> Result<Option<Slot>> {
        let Some(&packed) = operands.get(1).filter(|b| b.stored.plain().is_none()) else { return Ok(None) };
        if choose::body(call, operands, self.caps, exact).is_ok() {
            return Ok(None);
        }
        operands[1].stored = Stored::F16;
        let to = match choose::body(call, operands, self.caps, exact)?.rounding() {
            Rounding::Half { .. } => Unpacked::F16,
            Rounding::None => Unpacked::F32,
        };
        operands[1].stored = to.stored();
        let bytes = to.stored().bytes(packed.len) as u64;
        let place = match to {
            Unpacked::F16 => {
                self.plan.unpacked = self.plan.unpacked.max(bytes);
                Place::Unpacked
            }
            Unpacked::F32 => {
                let (slab, offset) = self.arena.take(bytes);
                Place::Arena { slab, offset }
            }
        };
        let out = Slot { place, len: packed.len };
        let call = Call::Blocks(blocks::Call { params: blocks::Params { n: packed.len as u32 }, to });
        let variant = choose::body(&call, &[packed], self.caps, true)?;
        let args = vec![core::mem::replace(&mut inputs[1], out), out];
        let whole = Command {
            call,
            variant,
            args,
            groups: [1, 1],
            first: 0,
            last: true,
            flops: packed.len as u64,
            shape: vec![packed.len],
        };
        let commands = self.fitting(whole)?;
        self.push(commands)?;
        self.plan.flops += packed.len as u64;
        Ok(Some(out))
    }
}
