// b holds two halves a word; unpack2x16float needs no shader-f16 feature.
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<u32>;
fn load_a(i: u32) -> f32 { return a[i]; }
fn load_b(i: u32) -> f32 {
    let w = unpack2x16float(b[i / 2u]);
    return select(w.x, w.y, (i & 1u) == 1u);
}
