//! A device of a host that speaks Vulkan itself: its handles, given to wgpu with the promise to destroy none of them.
use super::adapters::{Limits, features_of};
use super::adopt::{QueueLock, Turn};
use super::deliver::Own;
use super::fault::Failure;
use super::vulkan_needs::{self, MATRIX, PROPERTIES};
use super::{Options, Wgpu, device_error};
use crate::{Error, Result};
use alloc::{borrow::ToOwned, boxed::Box, format, string::String, string::ToString, sync::Arc, vec::Vec};
use ash::vk;
use ash::vk::Handle;
use core::ffi::{CStr, c_void};
use pentimento_wgsl::kernel::Features;
use wgpu::hal::vulkan as hal;

type Api = wgpu::hal::api::Vulkan;

/// What a host has.
#[derive(Clone)]
pub struct Handles {
    /// `vkGetInstanceProcAddr`.
    pub entry: vk::PFN_vkGetInstanceProcAddr,
    /// `VkInstance`.
    pub instance: u64,
    /// `VkPhysicalDevice`; 0 where only the instance's needs are asked for.
    pub physical_device: u64,
    /// `VkDevice`; 0 where needs are asked for.
    pub device: u64,
    /// The version that the instance was made for, as `VkApplicationInfo` has it.
    pub api_version: u32,
    /// The queue's family, one that can compute, and its index in there.
    pub queue: [u32; 2],
    /// Extensions that the instance was made with.
    pub instance_extensions: Vec<String>,
    /// Extensions that the device was made with.
    pub device_extensions: Vec<String>,
    /// Which optional needs the device was made with, [`MATRIX`].
    pub options: u32,
    /// Where the queue is used by the host, too.
    pub lock: Option<Arc<QueueLock>>,
}

impl Handles {
    /// From `vkGetInstanceProcAddr` as a plain pointer; the rest is to be filled in.
    ///
    /// # Safety
    /// It is NULL or that function.
    pub unsafe fn new(entry: *const c_void) -> Result<Self> {
        if entry.is_null() {
            return Err(Error::bad("vulkan.get_instance_proc_addr", "vkGetInstanceProcAddr", "NULL"));
        }
        // SAFETY: the caller's promise.
        let entry = unsafe { core::mem::transmute::<*const c_void, vk::PFN_vkGetInstanceProcAddr>(entry) };
        Ok(Handles {
            entry,
            instance: 0,
            physical_device: 0,
            device: 0,
            api_version: vk::API_VERSION_1_1,
            queue: [0; 2],
            instance_extensions: Vec::new(),
            device_extensions: Vec::new(),
            options: 0,
            lock: None,
        })
    }
    pub(super) fn physical(&self) -> vk::PhysicalDevice {
        vk::PhysicalDevice::from_raw(self.physical_device)
    }
    /// Whether the instance was made with what wgpu cannot do without.
    pub(super) fn instance_complete(&self) -> bool {
        self.instance_extensions.iter().any(|name| name.as_bytes() == PROPERTIES.to_bytes())
    }

    /// The host's instance as wgpu's.
    ///
    /// # Safety
    /// The handles are valid and stay so as long as what is returned and made with it lives.
    pub(super) unsafe fn open_instance(&self) -> Result<hal::Instance> {
        if self.instance == 0 {
            return Err(Error::bad("vulkan.instance", "a VkInstance", "NULL"));
        }
        if !self.instance_complete() {
            let name = PROPERTIES.to_string_lossy();
            return Err(Error::bad("vulkan.instance_extensions", format!("{name} among them"), "none")
                .with_hint("Make the VkInstance with it; pmt_vulkan_needs lists all that is needed."));
        }
        // SAFETY: the caller's promise: functions of a living instance. The callback, which does nothing, makes wgpu leave it alone;
        // no surface is ever made, which other extensions would be needed for.
        unsafe {
            let entry = ash::Entry::from_static_fn(ash::StaticFn { get_instance_proc_addr: self.entry });
            let raw = ash::Instance::load(entry.static_fn(), vk::Instance::from_raw(self.instance));
            hal::Instance::from_raw(
                entry,
                raw,
                self.api_version,
                0,
                None,
                Vec::from([PROPERTIES]),
                wgpu::InstanceFlags::empty(),
                wgpu::MemoryBudgetThresholds::default(),
                false,
                Some(Box::new(|| {})),
            )
        }
        .map_err(|e| device_error("the host's instance", format!("cannot be used: {e}")))
    }
}

