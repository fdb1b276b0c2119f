// attention: y = softmax(scale q kT + bias) v per head, never storing the S x S matrix; lse = log sum exp, kept for backward.
// q, y: [B, Q, H*D]; k, v: [B, K, H*D]; bias: [K], added to every query's logits, or [H, Q, K]; lse: [B, H, Q].
// One invocation per QUERIES queries of one head; keys stream past; D = 4 * D4 is a constant.
// flags: 1 bias by key, 2 causal (key j is seen by queries i >= j), 4 bias by head, query and key.
// Arrays of arrays, each as long as the loop over it, so that drivers unroll the loops; see REJECTED.md.
// Reference: wgsl/src/cpu/attention.rs
// Papers: Milakov & Gimelshein 2018 (online softmax); Dao et al. 2022, algorithm 1
@group(0) @binding(4) var<storage, read_write> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;
@compute @workgroup_size(WORKGROUP)
fn attention(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = linear(wg, grid, lane);
    let blocks = (p.q + QUERIES - 1u) / QUERIES;
    let bh = i / blocks;
    if bh >= p.batch * p.heads { return; }
    let q0 = (i % blocks) * QUERIES;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    var query: array<array<vec4<f32>, D4>, QUERIES>;
    var acc: array<array<vec4<f32>, D4>, QUERIES>;
    var top: array<f32, QUERIES>;
    var total: array<f32, QUERIES>;
    for (var n = 0u; n < QUERIES; n++) {
        top[n] = -3.0e38;
        total[n] = 0.0;
        for (var d = 0u; d < D4; d++) {
            query[n][d] = p.scale * load_q((b * p.q + min(q0 + n, p.q - 1u)) * row + h * D4 + d);
            acc[n][d] = vec4<f32>();
        }
    }
    for (var j = 0u; j < p.k; j++) {
        let at = (b * p.k + j) * row + h * D4;
        var s: array<f32, QUERIES>;
        var extra = 0.0;
        if (p.flags & 1u) != 0u { extra = bias[j]; }
        for (var n = 0u; n < QUERIES; n++) { s[n] = extra; }
        if (p.flags & 4u) != 0u {
            for (var n = 0u; n < QUERIES; n++) { s[n] = bias[(h * p.q + min(q0 + n, p.q - 1u)) * p.k + j]; }
        }
        for (var d = 0u; d < D4; d++) {
            let key = load_k(at + d);
            for (var n = 0u; n < QUERIES; n++) { s[n] = s[n] + dot(query[n][d], key); }
        }
        var shrink: array<f32, QUERIES>;
        for (var n = 0u; n < QUERIES; n++) {
            if (p.flags & 2u) != 0u && j > q0 + n { s[n] = -3.0e38; }
            let peak = max(top[n], s[n]);
            shrink[n] = exp(top[n] - peak);
            s[n] = select(exp(s[n] - peak), 0.0, s[n] <= -3.0e38);
            total[n] = total[n] * shrink[n] + s[n];
            top[n] = peak;
        }
        for (var d = 0u; d < D4; d++) {
            let value = load_v(at + d);
            for (var n = 0u; n < QUERIES; n++) { acc[n][d] = acc[n][d] * shrink[n] + s[n] * value; }
        }
    }
    for (var n = 0u; n < QUERIES; n++) {
        if q0 + n < p.q {
            for (var d = 0u; d < D4; d++) { y[(b * p.q + q0 + n) * row + h * D4 + d] = acc[n][d] / total[n]; }
            lse[bh * p.q + q0 + n] = top[n] + log(total[n]);
        }
    }
}
