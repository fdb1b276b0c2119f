//! What the tests share: the op table with its draws, bounds and comparison, the adapter under test, golden fixtures.
pub mod adapter;
pub mod beside;
pub mod bound;
pub mod built;
pub mod busy;
pub mod c;
pub mod cases;
pub mod check;
pub mod draw;
pub mod fixture;
pub mod fuzz;
pub mod hollow;
pub mod icons;
pub mod job;
pub mod known;
pub mod memory;
pub mod real;
pub mod scratch;
pub mod tiny;

/// The limits `PENTIMENTO_LIMITS` names: `webgpu` for those WebGPU guarantees, `exact` for the adapter's without half-precision
/// arithmetic, else the adapter's.
///
/// # Panics
/// On any other name.
pub fn limits() -> pentimento_runtime::exec::wgpu::Limits {
    use pentimento_runtime::exec::wgpu::Limits;
    match std::env::var("PENTIMENTO_LIMITS").ok().as_deref() {
        None | Some("" | "adapter") => Limits::Adapter,
        Some("exact") => Limits::Exact,
        Some("webgpu") => Limits::WebGpu,
        Some(other) => panic!("PENTIMENTO_LIMITS: expected `webgpu`, `exact` or `adapter`, found `{other}`"),
    }
}
