// matmul_regs: matmul in f32 on register tiles, with loads of four neighbours; a, b as in matmul.wgsl, with M, N or K a
// multiple of 4 where it is the side that is read along.
// Sums over K are cut into parts where K is long and the output small; the parts are added by a second command.
// One workgroup per tile and part; the grid is folded as in shared/index.wgsl.
// Reference: wgsl/src/cpu/matmul.rs
@compute @workgroup_size(WORKGROUP)
fn matmul_regs(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (p.n + TILE_N - 1u) / TILE_N;
    let tiles = tiles_n * ((p.m + TILE_M - 1u) / TILE_M);
    let index = workgroup_of(wg, grid);
    let part = index / tiles;
    let start = part * p.part;
    if start >= p.k { return; }
    let m0 = (index % tiles) / tiles_n * TILE_M;
    let n0 = (index % tiles) % tiles_n * TILE_N;
    // The second pair of factors follows K; it never comes with parts.
    let all = (p.k + DEPTH - 1u) / DEPTH * DEPTH + p.low;
    let end = select(min(start + p.part, p.k), all, p.low > 0u);
    register_tile(part, m0, n0, start, end, lane);
}
