@group(0) @binding(1) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;
fn load_q(i: u32) -> vec4<f32> { return q[i]; }
fn load_k(i: u32) -> vec4<f32> { return k[i]; }
fn load_v(i: u32) -> vec4<f32> { return v[i]; }
