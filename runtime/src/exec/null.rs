//! Counts what a plan would do, without doing it; and the checks all executors share.
mod exec;

pub use exec::{Null, Ran};

use crate::plan::{Command, Named, Place, Plan};
use crate::weights::DType;
use crate::{Error, Result};
use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use pentimento_wgsl::Stored;

/// Exact counts of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Kernel launches.
    pub dispatches: usize,
    /// Floating-point operations (a multiply-add is two).
    pub flops: u64,
    /// Arena and inputs, bytes.
    pub bytes: u64,
    /// Weights and parameters read, in elements.
    pub leaf_elements: u64,
}

/// Counts a plan.
pub fn count(plan: &Plan) -> Count {
    Count {
        dispatches: plan.dispatches(),
        flops: plan.flops,
        bytes: plan.bytes(),
        leaf_elements: plan.leaves.iter().map(|l| l.shape.iter().product::<usize>() as u64).sum(),
    }
}

/// Bytes of a command's operands and results as they are stored, each counted once. `stored` as for [`Plan::new`].
pub fn moved(plan: &Plan, c: &Command, stored: &dyn Fn(&str) -> Stored) -> u64 {
    let kind = |place: Place| place.stored(|i| stored(&plan.leaves[i].name));
    c.args.iter().map(|slot| kind(slot.place).bytes(slot.len) as u64).sum()
}

/// Bytes of a file as f32.
pub(crate) fn widen(stored: Stored, bytes: &[u8]) -> Result<Vec<f32>> {
    DType::from(stored).decode(bytes)
}

/// Every leaf of a plan has been set, with as many elements as the plan expects.
pub(crate) fn check_leaves(plan: &Plan, len: &dyn Fn(&str) -> Option<usize>) -> Result<()> {
    for leaf in &plan.leaves {
        let want: usize = leaf.shape.iter().product();
        match len(&leaf.name) {
            None => return Err(Error::missing("executor", format!("`{}`", leaf.name))),
            Some(n) if n != want => {
                return Err(Error::bad(
                    format!("`{}`", leaf.name),
                    format!("{want} numbers"),
                    format!("{n}"),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Byte offset of an input of `len` numbers.
pub(crate) fn input_offset(plan: &Plan, name: &str, len: usize) -> Result<u64> {
    let input = plan.inputs.iter().find(|i| i.name == name);
    let input = input.ok_or_else(|| Error::missing("plan", format!("input `{name}`")))?;
    if input.slot.len != len {
        return Err(Error::bad(
            format!("input `{name}`"),
            format!("{} numbers ({:?})", input.slot.len, input.shape),
            len.to_string(),
        ));
    }
    match input.slot.place {
        Place::Input(offset) => Ok(offset),
        _ => Err(Error::missing("plan", format!("input `{name}`"))),
    }
}

/// An output by name.
pub(crate) fn output<'a>(plan: &'a Plan, name: &str) -> Result<&'a Named> {
    let found = plan.outputs.iter().find(|o| o.name == name);
    found.ok_or_else(|| Error::missing("plan", format!("output `{name}`")))
}

/// Bytes of leaves by component, see [`crate::exec::Executor::components`].
pub(crate) fn by_component<'a>(leaves: impl Iterator<Item = (&'a String, u64)>) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (name, bytes) in leaves {
        let component = name.split_once('/').map_or(name.as_str(), |(component, _)| component);
        *all.entry(component.to_string()).or_insert(0) += bytes;
    }
    all
}

/// Whether a leaf that is there may be set anew: as often as one likes, but to as many numbers, stored as before.
pub(crate) fn check_set(name: &str, old: (Stored, usize), new: (Stored, usize)) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let expected = format!("{} numbers as {:?}", old.1, old.0);
    Err(Error::bad(format!("`{name}`"), expected, format!("{} as {:?}", new.1, new.0)))
}

/// Whether a leaf that is there may be set as one that stays on the host: where it is, it stays.
pub(crate) fn check_hosted(name: &str, hosted: bool) -> Result<()> {
    if hosted {
        return Ok(());
    }
    let error = Error::bad(format!("`{name}`"), "a leaf that stays on the host", "one that is on the device");
    Err(error.with_hint("Forget it before it is streamed."))
}
