//! Adapters: what there is, and which one is meant.
use super::stage;
use crate::caps::{Caps, MOST_TOGETHER};
use crate::{Error, Result};
use alloc::{format, string::String, vec::Vec};
use pentimento_wgsl::Class;
use pentimento_wgsl::kernel::{Features, Matrix};

/// What a person needs to know about an adapter.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// Its place in the list, from 0.
    pub index: usize,
    /// Name as the driver gives it.
    pub name: String,
    /// "vulkan", "metal", "dx12", "noop".
    pub backend: String,
    /// "discrete gpu", "integrated gpu", "cpu" ...
    pub kind: String,
    /// PCI address such as "0000:01:00.0"; empty where the system tells none.
    pub pci: String,
    /// Driver and its version.
    pub driver: String,
    /// Features that matter here.
    pub features: Vec<&'static str>,
    /// Limits that matter here.
    pub caps: Caps,
}

/// Limits and features a device is opened with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limits {
    /// All that the adapter has.
    #[default]
    Adapter,
    /// All but half-precision arithmetic: every product in f32, as the reference libraries compute in f32.
    Exact,
    /// What WebGPU guarantees on every device, and no optional feature.
    WebGpu,
}

impl Limits {
    pub(super) fn of(self, adapter: &wgpu::Adapter) -> wgpu::Limits {
        match self {
            Limits::Adapter | Limits::Exact => adapter.limits(),
            Limits::WebGpu => wgpu::Limits::default(),
        }
    }
    /// Features that [`super::Wgpu::profile`] uses, as far as the adapter has them.
    pub(super) fn timestamps(self, adapter: &wgpu::Adapter) -> wgpu::Features {
        use wgpu::Features as F;
        match self {
            Limits::WebGpu => F::empty(),
            Limits::Adapter | Limits::Exact => {
                let all = F::TIMESTAMP_QUERY
                    | F::TIMESTAMP_QUERY_INSIDE_ENCODERS
                    | F::TIMESTAMP_QUERY_INSIDE_PASSES;
                adapter.features() & all
            }
        }
    }
}

fn instance(noop: bool) -> wgpu::Instance {
    let mut d = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    if noop {
        d.backends = wgpu::Backends::NOOP;
        d.backend_options.noop.enable = true;
    }
    wgpu::Instance::new(d)
}

pub(super) fn caps_of(adapter: &wgpu::Adapter, limits: Limits) -> Caps {
    caps_from(adapter, &limits.of(adapter), limits == Limits::Adapter)
}

/// What can be planned for a device with these limits; `matrices`: it was opened with them, if the adapter has them.
pub(super) fn caps_from(adapter: &wgpu::Adapter, limits: &wgpu::Limits, matrices: bool) -> Caps {
    let matrix = matrix(adapter).filter(|_| matrices);
    let info = adapter.get_info();
    let software = info.device_type == wgpu::DeviceType::Cpu;
    Caps {
        // A few hundred less than Mesa's own limit, for the small loops that the planner does not count.
        max_iterations: if info.name.starts_with("llvmpipe") { 65_000 } else { u32::MAX },
        name: info.name,
        class: if software { Class::Software } else { Class::Gpu },
        max_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        max_buffer: limits.max_buffer_size.min(2 << 30) - stage::ROW_BYTES,
        max_groups: limits.max_compute_workgroups_per_dimension,
        texture_rows: if software { limits.max_texture_dimension_2d } else { 0 },
        invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        features: if matrix.is_some() { Features::MATRIX } else { Features::NONE },
        matrix,
        alignment: u64::from(limits.min_storage_buffer_offset_alignment).max(256),
        uniform_alignment: u64::from(limits.min_uniform_buffer_offset_alignment),
        half_weights: !software,
        longest: u64::MAX,
        together: if software { 1 } else { together(limits) },
        storage_bindings: limits.max_storage_buffers_per_shader_stage,
        memory: memory(adapter),
    }
}

/// Each command of a dispatch has a bind group, with a uniform block in it.
fn together(limits: &wgpu::Limits) -> u32 {
    MOST_TOGETHER.min(limits.max_bind_groups).min(limits.max_uniform_buffers_per_shader_stage).max(1)
}

/// Bytes of the largest of the device's own heaps. wgpu tells nothing of it, but Vulkan does.
#[cfg(not(target_vendor = "apple"))]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the adapter outlives the handles, which are only asked, not changed or destroyed.
    let properties = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let (instance, device) = (adapter.shared_instance().raw_instance(), adapter.raw_physical_device());
        instance.get_physical_device_memory_properties(device)
    };
    const DEVICE_LOCAL: u32 = 1; // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}
