//! The comparison: an executor against the twins, command by command, each from the very numbers that the executor itself
//! produced before; so every bound is that of one kernel and nothing accumulates. Then the plan as it is used, with its
//! shared memory, must give the same bits.
use crate::bound::bounds;
use crate::real::{EPS, Real};
use pentimento_runtime::exec::{Executor, PlanId, operands};
use pentimento_runtime::plan::{Named, Place, Plan, Slot};
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

/// A value of the wide plan: the range of the plan's arena that it stands for.
struct Range {
    slab: usize,
    start: u64,
    end: u64,
    /// Kernel, output and command that wrote it last.
    by: (&'static str, usize, usize),
}

/// Where a slot of the plan's arena lies now: in the latest range that holds it.
fn place(ranges: &[Range], slot: &Slot) -> Place {
    let Place::Arena { slab, offset } = slot.place else { return slot.place };
    let end = offset + 4 * slot.len as u64;
    let holds = |r: &Range| r.slab == slab && r.start <= offset && end <= r.end;
    match ranges.iter().rposition(holds) {
        Some(i) => Place::Arena { slab: i, offset: offset - ranges[i].start },
        None => Place::Absent,
    }
}

/// The same commands with every value in a slab of its own, all readable: slab i is named `i`. Pieces of one command
/// write one value. Also tells where each output of the plan lies at the end.
pub fn widen(plan: &Plan) -> (Plan, Vec<Slot>) {
    let mut wide = plan.clone();
    let mut ranges: Vec<Range> = Vec::new();
    for (i, c) in wide.commands.iter_mut().enumerate() {
        let kernel = c.variant.kernel();
        let split = c.args.len() - c.variant.outputs();
        for arg in &mut c.args[..split] {
            arg.place = place(&ranges, arg);
        }
        for (j, arg) in c.args[split..].iter_mut().enumerate() {
            let Place::Arena { slab, offset } = arg.place else { continue };
            if c.first > 0 && c.together == 1 {
                // Another dispatch of the same work.
                arg.place = place(&ranges, arg);
                if let Place::Arena { slab, .. } = arg.place {
                    ranges[slab].by.2 = i;
                }
                continue;
            }
            let end = offset + 4 * arg.len as u64;
            // A piece goes on where the piece before it ended.
            let before = |r: &&mut Range| {
                r.slab == slab && r.end == offset && (r.by.0, r.by.1, r.by.2 + 1) == (kernel, j, i)
            };
            match ranges.iter_mut().rev().find(before) {
                Some(r) => (r.end, r.by.2) = (end, i),
                None => ranges.push(Range { slab, start: offset, end, by: (kernel, j, i) }),
            }
            arg.place = place(&ranges, arg);
        }
    }
    wide.slabs = ranges.iter().map(|r| (r.end - r.start).max(16)).collect();
    wide.outputs.clear();
    for (slab, r) in ranges.iter().enumerate() {
        let len = (r.end - r.start) as usize / 4;
        let slot = Slot { place: Place::Arena { slab, offset: 0 }, len };
        wide.outputs.push(Named { name: slab.to_string(), shape: vec![len], slot });
    }
    let finals = plan.outputs.iter().map(|o| Slot { place: place(&ranges, &o.slot), ..o.slot }).collect();
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
    slabs: Vec<Vec<f32>>,
    /// What the plan's only quantised weight was written out as.
    unpacked: Vec<f32>,
}

impl Seen<'_> {
    fn get(&self, slot: &Slot) -> &[f32] {
        let named = |name: &str| self.data.get(name).map_or(&[][..], Vec::as_slice);
        let (numbers, from) = match slot.place {
            Place::Absent => return &[],
            Place::Arena { slab, offset } => (self.slabs.get(slab).map_or(&[][..], Vec::as_slice), offset),
            Place::Unpacked => (self.unpacked.as_slice(), 0),
            Place::Leaf(i) => (named(&self.plan.leaves[i].name), 0),
            Place::Input(offset) => {
                let of = |i: &&Named| matches!(i.slot.place, Place::Input(o) if o <= offset && offset < o + 4 * i.slot.len as u64);
                match self.plan.inputs.iter().find(of) {
                    Some(Named { name, slot: Slot { place: Place::Input(o), .. }, .. }) => {
                        (named(name), offset - o)
                    }
                    _ => return &[],
                }
            }
        };
        let from = from as usize / 4;
        numbers.get(from..from + slot.len).unwrap_or(&[])
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
    let text = |e: pentimento_runtime::Error| e.to_string();
    let (wide, finals) = widen(&plan);
    let mut given = wide.clone();
    spoil(&mut given);
    let id = exec.prepare(given).map_err(text)?;
    fill(exec, id, &wide, data)?;
    let slabs: Result<Vec<_>, _> = wide.outputs.iter().map(|o| exec.peek(id, &o.name)).collect();
    let slots = wide.commands.iter().flat_map(|c| &c.args);
    let unpacked = slots.filter(|s| s.place == Place::Unpacked).max_by_key(|s| s.len);
    let unpacked = unpacked.map_or(Ok(Vec::new()), |slot| exec.argument(id, slot)).map_err(text)?;
    // Plans share memory: what is left there of the right results must not stand in for what a wrong plan does not write.
    exec.forget(id).map_err(text)?;
    let seen = Seen { plan: &wide, data, slabs: slabs.map_err(text)?, unpacked };
    let mut steps = Vec::with_capacity(wide.commands.len());
    for (i, c) in wide.commands.iter().enumerate().filter(|(_, c)| c.last) {
        let split = c.args.len() - c.variant.outputs();
        let given: Vec<&[f32]> = c.args[..split].iter().map(|s| seen.get(s)).collect();
        let rounded = operands(&c.variant, &given);
        let inputs: Vec<&[f32]> = rounded.iter().map(AsRef::as_ref).collect();
        let mut want: Vec<Vec<f32>> = c.args[split..].iter().map(|s| vec![0.0; s.len]).collect();
        twin(&c.call, &inputs, &mut want);
        let got: Vec<&[f32]> = c.args[split..].iter().map(|s| seen.get(s)).collect();
        let limits = if overflow(&given, &inputs) {
            Some(want.iter().map(|w| vec![Real::free(); w.len()]).collect())
        } else {
            bounds(&c.variant, &c.call, &inputs)
        };
        let step = compare(c.variant, &want, &got, limits.as_deref())
            .map_err(|e| format!("command {i}, {} {:?}: {e}", c.variant.entry(), c.call))?;
        steps.push(step);
    }
    let used = exec.prepare(plan.clone()).map_err(text)?;
    fill(exec, used, &plan, data)?;
    let got: Result<Vec<_>, _> = plan.outputs.iter().map(|o| exec.peek(used, &o.name)).collect();
    exec.forget(used).map_err(text)?;
    for ((output, slot), got) in plan.outputs.iter().zip(&finals).zip(got.map_err(text)?) {
        same_bits(seen.get(slot), &got).map_err(|e| format!("output `{}`: {e}", output.name))?;
    }
    Ok(steps)
}

/// Whether rounding to f16 made a number infinite: nothing is promised then.
fn overflow(given: &[&[f32]], rounded: &[&[f32]]) -> bool {
    let pairs = given.iter().zip(rounded).flat_map(|(a, b)| a.iter().zip(*b));
    pairs.into_iter().any(|(a, b)| a.is_finite() && !b.is_finite())
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
            return Err(format!(
                "{} numbers, expected {} ({} limits)",
                got.len(),
                want.len(),
                limits[j].len()
            ));
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
    Some(if worst == 0.0 {
        0.0
    } else if limit == 0.0 {
        f64::INFINITY
    } else {
        worst / limit
    })
}
