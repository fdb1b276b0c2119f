// attention_dq: dq = scale * sum over keys of ds * k, ds = P (dP - delta), P = exp(s - lse), dP = dy . v.
// q, dy, dq: [B, Q, H*D]; k, v: [B, K, H*D]; stats: [B, H, Q, 2]; bias: [K].
// One invocation per QUERIES queries of one head; keys stream past. P is recomputed, as in the forward pass.
// Arrays of arrays, each as long as the loop over it, so that drivers unroll the loops; see REJECTED.md.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;
@compute @workgroup_size(WORKGROUP)
fn attention_dq(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let blocks = (p.q + QUERIES - 1u) / QUERIES;
    let bh = i / blocks;
    if bh >= p.batch * p.heads { return; }
    let q0 = (i % blocks) * QUERIES;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    var query: array<array<vec4<f32>, D4>, QUERIES>;
    var grad: array<array<vec4<f32>, D4>, QUERIES>;
    var acc: array<array<vec4<f32>, D4>, QUERIES>;
    var lse: array<f32, QUERIES>;
    var delta: array<f32, QUERIES>;
    for (var n = 0u; n < QUERIES; n++) {
        let at = min(q0 + n, p.q - 1u);
        lse[n] = stats[2u * (bh * p.q + at)];
        delta[n] = stats[2u * (bh * p.q + at) + 1u];
        for (var d = 0u; d < D4; d++) {
            query[n][d] = p.scale * load_q((b * p.q + at) * row + h * D4 + d);
            grad[n][d] = load_dy((b * p.q + at) * row + h * D4 + d);
            acc[n][d] = vec4<f32>();
        }
    }
    for (var j = 0u; j < p.k; j++) {
        let at = (b * p.k + j) * row + h * D4;
        var s: array<f32, QUERIES>;
        var dp: array<f32, QUERIES>;
        var extra = 0.0;
        if (p.flags & 1u) != 0u { extra = bias[j]; }
        for (var n = 0u; n < QUERIES; n++) { s[n] = extra; dp[n] = 0.0; }
        for (var d = 0u; d < D4; d++) {
            let key = load_k(at + d);
            let value = load_v(at + d);
            for (var n = 0u; n < QUERIES; n++) {
                s[n] = s[n] + dot(query[n][d], key);
                dp[n] = dp[n] + dot(grad[n][d], value);
            }
        }
        for (var n = 0u; n < QUERIES; n++) {
            let seen = (p.flags & 2u) == 0u || j <= q0 + n;
            s[n] = select(0.0, exp(s[n] - lse[n]) * (dp[n] - delta[n]) * p.scale, seen);
        }
        for (var d = 0u; d < D4; d++) {
            let key = load_k(at + d);
            for (var n = 0u; n < QUERIES; n++) { acc[n][d] = acc[n][d] + s[n] * key; }
        }
    }
    for (var n = 0u; n < QUERIES; n++) {
        if q0 + n < p.q {
            for (var d = 0u; d < D4; d++) { dq[(b * p.q + q0 + n) * row + h * D4 + d] = acc[n][d]; }
        }
    }
}