/// Unknown: wgpu has no safe and simple way to the figure that Metal has.
#[cfg(target_vendor = "apple")]
fn memory(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// The device's names of features that bodies can need.
pub(super) fn features_of(features: Features) -> wgpu::Features {
    let Features { f16, subgroups, matrix } = features;
    let all = [
        (f16, wgpu::Features::SHADER_F16),
        (subgroups, wgpu::Features::SUBGROUP),
        (matrix, wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
    ];
    let wanted = all.into_iter().filter(|f| f.0);
    wanted.fold(wgpu::Features::empty(), |some, f| some | f.1)
}

/// Cooperative matrices that kernels here are written for: square, f16 summed in f32, in subgroups of one size. Whether a driver
/// computes them right is tested when the device is opened (`super::trial`).
fn matrix(adapter: &wgpu::Adapter) -> Option<Matrix> {
    if !adapter.features().contains(features_of(Features::MATRIX)) {
        return None;
    }
    let info = adapter.get_info();
    let subgroup = info.subgroup_min_size;
    let known = adapter.cooperative_matrix_properties();
    let fits = |edge: u32| {
        known.iter().any(|p| {
            [p.m_size, p.n_size, p.k_size] == [edge; 3]
                && p.ab_type == wgpu::CooperativeScalarType::F16
                && p.cr_type == wgpu::CooperativeScalarType::F32
        })
    };
    let edge = [16, 8].into_iter().find(|&edge| fits(edge))?;
    // Kernels count on the size, and WGSL cannot ask for one.
    (info.subgroup_max_size == subgroup && [8, 16, 32, 64].contains(&subgroup))
        .then_some(Matrix { edge, subgroup })
}

fn describe(index: usize, adapter: &wgpu::Adapter, limits: Limits) -> AdapterInfo {
    let info = adapter.get_info();
    let have = if limits != Limits::WebGpu { adapter.features() } else { wgpu::Features::empty() };
    let known = [
        ("shader-f16", wgpu::Features::SHADER_F16),
        ("subgroup", wgpu::Features::SUBGROUP),
        ("timestamp-query", wgpu::Features::TIMESTAMP_QUERY),
    ];
    AdapterInfo {
        index,
        name: info.name,
        pci: info.device_pci_bus_id,
        backend: format!("{:?}", info.backend).to_lowercase(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete gpu",
            wgpu::DeviceType::IntegratedGpu => "integrated gpu",
            wgpu::DeviceType::VirtualGpu => "virtual gpu",
            wgpu::DeviceType::Cpu => "cpu",
            wgpu::DeviceType::Other => "other",
        }
        .into(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().into(),
        features: known.iter().filter(|(_, f)| have.contains(*f)).map(|(n, _)| *n).collect(),
        caps: caps_of(adapter, limits),
    }
}

fn find(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    found.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    found
}

/// Adapters that can compute, best first.
pub fn adapters() -> Vec<AdapterInfo> {
    adapters_within(Limits::Adapter)
}

/// [`adapters`] as devices opened within `limits` show them.
pub fn adapters_within(limits: Limits) -> Vec<AdapterInfo> {
    find(&instance(false)).iter().enumerate().map(|(i, a)| describe(i, a, limits)).collect()
}

/// wgpu's noop adapter.
pub(super) fn noop() -> Result<wgpu::Adapter> {
    let all = pollster::block_on(instance(true).enumerate_adapters(wgpu::Backends::NOOP));
    all.into_iter().next().ok_or_else(|| Error::missing("wgpu", "noop backend"))
}

/// The adapter that is meant, or the best one; see [`super::Wgpu::open`].
pub(super) fn pick(choice: Option<&str>) -> Result<wgpu::Adapter> {
    let mut all = find(&instance(false));
    let meant = meant(&all, choice)?;
    Ok(all.swap_remove(meant))
}
fn meant(all: &[wgpu::Adapter], choice: Option<&str>) -> Result<usize> {
    let names: Vec<Name> = all.iter().map(|a| Name::of(&a.get_info())).collect();
    choose(&names, choice.unwrap_or(""))
}
/// The index among [`adapters()`] of the adapter that is meant, or of the best one; see [`super::Wgpu::open`].
///
/// # Errors
/// As [`super::Wgpu::open`].
pub fn adapter_index(choice: Option<&str>) -> Result<usize> {
    meant(&find(&instance(false)), choice)
}

/// What an adapter can be told by.
struct Name {
    name: String,
    pci: String,
    /// One device has a name for each backend, such as Vulkan and DirectX.
    backend: wgpu::Backend,
}

impl Name {
    fn of(info: &wgpu::AdapterInfo) -> Self {
        Name { name: info.name.clone(), pci: info.device_pci_bus_id.to_lowercase(), backend: info.backend }
    }
}

/// The place of the adapter that `choice` means.
fn choose(all: &[Name], choice: &str) -> Result<usize> {
    if all.is_empty() {
        return Err(Error::missing("graphics drivers", "an adapter with compute shaders")
            .with_hint("Install the GPU's Vulkan driver, or a software one (Debian: mesa-vulkan-drivers)."));
    }
    let wanted = choice.to_lowercase();
    let list = |places: &[usize]| {
        let one = |&i: &usize| match all[i].pci.as_str() {
            "" => format!("{i} {}", all[i].name),
            pci => format!("{i} {} ({pci})", all[i].name),
        };
        places.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let every: Vec<usize> = (0..all.len()).collect();
    let bad = |found: String| Error::bad("device", format!("one of: {}", list(&every)), found);
    if !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_digit()) {
        let index = wanted.parse().ok().filter(|&i| i < all.len());
        return index.ok_or_else(|| {
            bad(format!("no adapter of index {wanted}"))
                .with_hint("A number is an index; write more of the name where one is meant.")
        });
    }
    let fits = |test: &dyn Fn(&Name) -> bool| -> Vec<usize> {
        every.iter().copied().filter(|&i| test(&all[i])).collect()
    };
    let whole = fits(&|n| n.name.to_lowercase() == wanted || !wanted.is_empty() && n.pci == wanted);
    let found = if whole.is_empty() { fits(&|n| n.name.to_lowercase().contains(&wanted)) } else { whole };
    let Some(&first) = found.first() else { return Err(bad(format!("no adapter called `{wanted}`"))) };
    let same: Vec<usize> = found.into_iter().filter(|&i| all[i].backend == all[first].backend).collect();
    if wanted.is_empty() || same.len() == 1 {
        return Ok(first);
    }
    let expected = format!("one adapter, but `{wanted}` fits {}", list(&same));
    Err(Error::bad("device", expected, format!("{} of them", same.len()))
        .with_hint("Give an index, a PCI id, or more of the name."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::Backend::{Dx12, Vulkan};

    /// Place of the choice, or the sentence.
    fn of(all: &[(&str, &str, wgpu::Backend)], choice: &str) -> core::result::Result<usize, String> {
        let name = |&(name, pci, backend): &(&str, &str, wgpu::Backend)| Name {
            name: name.into(),
            pci: pci.into(),
            backend,
        };
        let all: Vec<Name> = all.iter().map(name).collect();
        choose(&all, choice).map_err(|e| format!("{e}"))
    }

    #[test]
    fn index_id_or_a_part_of_the_name() {
        let all = [
            ("GeForce RTX 4090", "0000:01:00.0", Vulkan),
            ("GeForce RTX 4090 Ti", "0000:0a:00.0", Vulkan),
            ("llvmpipe (LLVM 15.0.6, 256 bits)", "", Vulkan),
        ];
        for (choice, place) in [
            ("", 0),
            ("1", 1),
            ("002", 2),
            ("0000:0A:00.0", 1),
            ("geforce rtx 4090", 0),
            ("ti", 1),
            ("LLVM", 2),
        ] {
            assert_eq!(of(&all, choice), Ok(place), "{choice}");
        }
        for (choice, part) in [
            ("3", "no adapter of index 3. A number is an index"),
            ("4090", "one of: 0 GeForce RTX 4090 (0000:01:00.0), 1 GeForce"),
            ("99999999999999999999999", "no adapter of index 9"),
            ("rtx", "`rtx` fits 0 GeForce RTX 4090 (0000:01:00.0), 1 GeForce RTX 4090 Ti (0000:0a:00.0)"),
            ("radeon", "no adapter called `radeon`"),
            ("0000:02:00.0", "no adapter called"),
        ] {
            let sentence = of(&all, choice).expect_err(choice);
            assert!(sentence.contains(part), "{sentence}");
        }
        assert!(of(&[], "").expect_err("none").contains("Install the GPU's"));
    }

    #[test]
    fn twins_are_told_apart_and_backends_of_one_device_are_not() {
        let twins = [("llvmpipe", "", Vulkan), ("llvmpipe", "", Vulkan)];
        assert_eq!((of(&twins, ""), of(&twins, "1")), (Ok(0), Ok(1)));
        assert!(of(&twins, "llvmpipe").expect_err("two").contains("fits 0 llvmpipe, 1 llvmpipe, found 2"));
        let one = [("Arc", "0000:03:00.0", Vulkan), ("Arc", "", Dx12)];
        assert_eq!((of(&one, "arc"), of(&one, "1")), (Ok(0), Ok(1)));
    }
}
