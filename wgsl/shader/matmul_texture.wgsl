// matmul_texture: matmul for CPU drivers; 8 x 8 outputs per invocation, operands read as texels.
// a: M x K; b: K x N; y: [M, N]; four entries by which side is contiguous:
// nt: a [M, K], b [N, K]; nn: a [M, K], b [K, N]; tn: a [K, M], b [K, N]. The sides read as vec4 are multiples of 4.
// One invocation per 8 x 8 tile, m fastest. Rows past the end read the last row and are not written.
// Reference: wgsl/src/cpu/matmul.rs
@group(0) @binding(1) var a: texture_2d<f32>;
@group(0) @binding(2) var b: texture_2d<f32>;
struct Tile { m: u32, n: u32, inside: bool }
fn tile_of(i: u32) -> Tile {
    let tiles_m = (p.m + 7u) / 8u;
    let tn = i / tiles_m;
    return Tile((i % tiles_m) * 8u, tn * 8u, tn * 8u < p.n);
}
fn finish4(m: u32, n: u32, v: vec4<f32>) {
    finish(m, n, v.x);
    finish(m, n + 1u, v.y);
    finish(m, n + 2u, v.z);
    finish(m, n + 3u, v.w);
}
// Reads one column of 8 a-texels (along k), at most at the last row.
fn row_a(m: u32) -> u32 { return min(m, p.m - 1u) * (p.k / 4u); }
fn row_b(n: u32) -> u32 { return min(n, p.n - 1u) * (p.k / 4u); }
@compute @workgroup_size(WORKGROUP)
fn nt(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let a0 = row_a(t.m); let a1 = row_a(t.m + 1u); let a2 = row_a(t.m + 2u); let a3 = row_a(t.m + 3u);
    let a4 = row_a(t.m + 4u); let a5 = row_a(t.m + 5u); let a6 = row_a(t.m + 6u); let a7 = row_a(t.m + 7u);
    let b0 = row_b(t.n); let b1 = row_b(t.n + 1u); let b2 = row_b(t.n + 2u); let b3 = row_b(t.n + 3u);
    let b4 = row_b(t.n + 4u); let b5 = row_b(t.n + 5u); let b6 = row_b(t.n + 6u); let b7 = row_b(t.n + 7u);
    var l0 = vec4<f32>(); var l1 = vec4<f32>(); var l2 = vec4<f32>(); var l3 = vec4<f32>();
    var l4 = vec4<f32>(); var l5 = vec4<f32>(); var l6 = vec4<f32>(); var l7 = vec4<f32>();
    var h0 = vec4<f32>(); var h1 = vec4<f32>(); var h2 = vec4<f32>(); var h3 = vec4<f32>();
    var h4 = vec4<f32>(); var h5 = vec4<f32>(); var h6 = vec4<f32>(); var h7 = vec4<f32>();
    for (var k = 0u; k < p.k / 4u; k++) {
        let lo = mat4x4<f32>(texel(b, b0 + k), texel(b, b1 + k), texel(b, b2 + k), texel(b, b3 + k));
        let hi = mat4x4<f32>(texel(b, b4 + k), texel(b, b5 + k), texel(b, b6 + k), texel(b, b7 + k));
        let v0 = texel(a, a0 + k); l0 += v0 * lo; h0 += v0 * hi;
        let v1 = texel(a, a1 + k); l1 += v1 * lo; h1 += v1 * hi;
        let v2 = texel(a, a2 + k); l2 += v2 * lo; h2 += v2 * hi;
        let v3 = texel(a, a3 + k); l3 += v3 * lo; h3 += v3 * hi;
        let v4 = texel(a, a4 + k); l4 += v4 * lo; h4 += v4 * hi;
        let v5 = texel(a, a5 + k); l5 += v5 * lo; h5 += v5 * hi;
        let v6 = texel(a, a6 + k); l6 += v6 * lo; h6 += v6 * hi;
        let v7 = texel(a, a7 + k); l7 += v7 * lo; h7 += v7 * hi;
    }
    write8(t, l0, l1, l2, l3, l4, l5, l6, l7, h0, h1, h2, h3, h4, h5, h6, h7);
}
fn write8(t: Tile, l0: vec4<f32>, l1: vec4<f32>, l2: vec4<f32>, l3: vec4<f32>, l4: vec4<f32>, l5: vec4<f32>, l6: vec4<f32>, l7: vec4<f32>,
    h0: vec4<f32>, h1: vec4<f32>, h2: vec4<f32>, h3: vec4<f32>, h4: vec4<f32>, h5: vec4<f32>, h6: vec4<f32>, h7: vec4<f32>) {
    finish4(t.m, t.n, l0); finish4(t.m, t.n + 4u, h0);
    finish4(t.m + 1u, t.n, l1); finish4(t.m + 1u, t.n + 4u, h1);
    finish4(t.m + 2u, t.n, l2); finish4(t.m + 2u, t.n + 4u, h2);
    finish4(t.m + 3u, t.n, l3); finish4(t.m + 3u, t.n + 4u, h3);
    finish4(t.m + 4u, t.n, l4); finish4(t.m + 4u, t.n + 4u, h4);
    finish4(t.m + 5u, t.n, l5); finish4(t.m + 5u, t.n + 4u, h5);
    finish4(t.m + 6u, t.n, l6); finish4(t.m + 6u, t.n + 4u, h6);
    finish4(t.m + 7u, t.n, l7); finish4(t.m + 7u, t.n + 4u, h7);
}
@compute @workgroup_size(WORKGROUP)
fn nn(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let a0 = row_a(t.m); let a1 = row_a(t.m + 1u); let a2 = row_a(t.m + 2u); let a3 = row_a(t.m + 3u);
    let a4 = row_a(t.m + 4u); let a5 = row_a(t.m + 5u); let a6 = row_a(t.m + 6u); let a7 = row_a(t.m + 7u);
    let n4 = p.n / 4u;
    let left = t.n / 4u;
    let right = min(left + 1u, n4 - 1u);
    var l0 = vec4<f32>(); var l1 = vec4<f32>(); var l2 = vec4<f32>(); var l3 = vec4<f32>();
    var l4 = vec4<f32>(); var l5 = vec4<f32>(); var l6 = vec4<f32>(); var l7 = vec4<f32>();
    var h0 = vec4<f32>(); var h1 = vec4<f32>(); var h2 = vec4<f32>(); var h3 = vec4<f32>();
    var h4 = vec4<f32>(); var h5 = vec4<f32>(); var h6 = vec4<f32>(); var h7 = vec4<f32>();
    for (var k = 0u; k < p.k / 4u; k++) {
        let r = 4u * k * n4;
        let lo = mat4x4<f32>(texel(b, r + left), texel(b, r + n4 + left), texel(b, r + 2u * n4 + left), texel(b, r + 3u * n4 + left));
        let hi = mat4x4<f32>(texel(b, r + right), texel(b, r + n4 + right), texel(b, r + 2u * n4 + right), texel(b, r + 3u * n4 + right));
        let v0 = texel(a, a0 + k); l0 += lo * v0; h0 += hi * v0;
        let v1 = texel(a, a1 + k); l1 += lo * v1; h1 += hi * v1;
        let v2 = texel(a, a2 + k); l2 += lo * v2; h2 += hi * v2;
        let v3 = texel(a, a3 + k); l3 += lo * v3; h3 += hi * v3;
        let v4 = texel(a, a4 + k); l4 += lo * v4; h4 += hi * v4;
        let v5 = texel(a, a5 + k); l5 += lo * v5; h5 += hi * v5;
        let v6 = texel(a, a6 + k); l6 += lo * v6; h6 += hi * v6;
        let v7 = texel(a, a7 + k); l7 += lo * v7; h7 += hi * v7;
    }
    write8(t, l0, l1, l2, l3, l4, l5, l6, l7, h0, h1, h2, h3, h4, h5, h6, h7);
}
@compute @workgroup_size(WORKGROUP)
fn tn(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let m4 = p.m / 4u;
    let n4 = p.n / 4u;
    let top = t.m / 4u;
    let bottom = min(top + 1u, m4 - 1u);
    let left = t.n / 4u;
    let right = min(left + 1u, n4 - 1u);
    var l0 = vec4<f32>(); var l1 = vec4<f32>(); var l2 = vec4<f32>(); var l3 = vec4<f32>();
    var l4 = vec4<f32>(); var l5 = vec4<f32>(); var l6 = vec4<f32>(); var l7 = vec4<f32>();
    var h0 = vec4<f32>(); var h1 = vec4<f32>(); var h2 = vec4<f32>(); var h3 = vec4<f32>();
    var h4 = vec4<f32>(); var h5 = vec4<f32>(); var h6 = vec4<f32>(); var h7 = vec4<f32>();
    for (var k = 0u; k < p.k; k++) {
        let u = texel(a, k * m4 + top);
        let d = texel(a, k * m4 + bottom);
        let l = texel(b, k * n4 + left);
        let r = texel(b, k * n4 + right);
        l0 += u.x * l; l1 += u.y * l; l2 += u.z * l; l3 += u.w * l;
        l4 += d.x * l; l5 += d.y * l; l6 += d.z * l; l7 += d.w * l;
        h0 += u.x * r; h1 += u.y * r; h2 += u.z * r; h3 += u.w * r;
        h4 += d.x * r; h5 += d.y * r; h6 += d.z * r; h7 += d.w * r;
    }
    write8(t, l0, l1, l2, l3, l4, l5, l6, l7, h0, h1, h2, h3, h4, h5, h6, h7);
}
