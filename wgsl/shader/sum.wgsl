// sum: y[o, i] = scale * sum over n of x[o, n, i].
// x: [O, N, I]; y: [O, I].
// One invocation per output, in a fixed order: four running sums hide the loads' latency and round less than one. Long sums
// are cut in two by the graph builder.
// Reference: wgsl/src/cpu/sum.rs
struct Params { outputs: u32, n: u32, inner: u32, scale: f32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(WORKGROUP)
fn sum(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.outputs { return; }
    let base = (i / p.inner) * p.n * p.inner + i % p.inner;
    var four = vec4<f32>();
    let whole = p.n - p.n % 4u;
    for (var k = 0u; k < whole; k += 4u) {
        let at = base + k * p.inner;
        four = four + vec4<f32>(x[at], x[at + p.inner], x[at + 2u * p.inner], x[at + 3u * p.inner]);
    }
    var total = (four.x + four.y) + (four.z + four.w);
    for (var k = whole; k < p.n; k++) { total = total + x[base + k * p.inner]; }
    y[i] = p.scale * total;
}
