// LANES invocations per row, a workgroup or a part of one; sums by a tree, so the order is fixed and runs repeat bit for bit.
var<workgroup> row_scratch: array<f32, WORKGROUP>;
fn row_of(wg: vec3<u32>, grid: vec3<u32>, lane: u32) -> u32 {
    return workgroup_of(wg, grid) * (WORKGROUP / LANES) + lane / LANES;
}
fn first(lane: u32, row: u32) -> u32 { return select(0xffffffffu, lane % LANES, row < p.rows); }
fn row_sum(v: f32, lane: u32) -> f32 {
    let at = lane % LANES;
    workgroupBarrier();
    row_scratch[lane] = v;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half = half / 2u) {
        if at < half { row_scratch[lane] = row_scratch[lane] + row_scratch[lane + half]; }
        workgroupBarrier();
    }
    return row_scratch[lane - at];
}
fn row_max(v: f32, lane: u32) -> f32 {
    let at = lane % LANES;
    workgroupBarrier();
    row_scratch[lane] = v;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half = half / 2u) {
        if at < half { row_scratch[lane] = max(row_scratch[lane], row_scratch[lane + half]); }
        workgroupBarrier();
    }
    return row_scratch[lane - at];
}
