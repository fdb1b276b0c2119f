// conv2d: y = bias + sum over taps of x * w (+ residual), zero padding; channels last.
// x: [B, H, W, C]; w: [O, KH, KW, C]; bias: [O]; residual, y: [B, HO, WO, O]; C is a multiple of 4.
// One invocation per BLOCK neighbouring output pixels and BLOCK output channels, BLOCK being 4. Backward: conv2d_dx.wgsl.
// flags: 1 bias, 4 residual.
// Reference: wgsl/src/cpu/conv2d.rs
struct Params {
    batch: u32, h: u32, w: u32, c: u32, ho: u32, wo: u32, o: u32, kh: u32, kw: u32, stride: u32, pad: u32, flags: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
fn write(pixel: u32, o: u32, v: f32) {
    if o >= p.o { return; }
    var out = v;
    if (p.flags & 1u) != 0u { out = out + bias[o]; }
    if (p.flags & 4u) != 0u { out = out + residual[pixel * p.o + o]; }
    y[pixel * p.o + o] = out;
}
fn pixel_x(b: u32, iy: u32, ox: u32, kx: u32, c: u32) -> vec4<f32> {
    let ix = ox * p.stride + kx - p.pad; // wraps below zero and then fails the test against w
    if ix >= p.w { return vec4<f32>(); }
    return load_x(((b * p.h + iy) * p.w + ix) * (p.c / 4u) + c);
}
@compute @workgroup_size(WORKGROUP)
fn conv2d(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let across = (p.wo + (BLOCK - 1u)) / BLOCK;
    let pixels = p.batch * p.ho * across;
    let o = (i / pixels) * BLOCK;
    if o >= p.o { return; }
    let at = i % pixels;
    let ox = (at % across) * BLOCK;
    let oy = (at / across) % p.ho;
    let b = at / (across * p.ho);
    let c4 = p.c / 4u;
    let last = p.o - 1u;
    let taps = p.kh * p.kw * c4;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var ky = 0u; ky < p.kh; ky++) {
        let iy = oy * p.stride + ky - p.pad;
        if iy < p.h {
            for (var kx = 0u; kx < p.kw; kx++) {
                for (var c = 0u; c < c4; c++) {
                    let t = (ky * p.kw + kx) * c4 + c;
                    let m = mat4x4<f32>(load_w(o * taps + t), load_w(min(o + 1u, last) * taps + t),
                        load_w(min(o + 2u, last) * taps + t), load_w(min(o + 3u, last) * taps + t));
                    s0 += pixel_x(b, iy, ox, kx, c) * m;
                    s1 += pixel_x(b, iy, ox + 1u, kx, c) * m;
                    s2 += pixel_x(b, iy, ox + 2u, kx, c) * m;
                    s3 += pixel_x(b, iy, ox + 3u, kx, c) * m;
                }
            }
        }
    }
    let pixel = (b * p.ho + oy) * p.wo + ox;
    for (var j = 0u; j < 4u; j++) {
        write(pixel, o + j, s0[j]);
        if ox + 1u < p.wo { write(pixel + 1u, o + j, s1[j]); }
        if ox + 2u < p.wo { write(pixel + 2u, o + j, s2[j]); }
        if ox + 3u < p.wo { write(pixel + 3u, o + j, s3[j]); }
    }
}
