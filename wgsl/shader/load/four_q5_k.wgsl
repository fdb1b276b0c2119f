// As q4_k, with 8 words of fifth bits before the nibbles: bit g of byte j belongs to number j of group g.
fn load_b4(i: u32) -> vec4<f32> {
    let at = i / 64u * 44u;
    let group = i / 8u % 8u;
    let s = scale_min(at + 1u, group) * vec2<f32>(half_of(b[at], 0u), half_of(b[at], 1u));
    let fifth = ((b[at + 4u + i % 8u] >> group) & 0x01010101u) << 4u;
    let q = nibbles(b[at + 12u + 8u * (group / 2u) + i % 8u], group % 2u) | fifth;
    return s.x * vec4<f32>(unpack4xU8(q)) - s.y;
}
