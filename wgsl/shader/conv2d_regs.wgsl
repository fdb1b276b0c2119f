// conv2d_regs: conv2d as a matmul of (pixels) x (taps and channels) by w, on register tiles in f32; nothing is laid out for it:
// a tile's rows are gathered from x as they are staged. x, w, bias, residual, y and flags as in conv2d.wgsl; C, O multiples of 4.
// One workgroup per TILE_M pixels and TILE_N output channels; the grid is folded as in shared/index.wgsl.
// Reference: wgsl/src/cpu/conv2d.rs
struct Params {
    batch: u32, h: u32, w: u32, c: u32, ho: u32, wo: u32, o: u32, kh: u32, kw: u32, stride: u32, pad: u32, flags: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@compute @workgroup_size(WORKGROUP)
fn conv2d_regs(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (p.o + TILE_N - 1u) / TILE_N;
    let index = workgroup_of(wg, grid);
    let m0 = index / tiles_n * TILE_M;
    if m0 >= p.batch * p.ho * p.wo { return; }
    register_tile(0u, m0, index % tiles_n * TILE_N, 0u, p.kh * p.kw * p.c, lane);
}
// Four channels of the pixel that a tap of an output pixel reads, from column k of the product on.
fn gather(pixel: u32, k: u32, end: u32) -> vec4<f32> {
    if pixel >= p.batch * p.ho * p.wo || k >= end { return vec4<f32>(); }
    let tap = k / p.c;
    let oy = pixel / p.wo % p.ho;
    let iy = oy * p.stride + tap / p.kw - p.pad; // wraps below zero and then lies beyond every row
    let ix = pixel % p.wo * p.stride + tap % p.kw - p.pad;
    if iy >= p.h || ix >= p.w { return vec4<f32>(); }
    return x[((pixel / (p.wo * p.ho) * p.h + iy) * p.w + ix) * (p.c / 4u) + k % p.c / 4u];
}
fn weight(o: u32, k: u32, end: u32) -> vec4<f32> {
    if o >= p.o || k >= end { return vec4<f32>(); }
    return w[(o * end + k) / 4u];
}
fn stage(m0: u32, n0: u32, k0: u32, end: u32, lane: u32) {
    for (var e = lane; e < TILE_M / 4u * DEPTH / 4u; e += WORKGROUP) {
        let m4 = e / (DEPTH / 4u);
        let k4 = e % (DEPTH / 4u);
        let m = m0 + 4u * m4;
        let k = k0 + 4u * k4;
        turn_a(m4, k4, gather(m, k, end), gather(m + 1u, k, end), gather(m + 2u, k, end), gather(m + 3u, k, end));
    }
    // By others than those that gathered.
    for (var e = (lane + WORKGROUP / 2u) % WORKGROUP; e < TILE_N / 4u * DEPTH / 4u; e += WORKGROUP) {
        let n4 = e / (DEPTH / 4u);
        let k4 = e % (DEPTH / 4u);
        let n = n0 + 4u * n4;
        let k = k0 + 4u * k4;
        turn_b(n4, k4, weight(n, k, end), weight(n + 1u, k, end), weight(n + 2u, k, end), weight(n + 3u, k, end));
    }
}
fn finish4(part: u32, pixel: u32, o: u32, acc: vec4<f32>) {
    if pixel >= p.batch * p.ho * p.wo || o >= p.o { return; }
    let at = (pixel * p.o + o) / 4u;
    var v = acc;
    if (p.flags & 1u) != 0u { v += bias[o / 4u]; }
    if (p.flags & 4u) != 0u { v += residual[at]; }
    y[at] = v;
}
