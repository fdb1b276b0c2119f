// unary: y = f(x), elementwise; unary_backward: dx = dy * f'(x).
// x, y, dy, dx: [N].
// One invocation per ITEM neighbouring elements.
// Reference: wgsl/src/cpu/unary.rs
struct Params { n: u32, op: u32, alpha: f32, beta: f32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<Item>;
@group(0) @binding(2) var<storage, read_write> y: array<Item>;
@group(0) @binding(3) var<storage, read_write> dx: array<Item>;

// Numbers from 16 on are not activations: see `Unary` in wgsl/src/kernel/elementwise.rs.
// The power of two that brings x to between 1/16 and 1/8, from its exponent; 1 where there is none, or a sign.
fn balance(x: f32) -> f32 {
    let exponent = bitcast<u32>(x) >> 23u;
    if exponent == 0u || exponent >= 255u { return 1.0; }
    return bitcast<f32>(u32(max(250 - i32(exponent), 1)) << 23u);
}
fn value(x: f32) -> f32 {
    switch p.op {
        case 16u: { return p.alpha * x + p.beta; }
        case 17u: { return exp(x); }
        case 18u: { return x * x; }
        case 19u: { return clamp(x, p.alpha, p.beta); }
        case 20u: { return sqrt(x); }
        case 21u: { return 1.0 / x; }
        case 22u: { return abs(x); }
        case 23u: { return balance(x); }
        default: { return activate(x, p.op); }
    }
}
fn slope(x: f32) -> f32 {
    switch p.op {
        case 16u: { return p.alpha; }
        case 17u: { return exp(x); }
        case 18u: { return 2.0 * x; }
        case 19u: { return select(0.0, 1.0, x >= p.alpha && x <= p.beta); }
        case 20u: { return 0.5 / sqrt(x); }
        case 21u: { return -1.0 / (x * x); }
        case 22u: { return sign(x); }
        case 23u: { return 0.0; }
        default: { return activate_slope(x, p.op); }
    }
}
//@ if ITEM == 4
fn values(x: Item) -> Item { return Item(value(x.x), value(x.y), value(x.z), value(x.w)); }
fn slopes(x: Item) -> Item { return Item(slope(x.x), slope(x.y), slope(x.z), slope(x.w)); }
//@ else
fn values(x: Item) -> Item { return value(x); }
fn slopes(x: Item) -> Item { return slope(x); }
//@ end
@compute @workgroup_size(WORKGROUP)
fn unary(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i < p.n / ITEM { y[i] = values(x[i]); }
}
@compute @workgroup_size(WORKGROUP)
fn unary_backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    if i < p.n / ITEM { dx[i] = y[i] * slopes(x[i]); } // y holds dy here
}
