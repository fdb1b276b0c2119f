// binary: y = f(a, b) with b repeated over the middle: a, y [O, S, C]; b [O or 1, 1, C or 1].
// One invocation per ITEM neighbouring elements of a. The strides say which of b's sides are repeated (0); where ITEM is more
// than 1, the inner one is not.
// Reference: wgsl/src/cpu/binary.rs
struct Params { n: u32, op: u32, sc: u32, c: u32, stride_o: u32, stride_c: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<Item>;
@group(0) @binding(2) var<storage, read_write> b: array<Item>;
@group(0) @binding(3) var<storage, read_write> y: array<Item>;
@compute @workgroup_size(WORKGROUP)
fn binary(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i >= p.n / ITEM { return; }
    let u = a[i];
    let v = b[(i / (p.sc / ITEM)) * (p.stride_o / ITEM) + (i % (p.c / ITEM)) * p.stride_c];
    var r: Item;
    switch p.op {
        case 0u: { r = u + v; }
        case 1u: { r = u - v; }
        case 2u: { r = u * v; }
        case 3u: { r = max(u, v); }
        case 4u: { r = select(Item(), Item(1.0), u >= v); }
        default: { r = u * (1.0 + v); }
    }
    y[i] = r; // once: drivers without branches run all cases
}
