// Parameters of every pass of attention over queries and keys; flags as in attention.wgsl.
struct Params { batch: u32, heads: u32, q: u32, k: u32, scale: f32, flags: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
