//! The device, buffers and pipelines.
use super::adapters::{self, Limits, caps_of, features_of};
use super::{LeafBuffer, Prepared, device_error, stage};
use crate::Result;
use crate::caps::Caps;
use crate::plan::{Command, Plan};
use alloc::{collections::BTreeMap, format, string::String, string::ToString, sync::Arc, vec::Vec};
use pentimento_wgsl::{Binding, Class, Variant, link};
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
    pipelines: HashMap<Variant, (wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
    /// Variants that have run: drivers with a compiler of their own may put it off until then.
    pub(super) run: HashSet<Variant>,
    /// On noop, where nothing is computed: one buffer for all that are alike, so that a large plan needs little memory.
    alike: Option<Mutex<HashMap<(bool, u64), wgpu::Buffer>>>,
    error: Arc<Mutex<Option<String>>>,
    pub(super) notes: Vec<String>,
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
        let mut exec = Self::from_adapter(&adapters::pick(choice)?, limits)?;
        exec.try_matrices();
        Ok(exec)
    }

    /// wgpu's noop backend: validates pipelines, bindings and dispatches against WebGPU's guaranteed limits, without a
    /// driver, and computes nothing. Buffers of equal size are one, so that plans of large models fit any machine.
    ///
    /// # Errors
    /// The backend is missing from this build.
    pub fn noop() -> Result<Self> {
        let mut exec = Self::from_adapter(&adapters::noop()?, Limits::WebGpu)?;
        exec.caps = Caps { name: exec.caps.name, ..Caps::webgpu() };
        exec.alike = Some(Mutex::default());
        Ok(exec)
    }

    /// What is used.
    pub fn name(&self) -> &str {
        &self.caps.name
    }

    fn from_adapter(adapter: &wgpu::Adapter, limits: Limits) -> Result<Self> {
        let mut caps = caps_of(adapter, limits);
        let (device, queue) = request(adapter, limits, &mut caps)?;
        let error = Arc::new(Mutex::new(None));
        let note = |error: &Arc<Mutex<Option<String>>>, text: String| {
            if let Ok(mut slot) = error.lock() {
                slot.get_or_insert(text);
            }
        };
        let (e1, e2) = (error.clone(), error.clone());
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| note(&e1, e.to_string())));
        device.set_device_lost_callback(move |reason, text| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&e2, format!("the device was lost: {text}"));
            }
        });
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
            pipelines: HashMap::new(),
            run: HashSet::new(),
            alike: None,
            error,
            notes: Vec::new(),
        })
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

    /// A pipeline, built on first use.
    pub(super) fn pipeline(&mut self, v: &Variant) -> Result<(wgpu::ComputePipeline, wgpu::BindGroupLayout)> {
        if let Some(found) = self.pipelines.get(v) {
            return Ok(found.clone());
        }
        let source = wgpu::ShaderSource::Wgsl(link(v).into());
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(v.entry()), source };
        // SAFETY: kernels prove their own bounds (tests run them against their twins); loops end by construction.
        let module = unsafe {
            self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        };
        self.failure()?;
        let layout = self.layout(v);
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            ..Default::default()
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(v.entry()),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(v.entry()),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.failure()?;
        self.pipelines.insert(*v, (pipeline.clone(), layout.clone()));
        Ok((pipeline, layout))
    }

    fn layout(&self, v: &Variant) -> wgpu::BindGroupLayout {
        let storage = |read_only| wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        };
        let uniform = wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: false,
            min_binding_size: None,
        };
        let texture = wgpu::BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::ReadOnly,
            format: stage::FORMAT,
            view_dimension: wgpu::TextureViewDimension::D2,
        };
        let kinds = v.bindings().into_iter().map(|(n, kind)| {
            let ty = match kind {
                Binding::Storage | Binding::Written(_) => storage(false),
                Binding::Packed(_) => storage(true),
                Binding::Texture => texture,
            };
            (n, ty)
        });
        let entries: Vec<_> = core::iter::once((0, uniform))
            .chain(kinds)
            .map(|(binding, ty)| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty,
                count: None,
            })
            .collect();
        self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(v.entry()),
            entries: &entries,
        })
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

/// The device, with as many optional features as the driver gives; a driver that promises some and refuses them is opened
/// without. `caps` keep what is there.
fn request(adapter: &wgpu::Adapter, limits: Limits, caps: &mut Caps) -> Result<(wgpu::Device, wgpu::Queue)> {
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
    if let Ok(opened) = ask(wanted | timestamps) {
        return Ok(opened);
    }
    if let Ok(opened) = ask(wanted) {
        return Ok(opened);
    }
    caps.plain();
    ask(wgpu::Features::empty()).map_err(|e| device_error(&caps.name, format!("cannot be opened: {e}")))
}
