//! A plan several times over, each with inputs and memory of its own, so that every command shares its dispatch with its like. What a
//! planner puts together is chance; this reaches every kernel.
use pentimento_runtime::caps::Caps;
use pentimento_runtime::plan::{Command, Place, Plan, Slot};
use pentimento_wgsl::together::shareable;

/// The name of a plan's input or output in a copy of it.
pub fn name(own: &str, copy: usize) -> String {
    if copy == 0 { own.into() } else { format!("{own}@{copy}") }
}

/// `copies` of a plan in one. Commands that cannot share a dispatch, being cut, or packing or reading texels, or having more bindings than
/// the device takes, have their own.
pub fn beside(plan: &Plan, copies: usize, caps: &Caps) -> Plan {
    let moved = |slot: &Slot, copy: usize| {
        let copy = copy as u64;
        let place = match slot.place {
            Place::Arena { slab, offset } => Place::Arena { slab, offset: offset + copy * plan.slabs[slab] },
            Place::Input(offset) => Place::Input(offset + copy * plan.input_bytes),
            place @ (Place::Absent | Place::Leaf(_) | Place::Unpacked) => place,
        };
        Slot { place, ..*slot }
    };
    let mut all = plan.clone();
    all.commands.clear();
    for c in &plan.commands {
        let bindings = shareable(&c.variant).map(|n| n * copies as u32);
        let alone = c.first > 0 || !c.last || bindings.is_none_or(|n| n > caps.storage_bindings);
        let own = c.call.groups(&c.variant);
        let groups = [own * copies, 1].map(|n| n as u32);
        all.commands.extend((0..copies).map(|copy| {
            let args = c.args.iter().map(|slot| moved(slot, copy)).collect();
            let one = Command { args, ..c.clone() };
            match copy {
                _ if alone => one,
                0 => Command { together: copies as u32, groups, ..one },
                _ => {
                    let first = 0u32.wrapping_sub((own * copy) as u32);
                    Command { first, together: 0, groups: [0, 0], ..one }
                }
            }
        }));
    }
    all.slabs.iter_mut().for_each(|bytes| *bytes *= copies as u64);
    all.input_bytes *= copies as u64;
    for named in [&mut all.inputs, &mut all.outputs] {
        let own = named.clone();
        for copy in 1..copies {
            named.extend(own.iter().map(|n| {
                let mut n = n.clone();
                (n.name, n.slot) = (name(&n.name, copy), moved(&n.slot, copy));
                n
            }));
        }
    }
    all
}
