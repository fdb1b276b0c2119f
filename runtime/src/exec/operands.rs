//! What bodies on cooperative matrices make of their operands.
use alloc::borrow::Cow;
use alloc::vec::Vec;
use half::f16;
use pentimento_wgsl::kernel::Rounding;
use pentimento_wgsl::{Real, Variant};

/// A command's inputs as its body's products see them, which is what its twin has to be given.
pub fn operands<'a, R: Real>(variant: &Variant, inputs: &[&'a [R]]) -> Vec<Cow<'a, [R]>> {
    let halves = match variant.rounding() {
        Rounding::None => 0,
        Rounding::Half { operands, .. } => operands,
    };
    let half = |x: &&[R]| x.iter().map(|v| R::narrow(f16::from_f64(v.wide()).to_f64())).collect();
    let one = |(i, x): (usize, &&'a [R])| if i < halves { Cow::Owned(half(x)) } else { Cow::Borrowed(*x) };
    inputs.iter().enumerate().map(one).collect()
}
