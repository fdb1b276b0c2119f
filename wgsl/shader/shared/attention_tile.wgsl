// Workgroup memory of passes on tiles in f32, see attention_tile.wgsl; odd strides, against bank conflicts.
const AS = CHUNK + 1u;
const PS = SIDE + 1u;
var<workgroup> pool: array<vec4<f32>, POOL>;
var<workgroup> prob: array<vec4<f32>, TILE * PS>;
// A column past the head's last one is zero.
fn within(x: vec4<f32>, d: u32) -> vec4<f32> { return select(vec4<f32>(), x, d < D4); }
