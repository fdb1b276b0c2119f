@group(0) @binding(1) var x: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var w: texture_storage_2d<rgba32float, read>;
fn load_x(i: u32) -> vec4<f32> { return textureLoad(x, texel(i)); }
fn load_w(i: u32) -> vec4<f32> { return textureLoad(w, texel(i)); }
