@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var w: texture_2d<f32>;
fn load_x(i: u32) -> vec4<f32> { return texel(x, i); }
fn load_w(i: u32) -> vec4<f32> { return texel(w, i); }
