// Linear index of this workgroup in a grid folded over x and y, because a grid side ends at 65535. A dispatch begins with workgroup
// `first` where a host wants the device back sooner and a command is cut into several.
fn workgroup_of(wg: vec3<u32>, grid: vec3<u32>) -> u32 {
    return p.first + wg.y * grid.x + wg.x;
}
// Linear index of this invocation.
fn linear(wg: vec3<u32>, grid: vec3<u32>, lane: u32) -> u32 {
    return workgroup_of(wg, grid) * WORKGROUP + lane;
}
