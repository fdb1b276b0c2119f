// attention_dq_coop: attention_dq.wgsl with cooperative matrices: operands rounded to f16, sums in f32.
// q, dy, dq: [B, Q, H*D]; k, v: [B, K, H*D]; stats: [B, H, Q, 2]; bias: [K]. D = 4 * D4, padded with zeros to DT matrices; flags as in
// attention.wgsl.
// Queries and keys are shared out as in attention_coop.wgsl. S and dP leave the matrices one after the other through `logit`; ds comes
// back in `prob`, in f16: the gradient's scale is up to its maker, with the largest |dy| between 1 and 1000.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<vec4<f32>>;
var<workgroup> tile_k: array<vec4<f16>, KEYS * LD>;
var<workgroup> tile_v: array<vec4<f16>, KEYS * LD>;
// Element n of a block that begins with key j0.
fn of_block(at: u32, j0: u32, n: u32) -> u32 {
    return at + min(j0 + n / DP4, p.k - 1u) * p.heads * D4 + min(n % DP4, D4 - 1u);
}
fn keep(n: u32, key: vec4<f32>, value: vec4<f32>) {
    if n < KEYS * DP4 {
        let to = (n / DP4) * LD + n % DP4;
        tile_k[to] = within(key, n % DP4);
        tile_v[to] = within(value, n % DP4);
    }
}
@compute @workgroup_size(WORKGROUP)
fn attention_dq_coop(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(subgroup_id) wave: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let index = workgroup_of(wg, grid);
    let blocks = (p.q + ROWS - 1u) / ROWS;
    let bh = index / blocks;
    if bh >= p.batch * p.heads { return; }
    let q0 = (index % blocks) * ROWS;
    let b = bh / p.heads;
    let h = bh % p.heads;
    let row = p.heads * D4;
    let tid = wave * SUBGROUP + lane;
    let mine = wave * EDGE;
    let r = lane % EDGE;
    let part = lane / EDGE;
    let at_q = b * p.q * row + h * D4;
    let at_k = b * p.k * row + h * D4;
    let ld = LD;
    let cs = CS;
    let cp = CP;
    // Queries and dy as matrices, KEYS columns at a time through this subgroup's part of `prob`.
//@ for m in 0..2
//@ for c in 0..(DT+CT-1)/CT
//@ for i in 0..PIECES
    {
        let n = lane + $iu * SUBGROUP;
        let x = n / (KEYS / 4u);
        let e = n % (KEYS / 4u);
        let d = $cu * (KEYS / 4u) + e;
        let at = at_q + min(q0 + mine + x, p.q - 1u) * row + min(d, D4 - 1u);
//@ if m == 0
        prob[(mine + x) * CP + e] = within(load_q(at), d);
//@ else
        prob[(mine + x) * CP + e] = within(load_dy(at), d);
//@ end
    }
//@ end
    workgroupBarrier();
//@ for t in 0..CT
//@ if c*CT+t < DT
    let a$m_$(c*CT+t) = coopLoadT<MatrixA>(&prob[mine * CP + $(t*EDGE/4)u], cp);
//@ end
//@ end
    workgroupBarrier();
//@ end
//@ end
    let c = p.scale * 1.44269504;
    let i = min(q0 + mine + r, p.q - 1u);
    let level = stats[2u * (bh * p.q + i)] * 1.44269504;
    let delta = stats[2u * (bh * p.q + i) + 1u];
    var zero: MatrixC;
    let z = zero;
//@ for d in 0..DT
    var o_$d: MatrixC;
//@ end
    let causal = (p.flags & 2u) != 0u;
    let end = select(p.k, min(p.k, q0 + ROWS), causal);
    for (var j0 = 0u; j0 < end; j0 += KEYS) {
        workgroupBarrier();
//@ for i in 0..STEPS
        let k_$i = load_k(of_block(at_k, j0, tid + $iu * WORKGROUP));
        let v_$i = load_v(of_block(at_k, j0, tid + $iu * WORKGROUP));
//@ end
//@ for i in 0..STEPS
        keep(tid + $iu * WORKGROUP, k_$i, v_$i);
//@ end
        workgroupBarrier();
        // S = q kT
//@ for t in 0..CT
        let s_$t_0 = z;
//@ for d in 0..DT
        let k_$t_$d = coopLoad<MatrixB>(&tile_k[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        let s_$t_$(d+1) = coopMultiplyAdd(a0_$d, k_$t_$d, s_$t_$d);
//@ end
        let to_$t = mine * CS + $(t*EDGE/4)u;
        coopStoreT(s_$t_$(DT), &logit[to_$t], cs);
//@ end
        workgroupBarrier();
        let at_s = (mine + r) * CS + part * PIECES;
//@ for i in 0..PIECES
        var t_$i = logit[at_s + $iu] * c;
//@ end
        workgroupBarrier();
        // dP = dy vT
//@ for t in 0..CT
        let g_$t_0 = z;
//@ for d in 0..DT
        let v_$t_$d = coopLoad<MatrixB>(&tile_v[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        let g_$t_$(d+1) = coopMultiplyAdd(a1_$d, v_$t_$d, g_$t_$d);
//@ end
        coopStoreT(g_$t_$(DT), &logit[to_$t], cs);
//@ end
        workgroupBarrier();
        if j0 + KEYS > p.k || (p.flags & 1u) != 0u || (causal && j0 + KEYS > q0 + 1u) {
            let last = select(p.k, min(p.k, i + 1u), causal);
//@ for i in 0..PIECES
            {
                let j = four(j0 + 4u * (part * PIECES + $iu));
                if (p.flags & 1u) != 0u { t_$i += bias_of(min(j, vec4<u32>(p.k - 1u))); }
                t_$i = select(vec4<f32>(-3.0e38), t_$i, j < vec4<u32>(last));
            }
//@ end
        }
//@ for i in 0..PIECES
        prob[(mine + r) * CP + part * PIECES + $iu] = vec4<f16>(exp2(t_$i - level) * (logit[at_s + $iu] - delta));
//@ end
        workgroupBarrier();
        // dq += ds k
//@ for t in 0..CT
        let p_$t = coopLoadT<MatrixA>(&prob[mine * CP + $(t*EDGE/4)u], cp);
//@ for d in 0..DT
        let b_$t_$d = coopLoadT<MatrixB>(&tile_k[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        o_$d = coopMultiplyAdd(p_$t, b_$t_$d, o_$d);
//@ end
//@ end
    }
    // dq leaves through `logit`, KEYS columns at a time.
//@ for c in 0..(DT+CT-1)/CT
    workgroupBarrier();
//@ for t in 0..CT
//@ if c*CT+t < DT
    {
        let value = o_$(c*CT+t);
        let to = mine * CS + $(t*EDGE/4)u;
        coopStoreT(value, &logit[to], cs);
    }
//@ end
//@ end
    workgroupBarrier();
//@ for i in 0..PIECES
    {
        let n = lane + $iu * SUBGROUP;
        let x = n / (KEYS / 4u);
        let e = n % (KEYS / 4u);
        let d = $cu * (KEYS / 4u) + e;
        let to = q0 + mine + x;
        if to < p.q && d < D4 { dq[at_q + to * row + d] = p.scale * logit[(mine + x) * CS + e]; }
    }
//@ end
//@ end
}
