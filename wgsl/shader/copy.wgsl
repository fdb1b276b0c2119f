// copy: slice, pad, concat, permute and nearest upsampling: everything that only moves numbers.
// slice: [O, N, I] -> [O, L, I] from `start`; pad: its transpose (zeros elsewhere);
// concat: [O, A], [O, B] -> [O, A + B]; permute: up to five axes;
// upsample: [B, H, W, C] -> [B, 2H, 2W, C], each pixel four times.
// One invocation per output element.
// Reference: wgsl/src/cpu/copy.rs
struct Params { n: u32, a: u32, b: u32, c: u32, d: array<vec4<u32>, 3> }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> x2: array<f32>;

// a = L*I, b = N*I, c = start*I
@compute @workgroup_size(WORKGROUP)
fn slice(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i < p.n { y[i] = x[(i / p.a) * p.b + p.c + i % p.a]; }
}
// a = L*I, b = N*I, c = start*I; y has O*N*I elements
@compute @workgroup_size(WORKGROUP)
fn pad(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n { return; }
    let r = i % p.b;
    if r >= p.c && r < p.c + p.a { y[i] = x[(i / p.b) * p.a + r - p.c]; } else { y[i] = 0.0; }
}
// a = A, b = B
@compute @workgroup_size(WORKGROUP)
fn concat(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n { return; }
    let o = i / (p.a + p.b);
    let r = i % (p.a + p.b);
    if r < p.a { y[i] = x[o * p.a + r]; } else { y[i] = x2[o * p.b + r - p.a]; }
}
// sizes (a, b, c, d0.x, d0.y) of the output's axes, outermost first; strides of x for each: d0.z, d0.w, d1.x, d1.y, d1.z
@compute @workgroup_size(WORKGROUP)
fn permute(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n { return; }
    var r = i;
    let i4 = r % p.d[0].y; r = r / p.d[0].y;
    let i3 = r % p.d[0].x; r = r / p.d[0].x;
    let i2 = r % p.c; r = r / p.c;
    let i1 = r % p.b; r = r / p.b;
    y[i] = x[r * p.d[0].z + i1 * p.d[0].w + i2 * p.d[1].x + i3 * p.d[1].y + i4 * p.d[1].z];
}
// a = H, b = W, c = C of the input
@compute @workgroup_size(WORKGROUP)
fn upsample(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n { return; }
    let c = i % p.c;
    let px = i / p.c;
    let col = px % (2u * p.b);
    let row = px / (2u * p.b); // batch and row together: 2H rows per image
    y[i] = x[((row / 2u) * p.b + col / 2u) * p.c + c];
}
