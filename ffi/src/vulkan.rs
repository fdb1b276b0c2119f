//! A program's own device, and its memory as a place for images.
use crate::context::{chars, pmt_context};
use crate::guard::{Failure, Fields, Result, guard, list, place, record, stamped, text};
use crate::handles::keep;
use crate::image::packed;
use crate::job::pmt_job;
use crate::shared::{Shared, Which};
use crate::types::{pmt_format, pmt_status};
use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// The option of `pmt_vulkan_need` and `pmt_vulkan` for cooperative matrices: where the device has them, products are several times as fast.
pub const PMT_VULKAN_MATRIX: u32 = 1;

/// For `pmt_vulkan_image`: no queue family in particular.
pub const PMT_ANY_FAMILY: u32 = u32::MAX;

/// Takes or gives back the program's lock on a queue. Called on the context's own thread, and on those that free the last of a context.
pub type pmt_lock = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// What a device is to be made with.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum pmt_vulkan_need_kind {
    /// An extension of the VkInstance.
    InstanceExtension = 1,
    /// An extension of the VkDevice.
    DeviceExtension = 2,
    /// A feature of the VkDevice.
    Feature = 3,
}

/// Something that a device is to be made with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pmt_vulkan_need {
    /// One of `pmt_vulkan_need_kind`.
    pub kind: u32,
    /// 0: there is no doing without. Else the option that it belongs to, PMT_VULKAN_MATRIX.
    pub option: u32,
    /// Of a feature: the VkStructureType of the structure that has it, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2 for those of
    /// VkPhysicalDeviceFeatures. Where the program uses a VkPhysicalDeviceVulkan11Features or a later one, that one has it by the same name.
    pub structure: u32,
    /// Of a feature: where its VkBool32 lies in that structure, bytes.
    pub offset: u32,
    /// The extension's name, or "VkPhysicalDevice...Features.feature"; ends in 0.
    pub name: [c_char; 128],
}

/// A program's Vulkan device. Vulkan's own handles, as they are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pmt_vulkan {
    /// `sizeof(pmt_vulkan)`.
    pub size: u64,
    /// vkGetInstanceProcAddr.
    pub get_instance_proc_addr: *const c_void,
    /// VkInstance.
    pub instance: *mut c_void,
    /// VkPhysicalDevice. NULL for `pmt_vulkan_needs`: tell of the instance only.
    pub physical_device: *mut c_void,
    /// VkDevice. Not looked at by `pmt_vulkan_needs`.
    pub device: *mut c_void,
    /// The instance's extensions, `instance_extension_count` strings.
    pub instance_extensions: *const *const c_char,
    /// The device's extensions, `device_extension_count` strings.
    pub device_extensions: *const *const c_char,
    /// Where the program uses the queue, too, or calls vkDeviceWaitIdle: takes the lock under which it does. Held while something is
    /// submitted and while the queue is let go of, never while work is waited for. NULL: the queue is the library's alone.
    pub lock: pmt_lock,
    /// Gives the lock back. NULL exactly where `lock` is.
    pub unlock: pmt_lock,
    /// Given to both.
    pub user: *mut c_void,
    /// How many.
    pub instance_extension_count: u32,
    /// How many.
    pub device_extension_count: u32,
    /// The version in the VkApplicationInfo of the instance: at least the device's own, or VK_API_VERSION_1_3 where that is lower.
    pub api_version: u32,
    /// A family of queues that can compute.
    pub queue_family: u32,
    /// The queue in the family, best one of its own: work then runs beside the program's.
    pub queue_index: u32,
    /// The options, all of whose needs the device was made with: PMT_VULKAN_MATRIX or 0.
    pub options: u32,
}

