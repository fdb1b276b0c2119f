//! Devices that a host opened and keeps: programs that use wgpu themselves give theirs here, others their Vulkan's (`super::vulkan`).
use super::adapters::{caps_from, features_of};
use super::fault::Failure;
use super::{Options, Wgpu, device_error};
use crate::{Error, Result};
use alloc::{boxed::Box, format, sync::Arc, vec::Vec};
use pentimento_wgsl::kernel::Features;

/// A host's own lock around a queue that it shares: held while something is submitted, never while something is waited for.
pub struct QueueLock {
    lock: Box<dyn Fn() + Send + Sync>,
    unlock: Box<dyn Fn() + Send + Sync>,
}

impl QueueLock {
    /// From two functions, of which the second undoes the first. They are called on the thread that uses the executor.
    pub fn new(lock: impl Fn() + Send + Sync + 'static, unlock: impl Fn() + Send + Sync + 'static) -> Self {
        QueueLock { lock: Box::new(lock), unlock: Box::new(unlock) }
    }
}

/// Whose turn it is on the queue.
#[derive(Default)]
pub(super) struct Turn {
    pub lock: Option<Arc<QueueLock>>,
    /// Taken by an executor that goes, and given back after all its parts are gone.
    last: bool,
}

/// Held until it is dropped.
pub(super) struct Held<'a>(Option<&'a QueueLock>);

impl Turn {
    pub(super) fn of(lock: Option<Arc<QueueLock>>) -> Self {
        Turn { lock, last: false }
    }
    pub(super) fn hold(&self) -> Held<'_> {
        let lock = self.lock.as_deref();
        if let Some(lock) = lock {
            (lock.lock)();
        }
        Held(lock)
    }
    /// Holds it until `self` is dropped.
    pub(super) fn end(&mut self) {
        core::mem::forget(self.hold());
        self.last = true;
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.0 {
            (lock.unlock)();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.as_deref().filter(|_| self.last) {
            (lock.unlock)();
        }
    }
}

impl Drop for Wgpu {
    fn drop(&mut self) {
        #[cfg(not(target_vendor = "apple"))]
        self.settle_deliveries();
        if self.turn.lock.is_some() {
            // wgpu waits for a queue that it lets go of: what is under way must not be waited for under the host's lock.
            let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
            self.turn.end();
        }
    }
}

/// The limits that matter to kernels, by name.
fn limits_of(l: &wgpu::Limits) -> [(&'static str, u64); 10] {
    [
        ("max_buffer_size", l.max_buffer_size),
        ("max_storage_buffer_binding_size", l.max_storage_buffer_binding_size),
        ("max_storage_buffers_per_shader_stage", l.max_storage_buffers_per_shader_stage.into()),
        ("max_storage_textures_per_shader_stage", l.max_storage_textures_per_shader_stage.into()),
        ("max_bindings_per_bind_group", l.max_bindings_per_bind_group.into()),
        ("max_texture_dimension_2d", l.max_texture_dimension_2d.into()),
        ("max_compute_workgroup_storage_size", l.max_compute_workgroup_storage_size.into()),
        ("max_compute_invocations_per_workgroup", l.max_compute_invocations_per_workgroup.into()),
        ("max_compute_workgroup_size_x", l.max_compute_workgroup_size_x.into()),
        ("max_compute_workgroups_per_dimension", l.max_compute_workgroups_per_dimension.into()),
    ]
}

/// A limit below what kernels need at least, which is what WebGPU guarantees: (name, found, needed)
fn short(limits: &wgpu::Limits) -> Option<(&'static str, u64, u64)> {
    let least = limits_of(&wgpu::Limits::default());
    let both = limits_of(limits).into_iter().zip(least);
    both.map(|((name, found), (_, needed))| (name, found, needed)).find(|(_, found, needed)| found < needed)
}

impl Wgpu {
    /// Works on a device that the program opened with wgpu and goes on using. What it was opened with is what is used: ask for the
    /// adapter's own limits, `TIMESTAMP_QUERY`, and where the adapter has them `SHADER_F16`, `SUBGROUP` and
    /// `EXPERIMENTAL_COOPERATIVE_MATRIX`; [`Wgpu::notes`] names what is missing.
    ///
    /// Submits of both go to the one queue in the order in which they are made, from whichever thread; wgpu takes care of that, so nothing has
    /// to be locked. The device's handlers are left alone: errors of calls made here are caught in error scopes and returned here. A
    /// program that opens error scopes on other threads at the same time needs wgpu's feature `std`, which is one of its default
    /// ones. The loss of the device shows here when results cannot be read. Nothing of the program's is destroyed when this is dropped.
    ///
    /// # Errors
    /// Limits below what WebGPU guarantees.
    pub fn adopt(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &Options<'_>,
    ) -> Result<Self> {
        let (limits, features) = (device.limits(), device.features());
        let matrices = features.contains(features_of(Features::MATRIX));
        let caps = caps_from(adapter, &limits, matrices && options.limits == super::Limits::Adapter);
        if let Some((name, found, needed)) = short(&limits) {
            let reason = format!(
                "it was opened with {name} {found}, {needed} is needed; open it with the adapter's limits"
            );
            return Err(device_error(&caps.name, reason));
        }
        let error = Failure::within(&device);
        // Scopes are had by one thread at a time, so more of them would only wait.
        let options = Options { threads: options.threads.or(Some(0)), ..*options };
        let mut exec = Self::assemble(adapter, (device, queue), caps, error, &options);
        exec.failure()?;
        exec.notes.extend(missing(adapter, &limits, features));
        exec.try_matrices();
        Ok(exec)
    }
}

/// What the adapter has and the device was not opened with, in sentences.
fn missing(
    adapter: &wgpu::Adapter,
    limits: &wgpu::Limits,
    features: wgpu::Features,
) -> Vec<alloc::string::String> {
    use wgpu::Features as F;
    let (name, most) = (adapter.get_info().name, adapter.limits());
    let known = [
        (F::TIMESTAMP_QUERY, "TIMESTAMP_QUERY", "pieces of work are timed by the host's clock"),
        (
            features_of(Features::MATRIX),
            "SHADER_F16, SUBGROUP and EXPERIMENTAL_COOPERATIVE_MATRIX",
            "products are computed without matrix units",
        ),
    ];
    let lacks = known.into_iter().filter(|(f, ..)| adapter.features().contains(*f) && !features.contains(*f));
    let mut notes: Vec<_> = lacks
        .map(|(_, what, so)| format!("{name} was opened without {what}, so {so}; open it with them"))
        .collect();
    for (what, found, most) in [
        ("max_buffer_size", limits.max_buffer_size, most.max_buffer_size),
        (
            "max_storage_buffer_binding_size",
            limits.max_storage_buffer_binding_size,
            most.max_storage_buffer_binding_size,
        ),
    ] {
        if found < most.min(1 << 30) {
            notes.push(format!(
                "{name} was opened with {what} {found} of {most}, so large models may not fit; open it with the adapter's limits"
            ));
        }
    }
    notes
}

/// The refusal of a device of an interface that wgpu cannot take over from a host.
pub fn unsupported(interface: &str) -> Error {
    device_error(
        interface,
        "a host's device cannot be adopted: only Vulkan devices can, or, from Rust, any device of wgpu's; \
         let the library open a device of its own and copy images with pmt_job_image",
    )
}
