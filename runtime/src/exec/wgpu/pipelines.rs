//! Pipelines: built where a command first needs them, or before that by threads. What is built does not depend on by whom.
use super::fault::Failure;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::result::Result; // a refusal is wgpu's text; who asks for the pipeline makes an error of it
use pentimento_wgsl::{Binding, Variant, link_together};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// What a pipeline is for: so many commands of a variant in one dispatch.
pub(super) type Key = (Variant, u32);

/// A pipeline and the layout of each command's bindings.
pub(super) type Built = (wgpu::ComputePipeline, wgpu::BindGroupLayout);

enum State {
    /// By somebody, who tells when it is done.
    InWork,
    /// Or refused.
    Done(Result<Built, String>),
}

#[derive(Default)]
struct Table {
    known: HashMap<Key, State>,
    /// Asked for, and perhaps known meanwhile.
    waiting: VecDeque<Key>,
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
    pub(super) fn new(
        device: wgpu::Device,
        error: Failure,
        cache: Option<wgpu::PipelineCache>,
        most: usize,
    ) -> Self {
        let shared = Arc::default();
        Pipelines { maker: Maker { device, error, cache }, shared, most, threads: Vec::new() }
    }

    /// Lets threads build, in this order, what is not there yet. Does nothing where there are to be no threads.
    pub(super) fn ahead(&mut self, keys: impl Iterator<Item = Key>) {
        if self.most == 0 {
            return;
        }
        let mut table = self.shared.table();
        for v in keys {
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
    pub(super) fn get(&self, v: &Key) -> Result<Built, String> {
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
    v: Key,
}

impl<'a> Turn<'a> {
    fn new(shared: &'a Shared, table: &mut Table, v: Key) -> Self {
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
    error: Failure,
    cache: Option<wgpu::PipelineCache>,
}

impl Maker {
    fn build(&self, (v, together): &Key) -> Result<Built, String> {
        let module = self.error.caught(|| {
            let source = wgpu::ShaderSource::Wgsl(link_together(v, *together).into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(v.entry()), source };
            let checks = wgpu::ShaderRuntimeChecks::unchecked();
            // SAFETY: kernels prove their own bounds (tests run them against their twins); loops end by construction.
            unsafe { self.device.create_shader_module_trusted(descriptor, checks) }
        })?;
        self.error.caught(|| {
            let layout = self.layout(v);
            let layouts = alloc::vec![Some(&layout); *together as usize];
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &layouts,
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
        let texture = wgpu::BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::ReadOnly,
            format: super::stage::FORMAT,
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

#[cfg(test)]
mod tests {
    use super::super::Wgpu;
    use super::*;
    use crate::exec::{Executor, compile};
    use crate::graph::{Graph, Layout};
    use alloc::{format, vec};
    use core::time::Duration;
    use pentimento_wgsl::Stored;
    use pentimento_wgsl::kernel::{Features, Matrix, variants};

    /// The noop device, whose pipelines are validated and translated, with so many threads.
    fn noop(threads: usize) -> Wgpu {
        let mut noop = Wgpu::noop().expect("noop");
        noop.pipelines = Pipelines::new(noop.device.clone(), noop.error.clone(), None, threads);
        noop
    }
    fn all() -> impl Iterator<Item = Key> {
        variants().into_iter().map(|v| (v, 1))
    }
    /// Pipelines that every device takes, and one that needs what noop is not opened with.
    fn some() -> (Vec<Key>, Key) {
        let (bad, good): (Vec<_>, Vec<_>) = all().partition(|(v, _)| v.needs().features.matrix);
        (good.into_iter().step_by(40).collect(), bad[0])
    }
    fn eventually(what: &str, test: impl Fn() -> bool) {
        let since = std::time::Instant::now();
        while !test() {
            assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn threads_build_all_that_is_asked_for_once_and_end() {
        let (good, bad) = some();
        let noop = &mut noop(3);
        noop.pipelines.ahead(good.iter().copied().chain([bad]).chain(good.iter().copied()));
        assert!((1..=3).contains(&noop.pipelines.threads.len()));
        let shared = noop.pipelines.shared.clone();
        eventually("the end of the threads", || shared.table().threads == 0);
        let known = |v| matches!(shared.table().known.get(v), Some(State::Done(Ok(_))));
        assert!(good.iter().all(known) && !known(&bad) && shared.table().known.len() == good.len() + 1);
        // What comes later starts threads anew.
        let more: Vec<Key> = all().skip(1).step_by(40).collect();
        noop.pipelines.ahead(more.iter().copied());
        eventually("the second end", || shared.table().threads == 0);
        assert!(more.iter().all(|v| shared.table().known.contains_key(v)));
    }

    #[test]
    fn a_refusal_is_the_same_whoever_builds() {
        let (good, bad) = some();
        let alone = noop(0);
        alone.pipelines.maker.build(&bad).expect_err("matrices without the feature");
        let refused = alone.pipeline(&bad).err().map(|e| format!("{e}")).expect("a refusal");
        assert!(refused.contains(bad.0.entry()), "{refused}");
        let mut threads = noop(2);
        threads.pipelines.ahead([bad].into_iter().chain(good.iter().copied()));
        let shared = threads.pipelines.shared.clone();
        eventually("the end of the threads", || shared.table().threads == 0);
        for exec in [&alone, &threads] {
            for _ in 0..2 {
                assert_eq!(exec.pipeline(&bad).err().map(|e| format!("{e}")).as_ref(), Some(&refused));
                assert!(exec.failure().is_ok() && good.iter().all(|v| exec.pipeline(v).is_ok()));
            }
        }
    }

    /// A plan in which one command's shader is refused fails with that sentence, and the device is still good for others.
    #[test]
    fn a_plan_fails_at_the_command_that_is_refused() {
        let run = |threads| {
            let mut noop = noop(threads);
            let plain = noop.caps.clone();
            noop.caps.features = Features::MATRIX;
            (noop.caps.workgroup_memory, noop.caps.invocations) = (1 << 16, 1024);
            noop.caps.matrix = Some(Matrix { edge: 16, subgroup: 32 });
            let mut g = Graph::new();
            let (x, w) = (g.input("x", &[256, 256]), g.weight("w", &[256, 256], Layout::Plain));
            let s = g.softmax(x, 1.0);
            let y = g.linear(s, w, None);
            let y = g.softmax(y, 2.0);
            noop.declare_leaf("w", Stored::F16, 256 * 256).expect("room");
            let refused = compile(&mut noop, g.clone(), &[("y", y)]).map(|_| ()).map_err(|e| format!("{e}"));
            noop.caps = plain;
            let plan = compile(&mut noop, g, &[("y", y)]).expect("a plan without matrices");
            noop.run(plan).expect("a run");
            refused.expect_err("matrices without the feature")
        };
        let alone = run(0);
        assert!(alone.contains("matmul") && [1, 4].iter().all(|&threads| run(threads) == alone), "{alone}");
    }

    #[test]
    fn a_device_dropped_in_the_middle_leaves_nothing() {
        for wait in [0, 1, 5] {
            let mut noop = noop(4);
            noop.pipelines.ahead(all());
            std::thread::sleep(Duration::from_millis(wait));
            let shared = Arc::downgrade(&noop.pipelines.shared);
            drop(noop);
            assert!(shared.upgrade().is_none(), "a thread lives on");
        }
    }

    #[test]
    fn a_builder_that_panics_is_waited_for_by_nobody() {
        let (noop, v) = (noop(0), some().0[0]);
        let shared = &noop.pipelines.shared;
        let turn = Turn::new(shared, &mut shared.table(), v);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| noop.pipelines.get(&v).is_ok());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waits.is_finished(), "it did not wait");
            drop(turn);
            assert!(waits.join().expect("a pipeline"));
        });
    }

    #[test]
    fn an_error_is_its_maker_s() {
        assert_eq!(claim("a".into()), Some("a".into()));
        let both = caught(|| vec![claim("b".into()), claim("c".into())]);
        assert_eq!(both, Err("b".into()));
        let other = || std::thread::spawn(|| claim("d".into())).join().expect("a thread");
        assert_eq!(caught(other), Ok(Some("d".into())), "another thread's error was taken");
        assert!(catch_unwind(|| caught(|| std::panic::panic_any(0))).is_err());
        assert_eq!(claim("e".into()), Some("e".into()), "after a panic");
    }
}
