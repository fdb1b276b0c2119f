// Four neighbours of b as f32.
@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>;
fn load_b4(i: u32) -> vec4<f32> {
    let w = b[i].xxyy;
    return bitcast<vec4<f32>>(vec4<u32>(w.x << 16u, w.y & 0xffff0000u, w.z << 16u, w.w & 0xffff0000u));
}
