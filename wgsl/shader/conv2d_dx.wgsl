// conv2d_dx: dx = sum over taps of dy * w, the input gradient of conv2d; zero padding; channels last.
// In the forward pass this was y[oy, ox, o] = sum of x[oy s + ky - pad, ox s + kx - pad, i] w[o, ky, kx, i]; so
// dx[iy, ix, i] = sum of dy[oy, ox, o] w[o, ky, kx, i] over the taps with oy s + ky - pad = iy and ox s + kx - pad = ix.
// dy: [B, HO, WO, O'], O' = O rounded up to a multiple of 4 (zeros); w: [O, KH, KW, C]; dx: [B, H, W, C]; C a multiple of 4.
// One invocation per BLOCK neighbouring input pixels and BLOCK input channels, BLOCK being 4. w is read as the forward pass reads it: the four
// outputs' weights are the columns of a matrix there and here.
// Reference: wgsl/src/cpu/conv2d.rs
// Paper: Dumoulin & Visin 2016 (arXiv 1603.07285), chapter 4
struct Params {
    batch: u32, h: u32, w: u32, c: u32, ho: u32, wo: u32, o: u32, kh: u32, kw: u32, stride: u32, pad: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
// The output column that a tap reaches input column ix from, or WO where there is none.
fn column(ix: u32, kx: u32) -> u32 {
    let t = ix + p.pad - kx; // wraps below zero and then lies beyond every row
    return select(p.wo, t / p.stride, t % p.stride == 0u);
}
fn pixel_dy(row: u32, ox: u32, o4: u32) -> vec4<f32> {
    if ox >= p.wo { return vec4<f32>(); }
    return load_x((row * p.wo + ox) * ((p.o + 3u) / 4u) + o4);
}
@compute @workgroup_size(WORKGROUP)
fn conv2d_dx(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let across = (p.w + (BLOCK - 1u)) / BLOCK;
    let pixels = p.batch * p.h * across;
    let c = i / pixels;
    let c4 = p.c / 4u;
    if c >= c4 { return; }
    let at = i % pixels;
    let ix = (at % across) * BLOCK;
    let iy = (at / across) % p.h;
    let b = at / (across * p.h);
    let last = p.o - 1u;
    let taps = p.kh * p.kw * c4;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    for (var ky = 0u; ky < p.kh; ky++) {
        let t = iy + p.pad - ky;
        let oy = t / p.stride;
        if t % p.stride == 0u && oy < p.ho {
            let row = b * p.ho + oy;
            for (var kx = 0u; kx < p.kw; kx++) {
                let x0 = column(ix, kx);
                let x1 = column(ix + 1u, kx);
                let x2 = column(ix + 2u, kx);
                let x3 = column(ix + 3u, kx);
                let t = (ky * p.kw + kx) * c4 + c;
                for (var o = 0u; o < p.o; o += 4u) {
                    let m = mat4x4<f32>(load_w(o * taps + t), load_w(min(o + 1u, last) * taps + t),
                        load_w(min(o + 2u, last) * taps + t), load_w(min(o + 3u, last) * taps + t));
                    s0 += m * pixel_dy(row, x0, o / 4u);
                    s1 += m * pixel_dy(row, x1, o / 4u);
                    s2 += m * pixel_dy(row, x2, o / 4u);
                    s3 += m * pixel_dy(row, x3, o / 4u);
                }
            }
        }
    }
    let first = ((b * p.h + iy) * p.w + ix) * c4 + c;
    dx[first] = s0;
    if ix + 1u < p.w { dx[first + c4] = s1; }
    if ix + 2u < p.w { dx[first + 2u * c4] = s2; }
    if ix + 3u < p.w { dx[first + 3u * c4] = s3; }
}
