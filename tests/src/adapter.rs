//! The adapter under test.
use crate::limits;
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::Executor;
use pentimento_runtime::exec::cpu::Cpu;
use pentimento_runtime::exec::wgpu::{Limits, Wgpu, adapters};
use pentimento_wgsl::kernel::{Features, Matrix};

fn choice() -> Option<String> {
    std::env::var("PENTIMENTO_ADAPTER").ok()
}

/// The adapter `PENTIMENTO_ADAPTER` names (a fragment of its name), else the best one; `None` without any, or when
/// the variable is `cpu`. Says what is skipped.
pub fn adapter(what: &str) -> Option<Wgpu> {
    open(what, limits())
}

/// As [`adapter`], with every product in f32 unless `PENTIMENTO_LIMITS` says otherwise: for comparisons with what others
/// computed in f32.
pub fn exact(what: &str) -> Option<Wgpu> {
    open(what, if std::env::var_os("PENTIMENTO_LIMITS").is_some() { limits() } else { Limits::Exact })
}

/// Says what is left out for want of an adapter; with `PENTIMENTO_REQUIRE_ADAPTER=1` that is a failure.
fn skip(what: &str, why: &str) {
    let required = std::env::var("PENTIMENTO_REQUIRE_ADAPTER").is_ok_and(|v| !v.is_empty() && v != "0");
    assert!(!required, "PENTIMENTO_REQUIRE_ADAPTER is set, but {what} finds no adapter: {why}");
    println!("SKIPPED on GPU: {what} ({why})");
}

fn open(what: &str, limits: Limits) -> Option<Wgpu> {
    let choice = choice();
    if choice.as_deref() == Some("cpu") {
        skip(what, "PENTIMENTO_ADAPTER=cpu");
        return None;
    }
    match Wgpu::open_within(choice.as_deref(), limits) {
        Ok(gpu) => Some(gpu),
        Err(e) => {
            assert!(choice.is_none(), "PENTIMENTO_ADAPTER is set, but: {e}");
            skip(what, &e.to_string());
            None
        }
    }
}

/// What is under test: an adapter, or the twins themselves.
pub enum Device {
    /// An adapter.
    Gpu(Box<Wgpu>),
    /// `PENTIMENTO_ADAPTER=cpu`.
    Twins(Box<Cpu>),
}

impl Device {
    /// As [`adapter`], but `cpu` is the executor of the twins.
    pub fn open(what: &str) -> Option<Device> {
        if choice().as_deref() == Some("cpu") {
            return Some(Device::Twins(Box::default()));
        }
        Some(Device::Gpu(Box::new(adapter(what)?)))
    }
    /// The executor.
    pub fn exec(&mut self) -> &mut dyn Executor {
        match self {
            Device::Gpu(gpu) => &mut **gpu,
            Device::Twins(cpu) => &mut **cpu,
        }
    }
    /// Forgets plans and leaves, so that many cases fit into memory; compiled pipelines stay.
    pub fn clear(&mut self) {
        match self {
            Device::Gpu(gpu) => gpu.clear(),
            Device::Twins(cpu) => **cpu = Cpu::new(),
        }
    }
}

/// Driver and version of an adapter, empty for the twins.
pub fn driver(name: &str) -> String {
    if name == "cpu" {
        return String::new();
    }
    adapters().into_iter().find(|a| a.name == name).map(|a| a.driver).unwrap_or_default()
}

/// A GPU with cooperative matrices and no limits worth naming.
pub fn with_matrices() -> Caps {
    Caps {
        invocations: 1024,
        workgroup_memory: 48 << 10,
        features: Features::MATRIX,
        matrix: Some(Matrix { edge: 16, subgroup: 32 }),
        ..Caps::unlimited("a GPU with matrices")
    }
}
