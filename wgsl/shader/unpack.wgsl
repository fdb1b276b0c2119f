// unpack: y = the numbers of b, which is stored in blocks.
// b, y: [N], a multiple of 4.
// One invocation for four numbers.
// Reference: wgsl/src/kernel/blocks.rs
struct Params { n: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
//@ if HALF == 1
alias Four = vec4<f16>;
//@ else
alias Four = vec4<f32>;
//@ end
@group(0) @binding(3) var<storage, read_write> y: array<Four>;
@compute @workgroup_size(WORKGROUP)
fn unpack(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i < p.n / 4u { y[i] = Four(load_b4(i)); }
}
