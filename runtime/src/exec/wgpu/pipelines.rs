//! Pipelines: built where a command first needs them, or before that by threads. What is built does not depend on by whom.
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::result::Result; // a refusal is wgpu's text; who asks for the pipeline makes an error of it
use pentimento_wgsl::{Binding, Variant, link};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// A pipeline and the layout of its bindings.
pub(super) type Built = (wgpu::ComputePipeline, wgpu::BindGroupLayout);

enum State {
    /// By somebody, who tells when it is done.
    InWork,
    /// Or refused.
    Done(Result<Built, String>),
}

#[derive(Default)]
struct Table {
    known: HashMap<Variant, State>,
    /// Asked for, and perhaps known meanwhile.
    waiting: VecDeque<Variant>,
    /// Threads that still look at `waiting`.
    threads: usize,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

/// All pipelines of a device.
pub(super) struct Pipelines {
    maker: Maker,
    shared: Arc<Shared>,
    most: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Pipelines {
    /// None yet; `most` threads at a time build them.
    pub(super) fn new(device: wgpu::Device, cache: Option<wgpu::PipelineCache>, most: usize) -> Self {
        let shared = Arc::default();
        Pipelines { maker: Maker { device, cache }, shared, most, threads: Vec::new() }
    }

    /// Lets threads build, in this order, what is not there yet. Does nothing where there are to be no threads.
    pub(super) fn ahead(&mut self, variants: impl Iterator<Item = Variant>) {
        if self.most == 0 {
            return;
        }
        let mut table = self.shared.table();
        for v in variants {
            if !table.known.contains_key(&v) && !table.waiting.contains(&v) {
                table.waiting.push_back(v);
            }
        }
        self.threads.retain(|t| !t.is_finished());
        while table.threads < self.most.min(table.waiting.len()) {
            let (shared, maker) = (self.shared.clone(), self.maker.clone());
            let thread =
                Builder::new().name("pentimento pipelines".into()).spawn(move || shared.work(&maker));
            // Where the system gives none, pipelines are built by who needs them.
            let Ok(thread) = thread else { return };
            table.threads += 1;
            self.threads.push(thread);
        }
    }

    /// Threads finish what they have begun and begin nothing more.
    pub(super) fn stop(&self) {
        self.shared.table().waiting.clear();
    }

    /// A pipeline, built here unless it is there or in work. A refused one is built again when it is asked for again.
    pub(super) fn get(&self, v: &Variant) -> Result<Built, String> {
        let mut table = self.shared.table();
        loop {
            match table.known.get(v) {
                Some(State::Done(Ok(built))) => return Ok(built.clone()),
                Some(State::Done(Err(_))) => {
                    let Some(State::Done(refused)) = table.known.remove(v) else { continue };
                    return refused;
                }
                Some(State::InWork) => table = self.shared.wait(table),
                None => {
                    let turn = Turn::new(&self.shared, &mut table, *v);
                    drop(table);
                    turn.build(&self.maker);
                    table = self.shared.table();
                }
            }
        }
    }
}

/// A driver that compiles cannot be interrupted, and a program must not end or unload the library under it: waits for the
/// pipelines in work, one a thread.
impl Drop for Pipelines {
    fn drop(&mut self) {
        self.stop();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wait<'a>(&self, table: MutexGuard<'a, Table>) -> MutexGuard<'a, Table> {
        self.changed.wait(table).unwrap_or_else(PoisonError::into_inner)
    }
    /// The next one that waits and that nobody builds; without any the thread is counted out.
    fn next(&self) -> Option<Turn<'_>> {
        let mut table = self.table();
        while let Some(v) = table.waiting.pop_front() {
            if !table.known.contains_key(&v) {
                return Some(Turn::new(self, &mut table, v));
            }
        }
        table.threads -= 1;
        None
    }
    /// A thread's life.
    fn work(&self, maker: &Maker) {
        while let Some(turn) = self.next() {
            // A bug in wgpu is met again by whoever needs this pipeline.
            let _ = catch_unwind(AssertUnwindSafe(|| turn.build(maker)));
        }
    }
}

/// The right, and the duty, to build a pipeline.
struct Turn<'a> {
    shared: &'a Shared,
    v: Variant,
}

impl<'a> Turn<'a> {
    fn new(shared: &'a Shared, table: &mut Table, v: Variant) -> Self {
        table.known.insert(v, State::InWork);
        Turn { shared, v }
    }
    fn build(self, maker: &Maker) {
        let built = maker.build(&self.v);
        self.shared.table().known.insert(self.v, State::Done(built));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut table = self.shared.table();
        if matches!(table.known.get(&self.v), Some(State::InWork)) {
            table.known.remove(&self.v); // a panic: nobody must wait for it
        }
        self.shared.changed.notify_all();
    }
}

/// What a pipeline is built with.
#[derive(Clone)]
struct Maker {
    device: wgpu::Device,
    cache: Option<wgpu::PipelineCache>,
}

impl Maker {
    fn build(&self, v: &Variant) -> Result<Built, String> {
        let module = caught(|| {
            let source = wgpu::ShaderSource::Wgsl(link(v).into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(v.entry()), source };
            let checks = wgpu::ShaderRuntimeChecks::unchecked();
            // SAFETY: kernels prove their own bounds (tests run them against their twins); loops end by construction.
            unsafe { self.device.create_shader_module_trusted(descriptor, checks) }
        })?;
        caught(|| {
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
                cache: self.cache.as_ref(),
            });
            (pipeline, layout)
        })
    }

    fn layout(&self, v: &Variant) -> wgpu::BindGroupLayout {
        let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None };
        let storage = |read_only| buffer(wgpu::BufferBindingType::Storage { read_only });
        let uniform = buffer(wgpu::BufferBindingType::Uniform);
        let texture = wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: false },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        };
        let kinds = v.bindings().into_iter().map(|(n, kind)| {
            let ty = match kind {
                Binding::Storage => storage(false),
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
}

std::thread_local! {
    /// The first error of what this thread makes, while it makes something.
    static CAUGHT: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// What `make` makes, or the first error that it met. (wgpu's own scopes belong to all threads together unless its `std` is on,
/// which asks for half a dozen crates of browsers.)
pub(super) fn caught<T>(make: impl FnOnce() -> T) -> Result<T, String> {
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            CAUGHT.take();
        }
    }
    let scope = Scope;
    CAUGHT.set(Some(None));
    let made = make();
    let error = CAUGHT.take().flatten();
    drop(scope);
    error.map_or(Ok(made), Err)
}

/// Takes an error, which wgpu tells on the thread that made it, and gives it back where that is nobody's in [`caught`].
pub(super) fn claim(error: String) -> Option<String> {
    CAUGHT.with_borrow_mut(|caught| match caught {
        Some(first) => {
            first.get_or_insert(error);
            None
        }
        None => Some(error),
    })
}
