// conv2d_texture: conv2d for CPU drivers; PIXELS x CHANNELS outputs per invocation, operands read as texels.
// x, w, bias, residual, y and flags as in conv2d.wgsl.
// One invocation per PIXELS pixels that follow each other in memory and CHANNELS output channels, pixels fastest. Those past the end
// do the last one's work again and are not written; channels are multiples of 4. Backward: conv2d_dx_texture.wgsl.
// Arrays of arrays, each as long as the loop over it: only so does Mesa keep the sums out of memory; see matmul_texture.wgsl.
// Reference: wgsl/src/cpu/conv2d.rs
struct Params {
    batch: u32, h: u32, w: u32, c: u32, ho: u32, wo: u32, o: u32, kh: u32, kw: u32, stride: u32, pad: u32, flags: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
const FOURS = CHANNELS / 4u;
// A copy of the sums for the epilogue's loop: unrolled, as it would be were the array as long as the loop, it would be compiled for
// each of them.
var<private> sums: array<vec4<f32>, PIXELS * FOURS + 1u>;
@compute @workgroup_size(WORKGROUP)
fn conv2d_texture(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let pixels = p.batch * p.ho * p.wo;
    let blocks = (pixels + PIXELS - 1u) / PIXELS;
    let first = (i % blocks) * PIXELS;
    let o = (i / blocks) * CHANNELS;
    if o >= p.o { return; }
    let c4 = p.c / 4u;
    let taps = p.kh * p.kw * c4;
    var at_w: array<u32, CHANNELS>;
    for (var n = 0u; n < CHANNELS; n++) { at_w[n] = min(o + n, p.o - 1u) * taps; }
    var s: array<array<vec4<f32>, FOURS>, PIXELS>;
    // Divided once: a driver without vectors of divisions makes one for each lane.
    var top: array<u32, PIXELS>;
    var left: array<u32, PIXELS>;
    var image: array<u32, PIXELS>;
    for (var r = 0u; r < PIXELS; r++) {
        let line = min(first + r, pixels - 1u) / p.wo;
        left[r] = (min(first + r, pixels - 1u) - line * p.wo) * p.stride;
        image[r] = line / p.ho;
        top[r] = (line - image[r] * p.ho) * p.stride;
    }
    for (var t = 0u; t < p.kh * p.kw; t++) {
        let ky = t / p.kw;
        let kx = t - ky * p.kw;
        // Wraps below zero and then lies beyond every row.
        var at_x: array<u32, PIXELS>;
        var inside: array<bool, PIXELS>;
        for (var r = 0u; r < PIXELS; r++) {
            let iy = top[r] + ky - p.pad;
            let ix = left[r] + kx - p.pad;
            inside[r] = iy < p.h && ix < p.w;
            at_x[r] = select(0u, ((image[r] * p.h + iy) * p.w + ix) * c4, inside[r]);
        }
        for (var c = 0u; c < c4; c++) {
            var m: array<mat4x4<f32>, FOURS>;
            for (var j = 0u; j < FOURS; j++) {
                for (var e = 0u; e < 4u; e++) { m[j][e] = load_w(at_w[4u * j + e] + t * c4 + c); }
            }
            for (var r = 0u; r < PIXELS; r++) {
                let v = select(vec4<f32>(), load_x(at_x[r] + c), inside[r]);
                for (var j = 0u; j < FOURS; j++) { s[r][j] += v * m[j]; }
            }
        }
    }
    for (var r = 0u; r < PIXELS; r++) {
        for (var j = 0u; j < FOURS; j++) { sums[r * FOURS + j] = s[r][j]; }
    }
    for (var e = 0u; e < PIXELS * FOURS; e++) {
        let pixel = first + e / FOURS;
        let n = o / 4u + e % FOURS;
        if pixel < pixels && n < p.o / 4u {
            var v = sums[e];
            if (p.flags & 1u) != 0u { v = v + bias[n]; }
            if (p.flags & 4u) != 0u { v = v + residual[pixel * (p.o / 4u) + n]; }
            y[pixel * (p.o / 4u) + n] = v;
        }
    }
}
