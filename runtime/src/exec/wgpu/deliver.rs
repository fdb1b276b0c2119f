//! Bytes into memory of a host's, on the device: into a `VkBuffer` or a `VkImage`, behind and before semaphores that the host names. The commands
//! are our own, not wgpu's, so that layouts and owners are what the host says.
use super::{Wgpu, device_error};
use crate::{Error, Result};
use alloc::{format, vec::Vec};
use ash::prelude::VkResult;
use ash::vk;
use ash::vk::Handle;

type Api = wgpu::hal::api::Vulkan;

/// A semaphore of the host's.
#[derive(Clone, Copy, Debug)]
pub struct Semaphore {
    /// `VkSemaphore`.
    pub handle: u64,
    /// The value of a timeline semaphore; 0 for a binary one.
    pub value: u64,
}

/// Where to.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// A `VkBuffer`, and the byte in it where the first row begins.
    Buffer(u64, u64),
    /// A `VkImage` of one layer and one level, and its `VkImageLayout`s before and after.
    Image(u64, [i32; 2]),
}

/// What is written, and when.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The memory.
    pub to: To,
    /// Pixels; rows follow each other without padding.
    pub size: [u32; 2],
    /// The queue family that owns the memory afterwards; `None` leaves ownership alone.
    pub family: Option<u32>,
    /// Waited for before the copy.
    pub wait: Option<Semaphore>,
    /// Signalled after the copy. With one the call returns when the copy is submitted, without when it is done.
    pub signal: Option<Semaphore>,
}

/// What copies to a host are made with.
pub(super) struct Own {
    device: ash::Device,
    queue: vk::Queue,
    family: u32,
    under_way: Vec<Delivery>,
}

/// A copy that may be under way.
struct Delivery {
    pool: vk::CommandPool,
    fence: vk::Fence,
    _bytes: wgpu::Buffer,
}

/// Longest wait for copies when an executor goes: nanoseconds.
const LAST_WAIT: u64 = 10_000_000_000;

impl Own {
    pub(super) fn new(device: ash::Device, [family, index]: [u32; 2]) -> Self {
        // SAFETY: a living device that was made with this queue, as whoever adopts it promises.
        let queue = unsafe { device.get_device_queue(family, index) };
        Own { device, queue, family, under_way: Vec::new() }
    }

