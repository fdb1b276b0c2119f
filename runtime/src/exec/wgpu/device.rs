//! The device, buffers and pipelines.
use super::adapters::{self, Limits, caps_of, features_of};
use super::adopt::Turn;
use super::cache::{Load, PipelineCache};
use super::fault::{Event, Failure, Planned};
use super::flight::Flight;
use super::pace::Pace;
use super::pipelines::{Built, Key, Pipelines};
use super::rooms::Rooms;
use super::{LeafBuffer, Numbers, Prepared, device_error, stage};
use crate::caps::Caps;
use crate::exec::memory::{self, Kinds, Memory};
use crate::exec::plans::Plans;
use crate::exec::stream::WINDOW;
use crate::plan::Plan;
use crate::room::room;
use crate::{Error, Result};
use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use pentimento_wgsl::Class;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// The wgpu executor.
pub struct Wgpu {
    pub(super) caps: Caps,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) dummy: wgpu::Buffer,
    pub(super) leaves: BTreeMap<String, LeafBuffer>,
    pub(super) plans: Plans<Prepared>,
    pub(super) rooms: Rooms,
    memory: Mutex<Memory>,
    /// Bytes that may be held, see [`Wgpu::set_memory`].
    most: u64,
    /// Bytes of streamed weights so far, and of a window.
    pub(super) streamed: u64,
    pub(super) window: u64,
    /// Work per submit, in FLOPs, where no pace is set; follows the measured speed.
    pub(super) budget: u64,
    pub(super) pace: Pace,
    pub(super) flight: Flight,
    pub(super) pipelines: Pipelines,
    /// Pipelines that have run: drivers with a compiler of their own may put it off until then.
    pub(super) run: HashSet<Key>,
    /// On noop, where nothing is computed: one buffer for all that are alike, so that a large plan needs little memory.
    alike: Option<Mutex<HashMap<(bool, u64), wgpu::Buffer>>>,
    cache: Option<PipelineCache>,
    pub(super) error: Failure,
    /// What is to go wrong; tests only.
    pub(super) fault: Option<Planned>,
    pub(super) notes: Vec<String>,
    /// Where the device is a host's: what its memory is reached with.
    #[cfg(not(target_vendor = "apple"))]
    pub(super) vulkan: Option<super::deliver::Own>,
    /// Last, so that a queue that is shared with a host is let go of under its lock.
    pub(super) turn: Turn,
}

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
        exec.caps = Caps { name: core::mem::take(&mut exec.caps.name), ..Caps::webgpu() };
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
        let error = Failure::of(&device);
        Ok(Self::assemble(adapter, (device, queue), caps, error, options))
    }

    /// An executor on an open device.
    pub(super) fn assemble(
        adapter: &wgpu::Adapter,
        (device, queue): (wgpu::Device, wgpu::Queue),
        caps: Caps,
        error: Failure,
        options: &Options<'_>,
    ) -> Self {
        let mut notes = Vec::new();
        let load = |load| PipelineCache::open(&device, &error, &adapter.get_info(), load, &mut notes);
        let cache = options.cache.and_then(load);
        let threads = options.threads.unwrap_or_else(|| threads_for(caps.class));
        let pipelines =
            Pipelines::new(device.clone(), error.clone(), cache.as_ref().map(PipelineCache::raw), threads);
        let usage = wgpu::BufferUsages::STORAGE;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 256, usage, mapped_at_creation: false };
        let dummy = error.watch(|| device.create_buffer(&descriptor));
        let budget = if caps.class == Class::Software { 1_000_000_000 } else { 20_000_000_000 };
        Wgpu {
            caps,
            device,
            queue,
            dummy,
            leaves: BTreeMap::new(),
            plans: Plans::default(),
            rooms: Rooms::default(),
            memory: Mutex::default(),
            most: u64::MAX,
            streamed: 0,
            window: WINDOW,
            budget,
            pace: Pace::default(),
            flight: Flight::default(),
            pipelines,
            run: HashSet::new(),
            alike: None,
            cache,
            error,
            fault: None,
            notes,
            #[cfg(not(target_vendor = "apple"))]
            vulkan: None,
            turn: Turn::default(),
        }
    }

    /// What its driver has built, to be kept for later runs; `None` unless [`Options::cache`] was given and the driver and its
    /// interface can do it (Vulkan).
    pub fn pipeline_cache(&self) -> Option<PipelineCache> {
        self.cache.clone()
    }

    /// The first error the driver reported since the last call; the loss of the device, once it is lost.
    pub(super) fn failure(&self) -> Result<()> {
        self.error.take(&self.caps.name)
    }

    /// Makes a call on the device whose errors are ours, see [`Failure::watch`].
    pub(super) fn ours<T>(&self, make: impl FnOnce() -> T) -> T {
        self.error.watch(make)
    }

    /// Takes note of memory that comes or goes.
    pub(super) fn count(&self, by: impl FnOnce(&mut Kinds)) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).change(by);
    }
    /// What holds more than so many bytes, as [`Executor::memory`](crate::exec::Executor::memory) counts them, is refused from now on like what
    /// a device without memory refuses: for a host that needs the rest.
    pub fn set_memory(&mut self, most: u64) {
        self.most = most;
    }
    /// Notes an allocation that would exceed what may be held.
    fn admits(&self, bytes: u64) {
        let held = self.counted().total();
        if held.saturating_add(bytes) > self.most {
            self.error.refuse(bytes, held, self.most);
        }
    }
    pub(super) fn counted(&self) -> Memory {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wgpu's allocator holds for live buffers and textures, its own ones among them; `None` where the driver's interface does
    /// not tell. To be compared with [`Memory`], which knows what for.
    pub fn reported(&self) -> Option<u64> {
        // What was dropped is freed when the device is next looked at.
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    pub(super) fn create(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = memory::buffer(size);
        let most = self.device.limits().max_buffer_size;
        if size > most {
            let reason = format!("{label} needs a buffer of {size} bytes, the most is {most}");
            return Err(device_error(&self.caps.name, reason));
        }
        self.meets(Event::Allocation);
        self.admits(size);
        self.failure()?;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let buffer = self.ours(|| self.device.create_buffer(&descriptor));
        self.failure()?;
        Ok(buffer)
    }
    pub(super) fn buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer> {
        use wgpu::BufferUsages as U;
        self.create(label, size, U::STORAGE | U::COPY_DST | U::COPY_SRC)
    }
    /// A buffer of zeros for a leaf or an arena. `read_only`: half-precision words, never bound for writing.
    pub(super) fn room(&self, label: &str, size: u64, read_only: bool) -> Result<wgpu::Buffer> {
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
    /// A texture that holds `len` numbers; what fails comes up with the next look at failures.
    pub(super) fn texture(&self, len: usize) -> wgpu::Texture {
        self.meets(Event::Allocation);
        self.admits(memory::texture(len));
        self.ours(|| stage::texture(&self.device, len))
    }
    /// Writes bytes; an odd tail is padded with zeros to the 4 bytes wgpu wants.
    pub(super) fn upload(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        self.meets(Event::Allocation); // of the copy that wgpu keeps
        self.count(|k| k.staging += memory::upload(bytes.len()));
        let even = bytes.len() / 4 * 4;
        self.ours(|| self.queue.write_buffer(buffer, offset, &bytes[..even]));
        if even < bytes.len() {
            let mut tail = [0u8; 4];
            tail[..bytes.len() - even].copy_from_slice(&bytes[even..]);
            self.ours(|| self.queue.write_buffer(buffer, offset + even as u64, &tail));
        }
    }
    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.ours(|| self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()))
    }
    /// Submits what has been uploaded, and then these commands.
    pub(super) fn submit(&self, encoder: Option<wgpu::CommandEncoder>) -> wgpu::SubmissionIndex {
        self.meets(Event::Submit);
        let index = self.ours(|| {
            let commands = encoder.map(wgpu::CommandEncoder::finish);
            let _held = self.turn.hold();
            self.queue.submit(commands)
        });
        self.count(|k| k.staging = 0);
        index
    }

    /// All uniform blocks of a plan in one buffer.
    pub(super) fn uniforms(&self, plan: &Plan) -> Result<wgpu::Buffer> {
        let blocks = memory::uniform_bytes(plan, &self.caps);
        let mut bytes: Vec<u8> = Vec::with_capacity(blocks as usize);
        for c in &plan.commands {
            let end = bytes.len() as u64 + memory::uniform_stride(c, &self.caps);
            bytes.extend_from_slice(bytemuck::cast_slice(&c.words()));
            bytes.resize(end as usize, 0);
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.create("uniforms", memory::uniforms(blocks), usage)?;
        self.upload(&buffer, 0, &bytes);
        Ok(buffer)
    }

    /// A pipeline, built on first use unless a thread was faster.
    pub(super) fn pipeline(&self, v: &Key) -> Result<Built> {
        let built = self.pipelines.get(v);
        self.failure()?;
        built.map_err(|text| device_error(&self.caps.name, text))
    }

    /// Whether plans are only looked at, never run.
    pub(super) fn validates(&self) -> bool {
        self.alike.is_some()
    }

    /// Texels of a leaf, made once and rewritten with the leaf.
    pub(super) fn leaf_texels(&self, leaf: &LeafBuffer) -> Result<wgpu::TextureView> {
        let view = |texture: &wgpu::Texture| {
            self.ours(|| texture.create_view(&wgpu::TextureViewDescriptor::default()))
        };
        let Numbers::Device { buffer, texture: made } = &leaf.numbers else {
            return Err(Error::missing("executor", "texels of a weight that is streamed"));
        };
        if let Some(texture) = made.get() {
            return Ok(view(texture));
        }
        let texture = self.texture(leaf.len);
        self.failure()?;
        self.count(|k| k.textures += memory::texture(leaf.len));
        let mut encoder = self.encoder();
        let copy = stage::Copy::new(buffer.clone(), 0, texture.clone(), leaf.len);
        self.ours(|| copy.encode(&mut encoder));
        self.submit(Some(encoder));
        Ok(view(made.get_or_init(|| texture)))
    }

    /// Waits for the queue.
    pub(super) fn wait(&self) -> Result<()> {
        let before = std::time::Instant::now();
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.pace.away(before.elapsed());
        waited.map_err(|e| device_error(&self.caps.name, format!("waiting failed: {e}")))?;
        self.failure()
    }

    /// Waits for the queue and copies a mapped buffer out.
    pub(super) fn map<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<Vec<T>> {
        self.meets(Event::Readback);
        self.ours(|| buffer.map_async(wgpu::MapMode::Read, 0..bytes, |_| {}));
        let data = self.wait().and_then(|()| match buffer.get_mapped_range(0..bytes) {
            Ok(view) => room(view.len() / size_of::<T>(), "what the device gave").map(|mut all: Vec<T>| {
                all.resize(view.len() / size_of::<T>(), T::zeroed());
                bytemuck::cast_slice_mut(&mut all).copy_from_slice(&view);
                all
            }),
            Err(e) => Err(device_error(&self.caps.name, format!("reading failed: {e}"))),
        });
        self.ours(|| buffer.unmap()); // also after a failure: the buffer is used again
        data
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
