//! The adapter under test.
use crate::limits;
use pentimento::exec::wgpu::Wgpu;

/// The adapter `PENTIMENTO_ADAPTER` names (a fragment of its name), else the best one; `None` without any, or when
/// the variable is `cpu`. Says what is skipped.
pub fn adapter(what: &str) -> Option<Wgpu> {
    let choice = std::env::var("PENTIMENTO_ADAPTER").ok();
    if choice.as_deref() == Some("cpu") {
        println!("SKIPPED on GPU: {what} (PENTIMENTO_ADAPTER=cpu)");
        return None;
    }
    match Wgpu::open_within(choice.as_deref(), limits()) {
        Ok(gpu) => Some(gpu),
        Err(e) => {
            assert!(choice.is_none(), "PENTIMENTO_ADAPTER is set, but: {e}");
            println!("SKIPPED on GPU: {what} ({e})");
            None
        }
    }
}
