// Four neighbours of b as f32.
@group(0) @binding(2) var<storage, read> b: array<vec2<u32>>;
fn load_b4(i: u32) -> vec4<f32> {
    let w = b[i];
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
