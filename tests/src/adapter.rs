//! The adapter under test.
use pentimento::exec::Executor;
use pentimento::exec::cpu::Cpu;
use pentimento::exec::wgpu::{Wgpu, adapters};

fn choice() -> Option<String> {
    std::env::var("PENTIMENTO_ADAPTER").ok()
}

/// The adapter `PENTIMENTO_ADAPTER` names (a fragment of its name), else the best one; `None` without any, or when
/// the variable is `cpu`. Says what is skipped.
pub fn adapter(what: &str) -> Option<Wgpu> {
    let choice = choice();
    if choice.as_deref() == Some("cpu") {
        println!("SKIPPED on GPU: {what} (PENTIMENTO_ADAPTER=cpu)");
        return None;
    }
    match Wgpu::open(choice.as_deref()) {
        Ok(gpu) => Some(gpu),
        Err(e) => {
            assert!(choice.is_none(), "PENTIMENTO_ADAPTER is set, but: {e}");
            println!("SKIPPED on GPU: {what} ({e})");
            None
        }
    }
}

/// As [`adapter`], but `cpu` is the executor of the twins.
pub fn executor(what: &str) -> Option<Box<dyn Executor>> {
    if choice().as_deref() == Some("cpu") {
        return Some(Box::new(Cpu::new()));
    }
    Some(Box::new(adapter(what)?))
}

/// Driver and version of an adapter, empty for the twins.
pub fn driver(name: &str) -> String {
    if name == "cpu" {
        return String::new();
    }
    adapters().into_iter().find(|a| a.name == name).map(|a| a.driver).unwrap_or_default()
}
