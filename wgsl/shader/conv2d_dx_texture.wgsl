// conv2d_dx_texture: conv2d_dx for CPU drivers; PIXELS x CHANNELS outputs per invocation, operands read as texels.
// dy, w and dx as in conv2d_dx.wgsl, dy being what load_x reads.
// One invocation per PIXELS input pixels that follow each other in memory and CHANNELS input channels, pixels fastest; ends and arrays as
// in conv2d_texture.wgsl.
// Reference: wgsl/src/cpu/conv2d.rs
struct Params {
    batch: u32, h: u32, w: u32, c: u32, ho: u32, wo: u32, o: u32, kh: u32, kw: u32, stride: u32, pad: u32, first: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
const FOURS = CHANNELS / 4u;
@compute @workgroup_size(WORKGROUP)
fn conv2d_dx_texture(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let pixels = p.batch * p.h * p.w;
    let blocks = (pixels + PIXELS - 1u) / PIXELS;
    let first = (i % blocks) * PIXELS;
    let c4 = p.c / 4u;
    let column = (i / blocks) * FOURS;
    if column >= c4 { return; }
    let o4 = (p.o + 3u) / 4u;
    let taps = p.kh * p.kw;
    var at_w: array<u32, FOURS>;
    for (var j = 0u; j < FOURS; j++) { at_w[j] = min(column + j, c4 - 1u); }
    var s: array<array<vec4<f32>, FOURS>, PIXELS>;
    // Divided once, as in conv2d_texture.wgsl.
    var top: array<u32, PIXELS>;
    var left: array<u32, PIXELS>;
    var image: array<u32, PIXELS>;
    for (var r = 0u; r < PIXELS; r++) {
        let line = min(first + r, pixels - 1u) / p.w;
        left[r] = min(first + r, pixels - 1u) - line * p.w + p.pad;
        image[r] = line / p.h;
        top[r] = line - image[r] * p.h + p.pad;
    }
    for (var t = 0u; t < taps; t++) {
        let ky = t / p.kw;
        let kx = t - ky * p.kw;
        // The output pixel that the tap reaches an input pixel from; t wraps below zero and then lies beyond every row.
        var at: array<u32, PIXELS>;
        var inside: array<bool, PIXELS>;
        for (var r = 0u; r < PIXELS; r++) {
            let oy = (top[r] - ky) / p.stride;
            let ox = (left[r] - kx) / p.stride;
            let whole = oy * p.stride == top[r] - ky && ox * p.stride == left[r] - kx;
            inside[r] = whole && oy < p.ho && ox < p.wo;
            at[r] = select(0u, ((image[r] * p.ho + oy) * p.wo + ox) * o4, inside[r]);
        }
        for (var k = 0u; k < o4; k++) {
            var m: array<mat4x4<f32>, FOURS>;
            for (var j = 0u; j < FOURS; j++) {
                for (var e = 0u; e < 4u; e++) { m[j][e] = load_w((min(4u * k + e, p.o - 1u) * taps + t) * c4 + at_w[j]); }
            }
            for (var r = 0u; r < PIXELS; r++) {
                let v = select(vec4<f32>(), load_x(at[r] + k), inside[r]);
                for (var j = 0u; j < FOURS; j++) { s[r][j] += m[j] * v; }
            }
        }
    }
    for (var r = 0u; r < PIXELS; r++) {
        for (var j = 0u; j < FOURS; j++) {
            if first + r < pixels && column + j < c4 { dx[(first + r) * c4 + column + j] = s[r][j]; }
        }
    }
}
