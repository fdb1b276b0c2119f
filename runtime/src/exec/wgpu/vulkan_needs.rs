//! What a host has to enable on its Vulkan device, as data: wgpu knows it, in the form of the structures that it would make a device with.
use super::adapters::features_of;
use super::device_error;
use super::vulkan::{Handles, expose};
use crate::Result;
use alloc::{format, string::String, string::ToString, vec::Vec};
use ash::vk;
use ash::vk::TaggedStructure;
use core::ffi::CStr;
use pentimento_wgsl::kernel::Features;
use wgpu::hal::vulkan as hal;

/// What wgpu asks an instance's devices with.
pub(super) const PROPERTIES: &CStr = ash::khr::get_physical_device_properties2::NAME;

/// The option of cooperative matrices: products several times as fast.
pub const MATRIX: u32 = 1;

/// What kind of thing is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeedKind {
    /// An extension of the instance.
    InstanceExtension,
    /// An extension of the device.
    DeviceExtension,
    /// A feature of the device.
    Feature,
}

/// Something to be enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// What it is.
    pub kind: NeedKind,
    /// The extension's name, or "Structure.feature".
    pub name: String,
    /// Of a feature: the `VkStructureType` that has it.
    pub structure: u32,
    /// Of a feature: where its `VkBool32` lies in that structure, bytes.
    pub offset: u32,
    /// The option that it belongs to, [`MATRIX`]; 0 for what there is no doing without.
    pub option: u32,
}

/// Lists what the instance and the device must be made with. `handles` need no device; without a physical device, or on an instance that
/// lacks something, only the instance's needs are told.
///
/// # Errors
/// A physical device that cannot be used.
///
/// # Safety
/// The instance and the physical device are valid.
pub unsafe fn needs(handles: &Handles) -> Result<Vec<Need>> {
    let extension = |kind, name: &CStr, option| Need {
        kind,
        name: name.to_string_lossy().into_owned(),
        structure: 0,
        offset: 0,
        option,
    };
    let mut all = Vec::from([extension(NeedKind::InstanceExtension, PROPERTIES, 0)]);
    if handles.physical_device == 0 || !handles.instance_complete() {
        return Ok(all);
    }
    // SAFETY: the caller's promise; dropped before this returns.
    let instance = unsafe { handles.open_instance()? };
    let exposed = expose(&instance, handles)?;
    let matrix = features_of(Features::MATRIX);
    let mut options = Vec::from([(0, wgpu::Features::empty())]);
    if exposed.features.contains(matrix) {
        options.push((MATRIX, matrix));
    }
    let (mut known, mut bits): (Vec<&CStr>, Vec<(u32, u32)>) = Default::default();
    for (option, features) in options {
        let names = extensions(&exposed.adapter, features);
        for name in &names {
            if !known.contains(name) {
                known.push(name);
                all.push(extension(NeedKind::DeviceExtension, name, option));
            }
        }
        for (structure, offset, name) in enabled(&exposed.adapter, &names, features)? {
            if !bits.contains(&(structure, offset)) {
                bits.push((structure, offset));
                all.push(Need { kind: NeedKind::Feature, name, structure, offset, option });
            }
        }
    }
    Ok(all)
}

/// Device extensions that wgpu asks for and we use: nothing here is ever presented on a screen or shared with another process.
pub(super) fn extensions(adapter: &hal::Adapter, features: wgpu::Features) -> Vec<&'static CStr> {
    let mut all = adapter.required_device_extensions(features);
    let unused = [
        ash::khr::swapchain::NAME,
        ash::khr::swapchain_mutable_format::NAME,
        ash::khr::external_memory_fd::NAME,
    ];
    all.retain(|name| !unused.contains(name));
    all
}

