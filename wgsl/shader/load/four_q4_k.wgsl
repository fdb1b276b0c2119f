// Blocks of 256 in 8 groups: scale and minimum, 3 words of the groups', 32 words of nibbles: two groups in 8 of them, low ones first.
fn load_b4(i: u32) -> vec4<f32> {
    let at = i / 64u * 36u;
    let group = i / 8u % 8u;
    let s = scale_min(at + 1u, group) * vec2<f32>(half_of(b[at], 0u), half_of(b[at], 1u));
    let q = nibbles(b[at + 4u + 8u * (group / 2u) + i % 8u], group % 2u);
    return s.x * vec4<f32>(unpack4xU8(q)) - s.y;
}
