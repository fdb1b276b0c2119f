// Pairs of blocks of 32: two scales, 8 words of signed bytes each.
fn load_b4(i: u32) -> vec4<f32> {
    let at = i / 16u * 17u;
    return half_of(b[at], i / 8u % 2u) * vec4<f32>(unpack4xI8(b[at + 1u + i % 16u]));
}
