// attention_dkv_coop: attention_dkv.wgsl with cooperative matrices: operands rounded to f16, sums in f32.
// q, dy: [B, Q, H*D]; k, v, dk, dv: [B, K, H*D]; stats: [B, H, Q, 2]; bias: [K]. D = 4 * D4, padded with zeros to DT matrices; flags as in
// attention.wgsl.
// As attention_coop.wgsl, but a workgroup holds ROWS keys and blocks of KEYS queries stream past. The transposed S and dP leave the
// matrices one after the other through `logit`; P and ds come back in `prob` and `slope`, in f16. P is kept 2^8 larger, away from f16's
// subnormal numbers; the scale of ds is up to the gradient's maker, with the largest |dy| between 1 and 1000.
// Reference: wgsl/src/cpu/attention.rs
// Paper: Dao et al. 2022, algorithm 4
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;
@group(0) @binding(7) var<storage, read_write> dk: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dv: array<vec4<f32>>;
var<workgroup> tile_q: array<vec4<f16>, KEYS * LD>;
var<workgroup> tile_g: array<vec4<f16>, KEYS * LD>;
var<workgroup> level: array<vec4<f32>, KEYS / 4u>;
var<workgroup> delta: array<vec4<f32>, KEYS / 4u>;
var<workgroup> slope: array<vec4<f16>, ROWS * CP>;
// Element n of a block that begins with query i0.
fn of_block(at: u32, i0: u32, n: u32) -> u32 {
    return at + min(i0 + n / DP4, p.q - 1u) * p.heads * D4 + min(n % DP4, D4 - 1u);
}
fn keep(n: u32, query: vec4<f32>, g: vec4<f32>) {
    if n < KEYS * DP4 {
        let to = (n / DP4) * LD + n % DP4;
        tile_q[to] = within(query, n % DP4);
        tile_g[to] = within(g, n % DP4);
    }
}
@compute @workgroup_size(WORKGROUP)
fn attention_dkv_coop(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(subgroup_id) wave: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let index = workgroup_of(wg, grid);
    let blocks = (p.k + ROWS - 1u) / ROWS;
    let bh = index / blocks;
    if bh >= p.batch * p.heads { return; }
    let k0 = (index % blocks) * ROWS;
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
    // Keys and values as matrices, KEYS columns at a time through this subgroup's part of `prob`.
//@ for m in 0..2
//@ for c in 0..(DT+CT-1)/CT
//@ for i in 0..PIECES
    {
        let n = lane + $iu * SUBGROUP;
        let x = n / (KEYS / 4u);
        let e = n % (KEYS / 4u);
        let d = $cu * (KEYS / 4u) + e;
        let at = at_k + min(k0 + mine + x, p.k - 1u) * row + min(d, D4 - 1u);
//@ if m == 0
        prob[(mine + x) * CP + e] = within(load_k(at), d);
//@ else
        prob[(mine + x) * CP + e] = within(load_v(at), d);
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
    let j = min(k0 + mine + r, p.k - 1u);
    var extra = 0.0;
    if (p.flags & 1u) != 0u { extra = 1.44269504 * bias[j]; }
    var zero: MatrixC;
    let z = zero;
//@ for d in 0..DT
    var dk_$d: MatrixC;
    var dv_$d: MatrixC;
//@ end
    let causal = (p.flags & 2u) != 0u;
    let start = select(0u, (k0 / KEYS) * KEYS, causal);
    for (var i0 = start; i0 < p.q; i0 += KEYS) {
        workgroupBarrier();
//@ for i in 0..STEPS
        let q_$i = load_q(of_block(at_q, i0, tid + $iu * WORKGROUP));
        let g_$i = load_dy(of_block(at_q, i0, tid + $iu * WORKGROUP));
//@ end
        if tid < KEYS / 4u {
            var l: vec4<f32>;
            var e: vec4<f32>;
//@ for x in 0..4
            {
                let i = i0 + 4u * tid + $xu;
                let at = 2u * (bh * p.q + min(i, p.q - 1u));
                // Queries past the end get P = 0.
                l[$x] = select(3.0e38, stats[at] * 1.44269504 - 8.0, i < p.q);
                e[$x] = stats[at + 1u] * 0.00390625;
            }
//@ end
            level[tid] = l;
            delta[tid] = e;
        }
//@ for i in 0..STEPS
        keep(tid + $iu * WORKGROUP, q_$i, g_$i);
//@ end
        workgroupBarrier();
        // ST = k qT
//@ for t in 0..CT
        let s_$t_0 = z;
//@ for d in 0..DT
        let q_$t_$d = coopLoad<MatrixB>(&tile_q[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        let s_$t_$(d+1) = coopMultiplyAdd(a0_$d, q_$t_$d, s_$t_$d);
//@ end
        let to_$t = mine * CS + $(t*EDGE/4)u;
        coopStoreT(s_$t_$(DT), &logit[to_$t], cs);
//@ end
        workgroupBarrier();
        let at_s = (mine + r) * CS + part * PIECES;
//@ for i in 0..PIECES
        var t_$i = exp2(logit[at_s + $iu] * c + (extra - level[part * PIECES + $iu]));
//@ end
        workgroupBarrier();
        // dPT = v dyT
//@ for t in 0..CT
        let d_$t_0 = z;
//@ for d in 0..DT
        let g_$t_$d = coopLoad<MatrixB>(&tile_g[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        let d_$t_$(d+1) = coopMultiplyAdd(a1_$d, g_$t_$d, d_$t_$d);
//@ end
        coopStoreT(d_$t_$(DT), &logit[to_$t], cs);
//@ end
        workgroupBarrier();
//@ for i in 0..PIECES
        {
            if causal { t_$i = select(vec4<f32>(), t_$i, vec4<u32>(j) <= four(i0 + 4u * (part * PIECES + $iu))); }
            let to = (mine + r) * CP + part * PIECES + $iu;
            prob[to] = vec4<f16>(t_$i);
            slope[to] = vec4<f16>(t_$i * (0.00390625 * logit[at_s + $iu] - delta[part * PIECES + $iu]));
        }
//@ end
        workgroupBarrier();
        // dv += PT dy, dk += dsT q
//@ for t in 0..CT
        let p_$t = coopLoadT<MatrixA>(&prob[mine * CP + $(t*EDGE/4)u], cp);
        let e_$t = coopLoadT<MatrixA>(&slope[mine * CP + $(t*EDGE/4)u], cp);
//@ for d in 0..DT
        let y_$t_$d = coopLoadT<MatrixB>(&tile_g[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        let x_$t_$d = coopLoadT<MatrixB>(&tile_q[$(t*EDGE)u * LD + $(d*EDGE/4)u], ld);
        dv_$d = coopMultiplyAdd(p_$t, y_$t_$d, dv_$d);
        dk_$d = coopMultiplyAdd(e_$t, x_$t_$d, dk_$d);
//@ end
//@ end
    }
    // dk and dv leave through `logit`, KEYS columns at a time.
//@ for m in 0..2
//@ for c in 0..(DT+CT-1)/CT
    workgroupBarrier();
//@ for t in 0..CT
//@ if c*CT+t < DT
    {
//@ if m == 0
        let value = dk_$(c*CT+t);
//@ else
        let value = dv_$(c*CT+t);
//@ end
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
        let to = k0 + mine + x;
        if to < p.k && d < D4 {
//@ if m == 0
            dk[at_k + to * row + d] = p.scale * logit[(mine + x) * CS + e];
//@ else
            dv[at_k + to * row + d] = 0.00390625 * logit[(mine + x) * CS + e];
//@ end
        }
    }
//@ end
//@ end
//@ end
}
