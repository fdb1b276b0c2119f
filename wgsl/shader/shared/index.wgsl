// Linear index of this invocation in a grid folded over x and y, because a grid side ends at 65535.
fn linear(wg: vec3<u32>, grid: vec3<u32>, lane: u32) -> u32 {
    return (wg.y * grid.x + wg.x) * WORKGROUP + lane;
}
