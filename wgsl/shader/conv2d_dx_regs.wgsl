// conv2d_dx_regs: conv2d_dx as a matmul of (input pixels) x (taps and output channels) by w, on register tiles in f32.
// dy, w and dx as in conv2d_dx.wgsl; C is a multiple of 4, O padded in dy to one.
// One workgroup per TILE_M pixels and TILE_N input channels; the grid is folded as in shared/index.wgsl.
// Reference: wgsl/src/cpu/conv2d.rs
struct Params {
    batch: u32, h: u32, w: u32, c: u32, ho: u32, wo: u32, o: u32, kh: u32, kw: u32, stride: u32, pad: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
// Output channels of a pixel of dy, zeros at the end.
fn channels() -> u32 { return (p.o + 3u) / 4u * 4u; }
@compute @workgroup_size(WORKGROUP)
fn conv2d_dx_regs(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tiles_n = (p.c + TILE_N - 1u) / TILE_N;
    let index = workgroup_of(wg, grid);
    let m0 = index / tiles_n * TILE_M;
    if m0 >= p.batch * p.h * p.w { return; }
    register_tile(0u, m0, index % tiles_n * TILE_N, 0u, p.kh * p.kw * channels(), lane);
}
// Four channels of the output pixel that a tap reaches an input pixel from.
fn gather(pixel: u32, k: u32, end: u32) -> vec4<f32> {
    if pixel >= p.batch * p.h * p.w || k >= end { return vec4<f32>(); }
    let tap = k / channels();
    let ty = pixel / p.w % p.h + p.pad - tap / p.kw; // wraps below zero and then lies beyond every row
    let tx = pixel % p.w + p.pad - tap % p.kw;
    let oy = ty / p.stride;
    let ox = tx / p.stride;
    if ty % p.stride != 0u || tx % p.stride != 0u || oy >= p.ho || ox >= p.wo { return vec4<f32>(); }
    return dy[((pixel / (p.w * p.h) * p.ho + oy) * p.wo + ox) * (channels() / 4u) + k % channels() / 4u];
}
fn stage(m0: u32, n0: u32, k0: u32, end: u32, lane: u32) {
    for (var e = lane; e < TILE_M / 4u * DEPTH / 4u; e += WORKGROUP) {
        let m4 = e / (DEPTH / 4u);
        let k4 = e % (DEPTH / 4u);
        let m = m0 + 4u * m4;
        let k = k0 + 4u * k4;
        turn_a(m4, k4, gather(m, k, end), gather(m + 1u, k, end), gather(m + 2u, k, end), gather(m + 3u, k, end));
    }
    let taps = p.kh * p.kw;
    for (var e = lane; e < TILE_N / 4u * DEPTH; e += WORKGROUP) {
        let k = k0 + e / (TILE_N / 4u);
        let n4 = e % (TILE_N / 4u);
        let o = k % channels();
        var v = vec4<f32>();
        if k < end && o < p.o && n0 + 4u * n4 < p.c { v = w[((o * taps + k / channels()) * p.c + n0) / 4u + n4]; }
        tile_b[(k - k0) * ROW_B + n4] = v;
    }
}
fn finish4(part: u32, pixel: u32, c: u32, acc: vec4<f32>) {
    if pixel < p.batch * p.h * p.w && c < p.c { dx[(pixel * p.c + c) / 4u] = acc; }
}