/// A structure of features: its type, its name, its features in order.
type Known = (vk::StructureType, &'static str, &'static [&'static str]);

/// The structures that wgpu uses for what we ask for.
const KNOWN: [Known; 14] = [
    (
        vk::PhysicalDeviceShaderAtomicInt64Features::STRUCTURE_TYPE,
        "VkPhysicalDeviceShaderAtomicInt64Features",
        &["shaderBufferInt64Atomics", "shaderSharedInt64Atomics"],
    ),
    (
        vk::PhysicalDeviceTimelineSemaphoreFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceTimelineSemaphoreFeatures",
        &["timelineSemaphore"],
    ),
    (
        vk::PhysicalDeviceImageRobustnessFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceImageRobustnessFeatures",
        &["robustImageAccess"],
    ),
    (
        vk::PhysicalDeviceRobustness2FeaturesEXT::STRUCTURE_TYPE,
        "VkPhysicalDeviceRobustness2FeaturesEXT",
        &["robustBufferAccess2", "robustImageAccess2", "nullDescriptor"],
    ),
    (
        vk::PhysicalDeviceMultiviewFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceMultiviewFeatures",
        &["multiview", "multiviewGeometryShader", "multiviewTessellationShader"],
    ),
    (
        vk::PhysicalDeviceShaderFloat16Int8Features::STRUCTURE_TYPE,
        "VkPhysicalDeviceShaderFloat16Int8Features",
        &["shaderFloat16", "shaderInt8"],
    ),
    (
        vk::PhysicalDevice16BitStorageFeatures::STRUCTURE_TYPE,
        "VkPhysicalDevice16BitStorageFeatures",
        &[
            "storageBuffer16BitAccess",
            "uniformAndStorageBuffer16BitAccess",
            "storagePushConstant16",
            "storageInputOutput16",
        ],
    ),
    (
        vk::PhysicalDeviceZeroInitializeWorkgroupMemoryFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceZeroInitializeWorkgroupMemoryFeatures",
        &["shaderZeroInitializeWorkgroupMemory"],
    ),
    (
        vk::PhysicalDeviceSubgroupSizeControlFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceSubgroupSizeControlFeatures",
        &["subgroupSizeControl", "computeFullSubgroups"],
    ),
    (
        vk::PhysicalDeviceMaintenance4Features::STRUCTURE_TYPE,
        "VkPhysicalDeviceMaintenance4Features",
        &["maintenance4"],
    ),
    (
        vk::PhysicalDeviceShaderIntegerDotProductFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceShaderIntegerDotProductFeatures",
        &["shaderIntegerDotProduct"],
    ),
    (
        vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::STRUCTURE_TYPE,
        "VkPhysicalDeviceCooperativeMatrixFeaturesKHR",
        &["cooperativeMatrix", "cooperativeMatrixRobustBufferAccess"],
    ),
    (
        vk::PhysicalDeviceVulkanMemoryModelFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceVulkanMemoryModelFeatures",
        &[
            "vulkanMemoryModel",
            "vulkanMemoryModelDeviceScope",
            "vulkanMemoryModelAvailabilityVisibilityChains",
        ],
    ),
    (
        vk::PhysicalDeviceShaderDrawParametersFeatures::STRUCTURE_TYPE,
        "VkPhysicalDeviceShaderDrawParametersFeatures",
        &["shaderDrawParameters"],
    ),
];

/// The features of `VkPhysicalDeviceFeatures` that wgpu may turn on for us, by their place in it.
const CORE: [(usize, &str); 18] = [
    (0, "robustBufferAccess"),
    (1, "fullDrawIndexUint32"),
    (2, "imageCubeArray"),
    (3, "independentBlend"),
    (6, "sampleRateShading"),
    (9, "multiDrawIndirect"),
    (10, "drawIndirectFirstInstance"),
    (11, "depthClamp"),
    (12, "depthBiasClamp"),
    (19, "samplerAnisotropy"),
    (25, "vertexPipelineStoresAndAtomics"),
    (26, "fragmentStoresAndAtomics"),
    (28, "shaderImageGatherExtended"),
    (29, "shaderStorageImageExtendedFormats"),
    (31, "shaderStorageImageReadWithoutFormat"),
    (32, "shaderStorageImageWriteWithoutFormat"),
    (33, "shaderUniformBufferArrayDynamicIndexing"),
    (34, "shaderSampledImageArrayDynamicIndexing"),
];

/// Bytes before the first feature of a structure with a type and a successor.
const HEAD: usize = 16;

/// (structure type, offset, name) of all that wgpu would make a device with.
fn enabled(
    adapter: &hal::Adapter,
    extensions: &[&'static CStr],
    features: wgpu::Features,
) -> Result<Vec<(u32, u32, String)>> {
    let mut wanted = adapter.physical_device_features(extensions, features);
    let core = wanted.get_core();
    // SAFETY: a structure of `VkBool32`s alone.
    let core: [u32; size_of::<vk::PhysicalDeviceFeatures>() / 4] = unsafe { core::mem::transmute(core) };
    let mut all = Vec::new();
    let of = |structure: vk::StructureType, place: usize, name: String| {
        (structure.as_raw() as u32, (HEAD + 4 * place) as u32, name)
    };
    for (place, _) in core.iter().enumerate().filter(|(_, on)| **on != 0) {
        let known = CORE.iter().find(|(at, _)| *at == place);
        let name = known.map_or_else(|| format!("feature {place}"), |(_, name)| name.to_string());
        let name = format!("VkPhysicalDeviceFeatures.{name}");
        all.push(of(vk::PhysicalDeviceFeatures2::STRUCTURE_TYPE, place, name));
    }
    let info = wanted.add_to_device_create(vk::DeviceCreateInfo::default());
    let mut next = info.p_next.cast::<vk::BaseOutStructure<'_>>();
    while !next.is_null() {
        // SAFETY: a chain of structures that begin so, alive as long as `wanted`.
        let head = unsafe { *next };
        let known = KNOWN.iter().find(|(structure, ..)| *structure == head.s_type);
        let Some((structure, name, fields)) = known else {
            let reason = format!("wgpu wants {:?}, which this list does not know", head.s_type);
            return Err(device_error("the host's device", reason));
        };
        for (place, field) in fields.iter().enumerate() {
            // SAFETY: as many `VkBool32`s as the structure has fields lie behind its head.
            let on = unsafe { next.byte_add(HEAD + 4 * place).cast::<u32>().read() };
            if on != 0 {
                all.push(of(*structure, place, format!("{name}.{field}")));
            }
        }
        next = head.p_next;
    }
    Ok(all)
}
