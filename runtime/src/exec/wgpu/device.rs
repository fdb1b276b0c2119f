//! The device, buffers and pipelines.
use super::adapters::{self, Limits, caps_of, features_of};
use super::cache::{Load, PipelineCache};
use super::pipelines::{Built, Pipelines, claim};
use super::{LeafBuffer, Prepared, device_error, stage};
use crate::Result;
use crate::caps::Caps;
use crate::plan::{Command, Plan};
use alloc::{collections::BTreeMap, format, string::String, string::ToString, sync::Arc, vec::Vec};
use pentimento_wgsl::{Class, Variant};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// The wgpu executor.
pub struct Wgpu {
    pub(super) caps: Caps,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) dummy: wgpu::Buffer,
    pub(super) leaves: BTreeMap<String, LeafBuffer>,
    pub(super) plans: Vec<Prepared>,
    /// Work per submit, in FLOPs; follows the measured speed.
    pub(super) budget: u64,
    pub(super) pipelines: Pipelines,
    /// Variants that have run: drivers with a compiler of their own may put it off until then.
    pub(super) run: HashSet<Variant>,
    /// On noop, where nothing is computed: one buffer for all that are alike, so that a large plan needs little memory.
    alike: Option<Mutex<HashMap<(bool, u64), wgpu::Buffer>>>,
    cache: Option<PipelineCache>,
    error: Failure,
    pub(super) notes: Vec<String>,
}

/// The first error that nobody took.
type Failure = Arc<Mutex<Option<String>>>;

/// How a device is opened.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// Limits and features; the planner's [`Caps`] follow them.
    pub limits: Limits,
    /// Threads that build pipelines, at most, from when a plan is prepared; with none each is built where it first runs. By
    /// default as many as there are processors, up to eight, for a GPU, and none for a driver that computes on the
    /// processors itself. They end when nothing is left to build, or with the executor, which waits for what is in work.
    pub threads: Option<usize>,
    /// Where [`Wgpu::pipeline_cache`] of an earlier run was kept; asked once, while the device is opened. What does not fit is
    /// not used, and said in [`Wgpu::notes`].
    pub cache: Option<&'a Load<'a>>,
}

/// Threads that suit a device.
fn threads_for(class: Class) -> usize {
    match class {
        Class::Gpu => std::thread::available_parallelism().map_or(1, usize::from).min(8),
        // llvmpipe compiles when a pipeline first runs; what could be done before that takes a hundredth of the time.
        Class::Software => 0,
    }
}

/// Seconds of work aimed at in one submit: far below the ~2 s after which operating systems kill a job.
pub(super) const SUBMIT_SECONDS: f64 = 0.1;

impl Wgpu {
    /// Opens the best adapter, or the one that `choice` means: its index among [`super::adapters()`], its PCI id, its name or
    /// a part of the name that no other one has, in any letter case. An empty `choice` is none.
    ///
    /// # Errors
    /// No adapter at all, none or several that `choice` fits, or a device that cannot be opened.
    pub fn open(choice: Option<&str>) -> Result<Self> {
        Self::open_within(choice, Limits::Adapter)
    }

    /// [`Wgpu::open`] within `limits`; the planner's [`Caps`] follow them.
    ///
    /// # Errors
    /// As [`Wgpu::open`], or an adapter that offers less.
    pub fn open_within(choice: Option<&str>, limits: Limits) -> Result<Self> {
        Self::open_with(choice, &Options { limits, ..Options::default() })
    }

    /// [`Wgpu::open`] with all that can be asked for.
    ///
    /// # Errors
    /// As [`Wgpu::open_within`].
    pub fn open_with(choice: Option<&str>, options: &Options<'_>) -> Result<Self> {
        let mut exec = Self::from_adapter(&adapters::pick(choice)?, options)?;
        exec.try_matrices();
        Ok(exec)
    }

    /// wgpu's noop backend: validates pipelines, bindings and dispatches against WebGPU's guaranteed limits, without a
    /// driver, and computes nothing. Buffers of equal size are one, so that plans of large models fit any machine.
    ///
    /// # Errors
    /// The backend is missing from this build.
    pub fn noop() -> Result<Self> {
        let options = Options { limits: Limits::WebGpu, ..Options::default() };
        let mut exec = Self::from_adapter(&adapters::noop()?, &options)?;
        exec.caps = Caps { name: exec.caps.name, ..Caps::webgpu() };
        exec.alike = Some(Mutex::default());
        Ok(exec)
    }

