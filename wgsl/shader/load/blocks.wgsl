// GGUF's blocks of quantised numbers (layouts: ggml's ggml-common.h), as `Stored::to_device` lays them: a block whose half would
// leave it no whole number of words shares a word for it with the next block, before the two.
@group(0) @binding(2) var<storage, read> b: array<u32>;

// The half in the low or the high bits of a word. Scales are often below f16's normal numbers, which unpack2x16float may flush.
fn half_of(w: u32, high: u32) -> f32 {
    let h = (w >> (16u * high)) & 0xffffu;
    let small = f32(h & 0x3ffu) * 5.9604645e-8; // 2^-24
    let normal = bitcast<f32>(((h & 0x7fffu) << 13u) + 0x38000000u);
    let size = select(normal, small, (h & 0x7c00u) == 0u);
    return select(size, -size, h >= 0x8000u);
}
// Four nibbles, one a byte.
fn nibbles(w: u32, high: u32) -> u32 { return (w >> (4u * high)) & 0x0f0f0f0fu; }
// Four bits spread as the fifth ones of four bytes.
fn fifths(h: u32) -> u32 {
    return ((h & 1u) << 4u) | ((h & 2u) << 11u) | ((h & 4u) << 18u) | ((h & 8u) << 25u);
}
// Scale and minimum of group i of 8, six bits each: the first four pairs lie in the low six bits of the first two words'
// bytes, the others in nibbles of the third one's with their upper bits above the first ones.
fn scale_min(at: u32, i: u32) -> vec2<f32> {
    let s = vec3<u32>(b[at], b[at + 1u], b[at + 2u]) >> vec3<u32>(8u * (i % 4u));
    let first = s.xy & vec2<u32>(63u);
    let other = vec2<u32>(s.z & 15u, (s.z >> 4u) & 15u) | ((s.xy & vec2<u32>(0xc0u)) >> vec2<u32>(2u));
    return vec2<f32>(select(other, first, i < 4u));
}
