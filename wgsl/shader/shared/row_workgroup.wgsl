// One workgroup per row; sums by a tree, so the order is fixed and runs repeat bit for bit.
const LANES = WORKGROUP;
var<workgroup> row_scratch: array<f32, WORKGROUP>;
fn row_of(wg: vec3<u32>, grid: vec3<u32>, lane: u32) -> u32 {
    return wg.y * grid.x + wg.x;
}
fn first(lane: u32) -> u32 { return lane; }
fn row_sum(v: f32, lane: u32) -> f32 {
    workgroupBarrier();
    row_scratch[lane] = v;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
        if lane < half { row_scratch[lane] = row_scratch[lane] + row_scratch[lane + half]; }
        workgroupBarrier();
    }
    return row_scratch[0];
}
fn row_max(v: f32, lane: u32) -> f32 {
    workgroupBarrier();
    row_scratch[lane] = v;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half = half / 2u) {
        if lane < half { row_scratch[lane] = max(row_scratch[lane], row_scratch[lane + half]); }
        workgroupBarrier();
    }
    return row_scratch[0];
}