    /// What is used.
    pub fn name(&self) -> &str {
        &self.caps.name
    }

    fn from_adapter(adapter: &wgpu::Adapter, options: &Options<'_>) -> Result<Self> {
        let mut caps = caps_of(adapter, options.limits);
        let (device, queue) = request(adapter, options, &mut caps)?;
        let error = listen(&device);
        let mut notes = Vec::new();
        let load = |load| PipelineCache::open(&device, &adapter.get_info(), load, &mut notes);
        let cache = options.cache.and_then(load);
        let threads = options.threads.unwrap_or_else(|| threads_for(caps.class));
        let pipelines = Pipelines::new(device.clone(), cache.as_ref().map(PipelineCache::raw), threads);
        let usage = wgpu::BufferUsages::STORAGE;
        let dummy = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 256,
            usage,
            mapped_at_creation: false,
        });
        let budget = if caps.class == Class::Software { 1_000_000_000 } else { 20_000_000_000 };
        Ok(Wgpu {
            caps,
            device,
            queue,
            dummy,
            leaves: BTreeMap::new(),
            plans: Vec::new(),
            budget,
            pipelines,
            run: HashSet::new(),
            alike: None,
            cache,
            error,
            notes,
        })
    }

    /// What its driver has built, to be kept for later runs; `None` unless [`Options::cache`] was given and the driver and its
    /// interface can do it (Vulkan).
    pub fn pipeline_cache(&self) -> Option<PipelineCache> {
        self.cache.clone()
    }

    /// The first error the driver reported since the last call.
    pub(super) fn failure(&self) -> Result<()> {
        match self.error.lock().ok().and_then(|mut e| e.take()) {
            Some(text) => Err(device_error(&self.caps.name, text)),
            None => Ok(()),
        }
    }

    pub(super) fn create(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = size.max(16).next_multiple_of(16);
        let most = self.device.limits().max_buffer_size;
        if size > most {
            let reason = format!("{label} needs a buffer of {size} bytes, the most is {most}");
            return Err(device_error(&self.caps.name, reason));
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        self.failure()?;
        Ok(buffer)
    }
    pub(super) fn buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer> {
        use wgpu::BufferUsages as U;
        self.create(label, size, U::STORAGE | U::COPY_DST | U::COPY_SRC)
    }
    /// A buffer of zeros for a leaf or an arena. `read_only`: half-precision words, never bound for writing.
    pub(super) fn memory(&self, label: &str, size: u64, read_only: bool) -> Result<wgpu::Buffer> {
        let Some(mut alike) = self.alike.as_ref().and_then(|a| a.lock().ok()) else {
            return self.buffer(label, size);
        };
        if let Some(buffer) = alike.get(&(read_only, size)) {
            return Ok(buffer.clone());
        }
        let buffer = self.buffer(label, size)?;
        alike.insert((read_only, size), buffer.clone());
        Ok(buffer)
    }
    pub(super) fn readback_buffer(&self, size: u64) -> Result<wgpu::Buffer> {
        self.create("readback", size, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ)
    }
    /// Writes bytes; an odd tail is padded with zeros to the 4 bytes wgpu wants.
    pub(super) fn upload(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        let even = bytes.len() / 4 * 4;
        self.queue.write_buffer(buffer, offset, &bytes[..even]);
        if even < bytes.len() {
            let mut tail = [0u8; 4];
            tail[..bytes.len() - even].copy_from_slice(&bytes[even..]);
            self.queue.write_buffer(buffer, offset + even as u64, &tail);
        }
    }

    /// Bytes from one command's uniform block to the next.
    pub(super) fn uniform_stride(&self, c: &Command) -> u64 {
        let align = u64::from(self.device.limits().min_uniform_buffer_offset_alignment).max(16);
        (4 * c.call.words().len() as u64).max(64).next_multiple_of(align)
    }
    /// All uniform blocks of a plan in one buffer.
    pub(super) fn uniforms(&self, plan: &Plan) -> Result<wgpu::Buffer> {
        let mut bytes: Vec<u8> = Vec::new();
        for c in &plan.commands {
            let start = bytes.len();
            bytes.extend_from_slice(bytemuck::cast_slice(&c.call.words()));
            bytes.resize(start + self.uniform_stride(c) as usize, 0);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.create("uniforms", bytes.len() as u64 + 256, usage)?;
        self.upload(&buffer, 0, &bytes);
        Ok(buffer)
    }

    /// A pipeline, built on first use unless a thread was faster.
    pub(super) fn pipeline(&self, v: &Variant) -> Result<Built> {
        let built = self.pipelines.get(v);
        self.failure()?;
        built.map_err(|text| device_error(&self.caps.name, text))
    }

    /// Whether plans are only looked at, never run.
    pub(super) fn validates(&self) -> bool {
        self.alike.is_some()
    }

    /// Texels of a leaf, made once and rewritten with the leaf.
    pub(super) fn leaf_texels(&self, leaf: &LeafBuffer) -> wgpu::TextureView {
        let texture = leaf.texture.get_or_init(|| {
            let texture = stage::texture(&self.device, leaf.len);
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            stage::Copy::new(leaf.buffer.clone(), 0, texture.clone(), leaf.len).encode(&mut encoder);
            self.queue.submit([encoder.finish()]);
            texture
        });
        texture.create_view(&wgpu::TextureViewDescriptor::default())
    }

    /// Waits for the queue.
    pub(super) fn wait(&self) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        waited.map_err(|e| device_error(&self.caps.name, format!("waiting failed: {e}")))?;
        self.failure()
    }

    /// Waits for the queue and copies a mapped buffer out.
    pub(super) fn map<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<T>> {
        let failed = |what: String| device_error(&self.caps.name, what);
        buffer.map_async(wgpu::MapMode::Read, 0..bytes, |_| {});
        self.wait()?;
        let view = buffer.get_mapped_range(0..bytes).map_err(|e| failed(format!("reading failed: {e}")))?;
        let data = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        buffer.unmap();
        Ok(data)
    }

    /// Follows the adapter's speed so that one submit lasts about [`SUBMIT_SECONDS`].
    pub(super) fn learn(&mut self, work: u64, seconds: f64) {
        if work > self.budget / 4 && seconds > 0.0 {
            let speed = work as f64 / seconds;
            let next = (speed * SUBMIT_SECONDS).clamp(self.budget as f64 / 2.0, self.budget as f64 * 2.0);
            self.budget = (next as u64).max(10_000_000);
        }
    }
}

