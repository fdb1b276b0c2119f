// What matmul variants that write one output at a time share: the small operands and the epilogue
// y[m, n] = residual[m, n] + gate[m / rows_per_batch, n] * act(acc + bias[n]); flags 1 bias, 2 gate, 4 residual.
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> gate: array<f32>;
@group(0) @binding(7) var<storage, read_write> residual: array<f32>;
@group(0) @binding(3) var<storage, read_write> low_a: array<f32>;
@group(0) @binding(4) var<storage, read_write> low_b: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;
fn finish(m: u32, n: u32, acc: f32) {
    if m >= p.m || n >= p.n { return; }
    var v = acc;
    if (p.flags & 1u) != 0u { v = v + bias[n]; }
    if p.act != 0u { v = activate(v, p.act); }
    if (p.flags & 2u) != 0u { v = v * gate[(m / p.rows_per_batch) * p.n + n]; }
    if (p.flags & 4u) != 0u { v = v + residual[m * p.n + n]; }
    y[m * p.n + n] = v;
}
