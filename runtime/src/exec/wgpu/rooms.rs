//! The memory that all plans share, and parting with plans and leaves.
use super::Wgpu;
use super::stream::Window;
use crate::Result;
use crate::exec::PlanId;
use crate::exec::memory::{Kinds, Sizes};
use alloc::vec::Vec;

/// What serves whatever plan runs.
#[derive(Default)]
pub(super) struct Rooms {
    pub slabs: Vec<wgpu::Buffer>,
    pub unpacked: Option<wgpu::Buffer>,
    pub window: Option<Window>,
    pub readback: Option<wgpu::Buffer>,
}

impl Wgpu {
    /// Gives the room its new size. What depends on the old one goes first, so that both are never there at once; plans build their bind
    /// groups again when they next run.
    pub(super) fn fit(&mut self, to: &Sizes) -> Result<()> {
        let change = self.plans.fit(to);
        if change.arena {
            self.vacate();
        }
        if change.readback {
            self.rooms.readback = None;
            self.count(|k| k.readback = 0);
        }
        if !change.arena && !change.readback {
            return Ok(());
        }
        let made = self.freed().and_then(|()| self.furnish(to));
        if made.is_err() {
            // The next run tries again.
            self.plans.fit(&Sizes::default());
            self.vacate();
            self.rooms.readback = None;
            self.count(|k| k.readback = 0);
        }
        made
    }
    /// Makes what is missing.
    fn furnish(&mut self, to: &Sizes) -> Result<()> {
        if self.rooms.slabs.is_empty() {
            let slabs =
                to.slabs.iter().map(|&size| self.room("arena", size, false)).collect::<Result<_>>()?;
            self.rooms.slabs = slabs;
            self.count(|k| k.arena = to.arena());
        }
        if self.rooms.unpacked.is_none() && to.unpacked > 0 {
            self.rooms.unpacked = Some(self.room("unpacked weight", to.unpacked, false)?);
            self.count(|k| k.unpacked = to.unpacked);
        }
        if self.rooms.window.is_none() && to.window > 0 {
            self.rooms.window = Some(self.window(to.window)?);
            self.count(|k| k.window = to.windows());
        }
        if self.rooms.readback.is_none() && to.readback > 0 {
            self.rooms.readback = Some(self.readback_buffer(to.readback)?);
            self.count(|k| k.readback = to.readback);
        }
        Ok(())
    }
    /// Lets go of the arena and of all that refers to it.
    fn vacate(&mut self) {
        let staged: u64 = self.plans.each_mut().map(|held| held.strip()).sum();
        (self.rooms.slabs, self.rooms.unpacked, self.rooms.window) = (Vec::new(), None, None);
        self.count(|k| {
            (k.arena, k.unpacked, k.window) = (0, 0, 0);
            k.textures -= staged;
        });
    }
    /// Waits until what was dropped is freed: wgpu keeps it as long as the device may use it.
    fn freed(&self) -> Result<()> {
        self.wait()
    }

    pub(super) fn drop_plan(&mut self, plan: PlanId) -> Result<()> {
        let held = self.plans.remove(plan)?;
        self.count(|k| {
            k.inputs -= held.own.inputs.size();
            k.uniforms -= held.own.uniforms.size();
            k.textures -= held.own.next.1.bytes();
        });
        drop(held);
        self.fit(&self.plans.kept())?;
        self.freed()
    }
    pub(super) fn drop_leaves(&mut self, prefix: &str) -> Result<()> {
        self.plans.reads_none(prefix)?;
        let (mut buffers, mut textures) = (0, 0);
        for (_, leaf) in self.leaves.extract_if(.., |name, _| name.starts_with(prefix)) {
            buffers += leaf.bytes();
            textures += leaf.texture_bytes();
        }
        self.count(|k| {
            k.leaves -= buffers;
            k.textures -= textures;
        });
        self.freed()
    }

    /// Forgets every plan, weight and parameter and frees their memory; the device and its compiled pipelines stay. Ids
    /// of forgotten plans mean nothing any more.
    pub fn clear(&mut self) {
        self.pipelines.stop();
        self.plans.clear();
        self.rooms = Rooms::default();
        self.leaves.clear();
        self.count(|k| *k = Kinds { staging: k.staging, ..Kinds::default() });
        // wgpu frees what is gone when it next looks; a failure comes up with the next use of the device.
        let _ = self.device.poll(wgpu::PollType::Poll);
    }
}
