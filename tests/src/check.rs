//! The comparison: an executor against the twins, command by command, each from the very numbers that the executor itself
//! produced before; so every bound is that of one kernel and nothing accumulates. Then the plan as it is used, with its
//! shared memory, must give the same bits.
use crate::bound::bounds;
use crate::real::{EPS, Real};
use pentimento::exec::{Executor, PlanId};
use pentimento::plan::{Named, Place, Plan, Slot};
use pentimento_wgsl::{Variant, twin};
use std::collections::BTreeMap;

/// Numbers of a plan's inputs and leaves by name.
pub type Data = BTreeMap<String, Vec<f32>>;

/// One command's comparison.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel as built.
    pub variant: Variant,
    /// Worst error as a share of its limit.
    pub worst: f64,
    /// Numbers compared.
    pub numbers: usize,
    /// Numbers for which the specification promises nothing (overflow on the way, a NaN compared).
    pub free: usize,
}

/// The same commands with every output in a place of its own, all readable: outputs of command i are named `i.0`, `i.1`.
/// Also tells where each output of the plan lies at the end.
pub fn widen(plan: &Plan, alignment: u64) -> (Plan, Vec<Slot>) {
    let mut wide = plan.clone();
    let mut now = BTreeMap::new();
    let mut end = 0;
    wide.outputs.clear();
    let place = |now: &BTreeMap<(usize, u64), Place>, slot: &Slot| match slot.place {
        Place::Arena { slab, offset } => now.get(&(slab, offset)).copied().unwrap_or(Place::Absent),
        other => other,
    };
    for (i, c) in wide.commands.iter_mut().enumerate() {
        let split = c.args.len() - c.variant.kernel.outputs();
        for arg in &mut c.args[..split] {
            arg.place = place(&now, arg);
        }
        for (j, arg) in c.args[split..].iter_mut().enumerate() {
            let Place::Arena { slab, offset } = arg.place else { continue };
            arg.place = Place::Arena { slab: 0, offset: end };
            now.insert((slab, offset), arg.place);
            end += (4 * arg.len as u64).max(16).next_multiple_of(alignment.max(16));
            wide.outputs.push(Named { name: format!("{i}.{j}"), shape: vec![arg.len], slot: *arg });
        }
    }
    wide.slabs = vec![end.max(16)];
    let finals = plan.outputs.iter().map(|o| Slot { place: place(&now, &o.slot), ..o.slot }).collect();
    (wide, finals)
}

fn fill(exec: &mut dyn Executor, id: PlanId, plan: &Plan, data: &Data) -> Result<(), String> {
    for input in &plan.inputs {
        let numbers = data.get(&input.name).ok_or_else(|| format!("no numbers for `{}`", input.name))?;
        exec.write(id, &input.name, numbers).map_err(|e| e.to_string())?;
    }
    exec.run(id).map_err(|e| e.to_string())
}

/// Where the numbers of a finished wide plan are.
struct Seen<'a> {
    plan: &'a Plan,
    data: &'a Data,
    arena: BTreeMap<u64, Vec<f32>>,
}

impl Seen<'_> {
    fn get(&self, slot: &Slot) -> &[f32] {
        let named = |name: &str| self.data.get(name).map_or(&[][..], Vec::as_slice);
        match slot.place {
            Place::Absent => &[],
            Place::Arena { offset, .. } => self.arena.get(&offset).map_or(&[], Vec::as_slice),
            Place::Leaf(i) => named(&self.plan.leaves[i].name),
            Place::Input(_) => {
                let input = self.plan.inputs.iter().find(|i| i.slot.place == slot.place);
                input.map_or(&[], |i| named(&i.name))
            }
        }
    }
}

/// Compares a plan on an executor whose leaves hold `data`.
///
/// # Errors
/// The first number outside its bound, or bits that differ between the plan and its wide form.
pub fn check(exec: &mut dyn Executor, plan: Plan, data: &Data) -> Result<Vec<Step>, String> {
    check_spoiled(exec, plan, data, |_| {})
}

