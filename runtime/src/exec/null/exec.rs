//! The executor that computes nothing.
use super::{by_component, check_hosted, check_set, input_offset, output};
use crate::caps::Caps;
use crate::exec::memory::{self, LARGE_UPLOAD, Sizes};
use crate::exec::plans::{self, Plans};
use crate::exec::stream::{Rules, Stream, WINDOW};
use crate::exec::texels::Texels;
use crate::exec::{Executor, Home, LeafData, Memory, PlanId};
use crate::plan::{Place, Plan, Slot};
use crate::weights::Shared;
use crate::{Error, Result};
use alloc::{borrow::ToOwned, collections::BTreeMap, format, string::String, vec, vec::Vec};
use pentimento_wgsl::Stored;

/// Counts memory and work as the wgpu executor would have them on an adapter of these limits, and computes nothing: what is read is zeros.
/// Weights need not be read for it, see [`Executor::declare`], so a training of a large model runs on it in the time that planning takes.
pub struct Null {
    caps: Caps,
    leaves: BTreeMap<String, Counted>,
    plans: Plans<Own>,
    memory: Memory,
    flops: u64,
    streamed: u64,
    window: u64,
}

struct Counted {
    kind: Stored,
    len: usize,
    home: Home,
    /// Whether a command has read it as texels.
    texels: bool,
}

impl Counted {
    /// Bytes on the device.
    fn bytes(&self) -> u64 {
        match self.home {
            Home::Device => memory::leaf(self.kind, self.len),
            Home::Host => 0,
        }
    }
    /// Bytes that come from the host for a plan; `None` where they are on the device.
    fn streamed(&self) -> Option<u64> {
        (self.home == Home::Host).then(|| memory::leaf(self.kind, self.len))
    }
}

#[derive(Default)]
struct Own {
    ran: Ran,
    texels: Texels,
    /// Commands whose textures are there.
    built: usize,
}

/// What a plan has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Runs to the last command.
    pub runs: u64,
    /// Floating-point operations of all commands that ran.
    pub flops: u64,
}

impl Null {
    /// An empty executor that plans for an adapter of these limits.
    pub fn new(caps: Caps) -> Self {
        let (leaves, plans, memory) = (BTreeMap::new(), Plans::default(), Memory::default());
        Null { caps, leaves, plans, memory, flops: 0, streamed: 0, window: WINDOW }
    }
    /// For tests: bytes of a window of streamed weights.
    #[doc(hidden)]
    #[must_use]
    pub fn with_window(self, bytes: u64) -> Self {
        Null { window: bytes, ..self }
    }
    /// What a plan has done so far.
    ///
    /// # Errors
    /// A plan that was forgotten.
    pub fn ran(&self, plan: PlanId) -> Result<Ran> {
        Ok(self.plans.get(plan)?.own.ran)
    }
    /// Floating-point operations of all plans so far, forgotten ones too.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    fn set(&mut self, name: &str, kind: Stored, len: usize, home: Home) -> Result<()> {
        let texels = match self.leaves.get(name) {
            Some(old) => {
                check_set(name, (old.kind, old.len), (kind, len))?;
                if home == Home::Host {
                    check_hosted(name, old.home == Home::Host)?;
                }
                if old.home == Home::Host {
                    return Ok(());
                }
                old.texels
            }
            None => {
                let leaf = Counted { kind, len, home, texels: false };
                self.memory.change(|k| k.leaves += leaf.bytes());
                self.leaves.insert(name.to_owned(), leaf);
                if home == Home::Host {
                    return Ok(());
                }
                false
            }
        };
        self.memory.change(|k| k.staging += memory::upload(kind.bytes(len)));
        if kind.bytes(len) > LARGE_UPLOAD {
            self.memory.now.staging = 0;
        }
        if texels {
            self.memory.change(|k| k.staging += memory::texels(len));
        }
        Ok(())
    }

    fn stream(&self, plan: &Plan) -> Result<Stream> {
        let streamed = |name: &str| self.leaves.get(name).and_then(Counted::streamed);
        let rules = Rules { window: self.window, alignment: self.caps.alignment, streamed: &streamed };
        plans::stream(plan, &rules)
    }

    /// Gives the room its new size; what depends on the old one goes first.
    fn fit(&mut self, to: &Sizes) {
        let change = self.plans.fit(to);
        if change.arena {
            let staged: u64 = self.plans.each_mut().map(|held| held.own.texels.bytes()).sum();
            for held in self.plans.each_mut() {
                (held.own.texels, held.own.built) = (Texels::default(), 0);
            }
            self.memory.change(|k| {
                (k.arena, k.unpacked, k.window) = (0, 0, 0);
                k.textures -= staged;
            });
            self.memory.change(|k| (k.arena, k.unpacked, k.window) = (to.arena(), to.unpacked, to.windows()));
        }
        if change.readback {
            self.memory.change(|k| k.readback = to.readback);
        }
    }

    /// Goes on by `most` commands; true at the end.
    fn forward(&mut self, plan: PlanId, most: usize) -> Result<bool> {
        self.plans.get(plan)?;
        self.fit(&self.plans.wanted());
        let held = self.plans.start(plan)?;
        let (start, all) = (held.cursor, held.plan.commands.len());
        let end = start.saturating_add(most).min(all);
        if held.own.built < all {
            self.memory.now.staging = 0;
        }
        for (at, c) in held.plan.commands.iter().enumerate().take(end).skip(start) {
            if let Some(window) = held.stream.begins(at) {
                self.streamed += window.bytes();
                self.memory.now.staging = 0; // it comes by a submit of its own
            }
            if at < held.own.built {
                continue;
            }
            let before = held.own.texels.bytes();
            for leaf in held.own.texels.run(c, |leaf| held.stream.offset(at, leaf).is_some()) {
                let Some(leaf) = self.leaves.get_mut(&held.plan.leaves[leaf].name) else { continue };
                if !core::mem::replace(&mut leaf.texels, true) {
                    self.memory.change(|k| k.textures += memory::texture(leaf.len));
                    self.memory.now.staging = 0; // the texture is filled by a submit of its own
                }
            }
            self.memory.change(|k| k.textures += held.own.texels.bytes() - before);
        }
        held.own.built = held.own.built.max(end);
        let flops: u64 = held.plan.commands[start..end].iter().map(|c| c.flops).sum();
        held.own.ran.flops += flops;
        held.own.ran.runs += u64::from(end == all && start < all);
        held.cursor = end;
        self.flops += flops;
        self.memory.now.staging = 0;
        Ok(end == all)
    }
}

