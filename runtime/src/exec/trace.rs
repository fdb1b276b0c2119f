//! Where numbers that are none came from: a plan whose output has some runs once more, command by command.
use super::{Executor, PlanId};
use crate::plan::{Command, Place, Plan};
use crate::{Error, Result};
use alloc::{format, string::String, vec::Vec};

/// The first number that is NaN or infinite, and its place.
pub fn wild(x: &[f32]) -> Option<(usize, f32)> {
    x.iter().copied().enumerate().find(|(_, v)| !v.is_finite())
}

/// Accepts finite numbers; `what` names them.
///
/// # Errors
/// [`Error::NotFinite`] with the first other one.
pub fn finite(what: &str, x: &[f32]) -> Result<()> {
    wild(x).map_or(Ok(()), |(i, v)| Err(Error::not_finite(what, number(i, v))))
}

fn number(i: usize, v: f32) -> String {
    format!("{v} at number {i}")
}

/// Accepts an output's numbers, or tells where the first that is none comes from.
pub(super) fn accept<E: Executor + ?Sized>(
    exec: &mut E,
    plan: PlanId,
    output: &str,
    x: &[f32],
) -> Result<()> {
    let Some((i, v)) = wild(x) else { return Ok(()) };
    let (origin, advice) = trace(exec, plan)?;
    Err(Error::not_finite(format!("`{output}`"), format!("{}; {origin}", number(i, v))).with_hint(advice))
}

const GREW: &str = "They grew too large: use less guidance, a weaker adapter or a smaller learning rate.";
const STORED: &str = "The file is damaged, or was saved after its training had diverged.";

/// Where the first such number comes from, in words, and what to do.
fn trace<E: Executor + ?Sized>(exec: &mut E, plan: PlanId) -> Result<(String, &'static str)> {
    let inputs = exec.plan(plan).inputs.clone();
    for input in &inputs {
        if let Some((i, v)) = wild(&exec.argument(plan, &input.slot)?) {
            return Ok((format!("its input `{}` holds {}", input.name, number(i, v)), GREW));
        }
    }
    let commands = exec.plan(plan).commands.clone();
    exec.rewind(plan);
    for (index, c) in commands.iter().enumerate() {
        exec.one(plan)?;
        if !c.last {
            continue;
        }
        let results = &c.args[c.args.len() - c.variant.outputs()..];
        for slot in results {
            if let Some((i, v)) = wild(&exec.argument(plan, slot)?) {
                let (first, all) = (index + 1, commands.len());
                let here = format!("the first is {} in the result of command {first} of {all}", number(i, v));
                let (what, advice) = blame(exec, plan, c)?;
                return Ok((format!("{here}, {what}"), advice));
            }
        }
    }
    Ok(("a repetition of the plan has none".into(), "The device may be unreliable."))
}

/// The command in words; with a tensor of its own that holds such a number, that one.
fn blame<E: Executor + ?Sized>(exec: &mut E, plan: PlanId, c: &Command) -> Result<(String, &'static str)> {
    let what = format!("{} to {:?}", c.variant.entry(), c.shape);
    for slot in &c.args {
        let Place::Leaf(leaf) = slot.place else { continue };
        if let Some((i, v)) = wild(&exec.argument(plan, slot)?) {
            let name = exec.plan(plan).leaves[leaf].name.clone();
            return Ok((format!("{what}, which reads {} of `{name}`", number(i, v)), STORED));
        }
    }
    let names = leaves(exec.plan(plan), c);
    let with = if names.is_empty() { String::new() } else { format!(" with {}", names.join(", ")) };
    Ok((format!("{what}{with}"), GREW))
}

/// Names of the weights and parameters that a command reads.
pub(super) fn leaves(plan: &Plan, c: &Command) -> Vec<String> {
    let name = |place| match place {
        Place::Leaf(i) => plan.leaves.get(i).map(|l| l.name.clone()),
        _ => None,
    };
    c.args.iter().filter_map(|slot| name(slot.place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::cpu::Cpu;
    use crate::exec::{LeafData, compile};
    use crate::graph::{Graph, Layout};
    use alloc::string::ToString;

    /// `w * exp(x)`, twice.
    fn sentence(w: [f32; 2], x: [f32; 2]) -> Option<String> {
        let mut exec = Cpu::new();
        exec.set_leaf("part/w", LeafData::F32(&w)).unwrap();
        let mut g = Graph::new();
        let (a, w) = (g.input("x", &[2]), g.weight("part/w", &[2], Layout::Plain));
        let e = g.unary(pentimento_wgsl::kernel::Unary::Exp, a);
        let y = g.mul(e, w);
        let plan = compile(&mut exec, g, &[("y", y)]).unwrap();
        exec.write(plan, "x", &x).unwrap();
        exec.run(plan).unwrap();
        exec.read(plan, "y").err().map(|e| e.to_string())
    }

    #[test]
    fn the_first_number_that_is_none_is_named() {
        assert_eq!(sentence([1.0, 2.0], [0.0, 1.0]), None);
        let weight = sentence([1.0, f32::NAN], [0.0, 1.0]).unwrap();
        assert!(weight.starts_with("`y`: expected finite numbers, found NaN at number 1"), "{weight}");
        assert!(weight.contains("NaN at number 1 of `part/w`") && weight.contains("damaged"), "{weight}");
        let input = sentence([1.0, 2.0], [f32::INFINITY, 1.0]).unwrap();
        assert!(input.contains("input `x` holds inf at number 0"), "{input}");
        let grown = sentence([1.0, 2.0], [0.0, 100.0]).unwrap();
        assert!(grown.contains("command 1 of") && grown.contains("guidance"), "{grown}");
    }
}