/// Where a device's errors are found from now on.
fn listen(device: &wgpu::Device) -> Failure {
    let error = Failure::default();
    let note = |error: &Failure, text: String| {
        if let Ok(mut slot) = error.lock() {
            slot.get_or_insert(text);
        }
    };
    let (e1, e2) = (error.clone(), error.clone());
    device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
        claim(e.to_string()).into_iter().for_each(|text| note(&e1, text));
    }));
    device.set_device_lost_callback(move |reason, text| {
        if reason != wgpu::DeviceLostReason::Destroyed {
            note(&e2, format!("the device was lost: {text}"));
        }
    });
    error
}

/// The device, with as many optional features as the driver gives; a driver that promises some and refuses them is opened
/// without. `caps` keep what is there.
fn request(
    adapter: &wgpu::Adapter,
    options: &Options<'_>,
    caps: &mut Caps,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    let limits = options.limits;
    let ask = |required_features| {
        // SAFETY: what is experimental is cooperative matrices, whose kernels prove their own bounds and are tested on the device
        // before they are used.
        let experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("pentimento"),
            required_features,
            required_limits: limits.of(adapter),
            experimental_features,
            ..Default::default()
        }))
    };
    let (wanted, timestamps) = (features_of(caps.features), limits.timestamps(adapter));
    let cache = match options.cache {
        Some(_) if limits != Limits::WebGpu => adapter.features() & wgpu::Features::PIPELINE_CACHE,
        _ => wgpu::Features::empty(),
    };
    for optional in [timestamps | cache, timestamps, wgpu::Features::empty()] {
        if let Ok(opened) = ask(wanted | optional) {
            return Ok(opened);
        }
    }
    caps.plain();
    ask(wgpu::Features::empty()).map_err(|e| device_error(&caps.name, format!("cannot be opened: {e}")))
}