/// wgpu's view of the host's physical device.
pub(super) fn expose(instance: &hal::Instance, handles: &Handles) -> Result<wgpu::hal::ExposedAdapter<Api>> {
    if handles.physical_device == 0 {
        return Err(Error::bad("vulkan.physical_device", "a VkPhysicalDevice", "NULL"));
    }
    let raw = instance.shared_instance().raw_instance();
    // SAFETY: a living physical device of this instance, as whoever gave the handles promises.
    let found = unsafe { raw.get_physical_device_properties(handles.physical()) }.api_version;
    let least = (found & !0xfff).min(vk::API_VERSION_1_3); // without the patch
    // wgpu uses what the device can, whatever the instance was made for.
    if handles.api_version < least {
        let (major, minor) = (vk::api_version_major(least), vk::api_version_minor(least));
        let found = [vk::api_version_major(handles.api_version), vk::api_version_minor(handles.api_version)];
        let expected = format!("{major}.{minor}, as the device has");
        return Err(Error::bad("vulkan.api_version", expected, format!("{}.{}", found[0], found[1]))
            .with_hint("Make the VkInstance for that version in its VkApplicationInfo."));
    }
    instance.expose_adapter(handles.physical()).ok_or_else(|| {
        device_error("the host's physical device", "lacks what wgpu needs: Vulkan 1.1 and its core features")
    })
}

/// Whether the queue can compute and tell time.
fn queue(instance: &hal::Instance, handles: &Handles) -> Result<bool> {
    let raw = instance.shared_instance().raw_instance();
    // SAFETY: a living physical device of this instance.
    let families = unsafe { raw.get_physical_device_queue_family_properties(handles.physical()) };
    let [family, index] = handles.queue;
    let Some(found) = families.get(family as usize) else {
        let expected = format!("0 to {}", families.len().saturating_sub(1));
        return Err(Error::bad("vulkan.queue_family", expected, family.to_string()));
    };
    if !found.queue_flags.contains(vk::QueueFlags::COMPUTE) {
        let found = format!("{family}, which has {:?}", found.queue_flags);
        return Err(Error::bad("vulkan.queue_family", "a family that can compute", found));
    }
    if index >= found.queue_count {
        let expected = format!("less than {}, as many queues as the family has", found.queue_count);
        return Err(Error::bad("vulkan.queue_index", expected, index.to_string()));
    }
    Ok(found.timestamp_valid_bits > 0)
}

/// Those of the extensions that wgpu asks for that the device was made with; all that matter must be among them.
fn extensions(
    adapter: &hal::Adapter,
    features: wgpu::Features,
    handles: &Handles,
) -> Result<Vec<&'static CStr>> {
    let has = |name: &CStr| handles.device_extensions.iter().any(|e| e.as_bytes() == name.to_bytes());
    let needed = vulkan_needs::extensions(adapter, features);
    let missing: Vec<_> =
        needed.iter().filter(|name| !has(name)).map(|name| name.to_string_lossy()).collect();
    if !missing.is_empty() {
        let expected = format!("{} among them", missing.join(", "));
        return Err(Error::bad("vulkan.device_extensions", expected, "none of these")
            .with_hint("Make the VkDevice with them; pmt_vulkan_needs lists all that is needed."));
    }
    Ok(needed)
}

/// What the device is used with.
fn wanted(
    exposed: &wgpu::hal::ExposedAdapter<Api>,
    clock: bool,
    handles: &Handles,
    options: &Options<'_>,
) -> wgpu::Features {
    use wgpu::Features as F;
    let mut all = F::empty();
    if options.limits == Limits::WebGpu {
        return all;
    }
    if clock {
        all |= F::TIMESTAMP_QUERY | F::TIMESTAMP_QUERY_INSIDE_ENCODERS | F::TIMESTAMP_QUERY_INSIDE_PASSES;
    }
    if options.cache.is_some() {
        all |= F::PIPELINE_CACHE;
    }
    let matrix = features_of(Features::MATRIX);
    if handles.options & MATRIX != 0 && options.limits == Limits::Adapter && exposed.features.contains(matrix)
    {
        all |= matrix;
    }
    all & exposed.features
}

