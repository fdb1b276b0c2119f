//! Which body a call gets, and how its workgroups lie. Families rank their bodies (`Call::ranked`); an adapter takes the
//! first one that it has what is needed for and whose loops end in time: some drivers end long ones early
//! ([`Caps::max_iterations`]).
use crate::caps::Caps;
use crate::{Error, Result};
use alloc::format;
use pentimento_wgsl::kernel::Operand;
use pentimento_wgsl::{Call, Variant};

/// The best body; of those that compute in f32, where that is asked for.
pub(super) fn body(call: &Call, inputs: &[Operand], caps: &Caps, exact: bool) -> Result<Variant> {
    let (mut able, most) = (caps.abilities(), u64::from(caps.max_iterations));
    able.matrix = able.matrix.filter(|_| !exact);
    let mut ranked = call.ranked(inputs, &able);
    ranked.retain(|v| able.hold(&v.needs()));
    if let Some(&v) = ranked.iter().find(|v| call.iterations(v) <= most) {
        return Ok(v);
    }
    let name = call.kernel();
    let reason = match ranked.first() {
        Some(v) => format!(
            "{name} would loop {} times, but this driver ends loops after {most}; use a smaller image or batch, or another adapter",
            call.iterations(v)
        ),
        None => format!(
            "no body of {name} runs with so little workgroup memory and so few invocations; use another adapter"
        ),
    };
    Err(Error::Device { device: caps.name.clone(), reason })
}
