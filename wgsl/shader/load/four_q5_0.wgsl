// Pairs of blocks of 32: two scales, for each a word of fifth bits and 4 of nibbles, low ones first.
fn load_b4(i: u32) -> vec4<f32> {
    let pair = i / 16u * 11u;
    let block = i / 8u % 2u;
    let at = pair + 1u + 5u * block;
    let q = nibbles(b[at + 1u + i % 4u], i / 4u % 2u) | fifths(b[at] >> (4u * (i % 8u)));
    return half_of(b[pair], block) * (vec4<f32>(unpack4xU8(q)) - 16.0);
}
