// A product on workgroup tiles in f32: 256 invocations, 4 x 4 outputs each. Users bring `stage`, which fills both tiles
// as [k][m] and [k][n] with zeros past every end, and `finish4`, which takes four neighbouring outputs of a row.
// One vector more a row spares bank conflicts. No arrays of sums: drivers keep those in slow memory, see REJECTED.md.
const ROW_A = TILE_M / 4u + 1u;
const ROW_B = TILE_N / 4u + 1u;
var<workgroup> tile_a: array<vec4<f32>, DEPTH * ROW_A>;
var<workgroup> tile_b: array<vec4<f32>, DEPTH * ROW_B>;
// Outputs from (m0, n0) on, summed over start..end.
fn register_tile(part: u32, m0: u32, n0: u32, start: u32, end: u32, lane: u32) {
    let tm = lane / (TILE_N / 4u);
    let tn = lane % (TILE_N / 4u);
    var c0 = vec4<f32>();
    var c1 = vec4<f32>();
    var c2 = vec4<f32>();
    var c3 = vec4<f32>();
    for (var k0 = start; k0 < end; k0 += DEPTH) {
        stage(m0, n0, k0, end, lane);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let a = tile_a[k * ROW_A + tm];
            let b = tile_b[k * ROW_B + tn];
            c0 += a.x * b;
            c1 += a.y * b;
            c2 += a.z * b;
            c3 += a.w * b;
        }
        workgroupBarrier();
    }
    let m = m0 + 4u * tm;
    let n = n0 + 4u * tn;
    finish4(part, m, n, c0);
    finish4(part, m + 1u, n, c1);
    finish4(part, m + 2u, n, c2);
    finish4(part, m + 3u, n, c3);
}
// Four rows of four numbers, turned into columns of a tile.
fn turn_a(m4: u32, k4: u32, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>) {
    let at = 4u * k4 * ROW_A + m4;
    tile_a[at] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
    tile_a[at + ROW_A] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
    tile_a[at + 2u * ROW_A] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
    tile_a[at + 3u * ROW_A] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
}
fn turn_b(n4: u32, k4: u32, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>) {
    let at = 4u * k4 * ROW_B + n4;
    tile_b[at] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
    tile_b[at + ROW_B] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
    tile_b[at + 2u * ROW_B] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
    tile_b[at + 3u * ROW_B] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
}
