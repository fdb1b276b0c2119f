// matmul_texture: matmul for CPU drivers; ROWS x COLUMNS outputs per invocation, operands read as texels.
// a: M x K; b: K x N; y: [M, N]; three entries by which side is contiguous:
// nt: a [M, K], b [N, K]; nn: a [M, K], b [K, N]; tn: a [K, M], b [K, N]. The sides read as vec4 are multiples of 4.
// One invocation per tile, m fastest. Rows past the end read the last row and are not written.
// Why 12 x 16: 28 texels serve 192 outputs. Smaller tiles are slower on llvmpipe 22.3, larger ones compile longer; see REJECTED.md.
// Rows of y are multiples of 4, where FOURS is 1.
// Arrays of arrays, each as long as the loop over it: only so does Mesa unroll the loops and keep the sums out of memory.
// Reference: wgsl/src/cpu/matmul.rs
@group(0) @binding(1) var a: texture_storage_2d<rgba32float, read>;
@group(0) @binding(2) var b: texture_storage_2d<rgba32float, read>;
@group(0) @binding(3) var<storage, read_write> low_a: array<f32>; // no second pair of factors in this body
@group(0) @binding(4) var<storage, read_write> low_b: array<f32>;
const ROWS4 = ROWS / 4u;
const COLUMNS4 = COLUMNS / 4u;
struct Tile { m: u32, n: u32, inside: bool }
fn tile_of(i: u32) -> Tile {
    let tiles_m = (p.m + ROWS - 1u) / ROWS;
    let n = (i / tiles_m) * COLUMNS;
    return Tile((i % tiles_m) * ROWS, n, n < p.n);
}
//@ if FOURS == 1
@group(0) @binding(5) var<storage, read_write> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> gate: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> residual: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> y: array<vec4<f32>>;
fn bias4(n: u32) -> vec4<f32> {
    if (p.flags & 1u) == 0u { return vec4<f32>(); }
    return bias[min(n / 4u, p.n / 4u - 1u)];
}
fn finish4(m: u32, n: u32, acc: vec4<f32>) {
    if m >= p.m || n >= p.n { return; }
    let row = p.n / 4u;
    var v = acc;
    if (p.flags & 2u) != 0u { v *= gate[(m / p.rows_per_batch) * row + n / 4u]; }
    if (p.flags & 4u) != 0u { v += residual[m * row + n / 4u]; }
    y[m * row + n / 4u] = v;
}
//@ else
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> gate: array<f32>;
@group(0) @binding(7) var<storage, read_write> residual: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;
fn bias4(n: u32) -> vec4<f32> {
    var v: vec4<f32>;
    if (p.flags & 1u) == 0u { return v; }
    for (var e = 0u; e < 4u; e++) { v[e] = bias[min(n + e, p.n - 1u)]; }
    return v;
}
fn finish1(m: u32, n: u32, acc: f32) {
    if m >= p.m || n >= p.n { return; }
    var v = acc;
    if (p.flags & 2u) != 0u { v = v * gate[(m / p.rows_per_batch) * p.n + n]; }
    if (p.flags & 4u) != 0u { v = v + residual[m * p.n + n]; }
    y[m * p.n + n] = v;
}
//@ end
// What is left to do with the sums, in loops, because drivers without branches run what a condition leaves out, but no loop to its end:
// residual + gate * act(sums + bias).
var<private> sums: array<vec4<f32>, ROWS * COLUMNS4 + 1u>; // not as long as the loops: those would be unrolled
fn finish_tile(t: Tile, c: array<array<vec4<f32>, COLUMNS4>, ROWS>) {
    for (var j = 0u; j < COLUMNS4; j++) {
        let add = bias4(t.n + 4u * j);
        for (var r = 0u; r < ROWS; r++) { sums[r * COLUMNS4 + j] = c[r][j] + add; }
    }
    let acted = select(0u, ROWS * COLUMNS, p.act != 0u);
    for (var i = 0u; i < acted; i++) { sums[i / 4u][i % 4u] = activate(sums[i / 4u][i % 4u], p.act); }
    //@ if FOURS == 1
    for (var i = 0u; i < ROWS * COLUMNS4; i++) { finish4(t.m + i / COLUMNS4, t.n + 4u * (i % COLUMNS4), sums[i]); }
    //@ else
    for (var i = 0u; i < ROWS * COLUMNS; i++) { finish1(t.m + i / COLUMNS, t.n + i % COLUMNS, sums[i / 4u][i % 4u]); }
    //@ end
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
            for (var e = 0u; e < 4u; e++) { w[j][e] = textureLoad(b, texel(at_b[4u * j + e] + k)); }
        }
        for (var r = 0u; r < ROWS; r++) {
            let v = textureLoad(a, texel(at_a[r] + k));
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
            for (var e = 0u; e < 4u; e++) { w[j][e] = textureLoad(b, texel((4u * k + e) * n4 + at_b[j])); }
        }
        for (var r = 0u; r < ROWS; r++) {
            let v = textureLoad(a, texel(at_a[r] + k));
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
        for (var j = 0u; j < COLUMNS4; j++) { w[j] = textureLoad(b, texel(k * n4 + at_b[j])); }
        for (var r = 0u; r < ROWS4; r++) {
            let v = textureLoad(a, texel(k * m4 + at_a[r]));
            for (var e = 0u; e < 4u; e++) {
                for (var j = 0u; j < COLUMNS4; j++) { c[4u * r + e][j] += v[e] * w[j]; }
            }
        }
    }
    finish_tile(t, c);
}
