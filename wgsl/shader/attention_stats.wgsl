// attention_stats: stats = (lse, delta), delta = sum over d of dy * y: what both backward passes need of the forward one.
// y, dy: [B, Q, H*D]; lse: [B, H, Q]; stats: [B, H, Q, 2].
// One invocation per query and head.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4, line 4
struct Params { batch: u32, heads: u32, q: u32, d: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
@compute @workgroup_size(WORKGROUP)
fn attention_stats(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.batch * p.heads * p.q { return; }
    let bh = i / p.q;
    let base = ((bh / p.heads) * p.q + i % p.q) * p.heads * p.d + (bh % p.heads) * p.d;
    var s = 0.0;
    for (var d = 0u; d < p.d; d++) { s = s + y[base + d] * dy[base + d]; }
    stats[2u * i] = lse[i];
    stats[2u * i + 1u] = s;
}