impl Wgpu {
    /// Works on a host's Vulkan device, on the queue that it names: one of our own, or, with a lock, one that the host uses, too. Nothing of the
    /// host's is destroyed when this is dropped. What must be enabled is what [`super::needs`] lists.
    ///
    /// # Errors
    /// Handles that are missing, a queue that cannot compute, extensions that the device was made without, or a device that refuses.
    ///
    /// # Safety
    /// The handles are valid and what they say they are; the instance and the device live until this is dropped; all features that
    /// [`super::needs`] lists without options, and those of the options named, were enabled; and nobody else uses the queue, unless both
    /// do so under the lock.
    pub unsafe fn adopt_vulkan(handles: &Handles, options: &Options<'_>) -> Result<Self> {
        // SAFETY: the caller's promise.
        let instance = unsafe { handles.open_instance()? };
        let exposed = expose(&instance, handles)?;
        if handles.device == 0 {
            return Err(Error::bad("vulkan.device", "a VkDevice", "NULL"));
        }
        let features = wanted(&exposed, queue(&instance, handles)?, handles, options);
        let extensions = extensions(&exposed.adapter, features, handles)?;
        let limits = match options.limits {
            Limits::WebGpu => wgpu::Limits::default(),
            Limits::Adapter | Limits::Exact => exposed.capabilities.limits.clone(),
        };
        let name = exposed.info.name.clone();
        let refused = |e: String| device_error(&name, format!("cannot be adopted: {e}"));
        // SAFETY: the caller's promise; the callback makes wgpu leave the device alone when it lets go of it.
        let (raw, opened) = unsafe {
            let instance = instance.shared_instance().raw_instance();
            let raw = ash::Device::load(instance.fp_v1_0(), vk::Device::from_raw(handles.device));
            let opened = exposed.adapter.device_from_raw(
                raw.clone(),
                Some(Box::new(|| {})),
                &extensions,
                features,
                &limits,
                &wgpu::MemoryHints::default(),
                handles.queue[0],
                handles.queue[1],
            );
            (raw, opened.map_err(|e| refused(e.to_string()))?)
        };
        // SAFETY: each was made from the one before. What is experimental is cooperative matrices, see `super::device::request`.
        let (adapter, made) = unsafe {
            let instance = wgpu::Instance::from_hal::<Api>(instance);
            let adapter = instance.create_adapter_from_hal(exposed);
            let descriptor = wgpu::DeviceDescriptor {
                label: Some("pentimento on a host's device"),
                required_features: features,
                required_limits: limits,
                experimental_features: wgpu::ExperimentalFeatures::enabled(),
                ..Default::default()
            };
            let made = adapter.create_device_from_hal(opened, &descriptor);
            (adapter, made.map_err(|e| refused(e.to_string()))?)
        };
        Ok(Self::on_vulkan(&adapter, made, raw, handles, options))
    }

    fn on_vulkan(
        adapter: &wgpu::Adapter,
        made: (wgpu::Device, wgpu::Queue),
        raw: ash::Device,
        handles: &Handles,
        options: &Options<'_>,
    ) -> Self {
        let mut caps = super::adapters::caps_of(adapter, options.limits);
        if !made.0.features().contains(features_of(Features::MATRIX)) {
            caps.plain();
        }
        // wgpu's device is ours alone, though what is under it is the host's: its handlers may be ours, too.
        let error = Failure::of(&made.0);
        let mut exec = Self::assemble(adapter, made, caps, error, options);
        exec.turn = Turn::of(handles.lock.clone());
        exec.vulkan = Some(Own::new(raw, handles.queue));
        let matrix = features_of(Features::MATRIX);
        if adapter.features().contains(matrix) && !exec.device.features().contains(matrix) {
            let name = exec.caps.name.to_owned();
            exec.notes.push(format!(
                "{name} was made without cooperative matrices, so products are computed without matrix units; enable what \
                 pmt_vulkan_needs lists for PMT_VULKAN_MATRIX"
            ));
        }
        exec.try_matrices();
        exec
    }
}
