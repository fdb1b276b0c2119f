// matmul_texture: matmul for CPU drivers; 12 x 16 outputs per invocation, operands read as texels.
// a: M x K; b: K x N; y: [M, N]; three entries by which side is contiguous:
// nt: a [M, K], b [N, K]; nn: a [M, K], b [K, N]; tn: a [K, M], b [K, N]. The sides read as vec4 are multiples of 4.
// One invocation per tile, m fastest. Rows past the end read the last row and are not written.
// Why 12 x 16: 28 texels serve 192 outputs; 8 x 8 and 16 x 16 were slower on llvmpipe 22.3, see REJECTED.md.
// Written out because llvmpipe unrolls loops over accumulators only up to about 8 x 8.
// Reference: wgsl/src/cpu/matmul.rs
@group(0) @binding(1) var a: texture_2d<f32>;
@group(0) @binding(2) var b: texture_2d<f32>;
struct Tile { m: u32, n: u32, inside: bool }
fn tile_of(i: u32) -> Tile {
    let tiles_m = (p.m + 11u) / 12u;
    let n = (i / tiles_m) * 16u;
    return Tile((i % tiles_m) * 12u, n, n < p.n);
}
// The accumulators as an array, for the epilogue's loop: written out, its activations would be compiled 192 times over.
var<private> sums: array<vec4<f32>, 48>;
fn keep(m: u32, v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>) {
    sums[4u * m] = v0;
    sums[4u * m + 1u] = v1;
    sums[4u * m + 2u] = v2;
    sums[4u * m + 3u] = v3;
}
fn finish_tile(t: Tile) {
    for (var i = 0u; i < 192u; i++) {
        finish(t.m + i / 16u, t.n + i % 16u, sums[i / 4u][i % 4u]);
    }
}
// First texel of a row of a or b along k, at most the last row's.
fn row_a(m: u32) -> u32 { return min(m, p.m - 1u) * (p.k / 4u); }
fn row_b(n: u32) -> u32 { return min(n, p.n - 1u) * (p.k / 4u); }
// Column of texels of b along n, at most the last one.
fn column_b(n: u32) -> u32 { return min(n / 4u, p.n / 4u - 1u); }
@compute @workgroup_size(WORKGROUP)
fn nt(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let a0 = row_a(t.m + 0u);
    let a1 = row_a(t.m + 1u);
    let a2 = row_a(t.m + 2u);
    let a3 = row_a(t.m + 3u);
    let a4 = row_a(t.m + 4u);
    let a5 = row_a(t.m + 5u);
    let a6 = row_a(t.m + 6u);
    let a7 = row_a(t.m + 7u);
    let a8 = row_a(t.m + 8u);
    let a9 = row_a(t.m + 9u);
    let a10 = row_a(t.m + 10u);
    let a11 = row_a(t.m + 11u);
    let b0 = row_b(t.n + 0u);
    let b1 = row_b(t.n + 1u);
    let b2 = row_b(t.n + 2u);
    let b3 = row_b(t.n + 3u);
    let b4 = row_b(t.n + 4u);
    let b5 = row_b(t.n + 5u);
    let b6 = row_b(t.n + 6u);
    let b7 = row_b(t.n + 7u);
    let b8 = row_b(t.n + 8u);
    let b9 = row_b(t.n + 9u);
    let b10 = row_b(t.n + 10u);
    let b11 = row_b(t.n + 11u);
    let b12 = row_b(t.n + 12u);
    let b13 = row_b(t.n + 13u);
    let b14 = row_b(t.n + 14u);
    let b15 = row_b(t.n + 15u);
    var c00 = vec4<f32>(); var c01 = vec4<f32>(); var c02 = vec4<f32>(); var c03 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>(); var c12 = vec4<f32>(); var c13 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>(); var c22 = vec4<f32>(); var c23 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>(); var c32 = vec4<f32>(); var c33 = vec4<f32>();
    var c40 = vec4<f32>(); var c41 = vec4<f32>(); var c42 = vec4<f32>(); var c43 = vec4<f32>();
    var c50 = vec4<f32>(); var c51 = vec4<f32>(); var c52 = vec4<f32>(); var c53 = vec4<f32>();
    var c60 = vec4<f32>(); var c61 = vec4<f32>(); var c62 = vec4<f32>(); var c63 = vec4<f32>();
    var c70 = vec4<f32>(); var c71 = vec4<f32>(); var c72 = vec4<f32>(); var c73 = vec4<f32>();
    var c80 = vec4<f32>(); var c81 = vec4<f32>(); var c82 = vec4<f32>(); var c83 = vec4<f32>();
    var c90 = vec4<f32>(); var c91 = vec4<f32>(); var c92 = vec4<f32>(); var c93 = vec4<f32>();
    var c100 = vec4<f32>(); var c101 = vec4<f32>(); var c102 = vec4<f32>(); var c103 = vec4<f32>();
    var c110 = vec4<f32>(); var c111 = vec4<f32>(); var c112 = vec4<f32>(); var c113 = vec4<f32>();
    for (var k = 0u; k < p.k / 4u; k++) {
        let w0 = mat4x4<f32>(texel(b, b0 + k), texel(b, b1 + k), texel(b, b2 + k), texel(b, b3 + k));
        let w1 = mat4x4<f32>(texel(b, b4 + k), texel(b, b5 + k), texel(b, b6 + k), texel(b, b7 + k));
        let w2 = mat4x4<f32>(texel(b, b8 + k), texel(b, b9 + k), texel(b, b10 + k), texel(b, b11 + k));
        let w3 = mat4x4<f32>(texel(b, b12 + k), texel(b, b13 + k), texel(b, b14 + k), texel(b, b15 + k));
        let v0 = texel(a, a0 + k);
        c00 += v0 * w0; c01 += v0 * w1; c02 += v0 * w2; c03 += v0 * w3;
        let v1 = texel(a, a1 + k);
        c10 += v1 * w0; c11 += v1 * w1; c12 += v1 * w2; c13 += v1 * w3;
        let v2 = texel(a, a2 + k);
        c20 += v2 * w0; c21 += v2 * w1; c22 += v2 * w2; c23 += v2 * w3;
        let v3 = texel(a, a3 + k);
        c30 += v3 * w0; c31 += v3 * w1; c32 += v3 * w2; c33 += v3 * w3;
        let v4 = texel(a, a4 + k);
        c40 += v4 * w0; c41 += v4 * w1; c42 += v4 * w2; c43 += v4 * w3;
        let v5 = texel(a, a5 + k);
        c50 += v5 * w0; c51 += v5 * w1; c52 += v5 * w2; c53 += v5 * w3;
        let v6 = texel(a, a6 + k);
        c60 += v6 * w0; c61 += v6 * w1; c62 += v6 * w2; c63 += v6 * w3;
        let v7 = texel(a, a7 + k);
        c70 += v7 * w0; c71 += v7 * w1; c72 += v7 * w2; c73 += v7 * w3;
        let v8 = texel(a, a8 + k);
        c80 += v8 * w0; c81 += v8 * w1; c82 += v8 * w2; c83 += v8 * w3;
        let v9 = texel(a, a9 + k);
        c90 += v9 * w0; c91 += v9 * w1; c92 += v9 * w2; c93 += v9 * w3;
        let v10 = texel(a, a10 + k);
        c100 += v10 * w0; c101 += v10 * w1; c102 += v10 * w2; c103 += v10 * w3;
        let v11 = texel(a, a11 + k);
        c110 += v11 * w0; c111 += v11 * w1; c112 += v11 * w2; c113 += v11 * w3;
    }
    keep(0u, c00, c01, c02, c03);
    keep(1u, c10, c11, c12, c13);
    keep(2u, c20, c21, c22, c23);
    keep(3u, c30, c31, c32, c33);
    keep(4u, c40, c41, c42, c43);
    keep(5u, c50, c51, c52, c53);
    keep(6u, c60, c61, c62, c63);
    keep(7u, c70, c71, c72, c73);
    keep(8u, c80, c81, c82, c83);
    keep(9u, c90, c91, c92, c93);
    keep(10u, c100, c101, c102, c103);
    keep(11u, c110, c111, c112, c113);
    finish_tile(t);
}
@compute @workgroup_size(WORKGROUP)
fn nn(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let a0 = row_a(t.m + 0u);
    let a1 = row_a(t.m + 1u);
    let a2 = row_a(t.m + 2u);
    let a3 = row_a(t.m + 3u);
    let a4 = row_a(t.m + 4u);
    let a5 = row_a(t.m + 5u);
    let a6 = row_a(t.m + 6u);
    let a7 = row_a(t.m + 7u);
    let a8 = row_a(t.m + 8u);
    let a9 = row_a(t.m + 9u);
    let a10 = row_a(t.m + 10u);
    let a11 = row_a(t.m + 11u);
    let n4 = p.n / 4u;
    let b0 = column_b(t.n + 0u);
    let b1 = column_b(t.n + 4u);
    let b2 = column_b(t.n + 8u);
    let b3 = column_b(t.n + 12u);
    var c00 = vec4<f32>(); var c01 = vec4<f32>(); var c02 = vec4<f32>(); var c03 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>(); var c12 = vec4<f32>(); var c13 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>(); var c22 = vec4<f32>(); var c23 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>(); var c32 = vec4<f32>(); var c33 = vec4<f32>();
    var c40 = vec4<f32>(); var c41 = vec4<f32>(); var c42 = vec4<f32>(); var c43 = vec4<f32>();
    var c50 = vec4<f32>(); var c51 = vec4<f32>(); var c52 = vec4<f32>(); var c53 = vec4<f32>();
    var c60 = vec4<f32>(); var c61 = vec4<f32>(); var c62 = vec4<f32>(); var c63 = vec4<f32>();
    var c70 = vec4<f32>(); var c71 = vec4<f32>(); var c72 = vec4<f32>(); var c73 = vec4<f32>();
    var c80 = vec4<f32>(); var c81 = vec4<f32>(); var c82 = vec4<f32>(); var c83 = vec4<f32>();
    var c90 = vec4<f32>(); var c91 = vec4<f32>(); var c92 = vec4<f32>(); var c93 = vec4<f32>();
    var c100 = vec4<f32>(); var c101 = vec4<f32>(); var c102 = vec4<f32>(); var c103 = vec4<f32>();
    var c110 = vec4<f32>(); var c111 = vec4<f32>(); var c112 = vec4<f32>(); var c113 = vec4<f32>();
    for (var k = 0u; k < p.k / 4u; k++) {
        let r = 4u * k * n4;
        let w0 = mat4x4<f32>(texel(b, r + 0u * n4 + b0), texel(b, r + 1u * n4 + b0), texel(b, r + 2u * n4 + b0), texel(b, r + 3u * n4 + b0));
        let w1 = mat4x4<f32>(texel(b, r + 0u * n4 + b1), texel(b, r + 1u * n4 + b1), texel(b, r + 2u * n4 + b1), texel(b, r + 3u * n4 + b1));
        let w2 = mat4x4<f32>(texel(b, r + 0u * n4 + b2), texel(b, r + 1u * n4 + b2), texel(b, r + 2u * n4 + b2), texel(b, r + 3u * n4 + b2));
        let w3 = mat4x4<f32>(texel(b, r + 0u * n4 + b3), texel(b, r + 1u * n4 + b3), texel(b, r + 2u * n4 + b3), texel(b, r + 3u * n4 + b3));
        let v0 = texel(a, a0 + k);
        c00 += w0 * v0; c01 += w1 * v0; c02 += w2 * v0; c03 += w3 * v0;
        let v1 = texel(a, a1 + k);
        c10 += w0 * v1; c11 += w1 * v1; c12 += w2 * v1; c13 += w3 * v1;
        let v2 = texel(a, a2 + k);
        c20 += w0 * v2; c21 += w1 * v2; c22 += w2 * v2; c23 += w3 * v2;
        let v3 = texel(a, a3 + k);
        c30 += w0 * v3; c31 += w1 * v3; c32 += w2 * v3; c33 += w3 * v3;
        let v4 = texel(a, a4 + k);
        c40 += w0 * v4; c41 += w1 * v4; c42 += w2 * v4; c43 += w3 * v4;
        let v5 = texel(a, a5 + k);
        c50 += w0 * v5; c51 += w1 * v5; c52 += w2 * v5; c53 += w3 * v5;
        let v6 = texel(a, a6 + k);
        c60 += w0 * v6; c61 += w1 * v6; c62 += w2 * v6; c63 += w3 * v6;
        let v7 = texel(a, a7 + k);
        c70 += w0 * v7; c71 += w1 * v7; c72 += w2 * v7; c73 += w3 * v7;
        let v8 = texel(a, a8 + k);
        c80 += w0 * v8; c81 += w1 * v8; c82 += w2 * v8; c83 += w3 * v8;
        let v9 = texel(a, a9 + k);
        c90 += w0 * v9; c91 += w1 * v9; c92 += w2 * v9; c93 += w3 * v9;
        let v10 = texel(a, a10 + k);
        c100 += w0 * v10; c101 += w1 * v10; c102 += w2 * v10; c103 += w3 * v10;
        let v11 = texel(a, a11 + k);
        c110 += w0 * v11; c111 += w1 * v11; c112 += w2 * v11; c113 += w3 * v11;
    }
    keep(0u, c00, c01, c02, c03);
    keep(1u, c10, c11, c12, c13);
    keep(2u, c20, c21, c22, c23);
    keep(3u, c30, c31, c32, c33);
    keep(4u, c40, c41, c42, c43);
    keep(5u, c50, c51, c52, c53);
    keep(6u, c60, c61, c62, c63);
    keep(7u, c70, c71, c72, c73);
    keep(8u, c80, c81, c82, c83);
    keep(9u, c90, c91, c92, c93);
    keep(10u, c100, c101, c102, c103);
    keep(11u, c110, c111, c112, c113);
    finish_tile(t);
}
@compute @workgroup_size(WORKGROUP)
fn tn(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let m4 = p.m / 4u;
    let n4 = p.n / 4u;
    let a0 = min(t.m / 4u + 0u, m4 - 1u);
    let a1 = min(t.m / 4u + 1u, m4 - 1u);
    let a2 = min(t.m / 4u + 2u, m4 - 1u);
    let b0 = column_b(t.n + 0u);
    let b1 = column_b(t.n + 4u);
    let b2 = column_b(t.n + 8u);
    let b3 = column_b(t.n + 12u);
    var c00 = vec4<f32>(); var c01 = vec4<f32>(); var c02 = vec4<f32>(); var c03 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>(); var c12 = vec4<f32>(); var c13 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>(); var c22 = vec4<f32>(); var c23 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>(); var c32 = vec4<f32>(); var c33 = vec4<f32>();
    var c40 = vec4<f32>(); var c41 = vec4<f32>(); var c42 = vec4<f32>(); var c43 = vec4<f32>();
    var c50 = vec4<f32>(); var c51 = vec4<f32>(); var c52 = vec4<f32>(); var c53 = vec4<f32>();
    var c60 = vec4<f32>(); var c61 = vec4<f32>(); var c62 = vec4<f32>(); var c63 = vec4<f32>();
    var c70 = vec4<f32>(); var c71 = vec4<f32>(); var c72 = vec4<f32>(); var c73 = vec4<f32>();
    var c80 = vec4<f32>(); var c81 = vec4<f32>(); var c82 = vec4<f32>(); var c83 = vec4<f32>();
    var c90 = vec4<f32>(); var c91 = vec4<f32>(); var c92 = vec4<f32>(); var c93 = vec4<f32>();
    var c100 = vec4<f32>(); var c101 = vec4<f32>(); var c102 = vec4<f32>(); var c103 = vec4<f32>();
    var c110 = vec4<f32>(); var c111 = vec4<f32>(); var c112 = vec4<f32>(); var c113 = vec4<f32>();
    for (var k = 0u; k < p.k; k++) {
        let w0 = texel(b, k * n4 + b0);
        let w1 = texel(b, k * n4 + b1);
        let w2 = texel(b, k * n4 + b2);
        let w3 = texel(b, k * n4 + b3);
        let v0 = texel(a, k * m4 + a0);
        c00 += v0.x * w0; c01 += v0.x * w1; c02 += v0.x * w2; c03 += v0.x * w3;
        c10 += v0.y * w0; c11 += v0.y * w1; c12 += v0.y * w2; c13 += v0.y * w3;
        c20 += v0.z * w0; c21 += v0.z * w1; c22 += v0.z * w2; c23 += v0.z * w3;
        c30 += v0.w * w0; c31 += v0.w * w1; c32 += v0.w * w2; c33 += v0.w * w3;
        let v1 = texel(a, k * m4 + a1);
        c40 += v1.x * w0; c41 += v1.x * w1; c42 += v1.x * w2; c43 += v1.x * w3;
        c50 += v1.y * w0; c51 += v1.y * w1; c52 += v1.y * w2; c53 += v1.y * w3;
        c60 += v1.z * w0; c61 += v1.z * w1; c62 += v1.z * w2; c63 += v1.z * w3;
        c70 += v1.w * w0; c71 += v1.w * w1; c72 += v1.w * w2; c73 += v1.w * w3;
        let v2 = texel(a, k * m4 + a2);
        c80 += v2.x * w0; c81 += v2.x * w1; c82 += v2.x * w2; c83 += v2.x * w3;
        c90 += v2.y * w0; c91 += v2.y * w1; c92 += v2.y * w2; c93 += v2.y * w3;
        c100 += v2.z * w0; c101 += v2.z * w1; c102 += v2.z * w2; c103 += v2.z * w3;
        c110 += v2.w * w0; c111 += v2.w * w1; c112 += v2.w * w2; c113 += v2.w * w3;
    }
    keep(0u, c00, c01, c02, c03);
    keep(1u, c10, c11, c12, c13);
    keep(2u, c20, c21, c22, c23);
    keep(3u, c30, c31, c32, c33);
    keep(4u, c40, c41, c42, c43);
    keep(5u, c50, c51, c52, c53);
    keep(6u, c60, c61, c62, c63);
    keep(7u, c70, c71, c72, c73);
    keep(8u, c80, c81, c82, c83);
    keep(9u, c90, c91, c92, c93);
    keep(10u, c100, c101, c102, c103);
    keep(11u, c110, c111, c112, c113);
    finish_tile(t);
}
