// Workgroup memory of passes on cooperative matrices, see attention_coop.wgsl; rows end with padding, against bank conflicts.
const LD = DP4 + 2u;
const CS = KEYS / 4u + 1u;
const CP = KEYS / 4u + 2u;
var<workgroup> logit: array<vec4<f32>, ROWS * CS>;
var<workgroup> prob: array<vec4<f16>, ROWS * CP>;
// A column past the head's last one is zero.
fn within(x: vec4<f32>, d: u32) -> vec4<f16> { return select(vec4<f16>(), vec4<f16>(x), d < D4); }