    /// Commands that copy, in a pool of their own.
    fn record(
        &self,
        from: vk::Buffer,
        bytes: u64,
        target: &Target,
    ) -> VkResult<(vk::CommandPool, vk::CommandBuffer)> {
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::TRANSIENT)
            .queue_family_index(self.family);
        // SAFETY: a living device; what is made here is destroyed once, after it was used.
        unsafe {
            let pool = self.device.create_command_pool(&info, None)?;
            let commands = self.fill(pool, from, bytes, target);
            if commands.is_err() {
                self.device.destroy_command_pool(pool, None);
            }
            Ok((pool, commands?))
        }
    }

    /// # Safety
    /// The pool is new, the buffers and the image are living.
    unsafe fn fill(
        &self,
        pool: vk::CommandPool,
        from: vk::Buffer,
        bytes: u64,
        target: &Target,
    ) -> VkResult<vk::CommandBuffer> {
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the caller's promise.
        unsafe {
            let commands = self.device.allocate_command_buffers(&info)?[0];
            self.device.begin_command_buffer(commands, &begin)?;
            match target.to {
                To::Buffer(to, offset) => self.to_buffer(commands, from, bytes, (to, offset), target.family),
                To::Image(to, layouts) => self.to_image(commands, from, (to, layouts), target),
            }
            self.device.end_command_buffer(commands)?;
            Ok(commands)
        }
    }

    /// Queue families of the memory before and after the last barrier.
    fn families(&self, family: Option<u32>) -> [u32; 2] {
        match family {
            Some(family) if family != self.family => [self.family, family],
            _ => [vk::QUEUE_FAMILY_IGNORED; 2],
        }
    }

    /// # Safety
    /// As [`Own::fill`].
    unsafe fn to_buffer(
        &self,
        commands: vk::CommandBuffer,
        from: vk::Buffer,
        bytes: u64,
        (to, offset): (u64, u64),
        family: Option<u32>,
    ) {
        let to = vk::Buffer::from_raw(to);
        let copy = vk::BufferCopy::default().dst_offset(offset).size(bytes);
        let [old, new] = self.families(family);
        let after = vk::BufferMemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(
                vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE | vk::AccessFlags::HOST_READ,
            )
            .src_queue_family_index(old)
            .dst_queue_family_index(new)
            .buffer(to)
            .offset(offset)
            .size(bytes);
        let (transfer, all) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::ALL_COMMANDS);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the caller's promise.
        unsafe {
            self.device.cmd_pipeline_barrier(commands, all, transfer, none, &[before()], &[], &[]);
            self.device.cmd_copy_buffer(commands, from, to, &[copy]);
            let end = all | vk::PipelineStageFlags::HOST;
            self.device.cmd_pipeline_barrier(commands, transfer, end, none, &[], &[after], &[]);
        }
    }

    /// # Safety
    /// As [`Own::fill`].
    unsafe fn to_image(
        &self,
        commands: vk::CommandBuffer,
        from: vk::Buffer,
        (to, layouts): (u64, [i32; 2]),
        target: &Target,
    ) {
        let to = vk::Image::from_raw(to);
        let [first, last] = layouts.map(vk::ImageLayout::from_raw);
        let within = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        let range = vk::ImageSubresourceRange::default()
            .aspect_mask(vk::ImageAspectFlags::COLOR)
            .level_count(1)
            .layer_count(1);
        let layers =
            vk::ImageSubresourceLayers::default().aspect_mask(vk::ImageAspectFlags::COLOR).layer_count(1);
        let [width, height] = target.size;
        let copy = vk::BufferImageCopy::default().image_subresource(layers).image_extent(vk::Extent3D {
            width,
            height,
            depth: 1,
        });
        let all = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let barrier = vk::ImageMemoryBarrier::default()
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(to)
            .subresource_range(range)
            .old_layout(first)
            .new_layout(within)
            .src_access_mask(all)
            .dst_access_mask(vk::AccessFlags::TRANSFER_WRITE);
        let [old, new] = self.families(target.family);
        let after = barrier
            .src_queue_family_index(old)
            .dst_queue_family_index(new)
            .old_layout(within)
            .new_layout(last)
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(all);
        let (transfer, every) = (vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::ALL_COMMANDS);
        let none = vk::DependencyFlags::empty();
        // SAFETY: the caller's promise.
        unsafe {
            self.device.cmd_pipeline_barrier(commands, every, transfer, none, &[before()], &[], &[barrier]);
            self.device.cmd_copy_buffer_to_image(commands, from, to, within, &[copy]);
            self.device.cmd_pipeline_barrier(commands, transfer, every, none, &[], &[], &[after]);
        }
    }

    /// # Safety
    /// As [`Own::fill`]; nobody else uses the queue meanwhile.
    unsafe fn submit(&self, commands: vk::CommandBuffer, fence: vk::Fence, target: &Target) -> VkResult<()> {
        let split = |s: Option<Semaphore>| match s {
            Some(s) => (Vec::from([vk::Semaphore::from_raw(s.handle)]), Vec::from([s.value])),
            None => Default::default(),
        };
        let (waits, wait_values) = split(target.wait);
        let (signals, signal_values) = split(target.signal);
        let (commands, stages) = ([commands], [vk::PipelineStageFlags::ALL_COMMANDS]);
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&wait_values)
            .signal_semaphore_values(&signal_values);
        let mut info = vk::SubmitInfo::default()
            .command_buffers(&commands)
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages[..waits.len()])
            .signal_semaphores(&signals);
        if wait_values.iter().chain(&signal_values).any(|&value| value > 0) {
            info = info.push_next(&mut values);
        }
        // SAFETY: the caller's promise.
        unsafe { self.device.queue_submit(self.queue, &[info], fence) }
    }

    /// Destroys what copies were made with that are done, or that `wait` nanoseconds are waited for; what is not is kept.
    fn reclaim(&mut self, wait: u64) {
        let Own { device, under_way, .. } = self;
        // SAFETY: fences and pools of this device's; a pool is destroyed after its commands are done.
        under_way.retain(|delivery| unsafe {
            let done = device.wait_for_fences(&[delivery.fence], true, wait);
            let over = matches!(done, Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST));
            if over {
                device.destroy_fence(delivery.fence, None);
                device.destroy_command_pool(delivery.pool, None);
            }
            !over
        });
    }
}

