// Four neighbours of b as f32.
@group(0) @binding(2) var<storage, read_write> b: array<vec4<f32>>;
fn load_b4(i: u32) -> vec4<f32> {
    return b[i];
}
