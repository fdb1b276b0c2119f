// Pairs of blocks of 32: two scales, 4 words of nibbles each, low ones first.
fn load_b4(i: u32) -> vec4<f32> {
    let at = i / 16u * 9u;
    let block = i / 8u % 2u;
    let q = nibbles(b[at + 1u + 4u * block + i % 4u], i / 4u % 2u);
    return half_of(b[at], block) * (vec4<f32>(unpack4xU8(q)) - 8.0);
}
