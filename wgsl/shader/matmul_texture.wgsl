// matmul_texture: matmul for CPU drivers; ROWS x COLUMNS outputs per invocation, operands read as texels.
// a: M x K; b: K x N; y: [M, N]; three entries by which side is contiguous:
// nt: a [M, K], b [N, K]; nn: a [M, K], b [K, N]; tn: a [K, M], b [K, N]. The sides read as vec4 are multiples of 4.
// One invocation per tile, m fastest. Rows past the end read the last row and are not written.
// Why 12 x 16: 28 texels serve 192 outputs. Smaller tiles are slower on llvmpipe 22.3, larger ones compile longer; see REJECTED.md.
// Arrays of arrays, each as long as the loop over it: only so does Mesa unroll the loops and keep the sums out of memory.
// Reference: wgsl/src/cpu/matmul.rs
@group(0) @binding(1) var a: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var b: texture_storage_2d<rgba32float, read>;
const ROWS4 = ROWS / 4u;
const COLUMNS4 = COLUMNS / 4u;
struct Tile { m: u32, n: u32, inside: bool }
fn tile_of(i: u32) -> Tile {
    let tiles_m = (p.m + ROWS - 1u) / ROWS;
    let n = (i / tiles_m) * COLUMNS;
    return Tile((i % tiles_m) * ROWS, n, n < p.n);
}
// A copy of the sums for the epilogue's loop: unrolled, it would be compiled for each of them.
var<private> sums: array<vec4<f32>, ROWS * COLUMNS4>;
fn finish_tile(t: Tile, c: array<array<vec4<f32>, COLUMNS4>, ROWS>) {
    for (var r = 0u; r < ROWS; r++) {
        for (var j = 0u; j < COLUMNS4; j++) { sums[r * COLUMNS4 + j] = c[r][j]; }
    }
    for (var i = 0u; i < ROWS * COLUMNS; i++) {
        finish(t.m + i / COLUMNS, t.n + i % COLUMNS, sums[i / 4u][i % 4u]);
    }
}
// First texel of a row of a or b along k, at most the last row's.
fn row_a(m: u32) -> u32 { return min(m, p.m - 1u) * (p.k / 4u); }
fn row_b(n: u32) -> u32 { return min(n, p.n - 1u) * (p.k / 4u); }
// Column of texels of a along m or b along n, at most the last one.
fn column_a(m: u32) -> u32 { return min(m / 4u, p.m / 4u - 1u); }
fn column_b(n: u32) -> u32 { return min(n / 4u, p.n / 4u - 1u); }
@compute @workgroup_size(WORKGROUP)
fn nt(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    var at_a: array<u32, ROWS>;
    var at_b: array<u32, COLUMNS>;
    for (var r = 0u; r < ROWS; r++) { at_a[r] = row_a(t.m + r); }
    for (var n = 0u; n < COLUMNS; n++) { at_b[n] = row_b(t.n + n); }
    var c: array<array<vec4<f32>, COLUMNS4>, ROWS>;
    for (var k = 0u; k < p.k / 4u; k++) {
        var w: array<mat4x4<f32>, COLUMNS4>;
        for (var j = 0u; j < COLUMNS4; j++) {
            for (var e = 0u; e < 4u; e++) { w[j][e] = texel(b, at_b[4u * j + e] + k); }
        }
        for (var r = 0u; r < ROWS; r++) {
            let v = texel(a, at_a[r] + k);
            for (var j = 0u; j < COLUMNS4; j++) { c[r][j] += v * w[j]; }
        }
    }
    finish_tile(t, c);
}
@compute @workgroup_size(WORKGROUP)
fn nn(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let n4 = p.n / 4u;
    var at_a: array<u32, ROWS>;
    var at_b: array<u32, COLUMNS4>;
    for (var r = 0u; r < ROWS; r++) { at_a[r] = row_a(t.m + r); }
    for (var j = 0u; j < COLUMNS4; j++) { at_b[j] = column_b(t.n + 4u * j); }
    var c: array<array<vec4<f32>, COLUMNS4>, ROWS>;
    for (var k = 0u; k < p.k / 4u; k++) {
        var w: array<mat4x4<f32>, COLUMNS4>;
        for (var j = 0u; j < COLUMNS4; j++) {
            for (var e = 0u; e < 4u; e++) { w[j][e] = texel(b, (4u * k + e) * n4 + at_b[j]); }
        }
        for (var r = 0u; r < ROWS; r++) {
            let v = texel(a, at_a[r] + k);
            for (var j = 0u; j < COLUMNS4; j++) { c[r][j] += w[j] * v; }
        }
    }
    finish_tile(t, c);
}
@compute @workgroup_size(WORKGROUP)
fn tn(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let t = tile_of(linear(wg, grid, lane));
    if !t.inside { return; }
    let m4 = p.m / 4u;
    let n4 = p.n / 4u;
    var at_a: array<u32, ROWS4>;
    var at_b: array<u32, COLUMNS4>;
    for (var r = 0u; r < ROWS4; r++) { at_a[r] = column_a(t.m + 4u * r); }
    for (var j = 0u; j < COLUMNS4; j++) { at_b[j] = column_b(t.n + 4u * j); }
    var c: array<array<vec4<f32>, COLUMNS4>, ROWS>;
    for (var k = 0u; k < p.k; k++) {
        var w: array<vec4<f32>, COLUMNS4>;
        for (var j = 0u; j < COLUMNS4; j++) { w[j] = texel(b, k * n4 + at_b[j]); }
        for (var r = 0u; r < ROWS4; r++) {
            let v = texel(a, k * m4 + at_a[r]);
            for (var e = 0u; e < 4u; e++) {
                for (var j = 0u; j < COLUMNS4; j++) { c[4u * r + e][j] += v[e] * w[j]; }
            }
        }
    }
    finish_tile(t, c);
}
