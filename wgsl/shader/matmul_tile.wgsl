// matmul_tile: matmul on workgroup tiles of TILE x TILE x DEPTH; PER x PER outputs an invocation, PER being 4.
// a: M x K; b: K x N; y: [M, N]; strides as in matmul.wgsl.
// One workgroup per tile; the grid is folded as in shared/index.wgsl.
// Reference: wgsl/src/cpu/matmul.rs
const STRIDE = TILE + 1u; // pad the stride: no bank conflict when a column is written
var<workgroup> tile_a: array<f32, STRIDE * DEPTH>;
var<workgroup> tile_b: array<f32, STRIDE * DEPTH>;
@compute @workgroup_size(WORKGROUP)
fn matmul_tile(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (p.n + TILE - 1u) / TILE;
    let tile = workgroup_of(wg, grid);
    let m0 = (tile / tiles_n) * TILE;
    let n0 = (tile % tiles_n) * TILE;
    if m0 >= p.m { return; }
    let tm = (lane / (TILE / PER)) * PER;
    let tn = (lane % (TILE / PER)) * PER;
    var c0 = vec4<f32>();
    var c1 = vec4<f32>();
    var c2 = vec4<f32>();
    var c3 = vec4<f32>();
    for (var k0 = 0u; k0 < p.k; k0 += DEPTH) {
        for (var e = lane; e < TILE * DEPTH; e += WORKGROUP) {
            // Walk the contiguous side fastest, so that neighbours read neighbours.
            let a_along_k = p.stride_ak == 1u;
            let ak = select(e / TILE, e % DEPTH, a_along_k);
            let am = select(e % TILE, e / DEPTH, a_along_k);
            var va = 0.0;
            if m0 + am < p.m && k0 + ak < p.k { va = load_a((m0 + am) * p.stride_am + (k0 + ak) * p.stride_ak); }
            tile_a[ak * STRIDE + am] = va;
            let b_along_k = p.stride_bk == 1u;
            let bk = select(e / TILE, e % DEPTH, b_along_k);
            let bn = select(e % TILE, e / DEPTH, b_along_k);
            var vb = 0.0;
            if n0 + bn < p.n && k0 + bk < p.k { vb = load_b((k0 + bk) * p.stride_bk + (n0 + bn) * p.stride_bn); }
            tile_b[bk * STRIDE + bn] = vb;
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let ia = k * STRIDE + tm;
            let ib = k * STRIDE + tn;
            let b = vec4<f32>(tile_b[ib], tile_b[ib + 1u], tile_b[ib + 2u], tile_b[ib + 3u]);
            c0 += tile_a[ia] * b;
            c1 += tile_a[ia + 1u] * b;
            c2 += tile_a[ia + 2u] * b;
            c3 += tile_a[ia + 3u] * b;
        }
        workgroupBarrier();
    }
    for (var j = 0u; j < PER; j++) {
        finish(m0 + tm, n0 + tn + j, with_low(m0 + tm, n0 + tn + j, c0[j]));
        finish(m0 + tm + 1u, n0 + tn + j, with_low(m0 + tm + 1u, n0 + tn + j, c1[j]));
        finish(m0 + tm + 2u, n0 + tn + j, with_low(m0 + tm + 2u, n0 + tn + j, c2[j]));
        finish(m0 + tm + 3u, n0 + tn + j, with_low(m0 + tm + 3u, n0 + tn + j, c3[j]));
    }
}
