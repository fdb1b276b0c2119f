// What matmul variants that write four neighbouring outputs at a time share; the epilogue is that of shared/matmul.wgsl.
// `part`: which of several partial sums over K; they lie one after another in y.
@group(0) @binding(5) var<storage, read_write> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> gate: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> residual: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> low_a: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> low_b: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> y: array<vec4<f32>>;
fn finish4(part: u32, m: u32, n: u32, acc: vec4<f32>) {
    if m >= p.m || n >= p.n { return; }
    var v = acc;
    let n4 = n / 4u;
    let row = p.n / 4u;
    if (p.flags & 1u) != 0u { v += bias[n4]; }
    if p.act != 0u { v = activate4(v); }
    if (p.flags & 2u) != 0u { v *= gate[(m / p.rows_per_batch) * row + n4]; }
    if (p.flags & 4u) != 0u { v += residual[m * row + n4]; }
    y[(part * p.m + m) * row + n4] = v;
}
fn activate4(v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(activate(v.x, p.act), activate(v.y, p.act), activate(v.z, p.act), activate(v.w, p.act));
}
