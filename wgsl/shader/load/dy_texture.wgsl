@group(0) @binding(4) var dy: texture_storage_2d<rgba32float, read>;
fn load_dy(i: u32) -> vec4<f32> { return textureLoad(dy, texel(i)); }
