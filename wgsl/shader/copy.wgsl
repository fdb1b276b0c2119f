// copy: slice, pad, concat, permute and nearest upsampling: everything that only moves numbers.
// slice: [O, N, I] -> [O, L, I] from `start`; pad: its transpose (zeros elsewhere);
// concat: [O, A], [O, B] -> [O, A + B]; permute: up to five axes;
// upsample: [B, H, W, C] -> [B, 2H, 2W, C], each pixel four times.
// One invocation per ITEM neighbouring numbers of the output; runs that are moved together are multiples of ITEM.
// Reference: wgsl/src/cpu/copy.rs
struct Params { n: u32, a: u32, b: u32, c: u32, d: array<vec4<u32>, 3>, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Item>;
@group(0) @binding(2) var<storage, read_write> y: array<Item>;
@group(0) @binding(3) var<storage, read_write> x2: array<Item>;

// a = L*I, b = N*I, c = start*I
@compute @workgroup_size(WORKGROUP)
fn slice(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let len = p.a / ITEM;
    if i < p.n / ITEM { y[i] = x[(i / len) * (p.b / ITEM) + p.c / ITEM + i % len]; }
}
// a = L*I, b = N*I, c = start*I; y has O*N*I elements
@compute @workgroup_size(WORKGROUP)
fn pad(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n / ITEM { return; }
    let side = p.b / ITEM;
    let r = i % side - p.c / ITEM; // wraps before the window and then lies beyond it
    var v: Item;
    if r < p.a / ITEM { v = x[(i / side) * (p.a / ITEM) + r]; }
    y[i] = v;
}
// a = A, b = B
@compute @workgroup_size(WORKGROUP)
fn concat(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n / ITEM { return; }
    let a = p.a / ITEM;
    let b = p.b / ITEM;
    let o = i / (a + b);
    let r = i % (a + b);
    var v: Item;
    if r < a { v = x[o * a + r]; } else { v = x2[o * b + r - a]; }
    y[i] = v;
}
// sizes (a, b, c, d0.x, d0.y) of the output's axes, outermost first; strides of x for each: d0.z, d0.w, d1.x, d1.y, d1.z,
// the last one 1 where ITEM is more
@compute @workgroup_size(WORKGROUP)
fn permute(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n / ITEM { return; }
    var r = i;
    let i4 = ITEM * (r % (p.d[0].y / ITEM)); r = r / (p.d[0].y / ITEM);
    let i3 = r % p.d[0].x; r = r / p.d[0].x;
    let i2 = r % p.c; r = r / p.c;
    let i1 = r % p.b; r = r / p.b;
    y[i] = x[(r * p.d[0].z + i1 * p.d[0].w + i2 * p.d[1].x + i3 * p.d[1].y + i4 * p.d[1].z) / ITEM];
}
// a = H, b = W, c = C of the input
@compute @workgroup_size(WORKGROUP)
fn upsample(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n / ITEM { return; }
    let channels = p.c / ITEM;
    let c = i % channels;
    let px = i / channels;
    let col = px % (2u * p.b);
    let row = px / (2u * p.b); // batch and row together: 2H rows per image
    y[i] = x[((row / 2u) * p.b + col / 2u) * channels + c];
}
