// Pairs of blocks of 256 in two halves of four quarters of 32: two scales, for each 32 words of nibbles, 16 of pairs of upper bits, 4 of
// signed bytes: a scale for every 16 numbers.
fn load_b4(i: u32) -> vec4<f32> {
    let pair = i / 128u * 105u;
    let block = i / 64u % 2u;
    let at = pair + 1u + 52u * block;
    let part = i / 32u % 2u;
    let quarter = i / 8u % 4u;
    let low = nibbles(b[at + 16u * part + 8u * (quarter % 2u) + i % 8u], quarter / 2u);
    let high = ((b[at + 32u + 8u * part + i % 8u] >> (2u * quarter)) & 0x03030303u) << 4u;
    let scale = unpack4xI8(b[at + 48u + 2u * part + quarter / 2u]);
    let j = 2u * (quarter % 2u) + i / 4u % 2u;
    let s = select(select(scale.x, scale.y, j == 1u), select(scale.z, scale.w, j == 3u), j >= 2u);
    return half_of(b[pair], block) * f32(s) * (vec4<f32>(unpack4xU8(low | high)) - 32.0);
}
