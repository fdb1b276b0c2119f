// Blocks of 32: scale and minimum, a word of fifth bits, 4 words of nibbles, low ones first.
fn load_b4(i: u32) -> vec4<f32> {
    let at = i / 8u * 6u;
    let q = nibbles(b[at + 2u + i % 4u], i / 4u % 2u) | fifths(b[at + 1u] >> (4u * (i % 8u)));
    return half_of(b[at], 0u) * vec4<f32>(unpack4xU8(q)) + half_of(b[at], 1u);
}
