@group(0) @binding(1) var q: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var k: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var v: texture_storage_2d<rgba32float, read>;
fn load_q(i: u32) -> vec4<f32> { return textureLoad(q, texel(i)); }
fn load_k(i: u32) -> vec4<f32> { return textureLoad(k, texel(i)); }
fn load_v(i: u32) -> vec4<f32> { return textureLoad(v, texel(i)); }