impl Executor for Null {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn has_leaf(&self, name: &str) -> bool {
        self.leaves.contains_key(name)
    }
    fn stored(&self, name: &str) -> Stored {
        self.leaves.get(name).map_or(Stored::F32, |leaf| leaf.kind)
    }
    fn set_leaf(&mut self, name: &str, data: LeafData<'_>) -> Result<()> {
        match data {
            LeafData::F32(data) => self.set(name, Stored::F32, data.len(), Home::Device),
            LeafData::Packed(kind, bytes) => self.set(name, kind, kind.numbers(bytes.len()), Home::Device),
        }
    }
    fn declare(&mut self, name: &str, stored: Stored, len: usize, home: Home) -> Result<bool> {
        self.set(name, stored, len, home)?;
        Ok(true)
    }
    fn set_streamed(&mut self, name: &str, stored: Stored, len: usize, _: Shared) -> Result<()> {
        self.set(name, stored, len, Home::Host)
    }
    fn streamed(&self) -> u64 {
        self.streamed
    }
    fn work(&self) -> u64 {
        self.flops
    }
    fn memory(&self) -> Memory {
        self.memory
    }
    fn components(&self) -> BTreeMap<String, u64> {
        by_component(self.leaves.iter().map(|(name, leaf)| (name, leaf.bytes())))
    }
    fn forget(&mut self, plan: PlanId) -> Result<()> {
        let held = self.plans.remove(plan)?;
        let blocks = memory::uniform_bytes(&held.plan, &self.caps);
        self.memory.change(|k| {
            k.inputs -= memory::inputs(&held.plan);
            k.uniforms -= memory::uniforms(blocks);
            k.textures -= held.own.texels.bytes();
        });
        self.fit(&self.plans.kept());
        Ok(())
    }
    fn forget_leaves(&mut self, prefix: &str) -> Result<()> {
        self.plans.reads_none(prefix)?;
        let gone = self.leaves.extract_if(.., |name, _| name.starts_with(prefix));
        let (mut buffers, mut textures) = (0, 0);
        for (_, leaf) in gone {
            buffers += leaf.bytes();
            textures += if leaf.texels { memory::texture(leaf.len) } else { 0 };
        }
        self.memory.change(|k| {
            k.leaves -= buffers;
            k.textures -= textures;
        });
        Ok(())
    }
    fn prepare(&mut self, plan: Plan) -> Result<PlanId> {
        plans::check(&plan, &|name| self.leaves.get(name).map(|leaf| leaf.len))?;
        let stream = self.stream(&plan)?;
        self.fit(&self.plans.with(&plan, &stream));
        let blocks = memory::uniform_bytes(&plan, &self.caps);
        self.memory.change(|k| {
            k.inputs += memory::inputs(&plan);
            k.uniforms += memory::uniforms(blocks);
            k.staging += blocks;
        });
        Ok(self.plans.insert(plan, stream, Own::default()))
    }
    fn write(&mut self, plan: PlanId, input: &str, data: &[f32]) -> Result<()> {
        input_offset(&self.plans.get(plan)?.plan, input, data.len())?;
        self.memory.change(|k| k.staging += memory::upload(Stored::F32.bytes(data.len())));
        Ok(())
    }
    fn rewind(&mut self, plan: PlanId) {
        self.plans.rewind(plan);
    }
    fn advance(&mut self, plan: PlanId) -> Result<bool> {
        self.forward(plan, usize::MAX)
    }
    fn peek(&mut self, plan: PlanId, name: &str) -> Result<Vec<f32>> {
        let slot = output(&self.plans.get(plan)?.plan, name)?.slot;
        self.plans.holds(plan, &slot, &format!("output `{name}`"))?;
        self.fit(&self.plans.wanted());
        self.memory.now.staging = 0;
        Ok(vec![0.0; slot.len])
    }
    fn plan(&self, plan: PlanId) -> &Plan {
        self.plans.plan(plan)
    }
    fn argument(&mut self, plan: PlanId, slot: &Slot) -> Result<Vec<f32>> {
        self.plans.holds(plan, slot, "argument")?;
        let held = self.plans.get(plan)?;
        if let Place::Leaf(leaf) = slot.place {
            let name = held.plan.leaves.get(leaf).map_or("", |leaf| leaf.name.as_str());
            self.leaves.get(name).ok_or_else(|| Error::missing("executor", format!("`{name}`")))?;
        }
        if slot.place == Place::Absent {
            return Ok(Vec::new());
        }
        self.memory.now.staging = 0;
        Ok(vec![0.0; slot.len])
    }
    fn one(&mut self, plan: PlanId) -> Result<bool> {
        self.forward(plan, 1)
    }
}
