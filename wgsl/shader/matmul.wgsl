// matmul: y = epilogue(a b); a(m, k) and b(k, n) are read through strides, so this serves a b, a bT and aT b.
// a: M x K; b: K x N; y: [M, N].
// One invocation per output: the reference on the GPU and the fallback for shapes the others refuse.
// Reference: wgsl/src/cpu/matmul.rs
@compute @workgroup_size(WORKGROUP)
fn matmul(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let m = i / p.n;
    let n = i % p.n;
    if m >= p.m { return; }
    var acc = 0.0;
    for (var k = 0u; k < p.k; k++) {
        acc = acc + load_a(m * p.stride_am + k * p.stride_ak) * load_b(k * p.stride_bk + n * p.stride_bn);
    }
    finish(m, n, with_low(m, n, acc));
}