/// A VkImage or a VkBuffer of the program's on the adopted device, and when it may be written.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pmt_vulkan_image {
    /// `sizeof(pmt_vulkan_image)`.
    pub size: u64,
    /// VkImage, with VK_IMAGE_USAGE_TRANSFER_DST_BIT, of one sample and the size of the job's images; its first level and layer are written. 0
    /// for a buffer.
    pub image: u64,
    /// VkBuffer, with VK_BUFFER_USAGE_TRANSFER_DST_BIT; rows follow each other without padding. 0 for an image.
    pub buffer: u64,
    /// Of a buffer: the byte where the first row begins.
    pub offset: u64,
    /// VkSemaphore that is waited for before the memory is written; 0: none.
    pub wait_semaphore: u64,
    /// The value waited for; 0 for a binary semaphore.
    pub wait_value: u64,
    /// VkSemaphore that is signalled when the image is there; 0: none, and the call waits for the copy.
    pub signal_semaphore: u64,
    /// The value signalled; 0 for a binary semaphore.
    pub signal_value: u64,
    /// One of `pmt_format`, in which the image's texels or the buffer's pixels are: PMT_FORMAT_RGBA8 for VK_FORMAT_R8G8B8A8_UNORM and _SRGB,
    /// PMT_FORMAT_RGBA16F for VK_FORMAT_R16G16B16A16_SFLOAT and so on.
    pub format: u32,
    /// The image's VkImageLayout before; VK_IMAGE_LAYOUT_UNDEFINED (0) where its content is of no use.
    pub old_layout: u32,
    /// The image's VkImageLayout after: not VK_IMAGE_LAYOUT_UNDEFINED.
    pub new_layout: u32,
    /// The queue family that owns the memory afterwards, where it is of exclusive sharing mode and the program's is another one than the
    /// context's: the program acquires it there. PMT_ANY_FAMILY: ownership stays as it is.
    pub family: u32,
}

const _: () =
    assert!(size_of::<pmt_vulkan>() == 10 * 8 + 6 * 4 && size_of::<pmt_vulkan_image>() == 8 * 8 + 4 * 4);
const _: () = assert!(size_of::<pmt_vulkan_need>() == 4 * 4 + 128);
impl Fields for pmt_vulkan {
    const WIDE: usize = 10;
}
impl Fields for pmt_vulkan_image {
    const WIDE: usize = 8;
}
impl Fields for pmt_vulkan_need {
    const WIDE: usize = 0;
}

const NO_VULKAN: pmt_vulkan = pmt_vulkan {
    size: size_of::<pmt_vulkan>() as u64,
    get_instance_proc_addr: null(),
    instance: null_mut(),
    physical_device: null_mut(),
    device: null_mut(),
    instance_extensions: null(),
    device_extensions: null(),
    lock: None,
    unlock: None,
    user: null_mut(),
    instance_extension_count: 0,
    device_extension_count: 0,
    api_version: 0,
    queue_family: 0,
    queue_index: 0,
    options: 0,
};

const NO_IMAGE: pmt_vulkan_image = pmt_vulkan_image {
    size: size_of::<pmt_vulkan_image>() as u64,
    image: 0,
    buffer: 0,
    offset: 0,
    wait_semaphore: 0,
    wait_value: 0,
    signal_semaphore: 0,
    signal_value: 0,
    format: pmt_format::Rgba8 as u32,
    old_layout: 0,
    new_layout: 0,
    family: PMT_ANY_FAMILY,
};

/// Lists what a program's VkInstance and VkDevice must be made with to be adopted: at most `capacity` needs into `needs`, each of `size` bytes
/// (`sizeof(pmt_vulkan_need)`), and in `count` how many there are; so `needs` may be NULL when `capacity` is 0. Without a physical device, and
/// on an instance that lacks a need of its own, only the instance's are told. PMT_STATUS_DEVICE where the physical device cannot be used, or
/// where the library has no Vulkan. Milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_vulkan_needs(
    vulkan: *const pmt_vulkan,
    needs: *mut pmt_vulkan_need,
    size: usize,
    capacity: u32,
    count: *mut u32,
) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let (vulkan, count) = unsafe { (stamped(vulkan, NO_VULKAN, "vulkan")?, place(count, "count", 0)?) };
        let all = needed(&vulkan)?;
        *count = all.len() as u32;
        for (index, need) in all.iter().take(capacity as usize).enumerate() {
            // SAFETY: the rules in the header.
            let one = unsafe { record(needs.wrapping_byte_add(index.saturating_mul(size)), size, "needs")? };
            one.fill(need);
        }
        Ok(())
    })
}

