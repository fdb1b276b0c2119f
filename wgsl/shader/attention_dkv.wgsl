// attention_dkv: dv = sum over queries of P dy; dk = scale * sum over queries of ds q; P and ds as in attention_dq.wgsl.
// q, dy: [B, Q, H*D]; k, v, dk, dv: [B, K, H*D]; stats: [B, H, Q, 2]; bias: [K].
// One invocation per KEYS keys of one head; queries stream past.
// Arrays of arrays, each as long as the loop over it, so that drivers unroll the loops; see REJECTED.md.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;
@compute @workgroup_size(WORKGROUP)
fn attention_dkv(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let blocks = (p.k + KEYS - 1u) / KEYS;
    let bh = i / blocks;
    if bh >= p.batch * p.heads { return; }
    let k0 = (i % blocks) * KEYS;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    var key: array<array<vec4<f32>, D4>, KEYS>;
    var value: array<array<vec4<f32>, D4>, KEYS>;
    var acc_k: array<array<vec4<f32>, D4>, KEYS>;
    var acc_v: array<array<vec4<f32>, D4>, KEYS>;
    var extra: array<f32, KEYS>;
    for (var n = 0u; n < KEYS; n++) {
        let at = min(k0 + n, p.k - 1u);
        extra[n] = 0.0;
        if (p.flags & 1u) != 0u { extra[n] = bias[at]; }
        for (var d = 0u; d < D4; d++) {
            key[n][d] = p.scale * load_k((b * p.k + at) * row + h * D4 + d);
            value[n][d] = load_v((b * p.k + at) * row + h * D4 + d);
            acc_k[n][d] = vec4<f32>();
            acc_v[n][d] = vec4<f32>();
        }
    }
    for (var j = 0u; j < p.q; j++) {
        let at = (b * p.q + j) * row + h * D4;
        let lse = stats[2u * (bh * p.q + j)];
        let delta = stats[2u * (bh * p.q + j) + 1u];
        var s: array<f32, KEYS>;
        var dp: array<f32, KEYS>;
        for (var n = 0u; n < KEYS; n++) { s[n] = extra[n]; dp[n] = 0.0; }
        for (var d = 0u; d < D4; d++) {
            let query = load_q(at + d);
            let grad = load_dy(at + d);
            for (var n = 0u; n < KEYS; n++) {
                s[n] = s[n] + dot(key[n][d], query);
                dp[n] = dp[n] + dot(value[n][d], grad);
            }
        }
        for (var n = 0u; n < KEYS; n++) {
            let seen = (p.flags & 2u) == 0u || k0 + n <= j;
            s[n] = select(0.0, exp(s[n] - lse), seen);
            dp[n] = s[n] * (dp[n] - delta) * p.scale;
        }
        for (var d = 0u; d < D4; d++) {
            let query = load_q(at + d);
            let grad = load_dy(at + d);
            for (var n = 0u; n < KEYS; n++) {
                acc_k[n][d] = acc_k[n][d] + dp[n] * query;
                acc_v[n][d] = acc_v[n][d] + s[n] * grad;
            }
        }
    }
    for (var n = 0u; n < KEYS; n++) {
        if k0 + n < p.k {
            for (var d = 0u; d < D4; d++) {
                dk[(b * p.k + k0 + n) * row + h * D4 + d] = acc_k[n][d];
                dv[(b * p.k + k0 + n) * row + h * D4 + d] = acc_v[n][d];
            }
        }
    }
}
