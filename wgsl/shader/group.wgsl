// group_norm among workgroups: images of many pixels, where a workgroup for each group of channels would leave a GPU idle.
// group_stats: of a part of an image's pixels, in one group, mean and sum of squared deviations from it.
// group_apply: y = (x - mean) * rstd * w + shift, then an activation, from all parts' stats.
// group_stats_backward: as group_stats, and sums of dn = dy * w and of dn * (x - mean). shift holds dy.
// group_apply_backward: dx = rstd * (dn - mean(dn) - n * mean(dn * n)) with n = (x - mean) * rstd. shift holds dy.
// x, y, dy: [B, HW, C]; w, shift: [C]; stats: [B, groups, parts, 2], backward 4.
// A row is one (image, group, part): `part` pixels of c / groups channels.
// Reference: wgsl/src/cpu/group.rs
// Papers: Wu & He 2018 eq. 1; Chan, Golub & LeVeque 1979, how parts are put together
struct Params { rows: u32, parts: u32, part: u32, c: u32, groups: u32, hw: u32, eps: f32, mode: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> shift: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Numbers of a part.
fn count_of(part: u32) -> u32 { return min(p.part, p.hw - part * p.part) * (p.c / p.groups); }
// First channel of a row, and where its first number lies.
fn channel_of(row: u32) -> u32 { return (row / p.parts) % p.groups * (p.c / p.groups); }
fn base_of(row: u32) -> u32 {
    return (row / p.parts / p.groups * p.hw + row % p.parts * p.part) * p.c + channel_of(row);
}

@compute @workgroup_size(WORKGROUP)
fn group_stats(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let per = p.c / p.groups;
    let base = base_of(row);
    let count = count_of(row % p.parts);
    var s = 0.0;
    for (var i = first(lane, row); i < count; i += LANES) { s = s + x[base + (i / per) * p.c + i % per]; }
    let mean = row_sum(s, lane) / f32(count);
    var v = 0.0;
    for (var i = first(lane, row); i < count; i += LANES) { let d = x[base + (i / per) * p.c + i % per] - mean; v = v + d * d; }
    let m2 = row_sum(v, lane);
    if lane == 0u && row < p.rows {
        stats[2u * row] = mean;
        stats[2u * row + 1u] = m2;
    }
}
@compute @workgroup_size(WORKGROUP)
fn group_stats_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let per = p.c / p.groups;
    let c0 = channel_of(row);
    let base = base_of(row);
    let count = count_of(row % p.parts);
    var s = 0.0;
    for (var i = first(lane, row); i < count; i += LANES) { s = s + x[base + (i / per) * p.c + i % per]; }
    let mean = row_sum(s, lane) / f32(count);
    var v = 0.0;
    var sd = 0.0;
    var sdx = 0.0;
    for (var i = first(lane, row); i < count; i += LANES) {
        let at = base + (i / per) * p.c + i % per;
        let d = x[at] - mean;
        let dn = shift[at] * w[c0 + i % per];
        v = v + d * d;
        sd = sd + dn;
        sdx = sdx + dn * d;
    }
    let m2 = row_sum(v, lane);
    let all_d = row_sum(sd, lane);
    let all_dx = row_sum(sdx, lane);
    if lane == 0u && row < p.rows {
        stats[4u * row] = mean;
        stats[4u * row + 1u] = m2;
        stats[4u * row + 2u] = all_d;
        stats[4u * row + 3u] = all_dx;
    }
}

// Mean and 1 / sqrt(variance + eps) of a row's whole group, from its parts' stats, `each` numbers a part.
fn moments(row: u32, lane: u32, each: u32) -> vec2<f32> {
    let all = f32(p.hw * (p.c / p.groups));
    let mine = (row / p.parts * p.parts + lane) * each;
    let there = lane < p.parts && row < p.rows;
    var n = 0.0;
    var mean = 0.0;
    var m2 = 0.0;
    if there {
        n = f32(count_of(lane));
        mean = stats[mine];
        m2 = stats[mine + 1u];
    }
    let middle = row_sum(n * mean, lane) / all;
    let d = mean - middle;
    let v = row_sum(m2 + n * d * d, lane) / all;
    return vec2<f32>(middle, 1.0 / sqrt(v + p.eps));
}
@compute @workgroup_size(WORKGROUP)
fn group_apply(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let per = p.c / p.groups;
    let c0 = channel_of(row);
    let base = base_of(row);
    let count = count_of(row % p.parts);
    let m = moments(row, lane, 2u);
    for (var i = first(lane, row); i < count; i += LANES) {
        let at = base + (i / per) * p.c + i % per;
        y[at] = activate((x[at] - m.x) * m.y * w[c0 + i % per] + shift[c0 + i % per], p.mode);
    }
}
@compute @workgroup_size(WORKGROUP)
fn group_apply_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = row_of(wg, grid, lane);
    let per = p.c / p.groups;
    let c0 = channel_of(row);
    let base = base_of(row);
    let count = count_of(row % p.parts);
    let m = moments(row, lane, 4u);
    let all = f32(p.hw * per);
    var sd = 0.0;
    var sdx = 0.0;
    if lane < p.parts && row < p.rows {
        let mine = (row / p.parts * p.parts + lane) * 4u;
        sd = stats[mine + 2u];
        sdx = stats[mine + 3u] + (stats[mine] - m.x) * sd;
    }
    let md = row_sum(sd, lane) / all;
    let mdn = row_sum(sdx, lane) / all * m.y;
    for (var i = first(lane, row); i < count; i += LANES) {
        let at = base + (i / per) * p.c + i % per;
        let n = (x[at] - m.x) * m.y;
        y[at] = m.y * (shift[at] * w[c0 + i % per] - md - n * mdn);
    }
}