/// Makes a context that works on a program's Vulkan device. Checked, and adopted, by the first job or by `pmt_context_open`, which tells what
/// is wrong. The instance, the device and what `user` points to must live until everything that was made with the context is freed, and the
/// context too; the structure and its strings only during this call. Nothing of the program's is destroyed. What `pmt_vulkan_needs`
/// lists must have been enabled: extensions are checked, features cannot be. Where no `lock` is given nobody else may use the queue, and
/// nobody call vkDeviceWaitIdle meanwhile. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_adopt_vulkan(
    vulkan: *const pmt_vulkan,
    context: *mut *mut pmt_context,
) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let (context, vulkan) =
            unsafe { (place(context, "context", null_mut())?, stamped(vulkan, NO_VULKAN, "vulkan")?) };
        *context = keep(pmt_context(Arc::new(Shared::on(given(&vulkan)?)?)));
        Ok(())
    })
}

/// The same for an MTLDevice and an MTLCommandQueue. Not supported yet: `pmt_context_open` and jobs are PMT_STATUS_DEVICE and say so. Returns at
/// once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_adopt_metal(
    device: *mut c_void,
    queue: *mut c_void,
    context: *mut *mut pmt_context,
) -> pmt_status {
    guard!(_, { unsupported([device, queue], context, "Metal") })
}

/// The same for an ID3D12Device and an ID3D12CommandQueue. Not supported yet: `pmt_context_open` and jobs are PMT_STATUS_DEVICE and say so.
/// Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_context_adopt_d3d12(
    device: *mut c_void,
    queue: *mut c_void,
    context: *mut *mut pmt_context,
) -> pmt_status {
    guard!(_, { unsupported([device, queue], context, "Direct3D 12") })
}

fn unsupported(
    handles: [*mut c_void; 2],
    context: *mut *mut pmt_context,
    interface: &'static str,
) -> Result<()> {
    // SAFETY: the rules in the header.
    let context = unsafe { place(context, "context", null_mut())? };
    if handles.iter().any(|handle| handle.is_null()) {
        return Err(Failure::argument("device and queue", "pointers", "NULL"));
    }
    *context = keep(pmt_context(Arc::new(Shared::on(Which::Unsupported(interface))?)));
    Ok(())
}

/// Copies the image of an index, from 0, of a drawing into memory of the program whose Vulkan device the context adopted, on that device and on the
/// context's queue; PMT_STATUS_PENDING before the image is there. Waits for the piece of work in progress; then, with a semaphore to
/// signal, only until the copy is submitted, and else until it is done. The memory and the semaphores must live until then. A semaphore
/// to wait for must be signalled by work that is submitted already, unless it is a timeline's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_copy_image(
    job: *const pmt_job,
    index: u32,
    image: *const pmt_vulkan_image,
) -> pmt_status {
    guard!(job, {
        // SAFETY: the rules in the header.
        let image = unsafe { stamped(image, NO_IMAGE, "image")? };
        let picture = job.job.picture(index as usize).ok_or(Failure::Pending)?;
        let bytes = packed(&picture, image.format)?;
        deliver(job, bytes, [picture.width as u32, picture.height as u32], &image)
    })
}

#[cfg(target_vendor = "apple")]
mod with {
    use super::*;

    pub fn needed(_: &pmt_vulkan) -> Result<Vec<pmt_vulkan_need>> {
        Err(runtime::exec::wgpu::unsupported("Vulkan, on this system,").into())
    }
    pub fn given(_: &pmt_vulkan) -> Result<Which> {
        Ok(Which::Unsupported("Vulkan, on this system,"))
    }
    pub fn deliver(_: &pmt_job, _: Vec<u8>, _: [u32; 2], _: &pmt_vulkan_image) -> Result<()> {
        Err(runtime::exec::wgpu::unsupported("Vulkan, on this system,").into())
    }
}

#[cfg(not(target_vendor = "apple"))]
mod with {
    use super::*;
    use runtime::exec::wgpu::{Handles, NeedKind, QueueLock, Semaphore, Target, To, needs};

    /// A function of the program's and its own pointer.
    struct Call(unsafe extern "C" fn(*mut c_void), *mut c_void);
    // SAFETY: only handed to the program's own function, which the header tells to expect other threads.
    unsafe impl Send for Call {}
    // SAFETY: as above.
    unsafe impl Sync for Call {}
    impl Call {
        fn call(&self) {
            // SAFETY: the program's function and its own pointer.
            unsafe { (self.0)(self.1) }
        }
    }