/// Everything submitted before is there for the copy to read.
fn before() -> vk::MemoryBarrier<'static> {
    vk::MemoryBarrier::default()
        .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
        .dst_access_mask(vk::AccessFlags::TRANSFER_READ | vk::AccessFlags::TRANSFER_WRITE)
}

impl Wgpu {
    /// Copies bytes into memory of the host whose device this is.
    ///
    /// # Errors
    /// A device that is no adopted Vulkan device, or out of memory, or lost.
    ///
    /// # Safety
    /// The target's handles are living ones of the adopted device's, with room for the bytes, a usage that allows copies into them, and in the
    /// layout that it names; and stay so until the copy is done.
    pub unsafe fn deliver(&mut self, bytes: &[u8], target: &Target) -> Result<()> {
        if self.vulkan.is_none() {
            return Err(Error::bad("image's target", "a context that adopted a Vulkan device", "another")
                .with_hint("Copy to the program's memory with pmt_job_image."));
        }
        let usage = wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let staged = self.create("an image on its way", bytes.len() as u64, usage)?;
        self.upload(&staged, 0, bytes);
        self.submit(None);
        self.failure()?;
        // SAFETY: the handle is used while the buffer is kept in `under_way`, and not destroyed.
        let from = unsafe { staged.as_hal::<Api>().map(|buffer| buffer.raw_handle()) };
        let name = self.caps.name.clone();
        let (Some(from), Some(own)) = (from, self.vulkan.as_mut()) else {
            return Err(Error::missing("executor", "the Vulkan buffer of an image"));
        };
        let failed = |e: vk::Result| device_error(&name, format!("copying an image failed: {e}"));
        own.reclaim(0);
        let (pool, commands) = own.record(from, bytes.len() as u64, target).map_err(failed)?;
        // SAFETY: a living device; the fence is destroyed once, in `reclaim` or below.
        let fence = unsafe { own.device.create_fence(&vk::FenceCreateInfo::default(), None) };
        let sent = fence.and_then(|fence| {
            let _held = self.turn.hold();
            // SAFETY: the caller's promise, and the host's lock where it shares the queue; else wgpu alone uses it, on this thread.
            unsafe { own.submit(commands, fence, target) }
        });
        if let Err(e) = sent {
            // SAFETY: nothing was submitted.
            unsafe {
                fence.into_iter().for_each(|fence| own.device.destroy_fence(fence, None));
                own.device.destroy_command_pool(pool, None);
            }
            return Err(failed(e));
        }
        own.under_way.extend(fence.map(|fence| Delivery { pool, fence, _bytes: staged }));
        if target.signal.is_none() {
            own.reclaim(u64::MAX);
        }
        self.failure()
    }

    /// Waits for what is on its way to the host.
    pub(super) fn settle_deliveries(&mut self) {
        if let Some(own) = &mut self.vulkan {
            own.reclaim(LAST_WAIT);
            // What hangs on a semaphore that nobody signals is left alone, as is what it reads.
            core::mem::forget(core::mem::take(&mut own.under_way));
        }
    }
}
