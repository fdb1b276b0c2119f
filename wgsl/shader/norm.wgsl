// layer_norm: y = (x - mean) * rstd, then * (1 + scale[b]) + shift[b] when modulated, or * scale + shift when affine.
// rms_norm: y = x * rsqrt(mean(x^2) + eps) * w.     softmax: y = exp(s x - max) / sum.
// group_norm: per image and group of channels, NHWC; y = (x - mean) * rstd * w + b, then silu when asked.
// x, y: [R, C]; scale, shift: [R / rows_per_batch, C] or [C]; w: [C].
// One row per invocation, per LANES of them or per workgroup (shared/row_*.wgsl); rows past the end have no numbers, because all
// invocations must come to the barriers. The backward passes recompute mean and rstd.
// Numbers are read ITEM at a time (shared/item.wgsl), of which what is read together is a multiple.
// Reference: wgsl/src/cpu/norm.rs
// Papers: Ba et al. 2016 eq. 3; Zhang & Sennrich 2019 eq. 4; Wu & He 2018 eq. 1
struct Params { rows: u32, c: u32, eps: f32, mode: u32, rows_per_batch: u32, groups: u32, hw: u32, scale: f32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Item>;
@group(0) @binding(2) var<storage, read_write> w: array<Item>;
@group(0) @binding(3) var<storage, read_write> shift: array<Item>;
@group(0) @binding(4) var<storage, read_write> y: array<Item>;

//@ if ITEM == 4
fn sum_of(v: Item) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn max_of(v: Item) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
//@ else
fn sum_of(v: Item) -> f32 { return v; }
fn max_of(v: Item) -> f32 { return v; }
//@ end
@compute @workgroup_size(WORKGROUP)
fn layer_norm(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let base = row * len;
    var s: Item;
    for (var i = first(lane, row); i < len; i += LANES) { s = s + x[base + i]; }
    let mean = row_sum(sum_of(s), lane) / f32(p.c);
    var v: Item;
    for (var i = first(lane, row); i < len; i += LANES) { let d = x[base + i] - mean; v = v + d * d; }
    let rstd = 1.0 / sqrt(row_sum(sum_of(v), lane) / f32(p.c) + p.eps);
    let b = select((row / p.rows_per_batch) * len, 0u, p.mode == 2u);
    for (var i = first(lane, row); i < len; i += LANES) {
        var n = (x[base + i] - mean) * rstd;
        if p.mode != 0u {
            let scale = w[b + i];
            n = n * select(scale, 1.0 + scale, p.mode == 1u) + shift[b + i];
        }
        y[base + i] = n;
    }
}
// In the forward pass this was n = (x - mean) * rstd; so dx = rstd * (dn - mean(dn) - n * mean(dn * n)).
// w holds dy (of the plain form: modulation is a separate node whenever a gradient is wanted).
@compute @workgroup_size(WORKGROUP)
fn layer_norm_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let base = row * len;
    var s: Item;
    for (var i = first(lane, row); i < len; i += LANES) { s = s + x[base + i]; }
    let mean = row_sum(sum_of(s), lane) / f32(p.c);
    var v: Item;
    for (var i = first(lane, row); i < len; i += LANES) { let d = x[base + i] - mean; v = v + d * d; }
    let rstd = 1.0 / sqrt(row_sum(sum_of(v), lane) / f32(p.c) + p.eps);
    var sd: Item;
    var sdn: Item;
    for (var i = first(lane, row); i < len; i += LANES) {
        let d = w[base + i];
        sd = sd + d;
        sdn = sdn + d * (x[base + i] - mean) * rstd;
    }
    let md = row_sum(sum_of(sd), lane) / f32(p.c);
    let mdn = row_sum(sum_of(sdn), lane) / f32(p.c);
    for (var i = first(lane, row); i < len; i += LANES) {
        let n = (x[base + i] - mean) * rstd;
        y[base + i] = rstd * (w[base + i] - md - n * mdn);
    }
}
@compute @workgroup_size(WORKGROUP)
fn rms_norm(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let base = row * len;
    var v: Item;
    for (var i = first(lane, row); i < len; i += LANES) { let d = x[base + i]; v = v + d * d; }
    let r = 1.0 / sqrt(row_sum(sum_of(v), lane) / f32(p.c) + p.eps);
    for (var i = first(lane, row); i < len; i += LANES) { y[base + i] = x[base + i] * r * w[i]; }
}
// Forward: y = x * r * w. So dx = r * (g - x * r^2 * mean(g * x)) with g = dy * w. `shift` holds dy.
@compute @workgroup_size(WORKGROUP)
fn rms_norm_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let base = row * len;
    var v: Item;
    var gx: Item;
    for (var i = first(lane, row); i < len; i += LANES) {
        let d = x[base + i];
        v = v + d * d;
        gx = gx + shift[base + i] * w[i] * d;
    }
    let r = 1.0 / sqrt(row_sum(sum_of(v), lane) / f32(p.c) + p.eps);
    let m = row_sum(sum_of(gx), lane) / f32(p.c);
    for (var i = first(lane, row); i < len; i += LANES) {
        y[base + i] = r * (shift[base + i] * w[i] - x[base + i] * r * r * m);
    }
}
@compute @workgroup_size(WORKGROUP)
fn softmax(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let base = row * len;
    var top = Item(-3.0e38);
    for (var i = first(lane, row); i < len; i += LANES) { top = max(top, p.scale * x[base + i]); }
    let peak = row_max(max_of(top), lane);
    var s: Item;
    for (var i = first(lane, row); i < len; i += LANES) { s = s + exp(p.scale * x[base + i] - peak); }
    let total = row_sum(sum_of(s), lane);
    for (var i = first(lane, row); i < len; i += LANES) { y[base + i] = exp(p.scale * x[base + i] - peak) / total; }
}
// In the forward pass this was y = exp(s x - max) / sum; so dx = s * y * (dy - sum(dy * y)). x holds y, w holds dy.
@compute @workgroup_size(WORKGROUP)
fn softmax_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let base = row * len;
    var s: Item;
    for (var i = first(lane, row); i < len; i += LANES) { s = s + w[base + i] * x[base + i]; }
    let total = row_sum(sum_of(s), lane);
    for (var i = first(lane, row); i < len; i += LANES) { y[base + i] = p.scale * x[base + i] * (w[base + i] - total); }
}
// One row is one (image, group): hw pixels of c / groups channels. mode 1 adds silu.
@compute @workgroup_size(WORKGROUP)
fn group_norm(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let per = len / p.groups;
    let c0 = (row % p.groups) * per;
    let base = (row / p.groups) * p.hw * len + c0;
    let count = p.hw * per;
    var s: Item;
    for (var i = first(lane, row); i < count; i += LANES) { s = s + x[base + (i / per) * len + i % per]; }
    let mean = row_sum(sum_of(s), lane) / f32(ITEM * count);
    var v: Item;
    for (var i = first(lane, row); i < count; i += LANES) { let d = x[base + (i / per) * len + i % per] - mean; v = v + d * d; }
    let rstd = 1.0 / sqrt(row_sum(sum_of(v), lane) / f32(ITEM * count) + p.eps);
    for (var i = first(lane, row); i < count; i += LANES) {
        let at = base + (i / per) * len + i % per;
        let n = (x[at] - mean) * rstd * w[c0 + i % per] + shift[c0 + i % per];
        var r = n;
        if p.mode == 1u { r = n * (1.0 / (1.0 + exp(-n))); }
        y[at] = r;
    }
}
// In the forward pass this was y = n * w + b with n = (x - mean) * rstd; so dx = rstd * (dn - mean(dn) - n * mean(dn * n)) with
// dn = dy * w. `shift` holds dy (of the plain form: an activation is a separate node whenever a gradient is wanted).
@compute @workgroup_size(WORKGROUP)
fn group_norm_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let len = p.c / ITEM;
    let per = len / p.groups;
    let c0 = (row % p.groups) * per;
    let base = (row / p.groups) * p.hw * len + c0;
    let count = p.hw * per;
    var s: Item;
    for (var i = first(lane, row); i < count; i += LANES) { s = s + x[base + (i / per) * len + i % per]; }
    let mean = row_sum(sum_of(s), lane) / f32(ITEM * count);
    var v: Item;
    for (var i = first(lane, row); i < count; i += LANES) { let d = x[base + (i / per) * len + i % per] - mean; v = v + d * d; }
    let rstd = 1.0 / sqrt(row_sum(sum_of(v), lane) / f32(ITEM * count) + p.eps);
    var sd: Item;
    var sdn: Item;
    for (var i = first(lane, row); i < count; i += LANES) {
        let at = base + (i / per) * len + i % per;
        let dn = shift[at] * w[c0 + i % per];
        sd = sd + dn;
        sdn = sdn + dn * (x[at] - mean) * rstd;
    }
    let md = row_sum(sum_of(sd), lane) / f32(ITEM * count);
    let mdn = row_sum(sum_of(sdn), lane) / f32(ITEM * count);
    for (var i = first(lane, row); i < count; i += LANES) {
        let at = base + (i / per) * len + i % per;
        let n = (x[at] - mean) * rstd;
        y[at] = rstd * (shift[at] * w[c0 + i % per] - md - n * mdn);
    }
}