    fn names(all: *const *const c_char, count: u32, name: &str) -> Result<Vec<String>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the rules in the header.
        let all = unsafe { list(all, count as usize, name, "names")? };
        // SAFETY: as above.
        all.iter().map(|&p| unsafe { text(p, name) }.map(String::from)).collect()
    }

    fn handles(vulkan: &pmt_vulkan) -> Result<Handles> {
        // SAFETY: the rules in the header.
        let all = unsafe { Handles::new(vulkan.get_instance_proc_addr) }.map_err(Failure::Argument)?;
        let lock = match (vulkan.lock, vulkan.unlock) {
            (Some(lock), Some(unlock)) => {
                let (lock, unlock) = (Call(lock, vulkan.user), Call(unlock, vulkan.user));
                Some(Arc::new(QueueLock::new(move || lock.call(), move || unlock.call())))
            }
            (None, None) => None,
            _ => return Err(Failure::argument("vulkan.lock and unlock", "both or none", "one")),
        };
        const { assert!(PMT_VULKAN_MATRIX == runtime::exec::wgpu::MATRIX) };
        if vulkan.options & !PMT_VULKAN_MATRIX != 0 {
            let found = vulkan.options.to_string();
            return Err(Failure::argument("vulkan.options", "PMT_VULKAN_MATRIX or 0", found));
        }
        Ok(Handles {
            instance: vulkan.instance.addr() as u64,
            physical_device: vulkan.physical_device.addr() as u64,
            device: vulkan.device.addr() as u64,
            api_version: vulkan.api_version,
            queue: [vulkan.queue_family, vulkan.queue_index],
            instance_extensions: names(
                vulkan.instance_extensions,
                vulkan.instance_extension_count,
                "vulkan.instance_extensions",
            )?,
            device_extensions: names(
                vulkan.device_extensions,
                vulkan.device_extension_count,
                "vulkan.device_extensions",
            )?,
            options: vulkan.options,
            lock,
            ..all
        })
    }

    pub fn needed(vulkan: &pmt_vulkan) -> Result<Vec<pmt_vulkan_need>> {
        // SAFETY: the rules in the header.
        let all = unsafe { needs(&handles(vulkan)?).map_err(crate::shared::of_call)? };
        let kind = |kind| match kind {
            NeedKind::InstanceExtension => pmt_vulkan_need_kind::InstanceExtension,
            NeedKind::DeviceExtension => pmt_vulkan_need_kind::DeviceExtension,
            NeedKind::Feature => pmt_vulkan_need_kind::Feature,
        };
        let one = |need: runtime::exec::wgpu::Need| pmt_vulkan_need {
            kind: kind(need.kind) as u32,
            option: need.option,
            structure: need.structure,
            offset: need.offset,
            name: chars(&need.name),
        };
        Ok(all.into_iter().map(one).collect())
    }

    pub fn given(vulkan: &pmt_vulkan) -> Result<Which> {
        Ok(Which::Vulkan(Box::new(handles(vulkan)?)))
    }

    pub fn deliver(job: &pmt_job, bytes: Vec<u8>, size: [u32; 2], image: &pmt_vulkan_image) -> Result<()> {
        let to = match (image.image, image.buffer) {
            (0, 0) => return Err(Failure::argument("image.image and buffer", "one of them", "none")),
            (0, buffer) => To::Buffer(buffer, image.offset),
            (_, 0) if image.new_layout == 0 => {
                let found = "VK_IMAGE_LAYOUT_UNDEFINED";
                return Err(Failure::argument("image.new_layout", "a layout", found));
            }
            (image_, 0) => To::Image(image_, [image.old_layout as i32, image.new_layout as i32]),
            _ => return Err(Failure::argument("image.image and buffer", "one of them", "both")),
        };
        let semaphore = |handle, value| (handle != 0).then_some(Semaphore { handle, value });
        let target = Target {
            to,
            size,
            family: (image.family != PMT_ANY_FAMILY).then_some(image.family),
            wait: semaphore(image.wait_semaphore, image.wait_value),
            signal: semaphore(image.signal_semaphore, image.signal_value),
        };
        // SAFETY: the rules in the header.
        unsafe { job.shared.host.deliver(bytes, target).map_err(crate::shared::of_call) }
    }
}
use with::{deliver, given, needed};
