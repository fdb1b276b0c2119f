// One invocation per row: on a CPU driver barriers cost more than they share.
fn row_of(wg: vec3<u32>, grid: vec3<u32>, lane: u32) -> u32 {
    return workgroup_of(wg, grid) * WORKGROUP + lane;
}
fn first(lane: u32, row: u32) -> u32 { return select(0xffffffffu, 0u, row < p.rows); }
fn row_sum(v: f32, lane: u32) -> f32 { return v; }
fn row_max(v: f32, lane: u32) -> f32 { return v; }
