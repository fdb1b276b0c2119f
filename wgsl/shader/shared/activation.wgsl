// Activations and their derivatives, chosen by a uniform number (`Act` in wgsl/src/kernel/elementwise.rs).
// 0 none, 1 silu, 2 gelu (erf), 3 gelu (tanh), 4 quick_gelu, 5 relu.
// Reference: wgsl/src/cpu/unary.rs
fn tanh_safe(x: f32) -> f32 {
    // tanh overflows to NaN on drivers that compute it from exp(2x): clamp where it is 1 in f32 anyway.
    let e = exp(-2.0 * min(abs(x), 15.0));
    return sign(x) * (1.0 - e) / (1.0 + e);
}
// erf, Abramowitz & Stegun 7.1.26: absolute error below 1.5e-7.
fn erf(x: f32) -> f32 {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = ((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592;
    return sign(x) * (1.0 - p * t * exp(-a * a));
}
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }
fn activate(x: f32, act: u32) -> f32 {
    switch act {
        case 1u: { return x * sigmoid(x); }
        case 2u: { return 0.5 * x * (1.0 + erf(x * 0.70710678)); }
        case 3u: { return 0.5 * x * (1.0 + tanh_safe(0.79788456 * (x + 0.044715 * x * x * x))); }
        case 4u: { return x * sigmoid(1.702 * x); }
        case 5u: { return max(x, 0.0); }
        default: { return x; }
    }
}
fn activate_slope(x: f32, act: u32) -> f32 {
    switch act {
        case 1u: { let s = sigmoid(x); return s * (1.0 + x * (1.0 - s)); }
        case 2u: { return 0.5 * (1.0 + erf(x * 0.70710678)) + x * 0.39894228 * exp(-0.5 * x * x); }
        case 3u: {
            let t = tanh_safe(0.79788456 * (x + 0.044715 * x * x * x));
            return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.79788456 * (1.0 + 0.134145 * x * x);
        }
        case 4u: { let s = sigmoid(1.702 * x); return s * (1.0 + 1.702 * x * (1.0 - s)); }
        case 5u: { return select(0.0, 1.0, x > 0.0); }
        default: { return 1.0; }
    }
}
