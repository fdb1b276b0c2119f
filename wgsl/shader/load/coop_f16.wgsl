// Four neighbours of b, which is stored in f16.
@group(0) @binding(2) var<storage, read> b: array<vec4<f16>>;
fn load_b4(i: u32) -> vec4<f16> { return b[i]; }