/// As [`check`], but the executor gets a plan that `spoil` has changed: for proving that the check can fail.
///
/// # Errors
/// As [`check`].
pub fn check_spoiled(
    exec: &mut dyn Executor,
    plan: Plan,
    data: &Data,
    spoil: impl Fn(&mut Plan),
) -> Result<Vec<Step>, String> {
    let text = |e: pentimento::Error| e.to_string();
    let (wide, finals) = widen(&plan, exec.caps().alignment);
    let mut given = wide.clone();
    spoil(&mut given);
    let id = exec.prepare(given).map_err(text)?;
    fill(exec, id, &wide, data)?;
    let mut seen = Seen { plan: &wide, data, arena: BTreeMap::new() };
    for o in &wide.outputs {
        if let Place::Arena { offset, .. } = o.slot.place {
            seen.arena.insert(offset, exec.read(id, &o.name).map_err(text)?);
        }
    }
    let mut steps = Vec::with_capacity(wide.commands.len());
    for (i, c) in wide.commands.iter().enumerate() {
        let split = c.args.len() - c.variant.kernel.outputs();
        let inputs: Vec<&[f32]> = c.args[..split].iter().map(|s| seen.get(s)).collect();
        let mut want: Vec<Vec<f32>> = c.args[split..].iter().map(|s| vec![0.0; s.len]).collect();
        twin(c.variant.kernel, &c.params, &inputs, &mut want);
        let got: Vec<&[f32]> = c.args[split..].iter().map(|s| seen.get(s)).collect();
        let limits = bounds(&c.variant, &c.params, &inputs);
        let step = compare(c.variant, &want, &got, limits.as_deref())
            .map_err(|e| format!("command {i}, {} {:?}: {e}", c.variant.entry(), c.params))?;
        steps.push(step);
    }
    let used = exec.prepare(plan.clone()).map_err(text)?;
    fill(exec, used, &plan, data)?;
    for (output, slot) in plan.outputs.iter().zip(&finals) {
        let got = exec.read(used, &output.name).map_err(text)?;
        same_bits(seen.get(slot), &got).map_err(|e| format!("output `{}`: {e}", output.name))?;
    }
    Ok(steps)
}

/// Equal bits, or NaN on both sides.
///
/// # Errors
/// The first difference.
pub fn same_bits(want: &[f32], got: &[f32]) -> Result<(), String> {
    if want.len() != got.len() {
        return Err(format!("{} numbers, expected {}", got.len(), want.len()));
    }
    match want.iter().zip(got).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan())) {
        Some(i) => Err(format!("[{i}] is {:e}, expected exactly {:e}", got[i], want[i])),
        None => Ok(()),
    }
}

/// Compares one command's outputs with the twin's.
///
/// # Errors
/// The first number outside its limit.
pub fn compare(
    variant: Variant,
    want: &[Vec<f32>],
    got: &[&[f32]],
    limits: Option<&[Vec<Real>]>,
) -> Result<Step, String> {
    let mut step = Step { variant, worst: 0.0, numbers: 0, free: 0 };
    for (j, (want, got)) in want.iter().zip(got).enumerate() {
        step.numbers += want.len();
        let Some(limits) = limits else {
            same_bits(want, got).map_err(|e| format!("output {j}{e}"))?;
            continue;
        };
        if want.len() != got.len() || want.len() != limits[j].len() {
            return Err(format!("{} numbers, expected {} ({} limits)", got.len(), want.len(), limits[j].len()));
        }
        for (i, (&w, &g)) in want.iter().zip(*got).enumerate() {
            let r = limits[j][i];
            match share(r, w, g) {
                None => step.free += 1,
                // Accept, never reject: NaN must fail.
                Some(s) if s <= 1.0 => step.worst = step.worst.max(s),
                Some(_) => {
                    return Err(format!(
                        "output {j}[{i}] is {g:e}, expected {w:e} within {:.3e} (formula: {:e})",
                        limit(r, w),
                        r.v
                    ));
                }
            }
        }
    }
    Ok(step)
}

/// A twin computes in f64 and rounds once, to the nearest f32: half of [`EPS`], or half of the least subnormal.
fn limit(r: Real, want: f32) -> f64 {
    r.e + 0.5 * EPS * f64::from(want).abs() + 0.5 * f64::from(f32::from_bits(1))
}

/// Error as a share of its limit; `None` where nothing is promised. An input that is not finite must show: a value that
/// is infinite or NaN by the formula has to be so on the executor.
fn share(r: Real, want: f32, got: f32) -> Option<f64> {
    if !r.v.is_finite() {
        return Some(if got.is_finite() { f64::INFINITY } else { 0.0 });
    }
    if !r.e.is_finite() {
        return None;
    }
    let limit = limit(r, want);
    // The formula and the twin are two transcriptions of one thing: both are held to the limit.
    let err = (f64::from(got) - f64::from(want)).abs();
    let twin = (f64::from(want) - r.v).abs();
    if err.is_nan() || twin.is_nan() {
        return Some(f64::NAN);
    }
    let worst = err.max(twin);
    Some(if worst == 0.0 { 0.0 } else if limit == 0.0 { f64::INFINITY } else { worst / limit })
}
