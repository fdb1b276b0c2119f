//! Quantised weights. A body that reads a matrix once reads its blocks; for all others they are written out by a command of
//! their own, right before the product: in f16 where the product rounds to it anyway, so that nothing is lost, else in f32. Forward and
//! backward do the same, and one room serves all weights of a plan.
use super::dispatch::dispatches;
use super::{Command, Place, Planner, Slot, choose};
use crate::Result;
use alloc::vec;
use pentimento_wgsl::kernel::blocks::{self, Unpacked};
use pentimento_wgsl::kernel::{Operand, Rounding};
use pentimento_wgsl::{Call, Stored};

impl Planner<'_> {
    /// Writes out a product's second factor where it has to be, into room that is taken until the product's commands are closed; whether
    /// it did.
    pub(super) fn unpack(
        &mut self,
        call: &Call,
        inputs: &mut [Slot],
        operands: &mut [Operand],
        exact: bool,
    ) -> Result<bool> {
        let Some(&packed) = operands.get(1).filter(|b| b.stored.plain().is_none()) else { return Ok(false) };
        if choose::body(call, operands, self.caps, exact).is_ok() {
            return Ok(false);
        }
        self.close()?; // what it writes may be what an open command reads
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
            Unpacked::F32 => self.scratch(packed.len).place,
        };
        let out = Slot { place, len: packed.len };
        let call = Call::Blocks(blocks::Call { params: blocks::Params { n: packed.len as u32 }, to });
        let variant = choose::body(&call, &[packed], self.caps, true)?;
        let args = vec![core::mem::replace(&mut inputs[1], out), out];
        let (flops, shape) = (packed.len as u64, vec![packed.len]);
        let whole = Command { args, shape, ..Command::new(call, variant, flops) };
        for piece in self.fitting(whole)? {
            self.plan.commands.extend(dispatches(piece, self.caps)?);
        }
        self.plan.flops += packed.len as u64;
        Ok(true)
    }
}
