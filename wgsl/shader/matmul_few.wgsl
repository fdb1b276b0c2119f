// matmul_few: matmul of at most ROWS rows by b [N, K], which is read once, as fast as memory goes.
// a: [M, K]; y: [M, N]; K is a multiple of 4.
// LANES invocations share a column of y and add up their parts by a tree, in a fixed order.
// Reference: wgsl/src/cpu/matmul.rs
var<workgroup> sums: array<array<f32, WORKGROUP>, ROWS>;
@compute @workgroup_size(WORKGROUP)
fn matmul_few(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = lane % LANES;
    // Columns past the end do the last one's work again, so that everyone comes to the barriers.
    let column = workgroup_of(wg, grid) * (WORKGROUP / LANES) + lane / LANES;
    let n = min(column, p.n - 1u);
    let k4 = p.k / 4u;
    var acc: array<f32, ROWS>;
    for (var m = 0u; m < ROWS; m++) { acc[m] = 0.0; }
    for (var i = at; i < k4; i += LANES) {
        let w = load_b4(n * k4 + i);
        for (var m = 0u; m < ROWS; m++) { acc[m] += dot(a[min(m, p.m - 1u) * k4 + i], w); }
    }
    for (var m = 0u; m < ROWS; m++) { sums[m][lane] = acc[m]; }
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half = half / 2u) {
        if at < half {
            for (var m = 0u; m < ROWS; m++) { sums[m][lane] += sums[m][lane + half]; }
        }
        workgroupBarrier();
    }
    // The first ROWS invocations of a column write one row each.
    if at < ROWS && column < p.n { finish(at, n, sums[at][lane - at]); }
}
